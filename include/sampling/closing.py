"""The steps of `conclude_audit` that find and evaluate the workpapers that auditors returned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from include.evidence.step_findings import StepFindings, StepResult, keep_artifact, record_step
from include.findings import register
from include.messages import Message, _, listed
from include.policy.period import Period
from include.sampling import issue
from include.sampling.evaluation import Deviation, Verdict, evaluate
from include.sampling.issue import IssuedWorkpapers, ReturnedAnswers, stage_papers
from include.sampling.quarter_texts import quarter_text, workpapers_text
from include.sampling.register import record_verdict, verdicts_of
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

WITHOUT_OWNER = "management"  # owner of findings of populations that the pack no longer has


class WorkpapersStatus(StepResult):
    """The workpapers that had no audit conclusion yet when a run began.

    Attributes:
        back: names of the returned workpapers that the run has to evaluate. If the run was started
            for one quarter, these are only workpapers of this quarter.
        out: (name, time of issue) of the workpapers of all quarters that auditors have not
            returned.
    """

    back: list[str]
    out: list[tuple[str, datetime]]


class WorkpaperQuestion(BaseModel):
    """A question in workpapers that auditors answer for each sample item.

    Attributes:
        id: id of the question in audit.yaml.
        question: text of the question.
        source: law or standard from which the question comes.
    """

    model_config = ConfigDict(from_attributes=True)

    id: str
    question: Message
    source: Message = Field(validation_alias=AliasChoices("source", "criterion"))


class WorkpaperPopulation(BaseModel):
    """A population with the title and the questions that its workpapers show.

    Title and questions are read from the workpapers, because audit.yaml may have changed since the
    workpapers were issued.
    """

    model_config = ConfigDict(from_attributes=True)

    population: str
    title: Message
    attributes: list[WorkpaperQuestion]


class Evaluation(StepResult):
    """The evaluation of one set of returned workpapers, with a verdict on each of its populations.

    Attributes:
        audit: id of the audited quarter, such as ``2026Q3``.
        stage: stage of the workpapers; the first stage is 1.
        draw: digest that identifies the draw of the sample items.
        asked: populations that the workpapers cover.
        performed_by: person who tested the items.
        performed_on: day on which the items were tested; None if the workpapers do not state it.
        reviewed_by: person who reviewed the workpapers; empty if the workpapers name nobody.
        returned_by: person who handed in the workpapers.
        returned_at: time at which the workpapers were handed in, in the policy pack's timezone.
        remarks: remarks on the returned workbook. They do not prevent the evaluation.
        verdicts: verdicts on the populations.
    """

    audit: str
    stage: int
    draw: str
    asked: list[WorkpaperPopulation]
    performed_by: str
    performed_on: date | None
    reviewed_by: str
    returned_by: str
    returned_at: datetime
    remarks: list[Message]
    verdicts: list[Verdict]

    @property
    def next_stage(self) -> list[str]:
        """The ids of the populations for which the sampling plan requires another stage."""
        return [verdict.population for verdict in self.verdicts if verdict.decision == "next_stage"]


def find_workpapers(run: RunContext[None], findings: StepFindings) -> WorkpapersStatus:
    """Find the workpapers without an audit conclusion, and report overdue workpapers.

    If the run was started for one quarter, the step also reports workpapers of this quarter that
    were not returned although they are not due yet. If the quarter has no workpapers to evaluate,
    the step fails.
    """
    rules = run.pack.section(AUDIT)
    if rules is None:
        return WorkpapersStatus(back=[], out=[])
    requested = run.parameters.get("quarter")
    with run.state.connect() as conn:
        open_workpapers = [issued for issued in issue.all_issued(conn) if _is_open(conn, issued)]
    waiting = [issued for issued in open_workpapers if requested in (None, "", issued.audit)]
    if requested and not waiting:
        findings.refuse_run()
        findings.fail(
            "sampling.nothing_to_conclude",
            _(
                "There are no workpapers of the {quarter} to evaluate.",
                quarter=quarter_text(requested),
            ),
            _(
                "Check that the samples of this quarter were drawn, and that no conclusion of "
                "this audit exists yet."
            ),
            subject=requested,
            for_engineers=_(
                "The parameter `quarter` of the run is `{quarter}`.", quarter=requested
            ),
        )
    out = [issued for issued in open_workpapers if issued.handed_in is None]
    late = [
        issued for issued in out if _due(run, issued.issued_at, rules.return_within) < run.today
    ]
    for issued in out:
        if issued in late or (requested and issued in waiting):
            findings.fail(
                "sampling.workpapers_overdue" if issued in late else "sampling.workpapers_out",
                _(
                    "The workpapers of the {quarter}, stage {stage}, issued on {day}, have not "
                    "been handed in.",
                    quarter=quarter_text(issued.audit),
                    stage=issued.stage,
                    day=issued.issued_at.astimezone(run.zone).date(),
                ),
                _(
                    "Hand the completed workpapers to the data engineers, and name the person "
                    "who hands them in."
                ),
                subject=issued.name,
                for_engineers=_(
                    "Import the file with `./parcelseal sampling return FILE --by NAME`."
                ),
            )
    findings.measure("workpapers_overdue", len(late), "1")
    if requested:
        findings.examine_only([issued.name for issued in waiting])
    else:
        findings.select_parts_of("evaluate")
    return WorkpapersStatus(
        back=[issued.name for issued in waiting if issued.handed_in is not None],
        out=[(issued.name, issued.issued_at) for issued in out],
    )


FIND_WORKPAPERS = Step(
    name="look",
    title=_("The search for returned workpapers"),
    clause=CLAUSE,
    work=find_workpapers,
    result=WorkpapersStatus,
    parts=lambda workpapers: workpapers.back,
)


def _is_open(conn: Connection, issued: IssuedWorkpapers) -> bool:
    """Return whether workpapers have a population that needs an evaluation.

    Such a population has no verdict, and no workpapers of a later stage were issued for it.
    """
    reached = verdicts_of(conn, issued.audit)
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
    """Evaluate every population of returned workpapers, and open audit findings for deviations.

    The part of the step (`findings.part`) is the name of the workpapers. One transaction stores the
    verdicts and the step record, so no verdict is stored that is missing from the report of the
    run.

    Raises:
        ControlFailed: the workpapers do not exist or were not returned.
        UsageError: the policy pack has no audit.yaml.
    """
    rules, part = run.pack.require(AUDIT), findings.part
    verdicts: list[Verdict] = []
    with run.state.begin() as conn:
        issued, returned, answers = _load_returned(conn, part)
        for paper in issued.workpapers.papers:
            name = paper.population
            verdict = evaluate(issued.committed[name], issued.samples[name], answers, issued.stage)
            if verdict.decision != "next_stage":
                now = run.clock.now()
                verdict = record_verdict(conn, run.run, issued.audit, verdict, now)
            _open_findings(conn, run, rules, issued.audit, paper, verdict)
            _report_verdict(findings, rules, paper, verdict)
            verdicts.append(verdict)
        evaluation = _evaluation(run, issued, returned, verdicts)
        _keep_file(conn, run, answers_file(part), returned.to_bytes())
        _keep_file(conn, run, verdict_file(part), _verdicts_content(verdicts))
        reached = [verdict for verdict in verdicts if verdict.decision != "next_stage"]
        above = sum(verdict.decision == "not_accepted" for verdict in reached)
        findings.measure("sampling.populations_concluded", len(reached), "1")
        findings.measure("sampling.populations_not_accepted", above, "1")
        _warn_replaced(findings, returned)
        if evaluation.next_stage:
            _issue_next_stage(conn, run, findings, issued, evaluation.next_stage)
        key = run.run.dag_id, run.run.run_id
        record_step(conn, *key, findings.record(evaluation), run.clock)
    return evaluation


EVALUATE = Step(
    name="evaluate",
    title=_("The evaluation of the {part}", part=""),
    clause=CLAUSE,
    work=evaluate_returned,
    result=Evaluation,
    part_text=workpapers_text,
)


def _keep_file(conn: Connection, run: RunContext[None], name: str, content: bytes) -> None:
    keep_artifact(conn, run.run.dag_id, run.run.run_id, name, content)


def _warn_replaced(findings: StepFindings, handed_in: ReturnedAnswers) -> None:
    if handed_in.replaced:
        findings.warn(
            "sampling.replaced",
            _(
                "{count} earlier versions of these workpapers were handed in and replaced. The "
                "last replacement changed the answers of {changed} sample items.",
                count=len(handed_in.replaced),
                changed=handed_in.replaced[-1].changed,
            ),
            _("Ask the auditors why they replaced the earlier workpapers."),
            for_engineers=_(
                "The file `{file}` of the evidence bundle has the SHA-256 of every workbook that "
                "was handed in.",
                file=answers_file(findings.part),
            ),
        )


def _load_returned(
    conn: Connection, part: str
) -> tuple[IssuedWorkpapers, ReturnedAnswers, dict[tuple[str, int], ItemAnswers]]:
    """Load a set of returned workpapers by its name, with the auditors' answers up to its stage.

    The rows of these workpapers in the state database stay locked until the end of the transaction.

    Args:
        conn: the state database, in a transaction.
        part: name of the set of workpapers, such as ``2026Q3-1-0f3a9c``.

    Returns:
        The workpapers, their returned answers, and the answers of their stage and of all earlier
            stages: (population, number of the item) -> answers.

    Raises:
        ControlFailed: the workpapers do not exist or were not returned.
    """
    draws = [issued.draw for issued in issue.all_issued(conn) if issued.name == part]
    stages = issue.stages_of(conn, draws[0]) if draws else []
    last = next((stage for stage in stages if stage.name == part), None)
    if last is None or last.handed_in is None:
        raise ControlFailed(f"There are no returned workpapers {part}.", "Run the workflow again.")
    answers: dict[tuple[str, int], ItemAnswers] = {}
    for issued in stages:
        if issued.stage <= last.stage and issued.handed_in is not None:
            answers |= issued.handed_in.answers
    return last, last.handed_in, answers


def _evaluation(
    run: RunContext[None],
    issued: IssuedWorkpapers,
    returned: ReturnedAnswers,
    verdicts: list[Verdict],
) -> Evaluation:
    return Evaluation(
        audit=issued.audit,
        stage=issued.stage,
        draw=issued.draw,
        asked=[WorkpaperPopulation.model_validate(paper) for paper in issued.workpapers.papers],
        performed_by=returned.performed_by,
        performed_on=returned.performed_on,
        reviewed_by=returned.reviewed_by,
        returned_by=returned.returned_by,
        returned_at=returned.returned_at.astimezone(run.zone),
        remarks=list(returned.remarks),
        verdicts=verdicts,
    )


def _verdicts_content(verdicts: Sequence[Verdict]) -> bytes:
    content = [verdict.model_dump(mode="json") for verdict in verdicts]
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _issue_next_stage(
    conn: Connection,
    run: RunContext[None],
    findings: StepFindings,
    issued: IssuedWorkpapers,
    populations: Sequence[str],
) -> None:
    """Issue the workpapers of the next stage for the given populations, and add a finding.

    Args:
        conn: the state database, in a transaction.
        run: context of the run.
        findings: receives the finding.
        issued: workpapers of the current stage.
        populations: ids of the populations whose sampling plan requires the next stage.
    """
    papers = stage_papers(
        issued.workpapers, issued.committed, issued.samples, populations, run.clock.now()
    )
    committed = {name: issued.committed[name] for name in populations}
    samples = {name: issued.samples[name] for name in populations}
    issue.record_workpapers(conn, run.run, papers, committed, samples)
    following = next(
        stage
        for stage in issue.all_issued(conn, issued.audit)
        if stage.draw == papers.draw_sha256 and stage.stage == papers.stage
    )
    file = stage_file(following.name)
    _keep_file(conn, run, file, write(following.workpapers))
    findings.warn(
        "sampling.next_stage",
        _(
            "Each of these populations has exactly one deviation, so the sampling plan "
            "requires stage {stage} for them: {populations}.",
            stage=following.stage,
            populations=listed([paper.title for paper in following.workpapers.papers]),
        ),
        _(
            "Test the items of this stage with the workpapers in this evidence bundle, and "
            "hand the completed workpapers to the data engineers.",
        ),
        for_engineers=_(
            "The workpapers are the file `{file}` of the evidence bundle. Import the completed "
            "file with `./parcelseal sampling return {file} --by NAME`.",
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
            description=_deviation_message(paper, deviation),
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


def _deviation_message(paper: Paper, deviation: Deviation) -> Message:
    questions = {attribute.id: attribute.question for attribute in paper.attributes}
    return _(
        "{population}, item {key}: {question} {answer}",
        population=paper.title,
        key=deviation.key,
        question=questions[deviation.attribute],
        answer=_ANSWERS[deviation.answer],
    )


def _report_verdict(
    findings: StepFindings, rules: AuditRules, paper: Paper, verdict: Verdict
) -> None:
    findings.subject_titles[verdict.population] = paper.title
    if rules.find(verdict.population) is None:
        findings.warn(
            "sampling.population_gone",
            _("The population was removed from the audit rules after the draw."),
            _(
                "Name an owner for the deviations of this population. Until then, the management "
                "owns the findings about these deviations."
            ),
            subject=verdict.population,
            for_engineers=_(
                "The population `{population}` is missing in `audit.yaml`.",
                population=verdict.population,
            ),
        )
    if verdict.untested:
        findings.warn(
            "sampling.untested",
            _(
                "No question applies to {count} of {items} sample items, so these items were "
                "not tested.",
                count=verdict.untested,
                items=verdict.items,
            ),
            _(
                "Exclude items to which no question applies from the population. Otherwise "
                "each sample item without an applicable question counts as a deviation."
            ),
            subject=verdict.population,
            for_engineers=_(
                "The key `sql` of the population `{population}` in `audit.yaml` selects the items.",
                population=verdict.population,
            ),
        )
    untested_questions = [name for name, items in verdict.applied.items() if not items]
    if untested_questions and verdict.untested < verdict.items:
        findings.warn(
            "sampling.question_untested",
            _(
                "These questions applied to no sample item, so the audit has no evidence for "
                "them: {questions}",
                questions=listed(
                    [
                        attribute.question
                        for attribute in paper.attributes
                        if attribute.id in untested_questions
                    ]
                ),
            ),
            _(
                "Check whether these questions suit the population. If they do not, have the "
                "audit rules corrected."
            ),
            subject=verdict.population,
            for_engineers=_(
                "`audit.yaml` has the questions as `attributes` of the population `{population}`.",
                population=verdict.population,
            ),
        )
    if verdict.decision == "not_accepted":
        findings.fail(
            "sampling.not_accepted",
            _(
                "The population is not accepted. {deviating} of {items} sample items deviate; "
                "the sampling plan accepts at most {acceptable}. According to the sample, up to "
                "{limit}% of the population may deviate.",
                deviating=verdict.deviating,
                items=verdict.items,
                acceptable=verdict.acceptable,
                limit=verdict.upper_limit_pct,
            ),
            _(
                "Correct the causes of the deviations and have them retested. Each deviation is "
                "a finding with an owner and a due date."
            ),
            subject=verdict.population,
        )
    elif verdict.deviations:
        findings.warn(
            "sampling.deviations",
            _(
                "{deviating} of {items} sample items deviate.",
                deviating=verdict.deviating,
                items=verdict.items,
            ),
            _(
                "Correct the causes of the deviations and have them retested. Each deviation is "
                "a finding with an owner and a due date."
            ),
            subject=verdict.population,
        )


def _due(run: RunContext[None], start: datetime, period: Period) -> date:
    """Return the date on which a period after `start` ends, in the policy pack's timezone."""
    return (start.astimezone(run.zone) + period.span).date()
