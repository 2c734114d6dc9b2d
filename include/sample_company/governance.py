"""Approvals, accesses, partners and shares, with the violations among them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import numpy as np

from include.sample_company.answers import Notes
from include.sample_company.chance import Ints, Mask, Plan, pick
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
_ACCESSES_OF_EACH = 5  # by each leaver and each untrained employee
_PARTNERS = (
    "华东仓配科技", "南方干线运输", "同城即送", "驿站联盟", "云客服外包", "电子面单服务",
    "保价理赔代理", "智能柜运营", "航空货代", "短信通知服务",
    "旧城配送社", "北方数据处理", "逾期评审物流", "停用合作商",
)  # fmt: skip
_HEALTHY, _LAPSED = 10, 11  # partners 1 to 10 are in order; 11 and 12 lapsed, 13 not reviewed
_LAPSED_DAYS = 700


def build(world: World, notes: Notes) -> list[Table]:
    """Make approvals, accesses, partners and shares."""
    strays = _strays(world)
    return [
        Table(
            "approval",
            "approval_id, requester_id, approver_id, purpose, fields, approved_at, valid_until",
            _approvals(world, notes, strays), world.approvals,
        ),
        Table(
            "access_log",
            "access_id, employee_id, customer_id, purpose, accessed_at, approval_id",
            _accesses(world, notes, strays), world.approvals * ACCESSES_PER_APPROVAL,
        ),
        _partners(world, notes),
        Table(
            "share_log",
            "share_id, form_number, partner_id, customer_id, purpose, fields, consent_id, "
            "legal_basis, shared_at, ended_at",
            _shares(world, notes), world.shares,
        ),
    ]  # fmt: skip


def _strays(world: World) -> list[tuple[Staff, int]]:
    """Leavers and untrained people who opened records, and when they were approved to."""
    if not world.customers:
        return []
    return [
        # A leaver's approval is two days old on the last day and lives on.
        (one, (world.today - (day_of(world) - one.left_on).days - 2) * DAY + 10 * HOUR)
        if one.left_on
        else (one, world.now - 60 * DAY)
        for one in world.staff
        if one.kind in ("leaver_with_access", "untrained")
    ]


def _approved(world: World, ids: Ints) -> Ints:
    start, end = world.now - LOG_DAYS * DAY, world.now - 2 * HOUR
    share = (ids - 1 + world.chance.unit(ids, "approved")) / world.approvals
    return (start + share * (end - start)).astype(np.int64)


def _purpose(world: World, approvals: Ints) -> Ints:
    return world.chance.below(approvals, len(PURPOSES), "purpose")


def _requesters(world: World, approvals: Ints) -> tuple[Ints, Ints]:
    people = core(world)
    who = np.array([one.employee_id for one in people], np.int64)
    boss = np.array([one.manager_id for one in people], np.int64)
    chosen = world.chance.below(approvals, len(people), "requester")
    return who[chosen], boss[chosen]


def _approvals(world: World, notes: Notes, strays: list[tuple[Staff, int]]) -> Iterator[bytes]:
    plan = Plan(world.chance, "approval", {"self": world.rates.approvals_by_requester})
    for ids in chunks(1, world.approvals):
        requester, approver = _requesters(world, ids)
        own = plan.kinds(ids) == plan.code("self")
        approved = _approved(world, ids)
        notes.add("approval_by_requester", ids[own])
        notes.add("expired_approval", ids[world.past(approved, 3)])
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
            digits(np.array([one.employee_id for one, _ in strays]), 5),
            digits(np.array([one.manager_id for one, _ in strays], np.int64), 5),
            PURPOSES[0],
            _APPROVED_FIELDS,
            stamps(approved),
            stamps(approved + APPROVAL_DAYS * DAY),
        )


def openings(world: World) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Each access again: employee, customer and moment, some thousand at a time."""
    plan = Plan(world.chance, "access", world.rates.access_defects)
    last, strays = world.approvals * ACCESSES_PER_APPROVAL, _strays(world)
    for ids in chunks(1, last):
        accessed, _late = _accessed(world, ids, plan)
        employee = _requesters(world, (ids - 1) // ACCESSES_PER_APPROVAL + 1)[0]
        yield employee, world.customer_for(ids, accessed, "accessed whom"), accessed
    if strays:
        ids, which, accessed = _stray_moments(strays, last)
        employee = np.array([one.employee_id for one, _ in strays])[which]
        yield employee, world.customer_for(ids, accessed, "accessed whom"), accessed


def sharings(world: World) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Each share again: partner, customer and moment, some thousand at a time."""
    plan = Plan(world.chance, "share", world.rates.share_defects)
    for ids in chunks(1, world.shares):
        shared, partner = _shared(world, ids, plan)[:2]
        yield partner, world.customer_for(ids, shared, "shared whom"), shared
    for ids, late in _late_returns(world):
        yield _late_partner(world, ids), late, _late_shared(world, late)


def _accessed(world: World, ids: Ints, plan: Plan) -> tuple[Ints, Mask]:
    """When records were opened, and which of them after the approval."""
    approved = _approved(world, (ids - 1) // ACCESSES_PER_APPROVAL + 1)
    window = np.minimum(APPROVAL_DAYS * DAY, world.now - HOUR - approved)
    share = world.chance.unit(ids, "accessed")
    accessed = approved + (share * window).astype(np.int64)
    late: Mask = (plan.kinds(ids) == plan.code("access_after_approval")) & (
        approved < world.now - (APPROVAL_DAYS + 6) * DAY
    )
    accessed += late * (APPROVAL_DAYS * DAY + HOUR)
    late &= accessed > approved + APPROVAL_DAYS * DAY
    return accessed, late


def _stray_moments(strays: list[tuple[Staff, int]], last: int) -> tuple[Ints, Ints, Ints]:
    """Numbers of their accesses, which of them each is by, and when."""
    ids = last + 1 + np.arange(len(strays) * _ACCESSES_OF_EACH)
    which, turn = np.divmod(ids - last - 1, _ACCESSES_OF_EACH)
    accessed = np.array([moment for _, moment in strays])[which] + 3 * DAY + turn * 5 * HOUR
    return ids, which, accessed


def _accesses(world: World, notes: Notes, strays: list[tuple[Staff, int]]) -> Iterator[bytes]:
    plan = Plan(world.chance, "access", world.rates.access_defects)
    last = world.approvals * ACCESSES_PER_APPROVAL
    kept: set[int] = set()
    for ids in chunks(1, last):
        kinds = plan.kinds(ids)
        approval = (ids - 1) // ACCESSES_PER_APPROVAL + 1
        approved = _approved(world, approval)
        accessed, late = _accessed(world, ids, plan)
        without = kinds == plan.code("access_without_approval")
        foreign = kinds == plan.code("access_out_of_purpose")
        notes.add("access_after_approval", ids[late])
        notes.add("access_without_approval", ids[without])
        notes.add("access_out_of_purpose", ids[foreign])
        expired = world.past(accessed, 3)
        notes.add("expired_access_log", ids[expired])
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
    notes.add("expired_approval_kept_by_access", sorted(kept))
    if strays:
        yield _stray_accesses(world, notes, strays, last)


def _stray_accesses(
    world: World, notes: Notes, strays: list[tuple[Staff, int]], last: int
) -> bytes:
    ids, which, accessed = _stray_moments(strays, last)
    left = np.array([one.left_on is not None for one, _ in strays])[which]
    notes.add("access_by_leaver", ids[left])
    notes.add("access_by_untrained", ids[~left])
    return rows(
        len(ids),
        digits(ids, 10),
        digits(np.array([one.employee_id for one, _ in strays])[which], 5),
        digits(world.customer_for(ids, accessed, "accessed whom"), 10),
        PURPOSES[0],
        stamps(accessed),
        digits(world.approvals + 1 + which, 10),
    )


def _partners(world: World, notes: Notes) -> Table:
    day = day_of(world)
    records: list[tuple[object, ...]] = []
    for number, name in enumerate(_PARTNERS, 1):
        lapsed = number in (_LAPSED, _LAPSED + 1)
        unreviewed = number == _LAPSED + 2
        live = number <= _LAPSED + 2
        gone = lapsed or not live
        if lapsed:
            notes.add("partner_lapsed_nda", [number])
        if unreviewed:
            notes.add("partner_review_overdue", [number])
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


def _shared(world: World, ids: Ints, plan: Plan) -> tuple[Ints, Ints, Mask]:
    """When records were shared with which partner, and which of them after its NDA had lapsed."""
    start, end = world.now - SHARE_DAYS * DAY, world.now - HOUR
    share = (ids - 1 + world.chance.unit(ids, "shared")) / world.shares
    shared = (start + share * (end - start)).astype(np.int64)
    lapse = (world.today - _LAPSED_DAYS + 1) * DAY
    lapsed: Mask = (plan.kinds(ids) == plan.code("share_lapsed_nda")) & (shared > lapse)
    bits = world.chance.bits(ids, "share")
    return shared, np.where(lapsed, _LAPSED, 1 + pick(bits, _HEALTHY, 24)), lapsed


def _late_returns(world: World) -> Iterator[tuple[Ints, Ints]]:
    """Shares that a partner gave back late: their numbers, and whose records they are."""
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


def _shares(world: World, notes: Notes) -> Iterator[bytes]:
    plan = Plan(world.chance, "share", world.rates.share_defects)
    kept = _KeptByShare(world)
    for ids in chunks(1, world.shares):
        kinds = plan.kinds(ids)
        shared, partner, lapsed = _shared(world, ids, plan)
        ended = shared + (30 + pick(world.chance.bits(ids, "share"), 150)) * DAY
        without = kinds == plan.code("share_without_basis")
        excess = kinds == plan.code("share_excess_fields")
        notes.add("share_lapsed_nda", ids[lapsed])
        notes.add("share_without_basis", ids[without])
        notes.add("share_excess_fields", ids[excess])
        done = ended < world.now
        expired = done & world.past(ended, 3)
        notes.add("expired_share", ids[expired])
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
    notes.add("expired_customer_kept_by_share", sorted(kept.customers))
    notes.add("expired_consent_kept_by_share", sorted(kept.consents))


class _KeptByShare:
    """Customers and consents of long closed accounts to which a share refers that stays."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.customers: set[int] = set()
        self.consents: set[int] = set()

    def add(self, customers: Ints, consented: Mask) -> None:
        """Take note of shares that stay: of whom, and whether they refer to a consent."""
        world = self._world
        closed = world.kinds(customers) == world.customer_plan.code("closed")
        customers, consented = customers[closed], consented[closed]
        long_ago = world.past(world.closed_at(customers), 3)
        self.customers.update(customers[long_ago].tolist())
        consents = customers[long_ago & consented] * 4 - PARTNER_SHARING
        self.consents.update(consents.tolist())


def _late_shares(world: World, ids: Ints, customer: Ints, consented: Mask) -> bytes:
    """Shares that ended years after the customer had left: the partner kept the record."""
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
