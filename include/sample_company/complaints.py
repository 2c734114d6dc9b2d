"""Generate complaints. Some are still open, and some are past their retention period."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from include.sample_company import identities
from include.sample_company.answers import AnswerSheetBuilder
from include.sample_company.chance import CLEAN, Ints, Mask, VariantPlan
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
_OLD_DAYS = (1680, 1150)  # days ago; old complaints were opened between them


def build(world: World, sheet_builder: AnswerSheetBuilder) -> list[Table]:
    """Return the table of complaints.

    Args:
        world: settings of the sample database.
        sheet_builder: collects the rows for the answer sheet while the rows are generated.
    """
    return [
        Table(
            "complaint",
            "complaint_id, customer_id, waybill_id, waybill_created_at, kind, description, "
            "opened_at, closed_at, handled_by",
            _complaints(world, sheet_builder), world.complaints,
        )
    ]  # fmt: skip


@dataclass(frozen=True)
class _ComplaintColumns:
    """The properties of complaints, from which the columns of the complaint table are computed.

    Each attribute is an array with one element per complaint.

    Attributes:
        old: whether the generator made the complaint so old that its retention period has ended.
            Such a complaint has no waybill.
        open: whether the generator left the complaint open on purpose. A recent complaint may be
            open even if this is false.
        waybill: number of the waybill that the complaint is about; has no meaning for an old
            complaint.
        created: creation time of this waybill, in seconds since 1970; has no meaning for an old
            complaint.
        opened: opening time of the complaint, in seconds since 1970.
        customer: number of the customer who complained.
    """

    old: Mask
    open: Mask
    waybill: Ints
    created: Ints
    opened: Ints
    customer: Ints


def complainers(world: World) -> Iterator[tuple[Ints, Ints]]:
    """Yield the customer and the opening time of all complaints.

    Each element consists of two arrays with an entry for each of up to `CHUNK` complaints: the
    numbers of the customers, and the opening times in seconds since 1970.
    """
    marked = canary_waybills(world)
    for ids in chunks(1, world.complaints):
        facts = _facts(world, ids, marked)
        yield facts.customer, facts.opened


def _facts(world: World, ids: Ints, marked: dict[int, int]) -> _ComplaintColumns:
    rates, chance = world.rates, world.chance
    plan = VariantPlan(
        chance, "complaint", {"open": rates.open_complaints, "old": rates.old_complaints}
    )
    first_marked = world.complaints - len(marked) + 1
    variants = plan.variants(ids)
    if not world.waybills:
        variants[:] = plan.code("old")
    variants[ids >= first_marked] = CLEAN
    old = variants == plan.code("old")
    share = chance.unit(ids, "complaint")
    waybill = 1 + ((ids - 1 + share) * (world.waybills / world.complaints)).astype(np.int64)
    waybill = np.clip(waybill, 1, max(world.waybills, 1))
    labelled = (variants == plan.code("open")) & (chance.below(ids, 4, "label") == 0)
    waybill[labelled] = [with_label(world, number) for number in waybill[labelled].tolist()]
    for index, number in enumerate(marked.values()):
        waybill[ids == first_marked + index] = number
    created = created_at(world, waybill)
    opened = np.minimum(
        created + 5 * DAY + (share * 10 * DAY).astype(np.int64), (created + world.now) // 2
    )
    long_ago = world.now - _OLD_DAYS[0] * DAY
    opened = np.where(
        old, long_ago + (share * (_OLD_DAYS[0] - _OLD_DAYS[1]) * DAY).astype(np.int64), opened
    )
    customer = np.where(
        old,
        world.customer_for(ids, opened, "complainer"),
        senders(world, waybill, created, marked),
    )
    return _ComplaintColumns(old, variants == plan.code("open"), waybill, created, opened, customer)


def _complaints(world: World, sheet_builder: AnswerSheetBuilder) -> Iterator[bytes]:
    chance = world.chance
    marked = canary_waybills(world)
    first_marked = world.complaints - len(marked) + 1
    employees = core(world, CUSTOMER_SERVICE)
    clerks = np.array([employee.employee_id for employee in employees], np.int64)
    disputed: set[int] = set()  # numbers of waybills with an open complaint
    for ids in chunks(1, world.complaints):
        facts = _facts(world, ids, marked)
        old, waybill, opened = facts.old, facts.waybill, facts.opened
        closed = opened + DAY + chance.below(ids, 144, "answered") * HOUR
        is_open = facts.open | (closed > world.now)
        sheet_builder.add("open_complaint", ids[is_open])
        sheet_builder.add("expired_complaint", ids[~is_open & world.past(closed, 3)])
        disputed.update(waybill[is_open & ~old].tolist())
        people = identities.people(world, facts.customer)
        kind = chance.below(ids, len(_KINDS), "complaint kind")
        yield rows(
            len(ids),
            digits(ids, 10),
            digits(facts.customer, 10),
            null_where(old, digits(waybill, 10)),
            null_where(old, stamps(facts.created)),
            choose(_KINDS, kind),
            ("客户".encode(), *people.name, "（".encode(), people.phone, "）反映：".encode(),
             choose(_WORDS, kind), "。".encode()),
            stamps(opened),
            null_where(is_open, stamps(closed)),
            digits(clerks[chance.below(ids, len(clerks), "clerk")], 5),
        )  # fmt: skip
        for index, canary in enumerate(marked):
            number = first_marked + index
            if number in ids:
                for label, value in (
                    ("name", identities.canary_name(world, canary)),
                    ("phone", identities.canary_phone(world, canary)),
                ):
                    sheet_builder.add_canary(canary, label, value, "complaint.description", number)
    waybills = np.array(sorted(disputed), np.int64)
    sheet_builder.add("contact_not_masked_open_complaint", not_masked(world, waybills))
    expired = waybills[world.past(created_at(world, waybills), 2)]
    sheet_builder.add("expired_waybill_open_complaint", expired)
    # A proof has the number of its waybill.
    sheet_builder.add("expired_delivery_proof_open_complaint", with_expired_proof(world, waybills))
