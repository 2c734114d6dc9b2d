"""Waybills, month by month, and the proofs of their delivery."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from include.sample_company import people as who
from include.sample_company.answers import Notes
from include.sample_company.chance import Ints, Mask, pick
from include.sample_company.columns import (
    DAY,
    NULL,
    Column,
    Part,
    Strings,
    Table,
    characters,
    choose,
    chunks,
    digits,
    null_where,
    put,
    rows,
    stamps,
    strings,
)
from include.sample_company.world import HOUR, SHANGHAI, World

S10_WEIGHTS = (8, 6, 4, 2, 3, 5, 9, 7)
COLUMNS = (
    "waybill_id, created_at, number, carrier, status, sender_id, sender_address_id, sender_name, "
    "sender_phone, sender_address, receiver_id, receiver_address_id, receiver_name, "
    "receiver_phone, receiver_address, weight_grams, fee, delivered_at, masked_at"
)
SEARCHED = (
    "waybill_id", "created_at", "number", "status", "sender_id", "receiver_id", "delivered_at",
    "masked_at",
)  # fmt: skip
STATUSES = (b"created", b"in_transit", b"out_for_delivery", b"delivered", b"returned")
DELIVERED = 3
_NEAR = 200  # waybills among which one that is planted is looked for
NEWEST = 600  # the newest waybill is this many seconds old
# Share of a day's waybills made by each hour, Shanghai time: the counters sleep at night.
_HOURS = np.array([0, 7, 9, 12, 14, 18, 21, 24]) / 24
_SHARES = np.array([0, 0.02, 0.12, 0.38, 0.50, 0.82, 0.96, 1])
_S10_TAILS = np.array(
    [b"%dCN" % {10: 0, 11: 5}.get(11 - total, 11 - total) for total in range(11)], "S3"
)
_PAIRS = np.array([b"%02x" % n for n in range(256)], "S2")


@dataclass(frozen=True)
class Journey:
    """Where and when some waybills went.

    Attributes:
        created: when made, seconds.
        status: index into ``STATUSES``.
        delivered: when handed over, meaningful where the status is delivered.
    """

    created: Ints
    status: Ints
    delivered: Ints


@dataclass(frozen=True)
class Month:
    """A partition of waybill.

    Attributes:
        name: table.
        start: first moment in it, with its time zone.
        end: first moment after it.
        first: number of its first waybill.
        last: number of its last waybill; less than ``first`` when it has none.
    """

    name: str
    start: datetime
    end: datetime
    first: int
    last: int


def months(world: World) -> list[Month]:
    """The 36 months before that of the sample's moment, its own and the next (Asia/Shanghai)."""
    today = (world.as_of.astimezone(UTC) + SHANGHAI).replace(tzinfo=None)
    count = today.year * 12 + today.month - 1
    starts = [
        datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC) - SHANGHAI
        for month in range(count - 36, count + 3)
    ]
    firsts = [first_waybill_from(world, int(start.timestamp())) for start in starts]
    return [
        Month(f"waybill_{start + SHANGHAI:%Y_%m}", start, end, first, after - 1)
        for start, end, first, after in zip(starts, starts[1:], firsts, firsts[1:], strict=False)
    ]


def created_at(world: World, ids: Ints) -> Ints:
    """When waybills were made: evenly over three years, by the hours of the day; ascending."""
    start, end = (_unwarped(moment) for moment in (world.years_ago(3), world.now - 900))
    place = (ids - 1 + world.chance.unit(ids, "waybill created")) / max(world.waybills, 1)
    day, part = np.divmod(start + place * (end - start), 1)
    moment = ((day + np.interp(part, _SHARES, _HOURS)) * DAY).astype(np.int64)
    moment -= int(SHANGHAI.total_seconds())
    moment[ids == world.waybills] = world.now - NEWEST
    return moment


def _unwarped(moment: int) -> float:
    day, second = divmod(moment + int(SHANGHAI.total_seconds()), DAY)
    return day + float(np.interp(second / DAY, _HOURS, _SHARES))


def first_waybill_from(world: World, moment: int) -> int:
    """The number of the first waybill made at the moment or later; one too many if none was."""
    low, high = 1, world.waybills + 1
    while low < high:
        middle = (low + high) // 2
        if created_at(world, np.array([middle]))[0] >= moment:
            high = middle
        else:
            low = middle + 1
    return low


def canary_waybills(world: World) -> dict[int, int]:
    """A waybill for each canary, about 20 days old: number by customer."""
    newest = first_waybill_from(world, world.now - 20 * DAY)
    return {
        int(canary): newest - place
        for place, canary in enumerate(world.canaries, 1)
        if newest - place >= 1
    }


def journeys(world: World, ids: Ints, marked: dict[int, int]) -> Journey:
    """When waybills were made and how far they have come; canaries' have arrived."""
    created = created_at(world, ids)
    bits = world.chance.bits(ids, "journey")
    delivered = created + 12 * HOUR + pick(bits, 84 * 60) * 60
    canary = np.isin(ids, list(marked.values()))
    returned = (pick(bits, 50, 24) == 0) & (created < world.now - 10 * DAY) & ~canary
    status = np.select(
        [returned, delivered <= world.now, created > world.now - 6 * HOUR,
         delivered <= world.now + 10 * HOUR],
        [4, DELIVERED, 0, 2], 1,
    )  # fmt: skip
    return Journey(created, status, delivered)


def senders(world: World, ids: Ints, created: Ints, marked: dict[int, int]) -> Ints:
    """Who sent the waybills."""
    chosen = world.customer_for(ids, created, "sender")
    for canary, waybill in marked.items():
        chosen[ids == waybill] = canary
    return chosen


def contacts(world: World, ids: Ints, created: Ints, marked: dict[int, int]) -> tuple[Ints, Ints]:
    """Who sent the waybills, and to whom."""
    return senders(world, ids, created, marked), world.customer_for(ids, created, "receiver")


def build(world: World, notes: Notes) -> list[Table]:
    """Make a table for each month's partition, and the proofs of delivery."""
    marked = canary_waybills(world)
    return [
        *(
            Table(
                month.name, COLUMNS, _waybills(world, notes, month, marked),
                max(month.last - month.first + 1, 0), "waybill",
            )
            for month in months(world)
        ),
        Table(
            "delivery_proof",
            "proof_id, waybill_id, waybill_created_at, method, signed_at, signature",
            _proofs(world, notes, marked), round(world.waybills * world.rates.proofs / 1000),
        ),
    ]  # fmt: skip


def _waybills(world: World, notes: Notes, month: Month, marked: dict[int, int]) -> Iterator[bytes]:
    plan = world.waybill_plan
    for ids in chunks(month.first, month.last):
        kinds = plan.kinds(ids)
        journey = journeys(world, ids, marked)
        sender, receiver = contacts(world, ids, journey.created, marked)
        arrived = journey.status == DELIVERED
        due, spared = _due(world, journey), _spared(world, ids, marked)
        masked = due & ~spared
        notes.add("contact_not_masked", ids[due & spared])
        expired = world.past(journey.created, 2)
        notes.add("expired_waybill", ids[expired])
        proof_stays = _proven(world, ids, marked) & arrived & ~world.past(journey.delivered, 2)
        notes.add("expired_waybill_kept_by_proof", ids[expired & proof_stays])
        wrong_number = kinds == plan.code("invalid_waybill_number")
        notes.add("invalid_waybill_number", ids[wrong_number])
        number, carrier = _numbers(world, ids, wrong_number)
        bits = world.chance.bits(ids, "weight")
        grams = 100 + pick(bits, 200) * pick(bits, 150, 24)
        yield rows(
            len(ids),
            digits(ids, 10),
            stamps(journey.created),
            number,
            carrier,
            choose(STATUSES, journey.status),
            *_contact(world, sender, masked),
            *_contact(world, receiver, masked),
            digits(grams, 5),
            (digits(8 + grams // 1000, 3), choose((b".00", b".50"), grams % 2)),
            null_where(~arrived, stamps(journey.delivered)),
            null_where(~masked, stamps(journey.delivered + world.rates.mask_days * DAY)),
        )
        for canary, waybill in marked.items():
            if month.first <= waybill <= month.last and waybill in ids:
                _note_canary(world, notes, canary, waybill)


def _note_canary(world: World, notes: Notes, canary: int, waybill: int) -> None:
    for kind, value in (
        ("name", who.canary_name(world, canary)),
        ("phone", who.canary_phone(world, canary)),
        ("street", who.canary_street(world, canary)),
    ):
        column = "address" if kind == "street" else kind
        notes.canary(canary, kind, value, f"waybill.sender_{column}", waybill)


def _contact(world: World, ids: Ints, masked: Mask) -> list[Column]:
    """Customer, address, and the label's name, phone and address, masked by GB/T 41833-2022.

    The mask keeps the family name, five digits of the phone, and the address without its unit; of a
    canary nothing that is marked.
    """
    someone = who.people(world, ids)
    place = who.places(world, ids * 2 - 1)
    phone = characters(someone.phone)
    phone[masked, 3:9] = ord("*")
    hidden: list[Part] = [np.where(masked, b"", part).astype("S") for part in someone.name[1:]]
    unit: list[Part] = [
        np.where(masked, b"", _spread(part, len(ids))).astype("S") for part in place.unit
    ]
    stars = np.where(masked, b"**", b"")
    marked = masked & np.isin(who.originals(world, ids), world.canaries)
    surname = put(someone.surname, marked, who.CANARY_SURNAME.encode())
    marked = masked & np.isin(ids, world.canaries)
    street = put(place.street, marked, who.CANARY_STREET.encode())
    return [
        digits(ids, 10),
        digits(ids * 2 - 1, 10),
        (surname, *hidden, stars),
        strings(phone),
        [world.pools.areas[place.division], street, *place.house, *unit, stars],
    ]


def _spread(part: Part, count: int) -> Strings:
    return part if isinstance(part, np.ndarray) else np.full(count, part)


def _numbers(world: World, ids: Ints, wrong: Mask) -> tuple[Column, Column]:
    draw = world.chance.below(ids, 10, "carrier")
    # 5 in 10 SF with 13 digits, 2 with 12 digits, 2 JD, 1 EMS (S10).
    kind = np.where(wrong, 3, np.searchsorted([5, 7, 9], draw, "right"))
    serial = (ids * 2_654_435_761 + world.seed) % 10**8
    text = digits(serial, 8)
    figures = characters(text)
    total = np.zeros(len(ids), np.int64)
    for place, weight in enumerate(S10_WEIGHTS):
        total += (figures[:, place].astype(np.int64) - ord("0")) * weight
    # Two remainders share the digit 0 or 5 with another, so shift by one that never does.
    tail = _S10_TAILS[np.where(wrong, _WRONG[total % 11], total % 11)]
    number: Column = (
        choose((b"SF10204", b"3042", b"JD0102", b"EA"), kind),
        text,
        np.where(kind == 3, tail, b"").astype("S"),
    )
    return number, choose((b"SF", b"SF", b"JD", b"EMS"), kind)


def _wrong_remainder(total: int) -> int:
    return next(other for other in range(11) if _S10_TAILS[other] != _S10_TAILS[total])


_WRONG = np.array([_wrong_remainder(total) for total in range(11)])


def _proven(world: World, ids: Ints, marked: dict[int, int]) -> Mask:
    """Which waybills have a proof, once they have arrived; canaries' always do."""
    chosen = world.chance.below(ids, 1000, "proof") < world.rates.proofs
    return chosen | np.isin(ids, list(marked.values()))


def with_expired_proof(world: World, ids: Ints) -> Ints:
    """Those of some waybills whose proof of delivery was signed more than two years ago."""
    marked = canary_waybills(world)
    journey = journeys(world, ids, marked)
    signed = (journey.status == DELIVERED) & world.past(journey.delivered, 2)
    found: Ints = ids[_proven(world, ids, marked) & signed]
    return found


def _due(world: World, journey: Journey) -> Mask:
    """Which waybills' contact fields are to be masked."""
    horizon = world.now - world.rates.mask_days * DAY
    due: Mask = (journey.status == DELIVERED) & (journey.delivered < horizon)
    return due


def _spared(world: World, ids: Ints, marked: dict[int, int]) -> Mask:
    """Which waybills nobody has masked, due or not."""
    plan = world.waybill_plan
    left: Mask = plan.kinds(ids) == plan.code("contact_not_masked")
    return left | np.isin(ids, list(marked.values()))


def not_masked(world: World, ids: Ints) -> Ints:
    """Those of some waybills whose contact fields are to be masked and are not."""
    marked = canary_waybills(world)
    due = _due(world, journeys(world, ids, marked))
    found: Ints = ids[due & _spared(world, ids, marked)]
    return found


def with_label(world: World, number: int) -> int:
    """The next waybill that is planted as not masked, among some; else the one given."""
    near = np.arange(number, min(number + _NEAR, world.waybills + 1))
    plan = world.waybill_plan
    found = near[plan.kinds(near) == plan.code("contact_not_masked")]
    return int(found[0]) if found.size else number


def _proofs(world: World, notes: Notes, marked: dict[int, int]) -> Iterator[bytes]:
    canary_of = {waybill: canary for canary, waybill in marked.items()}
    for every in chunks(1, world.waybills):
        ids = every[_proven(world, every, marked)]
        journey = journeys(world, ids, marked)
        arrived = journey.status == DELIVERED
        ids, created = ids[arrived], journey.created[arrived]
        signed = journey.delivered[arrived]
        if not ids.size:
            continue
        notes.add("expired_delivery_proof", ids[world.past(signed, 2)])
        bits = world.chance.bits(ids, "signature")
        method = np.where(
            np.isin(ids, list(canary_of)), 0, np.searchsorted([7, 9], pick(bits, 10), "right")
        )
        strokes = _PAIRS[bits.view(np.uint8)].reshape(len(ids), 8)
        signature = np.ascontiguousarray(strokes).view("S16").ravel()
        lead = np.where(method == 0, rb"\\x", NULL)
        signature = np.where(method == 0, signature, b"").astype("S")
        for place in np.flatnonzero(np.isin(ids, list(canary_of))):
            person = canary_of[int(ids[place])]
            mark = f"signed by {world.token(person)}"
            signature = put(signature, ids == ids[place], mark.encode().hex().encode())
            notes.canary(
                person, "token", world.token(person), "delivery_proof.signature", int(ids[place])
            )
        yield rows(
            len(ids),
            digits(ids, 10),
            digits(ids, 10),
            stamps(created),
            choose((b"signature", b"locker", b"photo"), method),
            stamps(signed),
            (lead, signature),
        )
