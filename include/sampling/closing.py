"""The steps of `conclude_audit`: what came back, what it says, what becomes of the findings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import StepFindings
from include.evidence.steps import keep_artifact, record_step
from include.findings import register as findings
from include.messages import Message, _
from include.policy.period import Period
from include.sampling import issue, results
from include.sampling.desk import Desk
from include.sampling.evaluation import Deviation, Verdict, evaluate
from include.sampling.issue import HandedIn, Issued
from include.sampling.names import (
    CLAUSE,
    FINDINGS,
    STEP_EVALUATE,
    STEP_LOOK,
    answers_file,
    stage_file,
    verdict_file,
)
from include.sampling.papers import stage_papers
from include.sampling.workpapers.form import Answer
from include.sampling.workpapers.reading import ItemAnswers
from include.sampling.workpapers.writing import Paper, write
from include.services.errors import ControlFailed

WITHOUT_OWNER = "management"  # answers for what the pack says nothing about any more


def look(desk: Desk, asked: str | None) -> StepRecord:
    """Say which workpapers are back and not concluded, and which are still out.

    Args:
        desk: of the run.
        asked: a quarter whose conclusion was asked for; none where the schedule began the run.
    """
    seen = StepFindings(STEP_LOOK, CLAUSE)
    with desk.state.connect() as conn:
        every = [one for one in issue.all_issued(conn) if _is_open(conn, one)]
    waiting = [one for one in every if asked in (None, "", one.audit)]
    if asked and not waiting:
        seen.find(
            "sampling.nothing_to_conclude",
            Outcome.FAIL,
            _("There is nothing to conclude of {audit}.", audit=asked),
            _("See that sample_audit drew it, and that it was not concluded before."),
            subject=asked,
        )
    out = [one for one in every if one.handed_in is None]
    late = [one for one in out if _due(desk, one.issued_at, desk.rules.return_within) < desk.today]
    for one in out:
        if one in late or (asked and one in waiting):
            seen.find(
                "sampling.workpapers_overdue" if one in late else "sampling.workpapers_out",
                Outcome.FAIL,
                _(
                    "The workpapers of {audit}, stage {stage}, are not back; issued on {day}.",
                    audit=one.audit,
                    stage=one.stage,
                    day=one.issued_at.astimezone(desk.zone).date(),
                ),
                _("Hand them in: ./parcelseal sampling return FILE --by NAME."),
                subject=one.part,
            )
    seen.measure("workpapers_overdue", len(late), "1")
    return seen.record(
        {
            "back": [one.part for one in waiting if one.handed_in is not None],
            "out": [[one.part, one.issued_at.isoformat()] for one in out],
        }
    )


def _is_open(conn: Connection, one: Issued) -> bool:
    """Whether a verdict of any of its populations is still to be reached from these workpapers."""
    reached = results.of_audit(conn, one.audit)
    later = {
        paper.population
        for other in issue.all_issued(conn, one.audit)
        if other.draw == one.draw and other.stage > one.stage
        for paper in other.workpapers.papers
    }
    return any(
        paper.population not in reached and paper.population not in later
        for paper in one.workpapers.papers
    )


def evaluate_returned(desk: Desk, part: str) -> StepRecord:
    """Judge every population of workpapers that came back; repeated, it says the same.

    Raises:
        ControlFailed: there are no such workpapers, or they are not back.
    """
    seen = StepFindings(STEP_EVALUATE, CLAUSE, part=part)
    verdicts: list[Verdict] = []
    with desk.state.begin() as conn:
        issued, answers = _returned(conn, part)
        for paper in issued.workpapers.papers:
            name = paper.population
            verdict = evaluate(issued.committed[name], issued.samples[name], answers, issued.stage)
            if verdict.decision != "next_stage":
                now = desk.clock.now()
                verdict = results.conclude(conn, desk.run, issued.audit, verdict, now)
            _open_findings(conn, desk, issued.audit, paper, verdict)
            verdicts.append(verdict)
        assert issued.handed_in is not None
        keep_artifact(conn, *desk.run, answers_file(part), issued.handed_in.to_bytes())
        keep_artifact(conn, *desk.run, verdict_file(part), _file(verdicts))
        more = _next_stage(conn, desk, issued, verdicts)
        for paper, verdict in zip(issued.workpapers.papers, verdicts, strict=True):
            _judge(seen, desk, paper, verdict)
        reached = [one for one in verdicts if one.decision != "next_stage"]
        above = sum(one.decision == "not_accepted" for one in reached)
        seen.measure("sampling.populations_concluded", len(reached), "1")
        seen.measure("sampling.populations_not_accepted", above, "1")
        _replaced(seen, issued.handed_in)
        if more is not None:
            seen.find(
                "sampling.next_stage",
                Outcome.ATTENTION,
                _("The plan calls for stage {stage}: look at its items too.", stage=more.stage),
                _(
                    "Fill in {file} of this bundle: ./parcelseal sampling return {file} --by NAME.",
                    file=stage_file(more.part),
                ),
            )
        record = seen.record(_told_of(desk, issued, issued.handed_in, verdicts))
        # With the verdicts: none of them is without its report, whatever is killed afterwards.
        record_step(conn, *desk.run, record, desk.clock)
    return record


def _replaced(seen: StepFindings, handed_in: HandedIn) -> None:
    if handed_in.replaced:
        seen.find(
            "sampling.replaced",
            Outcome.ATTENTION,
            _(
                "Workpapers were handed in {count} times before; {changed} items were answered "
                "otherwise in the last one.",
                count=len(handed_in.replaced),
                changed=handed_in.replaced[-1].changed,
            ),
            _("Ask why; the answers in the bundle name each file by its digest."),
        )


def _returned(conn: Connection, part: str) -> tuple[Issued, dict[tuple[str, int], ItemAnswers]]:
    """Workpapers that are back, and the answers of all stages up to theirs; locked."""
    draws = [one.draw for one in issue.all_issued(conn) if one.part == part]
    stages = issue.of_draw(conn, draws[0]) if draws else []
    issued = next((one for one in stages if one.part == part), None)
    if issued is None or issued.handed_in is None:
        raise ControlFailed(f"There are no returned workpapers {part}.", "Run the workflow again.")
    answers: dict[tuple[str, int], ItemAnswers] = {}
    for one in stages:
        if one.stage <= issued.stage and one.handed_in is not None:
            answers |= one.handed_in.answers
    return issued, answers


def _told_of(
    desk: Desk, issued: Issued, returned: HandedIn, verdicts: Sequence[Verdict]
) -> dict[str, Any]:
    """What the report says of them; the questions are those that were asked."""
    return {
        "audit": issued.audit,
        "stage": issued.stage,
        "draw": issued.draw,
        "asked": [
            {
                "population": paper.population,
                "title": paper.title.model_dump(mode="json"),
                "attributes": [
                    {
                        "id": one.id,
                        "question": one.question.model_dump(mode="json"),
                        "source": one.criterion.model_dump(mode="json"),
                    }
                    for one in paper.attributes
                ],
            }
            for paper in issued.workpapers.papers
        ],
        "performed_by": returned.performed_by,
        "performed_on": returned.performed_on.isoformat() if returned.performed_on else None,
        "reviewed_by": returned.reviewed_by,
        "returned_by": returned.returned_by,
        "returned_at": returned.returned_at.astimezone(desk.zone).isoformat(),
        "remarks": [one.model_dump(mode="json") for one in returned.remarks],
        "verdicts": [one.model_dump(mode="json") for one in verdicts],
    }


def _file(verdicts: Sequence[Verdict]) -> bytes:
    content = [one.model_dump(mode="json") for one in verdicts]
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _next_stage(
    conn: Connection, desk: Desk, issued: Issued, verdicts: Sequence[Verdict]
) -> Issued | None:
    """Issue the workpapers of the next stage to the populations whose plan calls for it."""
    wanted = [one.population for one in verdicts if one.decision == "next_stage"]
    if not wanted:
        return None
    papers = stage_papers(
        issued.workpapers, issued.committed, issued.samples, wanted, desk.clock.now()
    )
    committed = {name: issued.committed[name] for name in wanted}
    samples = {name: issued.samples[name] for name in wanted}
    issue.remember(conn, desk.run, papers, committed, samples)
    made = next(
        one
        for one in issue.all_issued(conn, issued.audit)
        if one.draw == papers.draw_sha256 and one.stage == papers.stage
    )
    keep_artifact(conn, *desk.run, stage_file(made.part), write(made.workpapers))
    return made


def _open_findings(
    conn: Connection, desk: Desk, audit: str, paper: Paper, verdict: Verdict
) -> None:
    population = desk.rules.find(paper.population)
    for one in verdict.deviations:
        findings.open_finding(
            conn,
            kind=FINDINGS,
            reference=f"{audit}/{paper.population}/{one.number}/{one.attribute}",
            what=_deviated(paper, one),
            owner=population.owner if population else WITHOUT_OWNER,
            opened_at=desk.clock.now(),
            due_on=_due(desk, desk.clock.now(), desk.rules.mend_within),
        )


_ANSWERS = {
    Answer.DEVIATES: _("no"),
    Answer.NOT_FOUND: _("not found"),
    Answer.MISSING: _("not answered"),
    Answer.NOT_APPLICABLE: _("no question applies"),
}


def _deviated(paper: Paper, one: Deviation) -> Message:
    asked = {item.id: item.question for item in paper.attributes}
    return _(
        "{population}, item {key}: {question} {answer}",
        population=paper.title,
        key=one.key,
        question=asked[one.attribute],
        answer=_ANSWERS[one.answer],
    )


def _judge(seen: StepFindings, desk: Desk, paper: Paper, one: Verdict) -> None:
    if desk.rules.find(one.population) is None:
        seen.find(
            "sampling.population_gone",
            Outcome.ATTENTION,
            _("{population} was taken out of audit.yaml since the draw.", population=paper.title),
            _("Name somebody who answers for its deviations; their findings go to the management."),
            subject=one.population,
        )
    if one.untested:
        seen.find(
            "sampling.untested",
            Outcome.ATTENTION,
            _(
                "{population}: to {count} of {items} items no question applies; nothing was tested "
                "of them.",
                population=paper.title,
                count=one.untested,
                items=one.items,
            ),
            _("They deviate; let the population's SQL in audit.yaml leave out such items."),
            subject=one.population,
        )
    beside = [name for name, items in one.applied.items() if not items]
    if beside and one.untested < one.items:
        seen.find(
            "sampling.question_untested",
            Outcome.ATTENTION,
            _(
                "{population}: {questions} applied to no item; nothing is shown of it.",
                population=paper.title,
                questions=", ".join(beside),
            ),
            _("See whether the question fits the population; correct audit.yaml."),
            subject=one.population,
        )
    if one.decision == "not_accepted":
        seen.find(
            "sampling.not_accepted",
            Outcome.FAIL,
            _(
                "{population}: {deviating} of {items} items deviate, {acceptable} were "
                "acceptable; up to {limit}% of the population may deviate.",
                population=paper.title,
                deviating=one.deviating,
                items=one.items,
                acceptable=one.acceptable,
                limit=one.upper_limit_pct,
            ),
            _("Mend the causes; each deviation is a finding with an owner and a day."),
            subject=one.population,
        )
    elif one.deviations:
        seen.find(
            "sampling.deviations",
            Outcome.ATTENTION,
            _(
                "{population}: {deviating} of {items} items deviate.",
                population=paper.title,
                deviating=one.deviating,
                items=one.items,
            ),
            _("Each deviation is a finding with an owner and a day."),
            subject=one.population,
        )


def _due(desk: Desk, start: datetime, period: Period) -> date:
    """The day in the pack's timezone by which something is due; a month counts 30 days."""
    span = timedelta(days=period.months * 30 + period.days, seconds=period.seconds)
    return (start.astimezone(desk.zone) + span).date()
