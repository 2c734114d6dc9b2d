"""Do the steps of a review on a table, and return their records as tasks keep them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from include.approvals.question import Answer, Question
from include.evidence.model import StepRecord
from include.evidence.step_findings import StepFindings
from include.intake import review
from include.intake import settle as settlement
from include.intake.names import CLAUSE
from include.intake.table import IncomingTable
from include.workflow.run_records import RunRecords


def find(tables: Sequence[IncomingTable]) -> StepRecord:
    """Find the batches that wait."""
    findings = StepFindings("batches", CLAUSE)
    return findings.record(review.find(tables, findings))


def check(table: IncomingTable, batch: str) -> StepRecord:
    """Check a batch."""
    findings = StepFindings("check", CLAUSE, table.incoming.part(batch))
    return findings.record(review.check(table, findings))


def ask(table: IncomingTable, checked: StepRecord) -> Question:
    """Make the question about a checked batch."""
    question = review.ask(table, StepFindings("review", CLAUSE, checked.part))
    assert isinstance(question, Question)
    return question


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
    """Take an answer about a checked batch."""
    findings = StepFindings("review", CLAUSE, checked.part)
    answer = Answer(option, reason, user, at, content=content)
    return findings.record(review.take(table, findings, answer))


def settle(
    table: IncomingTable, checked: StepRecord, progress: settlement.Progress | None = None
) -> StepRecord:
    """Settle a checked batch."""
    findings = StepFindings("settle", CLAUSE, checked.part)
    return findings.record(settlement.settle(table, findings, progress))


def verify(tables: Sequence[IncomingTable], records: Iterable[StepRecord]) -> StepRecord:
    """Count afterwards what the recorded steps did."""
    findings = StepFindings("verify", CLAUSE)
    return findings.record(settlement.verified(tables, RunRecords(list(records)), findings))
