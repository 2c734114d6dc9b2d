"""The steps of `enforce_retention`, including the removal of old evidence bundles."""

from __future__ import annotations

from datetime import timedelta

from include.approvals.required_action import Answer, RequiredAction
from include.evidence.ledger_recovery import lock_end
from include.evidence.model import Outcome
from include.evidence.prune import (
    LONGEST_PAUSE,
    DeletedStepRecords,
    KeptBecause,
    Pruned,
    Pruning,
    delete_step_records,
)
from include.evidence.register_figures import ERASURES, HOLDS, REQUESTS
from include.evidence.step_findings import StepFindings, StepResult
from include.messages import Message, _
from include.policy import PolicyPack
from include.policy.period import add_period
from include.reports.model import Fact
from include.retention.certificate import verify_step
from include.retention.database import RetentionDatabase
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
from include.state.locks import hold_exclusive_lock
from include.workflow.declaration import Queue
from include.workflow.run_context import RunContext
from include.workflow.step import HumanTask, Step

MAX_FORGOTTEN_RUNS = 100  # sealed runs whose step records one run removes
_NOTES: dict[str, Message] = {
    KeptBecause.HELD: _(
        "the remaining expired bundles were not removed, because a legal hold is active"
    ),
    KeptBecause.LOCKED: _(
        "the remaining expired bundles were not removed, because the evidence store still "
        "locks them"
    ),
    KeptBecause.CHANGED: _(
        "the remaining expired bundles were not removed, because a bundle failed verification"
    ),
    KeptBecause.CLOCK: _(
        "the remaining expired bundles were not removed, because the system clock may be wrong"
    ),
    KeptBecause.MORE: _("the next run will remove the remaining expired bundles"),
}


class PruningResult(StepResult):
    """The result of the removal of old evidence bundles.

    Attributes:
        bundles: number of bundles whose files were removed.
        last: newest bundle whose files were removed; empty if none were removed.
        waits: reason (`KeptBecause`) why the oldest bundle that is past its retention period was
            kept; empty if no bundle past its retention period was kept.
        keep: retention period of evidence bundles in the policy pack, such as ``P6Y``.
        runs_forgotten: number of sealed runs whose step records were removed.
    """

    bundles: int
    last: str
    waits: str
    keep: str
    runs_forgotten: int


def prune_evidence(run: RunContext[None], findings: StepFindings) -> PruningResult:
    """Remove the files of evidence bundles whose retention period has ended.

    An active legal hold prevents this. The step also removes the step records of sealed runs from
    the state database. The step records of a run are kept if its evidence bundle is not valid.

    Args:
        run: context of the run.
        findings: collector of the findings of the step.
    """
    services = run.services
    services.require_complete_registers(HOLDS)
    store, rules, now = services.store("evidence_store"), run.pack.evidence, run.clock.now()
    pruning = Pruning(
        store,
        run.state,
        services.signer,
        services.trusted,
        run.clock,
        lock_end(store, run.clock, rules),
    )
    own = run.run.dag_id, run.run.run_id
    deleted = delete_step_records(  # needs the files that the pruning removes
        store, run.state, services.trusted, besides=own, most=MAX_FORGOTTEN_RUNS, largest=None
    )
    pruned = pruning.prune(lambda row: add_period(row.sealed_at, rules.keep, run.zone) <= now)
    return report_pruned(findings, pruned, deleted, rules.keep.text)


def report_pruned(
    findings: StepFindings, pruned: Pruned, deleted: DeletedStepRecords, keep: str
) -> PruningResult:
    """Return the result of a removal of evidence bundles, and report its problems as findings.

    A legal hold or a lock of the evidence store may prevent a removal. This is not reported as a
    finding, since the next run tries again.

    Args:
        findings: collector of the findings of the step.
        pruned: bundles whose files were removed, and the reason why the next bundle past its
            retention period was kept.
        deleted: sealed runs whose step records were removed.
        keep: retention period of evidence bundles in the policy pack, such as ``P6Y``.
    """
    if pruned.problem is not None:
        findings.find(
            "evidence.prune_refused",
            Outcome.FAIL,
            _(
                "The evidence bundle {bundle} has expired but failed verification: {problem}. "
                "This bundle and newer bundles were not removed.",
                bundle=pruned.next_bundle,
                problem=pruned.problem,
            ),
            _(
                "Ask the data engineers to verify all evidence, and find out who changed this "
                "bundle."
            ),
            subject=pruned.next_bundle,
        )
    elif pruned.kept_because is KeptBecause.CLOCK:
        findings.find(
            "evidence.prune_postponed",
            Outcome.ATTENTION,
            _(
                "No evidence was sealed for more than {days} days, so the system clock may be "
                "wrong. Expired evidence was not removed.",
                days=LONGEST_PAUSE.days,
            ),
            _(
                "Check the system clock of the worker, and correct it if it is wrong. If it is "
                "right, no action is required: a later run removes the expired evidence."
            ),
        )
    return PruningResult(
        bundles=len(pruned.bundles),
        last=pruned.bundles[-1] if pruned.bundles else "",
        waits=str(pruned.kept_because or ""),
        keep=keep,
        runs_forgotten=deleted.runs,
    )


def pruning_facts(pruned: PruningResult | None) -> list[Fact]:
    """Return a list with one fact for the report: how many evidence bundles were removed.

    The list is empty if no bundle was past its retention period.

    Args:
        pruned: result of the removal; None if the step has no result. The list is then empty.
    """
    if pruned is None or not (pruned.bundles or pruned.waits):
        return []
    label = _("Removed expired evidence bundles")
    return [Fact(label=label, value=pruned.bundles, note=_NOTES.get(pruned.waits))]


_ALL_SUBJECTS = (
    "retention.hold_review_due",
    "retention.ledger_lost",
    "retention.copied",
    "retention.orphans",
)
"""Codes of findings for which the steps examine a database completely. The subject of these
findings is not a record class."""


def _state_coverage(run: RunContext[None], findings: StepFindings) -> None:
    """State that a step examines only the record classes that the policy pack has."""
    classes = [rule.record_class for rule in run.pack.retention_of(findings.part)]
    findings.examine_only(classes, _ALL_SUBJECTS)


def plan(run: RunContext[None], findings: StepFindings) -> PlanResult:
    """Make the disposition plan of a database: count the records to delete, mask and keep."""
    _state_coverage(run, findings)
    run.services.require_complete_registers(ERASURES, HOLDS, REQUESTS)
    database = RetentionDatabase(run, findings.part)
    return plan_step.plan(database, findings, run.parameters.get("as_of"))


def request_approval(
    run: RunContext[None], findings: StepFindings
) -> RequiredAction | ApprovalResult:
    """Request the approval of a disposition plan that exceeds a limit.

    Returns:
        The approval form, or a result if no form is needed: either no approval is required, or the
        task was killed after it had recorded a decision. In the second case, the result has this
        decision.
    """
    database, planned = RetentionDatabase(run, findings.part), run.require(PLAN, findings.part)
    if (result := approval.find_decision(database, findings, planned)) is not None:
        return result
    return approval.approval_form(database, planned) or ApprovalResult(asked=False)


def enter_answer(run: RunContext[None], findings: StepFindings, answer: Answer) -> ApprovalResult:
    """Record an approver's decision on the plan, or that no approver decided in time."""
    planned = run.require(PLAN, findings.part)
    return approval.enter_answer(RetentionDatabase(run, findings.part), findings, planned, answer)


def execute(run: RunContext[None], findings: StepFindings) -> ExecutionResult:
    """Delete and mask the records of the disposition plan in short transactions."""
    _state_coverage(run, findings)
    run.services.require_complete_registers(ERASURES, HOLDS, REQUESTS)
    name = findings.part
    with hold_exclusive_lock(
        run.state, f"retention:{name}", f"retention of {name}"
    ) as confirm_lock:

        def confirm_alone() -> None:
            confirm_lock()
            run.task.confirm_open()

        database, planned = RetentionDatabase(run, name), run.require(PLAN, name)
        return execute_step.execute(database, findings, planned, alone=confirm_alone)


def verify(run: RunContext[None], findings: StepFindings) -> VerificationResult:
    """Count the remaining records with independent queries. Close completed erasure requests."""
    _state_coverage(run, findings)
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
    title=_("Disposition plan of {part}", part=""),
    clause=CLAUSE,
    work=plan,
    result=PlanResult,
)
APPROVE = HumanTask(
    name=STEP_APPROVE,
    title=_("Approval of the disposition plan of {part}", part=""),
    request_title=_("Approval request for the disposition plan of {part}", part=""),
    clause=CLAUSE,
    ask=request_approval,
    store_answer=enter_answer,
    response=_response_time,
    result=ApprovalResult,
    waiting=ApprovalResult(asked=True),
    optional=True,
)
EXECUTE = Step(
    name=STEP_EXECUTE,
    title=_("Execution of the disposition plan of {part}", part=""),
    clause=CLAUSE,
    work=execute,
    result=ExecutionResult,
)
VERIFY = Step(
    name=STEP_VERIFY,
    title=_("Verification of the disposition in {part}", part=""),
    clause=CLAUSE,
    work=verify,
    result=VerificationResult,
    runs_always=True,
)
PRUNE_EVIDENCE = Step(
    name="prune_evidence",
    title=_("Removal of expired evidence"),
    clause=CLAUSE,
    work=prune_evidence,
    result=PruningResult,
    queue=Queue.SEALING,  # the step signs which evidence was removed
)
