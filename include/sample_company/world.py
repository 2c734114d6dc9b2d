"""Size, time, seed, rates and customers of a sample, on which all of its tables agree."""

from __future__ import annotations

from calendar import isleap
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cached_property
from hashlib import sha256
from math import ceil

import numpy as np
import numpy.typing as npt

from include.sample_company.chance import CLEAN, Chance, Ints, Mask, Plan
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
        # Not defects: what a careless rule would take for one.
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
    """Sizes and rates of the sample; the answer sheet names what came of them.

    Per-thousand figures are exact in every full thousand of consecutive rows (fewer where a rule
    of the row's own history stands against it, e.g. a customer of yesterday cannot be stale).

    Attributes:
        waybills: per customer.
        proofs: delivered waybills in a thousand that have a proof of delivery.
        complaints: per thousand customers.
        accesses: per customer; ten accesses share one approval.
        shares: per customer.
        late_returns: closed accounts in a thousand whose record a partner kept long after. If the
            account was closed more than three years ago, that sharing ended less than three ago.
        second_address: customers in a thousand with a second address.
        marketing: customers in a thousand who subscribed to marketing.
        partner_sharing: customers in a thousand who consented to sharing with partners.
        customer_defects: kinds of planted customers, per thousand customers.
        waybill_defects: likewise, per thousand waybills.
        access_defects: likewise, per thousand accesses.
        share_defects: likewise, per thousand shares.
        approvals_by_requester: approvals in a thousand that the requester gave to themselves.
        open_complaints: complaints in a thousand that are still open.
        old_complaints: complaints in a thousand that are past their retention period.
        canaries: customers with marked values, at most: never more than half of all.
        stale_days: a record not verified for more days than this is stale.
        mask_days: contact fields are masked this many days after delivery.
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
    """One sample.

    Attributes:
        customers: how many.
        seed: of the dice.
        as_of: the moment of the sample, timezone-aware; nothing is later.
        rates: sizes and rates.
        staff: the employees, known once ``staff.build`` has run.
    """

    customers: int
    seed: int
    as_of: datetime
    rates: Rates
    staff: list[Staff] = field(default_factory=list)

    @cached_property
    def chance(self) -> Chance:
        """The dice."""
        return Chance(self.seed)

    @cached_property
    def pools(self) -> Pools:
        """What to choose from."""
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
        """``as_of`` less whole calendar years, in seconds since 1970.

        As PostgreSQL counts them in Asia/Shanghai, the shipped pack's timezone.
        """
        moment = self.as_of.astimezone(_ZONE)
        try:
            return int(moment.replace(year=moment.year - years).timestamp())
        except ValueError:  # 29 February
            return int(moment.replace(year=moment.year - years, day=28).timestamp())

    def past(self, moments: Ints, years: int) -> Mask:
        """Whether a period of calendar years since each moment is over: moment + years < as_of.

        As PostgreSQL adds in Asia/Shanghai: a 29 February becomes the 28th where the year has no
        other.
        """
        now = self.as_of.astimezone(_ZONE)
        year = now.year - years
        if (now.month, now.day) == (2, 29) and not isleap(year):
            # The whole of the 28th, years later, is the 28th again and so before the 29th.
            return moments < int(datetime(year, 3, 1, tzinfo=_ZONE).timestamp())
        limit = self.years_ago(years)
        if (now.month, now.day) == (2, 28) and isleap(year) and not isleap(now.year):
            leap_day = int(datetime(year, 2, 29, tzinfo=_ZONE).timestamp())
            return (moments < limit) | (moments >= leap_day) & (moments < limit + DAY)
        return moments < limit

    # --- how many ---

    @cached_property
    def waybills(self) -> int:
        """How many waybills."""
        return round(self.customers * self.rates.waybills)

    @cached_property
    def complaints(self) -> int:
        """How many complaints; each canary has one."""
        return max(ceil(self.customers * self.rates.complaints / 1000), len(self.canaries))

    @cached_property
    def approvals(self) -> int:
        """How many approvals that clean accesses refer to."""
        return ceil(self.customers * self.rates.accesses / 10)

    @cached_property
    def shares(self) -> int:
        """How many shares."""
        return ceil(self.customers * self.rates.shares)

    # --- marked customers ---

    @cached_property
    def canaries(self) -> Ints:
        """The customers with marked values, from the older half."""
        count = min(self.rates.canaries, (self.customers + 1) // 2)
        places = (np.arange(1, count + 1) * self.customers) // (2 * count + 1) + 1
        return np.unique(places).astype(np.int64)

    def token(self, canary: int) -> str:
        """The marker of one canary: 10 characters that nothing else contains."""
        return sha256(f"canary {self.seed} {canary}".encode()).hexdigest()[:10]

    # --- who was a customer when ---

    @cached_property
    def _first_customer(self) -> int:
        return self.now - CUSTOMER_DAYS * DAY

    @cached_property
    def _customer_span(self) -> int:
        return CUSTOMER_DAYS * DAY - 6 * HOUR

    def customer_created(self, ids: Ints) -> Ints:
        """When customers signed up; later customers have higher numbers."""
        step = self._customer_span / max(self.customers, 1)
        jitter = self.chance.unit(ids, "customer created") * min(step, DAY)
        return (self._first_customer + (ids - 1) * step + jitter).astype(np.int64)

    def customers_at(self, moments: Ints) -> Ints:
        """How many customers surely existed at each moment (not before the second day)."""
        share = (moments - self._first_customer - DAY) / self._customer_span
        return np.clip((share * self.customers).astype(np.int64) + 1, 1, self.customers)

    def customer_for(self, rows: Ints, moments: Ints, salt: str) -> Ints:
        """A customer for each event, one that existed then and had not closed the account."""
        existing = self.customers_at(moments)
        chosen = (self.chance.unit(rows, salt) * existing).astype(np.int64) + 1
        closed = np.flatnonzero(self.kinds(chosen) == self.customer_plan.code("closed"))
        gone = closed[self.closed_at(chosen[closed]) <= moments[closed]]
        if gone.size:
            partners = self.customer_plan.partners(chosen[gone])
            chosen[gone] = np.where(partners <= existing[gone], partners, 1)
        return chosen

    def closed_at(self, ids: Ints) -> Ints:
        """When the customers planted as closed closed their account."""
        created = self.customer_created(ids)
        share = 0.1 + 0.85 * self.chance.unit(ids, "customer closed")
        return created + ((self.now - created) * share).astype(np.int64)

    def late_returns(self, ids: Ints) -> Mask:
        """Which customers closed their account while a partner kept the record for years more."""
        found: Mask = self.chance.below(ids, 1000, "late return") < self.rates.late_returns
        found &= self.kinds(ids) == self.customer_plan.code("closed")
        return found

    # --- what is planted ---

    @cached_property
    def customer_plan(self) -> Plan:
        """Which customers are planted with what."""
        return Plan(self.chance, "customer", self.rates.customer_defects)

    @cached_property
    def waybill_plan(self) -> Plan:
        """Which waybills are planted with what."""
        return Plan(self.chance, "waybill", self.rates.waybill_defects)

    def kinds(self, ids: Ints) -> npt.NDArray[np.uint8]:
        """The code of what each customer is planted with, after all that stands against it."""
        plan = self.customer_plan
        found = plan.kinds(ids)
        planted = np.flatnonzero(found != CLEAN)
        if not planted.size:
            return found
        kind, some = found[planted], ids[planted]
        created = self.customer_created(some)
        young = created > self.now - (self.rates.stale_days + 60) * DAY
        impossible: Mask = (
            (some > self.customers)
            | np.isin(some, self.canaries)
            | ((kind == plan.code("duplicate_customer")) & (plan.partners(some) > self.customers))
            | ((kind == plan.code("stale_customer")) & young)
            | ((kind == plan.code("closed")) & young)
        )
        found[planted[impossible]] = CLEAN
        return found
