"""Tests of the register of violations: its first times, closing, reopening and protection."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import DatabaseError

from include.disclosure.accesses import register, step
from include.disclosure.accesses.rules import ViolationKind
from include.disclosure.accesses.step import UNUSED_FILE, VIOLATIONS_FILE
from include.disclosure.accesses.tables import access_violation
from include.evidence.model import Outcome
from include.evidence.step_findings import UnsealedFolder, artifacts_of
from include.services.errors import ServiceError, UsageError
from include.services.objectstore.directory import DirectoryStore
from include.state.locks import hold_exclusive_lock
from include.workflow.run_context import RunContext
from tests.disclosure.accesses.access_fixtures import DAG, NOON, AccessCompany, access_rules

HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)


def file_of(company: AccessCompany, run_id: str, name: str = VIOLATIONS_FILE) -> list[list[str]]:
    with company.state.connect() as conn:
        content = artifacts_of(conn, DAG, run_id).get(name, b"")
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"))))


def counts(company: AccessCompany, run_id: str = "") -> tuple[int, int]:
    """Compare, and return the number of open and of new accesses without approval."""
    comparison = company.compare(run_id)
    (count,) = [count for count in comparison.kinds if count.kind is ViolationKind.WITHOUT_APPROVAL]
    return count.open, count.new


def test_violation_stays_open_with_its_first_time_while_runs_compare_later_accesses(
    company: AccessCompany,
):
    company.add_access(1, approval=None)
    assert counts(company) == (1, 1)
    for _ in range(3):
        company.now += DAY
        company.add_access(2 + company.runs, approval=None, at=company.now)
        assert counts(company)[1] == 1
    assert company.entries()[0].first_seen_at == NOON
    assert [row.opened_run_id for row in company.entries()] == ["r1", "r2", "r3", "r4"]
    assert counts(company) == (4, 0)


def test_incremental_comparison_neither_closes_nor_misses_a_late_access(company: AccessCompany):
    company.add_access(1)
    company.add_access(2, approval=None)
    company.add_approval()
    assert company.compare().full
    company.now += HOUR
    company.sql("DELETE FROM seen WHERE access = 2")
    company.add_access(3, approval=None, at=NOON - DAY)
    company.add_access(4, approval=None, at=NOON - 3 * DAY)
    comparison = company.compare()
    assert (comparison.full, comparison.accesses) == (False, 2)
    assert {access for access, _ in company.violations()} == {"2", "3"}
    company.now = NOON + WEEK
    assert company.compare().full
    assert {access for access, _ in company.violations()} == {"3", "4"}
    assert [row.closed_because for row in company.entries() if row.access == "2"] == [
        "access_deleted"
    ]


def test_full_comparison_closes_access_that_a_changed_approval_covers(company: AccessCompany):
    company.add_approval(purpose="settlement")
    company.add_access()
    company.compare()
    company.sql("UPDATE permit SET purpose = 'delivery'")
    company.now += HOUR
    assert company.compare().count(ViolationKind.OUTSIDE_PURPOSE) == 1
    company.now += WEEK
    record = company.record()
    assert [row.closed_because for row in company.entries()] == ["covered"]
    assert [(finding.code, finding.severity) for finding in record.findings] == [
        ("use.violation_disappeared", Outcome.ATTENTION)
    ]
    assert record.findings[0].message.values == {"covered": 1, "deleted": 0}
    company.now += 31 * DAY
    assert company.record().findings == []


def test_closed_violation_that_is_found_again_is_reopened_with_its_first_time(
    company: AccessCompany,
):
    company.add_access(approval=None)
    company.compare()
    company.add_approval()
    company.sql("UPDATE seen SET approval = 10")
    company.now += WEEK
    company.compare()
    assert company.violations("closed") == {("1", "without_approval")}
    company.sql("UPDATE seen SET approval = 11")
    company.now += WEEK
    assert counts(company) == (1, 1)
    (row,) = company.entries()
    assert (row.first_seen_at, row.opened_at) == (NOON, company.now)
    assert (row.detail, row.opened_run_id, row.closed_because) == ("not_found", "r3", None)


def test_handled_violation_is_not_opened_again(company: AccessCompany):
    company.add_access(approval=None)
    company.compare()
    with company.state.begin() as conn:
        conn.execute(
            update(access_violation).values(
                state="closed", closed_at=company.now, closed_because="handled"
            )
        )
    company.now += WEEK
    record = company.record()
    assert record.findings == []
    assert company.violations("closed") == {("1", "without_approval")}


def test_changed_start_of_comparison_closes_earlier_violations_as_not_compared(
    company: AccessCompany,
):
    company.add_access(1, approval=None, at=NOON - 20 * DAY)
    company.add_access(2, approval=None)
    company.compare()
    company.rules = access_rules(compare_from=(NOON - DAY).date())
    company.now += HOUR
    comparison = company.compare()
    assert (comparison.full, comparison.accesses) == (True, 1)
    assert company.violations() == {("2", "without_approval")}
    assert comparison.closed == {"not_compared": 1}


def test_first_day_of_comparison_begins_at_midnight_of_the_packs_timezone(company: AccessCompany):
    midnight = NOON.replace(day=1, hour=16)  # 2 March in Shanghai
    company.rules = access_rules(compare_from="2026-03-02")
    company.add_access(1, approval=None, at=midnight - timedelta(microseconds=1))
    company.add_access(2, approval=None, at=midnight)
    company.add_access(3, approval=None, at=None)
    company.compare()
    assert {access for access, _ in company.violations()} == {"2", "3"}


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM seen WHERE access = 2",
        "UPDATE seen SET at = at - interval '5 hours' WHERE access = 2",
        "TRUNCATE seen",
    ],
)
def test_loss_of_newest_access_causes_full_comparison(company: AccessCompany, change: str):
    company.add_access(1, at=NOON - 9 * DAY)
    company.add_access(2)
    company.compare()
    company.now += HOUR
    assert not company.compare().full
    company.sql(change)
    company.now += HOUR
    assert company.compare().full


def test_changed_query_clock_set_back_and_repeated_task_cause_full_comparison(
    company: AccessCompany,
):
    company.add_access()
    assert company.compare("first").full
    assert company.compare("first").full
    assert not company.compare("second").full
    company.rules = access_rules(log="SELECT * FROM seen")
    assert company.compare().full
    company.now -= HOUR
    assert company.compare().full


def test_access_in_the_future_is_compared_again_and_does_not_advance_the_watermark(
    company: AccessCompany,
):
    company.add_approval()
    company.add_access(1)
    company.add_access(2, at=NOON + 300 * DAY)
    company.compare()
    company.now += HOUR
    company.add_access(3, approval=None, at=NOON)
    comparison = company.compare()
    assert (comparison.full, comparison.accesses) == (False, 3)
    assert company.violations() == {("2", "outside_period"), ("3", "without_approval")}


def test_pause_of_the_log_does_not_hide_its_late_accesses(company: AccessCompany):
    """The log pauses for 5 days and is then written at once; the overlap has 2 days."""
    company.add_access(1)
    company.compare()
    for _ in range(5):
        company.now += DAY
        assert not company.compare().full
    company.add_access(2, approval=None, at=NOON + HOUR)
    company.add_access(3, approval=None, at=company.now)
    company.compare()
    assert {access for access, kind in company.violations() if kind == "without_approval"} >= {
        "2", "3"
    }  # fmt: skip


def test_file_lists_new_violations_of_a_run_and_all_after_a_full_comparison(
    company: AccessCompany,
):
    company.add_access(1, approval=None, department="=North")
    company.compare("a")
    company.now += HOUR
    company.add_access(2, approval=None, at=company.now)
    assert company.compare("b").file == VIOLATIONS_FILE
    company.now += HOUR
    assert company.compare("c").file == ""
    company.now += WEEK
    company.compare("d")
    header, *rows = file_of(company, "a")
    assert header[:6] == ["access", "kind", "detail", "person", "department", "approval"]
    assert [row[:6] for row in rows] == [
        ["1", "without_approval", "none_named", "N1", "'=North", ""]
    ]
    assert [row[0] for row in file_of(company, "b")[1:]] == ["2"]
    assert file_of(company, "c") == []
    assert [row[0] for row in file_of(company, "d")[1:]] == ["1", "2"]


def test_file_lists_approvals_that_were_never_used(company: AccessCompany):
    company.add_access(1, at=NOON - 30 * DAY)
    company.add_approval(10)
    for key, begun, more in (
        (11, 20, {}), (12, 20, {"withdrawn_at": NOON - 19 * DAY}), (13, 40, {}), (14, 3, {}),
        (15, 20, {"approver": None}),
    ):  # fmt: skip
        start = NOON - begun * DAY
        company.add_approval(key, starts=start, ends=start + WEEK, **more)
    record = company.record("a")
    assert file_of(company, "a", UNUSED_FILE) == [["approval"], ["11"]]
    assert "use.approval_never_used" in {finding.code for finding in record.findings}
    company.now += HOUR
    company.add_access(2, at=company.now, approval=11)
    assert company.compare().never_used == 1  # counted by full comparisons only
    company.now += WEEK
    assert company.compare().never_used == 1  # 14 has ended meanwhile
    assert file_of(company, "r3", UNUSED_FILE) == [["approval"], ["14"]]


def test_log_without_accesses_is_not_measured_and_needs_attention(company: AccessCompany):
    company.add_approval()
    record = company.record()
    assert [(finding.code, finding.severity) for finding in record.findings] == [
        ("use.access_log_empty", Outcome.ATTENTION)
    ]
    values = {metric.name: metric.value for metric in record.metrics}
    assert values["accesses_without_approval"] is None
    assert values["accesses_outside_purpose"] is None
    company.add_access()
    company.now += HOUR
    assert company.compare().full


def test_pack_without_access_log_passes_and_is_not_measured(company: AccessCompany):
    company.rules = None
    record = company.record()
    assert (record.outcome, record.findings) == (Outcome.PASS, [])
    assert {metric.name: metric.value for metric in record.metrics} == {
        "accesses_without_approval": None,
        "accesses_outside_purpose": None,
    }
    assert record.data["mapped"] is False


def test_too_many_violations_fail_and_leave_the_register_unchanged(
    company: AccessCompany, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(register, "MOST_REGISTERED", 5)
    company.sql("INSERT INTO seen (access, at) SELECT n, now() FROM generate_series(1, 50000) n")
    record = company.record()
    assert [finding.code for finding in record.findings] == ["use.too_many_violations"]
    assert company.entries() == []
    company.sql("DELETE FROM seen WHERE access > 5")
    company.compare()
    assert len(company.entries()) == 5


def test_large_file_is_stored_in_the_folder_of_the_bundle(
    company: AccessCompany, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    folder = UnsealedFolder(DirectoryStore(tmp_path), "bundle")
    monkeypatch.setattr(RunContext, "unsealed_folder", folder)
    monkeypatch.setattr(step, "_MOST_KEPT", 2)
    for number in range(3):
        company.add_access(number, approval=None)
    comparison = company.compare("a")
    assert (comparison.file, comparison.stored) == (VIOLATIONS_FILE, True)
    assert file_of(company, "a") == []
    with folder.reader(VIOLATIONS_FILE) as reader:
        assert len(reader.read().splitlines()) == 4


def test_comparison_fails_if_another_run_holds_the_lock_too_long(
    company: AccessCompany, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(step, "_LOCK_TIMEOUT", timedelta(milliseconds=50))
    with (
        hold_exclusive_lock(company.state, "use.accesses:firm", "a test"),
        pytest.raises(ServiceError, match="Another run is busy"),
    ):
        company.compare()


def test_register_refuses_deletion_and_changed_keys(company: AccessCompany):
    company.add_access(approval=None)
    company.compare()
    for statement in (
        "DELETE FROM access_violation",
        "TRUNCATE access_violation",
        "UPDATE access_violation SET access = '2'",
        "UPDATE access_violation SET kind = 'outside_period'",
        "UPDATE access_violation SET first_seen_at = now()",
        "UPDATE access_violation SET state = 'closed'",
    ):
        with pytest.raises(DatabaseError), company.state.begin() as conn:
            conn.execute(text(statement))


def test_access_key_that_is_too_long_is_refused(company: AccessCompany):
    company.rules = access_rules(
        log="SELECT repeat('x', 1001) AS access, person, at, approval FROM seen"
    )
    company.add_access(approval=None)
    with pytest.raises(UsageError, match="key of more than 1,000 bytes"):
        company.compare()


@pytest.mark.timeout(60)
def test_many_violations_are_entered_in_linear_time(
    company: AccessCompany, monkeypatch: pytest.MonkeyPatch
):
    """The planner expects few entries in an empty register; a nested loop would take minutes."""
    monkeypatch.setattr(step, "_MOST_KEPT", 100_000)  # there is no evidence store
    company.sql(
        "INSERT INTO seen (access, person, at) SELECT n, 'N1', %s FROM generate_series(1, 60000) n",
        [NOON],
    )
    assert counts(company) == (60_000, 60_000)
    company.now += WEEK
    assert counts(company) == (60_000, 0)
