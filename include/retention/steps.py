"""The steps of `enforce_retention`: registers, locks and declarations; the pruning of evidence."""

from __future__ import annotations

from datetime import timedelta

from include.approvals.question import Answer, Question
from include.evidence.adopt import lock_end
from include.evidence.model import Outcome
from include.evidence.prune import (
    LONGEST_PAUSE,
    Forgotten,
    Pruned,
    Pruning,
    Waits,
    forget_sealed_runs,
)
from include.evidence.register_figures import ERASURES, HOLDS, REQUESTS
from include.evidence.step_findings import StepFindings, StepResult
from include.messages import Message, _
from include.policy import PolicyPack
from include.policy.period import later
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
from include.state.locks import exclusive
from include.workflow.declaration import Queue
from include.workflow.run_context import RunContext
from include.workflow.step import HumanTask, Step

RUNS_A_DAY = 100  # sealed runs whose step records one run removes, however large their bundles are
_NOTES: dict[str, Message] = {
    Waits.HELD: _("others wait: a legal hold is active"),
    Waits.LOCKED: _("others wait: the store still locks them"),
    Waits.CHANGED: _("others wait: a bundle does not verify"),
    Waits.CLOCK: _("others wait: the clock may be wrong"),
    Waits.MORE: _("others follow in the next run"),
}


class PruningResult(StepResult):
    """The evidence that was pruned.

    Attributes:
        bundles: number of bundles whose files were removed.
        last: the newest of them; empty if there is none.
        waits: why the next bundle past its term stays, one of `Waits`; empty if there is none.
        keep: term of the policy pack, ``P6Y``.
        runs_forgotten: number of sealed runs whose step records were removed.
    """

    bundles: int
    last: str
    waits: str
    keep: str
    runs_forgotten: int


def prune_evidence(run: RunContext[None], findings: StepFindings) -> PruningResult:
    """Remove the files of evidence past its term; while a legal hold is active, none.

    The step records of sealed runs go too, if their bundles verify.
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
    forgotten = forget_sealed_runs(  # first: it needs the files that the pruning removes
        store, run.state, services.trusted, besides=own, most=RUNS_A_DAY, largest=None
    )
    pruned = pruning.prune(lambda row: later(row.sealed_at, rules.keep, run.zone) <= now)
    return report_pruned(findings, pruned, forgotten, rules.keep.text)


def report_pruned(
    findings: StepFindings, pruned: Pruned, forgotten: Forgotten, keep: str
) -> PruningResult:
    """Return the result. A hold and a lock are no findings: the next run tries again.

    Args:
        findings: of the step.
        pruned: which bundles were removed, and why others were not.
        forgotten: of how many sealed runs the step records were removed.
        keep: the term of the policy pack, ``P6Y``.
    """
    if pruned.problem is not None:
        findings.find(
            "evidence.prune_refused",
            Outcome.FAIL,
            _(
                "The evidence bundle {bundle} is past its term and does not verify: {problem}. It "
                "stays, and so do newer bundles.",
                bundle=pruned.next_bundle,
                problem=pruned.problem,
            ),
            _("Verify all evidence, and find out who changed this bundle."),
            subject=pruned.next_bundle,
        )
    elif pruned.waits is Waits.CLOCK:
        findings.find(
            "evidence.prune_postponed",
            Outcome.ATTENTION,
            _(
                "No evidence was sealed for more than {days} days, so the clock may be wrong. No "
                "evidence past its term was removed.",
                days=LONGEST_PAUSE.days,
            ),
            _("Compare the clock of the worker. If it is right, a later run goes on."),
        )
    return PruningResult(
        bundles=len(pruned.bundles),
        last=pruned.bundles[-1] if pruned.bundles else "",
        waits=str(pruned.waits or ""),
        keep=keep,
        runs_forgotten=forgotten.runs,
    )


def facts(pruned: PruningResult | None) -> list[Fact]:
    """Return the line of a report about evidence past its term; none if there was none."""
    if pruned is None or not (pruned.bundles or pruned.waits):
        return []
    label = _("Evidence bundles past their term, removed")
    return [Fact(label=label, value=pruned.bundles, note=_NOTES.get(pruned.waits))]


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
    work=prune_evidence,
    result=PruningResult,
    queue=Queue.SEALING,  # it signs how far evidence was removed
)
