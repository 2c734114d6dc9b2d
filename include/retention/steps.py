"""The steps of `enforce_retention`: registers, locks and declarations."""

from __future__ import annotations

from datetime import timedelta

from include.approvals.question import Answer, Question
from include.evidence.register_figures import ERASURES, HOLDS, REQUESTS
from include.evidence.step_findings import StepFindings
from include.messages import _
from include.policy import PolicyPack
from include.retention import evidence_pruning
from include.retention.certificate import verify_step
from include.retention.database import RetentionDatabase
from include.retention.evidence_pruning import PruningResult
from include.retention.execution import execute_step
from include.retention.planning import approval, plan_step
from include.retention.results import (
    CLAUSE,
    STEP_APPROVE,
    STEP_EXECUTE,
    STEP_PLAN,
    STEP_VERIFY,
    ApprovalResult,
    ExecutionResult,
    PlanResult,
    VerificationResult,
)
from include.services.errors import ParcelSealError
from include.state.locks import exclusive
from include.workflow.declaration import Queue
from include.workflow.run_context import RunContext
from include.workflow.step import HumanTask, Step


def plan(run: RunContext[None], findings: StepFindings) -> PlanResult:
    """Count the records to delete and mask, and those that stay; keep the plan as a file."""
    run.services.require_complete_registers(ERASURES, HOLDS, REQUESTS)
    database = RetentionDatabase(run, findings.part)
    return plan_step.plan(database, findings, run.parameters.get("as_of"))


def ask(run: RunContext[None], findings: StepFindings) -> Question | ApprovalResult:
    """Ask a second person to approve a plan that exceeds a limit: counts by class, and its hash.

    If a task was killed after it took the decision, its decision stands.
    """
    database, planned = RetentionDatabase(run, findings.part), run.require(PLAN, findings.part)
    if (result := approval.decided(database, findings, planned)) is not None:
        return result
    return approval.ask(database, planned) or ApprovalResult(asked=False)


def take(run: RunContext[None], findings: StepFindings, answer: Answer) -> ApprovalResult:
    """Enter an answer, or that nobody answered in time."""
    planned = run.require(PLAN, findings.part)
    return approval.take(RetentionDatabase(run, findings.part), findings, planned, answer)


def execute(run: RunContext[None], findings: StepFindings) -> ExecutionResult:
    """Delete and mask the planned records in short transactions, unless something keeps them."""
    run.services.require_complete_registers(ERASURES, HOLDS, REQUESTS)
    name = findings.part
    with exclusive(run.state, f"retention:{name}", f"retention of {name}") as confirm_lock:

        def confirm_alone() -> None:
            confirm_lock()
            run.task.confirm_open()

        database, planned = RetentionDatabase(run, name), run.require(PLAN, name)
        return execute_step.execute(database, findings, planned, alone=confirm_alone)


def verify(run: RunContext[None], findings: StepFindings) -> VerificationResult:
    """Count the remaining records by independent queries, and list the backups that hold them."""
    name = findings.part
    planned, executed = run.require(PLAN, name), run.records().result(EXECUTE, name)
    try:
        restore_points = run.services.list_restore_points(run.services, name)
    except ParcelSealError:
        restore_points = None
    database = RetentionDatabase(run, name)
    return verify_step.verify(database, findings, planned, executed, restore_points)


def _response_time(pack: PolicyPack) -> timedelta:
    return pack.disposition.approval.response.span


PLAN = Step(
    name=STEP_PLAN,
    title=_("The plan of {part}", part=""),
    clause=CLAUSE,
    work=plan,
    result=PlanResult,
)
APPROVE = HumanTask(
    name=STEP_APPROVE,
    title=_("The approval for {part}", part=""),
    question_title=_("The question about the plan of {part}", part=""),
    clause=CLAUSE,
    ask=ask,
    take=take,
    response=_response_time,
    result=ApprovalResult,
    waiting=ApprovalResult(asked=True),
    optional=True,
)
EXECUTE = Step(
    name=STEP_EXECUTE,
    title=_("The execution in {part}", part=""),
    clause=CLAUSE,
    work=execute,
    result=ExecutionResult,
)
VERIFY = Step(
    name=STEP_VERIFY,
    title=_("The count afterwards in {part}", part=""),
    clause=CLAUSE,
    work=verify,
    result=VerificationResult,
    runs_always=True,
)
PRUNE_EVIDENCE = Step(
    name="prune_evidence",
    title=_("The removal of old evidence"),
    clause=CLAUSE,
    work=evidence_pruning.prune_evidence,
    result=PruningResult,
    queue=Queue.SEALING,  # it signs how far evidence was removed
)
