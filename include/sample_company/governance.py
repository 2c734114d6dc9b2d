"""Generate the records of who accessed customer data, and of sharing with partners.

These are access approvals, access logs, partners and share logs. A share is a transfer of one
customer record to a partner. Some records violate the policy on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import numpy as np

from include.sample_company.answers import AnswerSheetBuilder
from include.sample_company.chance import Ints, Mask, VariantPlan, pick
from include.sample_company.columns import (
    DAY,
    Table,
    choose,
    chunks,
    digits,
    null_where,
    rows,
    stamps,
    text_rows,
)
from include.sample_company.customers import (
    PARTNER_SHARING,
    consent_given,
    consents_to_sharing,
)
from include.sample_company.employee import Staff
from include.sample_company.staff import core, day_of
from include.sample_company.world import HOUR, World

ACCESSES_PER_APPROVAL = 10
APPROVAL_DAYS = 7
LOG_DAYS = 3 * 365 + 91
SHARE_DAYS = 1640
PURPOSES = (b"delivery", b"customer_service", b"complaint_handling", b"settlement")
FOREIGN_PURPOSES = (b"marketing", b"private")
_APPROVED_FIELDS = b"{name,phone,address}"
_ACCESSES_OF_EACH = 5  # accesses by each leaver and each untrained employee
_PARTNERS = (
    "华东仓配科技", "南方干线运输", "同城即送", "驿站联盟", "云客服外包", "电子面单服务",
    "保价理赔代理", "智能柜运营", "航空货代", "短信通知服务",
    "旧城配送社", "北方数据处理", "逾期评审物流", "停用合作商",
)  # fmt: skip
_HEALTHY, _LAPSED = 10, 11  # partners 1-10 are valid, 11 and 12 have lapsed, 13 is not reviewed
_LAPSED_DAYS = 700


def build(world: World, sheet_builder: AnswerSheetBuilder) -> list[Table]:
    """Return the tables of access approvals, accesses, partners and shares.

    Args:
        world: settings of the sample database.
        sheet_builder: collects the rows for the answer sheet while the rows are generated.
    """
    strays = _unentitled_employees(world)
    return [
        Table(
            "approval",
            "approval_id, requester_id, approver_id, purpose, fields, approved_at, valid_until",
            _approvals(world, sheet_builder, strays), world.approvals,
        ),
        Table(
            "access_log",
            "access_id, employee_id, customer_id, purpose, accessed_at, approval_id",
            _accesses(world, sheet_builder, strays), world.approvals * ACCESSES_PER_APPROVAL,
        ),
        _partners(world, sheet_builder),
        Table(
            "share_log",
            "share_id, form_number, partner_id, customer_id, purpose, fields, consent_id, "
            "legal_basis, shared_at, ended_at",
            _shares(world, sheet_builder), world.shares,
        ),
    ]  # fmt: skip


def _unentitled_employees(world: World) -> list[tuple[Staff, int]]:
    """Return the employees who opened customer records although they were not entitled to do so.

    They are former employees who can still open records after their last day, and employees without
    the required training.

    Returns:
        Pairs of an employee and the time of the employee's access approval, in seconds since 1970.
        The approval of a former employee was given before the last day.
    """
    if not world.customers:
        return []
    return [
        # A leaver's approval is two days old on the last day and stays valid after it.
        (person, (world.today - (day_of(world) - person.left_on).days - 2) * DAY + 10 * HOUR)
        if person.left_on
        else (person, world.now - 60 * DAY)
        for person in world.staff
        if person.kind in ("leaver_with_access", "untrained")
    ]


def _approved(world: World, ids: Ints) -> Ints:
    start, end = world.now - LOG_DAYS * DAY, world.now - 2 * HOUR
    share = (ids - 1 + world.chance.unit(ids, "approved")) / world.approvals
    return (start + share * (end - start)).astype(np.int64)


def _purpose(world: World, approvals: Ints) -> Ints:
    return world.chance.below(approvals, len(PURPOSES), "purpose")


def _requesters(world: World, approvals: Ints) -> tuple[Ints, Ints]:
    people = core(world)
    employees = np.array([person.employee_id for person in people], np.int64)
    managers = np.array([person.manager_id for person in people], np.int64)
    chosen = world.chance.below(approvals, len(people), "requester")
    return employees[chosen], managers[chosen]


def _approvals(
    world: World, sheet_builder: AnswerSheetBuilder, strays: list[tuple[Staff, int]]
) -> Iterator[bytes]:
    plan = VariantPlan(world.chance, "approval", {"self": world.rates.approvals_by_requester})
    for ids in chunks(1, world.approvals):
        requester, approver = _requesters(world, ids)
        own = plan.variants(ids) == plan.code("self")
        approved = _approved(world, ids)
        sheet_builder.add("approval_by_requester", ids[own])
        sheet_builder.add("expired_approval", ids[world.past(approved, 3)])
        yield rows(
            len(ids),
            digits(ids, 10),
            digits(requester, 5),
            digits(np.where(own, requester, approver), 5),
            choose(PURPOSES, _purpose(world, ids)),
            _APPROVED_FIELDS,
            stamps(approved),
            stamps(approved + APPROVAL_DAYS * DAY),
        )
    if strays:
        ids = world.approvals + 1 + np.arange(len(strays))
        approved = np.array([moment for _, moment in strays])
        yield rows(
            len(ids),
            digits(ids, 10),
            digits(np.array([person.employee_id for person, _ in strays]), 5),
            digits(np.array([person.manager_id for person, _ in strays], np.int64), 5),
            PURPOSES[0],
            _APPROVED_FIELDS,
            stamps(approved),
            stamps(approved + APPROVAL_DAYS * DAY),
        )


def openings(world: World) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Yield the employee, the customer and the time of all accesses to customer records.

    Each element consists of three arrays with an entry for each of up to `CHUNK` accesses: the
    employee numbers, the customer numbers, and the times in seconds since 1970.
    """
    plan = VariantPlan(world.chance, "access", world.rates.access_defects)
    last, strays = world.approvals * ACCESSES_PER_APPROVAL, _unentitled_employees(world)
    for ids in chunks(1, last):
        accessed, _late = _accessed(world, ids, plan)
        employee = _requesters(world, (ids - 1) // ACCESSES_PER_APPROVAL + 1)[0]
        yield employee, world.customer_for(ids, accessed, "accessed whom"), accessed
    if strays:
        ids, which, accessed = _unentitled_accesses(strays, last)
        employee = np.array([person.employee_id for person, _ in strays])[which]
        yield employee, world.customer_for(ids, accessed, "accessed whom"), accessed


def sharings(world: World) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Yield the partner, the customer and the time of each transfer of a record to a partner.

    Each element consists of three arrays with an entry for each of up to `CHUNK` transfers: the
    partner numbers, the customer numbers, and the times in seconds since 1970.
    """
    plan = VariantPlan(world.chance, "share", world.rates.share_defects)
    for ids in chunks(1, world.shares):
        shared, partner = _shared(world, ids, plan)[:2]
        yield partner, world.customer_for(ids, shared, "shared whom"), shared
    for ids, late in _late_returns(world):
        yield _late_partner(world, ids), late, _late_shared(world, late)


def _accessed(world: World, ids: Ints, plan: VariantPlan) -> tuple[Ints, Mask]:
    """Return the time of each access, and whether the access came after the end of its approval.

    Args:
        world: settings of the sample database.
        ids: numbers of the accesses.
        plan: choice of the accesses that violate the policy on purpose.

    Returns:
        The times in seconds since 1970, and a mask of the accesses whose approval had expired.
    """
    approved = _approved(world, (ids - 1) // ACCESSES_PER_APPROVAL + 1)
    window = np.minimum(APPROVAL_DAYS * DAY, world.now - HOUR - approved)
    share = world.chance.unit(ids, "accessed")
    accessed = approved + (share * window).astype(np.int64)
    late: Mask = (plan.variants(ids) == plan.code("access_after_approval")) & (
        approved < world.now - (APPROVAL_DAYS + 6) * DAY
    )
    accessed += late * (APPROVAL_DAYS * DAY + HOUR)
    late &= accessed > approved + APPROVAL_DAYS * DAY
    return accessed, late


def _unentitled_accesses(strays: list[tuple[Staff, int]], last: int) -> tuple[Ints, Ints, Ints]:
    """Return the accesses by employees who were not entitled to them.

    Args:
        strays: result of `_unentitled_employees`.
        last: number of the last access by an entitled employee.

    Returns:
        For each access its number, the index of the employee in ``strays``, and its time in seconds
        since 1970.
    """
    ids = last + 1 + np.arange(len(strays) * _ACCESSES_OF_EACH)
    which, turn = np.divmod(ids - last - 1, _ACCESSES_OF_EACH)
    accessed = np.array([moment for _, moment in strays])[which] + 3 * DAY + turn * 5 * HOUR
    return ids, which, accessed


def _accesses(
    world: World, sheet_builder: AnswerSheetBuilder, strays: list[tuple[Staff, int]]
) -> Iterator[bytes]:
    plan = VariantPlan(world.chance, "access", world.rates.access_defects)
    last = world.approvals * ACCESSES_PER_APPROVAL
    kept: set[int] = set()
    for ids in chunks(1, last):
        variants = plan.variants(ids)
        approval = (ids - 1) // ACCESSES_PER_APPROVAL + 1
        approved = _approved(world, approval)
        accessed, late = _accessed(world, ids, plan)
        without = variants == plan.code("access_without_approval")
        foreign = variants == plan.code("access_out_of_purpose")
        sheet_builder.add("access_after_approval", ids[late])
        sheet_builder.add("access_without_approval", ids[without])
        sheet_builder.add("access_out_of_purpose", ids[foreign])
        expired = world.past(accessed, 3)
        sheet_builder.add("expired_access_log", ids[expired])
        kept.update(approval[world.past(approved, 3) & ~expired & ~without].tolist())
        purpose = np.where(foreign, len(PURPOSES) + ids % 2, _purpose(world, approval))
        yield rows(
            len(ids),
            digits(ids, 10),
            digits(_requesters(world, approval)[0], 5),
            digits(world.customer_for(ids, accessed, "accessed whom"), 10),
            choose((*PURPOSES, *FOREIGN_PURPOSES), purpose),
            stamps(accessed),
            null_where(without, digits(approval, 10)),
        )
    sheet_builder.add("expired_approval_kept_by_access", sorted(kept))
    if strays:
        yield _stray_accesses(world, sheet_builder, strays, last)


def _stray_accesses(
    world: World, sheet_builder: AnswerSheetBuilder, strays: list[tuple[Staff, int]], last: int
) -> bytes:
    ids, which, accessed = _unentitled_accesses(strays, last)
    left = np.array([person.left_on is not None for person, _ in strays])[which]
    sheet_builder.add("access_by_leaver", ids[left])
    sheet_builder.add("access_by_untrained", ids[~left])
    return rows(
        len(ids),
        digits(ids, 10),
        digits(np.array([person.employee_id for person, _ in strays])[which], 5),
        digits(world.customer_for(ids, accessed, "accessed whom"), 10),
        PURPOSES[0],
        stamps(accessed),
        digits(world.approvals + 1 + which, 10),
    )


def _partners(world: World, sheet_builder: AnswerSheetBuilder) -> Table:
    day = day_of(world)
    records: list[tuple[object, ...]] = []
    for number, name in enumerate(_PARTNERS, 1):
        lapsed = number in (_LAPSED, _LAPSED + 1)
        unreviewed = number == _LAPSED + 2
        live = number <= _LAPSED + 2
        gone = lapsed or not live
        if lapsed:
            sheet_builder.add("partner_lapsed_nda", [number])
        if unreviewed:
            sheet_builder.add("partner_review_overdue", [number])
        until = day - timedelta(days=_LAPSED_DAYS) if gone else day + timedelta(days=40 * number)
        reviewed = day - timedelta(days=500 if unreviewed or not live else 20 * number)
        contact = f'{{"mail": "partner{number:02d}@partner.example", "role": "privacy officer"}}'
        records.append((
            number, f"{name}有限公司", number % 3 + 1, contact, day - timedelta(days=2400), until,
            until + timedelta(days=30), reviewed, live,
        ))  # fmt: skip
    return Table(
        "partner",
        "partner_id, name, tier, contact, nda_from, nda_until, agreement_until, last_review_on, "
        "live_access",
        text_rows(records), len(records),
    )  # fmt: skip


def _shared(world: World, ids: Ints, plan: VariantPlan) -> tuple[Ints, Ints, Mask]:
    """Return the time and partner of each share, and whether the NDA had ended by that time.

    Args:
        world: settings of the sample database.
        ids: numbers of the shares, which are transfers of customer records to partners.
        plan: choice of the shares that violate the policy on purpose.

    Returns:
        The times in seconds since 1970, the partner numbers, and a mask of the shares after the end
        of the NDA.
    """
    start, end = world.now - SHARE_DAYS * DAY, world.now - HOUR
    share = (ids - 1 + world.chance.unit(ids, "shared")) / world.shares
    shared = (start + share * (end - start)).astype(np.int64)
    lapse = (world.today - _LAPSED_DAYS + 1) * DAY
    lapsed: Mask = (plan.variants(ids) == plan.code("share_lapsed_nda")) & (shared > lapse)
    bits = world.chance.bits(ids, "share")
    return shared, np.where(lapsed, _LAPSED, 1 + pick(bits, _HEALTHY, 24)), lapsed


def _late_returns(world: World) -> Iterator[tuple[Ints, Ints]]:
    """Yield transfers of records whose data the partner returned years after the account's closing.

    In a transfer (share), a partner receives the record of a customer. The partner returned or
    deleted the data years after the customer's account was closed. Only accounts that were closed
    more than three years ago are included.

    Each element has two arrays of at most `CHUNK` entries, with one entry for each transfer. The
    first array has the numbers of the transfers, the second the numbers of the customers.
    """
    first = world.shares + 1
    for customers in chunks(1, world.customers):
        late = customers[world.late_returns(customers)]
        late = late[world.past(world.closed_at(late), 3)]
        if late.size:
            yield np.arange(first, first + len(late)), late
            first += len(late)


def _late_shared(world: World, customers: Ints) -> Ints:
    return world.closed_at(customers) - 20 * DAY


def _late_partner(world: World, ids: Ints) -> Ints:
    return 1 + world.chance.below(ids, _HEALTHY, "late partner")


def _shares(world: World, sheet_builder: AnswerSheetBuilder) -> Iterator[bytes]:
    plan = VariantPlan(world.chance, "share", world.rates.share_defects)
    kept = _KeptByShare(world)
    for ids in chunks(1, world.shares):
        variants = plan.variants(ids)
        shared, partner, lapsed = _shared(world, ids, plan)
        ended = shared + (30 + pick(world.chance.bits(ids, "share"), 150)) * DAY
        without = variants == plan.code("share_without_basis")
        excess = variants == plan.code("share_excess_fields")
        sheet_builder.add("share_lapsed_nda", ids[lapsed])
        sheet_builder.add("share_without_basis", ids[without])
        sheet_builder.add("share_excess_fields", ids[excess])
        done = ended < world.now
        expired = done & world.past(ended, 3)
        sheet_builder.add("expired_share", ids[expired])
        customer = world.customer_for(ids, shared, "shared whom")
        agreed = consents_to_sharing(world, customer) & (consent_given(world, customer) <= shared)
        yield rows(
            len(ids),
            digits(ids, 10),
            (b"S", digits(ids, 10)),
            digits(partner, 2),
            digits(customer, 10),
            b"last_mile_delivery",
            choose(
                (_APPROVED_FIELDS, b"{name,phone,address,id_number,birth_date}"),
                excess.astype(np.int64),
            ),
            null_where(~agreed | without, digits(customer * 4 - PARTNER_SHARING, 11)),
            null_where(agreed | without, np.full(len(ids), b"contract")),
            stamps(shared),
            null_where(~done, stamps(ended)),
        )
        kept.add(customer[~expired], (agreed & ~without)[~expired])
    for ids, late in _late_returns(world):
        consented = late % 2 == 1
        kept.add(late, consented)
        yield _late_shares(world, ids, late, consented)
    sheet_builder.add("expired_customer_kept_by_share", sorted(kept.customers))
    sheet_builder.add("expired_consent_kept_by_share", sorted(kept.consents))


class _KeptByShare:
    """Collects expired customers and consents that are kept because a share refers to them.

    A share is a transfer of a customer record to a partner. Until a share itself is expired, the
    customer and the consent to which it refers must not be deleted.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.customers: set[int] = set()
        self.consents: set[int] = set()

    def add(self, customers: Ints, consented: Mask) -> None:
        """Add those customers and consents of shares that are expired.

        Args:
            customers: customer number of each share.
            consented: whether each share refers to a consent.
        """
        world = self._world
        closed = world.variants(customers) == world.customer_plan.code("closed")
        customers, consented = customers[closed], consented[closed]
        long_ago = world.past(world.closed_at(customers), 3)
        self.customers.update(customers[long_ago].tolist())
        consents = customers[long_ago & consented] * 4 - PARTNER_SHARING
        self.consents.update(consents.tolist())


def _late_shares(world: World, ids: Ints, customer: Ints, consented: Mask) -> bytes:
    """Return the rows of the shares that `_late_returns` yields, in the text format of COPY.

    Args:
        world: settings of the sample database.
        ids: numbers of the shares.
        customer: customer number of each share.
        consented: whether each share refers to a consent.
    """
    shared = _late_shared(world, customer)
    ended = world.years_ago(3) + (2 + world.chance.below(ids, 90, "late return")) * DAY
    return rows(
        len(ids),
        digits(ids, 10),
        (b"S", digits(ids, 10)),
        digits(_late_partner(world, ids), 2),
        digits(customer, 10),
        b"last_mile_delivery",
        _APPROVED_FIELDS,
        null_where(~consented, digits(customer * 4 - PARTNER_SHARING, 11)),
        null_where(consented, np.full(len(ids), b"contract")),
        stamps(shared),
        stamps(ended),
    )
