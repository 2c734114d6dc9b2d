"""Tests of changes between a plan and its execution: records, legal holds, answers, tampering."""

from __future__ import annotations

from typing import Any

import pytest

from include.approvals.registry import REJECT
from include.erasure.ledger import ErasureKeys
from include.evidence.model import StepRecord
from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from include.services.errors import ControlFailed, UsageError
from tests.retention.runner import (
    ALL_NEED_APPROVAL,
    OLD,
    ROTATED,
    YOUNG,
    RetentionRunner,
    disposition,
    fill,
    mapped,
    new_runner,
    rule,
)


class ProcessEnd(Exception):
    """Raised to end an execution, as if its process had ended."""


WAITING = disposition(limit=ALL_NEED_APPROVAL)


def codes(record: StepRecord) -> list[str]:
    return [finding.code for finding in record.findings]


def nodes(runner: RetentionRunner, count: int = 3, **more: Any) -> None:
    for number in range(count):
        runner.insert("node", **{"id": number, "at": OLD, "who": f"p{number}"} | more)


def test_record_is_kept_if_start_of_its_retention_period_is_moved_later_after_plan(
    runner: RetentionRunner,
) -> None:
    nodes(runner)
    planned = runner.plan()
    runner.sql("UPDATE node SET at = %s WHERE id = 1", [YOUNG])
    assert runner.execute(planned).data["done"] == {"node": 2}
    assert runner.keys_in("node") == {("1",)}


def test_expired_record_inserted_after_plan_remains_until_next_run(runner: RetentionRunner) -> None:
    nodes(runner)
    runner.insert("note", id=1, at=OLD)
    planned = runner.plan()
    nodes(runner, 1, id=9)
    executed = runner.execute(planned)
    assert executed.data["done"] == {"node": 3, "note": 1}
    assert executed.data["waiting"] == {"node": 1}
    assert codes(executed) == ["retention.waiting"]
    counted = runner.verify(planned, executed)
    assert (codes(counted), counted.data["unexplained"]) == ([], 0)
    assert {each["name"]: each["waiting"] for each in counted.data["left"] if each["waiting"]} == {
        "node": 1
    }
    assert runner.execute(runner.plan("r2"), "r2").data["done"] == {"node": 1}


def test_verification_reports_expired_record_that_was_inserted_after_execution(
    runner: RetentionRunner,
) -> None:
    nodes(runner)
    planned = runner.plan()
    nodes(runner, 1, id=9)
    executed = runner.execute(planned)
    nodes(runner, 1, id=10)
    counted = runner.verify(planned, executed)
    assert (codes(counted), counted.data["unexplained"]) == (["retention.left"], 1)


def test_retry_of_killed_execution_erases_only_the_rest_of_planned_number_of_records(
    runner: RetentionRunner,
) -> None:
    runner = runner.but(rules_of_disposition=disposition(batch={"rows": 1}))
    nodes(runner)
    planned = runner.plan()

    def progress(stage: str) -> None:
        if stage == "committed":
            raise ProcessEnd

    with pytest.raises(ProcessEnd):
        runner.execute(planned, progress=progress)
    nodes(runner, 1, id=9)
    executed = runner.execute(planned)
    assert executed.data["done"] == {"node": 3}
    assert executed.data["waiting"] == {"node": 1}
    assert len(runner.keys_in("node")) == 1


def test_execution_erases_only_planned_number_of_records_if_records_are_inserted_meanwhile(
    runner: RetentionRunner,
) -> None:
    runner = runner.but(rules_of_disposition=disposition(batch={"rows": 1}))
    nodes(runner, 4)
    planned = runner.plan()
    more = iter(range(100, 120))

    def progress(stage: str) -> None:
        if stage == "committed":
            nodes(runner, 1, id=next(more))

    assert runner.execute(planned, progress=progress).data["done"] == {"node": 4}
    assert len(runner.keys_in("node")) == 4


@pytest.mark.parametrize(
    ("kind", "value"),
    [(HoldKind.SUBJECT, "p1"), (HoldKind.CLASS, "node"), (HoldKind.DATABASE, "courier")],
)
def test_legal_hold_placed_after_plan_keeps_records(
    runner: RetentionRunner, kind: HoldKind, value: str
) -> None:
    nodes(runner)
    planned = runner.plan()
    runner.hold(kind, value)
    runner.execute(planned)
    kept = {("1",)} if kind is HoldKind.SUBJECT else {("0",), ("1",), ("2",)}
    assert runner.keys_in("node") == kept


def test_legal_hold_placed_between_batches_keeps_remaining_records(runner: RetentionRunner) -> None:
    runner = runner.but(rules_of_disposition=disposition(batch={"rows": 1}))
    nodes(runner, 4)
    planned = runner.plan()
    placed = []

    def progress(stage: str) -> None:
        if stage == "committed" and not placed:
            placed.append(runner.hold(HoldKind.CLASS, "node"))

    assert runner.execute(planned, progress=progress).data["done"] == {"node": 1}
    assert len(runner.keys_in("node")) == 3


@pytest.mark.parametrize(
    ("user", "code"),
    [
        ("ana", "retention.own_request"),
        ("eve", "retention.not_entitled"),
        ("dora", "retention.own_request"),
        (None, "retention.nobody"),
    ],
)
def test_plan_is_not_executed_if_person_who_may_not_decide_approves_it(
    runner: RetentionRunner, user: str | None, code: str
) -> None:
    """The answer is from an owner, a stranger, the person who started the run, or nobody."""
    runner = runner.but(rules_of_disposition=WAITING, starter="dora")
    nodes(runner)
    planned = runner.plan()
    assert codes(runner.answer(planned, by=user)) == [code]
    executed = runner.execute(planned)
    assert executed.data["done"] == {}
    assert codes(executed) == ["retention.not_approved"]
    assert len(runner.keys_in("node")) == 3


def test_approver_who_started_run_may_not_approve_its_plan(runner: RetentionRunner) -> None:
    runner = runner.but(rules_of_disposition=WAITING, starter="bo")
    nodes(runner)
    planned = runner.plan()
    assert codes(runner.answer(planned, by="bo")) == ["retention.own_request"]
    assert runner.execute(planned).data["done"] == {}


def test_rejected_plan_is_not_executed_after_later_approval(runner: RetentionRunner) -> None:
    runner = runner.but(rules_of_disposition=WAITING)
    nodes(runner)
    planned = runner.plan()
    assert codes(runner.answer(planned, option=REJECT)) == ["retention.rejected"]
    assert codes(runner.answer(planned, by="chen")) == ["retention.decided_before"]
    assert runner.execute(planned).data["done"] == {}


def test_execution_fails_if_plan_file_was_edited(runner: RetentionRunner) -> None:
    runner = runner.but(rules_of_disposition=WAITING)
    nodes(runner)
    planned = runner.plan()
    runner.answer(planned)
    runner.state_sql(
        "UPDATE run_artifact SET content = convert_to(replace(convert_from(content, 'UTF8'), "
        "'\"to_delete\": 3', '\"to_delete\": 9'), 'UTF8')"
    )
    with pytest.raises(ControlFailed, match="file of the plan changed"):
        runner.execute(planned)
    assert len(runner.keys_in("node")) == 3


def test_execution_erases_nothing_if_approval_is_for_another_plan(runner: RetentionRunner) -> None:
    runner = runner.but(rules_of_disposition=WAITING)
    nodes(runner)
    planned = runner.plan()
    runner.answer(planned)
    nodes(runner, 1, id=9)
    again = runner.plan("r2")
    assert again.data["sha256"] != planned.data["sha256"]
    assert runner.execute(again, "r2").data["done"] == {}
    forged = again.model_copy(update={"data": again.data | {"request": planned.data["request"]}})
    with pytest.raises(ControlFailed):
        runner.execute(forged, "r2")
    assert len(runner.keys_in("node")) == 4


def test_execution_fails_if_retention_schedule_changed_after_plan(runner: RetentionRunner) -> None:
    nodes(runner)
    runner = runner.but(rules=[rule("node")])
    planned = runner.plan()
    for rules in (
        [rule("node", period="P2Y")],
        [rule("node", keys={})],
        [],
        [rule("node"), rule("ring_a")],
    ):
        with pytest.raises(ControlFailed, match=r"retention\.yaml was changed"):
            runner.but(rules=rules).execute(planned)
    assert len(runner.keys_in("node")) == 3


def test_execution_fails_if_foreign_key_was_added_after_plan(postgres: EmbeddedPostgres) -> None:
    with new_runner(postgres) as runner:
        fill(runner)
        planned = runner.plan()
        runner.sql("CREATE TABLE audit (id integer PRIMARY KEY, node integer REFERENCES node)")
        runner.sql("INSERT INTO audit VALUES (1, 2)")
        with pytest.raises(ControlFailed, match="foreign keys"):
            runner.execute(planned)
        again, executed, _counted = runner.run("r2")
        assert codes(again) == ["retention.unmapped_reference"]
        assert executed.data["done"]["node"] == 1
        assert runner.keys_in("node") == {("1",), ("2",)}


def test_referenced_record_is_kept_if_foreign_key_is_added_between_deletion_batches(
    postgres: EmbeddedPostgres,
) -> None:
    with new_runner(postgres, rules=[rule("node")], database=mapped(["node"])) as runner:
        runner = runner.but(rules_of_disposition=disposition(batch={"rows": 1}))
        nodes(runner, 4)
        planned = runner.plan()
        events = []

        def progress(stage: str) -> None:
            if stage == "committed" and not events:
                runner.sql(
                    "CREATE TABLE audit (id integer PRIMARY KEY, node integer REFERENCES node)"
                )
                runner.sql("INSERT INTO audit SELECT 1, max(id) FROM node")
                events.append(True)

        executed = runner.execute(planned, progress=progress)
        assert executed.data["done"] == {"node": 3}
        assert executed.data["refused"] == {"node 23503": 1}
        assert runner.keys_in("node") == {("3",)}


def test_execution_fails_if_current_hmac_key_is_missing(runner: RetentionRunner) -> None:
    fill(runner)
    planned = runner.but(keys=ROTATED).plan()
    lost = ErasureKeys({"1": b"1" * 32}, "1")
    with pytest.raises(UsageError, match=r"missing in the configuration: 2"):
        runner.but(keys=lost).execute(planned)
    assert len(runner.keys_in("node")) == 3


def test_execution_fails_if_older_hmac_key_is_missing(runner: RetentionRunner) -> None:
    nodes(runner, 1)
    runner.run()
    nodes(runner, 3)
    only = ErasureKeys({"2": b"2" * 32}, "2")
    planned = runner.but(keys=only).plan("r2")
    with pytest.raises(UsageError, match=r"missing in the configuration: 1"):
        runner.but(keys=only).execute(planned, "r2")
    assert len(runner.keys_in("node")) == 3
