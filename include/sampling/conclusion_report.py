"""The report of `conclude_audit`: verdicts, workpapers not yet returned, and open findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from include.findings import register
from include.findings.register import Finding, State
from include.messages import Message, _, listed
from include.notify.sending import SEND_TITLE, STEP_SEND
from include.policy.rules import Role
from include.reports.conclusion import Conclusion
from include.reports.model import Block, Fact, Paragraph, Section, must_be_zero, table_of
from include.sampling.closing import EVALUATE, FIND_WORKPAPERS, Evaluation, WorkpapersStatus
from include.sampling.evaluation import Verdict
from include.sampling.following import FOLLOW_UP, owner_text
from include.sampling.quarter_texts import workpapers_text
from include.sampling.rules import AUDIT, CLAUSE
from include.sampling.signed_report import signed_sections
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords

NOT_YET = _("not yet")
FIGURE = "populations_above_tolerable_rate"  # also on the compliance pages
_STATES = {
    State.OPEN: _("open"),
    State.ANSWERED: _("answered by the owner, waits for the retest"),
    State.CLOSED: _("closed"),
}


def conclude(run: RunContext[None], records: RunRecords) -> Conclusion:
    """Return the conclusion and report of a run of `conclude_audit` from its step records."""
    with run.state.connect() as conn:
        # Runs of other workflows report the findings that have an origin.
        all_findings = [
            finding
            for finding in register.list_findings(conn, closed=True)
            if finding.origin is None
        ]
    if run.pack.section(AUDIT) is None:
        return nothing_to_audit(records, run.roles, all_findings)
    status = records.result(FIND_WORKPAPERS)
    evaluations = records.results(EVALUATE)
    steps = {(step.name, ""): step.title for step in (FIND_WORKPAPERS, FOLLOW_UP)}
    steps[STEP_SEND, ""] = SEND_TITLE
    for part in status.back if status else ():
        steps[EVALUATE.name, part] = EVALUATE.title_of(part)
    not_accepted_count = next(
        (metric.value for metric in records.metrics if metric.name == FIGURE), None
    )
    populations = JudgedPopulations(
        status=status,
        evaluations=evaluations,
        not_accepted_count=None if not_accepted_count is None else int(not_accepted_count),
        findings=all_findings,
    )
    return records.conclude(
        _("Audit conclusion"),
        _summary(populations),
        findings=records.missing("sampling", CLAUSE, steps),
        facts=_facts(populations, run.today),
        sections=[
            *(
                section
                for evaluation in evaluations.values()
                for section in signed_sections(evaluation)
            ),
            *([_outstanding_section(populations.outstanding)] if populations.outstanding else []),
            _findings_section(all_findings, run.roles),
        ],
    )


def nothing_to_audit(
    records: RunRecords, roles: Mapping[str, Role], findings: Sequence[Finding]
) -> Conclusion:
    """Return the conclusion of a run whose policy pack has no audit.yaml.

    Such a run still follows up findings of other workflows.

    Args:
        records: records of the run.
        roles: roles of roles.yaml, by id.
        findings: all findings of audits and incidents in the register, including closed findings.
    """
    return records.conclude(
        _("Audit conclusion"),
        _("The policy pack has no rules for audit samples, so no population is audited."),
        sections=[_findings_section(findings, roles)] if findings else [],
        lists_messages=False,
    )


@dataclass(frozen=True)
class JudgedPopulations:
    """The verdicts of a run of `conclude_audit`, and the workpapers without a verdict.

    Attributes:
        status: workpapers that had no conclusion before this run evaluated them; None if the step
            that finds them has no result.
        evaluations: name of the workpapers -> evaluation.
        not_accepted_count: number of populations that were not accepted by their last verdict, in
            this or an earlier run, and still have open findings. This is the figure of the control;
            None if it was not measured.
        findings: all findings of audits and incidents in the register, including closed findings.
    """

    status: WorkpapersStatus | None
    evaluations: Mapping[str, Evaluation]
    not_accepted_count: int | None
    findings: Sequence[Finding]

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdicts of all evaluations, including verdicts that require the next stage."""
        return [
            verdict for evaluation in self.evaluations.values() for verdict in evaluation.verdicts
        ]

    @property
    def continuing(self) -> list[Message]:
        """The titles of the populations for which the sampling plan requires the next stage."""
        return [
            population.title
            for evaluation in self.evaluations.values()
            for population in evaluation.asked
            if population.population in evaluation.next_stage
        ]

    @property
    def outstanding(self) -> list[tuple[str, datetime | None]] | None:
        """The workpapers that auditors have not returned: (name, time of issue).

        The time is None for workpapers that this run issued. The property is None if `status` is
        None.
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
        """The number of populations that got a final verdict in this run."""
        return sum(verdict.decision != "next_stage" for verdict in self.verdicts)

    @property
    def not_accepted_in_run(self) -> int:
        """The number of populations that this run did not accept."""
        return sum(verdict.decision == "not_accepted" for verdict in self.verdicts)

    @property
    def open_count(self) -> int:
        """The number of findings in the register that are not closed."""
        return sum(finding.state is not State.CLOSED for finding in self.findings)

    @property
    def unevaluated(self) -> int | None:
        """The number of returned workpapers without an evaluation; None if `status` is None."""
        return len(set(self.status.back) - set(self.evaluations)) if self.status else None


def _summary(populations: JudgedPopulations) -> Message:
    judged_sentence = _judged_sentence(populations)
    if not populations.continuing:
        return judged_sentence
    return _join_sentences(
        judged_sentence,
        _(
            "Populations that continue with the next stage of their plan: {populations}.",
            populations=listed(populations.continuing),
        ),
    )


def _judged_sentence(populations: JudgedPopulations) -> Message:
    """Return the text about the evaluated populations for the summary of the report.

    The figure of the control, `JudgedPopulations.not_accepted_count`, also counts populations that
    earlier runs did not accept. If it differs from the number of this run, the text states both.
    """
    if populations.not_accepted_in_run and populations.not_accepted_count in (
        None,
        populations.not_accepted_in_run,
    ):
        return _(
            "Not accepted: {not_accepted} of {count} evaluated populations.",
            not_accepted=populations.not_accepted_in_run,
            count=populations.judged,
        )
    if populations.not_accepted_in_run:
        return _(
            "Not accepted: {not_accepted} of {count} evaluated populations. Including earlier "
            "runs, {total} populations are not accepted and have open findings.",
            not_accepted=populations.not_accepted_in_run,
            count=populations.judged,
            total=populations.not_accepted_count,
        )
    work_sentence = _work_sentence(populations)
    if not populations.not_accepted_count:
        return work_sentence
    return _join_sentences(
        work_sentence,
        _(
            "Populations that an earlier run did not accept and whose findings are still open: "
            "{count}.",
            count=populations.not_accepted_count,
        ),
    )


def _work_sentence(populations: JudgedPopulations) -> Message:
    if populations.unevaluated is None or populations.outstanding is None:
        return _(
            "The run could not determine which workpapers were handed in. Open findings: "
            "{open_findings}.",
            open_findings=populations.open_count,
        )
    if populations.unevaluated:
        return _(
            "Workpapers that were handed in but could not be evaluated: {count}. Open "
            "findings: {open_findings}.",
            count=populations.unevaluated,
            open_findings=populations.open_count,
        )
    if populations.judged:
        return _(
            "This run evaluated {count} populations and accepted all of them. Open findings: "
            "{open_findings}.",
            count=populations.judged,
            open_findings=populations.open_count,
        )
    if populations.continuing:
        return _(
            "No population has a final conclusion yet. Open findings: {open_findings}.",
            open_findings=populations.open_count,
        )
    return _(
        "No workpapers were handed in since the last run. Outstanding workpapers: "
        "{outstanding}. Open findings: {open_findings}.",
        outstanding=len(populations.outstanding),
        open_findings=populations.open_count,
    )


def _join_sentences(first: Message, second: Message) -> Message:
    """Join two sentences, with a space between them in English and without a space in Chinese."""
    values = {"first": first, "then": second}
    return Message(text="{first} {then}", values=values, translations={"zh-CN": "{first}{then}"})


def _facts(populations: JudgedPopulations, today: date) -> list[Fact]:
    late = sum(finding.overdue(today) for finding in populations.findings)
    return [
        Fact(
            label=_("Populations evaluated in this run"),
            value=None if populations.unevaluated is None else populations.judged,
        ),
        Fact(
            label=_("Populations not accepted"),
            value=populations.not_accepted_count,
            status=must_be_zero(populations.not_accepted_count),
            note=_(
                "populations that were not accepted in their last evaluation and have open findings"
            ),
        ),
        Fact(
            label=_("Outstanding workpapers"),
            value=None if populations.outstanding is None else len(populations.outstanding),
        ),
        Fact(label=_("Open findings"), value=populations.open_count),
        Fact(
            label=_("Overdue findings"),
            value=late,
            status=must_be_zero(late),
        ),
    ]


def _outstanding_section(out: Sequence[tuple[str, datetime | None]]) -> Section:
    table = table_of(
        _("Outstanding workpapers"),
        out,
        [
            (_("Workpapers"), "text", lambda issued: workpapers_text(issued[0])),
            (_("Issued"), "datetime", lambda issued: issued[1] or _("issued by this run")),
        ],
    )
    return Section(heading=_("Outstanding workpapers"), blocks=[table])


def _findings_section(findings: Sequence[Finding], roles: Mapping[str, Role]) -> Section:
    """Return the section with a table of the open findings and the number of closed findings."""
    open_findings = [finding for finding in findings if finding.state is not State.CLOSED]
    closed = len(findings) - len(open_findings)
    blocks: list[Block] = [
        Paragraph(
            text=_(
                "Findings closed after a passed retest by another person: {count}.", count=closed
            )
        )
    ]
    if open_findings:
        blocks.append(
            table_of(
                _("Open findings"),
                open_findings,
                [
                    (_("No."), "number", lambda finding: finding.id),
                    (_("Finding"), "text", lambda finding: finding.description),
                    (_("Owner"), "text", lambda finding: owner_text(finding.owner, roles)),
                    (_("Due"), "text", lambda finding: finding.due_on),
                    (_("State"), "text", lambda finding: _STATES[finding.state]),
                    (_("Cause"), "text", lambda finding: finding.cause or NOT_YET),
                    (_("Corrective action"), "text", lambda finding: finding.action or NOT_YET),
                    (
                        _("Last reminder"),
                        "datetime",
                        lambda finding: finding.reminded_at or NOT_YET,
                    ),
                ],
            )
        )
    return Section(heading=_("Findings and corrective actions"), blocks=blocks)
