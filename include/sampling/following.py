"""The step of `conclude_audit` that follows up open findings of all workflows.

Only this step sends reminders about findings, whichever workflow entered them. So the step runs
even if the policy pack has no audit.yaml. It reports overdue findings of audits and incidents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Annotated

from pydantic import AliasChoices, BaseModel, Field

from include.evidence.step_findings import StepFindings, StepResult
from include.findings import register
from include.findings.register import Finding, State
from include.findings.reminders import remind_owners
from include.messages import Message, _, listed, verbatim
from include.policy.rules import Role
from include.sampling import issue
from include.sampling.closing import EVALUATE
from include.sampling.issue import IssuedWorkpapers
from include.sampling.quarter_texts import quarter_text
from include.sampling.register import latest_verdicts
from include.sampling.rules import AUDIT, CLAUSE, NOTIFICATION_KIND, AuditRules
from include.workflow.run_context import RunContext
from include.workflow.step import Step


class OpenFinding(BaseModel):
    """An open finding, as the step that follows up findings stores it in its result.

    For the other fields see `include.findings.register.Finding`.

    Attributes:
        what: description of the finding.
    """

    id: int
    reference: str
    what: Annotated[Message, Field(validation_alias=AliasChoices("what", "description"))]
    owner: str
    due_on: date
    state: State
    retests: int


class FollowedFindings(StepResult):
    """The result of the step that follows up open findings.

    Attributes:
        reminded: ids of the findings whose owners received a reminder today.
        open: open findings of audits and incidents.
    """

    reminded: list[int]
    open: list[OpenFinding]


def follow_up(run: RunContext[None], findings: StepFindings) -> FollowedFindings:
    """Remind the owner of each open finding once a week, and report overdue findings.

    The step also reports populations that were not accepted and still have open findings.
    """
    with run.state.begin() as conn:
        remind_owners(
            conn, NOTIFICATION_KIND, roles=run.roles, rules=run.notices, run=run.run, now=run.now
        )
        every_finding = register.list_findings(conn)
        last = latest_verdicts(conn)
        issued = [] if last else issue.all_issued(conn)
    # Findings that runs reported are judged by the runs of their own workflows.
    open_findings = [finding for finding in every_finding if finding.origin is None]
    rules = run.pack.section(AUDIT)
    if rules is not None:
        if not last:
            _report_missing_verdict(findings, issued)
        _report_populations_not_accepted(run, rules, findings, last, open_findings)
    _report_overdue(run, findings, open_findings)
    reminded = [
        finding.id
        for finding in every_finding
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
    title=_("The follow-up of open findings"),
    clause=CLAUSE,
    work=follow_up,
    result=FollowedFindings,
    runs_always=True,
)


def _report_overdue(
    run: RunContext[None], findings: StepFindings, open_findings: Sequence[Finding]
) -> None:
    late = [finding for finding in open_findings if finding.overdue(run.today)]
    for owner in sorted({finding.owner for finding in late}):
        numbers = [finding.id for finding in late if finding.owner == owner]
        findings.subject_titles[owner] = owner_text(owner, run.roles)
        findings.fail(
            "sampling.findings_overdue",
            _(
                "The owner {owner} has {count} overdue findings. Numbers of these findings: "
                "{numbers}.",
                owner=owner_text(owner, run.roles),
                count=len(numbers),
                numbers=_first_numbers(numbers),
            ),
            _("Answer the findings, correct their causes, and have another person retest them."),
            subject=owner,
            for_engineers=_("List the findings with `./parcelseal findings list`."),
        )
    findings.measure("audit_findings_overdue", len(late), "1")
    findings.measure("sampling.findings_open", len(open_findings), "1")


def _first_numbers(numbers: Sequence[int]) -> Message:
    """Return the numbers of findings as text: the first 20, and an ellipsis if there are more."""
    more = ["…"] if len(numbers) > 20 else []
    return listed([*map(str, numbers[:20]), *more])


def owner_text(role: str, roles: Mapping[str, Role]) -> Message:
    """Return the title of the role that owns a finding; its id if roles.yaml has no such role."""
    if role not in roles:
        return verbatim(role)
    titles = roles[role].title
    return Message(text=titles["en"], translations=titles)


def _report_missing_verdict(findings: StepFindings, issued: Sequence[IssuedWorkpapers]) -> None:
    """Report why no population has a verdict yet. Without a verdict, the control has no figure.

    If all issued workpapers were returned, nothing is reported here, because the evaluation of
    these workpapers reports why it reached no verdict.

    Args:
        findings: receives the finding.
        issued: all issued workpapers.
    """
    out = [workpapers for workpapers in issued if workpapers.handed_in is None]
    if out:
        findings.warn(
            "sampling.no_verdict",
            _(
                "No population was evaluated yet. Outstanding workpapers: {count}.",
                count=len(out),
            ),
            _(
                "Hand in the workpapers. The next run then evaluates the populations; no "
                "settings have to be changed."
            ),
        )
    elif not issued:
        findings.warn(
            "sampling.no_verdict",
            _("No population was evaluated yet because no sample was drawn."),
            _("Have the samples of the last completed quarter drawn."),
        )


def _report_populations_not_accepted(
    run: RunContext[None],
    rules: AuditRules,
    findings: StepFindings,
    last: Mapping[str, tuple[str, bool]],
    open_findings: Sequence[Finding],
) -> None:
    """Report populations that were not accepted last time and that still have open findings.

    Each run reports these populations, even a run without an evaluation. There is one exception: if
    an evaluation of this run did not accept a population, that evaluation has already reported it.

    Args:
        run: context of the run.
        rules: audit.yaml.
        findings: receives the findings and the figure of the control.
        last: population -> last audited quarter, and whether the population was accepted in it.
        open_findings: open findings of the register.
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
        open_count = sum(finding.reference.startswith(prefix) for finding in open_findings)
        if accepted or not open_count:
            continue
        above += 1
        if (audit, name) in reported:
            continue
        population = rules.find(name)
        if population:
            findings.subject_titles[name] = population.message
        findings.fail(
            "sampling.still_not_accepted",
            _(
                "The population is not accepted in the {quarter}. Open findings: {count}.",
                quarter=quarter_text(audit),
                count=open_count,
            ),
            _("Correct the causes of the open findings and have another person retest them."),
            subject=name,
        )
    findings.measure("populations_above_tolerable_rate", above if last else None, "1")
