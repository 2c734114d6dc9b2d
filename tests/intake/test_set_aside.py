"""Tests that the quarantine register lists quarantined rows until they are resolved."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import text

from include.erasure.ledger import ErasureKeys
from include.intake.checks import ConditionChecks, SuiteChecks
from include.intake.table import IncomingTable
from include.services.errors import UsageError
from tests.intake import steps
from tests.intake.conftest import KEYS, OLDEST, Rig, keyed_by_phone


def registering(table: IncomingTable) -> IncomingTable:
    """Return the incoming table with HMAC keys, so that the quarantine register lists rows."""
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
    """Approve the oldest batch, execute the decision, and return the quarantined keys."""
    checked = rig.checked()
    rig.answered(checked)
    steps.settle(table, checked)
    query = "SELECT intake_id FROM intake_record WHERE batch_id = %s AND status = 'rejected'"
    return sorted(key for (key,) in rig.rows(query, OLDEST))


def resolved(table: IncomingTable) -> int:
    """Run the verification, and return the number of quarantine entries that it closes."""
    (figure,) = [
        metric.value
        for metric in steps.verify([table], []).metrics
        if metric.name == "intake.resolved"
    ]
    assert isinstance(figure, int)
    return figure


def again(rig: Rig, key: int, *, state: str = "promoted", **other: object) -> None:
    """Insert a changed copy of a row, with a time of entry that is one hour later.

    Args:
        rig: incoming table and databases of the test.
        key: primary key of the row.
        state: state of the copy.
        other: changed values by column.
    """
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


def test_quarantine_entry_stays_open_if_the_corrected_row_is_pending_or_rejected(rig: Rig) -> None:
    table = registering(rig.table)
    rows = set_aside(rig, table)
    assert len(rows) == 6
    assert resolved(table) == 0
    again(rig, rows[0], state="pending")
    again(rig, rows[1], state="rejected")
    assert resolved(table) == 0
    assert listed(table) == {f'["{row}"]' for row in rows}


@pytest.mark.parametrize("column", ["phone", "name", "id_number", "email"])
def test_quarantine_entry_is_closed_if_row_was_entered_again_and_promoted(
    rig: Rig, column: str
) -> None:
    table = registering(rig.table)
    rows = set_aside(rig, table)
    key = next(
        row
        for row in rows
        if rig.one("SELECT num_nulls(name, phone) FROM intake_record WHERE intake_id = %s", row)
        == 0
    )
    again(rig, key, **{column: "another"})
    assert resolved(table) >= 1
    assert listed(table) == {f'["{row}"]' for row in rows if row != key}
    assert resolved(table) == 0


def test_quarantine_entry_stays_open_if_the_matching_row_was_entered_before_the_quarantined_row(
    rig: Rig,
) -> None:
    table = registering(rig.table)
    rows = set_aside(rig, table)
    for key in rows:
        again(rig, key)
    rig.rows(
        "UPDATE intake_record SET entered_at = entered_at - interval '2 hours' "
        "WHERE batch_id = 'IN-999999'"
    )
    assert resolved(table) == 0
    assert listed(table) == {f'["{row}"]' for row in rows}


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM intake_record WHERE intake_id = %s",
        "UPDATE intake_record SET status = 'promoted' WHERE intake_id = %s",
    ],
)
def test_quarantine_entry_is_closed_if_row_was_deleted_or_promoted(rig: Rig, change: str) -> None:
    table = registering(rig.table)
    rows = set_aside(rig, table)
    rig.rows(change, rows[2])
    rig.rows("UPDATE intake_record SET status = 'pending' WHERE intake_id = %s", rows[3])
    assert resolved(table) >= 1
    assert listed(table) == {f'["{row}"]' for row in rows if row != rows[2]}


def test_quarantine_entry_of_deleted_row_is_closed_after_rotation_of_its_hmac_key(rig: Rig) -> None:
    rig.rows("UPDATE intake_record SET phone = '139' || lpad(intake_id::text, 8, '0')")
    incoming = keyed_by_phone(rig.table.incoming)
    expected, _own = rig.table.checkers
    assert isinstance(expected, SuiteChecks)
    checkers = [SuiteChecks(incoming, expected.expectations), ConditionChecks(incoming)]
    table = registering(replace(rig.table, incoming=incoming, checkers=checkers))
    rows = set_aside(rig, table)
    before = listed(table)
    assert len(before) == len(rows)
    assert all(key.startswith('["hmac:1:') for key in before)
    rig.rows("DELETE FROM intake_record WHERE intake_id = %s", rows[0])
    forgotten = replace(table, keys=ErasureKeys({"2": b"n" * 32}, "2"))
    assert resolved(forgotten) == 0
    rotated = replace(table, keys=ErasureKeys({**KEYS.keys, "2": b"n" * 32}, "2"))
    assert resolved(rotated) >= 1
    assert len(listed(table)) == len(rows) - 1


def test_quarantine_entries_of_other_workflows_are_not_closed(rig: Rig) -> None:
    table = registering(rig.of_workflow("check_quality"))
    table.quarantine("over_collected_religion", [(987654,)])
    assert resolved(registering(rig.table)) == 0
    assert listed(table) == {'["987654"]'}


def test_error_about_failing_sql_in_the_setting_entered_anew_contains_no_record_value(
    rig: Rig,
) -> None:
    table = registering(rig.table)
    set_aside(rig, table)
    rule = table.incoming.rule.model_copy(update={"entered_anew": ("n.id_number::int = 5",)})
    wrong = replace(table, incoming=replace(table.incoming, rule=rule))
    rig.rows("UPDATE intake_record SET status = 'promoted' WHERE batch_id <> %s", OLDEST)
    with pytest.raises(UsageError, match="SQLSTATE 22") as caught:
        steps.verify([wrong], [])
    assert caught.value.__cause__ is None
    assert len(listed(table)) == 6
