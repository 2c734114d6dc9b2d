"""Generate waybills, in monthly partitions, and proofs of delivery."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from include.sample_company import identities
from include.sample_company.answers import AnswerSheetBuilder
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
_NEAR = 200  # waybills that with_label searches
NEWEST = 600  # age of the newest waybill in seconds
# Share of a day's waybills created by each hour, Shanghai time: the counters are closed at night.
_HOURS = np.array([0, 7, 9, 12, 14, 18, 21, 24]) / 24
_SHARES = np.array([0, 0.02, 0.12, 0.38, 0.50, 0.82, 0.96, 1])
_S10_TAILS = np.array(
    [b"%dCN" % {10: 0, 11: 5}.get(11 - total, 11 - total) for total in range(11)], "S3"
)
_PAIRS = np.array([b"%02x" % n for n in range(256)], "S2")


@dataclass(frozen=True)
class Journey:
    """The transport status of waybills, with the times of their creation and delivery.

    Each attribute is an array with one element per waybill.

    Attributes:
        created: creation time, in seconds since 1970.
        status: index into ``STATUSES``.
        delivered: delivery time in seconds since 1970; only valid if the status is delivered.
    """

    created: Ints
    status: Ints
    delivered: Ints


@dataclass(frozen=True)
class Month:
    """A monthly partition of the waybill table.

    Attributes:
        name: name of the partition.
        start: start of the month, timezone-aware.
        end: start of the next month.
        first: number of the month's first waybill.
        last: number of the month's last waybill; less than ``first`` if the month has no waybill.
    """

    name: str
    start: datetime
    end: datetime
    first: int
    last: int


def months(world: World) -> list[Month]:
    """Return the monthly partitions of the waybill table, oldest first.

    They are the month of ``world.as_of``, the 36 months before it and the month after it, all in
    the timezone Asia/Shanghai.
    """
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
    """Return the creation time of each waybill, in seconds since 1970.

    Waybills with higher numbers were created later. All days of the last three years have about the
    same number of waybills. Within a day, most waybills are created during working hours.
    """
    start, end = (_unwarped(moment) for moment in (world.years_ago(3), world.now - 900))
    share = (ids - 1 + world.chance.unit(ids, "waybill created")) / max(world.waybills, 1)
    day, part = np.divmod(start + share * (end - start), 1)
    moment = ((day + np.interp(part, _SHARES, _HOURS)) * DAY).astype(np.int64)
    moment -= int(SHANGHAI.total_seconds())
    moment[ids == world.waybills] = world.now - NEWEST
    return moment


def _unwarped(moment: int) -> float:
    day, second = divmod(moment + int(SHANGHAI.total_seconds()), DAY)
    return day + float(np.interp(second / DAY, _HOURS, _SHARES))


def first_waybill_from(world: World, moment: int) -> int:
    """Return the number of the first waybill that was created at ``moment`` or later.

    If all waybills are older, return the number that the next waybill would get.

    Args:
        world: settings of the sample database.
        moment: time in seconds since 1970.
    """
    low, high = 1, world.waybills + 1
    while low < high:
        middle = (low + high) // 2
        if created_at(world, np.array([middle]))[0] >= moment:
            high = middle
        else:
            low = middle + 1
    return low


def canary_waybills(world: World) -> dict[int, int]:
    """Return, for each canary customer, a waybill with the customer's unique values.

    Tests search for these values to find leaked customer data. The waybill is about 20 days old. If
    the database has no waybill of that age for a canary customer, the customer is left out.

    Returns:
        Number of the canary customer -> number of the waybill.
    """
    newest = first_waybill_from(world, world.now - 20 * DAY)
    return {
        int(canary): newest - index
        for index, canary in enumerate(world.canaries, 1)
        if newest - index >= 1
    }


def journeys(world: World, ids: Ints, marked: dict[int, int]) -> Journey:
    """Return the creation times, statuses and delivery times of waybills.

    The waybills in ``marked`` are always delivered.

    Args:
        world: settings of the sample database.
        ids: numbers of the waybills.
        marked: waybills of canary customers, as `canary_waybills` returns them.
    """
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
    """Return, for each waybill, the number of the customer who sends the parcel.

    Args:
        world: settings of the sample database.
        ids: numbers of the waybills.
        created: creation time of each waybill, in seconds since 1970.
        marked: waybills of canary customers, as `canary_waybills` returns them.
    """
    chosen = world.customer_for(ids, created, "sender")
    for canary, waybill in marked.items():
        chosen[ids == waybill] = canary
    return chosen


def contacts(world: World, ids: Ints, created: Ints, marked: dict[int, int]) -> tuple[Ints, Ints]:
    """Return, for each waybill, the numbers of the customers who send and who receive the parcel.

    Args:
        world: settings of the sample database.
        ids: numbers of the waybills.
        created: creation time of each waybill, in seconds since 1970.
        marked: waybills of canary customers, as `canary_waybills` returns them.
    """
    return senders(world, ids, created, marked), world.customer_for(ids, created, "receiver")


def build(world: World, sheet_builder: AnswerSheetBuilder) -> list[Table]:
    """Return the monthly partitions of waybills, and the table of proofs of delivery.

    Args:
        world: settings of the sample database.
        sheet_builder: collects the rows for the answer sheet while the rows are generated.
    """
    marked = canary_waybills(world)
    return [
        *(
            Table(
                month.name, COLUMNS, _waybills(world, sheet_builder, month, marked),
                max(month.last - month.first + 1, 0), "waybill",
            )
            for month in months(world)
        ),
        Table(
            "delivery_proof",
            "proof_id, waybill_id, waybill_created_at, method, signed_at, signature",
            _proofs(world, sheet_builder, marked),
            round(world.waybills * world.rates.proofs / 1000),
        ),
    ]  # fmt: skip


def _waybills(
    world: World, sheet_builder: AnswerSheetBuilder, month: Month, marked: dict[int, int]
) -> Iterator[bytes]:
    plan = world.waybill_plan
    for ids in chunks(month.first, month.last):
        variants = plan.variants(ids)
        journey = journeys(world, ids, marked)
        sender, receiver = contacts(world, ids, journey.created, marked)
        arrived = journey.status == DELIVERED
        due, unmasked = _mask_due(world, journey), _left_unmasked(world, ids, marked)
        masked = due & ~unmasked
        sheet_builder.add("contact_not_masked", ids[due & unmasked])
        expired = world.past(journey.created, 2)
        sheet_builder.add("expired_waybill", ids[expired])
        proof_stays = _proven(world, ids, marked) & arrived & ~world.past(journey.delivered, 2)
        sheet_builder.add("expired_waybill_kept_by_proof", ids[expired & proof_stays])
        wrong_number = variants == plan.code("invalid_waybill_number")
        sheet_builder.add("invalid_waybill_number", ids[wrong_number])
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
                _note_canary(world, sheet_builder, canary, waybill)


def _note_canary(
    world: World, sheet_builder: AnswerSheetBuilder, canary: int, waybill: int
) -> None:
    for kind, value in (
        ("name", identities.canary_name(world, canary)),
        ("phone", identities.canary_phone(world, canary)),
        ("street", identities.canary_street(world, canary)),
    ):
        column = "address" if kind == "street" else kind
        sheet_builder.add_canary(canary, kind, value, f"waybill.sender_{column}", waybill)


def _contact(world: World, ids: Ints, masked: Mask) -> list[Column]:
    """Return the columns that describe either the senders or the receivers of waybills.

    The columns are customer number, address number, and the name, phone number and address on the
    shipping label. Where ``masked`` is true, the label is masked according to GB/T 41833-2022: only
    the surname, five digits of the phone number, and the address without its unit remain. Masked
    labels of canary customers do not contain the unique values of these customers.

    Args:
        world: settings of the sample database.
        ids: customer number of the sender or receiver, for each waybill.
        masked: whether the label is masked, for each waybill.
    """
    people = identities.people(world, ids)
    address = identities.places(world, ids * 2 - 1)
    phone = characters(people.phone)
    phone[masked, 3:9] = ord("*")
    hidden: list[Part] = [np.where(masked, b"", part).astype("S") for part in people.name[1:]]
    unit: list[Part] = [
        np.where(masked, b"", _as_column(part, len(ids))).astype("S") for part in address.unit
    ]
    stars = np.where(masked, b"**", b"")
    marked = masked & np.isin(identities.originals(world, ids), world.canaries)
    surname = put(people.surname, marked, identities.CANARY_SURNAME.encode())
    marked = masked & np.isin(ids, world.canaries)
    street = put(address.street, marked, identities.CANARY_STREET.encode())
    return [
        digits(ids, 10),
        digits(ids * 2 - 1, 10),
        (surname, *hidden, stars),
        strings(phone),
        [world.pools.areas[address.division], street, *address.house, *unit, stars],
    ]


def _as_column(part: Part, count: int) -> Strings:
    return part if isinstance(part, np.ndarray) else np.full(count, part)


def _numbers(world: World, ids: Ints, wrong: Mask) -> tuple[Column, Column]:
    draw = world.chance.below(ids, 10, "carrier")
    # 5 in 10 SF with 13 digits, 2 with 12 digits, 2 JD, 1 EMS (S10).
    kind = np.where(wrong, 3, np.searchsorted([5, 7, 9], draw, "right"))
    serial = (ids * 2_654_435_761 + world.seed) % 10**8
    text = digits(serial, 8)
    figures = characters(text)
    total = np.zeros(len(ids), np.int64)
    for index, weight in enumerate(S10_WEIGHTS):
        total += (figures[:, index].astype(np.int64) - ord("0")) * weight
    # Remainders can have equal check digits, so a wrong digit needs a remainder with another digit.
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
    """Return for each waybill whether it gets a proof of delivery when it is delivered.

    Args:
        world: settings of the sample database.
        ids: numbers of the waybills.
        marked: waybills of canary customers, as `canary_waybills` returns them. They always get a
            proof of delivery.
    """
    chosen = world.chance.below(ids, 1000, "proof") < world.rates.proofs
    return chosen | np.isin(ids, list(marked.values()))


def with_expired_proof(world: World, ids: Ints) -> Ints:
    """Return those waybills whose proof of delivery was signed more than two years ago.

    Args:
        world: settings of the sample database.
        ids: numbers of the waybills to choose from.
    """
    marked = canary_waybills(world)
    journey = journeys(world, ids, marked)
    signed = (journey.status == DELIVERED) & world.past(journey.delivered, 2)
    expired: Ints = ids[_proven(world, ids, marked) & signed]
    return expired


def _mask_due(world: World, journey: Journey) -> Mask:
    """Return for each waybill whether its contact fields have to be masked.

    They have to be masked if the waybill was delivered more than `Rates.mask_days` days ago.
    """
    horizon = world.now - world.rates.mask_days * DAY
    due: Mask = (journey.status == DELIVERED) & (journey.delivered < horizon)
    return due


def _left_unmasked(world: World, ids: Ints, marked: dict[int, int]) -> Mask:
    """Return for each waybill whether its contact fields are never masked.

    These are waybills with this deliberate defect, and the waybills of canary customers.

    Args:
        world: settings of the sample database.
        ids: numbers of the waybills.
        marked: waybills of canary customers, as `canary_waybills` returns them.
    """
    plan = world.waybill_plan
    planted: Mask = plan.variants(ids) == plan.code("contact_not_masked")
    return planted | np.isin(ids, list(marked.values()))


def not_masked(world: World, ids: Ints) -> Ints:
    """Return those waybills whose contact fields should be masked but are not.

    Args:
        world: settings of the sample database.
        ids: numbers of the waybills to choose from.
    """
    marked = canary_waybills(world)
    due = _mask_due(world, journeys(world, ids, marked))
    unmasked: Ints = ids[due & _left_unmasked(world, ids, marked)]
    return unmasked


def with_label(world: World, number: int) -> int:
    """Return the first waybill, from ``number`` on, that is deliberately left unmasked.

    Only ``number`` and the next 199 waybills are examined. If none of them is left unmasked, return
    ``number``.
    """
    near = np.arange(number, min(number + _NEAR, world.waybills + 1))
    plan = world.waybill_plan
    unmasked = near[plan.variants(near) == plan.code("contact_not_masked")]
    return int(unmasked[0]) if unmasked.size else number


def _proofs(
    world: World, sheet_builder: AnswerSheetBuilder, marked: dict[int, int]
) -> Iterator[bytes]:
    canary_of = {waybill: canary for canary, waybill in marked.items()}
    for all_ids in chunks(1, world.waybills):
        ids = all_ids[_proven(world, all_ids, marked)]
        journey = journeys(world, ids, marked)
        arrived = journey.status == DELIVERED
        ids, created = ids[arrived], journey.created[arrived]
        signed = journey.delivered[arrived]
        if not ids.size:
            continue
        sheet_builder.add("expired_delivery_proof", ids[world.past(signed, 2)])
        bits = world.chance.bits(ids, "signature")
        method = np.where(
            np.isin(ids, list(canary_of)), 0, np.searchsorted([7, 9], pick(bits, 10), "right")
        )
        strokes = _PAIRS[bits.view(np.uint8)].reshape(len(ids), 8)
        signature = np.ascontiguousarray(strokes).view("S16").ravel()
        lead = np.where(method == 0, rb"\\x", NULL)
        signature = np.where(method == 0, signature, b"").astype("S")
        for index in np.flatnonzero(np.isin(ids, list(canary_of))):
            waybill = int(ids[index])
            canary = canary_of[waybill]
            text = f"signed by {world.token(canary)}"
            signature = put(signature, ids == waybill, text.encode().hex().encode())
            sheet_builder.add_canary(
                canary, "token", world.token(canary), "delivery_proof.signature", waybill
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
