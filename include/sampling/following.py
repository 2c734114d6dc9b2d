"""The step of `conclude_audit` that follows open findings, whichever workflow opened them.

Corrective actions of incidents have owners and days as findings of audits do, and no other step
reminds of them. So the step also works under a pack that leaves out audit.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

from pydantic import BaseModel

from include.evidence.step_findings import StepFindings, StepResult
from include.findings import register
from include.findings.register import Found, State, remind
from include.messages import Message, _
from include.sampling import issue
from include.sampling.closing import EVALUATE
from include.sampling.issue import Issued
from include.sampling.register import latest
from include.sampling.rules import AUDIT, CLAUSE, NOTICE, AuditRules
from include.workflow.run_context import RunContext
from include.workflow.step import Step


class OpenFinding(BaseModel):
    """An open finding of the register; see `include.findings.register.Found`."""

    id: int
    reference: str
    what: Message
    owner: str
    due_on: date
    state: State
    retests: int


class FollowedFindings(StepResult):
    """The open findings of the register.

    Attributes:
        reminded: numbers of those whose owners were reminded today.
        open: all of them.
    """

    reminded: list[int]
    open: list[OpenFinding]


def follow_up(run: RunContext[None], findings: StepFindings) -> FollowedFindings:
    """Remind the owners of open findings, each once a week, and report overdue findings."""
    with run.state.begin() as conn:
        remind(conn, NOTICE, roles=run.roles, rules=run.notices, run=run.run, now=run.now)
        open_findings = register.listed(conn)
        last = latest(conn)
        issued = [] if last else issue.all_issued(conn)
    rules = run.pack.section(AUDIT)
    if rules is not None:
        if not last:
            _no_verdict(findings, issued)
        _still_not_accepted(run, rules, findings, last, open_findings)
    _overdue(findings, open_findings, run.today)
    reminded = [
        finding.id
        for finding in open_findings
        if finding.reminded_at is not None
        and finding.reminded_at.astimezone(run.zone).date() == run.today
    ]
    return FollowedFindings(
        reminded=reminded,
        open=[
            OpenFinding.model_validate(finding, from_attributes=True) for finding in open_findings
        ],
    )


FOLLOW_UP = Step(
    name="follow_up",
    title=_("The follow-up"),
    clause=CLAUSE,
    work=follow_up,
    result=FollowedFindings,
    runs_always=True,
)


def _overdue(findings: StepFindings, open_findings: Sequence[Found], today: date) -> None:
    late = [finding for finding in open_findings if finding.overdue(today)]
    for owner in sorted({finding.owner for finding in late}):
        numbers = [finding.id for finding in late if finding.owner == owner]
        findings.fail(
            "sampling.findings_overdue",
            _(
                "{count} findings are past their day: {numbers}.",
                count=len(numbers),
                numbers=", ".join(map(str, numbers[:20])) + ("…" if len(numbers) > 20 else ""),
            ),
            _("Answer them, mend the causes and have them tested again: `findings list`."),
            subject=owner,
        )
    findings.measure("audit_findings_overdue", len(late), "1")
    findings.measure("sampling.findings_open", len(open_findings), "1")


def _no_verdict(findings: StepFindings, issued: Sequence[Issued]) -> None:
    """Report why no population has a verdict, so that the control has no figure yet.

    Where the workpapers are back, the evaluation says itself why it reached none.
    """
    out = [workpapers for workpapers in issued if workpapers.handed_in is None]
    if out:
        findings.warn(
            "sampling.no_verdict",
            _(
                "No population has been judged yet; workpapers that are not back: {count}.",
                count=len(out),
            ),
            _("Nothing has to be changed: the figure is measured once they are handed in."),
        )
    elif not issued:
        findings.warn(
            "sampling.no_verdict",
            _("No population has been judged yet: no sample has been drawn."),
            _("Have the sample of the quarter drawn."),
        )


def _still_not_accepted(
    run: RunContext[None],
    rules: AuditRules,
    findings: StepFindings,
    last: Mapping[str, tuple[str, bool]],
    open_findings: Sequence[Found],
) -> None:
    """Report populations whose last verdict did not accept them and whose findings are open.

    A day without verdicts does not accept them. The evaluations of this run report their own.
    """
    above = 0
    reported = {
        (evaluation.audit, verdict.population)
        for evaluation in run.records().results(EVALUATE).values()
        for verdict in evaluation.verdicts
        if verdict.decision == "not_accepted"
    }
    for name, (audit, accepted) in last.items():
        prefix = f"{audit}/{name}/"
        still = sum(finding.reference.startswith(prefix) for finding in open_findings)
        if accepted or not still:
            continue
        above += 1
        if (audit, name) in reported:
            continue
        population = rules.find(name)
        findings.fail(
            "sampling.still_not_accepted",
            _(
                "{population} was not accepted in {audit}, and {count} of its findings are open.",
                population=population.message if population else name,
                audit=audit,
                count=still,
            ),
            _("Have them mended and tested again; then this ends."),
            subject=name,
        )
    findings.measure("populations_above_tolerable_rate", above if last else None, "1")
