"""Complaints, some of them open and some past their retention period."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from include.sample_company import people as who
from include.sample_company.answers import Notes
from include.sample_company.chance import CLEAN, Ints, Mask, Plan
from include.sample_company.columns import (
    DAY,
    Table,
    choose,
    chunks,
    digits,
    null_where,
    rows,
    stamps,
)
from include.sample_company.staff import CUSTOMER_SERVICE, core
from include.sample_company.waybills import (
    canary_waybills,
    created_at,
    not_masked,
    senders,
    with_expired_proof,
    with_label,
)
from include.sample_company.world import HOUR, World

_KINDS = (b"lost", b"damaged", b"late", b"privacy", b"attitude")
_WORDS = tuple(
    word.encode() for word in ("快件丢失", "外包装破损", "派送延误", "面单信息泄露", "服务态度差")
)
_OLD_DAYS = (1680, 1150)  # opened between these, days ago


def build(world: World, notes: Notes) -> list[Table]:
    """Make the complaints."""
    return [
        Table(
            "complaint",
            "complaint_id, customer_id, waybill_id, waybill_created_at, kind, description, "
            "opened_at, closed_at, handled_by",
            _complaints(world, notes), world.complaints,
        )
    ]  # fmt: skip


@dataclass(frozen=True)
class _Told:
    """What some complaints are about.

    Attributes:
        old: those without a waybill, past their retention period.
        open: those that are planted as open.
        waybill: the waybill of each.
        made: when that was made.
        opened: when the complaint was.
        customer: whose it is.
    """

    old: Mask
    open: Mask
    waybill: Ints
    made: Ints
    opened: Ints
    customer: Ints


def complainers(world: World) -> Iterator[tuple[Ints, Ints]]:
    """Each complaint again: customer and moment, some thousand at a time."""
    marked = canary_waybills(world)
    for ids in chunks(1, world.complaints):
        told = _told(world, ids, marked)
        yield told.customer, told.opened


def _told(world: World, ids: Ints, marked: dict[int, int]) -> _Told:
    rates, chance = world.rates, world.chance
    plan = Plan(chance, "complaint", {"open": rates.open_complaints, "old": rates.old_complaints})
    first_marked = world.complaints - len(marked) + 1
    kinds = plan.kinds(ids)
    if not world.waybills:
        kinds[:] = plan.code("old")
    kinds[ids >= first_marked] = CLEAN
    old = kinds == plan.code("old")
    share = chance.unit(ids, "complaint")
    waybill = 1 + ((ids - 1 + share) * (world.waybills / world.complaints)).astype(np.int64)
    waybill = np.clip(waybill, 1, max(world.waybills, 1))
    labelled = (kinds == plan.code("open")) & (chance.below(ids, 4, "label") == 0)
    waybill[labelled] = [with_label(world, number) for number in waybill[labelled].tolist()]
    for place, number in enumerate(marked.values()):
        waybill[ids == first_marked + place] = number
    made = created_at(world, waybill)
    opened = np.minimum(
        made + 5 * DAY + (share * 10 * DAY).astype(np.int64), (made + world.now) // 2
    )
    long_ago = world.now - _OLD_DAYS[0] * DAY
    opened = np.where(
        old, long_ago + (share * (_OLD_DAYS[0] - _OLD_DAYS[1]) * DAY).astype(np.int64), opened
    )
    customer = np.where(
        old,
        world.customer_for(ids, opened, "complainer"),
        senders(world, waybill, made, marked),
    )
    return _Told(old, kinds == plan.code("open"), waybill, made, opened, customer)


def _complaints(world: World, notes: Notes) -> Iterator[bytes]:
    chance = world.chance
    marked = canary_waybills(world)
    first_marked = world.complaints - len(marked) + 1
    clerks = np.array([one.employee_id for one in core(world, CUSTOMER_SERVICE)], np.int64)
    disputed: set[int] = set()  # waybills about which a complaint is open
    for ids in chunks(1, world.complaints):
        told = _told(world, ids, marked)
        old, waybill, opened = told.old, told.waybill, told.opened
        closed = opened + DAY + chance.below(ids, 144, "answered") * HOUR
        still = told.open | (closed > world.now)
        notes.add("open_complaint", ids[still])
        notes.add("expired_complaint", ids[~still & world.past(closed, 3)])
        disputed.update(waybill[still & ~old].tolist())
        someone = who.people(world, told.customer)
        kind = chance.below(ids, len(_KINDS), "complaint kind")
        yield rows(
            len(ids),
            digits(ids, 10),
            digits(told.customer, 10),
            null_where(old, digits(waybill, 10)),
            null_where(old, stamps(told.made)),
            choose(_KINDS, kind),
            ("客户".encode(), *someone.name, "（".encode(), someone.phone, "）反映：".encode(),
             choose(_WORDS, kind), "。".encode()),
            stamps(opened),
            null_where(still, stamps(closed)),
            digits(clerks[chance.below(ids, len(clerks), "clerk")], 5),
        )  # fmt: skip
        for place, canary in enumerate(marked):
            number = first_marked + place
            if number in ids:
                for label, value in (
                    ("name", who.canary_name(world, canary)),
                    ("phone", who.canary_phone(world, canary)),
                ):
                    notes.canary(canary, label, value, "complaint.description", number)
    held = np.array(sorted(disputed), np.int64)
    notes.add("contact_not_masked_open_complaint", not_masked(world, held))
    expired = held[world.past(created_at(world, held), 2)]
    notes.add("expired_waybill_open_complaint", expired)
    # A proof has the number of its waybill.
    notes.add("expired_delivery_proof_open_complaint", with_expired_proof(world, held))
