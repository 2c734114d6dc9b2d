"""The steps of `enforce_retention` as functions that take and return step records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from include.approvals.required_action import Answer, RequiredAction
from include.evidence.model import StepRecord
from include.evidence.step_findings import StepFindings, result_of
from include.holds.records import StoredRestorePoint
from include.retention.certificate import verify_step
from include.retention.database import RetentionDatabase
from include.retention.execution import execute_step
from include.retention.execution.state import Progress
from include.retention.planning import approval, plan_step
from include.retention.planning.plan import Plan
from include.retention.results import ExecutionResult, PlanResult
from include.retention.steps import APPROVE, EXECUTE, PLAN, VERIFY


def _findings(name: str, database: RetentionDatabase) -> StepFindings:
    return StepFindings(name, PLAN.clause, database.name)


def _plan(record: StepRecord) -> PlanResult:
    return PlanResult.model_validate(record.data)


def plan(database: RetentionDatabase, as_of: str | None = None) -> StepRecord:
    """Make the plan, and return its step record."""
    findings = _findings(PLAN.name, database)
    return findings.record(plan_step.plan(database, findings, as_of))


def planned(database: RetentionDatabase, record: StepRecord) -> Plan:
    """Return the plan of a step record, read from its file."""
    return approval.read_plan_file(database, _plan(record))


def ask(database: RetentionDatabase, record: StepRecord) -> RequiredAction | None:
    """Build the approval form for the plan of a step record, or return None if none is required."""
    return approval.approval_form(database, _plan(record))


def take(
    database: RetentionDatabase,
    record: StepRecord,
    *,
    option: str,
    reason: str,
    user: str | None,
    at: datetime,
    content: str,
    name: str | None = None,
) -> StepRecord:
    """Record an answer to the approval request, and return the step record.

    Args:
        database: database of the plan.
        record: step record of the plan.
        option: chosen option.
        reason: reason that the person gives.
        user: user id of the person; None if nobody answered.
        at: time of the answer.
        content: content of the answered form.
        name: name of the person.
    """
    findings = _findings(APPROVE.name, database)
    answer = Answer(option, reason, user, at, name, content=content)
    return findings.record(approval.enter_answer(database, findings, _plan(record), answer))


def execute(
    database: RetentionDatabase,
    record: StepRecord,
    progress: Progress = lambda _stage: None,
    alone: Callable[[], None] = lambda: None,
) -> StepRecord:
    """Execute the plan of a step record, and return the step record of the execution."""
    findings = _findings(EXECUTE.name, database)
    return findings.record(execute_step.execute(database, findings, _plan(record), progress, alone))


def verify(
    database: RetentionDatabase,
    record: StepRecord,
    executed: StepRecord | None,
    restore_points: Sequence[StoredRestorePoint] | None,
) -> StepRecord:
    """Count the remaining records, and return the step record of the verification."""
    findings, result = _findings(VERIFY.name, database), result_of(executed, ExecutionResult)
    return findings.record(
        verify_step.verify(database, findings, _plan(record), result, restore_points)
    )
