"""Tests of the certificate of deletion: outcome, summary, control indicators."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert

from include.approvals.reasons import COMMAND_LINE
from include.evidence.model import Finding, Outcome, StepRecord
from include.messages import verbatim
from include.reports.i18n import Translator
from include.reports.model import Fact
from include.retention.certificate import report
from include.state.connect import engine
from include.state.tables import disposition
from tests.retention.certificate.certificate_records import (
    SHA256,
    certificate,
    english,
    execution_data,
    indicators,
    plan_data,
    planned_class,
    remaining_data,
    retention_rule,
    run_records,
    sentences,
    verification_data,
)

UNEXPLAINED = "Expired records that remain without a stated reason"
GOOD = {"expired_records_unexplained": 0, "erasure_requests_overdue": 0}
UNKNOWN = dict.fromkeys(GOOD)
COPY = {
    "id": "2026/10/01",
    "taken_at": "2026-10-01T18:00:00+00:00",
    "expires_at": "2026-12-30T18:00:00+00:00",
    "held": False,
}


def codes(conclusion: Any) -> list[str]:
    return [finding.code for finding in conclusion.findings]


def fact(conclusion: Any, label: str) -> Fact:
    (value,) = [each for each in conclusion.facts if each.label.text == label]
    return value


def shown(conclusion: Any, label: str) -> str:
    value = fact(conclusion, label)
    return Translator("en").quantity(value.value, value.unit)


def test_certificate_can_be_built_from_step_records_of_earlier_version() -> None:
    """The results of an earlier version lack figures that were added later."""
    old = {key: value for key, value in remaining_data(held=3).items() if key != "waiting"}
    conclusion = certificate(run_records(verify=verification_data({"order": 10}, [old])))
    assert shown(conclusion, "Expired records that remain for a stated reason") == "3 rows"


def test_certificate_of_complete_run_passes_and_has_both_control_indicators() -> None:
    conclusion = certificate(run_records())
    assert conclusion.outcome is Outcome.PASS
    assert english(conclusion.summary) == (
        "All expired records were disposed of (10 deleted, 0 masked), or the report states why "
        "they remain."
    )
    assert indicators(conclusion) == GOOD
    assert shown(conclusion, "Records disposed of") == "10 rows"
    assert shown(conclusion, UNEXPLAINED) == "0 rows"
    assert fact(conclusion, UNEXPLAINED).status is Outcome.PASS
    assert english(conclusion.sections[-1].heading) == "Signatures"
    assert fact(conclusion, "Records planned but not disposed of").status is Outcome.PASS
    assert shown(conclusion, "Erasure requests") == "0 open"
    assert (
        shown(conclusion, "Last expiry of a backup that contains deleted records")
        == "no backup contains deleted records"
    )


def test_run_without_expired_records_passes() -> None:
    nothing = plan_data(planned_class(expired=0, to_delete=0))
    conclusion = certificate(
        run_records(
            plan=nothing,
            execute=execution_data({}),
            verify=verification_data({}, [remaining_data()]),
        )
    )
    assert conclusion.outcome is Outcome.PASS
    assert english(conclusion.summary).startswith("No record had to be disposed of")


@pytest.mark.parametrize("step", ["plan", "execute", "verify"])
def test_run_with_missing_step_record_fails_and_has_no_control_indicators(step: str) -> None:
    conclusion = certificate(run_records(**{step: None}))
    assert conclusion.outcome is Outcome.FAIL
    assert codes(conclusion) == ["retention.missing"]
    assert english(conclusion.summary) == "The disposition is incomplete in at least one database."
    assert (indicators(conclusion) == UNKNOWN) is (step == "verify")


@pytest.mark.parametrize("step", ["plan", "execute", "verify"])
def test_certificate_has_one_finding_about_step_that_failed_without_result(step: str) -> None:
    said = Finding(
        code=f"{step}.failed",
        severity=Outcome.FAIL,
        subject="shop",
        message=verbatim("it was started and did not finish"),
        action=verbatim("see the log"),
    )
    order = ["plan", "execute", "verify"]
    gone: dict[str, Any] = dict.fromkeys(order[order.index(step) :])
    records = run_records(**gone)
    records.append(StepRecord(step=step, part="shop", outcome=Outcome.FAIL, findings=[said]))
    conclusion = certificate(records)
    assert conclusion.outcome is Outcome.FAIL
    assert codes(conclusion) == [f"{step}.failed"]
    assert indicators(conclusion) == UNKNOWN
    erased = "10 rows" if step == "verify" else "not measured"
    assert shown(conclusion, "Records disposed of") == erased
    assert (
        shown(conclusion, "Last expiry of a backup that contains deleted records") == "not measured"
    )


@pytest.mark.parametrize("step", ["plan", "execute", "verify", None])
def test_certificate_of_incomplete_run_says_that_it_proves_nothing_about_missing_figures(
    step: str | None,
) -> None:
    lines = "\n".join(sentences(certificate(run_records(**({step: None} if step else {})))))
    for claim in (
        "by a keyed hash",
        "Separate queries counted the remaining",
        "exactly this plan",
        "Each transaction checked the legal holds",
    ):
        assert (claim in lines) is (step is None), claim
    assert ("proves nothing about figures" in lines) is (step is not None)
    assert "Backups are not changed" in lines
    assert "share nothing" not in lines


def test_certificate_says_that_approval_on_command_line_does_not_prove_who_approved() -> None:
    answer = {"decision": "Approve", "decided_by": "bo", "decided_at": COPY["taken_at"]}
    answer = answer | {"asked": True, "reason": COMMAND_LINE}
    lines = "\n".join(sentences(certificate(run_records(approve=answer))))
    assert "approved on the command line. This report does not prove" in lines
    assert "executed only if a person other" not in lines


def test_certificate_has_finding_and_no_control_indicators_if_run_omits_a_mapped_database() -> None:
    conclusion = certificate(run_records(), names=("shop", "other"), requested=("shop",))
    assert conclusion.outcome is Outcome.ATTENTION
    assert codes(conclusion) == ["retention.left_out"]
    assert indicators(conclusion) == UNKNOWN


def test_indicator_counts_records_without_reason_even_if_another_database_is_unverified() -> None:
    left = verification_data({"order": 7}, [remaining_data(unexplained=3)])
    conclusion = certificate(run_records(verify=left), names=("shop", "other"))
    assert conclusion.outcome is Outcome.FAIL
    assert indicators(conclusion)["expired_records_unexplained"] == 3
    assert indicators(conclusion)["erasure_requests_overdue"] is None


def test_certificate_summary_states_how_many_records_remain_and_how_many_requests_are_overdue() -> (
    None
):
    left = verification_data({"order": 7}, [remaining_data(unexplained=3)])
    conclusion = certificate(run_records(verify=left))
    assert english(conclusion.summary).startswith("3 expired records remain, and")
    assert fact(conclusion, UNEXPLAINED).status is Outcome.FAIL
    late = verification_data({"order": 10}, [remaining_data()], requests_open=2, requests_overdue=1)
    conclusion = certificate(run_records(verify=late))
    assert english(conclusion.summary) == "1 erasure requests are overdue."
    assert shown(conclusion, "Erasure requests") == "2 open"
    assert fact(conclusion, "Erasure requests").status is Outcome.FAIL
    assert indicators(conclusion) == GOOD | {"erasure_requests_overdue": 1}


def test_database_without_record_classes_gives_finding() -> None:
    nothing = {
        "plan": plan_data(),
        "execute": execution_data({}),
        "verify": verification_data({}, []),
    }
    records = run_records() + run_records("other", **nothing)
    rules = {"shop": [retention_rule()]}
    conclusion = certificate(records, names=("shop", "other"), rules=rules)
    assert conclusion.outcome is Outcome.ATTENTION
    assert codes(conclusion) == ["retention.no_class"]
    assert indicators(conclusion) == GOOD
    assert shown(conclusion, "Records disposed of") == "10 rows"


def test_certificate_without_retention_schedule_has_no_control_indicators() -> None:
    nothing = {
        "plan": plan_data(),
        "execute": execution_data({}),
        "verify": verification_data({}, []),
    }
    conclusion = certificate(run_records(**nothing), rules={})
    assert conclusion.outcome is Outcome.ATTENTION
    assert indicators(conclusion) == UNKNOWN
    assert english(conclusion.summary).startswith("The policy pack defines no retention periods")


def test_run_without_databases_fails() -> None:
    assert certificate([], names=()).outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("copies", "value", "note"),
    [
        (None, "not measured", ""),
        ([], "no backup contains deleted records", ""),
        (
            [COPY, COPY | {"id": "b", "expires_at": "2027-01-02T18:00:00+00:00"}],
            "2027-01-03 02:00 UTC+08:00",
            "restore points: 2, the oldest from 2026-10-02 02:00 UTC+08:00",
        ),
        (
            [COPY | {"held": True}],
            "2026-12-31 02:00 UTC+08:00",
            "restore points: 1, the oldest from 2026-10-02 02:00 UTC+08:00; "
            "kept longer because of legal holds: 1",
        ),
    ],
)
def test_certificate_says_when_backups_with_erased_records_expire(
    copies: Any, value: str, note: str
) -> None:
    """The fact is "not measured" if the off-site store could not be read."""
    conclusion = certificate(
        run_records(verify=verification_data({"order": 10}, [remaining_data()], copies=copies))
    )
    assert shown(conclusion, "Last expiry of a backup that contains deleted records") == value
    assert (
        english(fact(conclusion, "Last expiry of a backup that contains deleted records").note)
        == note
    )


def test_trend_chart_of_erased_records_has_gap_for_run_without_execution(
    migrated_database: str,
) -> None:
    state = engine(migrated_database)
    rows = [("a", "one", 3), ("a", "two", 4), ("b", "one", None), ("c", "one", 0)]
    with state.begin() as conn:
        for at, (run, name, done) in enumerate(rows):
            conn.execute(
                insert(disposition).values(
                    dag_id="enforce_retention",
                    run_id=run,
                    database="shop",
                    record_class=name,
                    planned_at=f"2026-11-{20 + at}T00:00:00+00:00",
                    as_of="2026-11-20T00:00:00+00:00",
                    plan_sha256=SHA256,
                    expired=9,
                    held=0,
                    planned=9,
                    done=done,
                )
            )
    with state.connect() as conn:
        assert [value.done for value in report.read_past_runs(conn, "shop")] == [7, None, 0]
        assert report.read_past_runs(conn, "other") == []
    state.dispose()
