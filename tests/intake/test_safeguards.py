"""Tests that a batch is not promoted if the database changes or hides what the run has checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.sql import Composable

from include.intake import batches
from include.intake.checks import FAIL, Key, Verdict
from include.messages import verbatim
from include.services.database import DatabaseAddress
from include.services.errors import ControlFailed, UsageError
from tests.intake import steps
from tests.intake.conftest import NOW, OLDEST, REVIEWER, Rig


def test_account_shared_by_two_people_is_not_assigned_and_its_review_creates_a_finding(
    rig: Rig,
) -> None:
    (other,) = rig.rows("SELECT employee_id FROM employee WHERE number = 'E00017'")[0]
    rig.rows("ALTER TABLE employee DROP CONSTRAINT employee_number_key")
    rig.rows("UPDATE employee SET number = %s WHERE employee_id = %s", REVIEWER, other)
    checked = rig.checked()
    assert steps.ask(rig.table, checked).assigned == ["E00031"]
    with psycopg.connect(rig.conninfo, autocommit=True) as connection:
        assert REVIEWER not in batches.load_reviewers(connection, rig.table.incoming)
    (finding,) = rig.answered(checked).findings
    assert finding.code == "intake.not_entitled"


@pytest.mark.parametrize(
    "trigger",
    [
        "BEFORE UPDATE ON intake_record FOR EACH ROW "
        "WHEN (NEW.status = 'promoted' AND mod(NEW.intake_id, 5) = 0)",
        "BEFORE UPDATE ON intake_record FOR EACH ROW WHEN (NEW.status = 'promoted')",
    ],
    ids=["some", "all"],
)
def test_promotion_is_rolled_back_if_trigger_prevents_state_change(rig: Rig, trigger: str) -> None:
    rig.rows("CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    rig.rows(f"CREATE TRIGGER keep {trigger} EXECUTE FUNCTION keep()")
    before = rig.one("SELECT count(*) FROM customer")
    checked = rig.checked()
    rig.answered(checked)
    with pytest.raises(ControlFailed, match=r"only \d+ of 24 rows"):
        steps.settle(rig.table, checked)
    assert rig.one("SELECT count(*) FROM customer") == before
    assert rig.states() == {"pending": 30}


@dataclass(frozen=True)
class Names:
    """A checker with a single condition, which the rows with the given primary keys break."""

    found: Sequence[Key]

    def check(
        self, connection: psycopg.Connection[Any], where: Composable, now: datetime
    ) -> Sequence[Verdict]:
        del connection, where, now

        def keys() -> Iterator[Key]:
            return iter(self.found)

        return [
            Verdict(
                rule="named",
                title=verbatim("named"),
                severity=FAIL,
                rows=30,
                broken=len(self.found),
                keys=keys,
            )
        ]


def test_promotion_is_rolled_back_if_the_check_returns_a_key_without_a_matching_row(
    rig: Rig,
) -> None:
    key = rig.one("SELECT min(intake_id) FROM intake_record WHERE batch_id = %s", OLDEST)
    table = replace(rig.table, checkers=[Names([(str(key),), (f"0{key + 1}",)])])
    rig.rows(
        "UPDATE intake_record SET name = 'x', phone = '1', id_number = '2', division_code = NULL"
    )
    before = rig.one("SELECT count(*) FROM customer")
    checked = rig.checked()
    rig.answered(checked)
    with pytest.raises(ControlFailed, match=r"2 rows of .*, but 1 were set aside"):
        steps.settle(table, checked)
    assert rig.one("SELECT count(*) FROM customer") == before
    assert rig.states() == {"pending": 30}


def test_record_reviewed_by_the_person_who_entered_it_counts_as_unreviewed(rig: Rig) -> None:
    checked = rig.checked()
    reviewed = rig.answered(checked)
    settled = steps.settle(rig.table, checked)
    rig.rows(
        "UPDATE intake_record SET entered_by = reviewed_by WHERE intake_id IN (SELECT intake_id "
        "FROM intake_record WHERE batch_id = %s AND status = 'promoted' ORDER BY 1 LIMIT 2)",
        OLDEST,
    )
    verified = steps.verify([rig.table], [reviewed, settled])
    assert verified.data["unreviewed"] == 2
    assert [finding.code for finding in verified.findings] == ["intake.unreviewed"]


@pytest.mark.parametrize("shift", [timedelta(0), timedelta(microseconds=1)])
def test_verification_creates_finding_if_counted_rows_differ_from_promoted_rows(
    rig: Rig, shift: timedelta
) -> None:
    checked = rig.checked()
    reviewed = rig.answered(checked)
    settled = steps.settle(rig.table, checked)
    rig.rows("UPDATE intake_record SET reviewed_at = reviewed_at + %s", shift)
    rig.rows("UPDATE customer SET reviewed_at = reviewed_at + %s", shift)
    verified = steps.verify([rig.table], [reviewed, settled])
    assert [finding.code for finding in verified.findings] == ["intake.not_found"] * bool(shift)


def test_search_for_pending_batches_raises_usage_error_if_row_level_security_hides_rows(
    rig: Rig,
) -> None:
    rig.rows("DROP ROLE IF EXISTS intake_hidden")
    rig.rows("CREATE ROLE intake_hidden LOGIN PASSWORD 'x'")
    rig.rows("GRANT SELECT ON ALL TABLES IN SCHEMA public TO intake_hidden")
    rig.rows("ALTER TABLE intake_record ENABLE ROW LEVEL SECURITY")
    rig.rows("CREATE POLICY even ON intake_record USING (mod(intake_id, 2) = 0)")
    address = DatabaseAddress.from_conninfo(rig.conninfo)
    reader = DatabaseAddress({**address.parameters, "user": "intake_hidden"}, "x")
    try:
        with (
            reader.connect(autocommit=True) as connection,
            pytest.raises(UsageError, match="row security"),
            batches.unit_of_work(connection, rig.table.incoming, write=False),
        ):
            batches.find_pending(connection, rig.table.incoming, NOW)
    finally:
        rig.rows("DROP OWNED BY intake_hidden")
        rig.rows("DROP ROLE intake_hidden")


def test_review_task_raises_control_failed_error_if_the_check_created_no_approval_request(
    rig: Rig,
) -> None:
    rig.rows("UPDATE employee SET has_data_access = false")
    checked = rig.checked()
    assert checked.data["request"] is None
    with pytest.raises(ControlFailed, match="cannot be submitted for review"):
        steps.ask(rig.table, checked)
