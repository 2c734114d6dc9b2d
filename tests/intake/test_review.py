"""The review of one batch from its check to its formal records, on a sample courier company."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from include.approvals import registry
from include.evidence.model import Outcome
from include.intake import batches, report, settle
from include.intake.promote import earlier_settlement
from include.notify.outbox import Run
from include.service_container import ROOT
from include.services.database import DatabaseAddress
from include.services.errors import ControlFailed, ServiceError, UsageError
from include.workflow.run_records import RunRecords
from tests.intake import steps
from tests.intake.conftest import ENTERER, NOW, OLDEST, REVIEWER, Rig
from tests.support.registers import content_of

CHANGES = [
    "UPDATE intake_record SET phone = '13900000000' WHERE intake_id = {key}",
    "UPDATE intake_record SET raw = '{{}}' WHERE intake_id = {key}",
    "DELETE FROM intake_record WHERE intake_id = {key}",
    "INSERT INTO intake_record (batch_id, consent_purposes, raw, entered_by, entered_at, "
    "status) SELECT batch_id, consent_purposes, raw, entered_by, entered_at, status "
    "FROM intake_record WHERE intake_id = {key}",
    "ALTER TABLE intake_record ADD extra text",
]


def codes(record: Any) -> list[str]:
    return [finding.code for finding in record.findings]


def test_run_submits_only_the_oldest_batches_and_creates_a_finding_about_the_remaining_ones(
    rig: Rig,
) -> None:
    record = steps.find([rig.table])
    assert record.data["batches"] == [f"customers/IN-00000{n}" for n in (3, 4, 5, 6)]
    rule = rig.table.incoming.rule.model_copy(update={"most_batches": 3})
    few = replace(rig.table, incoming=replace(rig.table.incoming, rule=rule))
    record = steps.find([few])
    assert record.data["batches"] == [f"customers/IN-00000{n}" for n in (3, 4, 5)]
    assert codes(record) == ["intake.not_asked"]


@pytest.mark.parametrize("name", ["| [x](http://y)", "x" * 101, "a b", ""])
def test_batch_with_invalid_name_is_reported_and_not_submitted(rig: Rig, name: str) -> None:
    rig.rows("UPDATE intake_record SET batch_id = %s WHERE batch_id = %s", name, OLDEST)
    record = steps.find([rig.table])
    assert len(record.data["batches"]) == 3
    (finding,) = record.findings
    assert finding.severity is Outcome.FAIL
    assert finding.message.values["count"] == 30


def test_formal_records_of_approved_batch_contain_reviewer_and_review_time(rig: Rig) -> None:
    checked = rig.checked()
    assert rig.answered(checked, reason="").outcome is Outcome.ATTENTION  # the review was overdue
    record = steps.settle(rig.table, checked)
    assert record.data["promoted"] == 24
    assert record.data["set_aside"] == 6
    assert rig.states() == {"promoted": 24, "rejected": 6}
    rows = rig.rows(
        "SELECT c.name = i.name, c.record_class IS NOT NULL, c.reviewed_by, c.reviewed_at, "
        "a.customer_id = c.customer_id, "
        "(SELECT count(*) FROM consent s WHERE s.customer_id = c.customer_id) "
        "= cardinality(i.consent_purposes) "
        "FROM intake_record i JOIN customer c USING (customer_id) "
        "JOIN address a ON a.address_id = c.default_address_id WHERE i.batch_id = %s",
        OLDEST,
    )
    assert rows == [(True, True, 3, NOW, True, True)] * 24
    verified = steps.verify([rig.table], [rig.answered(checked, reason="")])
    assert verified.data == {"past_deadline": 0, "promoted": 24, "unreviewed": 0}


def test_rejected_batch_creates_no_formal_record(rig: Rig) -> None:
    before = rig.one("SELECT count(*) FROM customer")
    checked = rig.checked()
    rig.answered(checked, "Reject")
    assert steps.settle(rig.table, checked).data["rejected"] == 30
    # A repeated settlement reports the same numbers.
    assert steps.settle(rig.table, checked).data["rejected"] == 30
    assert rig.states() == {"rejected": 30}
    assert rig.one("SELECT count(*) FROM customer") == before
    with rig.table.state.connect() as conn:
        (kept,) = registry.approvals_of(conn, "review_intake", "run")
    assert (kept.decision, kept.decided_by) == ("Reject", REVIEWER)


@pytest.mark.parametrize(
    ("user", "option", "reason", "code", "severity"),
    [
        (ENTERER, "Approve", "", "intake.own_request", Outcome.FAIL),
        ("E00002", "Approve", "", "intake.not_entitled", Outcome.FAIL),
        ("admin", "Approve", "", "intake.not_entitled", Outcome.FAIL),
        (None, "", "", "intake.nobody", Outcome.ATTENTION),
        (REVIEWER, "Reject", "  ", "intake.no_reason", Outcome.ATTENTION),
    ],
)
def test_invalid_answer_of_reviewer_leaves_batch_pending(
    rig: Rig, user: str | None, option: str, reason: str, code: str, severity: Outcome
) -> None:
    checked = rig.checked()
    record = rig.answered(checked, option, user, reason=reason)
    assert codes(record) == [code]
    assert record.outcome is severity
    assert steps.settle(rig.table, checked).data["left"] == 30
    assert rig.states() == {"pending": 30}


def test_person_who_entered_a_row_cannot_review_its_batch(rig: Rig) -> None:
    rig.rows(
        "UPDATE intake_record SET entered_by = 3 WHERE intake_id = "
        "(SELECT min(intake_id) FROM intake_record WHERE batch_id = %s)",
        OLDEST,
    )
    checked = rig.checked()
    assert REVIEWER in checked.data["enterers"]
    assert REVIEWER not in steps.ask(rig.table, checked).assigned
    assert codes(rig.answered(checked)) == ["intake.own_request"]


def test_batch_that_nobody_may_review_gets_no_approval_request(rig: Rig) -> None:
    rig.rows("UPDATE employee SET has_data_access = false WHERE department_id = 3")
    record = steps.check(rig.table, OLDEST)
    assert codes(record) == ["intake.no_reviewer"]
    assert record.data["request"] is None


def test_second_answer_to_a_review_request_creates_a_finding_and_does_not_change_the_decision(
    rig: Rig,
) -> None:
    checked = rig.checked()
    rig.answered(checked)
    record = rig.answered(checked, "Reject", "E00017", at=NOW + timedelta(minutes=1))
    assert codes(record) == ["intake.decided_before"]
    assert steps.settle(rig.table, checked).data["promoted"] == 24


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("option", ["Approve", "Reject"])
def test_review_decision_is_not_executed_if_the_batch_changed_after_the_decision(
    rig: Rig, change: str, option: str
) -> None:
    checked = rig.checked()
    rig.answered(checked, option)
    key = rig.one("SELECT min(intake_id) FROM intake_record WHERE batch_id = %s", OLDEST)
    rig.rows(change.format(key=key))
    record = steps.settle(rig.table, checked)
    assert codes(record) == ["intake.changed"]
    assert set(rig.states()) == {"pending"}


@pytest.mark.parametrize("change", CHANGES)
def test_creation_of_review_form_raises_control_failed_error_if_the_batch_changed_after_its_check(
    rig: Rig, change: str
) -> None:
    checked = rig.checked()
    key = rig.one("SELECT min(intake_id) FROM intake_record WHERE batch_id = %s", OLDEST)
    rig.rows(change.format(key=key))
    with pytest.raises(ControlFailed, match="changed between"):
        steps.ask(rig.table, checked)


def test_promotion_is_rolled_back_if_another_session_changes_a_row_at_the_same_time(
    rig: Rig,
) -> None:
    checked = rig.checked()
    rig.answered(checked)
    before = rig.one("SELECT count(*) FROM customer")
    table = rig.table

    def promote_during_another_write() -> None:
        with (
            psycopg.connect(rig.conninfo) as connection,
            batches.unit_of_work(connection, table.incoming, write=True),
        ):
            batches.read_content(connection, table.incoming, OLDEST)
            rig.rows("UPDATE intake_record SET phone = '13900000000' WHERE batch_id = %s", OLDEST)
            broken = [(70,), (75,)]
            settle.promote(connection, table.incoming, OLDEST, reviewer=3, at=NOW, broken=broken)

    with pytest.raises(ServiceError, match="was changed while"):
        promote_during_another_write()
    assert rig.one("SELECT count(*) FROM customer") == before
    assert codes(steps.settle(table, checked)) == ["intake.changed"]


def test_promotion_raises_service_error_if_another_session_holds_a_row_lock(rig: Rig) -> None:
    checked = rig.checked()
    rig.answered(checked)
    table = rig.table
    options = "-c lock_timeout=200ms"
    with (
        psycopg.connect(rig.conninfo) as other_session,
        psycopg.connect(rig.conninfo, options=options, autocommit=True) as connection,
    ):
        other_session.execute("SELECT FROM intake_record WHERE batch_id = %s FOR UPDATE", [OLDEST])
        with (
            pytest.raises(ServiceError, match="SQLSTATE 55P03"),
            batches.unit_of_work(connection, table.incoming, write=True),
        ):
            settle.promote(connection, table.incoming, OLDEST, reviewer=3, at=NOW, broken=[])
        with batches.unit_of_work(connection, table.incoming, write=False):
            ours = connection.execute("SELECT current_setting('statement_timeout')").fetchone()
    assert ours == ("2h",)
    assert set(rig.states()) == {"pending"}


def test_error_about_record_that_violates_a_constraint_contains_sqlstate_and_no_record_value(
    rig: Rig,
) -> None:
    unchecked = replace(rig.table, checkers=[])
    checked = rig.checked()
    rig.answered(checked)
    with pytest.raises(ControlFailed) as caught:
        steps.settle(unchecked, checked)
    assert "SQLSTATE 23502" in str(caught.value)
    assert caught.value.__cause__ is None
    assert rig.states() == {"pending": 30}


def test_error_about_missing_database_right_contains_path_of_documentation_page(rig: Rig) -> None:
    rig.rows("CREATE ROLE intake_nobody LOGIN PASSWORD 'x'") if not rig.rows(
        "SELECT 1 FROM pg_roles WHERE rolname = 'intake_nobody'"
    ) else None
    rig.rows("GRANT SELECT ON ALL TABLES IN SCHEMA public TO intake_nobody")
    rig.rows("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO intake_nobody")
    address = DatabaseAddress.from_conninfo(rig.conninfo)
    weak = DatabaseAddress({**address.parameters, "user": "intake_nobody"}, "x")
    checked = rig.checked()
    rig.answered(checked)
    with pytest.raises(UsageError, match=r"SQLSTATE 42501.*docs/explanation/intake.md"):
        steps.settle(replace(rig.table, writer=weak), checked)
    rig.rows("DROP OWNED BY intake_nobody")
    rig.rows("DROP ROLE intake_nobody")


def test_shipped_sql_grants_allow_promotion_of_rows_and_deny_other_reads_and_changes(
    rig: Rig,
) -> None:
    from include.sample_company.load import statements

    if not rig.rows("SELECT 1 FROM pg_roles WHERE rolname = 'courier_intake'"):
        rig.rows("CREATE ROLE courier_intake LOGIN PASSWORD 'x'")
    for statement in statements(ROOT / "include/intake/sample_grants.sql"):
        rig.rows(statement.decode())
    address = DatabaseAddress.from_conninfo(rig.conninfo)
    role = DatabaseAddress({**address.parameters, "user": "courier_intake"}, "x")
    checked = rig.checked()
    rig.answered(checked)
    assert steps.settle(replace(rig.table, writer=role), checked).data["promoted"] == 24
    for forbidden in (
        "DELETE FROM intake_record",
        "UPDATE intake_record SET phone = ''",
        "SELECT phone FROM employee",
        "SELECT 1 FROM waybill",
        "UPDATE customer SET name = ''",
    ):
        with (
            role.connect() as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute(forbidden.encode())
    rig.rows("DROP OWNED BY courier_intake")
    rig.rows("DROP ROLE courier_intake")


def test_batch_is_not_submitted_if_an_expectation_cannot_be_checked(rig: Rig) -> None:
    rig.rows("ALTER TABLE intake_record ALTER consent_purposes TYPE text USING ''")
    record = steps.check(rig.table, OLDEST)
    assert codes(record) == ["intake.rule_fault"]
    assert record.outcome is Outcome.FAIL
    assert record.data["request"] is None


def test_run_outcome_is_fail_if_a_batch_is_past_its_review_deadline(rig: Rig) -> None:
    search = steps.find([rig.table])
    verified = steps.verify([rig.table], [search])
    assert verified.data["past_deadline"] == 1
    (finding,) = verified.findings
    assert (finding.code, finding.subject) == ("intake.past_deadline", f"customers/{OLDEST}")
    concluded = report.conclude_records(RunRecords([search, verified]))
    assert concluded.outcome is Outcome.FAIL
    figures = {metric.name: metric.value for metric in concluded.metrics if not metric.subject}
    assert figures["intake_batches_past_deadline"] == 1
    assert steps.verify([rig.later(hours=80)], []).data["past_deadline"] == 4


def test_formal_record_without_reviewer_creates_a_finding(rig: Rig) -> None:
    checked = rig.checked()
    reviewed = rig.answered(checked)
    steps.settle(rig.table, checked)
    rig.rows("UPDATE customer SET reviewed_by = NULL WHERE reviewed_at = %s", NOW)
    verified = steps.verify([rig.table], [reviewed])
    assert verified.data["unreviewed"] == 24
    assert "intake.unreviewed" in codes(verified)


def test_second_execution_of_a_decision_creates_no_record_and_returns_the_same_counts(
    rig: Rig,
) -> None:
    checked = rig.checked()
    rig.answered(checked)
    first = steps.settle(rig.table, checked)
    customers = rig.one("SELECT count(*) FROM customer")
    rig.rows(
        "INSERT INTO intake_record (batch_id, consent_purposes, raw, entered_by, entered_at, "
        "status) VALUES (%s, '{}', '{}', 2, %s, 'pending')",
        OLDEST,
        NOW,
    )
    again = steps.settle(rig.table, checked)
    assert rig.one("SELECT count(*) FROM customer") == customers
    for name in ("promoted", "set_aside", "rejected"):
        assert again.data[name] == first.data[name]
    assert rig.states()["pending"] == 1
    with psycopg.connect(rig.conninfo, autocommit=True) as connection:
        decision = {"reviewer": 3, "at": NOW, "approved": True}
        assert earlier_settlement(connection, rig.table.incoming, OLDEST, **decision).rows == 30


def test_decision_is_not_executed_if_another_run_has_already_promoted_the_batch(rig: Rig) -> None:
    other = replace(rig.table, run=replace(rig.table.run, run=Run("review_intake", "other")))
    checked, checked_too = rig.checked(), rig.checked(table=other)
    rig.answered(checked)
    answer = {"option": "Approve", "reason": "", "user": "E00017", "at": NOW + timedelta(minutes=1)}
    steps.take(other, checked_too, content=content_of(rig.table.state, checked_too), **answer)
    steps.settle(rig.table, checked)
    customers = rig.one("SELECT count(*) FROM customer")
    assert codes(steps.settle(other, checked_too)) == ["intake.settled_elsewhere"]
    assert rig.one("SELECT count(*) FROM customer") == customers
    assert rig.states() == {"promoted": 24, "rejected": 6}


HOSTILE = [
    "'; DROP TABLE customer; --",
    '=cmd|"/c calc"!A1',
    "| x | y |\n# head <script>alert(1)</script> ![i](http://x/)",
    "\u202eabc\u200b\u2066def\ufeff",
    "%s %(x)s {} {0}",
    "\\u0000 \\x00",
    "長" * 300_000,
]


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_values_with_markup_are_escaped_on_review_page(rig: Rig, value: str) -> None:
    rig.rows("UPDATE intake_record SET name = %s WHERE batch_id = %s", value, OLDEST)
    checked = rig.checked()
    page = steps.ask(rig.table, checked).body
    assert value not in page
    assert len(page) < 20_000
    for sign in "<>\u202e\u200b\u2066\ufeff`=":
        assert sign not in page
    rig.answered(checked)
    steps.settle(rig.table, checked)
    assert rig.one("SELECT count(*) FROM customer WHERE name = %s", value) == 25
