"""How much of everything the sample has, and how often something is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field


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
