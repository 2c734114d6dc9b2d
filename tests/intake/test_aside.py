"""Rows that were set aside stay in the quarantine register until they are dealt with."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import text

from include.erasure.ledger import ErasureKeys
from include.intake.checks import OwnChecks, SuiteChecks
from include.intake.table import IncomingTable
from include.services.errors import UsageError
from tests.intake import steps
from tests.intake.conftest import KEYS, OLDEST, Rig, keyed_by_phone


def registering(table: IncomingTable) -> IncomingTable:
    """The table as the workflow has it: rows that are set aside are listed."""
    return replace(table, keys=KEYS)


def listed(table: IncomingTable) -> set[str]:
    with table.state.connect() as conn:
        rows = conn.execute(
            text(
                "SELECT DISTINCT key FROM quarantine WHERE database = 'courier'"
                " AND collection = 'intake_record' AND resolved_at IS NULL"
            )
        )
        return {key for (key,) in rows}


def set_aside(rig: Rig, table: IncomingTable) -> list[int]:
    """Let the oldest batch in; returns the rows that were set aside."""
    checked = rig.checked()
    rig.answered(checked)
    steps.settle(table, checked)
    query = "SELECT intake_id FROM intake_record WHERE batch_id = %s AND status = 'rejected'"
    return sorted(key for (key,) in rig.rows(query, OLDEST))


def resolved(table: IncomingTable) -> int:
    """Rows and rules that the count afterwards resolves."""
    (figure,) = [
        one.value for one in steps.verify([table], []).metrics if one.name == "intake.resolved"
    ]
    assert isinstance(figure, int)
    return figure


def again(rig: Rig, key: int, *, state: str = "promoted", **other: object) -> None:
    """Enter a row anew, an hour later, with other values in some columns."""
    rig.rows(
        "INSERT INTO intake_record (batch_id, name, phone, id_number, consent_purposes, raw, "
        "entered_by, entered_at, status) SELECT 'IN-999999', name, phone, id_number, "
        "consent_purposes, raw, entered_by, entered_at + interval '1 hour', %s "
        "FROM intake_record WHERE intake_id = %s",
        state,
        key,
    )
    for column, value in other.items():
        rig.rows(f"UPDATE intake_record SET {column} = %s WHERE batch_id = 'IN-999999'", value)


def test_what_was_set_aside_stays_listed_while_nobody_deals_with_it(rig: Rig) -> None:
    """Also when it was entered anew and that row waits or is turned down."""
    table = registering(rig.table)
    rows = set_aside(rig, table)
    assert len(rows) == 6
    assert resolved(table) == 0
    again(rig, rows[0], state="pending")
    again(rig, rows[1], state="rejected")
    assert resolved(table) == 0
    assert listed(table) == {f'["{one}"]' for one in rows}


@pytest.mark.parametrize("column", ["phone", "name", "id_number", "email"])
def test_a_row_that_was_entered_anew_and_let_in_is_dealt_with(rig: Rig, column: str) -> None:
    """Whatever one value was corrected: the pack says by which others the entry is recognised."""
    table = registering(rig.table)
    rows = set_aside(rig, table)
    key = next(
        one
        for one in rows
        if rig.one("SELECT num_nulls(name, phone) FROM intake_record WHERE intake_id = %s", one)
        == 0
    )
    again(rig, key, **{column: "another"})
    assert resolved(table) >= 1
    assert listed(table) == {f'["{one}"]' for one in rows if one != key}
    assert resolved(table) == 0


def test_an_earlier_formal_row_is_no_correction(rig: Rig) -> None:
    """The customer was entered before, and this row with its fault came after."""
    table = registering(rig.table)
    rows = set_aside(rig, table)
    for key in rows:
        again(rig, key)
    rig.rows(
        "UPDATE intake_record SET entered_at = entered_at - interval '2 hours' "
        "WHERE batch_id = 'IN-999999'"
    )
    assert resolved(table) == 0
    assert listed(table) == {f'["{one}"]' for one in rows}


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM intake_record WHERE intake_id = %s",
        "UPDATE intake_record SET status = 'promoted' WHERE intake_id = %s",
    ],
)
def test_a_row_that_is_gone_or_was_let_in_is_dealt_with(rig: Rig, change: str) -> None:
    """By whoever; one that was put back to pending waits for its next review."""
    table = registering(rig.table)
    rows = set_aside(rig, table)
    rig.rows(change, rows[2])
    rig.rows("UPDATE intake_record SET status = 'pending' WHERE intake_id = %s", rows[3])
    assert resolved(table) >= 1
    assert listed(table) == {f'["{one}"]' for one in rows if one != rows[2]}


def test_a_personal_key_is_recognised_by_the_key_it_was_named_with(rig: Rig) -> None:
    """The HMAC's keys were rotated since; without the old one nobody can tell, and it stays."""
    rig.rows("UPDATE intake_record SET phone = '139' || lpad(intake_id::text, 8, '0')")
    incoming = keyed_by_phone(rig.table.incoming)
    expected, _own = rig.table.checkers
    assert isinstance(expected, SuiteChecks)
    checkers = [SuiteChecks(incoming, expected.expectations), OwnChecks(incoming)]
    table = registering(replace(rig.table, incoming=incoming, checkers=checkers))
    rows = set_aside(rig, table)
    before = listed(table)
    assert len(before) == len(rows)
    assert all(one.startswith('["hmac:1:') for one in before)
    rig.rows("DELETE FROM intake_record WHERE intake_id = %s", rows[0])
    forgotten = replace(table, keys=ErasureKeys({"2": b"n" * 32}, "2"))
    assert resolved(forgotten) == 0
    rotated = replace(table, keys=ErasureKeys({**KEYS.keys, "2": b"n" * 32}, "2"))
    assert resolved(rotated) >= 1
    assert len(listed(table)) == len(rows) - 1


def test_what_another_workflow_listed_is_left_alone(rig: Rig) -> None:
    """Fields that no purpose needs are `check_quality`'s, also of an incoming collection."""
    table = registering(rig.of_workflow("check_quality"))
    table.quarantine("over_collected_religion", [(987654,)])
    assert resolved(registering(rig.table)) == 0
    assert listed(table) == {'["987654"]'}


def test_a_wrong_condition_is_said_without_a_value(rig: Rig) -> None:
    """And leaves the register as it is."""
    table = registering(rig.table)
    set_aside(rig, table)
    rule = table.incoming.rule.model_copy(update={"entered_anew": ("n.id_number::int = 5",)})
    wrong = replace(table, incoming=replace(table.incoming, rule=rule))
    rig.rows("UPDATE intake_record SET status = 'promoted' WHERE batch_id <> %s", OLDEST)
    with pytest.raises(UsageError, match="SQLSTATE 22") as caught:
        steps.verify([wrong], [])
    assert caught.value.__cause__ is None
    assert len(listed(table)) == 6
