"""The steps of `conclude_audit` that judge returned workpapers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from include.evidence.step_findings import StepFindings, StepResult, keep_artifact, record_step
from include.findings import register
from include.messages import Message, _
from include.policy.period import Period
from include.sampling import issue
from include.sampling.evaluation import Deviation, Verdict, evaluate
from include.sampling.issue import HandedIn, Issued, stage_papers
from include.sampling.register import conclude, of_audit
from include.sampling.rules import (
    AUDIT,
    CLAUSE,
    FINDINGS,
    AuditRules,
    answers_file,
    stage_file,
    verdict_file,
)
from include.sampling.workpapers.form import Answer
from include.sampling.workpapers.reading import ItemAnswers
from include.sampling.workpapers.writing import Paper, write
from include.services.errors import ControlFailed
from include.workflow.run_context import RunContext
from include.workflow.step import Step

WITHOUT_OWNER = "management"  # answers for what the pack says nothing about any more


class WorkpapersStatus(StepResult):
    """Workpapers on which no conclusion was reached yet.

    Attributes:
        back: names of those that are back and were asked for.
        out: names of those that are out, with the moment of their issue.
    """

    back: list[str]
    out: list[tuple[str, datetime]]


class AskedAttribute(BaseModel):
    """A question of workpapers, with its source, which is the criterion of the attribute."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    question: Message
    source: Message = Field(validation_alias=AliasChoices("source", "criterion"))


class AskedPopulation(BaseModel):
    """A population as its workpapers have it, whatever audit.yaml says by now."""

    model_config = ConfigDict(from_attributes=True)

    population: str
    title: Message
    attributes: list[AskedAttribute]


class Evaluation(StepResult):
    """The verdicts on returned workpapers, with the people who did and reviewed the work.

    Attributes:
        audit: the quarter.
        stage: of the workpapers, from 1.
        draw: digest of the draw.
        asked: what was tested, by population.
        performed_by: who did the work.
        performed_on: the day; None if nobody wrote it.
        reviewed_by: who reviewed it; empty if nobody wrote it.
        returned_by: who handed the workpapers in.
        returned_at: when, in the policy pack's timezone.
        remarks: what is no fault and should be known.
        verdicts: one for each population.
    """

    audit: str
    stage: int
    draw: str
    asked: list[AskedPopulation]
    performed_by: str
    performed_on: date | None
    reviewed_by: str
    returned_by: str
    returned_at: datetime
    remarks: list[Message]
    verdicts: list[Verdict]

    @property
    def next_stage(self) -> list[str]:
        """The populations that go on to the next stage of their plan."""
        return [verdict.population for verdict in self.verdicts if verdict.decision == "next_stage"]


def look(run: RunContext[None], findings: StepFindings) -> WorkpapersStatus:
    """Find the workpapers that are back and not concluded, and those that are still out."""
    rules = run.pack.section(AUDIT)
    if rules is None:
        return WorkpapersStatus(back=[], out=[])
    asked = run.parameters.get("quarter")
    with run.state.connect() as conn:
        every = [issued for issued in issue.all_issued(conn) if _is_open(conn, issued)]
    waiting = [issued for issued in every if asked in (None, "", issued.audit)]
    if asked and not waiting:
        findings.fail(
            "sampling.nothing_to_conclude",
            _("There is nothing to conclude of {audit}.", audit=asked),
            _("See that sample_audit drew it, and that it was not concluded before."),
            subject=asked,
        )
    out = [issued for issued in every if issued.handed_in is None]
    late = [
        issued for issued in out if _due(run, issued.issued_at, rules.return_within) < run.today
    ]
    for issued in out:
        if issued in late or (asked and issued in waiting):
            findings.fail(
                "sampling.workpapers_overdue" if issued in late else "sampling.workpapers_out",
                _(
                    "The workpapers of {audit}, stage {stage}, are not back; issued on {day}.",
                    audit=issued.audit,
                    stage=issued.stage,
                    day=issued.issued_at.astimezone(run.zone).date(),
                ),
                _("Hand them in: ./parcelseal sampling return FILE --by NAME."),
                subject=issued.part,
            )
    findings.measure("workpapers_overdue", len(late), "1")
    return WorkpapersStatus(
        back=[issued.part for issued in waiting if issued.handed_in is not None],
        out=[(issued.part, issued.issued_at) for issued in out],
    )


LOOK = Step(
    name="look",
    title=_("The search for returned workpapers"),
    clause=CLAUSE,
    work=look,
    result=WorkpapersStatus,
    parts=lambda workpapers: workpapers.back,
)


def _is_open(conn: Connection, issued: Issued) -> bool:
    """Return whether the verdict on any of their populations is still to be reached."""
    reached = of_audit(conn, issued.audit)
    later = {
        paper.population
        for other in issue.all_issued(conn, issued.audit)
        if other.draw == issued.draw and other.stage > issued.stage
        for paper in other.workpapers.papers
    }
    return any(
        paper.population not in reached and paper.population not in later
        for paper in issued.workpapers.papers
    )


def evaluate_returned(run: RunContext[None], findings: StepFindings) -> Evaluation:
    """Judge every population of returned workpapers; open findings.

    One transaction enters the verdicts and the record: no verdict is without its report.

    Raises:
        ControlFailed: there are no such workpapers, or they are not back.
        UsageError: the pack has no audit.yaml.
    """
    rules, part = run.pack.require(AUDIT), findings.part
    verdicts: list[Verdict] = []
    with run.state.begin() as conn:
        issued, returned, answers = _returned(conn, part)
        for paper in issued.workpapers.papers:
            name = paper.population
            verdict = evaluate(issued.committed[name], issued.samples[name], answers, issued.stage)
            if verdict.decision != "next_stage":
                now = run.clock.now()
                verdict = conclude(conn, run.run, issued.audit, verdict, now)
            _open_findings(conn, run, rules, issued.audit, paper, verdict)
            _judge(findings, rules, paper, verdict)
            verdicts.append(verdict)
        evaluation = _evaluation(run, issued, returned, verdicts)
        _keep(conn, run, answers_file(part), returned.to_bytes())
        _keep(conn, run, verdict_file(part), _file(verdicts))
        reached = [verdict for verdict in verdicts if verdict.decision != "next_stage"]
        above = sum(verdict.decision == "not_accepted" for verdict in reached)
        findings.measure("sampling.populations_concluded", len(reached), "1")
        findings.measure("sampling.populations_not_accepted", above, "1")
        _replaced(findings, returned)
        if evaluation.next_stage:
            _issue_next_stage(conn, run, findings, issued, evaluation.next_stage)
        key = run.run.dag_id, run.run.run_id
        record_step(conn, *key, findings.record(evaluation), run.clock)
    return evaluation


EVALUATE = Step(
    name="evaluate",
    title=_("The evaluation of {part}", part=""),
    clause=CLAUSE,
    work=evaluate_returned,
    result=Evaluation,
)


def _keep(conn: Connection, run: RunContext[None], name: str, content: bytes) -> None:
    keep_artifact(conn, run.run.dag_id, run.run.run_id, name, content)


def _replaced(findings: StepFindings, handed_in: HandedIn) -> None:
    if handed_in.replaced:
        findings.warn(
            "sampling.replaced",
            _(
                "Workpapers were handed in {count} times before; {changed} items were answered "
                "otherwise in the last one.",
                count=len(handed_in.replaced),
                changed=handed_in.replaced[-1].changed,
            ),
            _("Ask why; the answers in the bundle name each file by its digest."),
        )


def _returned(
    conn: Connection, part: str
) -> tuple[Issued, HandedIn, dict[tuple[str, int], ItemAnswers]]:
    """Return workpapers that are back, and the answers of all stages up to theirs; locked."""
    draws = [issued.draw for issued in issue.all_issued(conn) if issued.part == part]
    stages = issue.of_draw(conn, draws[0]) if draws else []
    last = next((stage for stage in stages if stage.part == part), None)
    if last is None or last.handed_in is None:
        raise ControlFailed(f"There are no returned workpapers {part}.", "Run the workflow again.")
    answers: dict[tuple[str, int], ItemAnswers] = {}
    for issued in stages:
        if issued.stage <= last.stage and issued.handed_in is not None:
            answers |= issued.handed_in.answers
    return last, last.handed_in, answers


def _evaluation(
    run: RunContext[None], issued: Issued, returned: HandedIn, verdicts: list[Verdict]
) -> Evaluation:
    return Evaluation(
        audit=issued.audit,
        stage=issued.stage,
        draw=issued.draw,
        asked=[AskedPopulation.model_validate(paper) for paper in issued.workpapers.papers],
        performed_by=returned.performed_by,
        performed_on=returned.performed_on,
        reviewed_by=returned.reviewed_by,
        returned_by=returned.returned_by,
        returned_at=returned.returned_at.astimezone(run.zone),
        remarks=list(returned.remarks),
        verdicts=verdicts,
    )


def _file(verdicts: Sequence[Verdict]) -> bytes:
    content = [verdict.model_dump(mode="json") for verdict in verdicts]
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _issue_next_stage(
    conn: Connection,
    run: RunContext[None],
    findings: StepFindings,
    issued: Issued,
    populations: Sequence[str],
) -> None:
    """Issue the workpapers of the next stage for the populations whose plan calls for it."""
    papers = stage_papers(
        issued.workpapers, issued.committed, issued.samples, populations, run.clock.now()
    )
    committed = {name: issued.committed[name] for name in populations}
    samples = {name: issued.samples[name] for name in populations}
    issue.remember(conn, run.run, papers, committed, samples)
    following = next(
        stage
        for stage in issue.all_issued(conn, issued.audit)
        if stage.draw == papers.draw_sha256 and stage.stage == papers.stage
    )
    file = stage_file(following.part)
    _keep(conn, run, file, write(following.workpapers))
    findings.warn(
        "sampling.next_stage",
        _("The plan calls for stage {stage}: look at its items too.", stage=following.stage),
        _(
            "Fill in {file} of this bundle: ./parcelseal sampling return {file} --by NAME.",
            file=file,
        ),
    )


def _open_findings(
    conn: Connection,
    run: RunContext[None],
    rules: AuditRules,
    audit: str,
    paper: Paper,
    verdict: Verdict,
) -> None:
    population = rules.find(paper.population)
    for deviation in verdict.deviations:
        register.open_finding(
            conn,
            kind=FINDINGS,
            reference=f"{audit}/{paper.population}/{deviation.number}/{deviation.attribute}",
            what=_deviated(paper, deviation),
            owner=population.owner if population else WITHOUT_OWNER,
            opened_at=run.clock.now(),
            due_on=_due(run, run.clock.now(), rules.mend_within),
        )


_ANSWERS = {
    Answer.DEVIATES: _("no"),
    Answer.NOT_FOUND: _("not found"),
    Answer.MISSING: _("not answered"),
    Answer.NOT_APPLICABLE: _("no question applies"),
}


def _deviated(paper: Paper, deviation: Deviation) -> Message:
    asked = {attribute.id: attribute.question for attribute in paper.attributes}
    return _(
        "{population}, item {key}: {question} {answer}",
        population=paper.title,
        key=deviation.key,
        question=asked[deviation.attribute],
        answer=_ANSWERS[deviation.answer],
    )


def _judge(findings: StepFindings, rules: AuditRules, paper: Paper, verdict: Verdict) -> None:
    if rules.find(verdict.population) is None:
        findings.warn(
            "sampling.population_gone",
            _("{population} was taken out of audit.yaml since the draw.", population=paper.title),
            _("Name somebody who answers for its deviations; their findings go to the management."),
            subject=verdict.population,
        )
    if verdict.untested:
        findings.warn(
            "sampling.untested",
            _(
                "{population}: to {count} of {items} items no question applies; nothing was tested "
                "of them.",
                population=paper.title,
                count=verdict.untested,
                items=verdict.items,
            ),
            _("They deviate; let the population's SQL in audit.yaml leave out such items."),
            subject=verdict.population,
        )
    beside = [name for name, items in verdict.applied.items() if not items]
    if beside and verdict.untested < verdict.items:
        findings.warn(
            "sampling.question_untested",
            _(
                "{population}: {questions} applied to no item; nothing is shown of it.",
                population=paper.title,
                questions=", ".join(beside),
            ),
            _("See whether the question fits the population; correct audit.yaml."),
            subject=verdict.population,
        )
    if verdict.decision == "not_accepted":
        findings.fail(
            "sampling.not_accepted",
            _(
                "{population}: {deviating} of {items} items deviate, {acceptable} were "
                "acceptable; up to {limit}% of the population may deviate.",
                population=paper.title,
                deviating=verdict.deviating,
                items=verdict.items,
                acceptable=verdict.acceptable,
                limit=verdict.upper_limit_pct,
            ),
            _("Mend the causes; each deviation is a finding with an owner and a day."),
            subject=verdict.population,
        )
    elif verdict.deviations:
        findings.warn(
            "sampling.deviations",
            _(
                "{population}: {deviating} of {items} items deviate.",
                population=paper.title,
                deviating=verdict.deviating,
                items=verdict.items,
            ),
            _("Each deviation is a finding with an owner and a day."),
            subject=verdict.population,
        )


def _due(run: RunContext[None], start: datetime, period: Period) -> date:
    """Return the day in the pack's timezone by which something is due."""
    return (start.astimezone(run.zone) + period.span).date()
