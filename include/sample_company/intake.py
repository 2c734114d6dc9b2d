"""Generate the table of incoming records, in batches of 30 records.

The last four batches wait for their review, and some of their records have deliberate defects. All
other batches have already been reviewed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from include.sample_company import identities
from include.sample_company.answers import AnswerSheetBuilder
from include.sample_company.chance import Ints
from include.sample_company.columns import Strings, Table, text_rows
from include.sample_company.staff import CUSTOMER_SERVICE, INFORMATION_MANAGEMENT, core
from include.sample_company.world import HOUR, World

BATCH = 30
PENDING = 4  # pending batches; the oldest waits past its deadline
_AGES = (100, 40, 15, 3)  # hours since the pending batches were entered
_OLD_DAYS = 200  # days since the first batch was entered, which was rejected
_KEPT_DAYS = 180  # days for which records are kept after the review
_MOST = 600  # largest number of batches
_DEFECTS = {
    2: "intake_invalid_phone",
    5: "intake_invalid_id_number",
    9: "intake_unknown_division",
    14: "intake_missing_name",
    20: "intake_no_consent",
    27: "intake_duplicate",
}
_CANARY_POSITION = 11


@dataclass(frozen=True)
class _Form:
    name: str | None
    phone: str
    id_number: str
    email: str
    division_code: str
    street: str
    consent: str = "{delivery}"


def build(world: World, sheet_builder: AnswerSheetBuilder) -> list[Table]:
    """Return the table of incoming records. Reviewed batches come first, then pending batches.

    Args:
        world: settings of the sample database.
        sheet_builder: collects the rows with deliberate defects for the answer sheet.
    """
    batches = min(max(world.customers // 1500, 2), _MOST) + PENDING
    records: list[tuple[object, ...]] = []
    for batch in range(batches):
        records.extend(_batch(world, sheet_builder, batch, batches))
    return [
        Table(
            "intake_record",
            "intake_id, batch_id, name, phone, id_number, email, division_code, street, "
            "consent_purposes, raw, entered_by, entered_at, status, reviewed_by, reviewed_at, "
            "customer_id",
            text_rows(records), len(records),
        )
    ]  # fmt: skip


def _batch(
    world: World, sheet_builder: AnswerSheetBuilder, batch: int, batches: int
) -> list[tuple[object, ...]]:
    enterers = core(world, CUSTOMER_SERVICE)
    reviewers = core(world, INFORMATION_MANAGEMENT)
    waiting = batch - (batches - PENDING)
    pending = waiting >= 0
    old = batch == 0
    first = batch * BATCH + 1
    ids = np.arange(first, first + BATCH, dtype=np.int64)
    # Reviewed batches are about the newest customers, and pending batches about new people.
    customers = world.customers - (batches - PENDING) * BATCH + ids
    promoted = not pending and not old and customers[0] >= 1
    if not promoted:
        customers = world.customers + 1_000_000 + ids
    hours = _AGES[waiting] if pending else 120 + 24 * (batches - PENDING - batch)
    if old:
        hours = _OLD_DAYS * 24
    entered = datetime.fromtimestamp(world.now - hours * HOUR, UTC)
    if promoted:
        entered = datetime.fromtimestamp(int(world.customer_created(customers[:1])[0]), UTC)
    reviewed = None if pending else datetime.fromtimestamp(entered.timestamp() + HOUR, UTC)
    if reviewed and reviewed < world.as_of - timedelta(days=_KEPT_DAYS):
        sheet_builder.add("expired_incoming_record", ids)
    forms = _forms(world, customers)
    if pending:
        forms = [
            _plant_defect(world, sheet_builder, form, int(n), waiting)
            for n, form in zip(ids, forms, strict=True)
        ]
        if hours > 72:
            sheet_builder.add("intake_overdue", ids)
    status = "pending" if pending else "promoted" if promoted else "rejected"
    return [
        (
            int(number), f"IN-{batch + 1:06d}", form.name, form.phone, form.id_number, form.email,
            form.division_code, form.street, form.consent, _raw(form),
            enterers[batch % len(enterers)].employee_id, f"{entered:%Y-%m-%d %H:%M:%S}", status,
            None if pending else reviewers[batch % len(reviewers)].employee_id,
            None if reviewed is None else f"{reviewed:%Y-%m-%d %H:%M:%S}",
            int(customer) if promoted else None,
        )
        for number, customer, form in zip(ids, customers, forms, strict=True)
    ]  # fmt: skip


def _forms(world: World, customers: Ints) -> list[_Form]:
    people = identities.people(world, customers)
    id_number, _ = identities.id_numbers(world, customers)
    address = identities.places(world, customers * 2 - 1)
    return [
        _Form(
            name=_join(people.name, n),
            phone=people.phone[n].decode(),
            id_number=id_number[n].decode(),
            email=f"{people.pinyin[n].decode()}{customer:010d}@example.com",
            division_code=world.pools.codes[address.division[n]].decode(),
            street=_join(address.line, n),
        )
        for n, customer in enumerate(customers)
    ]


def _join(parts: tuple[Strings | bytes, ...] | list[Strings | bytes], n: int) -> str:
    return b"".join(part if isinstance(part, bytes) else part[n] for part in parts).decode()


def _plant_defect(
    world: World, sheet_builder: AnswerSheetBuilder, form: _Form, number: int, waiting: int
) -> _Form:
    """Return an incoming record with the deliberate defect that its position in the batch decides.

    A record at a position without a defect is returned unchanged.

    Args:
        world: settings of the sample database.
        sheet_builder: collects the rows with deliberate defects for the answer sheet.
        form: content of the incoming record, without defects.
        number: number of the incoming record.
        waiting: index of the batch among the batches that wait for their review; 0 for the oldest.
    """
    position = (number - 1) % BATCH
    rule = _DEFECTS.get(position)
    if position == _CANARY_POSITION and waiting < len(world.canaries):
        return _mark(world, sheet_builder, form, number, int(world.canaries[waiting]))
    if rule is None or (rule == "intake_duplicate" and not world.customers):
        return form
    sheet_builder.add(rule, [number])
    if rule == "intake_invalid_phone":
        return replace(form, phone=f"128{number:08d}")
    if rule == "intake_invalid_id_number":
        valid = identities.ID_CHECKS.index(form.id_number[-1].upper())
        return replace(form, id_number=form.id_number[:-1] + identities.ID_CHECKS[(valid + 3) % 11])
    if rule == "intake_unknown_division":
        return replace(form, division_code="990101")
    if rule == "intake_missing_name":
        return replace(form, name=None)
    if rule == "intake_no_consent":
        return replace(form, consent="{}")
    existing_customer = np.array([1 + waiting % min(world.customers, 1)], np.int64)
    return _forms(world, existing_customer)[0]


def _mark(
    world: World, sheet_builder: AnswerSheetBuilder, form: _Form, number: int, canary: int
) -> _Form:
    name, street = identities.canary_name(world, canary), identities.canary_street(world, canary)
    email = identities.canary_email(world, canary)
    for kind, value, column in (
        ("name", name, "name"), ("street", street, "street"), ("email", email, "email"),
        ("token", world.token(canary), "raw"),
    ):  # fmt: skip
        sheet_builder.add_canary(canary, kind, value, f"intake_record.{column}", number)
    return replace(form, name=name, street=street, email=email)


def _raw(form: _Form) -> str:
    fields = {"name": form.name, "phone": form.phone, "address": form.street, "source": "app"}
    return json.dumps(fields, ensure_ascii=False)
