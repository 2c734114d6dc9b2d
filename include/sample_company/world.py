"""The settings that all tables of a sample database share, such as size, time, seed and rates."""

from __future__ import annotations

from calendar import isleap
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cached_property
from hashlib import sha256
from math import ceil

import numpy as np
import numpy.typing as npt

from include.sample_company.chance import CLEAN, Chance, Ints, Mask, VariantPlan
from include.sample_company.columns import DAY
from include.sample_company.employee import Staff
from include.sample_company.pools import Pools, pools


def _customer_defects() -> dict[str, int]:
    return {
        "invalid_id_check_digit": 4,
        "invalid_id_birth_date": 2,
        "invalid_phone": 4,
        "missing_name": 1,
        "missing_phone": 2,
        "missing_id_number": 2,
        "over_collected_religion": 3,
        "duplicate_customer": 3,
        "stale_customer": 8,
        "no_reviewer": 2,
        "reviewer_is_enterer": 2,
        "unknown_division": 3,
        "consent_missing": 4,
        "consent_not_covering_purpose": 4,
        "consent_withdrawn": 3,
        "minor_without_guardian_consent": 1,
        # These rows are not defects, but unusual rows that a wrong expectation would report.
        "minor": 5,
        "closed": 20,
        "formatted_phone": 6,
        "unknown_id_division": 2,
    }


def _waybill_defects() -> dict[str, int]:
    return {"contact_not_masked": 20, "invalid_waybill_number": 2}


def _access_defects() -> dict[str, int]:
    return {"access_without_approval": 6, "access_out_of_purpose": 4, "access_after_approval": 3}


def _share_defects() -> dict[str, int]:
    return {"share_without_basis": 8, "share_lapsed_nda": 20, "share_excess_fields": 6}


@dataclass(frozen=True)
class Rates:
    """The sizes of the sample's tables, and the rates of deliberate defects.

    A rate per thousand gives exactly that number of rows in each full thousand of consecutive rows,
    unless the defect is impossible for a row. For example, a customer who signed up yesterday
    cannot be stale. The answer sheet lists the rows with defects.

    Attributes:
        waybills: number of waybills per customer.
        proofs: delivered waybills with a proof of delivery, per thousand.
        complaints: complaints per thousand customers.
        accesses: number of accesses per customer; ten accesses have the same approval.
        shares: number of shares of customer data with partners, per customer.
        late_returns: closed accounts, per thousand, whose data a partner kept for years after the
            closing. If the account was closed more than three years ago, the partner returned or
            deleted the data less than three years ago.
        second_address: customers with a second address, per thousand.
        marketing: customers who subscribed to marketing, per thousand.
        partner_sharing: customers who consented to sharing with partners, per thousand.
        customer_defects: name of the defect -> number of customers with it, per thousand.
        waybill_defects: name of the defect -> number of waybills with it, per thousand.
        access_defects: name of the defect -> number of accesses with it, per thousand.
        share_defects: name of the defect -> number of shares with it, per thousand.
        approvals_by_requester: approvals that their own requester decided, per thousand.
        open_complaints: complaints that are still open, per thousand.
        old_complaints: complaints past their retention period, per thousand.
        canaries: number of customers with unique values for which tests search, at most half of all
            customers.
        stale_days: number of days after which a customer record that was not verified again is
            stale.
        mask_days: number of days after delivery from which contact fields are masked.
    """

    waybills: float = 2.0
    proofs: int = 400
    complaints: int = 30
    accesses: float = 0.5
    shares: float = 0.1
    late_returns: int = 250
    second_address: int = 200
    marketing: int = 200
    partner_sharing: int = 100
    customer_defects: dict[str, int] = field(default_factory=_customer_defects)
    waybill_defects: dict[str, int] = field(default_factory=_waybill_defects)
    access_defects: dict[str, int] = field(default_factory=_access_defects)
    share_defects: dict[str, int] = field(default_factory=_share_defects)
    approvals_by_requester: int = 10
    open_complaints: int = 100
    old_complaints: int = 200
    canaries: int = 8
    stale_days: int = 365
    mask_days: int = 90


HOUR = 3600
SHANGHAI = timedelta(hours=8)
_ZONE = timezone(SHANGHAI)
CUSTOMER_DAYS = 2192  # the first customer signed up six years ago


@dataclass(frozen=True)
class World:
    """The settings of a sample database, and the values that several of its tables use.

    Attributes:
        customers: number of customers.
        seed: seed of the random numbers.
        as_of: time for which the database is generated, timezone-aware. No event in the database is
            later.
        rates: sizes of tables and rates of deliberate defects.
        staff: employees of the sample company; empty until ``staff.build`` is called.
    """

    customers: int
    seed: int
    as_of: datetime
    rates: Rates
    staff: list[Staff] = field(default_factory=list)

    @cached_property
    def chance(self) -> Chance:
        """The generator of the random numbers from which the sample is generated."""
        return Chance(self.seed)

    @cached_property
    def pools(self) -> Pools:
        """The names, streets and administrative divisions from which the generators choose."""
        return pools()

    @cached_property
    def now(self) -> int:
        """``as_of`` in seconds since 1970."""
        return int(self.as_of.timestamp())

    @cached_property
    def today(self) -> int:
        """The day of ``as_of`` in UTC, in days since 1970."""
        return self.now // DAY

    def years_ago(self, years: int) -> int:
        """Return ``as_of`` minus a number of calendar years, in seconds since 1970.

        The years are subtracted as PostgreSQL subtracts them in Asia/Shanghai, the timezone of the
        shipped policy pack.
        """
        moment = self.as_of.astimezone(_ZONE)
        try:
            return int(moment.replace(year=moment.year - years).timestamp())
        except ValueError:  # 29 February
            return int(moment.replace(year=moment.year - years, day=28).timestamp())

    def past(self, moments: Ints, years: int) -> Mask:
        """Return for each time whether it is more than ``years`` calendar years before ``as_of``.

        The years are added to the time as PostgreSQL adds them in the timezone Asia/Shanghai: 29
        February becomes 28 February if the resulting year is not a leap year.

        Args:
            moments: times in seconds since 1970.
            years: number of calendar years.
        """
        now = self.as_of.astimezone(_ZONE)
        year = now.year - years
        if (now.month, now.day) == (2, 29) and not isleap(year):
            # Every moment of the 28th stays on the 28th in later years, so it is before the 29th.
            return moments < int(datetime(year, 3, 1, tzinfo=_ZONE).timestamp())
        limit = self.years_ago(years)
        if (now.month, now.day) == (2, 28) and isleap(year) and not isleap(now.year):
            leap_day = int(datetime(year, 2, 29, tzinfo=_ZONE).timestamp())
            return (moments < limit) | (moments >= leap_day) & (moments < limit + DAY)
        return moments < limit

    # --- sizes ---

    @cached_property
    def waybills(self) -> int:
        """The number of waybills in the database."""
        return round(self.customers * self.rates.waybills)

    @cached_property
    def complaints(self) -> int:
        """The number of complaints in the database, at least one per canary customer."""
        return max(ceil(self.customers * self.rates.complaints / 1000), len(self.canaries))

    @cached_property
    def approvals(self) -> int:
        """The number of access approvals of employees who are entitled to access."""
        return ceil(self.customers * self.rates.accesses / 10)

    @cached_property
    def shares(self) -> int:
        """The number of shares of customer data with partners, without shares with a late return.

        `Rates.late_returns` decides the number of shares with a late return: the partner kept the
        data for years after the customer's account was closed.
        """
        return ceil(self.customers * self.rates.shares)

    # --- canary customers ---

    @cached_property
    def canaries(self) -> Ints:
        """The numbers of the canary customers, who have unique values for which tests search.

        Canary customers are among the first half of the customers by sign-up time.
        """
        count = min(self.rates.canaries, (self.customers + 1) // 2)
        numbers = (np.arange(1, count + 1) * self.customers) // (2 * count + 1) + 1
        return np.unique(numbers).astype(np.int64)

    def token(self, canary: int) -> str:
        """Return 10 characters that occur only in the values of one canary customer.

        Tests search for these characters in outputs that must not contain customer data.

        Args:
            canary: number of the canary customer.
        """
        return sha256(f"canary {self.seed} {canary}".encode()).hexdigest()[:10]

    # --- customers over time ---

    @cached_property
    def _first_customer(self) -> int:
        return self.now - CUSTOMER_DAYS * DAY

    @cached_property
    def _customer_span(self) -> int:
        return CUSTOMER_DAYS * DAY - 6 * HOUR

    def customer_created(self, ids: Ints) -> Ints:
        """Return the sign-up time of each customer, in seconds since 1970.

        Customers with higher numbers signed up later.
        """
        step = self._customer_span / max(self.customers, 1)
        jitter = self.chance.unit(ids, "customer created") * min(step, DAY)
        return (self._first_customer + (ids - 1) * step + jitter).astype(np.int64)

    def customers_at(self, moments: Ints) -> Ints:
        """Return the number of customers who had signed up by each of the given times.

        If the result for a time is n, these are the customers 1 to n.

        Args:
            moments: times in seconds since 1970, at least one day after the first customer signed
                up.
        """
        share = (moments - self._first_customer - DAY) / self._customer_span
        return np.clip((share * self.customers).astype(np.int64) + 1, 1, self.customers)

    def customer_for(self, rows: Ints, moments: Ints, salt: str) -> Ints:
        """Return for each event a random customer whose account was open at the time of the event.

        Args:
            rows: numbers of the events.
            moments: times of the events, in seconds since 1970.
            salt: purpose of the choice, such as ``sender``. Another salt gives other customers.
        """
        existing = self.customers_at(moments)
        chosen = (self.chance.unit(rows, salt) * existing).astype(np.int64) + 1
        closed = np.flatnonzero(self.variants(chosen) == self.customer_plan.code("closed"))
        gone = closed[self.closed_at(chosen[closed]) <= moments[closed]]
        if gone.size:
            partners = self.customer_plan.partners(chosen[gone])
            chosen[gone] = np.where(partners <= existing[gone], partners, 1)
        return chosen

    def closed_at(self, ids: Ints) -> Ints:
        """Return the time at which each customer's account was closed, in seconds since 1970.

        Args:
            ids: numbers of customers whose account the generator closed (variant ``closed``).
        """
        created = self.customer_created(ids)
        share = 0.1 + 0.85 * self.chance.unit(ids, "customer closed")
        return created + ((self.now - created) * share).astype(np.int64)

    def late_returns(self, ids: Ints) -> Mask:
        """Return for each customer whether a partner kept data of the closed account for years.

        Only customers of the variant ``closed`` have a closed account.
        """
        is_late: Mask = self.chance.below(ids, 1000, "late return") < self.rates.late_returns
        is_late &= self.variants(ids) == self.customer_plan.code("closed")
        return is_late

    # --- planted variants ---

    @cached_property
    def customer_plan(self) -> VariantPlan:
        """The choice of the customers that get a deliberate variant, such as an invalid phone."""
        return VariantPlan(self.chance, "customer", self.rates.customer_defects)

    @cached_property
    def waybill_plan(self) -> VariantPlan:
        """The choice of the waybills that get a deliberate variant, such as an invalid number."""
        return VariantPlan(self.chance, "waybill", self.rates.waybill_defects)

    def variants(self, ids: Ints) -> npt.NDArray[np.uint8]:
        """Return the code of each customer's variant; ``CLEAN`` for a customer without a variant.

        A variant is what the generator makes unusual about a customer on purpose, such as an
        invalid phone number. If ``customer_plan`` chooses a variant that is impossible for a
        customer, the customer has no variant.
        """
        plan = self.customer_plan
        variants = plan.variants(ids)
        planted = np.flatnonzero(variants != CLEAN)
        if not planted.size:
            return variants
        kind, customer = variants[planted], ids[planted]
        partner = plan.partners(customer)
        created = self.customer_created(customer)
        young = created > self.now - (self.rates.stale_days + 60) * DAY
        impossible: Mask = (
            (customer > self.customers)
            | np.isin(customer, self.canaries)
            | ((kind == plan.code("duplicate_customer")) & (partner > self.customers))
            | ((kind == plan.code("stale_customer")) & young)
            | ((kind == plan.code("closed")) & young)
        )
        variants[planted[impossible]] = CLEAN
        return variants
