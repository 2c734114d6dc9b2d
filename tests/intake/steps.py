"""Run the steps of a review on an incoming table, and return step records as tasks store them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from include.approvals.required_action import Answer, RequiredAction
from include.evidence.model import StepRecord
from include.evidence.step_findings import StepFindings
from include.intake import review
from include.intake import settle as settlement
from include.intake.incoming import CLAUSE
from include.intake.table import IncomingTable
from include.workflow.run_records import RunRecords


def find(tables: Sequence[IncomingTable]) -> StepRecord:
    """Run the step that finds the pending batches."""
    findings = StepFindings("batches", CLAUSE)
    return findings.record(review.find_batches(tables, findings))


def check(table: IncomingTable, batch: str) -> StepRecord:
    """Run the step that checks a batch."""
    findings = StepFindings("check", CLAUSE, table.incoming.batch_label(batch))
    return findings.record(review.check_batch(table, findings))


def ask(table: IncomingTable, checked: StepRecord) -> RequiredAction:
    """Return the required action that requests the review of a checked batch."""
    action = review.ask_reviewer(table, StepFindings("review", CLAUSE, checked.part))
    assert isinstance(action, RequiredAction)
    return action


def take(
    table: IncomingTable,
    checked: StepRecord,
    *,
    option: str,
    reason: str,
    user: str | None,
    at: datetime,
    content: str,
) -> StepRecord:
    """Store a reviewer's answer about a checked batch.

    Args:
        table: incoming table of the batch.
        checked: step record of the check.
        option: option that the reviewer chose.
        reason: reason that the reviewer gave.
        user: user id of the reviewer; None if nobody answered.
        at: time of the answer.
        content: fingerprint of the content that the form showed to the reviewer.
    """
    findings = StepFindings("review", CLAUSE, checked.part)
    answer = Answer(option, reason, user, at, content=content)
    return findings.record(review.store_answer(table, findings, answer))


def settle(
    table: IncomingTable, checked: StepRecord, progress: settlement.Progress | None = None
) -> StepRecord:
    """Run the step that executes the decision on a checked batch."""
    findings = StepFindings("settle", CLAUSE, checked.part)
    return findings.record(settlement.settle(table, findings, progress))


def verify(tables: Sequence[IncomingTable], records: Iterable[StepRecord]) -> StepRecord:
    """Run the step that verifies the results of the steps before it."""
    findings = StepFindings("verify", CLAUSE)
    return findings.record(settlement.verify_tables(tables, RunRecords(list(records)), findings))
