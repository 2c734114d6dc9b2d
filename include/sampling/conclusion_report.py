"""The report of `conclude_audit`: its run, workpapers that are out, the register of findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from include.findings import register
from include.findings.register import Found, State
from include.messages import Message, _, listed
from include.notify.sending import SEND_TITLE, STEP_SEND
from include.policy.rules import Role
from include.reports.conclusion import Conclusion
from include.reports.model import Block, Fact, Paragraph, Section, must_be_zero, table_of
from include.sampling.closing import EVALUATE, LOOK, Evaluation, WorkpapersStatus
from include.sampling.evaluation import Verdict
from include.sampling.following import FOLLOW_UP
from include.sampling.rules import AUDIT, CLAUSE
from include.sampling.signed_report import signed
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords

NOT_YET = _("not yet")
FIGURE = "populations_above_tolerable_rate"  # of the control; the first screen says the same
_STATES = {
    State.OPEN: _("open"),
    State.ANSWERED: _("answered, to be tested again"),
    State.CLOSED: _("closed"),
}


def conclude(run: RunContext[None], records: RunRecords) -> Conclusion:
    """Judge a run by the records of its steps."""
    with run.state.connect() as conn:
        every = register.listed(conn, closed=True)
    if run.pack.section(AUDIT) is None:
        return nothing_to_audit(records, run.roles, every)
    status = records.result(LOOK)
    evaluations = records.results(EVALUATE)
    steps = {(step.name, ""): step.title for step in (LOOK, FOLLOW_UP)}
    steps[STEP_SEND, ""] = SEND_TITLE
    for part in status.back if status else ():
        steps[EVALUATE.name, part] = EVALUATE.title_of(part)
    above = next((metric.value for metric in records.metrics if metric.name == FIGURE), None)
    populations = JudgedPopulations(
        status=status,
        evaluations=evaluations,
        above=None if above is None else int(above),
        findings=every,
    )
    return records.conclude(
        _("Audit conclusion"),
        _summary(populations),
        findings=records.missing("sampling", CLAUSE, steps),
        facts=_facts(populations, run.today),
        sections=[
            *(section for evaluation in evaluations.values() for section in signed(evaluation)),
            *([_out(populations.out)] if populations.out else []),
            _register(every, run.roles),
        ],
    )


def nothing_to_audit(
    records: RunRecords, roles: Mapping[str, Role], findings: Sequence[Found]
) -> Conclusion:
    """Conclude a run under a pack without audit.yaml: it followed findings of other workflows.

    Args:
        records: of the run.
        roles: of roles.yaml.
        findings: the whole register, closed ones too.
    """
    return records.conclude(
        _("Audit conclusion"),
        _("The policy pack has no audit.yaml: nothing is audited by samples."),
        sections=[_register(findings, roles)] if findings else [],
        lists_messages=False,
    )


@dataclass(frozen=True)
class JudgedPopulations:
    """The verdicts of a run, and the workpapers without one.

    Attributes:
        status: of workpapers before the evaluations; None if the step left no result.
        evaluations: by workpapers.
        above: populations that are not accepted by their last verdict, whichever run reached it,
            and not mended: the figure of the control. None if it was not measured.
        findings: the whole register, closed ones too.
    """

    status: WorkpapersStatus | None
    evaluations: Mapping[str, Evaluation]
    above: int | None
    findings: Sequence[Found]

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdicts that were reached or go on."""
        return [
            verdict for evaluation in self.evaluations.values() for verdict in evaluation.verdicts
        ]

    @property
    def going_on(self) -> list[Message]:
        """The titles of the populations that go on to the next stage."""
        return [
            asked.title
            for evaluation in self.evaluations.values()
            for asked in evaluation.asked
            if asked.population in evaluation.next_stage
        ]

    @property
    def out(self) -> list[tuple[str, datetime | None]] | None:
        """The workpapers that are out at the end of the run; None without a status.

        Each has the moment of its issue, or None if this run issued it.
        """
        if self.status is None:
            return None
        out: dict[str, datetime | None] = dict(self.status.out)
        for evaluation in self.evaluations.values():
            if evaluation.next_stage:
                stage = evaluation.stage + 1
                out.setdefault(f"{evaluation.audit}-{stage}-{evaluation.draw[:6]}", None)
        return list(out.items())

    @property
    def judged(self) -> int:
        """Populations whose verdict was reached."""
        return sum(verdict.decision != "next_stage" for verdict in self.verdicts)

    @property
    def refused(self) -> int:
        """Populations that this run did not accept."""
        return sum(verdict.decision == "not_accepted" for verdict in self.verdicts)

    @property
    def left(self) -> int:
        """Findings that are not closed."""
        return sum(finding.state is not State.CLOSED for finding in self.findings)

    @property
    def unjudged(self) -> int | None:
        """Workpapers that are back and were not evaluated; None without a status."""
        return len(set(self.status.back) - set(self.evaluations)) if self.status else None


def _summary(populations: JudgedPopulations) -> Message:
    said = _judged(populations)
    if not populations.going_on:
        return said
    return _and(
        said,
        _(
            "To the next stage of their plan: {populations}.",
            populations=listed(populations.going_on),
        ),
    )


def _judged(populations: JudgedPopulations) -> Message:
    """Return the sentence about judged populations; it claims no less than the control's figure."""
    if populations.refused and populations.above in (None, populations.refused):
        return _(
            "{above} of {count} populations that were judged are not accepted.",
            above=populations.refused,
            count=populations.judged,
        )
    if populations.refused:
        return _(
            "{above} of {count} populations that were judged are not accepted; not accepted by "
            "their last verdict and not mended yet: {all}.",
            above=populations.refused,
            count=populations.judged,
            all=populations.above,
        )
    said = _work(populations)
    if not populations.above:
        return said
    return _and(
        said,
        _("Judged before, still not accepted and not mended: {above}.", above=populations.above),
    )


def _work(populations: JudgedPopulations) -> Message:
    if populations.unjudged is None or populations.out is None:
        return _(
            "Nobody could see which workpapers are back; open findings: {left}.",
            left=populations.left,
        )
    if populations.unjudged:
        return _(
            "Workpapers that are back and could not be judged: {count}; open findings: {left}.",
            count=populations.unjudged,
            left=populations.left,
        )
    if populations.judged:
        return _(
            "Populations judged in this run, all of them accepted: {count}; open findings: {left}.",
            count=populations.judged,
            left=populations.left,
        )
    if populations.going_on:
        return _("No verdict was reached yet; open findings: {left}.", left=populations.left)
    return _(
        "No workpapers came back since the last run; out: {out}, open findings: {left}.",
        out=len(populations.out),
        left=populations.left,
    )


def _and(first: Message, then: Message) -> Message:
    """Two sentences; a Chinese reader sees no blank between them."""
    values = {"first": first, "then": then}
    return Message(text="{first} {then}", values=values, translations={"zh-CN": "{first}{then}"})


def _facts(populations: JudgedPopulations, today: date) -> list[Fact]:
    late = sum(finding.overdue(today) for finding in populations.findings)
    return [
        Fact(
            label=_("Populations judged in this run"),
            value=None if populations.unjudged is None else populations.judged,
        ),
        Fact(
            label=_("Not accepted"),
            value=populations.above,
            status=must_be_zero(populations.above),
            note=_("last verdict, not mended yet"),
        ),
        Fact(
            label=_("Workpapers that are out"),
            value=None if populations.out is None else len(populations.out),
        ),
        Fact(label=_("Open findings"), value=populations.left),
        Fact(
            label=_("Findings past their day"),
            value=late,
            status=must_be_zero(late),
        ),
    ]


def _out(out: Sequence[tuple[str, datetime | None]]) -> Section:
    table = table_of(
        _("Not handed in yet"),
        out,
        [
            (_("Workpapers"), "code", lambda issued: issued[0]),
            (_("Issued"), "datetime", lambda issued: issued[1] or _("by this run")),
        ],
    )
    return Section(heading=_("Workpapers that are out"), blocks=[table])


def _register(findings: Sequence[Found], roles: Mapping[str, Role]) -> Section:
    """Return the section of previous findings: the open ones, and how many were closed."""
    left = [finding for finding in findings if finding.state is not State.CLOSED]
    closed = len(findings) - len(left)
    blocks: list[Block] = [
        Paragraph(
            text=_("Closed findings, tested again by somebody and met: {count}.", count=closed)
        )
    ]
    if left:
        blocks.append(
            table_of(
                _("Open findings"),
                left,
                [
                    (_("No."), "number", lambda finding: finding.id),
                    (_("Finding"), "text", lambda finding: finding.what),
                    (_("Owner"), "text", lambda finding: _owner(finding.owner, roles)),
                    (_("Due"), "text", lambda finding: finding.due_on),
                    (_("State"), "text", lambda finding: _STATES[finding.state]),
                    (_("Cause"), "text", lambda finding: finding.cause or NOT_YET),
                    (_("Corrective action"), "text", lambda finding: finding.action or NOT_YET),
                    (_("Reminded"), "datetime", lambda finding: finding.reminded_at or NOT_YET),
                ],
            )
        )
    return Section(heading=_("Findings and corrective actions"), blocks=blocks)


def _owner(role: str, roles: Mapping[str, Role]) -> Message | str:
    if role not in roles:
        return role
    titles = roles[role].title
    return Message(text=titles["en"], translations=titles)
