"""Tests of repeated steps: an approval is valid only for its plan, and counts stay correct."""

from __future__ import annotations

import pytest

from include.approvals.registry import APPROVE
from include.approvals.required_action import InvalidAnswer
from include.evidence.model import Outcome
from include.services.errors import ControlFailed
from tests.retention import step_records as steps
from tests.retention.runner import AS_OF, OLD, RetentionRunner, disposition
from tests.support.registers import tamper


def test_retry_of_planning_step_returns_same_plan_if_approval_request_exists(
    runner: RetentionRunner,
) -> None:
    asking = runner.but(rules_of_disposition=disposition(limit={"records": 0}))
    asking.insert("note", id=1, at=OLD)
    first = asking.plan("r1")
    asking.insert("note", id=2, at=OLD)
    again = asking.plan("r1")
    assert again.data["sha256"] == first.data["sha256"]
    assert again.data["request"] == first.data["request"]
    assert asking.answer(again).data["decision"] == APPROVE
    executed = asking.execute(again)
    assert (executed.data["done"], executed.data["waiting"]) == ({"note": 1}, {"note": 1})
    assert asking.plan("r2").data["sha256"] != first.data["sha256"]


def test_decision_raises_invalid_answer_if_form_showed_another_plan(
    runner: RetentionRunner,
) -> None:
    asking = runner.but(rules_of_disposition=disposition(limit={"records": 0}))
    asking.insert("note", id=1, at=OLD)
    planned = asking.plan("r1")
    answer = {"option": APPROVE, "reason": "", "user": "bo", "at": asking.clock.now()}
    for content in ("", f"{planned.data['request']}:{'0' * 64}"):
        with pytest.raises(InvalidAnswer, match="showed an outdated disposition plan"):
            steps.take(asking.in_run("r1"), planned, content=content, **answer)
        assert asking.execute(planned).data["done"] == {}
    action = steps.ask(asking.in_run("r1"), planned)
    assert action is not None
    record = steps.take(
        asking.in_run("r1"), planned, **answer | {"at": AS_OF}, content=action.content
    )
    assert [finding.code for finding in record.findings] == ["retention.other_content"]
    assert asking.execute(planned).data["done"] == {"note": 1}


def test_decision_is_invalid_if_plan_has_no_approval_request(
    runner: RetentionRunner,
) -> None:
    asking = runner.but(rules_of_disposition=disposition(limit={"records": 0}))
    asking.insert("note", id=1, at=OLD)
    planned = asking.plan("r1")
    waits_no_more = planned.model_copy(update={"data": {**planned.data}})
    del waits_no_more.data["request"]
    answer = {"option": APPROVE, "reason": "", "user": "bo", "at": asking.clock.now()}
    with pytest.raises(InvalidAnswer, match="no longer requires"):
        steps.take(asking.in_run("r1"), waits_no_more, content="", **answer)
    assert steps.ask(asking.in_run("r1"), waits_no_more) is None


def test_erasures_of_recent_small_runs_are_added_up_for_the_limit_that_requires_an_approval(
    runner: RetentionRunner,
) -> None:
    limited = runner.but(rules_of_disposition=disposition(limit={"records": 3}))
    for number in range(9):
        limited.insert("note", id=number, at=OLD.replace(year=2020 + number // 3))
    first = limited.plan("r2022", AS_OF.replace(year=2022))
    assert first.data["request"] is None
    assert limited.execute(first, "r2022").data["done"] == {"note": 3}
    second = limited.plan("r2023", AS_OF.replace(year=2023))
    assert second.data["request"]
    [tripped] = second.data["tripped"]
    assert tripped == {
        "name": "note",
        "cause": "records",
        "planned": 3,
        "allowed": 3,
        "recent": 3,
    }


def test_approved_erasures_do_not_count_towards_approval_limit_of_next_run(
    runner: RetentionRunner,
) -> None:
    limited = runner.but(rules_of_disposition=disposition(limit={"records": 3}))
    for number in range(9):
        limited.insert("note", id=number, at=OLD)
    large = limited.plan("r1")
    limited.answer(large, "r1")
    assert limited.execute(large, "r1").data["done"] == {"note": 9}
    limited.insert("note", id=10, at=OLD)
    assert limited.plan("r2").data["request"] is None


def test_erasures_of_killed_run_count_towards_approval_limit_of_next_run(
    runner: RetentionRunner,
) -> None:
    class Killed(Exception):
        pass

    def progress(stage: str) -> None:
        if stage == "committed":
            raise Killed

    limited = runner.but(rules_of_disposition=disposition(limit={"records": 3}))
    for number in range(3):
        limited.insert("note", id=number, at=OLD)
    with pytest.raises(Killed):
        limited.execute(limited.plan("r1"), "r1", progress)
    limited.insert("note", id=9, at=OLD)
    [tripped] = limited.plan("r2").data["tripped"]
    assert (tripped["name"], tripped["recent"]) == ("note", 3)


def test_unapproved_erasures_count_towards_approval_limit_if_run_had_approval_for_another_class(
    runner: RetentionRunner,
) -> None:
    limited = runner.but(rules_of_disposition=disposition(limit={"records": 3}))
    for number in range(4):
        limited.insert("node", id=number, at=OLD)
    for number in range(2):
        limited.insert("note", id=number, at=OLD)
    first = limited.plan("r1")
    assert [each["name"] for each in first.data["tripped"]] == ["node"]
    limited.answer(first, "r1")
    assert limited.execute(first, "r1").data["done"] == {"node": 4, "note": 2}
    for number in range(2):
        limited.insert("note", id=10 + number, at=OLD)
    [tripped] = limited.plan("r2").data["tripped"]
    assert (tripped["name"], tripped["recent"]) == ("note", 2)


def test_record_that_is_inserted_again_and_erased_twice_is_counted_in_both_runs(
    runner: RetentionRunner,
) -> None:
    for run in ("r1", "r2"):
        runner.insert("note", id=1, at=OLD)
        planned = runner.plan(run)
        executed = runner.execute(planned, run)
        assert executed.data["done"] == {"note": 1}
        counted = runner.verify(planned, executed, run)
        assert counted.outcome is Outcome.PASS


def test_verification_reports_finding_if_record_count_in_erasure_ledger_was_edited(
    runner: RetentionRunner,
) -> None:
    runner.insert("note", id=1, at=OLD)
    planned = runner.plan("r1")
    executed = runner.execute(planned, "r1")
    tamper(runner.state_source, "UPDATE erasure_batch SET records = 5")
    counted = runner.verify(planned, executed, "r1")
    assert "retention.ledger_differs" in {finding.code for finding in counted.findings}


def test_verification_reports_missing_ledger_entries(runner: RetentionRunner) -> None:
    runner.insert("note", id=1, at=OLD)
    planned = runner.plan("r1")
    executed = runner.execute(planned, "r1")
    assert runner.verify(planned, executed, "r1").outcome is Outcome.PASS
    tamper(runner.state_source, "DELETE FROM erasure")
    codes = [finding.code for finding in runner.verify(planned, executed, "r1").findings]
    assert codes == ["retention.ledger_lost"]


def test_plan_fails_if_ledger_entries_are_missing(runner: RetentionRunner) -> None:
    """If only a later restore drill found the loss, backups of the ledger might be gone by then."""
    runner.insert("note", id=1, at=OLD)
    runner.run("r1")
    tamper(runner.state_source, "DELETE FROM erasure")
    with pytest.raises(ControlFailed, match=r"lost 1 entries of .* \(note\)") as refused:
        runner.plan("r2")
    assert "recover-ledger" in refused.value.action


def test_execution_fails_if_ledger_entries_are_missing(
    runner: RetentionRunner,
) -> None:
    runner.insert("note", id=1, at=OLD)
    runner.run("r1")
    runner.insert("note", id=2, at=OLD)
    planned = runner.plan("r2")
    tamper(runner.state_source, "DELETE FROM erasure")
    with pytest.raises(ControlFailed, match="lost 1 entries"):
        runner.execute(planned, "r2")
    assert runner.keys_in("note") == {("2",)}


def test_execution_erases_nothing_if_approval_request_was_removed_from_step_record_of_plan(
    runner: RetentionRunner,
) -> None:
    """The approval covers only the plan file. The result of the planning step could be edited."""
    limited = runner.but(rules_of_disposition=disposition(limit={"records": 3}))
    for number in range(9):
        limited.insert("note", id=number, at=OLD)
    planned = limited.plan("r1")
    data = {key: value for key, value in planned.data.items() if key != "request"}
    edited = planned.model_copy(update={"data": data | {"tripped": []}})
    executed = limited.execute(edited, "r1")
    assert (executed.data["done"], executed.data["not_approved"]) == ({}, ["note"])


def test_record_class_is_not_approved_if_planned_and_recent_erasures_together_exceed_the_limit(
    runner: RetentionRunner,
) -> None:
    limited = runner.but(rules_of_disposition=disposition(limit={"records": 3}))
    for number in range(2):
        limited.insert("note", id=number, at=OLD)
    first, second = limited.plan("r1"), limited.plan("r2")
    assert limited.execute(first, "r1").data["done"] == {"note": 2}
    for number in range(10, 12):
        limited.insert("note", id=number, at=OLD)
    assert limited.execute(second, "r2").data["not_approved"] == ["note"]


def test_execution_keeps_records_of_record_class_that_is_not_in_approval_request(
    runner: RetentionRunner,
) -> None:
    limited = runner.but(rules_of_disposition=disposition(limit={"records": 3}))
    for number in range(4):
        limited.insert("node", id=number, at=OLD)
    for number in range(2):
        limited.insert("note", id=number, at=OLD)
    asked, other = limited.plan("r1"), limited.plan("r2")
    assert [each["name"] for each in asked.data["tripped"]] == ["node"]
    assert limited.execute(other, "r2").data["done"] == {"note": 2}
    for number in range(10, 12):
        limited.insert("note", id=number, at=OLD)
    limited.answer(asked, "r1")
    executed = limited.execute(asked, "r1")
    assert (executed.data["done"], executed.data["not_approved"]) == ({"node": 4}, ["note"])
    assert [finding.code for finding in executed.findings] == ["retention.not_approved"]


def test_verification_reports_finding_if_execution_record_and_erasure_ledger_have_different_counts(
    runner: RetentionRunner,
) -> None:
    runner.insert("note", id=1, at=OLD)
    planned = runner.plan("r1")
    executed = runner.execute(planned, "r1")
    assert executed.data["counted"] == executed.data["entered"] == {"note": 1}
    other = executed.model_copy(update={"data": executed.data | {"counted": {"note": 2}}})
    counted = runner.verify(planned, other, "r1")
    assert "retention.ledger_differs" in {finding.code for finding in counted.findings}


def test_second_attempt_of_execution_counts_partitions_that_first_attempt_dropped(
    runner: RetentionRunner,
) -> None:
    runner.insert("event", no=1, at=OLD, who="p1")
    planned = runner.plan("r1")
    first = runner.execute(planned, "r1")
    again = runner.execute(planned, "r1")
    assert first.data["partitions"] == again.data["partitions"] == {"event": 1}
