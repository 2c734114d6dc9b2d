"""The human steps of `respond_to_incident`: between Airflow and the domain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import TriggerRule

from include.approvals.answer import Answer
from include.approvals.question import Question, in_both
from include.documents.missing import missing
from include.documents.model import Document
from include.documents.render import render_forms
from include.drill_sandbox.workplace import SandboxedWorkplace
from include.evidence.model import Outcome, StepRecord
from include.evidence.steps import keep_artifact
from include.incident import bundled, scopes
from include.incident.clocks.standing import clocks_of
from include.incident.evidence import kept_words as evidence_kept
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    record_of,
    rules_of,
    scenario_of,
)
from include.incident.names import CLAUSE, WORKFLOW
from include.incident.rule_checks import INCIDENT
from include.incident.rules import HumanStep
from include.incident.steps import close, contain, decide, grade, impact, report, review, summary
from include.incident.steps.answer import Given
from include.incident.telling import authority_report, notifying
from include.incident.telling.authority_report import Phase
from include.incident.telling.letter_document import letter_document
from include.messages import Message, _
from include.notify.texts import digest
from include.orchestration.human import wait
from include.orchestration.incident import context, place
from include.orchestration.incident_asking import ANSWERED_AT, explained, in_open_run
from include.orchestration.run import finished_run, run_key, seal_aside, step
from include.orchestration.workflow import policy
from include.reports.conclusion import Conclusion
from include.workflow.declaration import Queue
from include.workplace import Workplace

_PATIENCE = {"report_rest": 8, "close": 8, "review": 48, "summary": 48}
RETRIES = 20  # of a step that is open for weeks: each worker that is killed meanwhile takes one


def response_timeout(step_name: str) -> timedelta:
    """How long a step waits before it asks deputies and management too.

    What the incident's first hours do not depend on waits longer: else thirty days until a summary
    is due would be a timeline of silence, and of pages that nobody has to read yet.
    """
    rules = policy().section(INCIDENT)
    period = wait(0, 0, 1_800) if rules is None else _wait(rules.answer_within)
    return period * _PATIENCE.get(step_name, 1)


def _wait(period: Any) -> timedelta:
    return wait(period.months, period.days, period.seconds)


def given_of(answer: Answer, now: datetime) -> Given:
    """Return an answer as the domain has it."""
    return Given(
        answer.option,
        answer.user,
        answer.name,
        answer.at or now,
        answer.entered,
        content=answer.content,
    )


def _taking(
    name: HumanStep,
    part: str,
    answer: Answer,
    title: Message,
    act: Callable[[Workplace, IncidentRun], StepRecord],
) -> dict[str, Any]:
    """Take an answer; an incident that was cancelled meanwhile takes none."""
    number, _slash, authority = part.partition("/")

    def work(found: Workplace) -> StepRecord:
        run = context(found)
        if not record_of(run, number).incident.is_led:
            data = {"asked": False}
            return StepRecord(step=name, part=authority, outcome=Outcome.PASS, data=data)
        return act(found, run)

    data = {ANSWERED_AT: answer.at.isoformat()} if answer.at else {}
    done = step(name, authority, title, work, CLAUSE, place, data)
    return done | {"part": number}


def ask_contain(number: str) -> Question | None:
    """Contain it: the checklist of its type."""
    return contain.ask(context(place()), number)


def take_contain(number: str, answer: Answer) -> dict[str, Any]:
    """Take the checklist back."""

    def act(_found: Workplace, run: IncidentRun) -> StepRecord:
        return contain.take(run, number, given_of(answer, run.clock.now()))

    return _taking(contain.STEP, number, answer, _("The containment"), act)


def ask_grade(number: str) -> Question | None:
    """Confirm the grade that the counts propose, or another one with reasons."""
    return grade.ask(context(place()), number)


def take_grade(number: str, answer: Answer) -> dict[str, Any]:
    """Take the grade."""

    def act(_found: Workplace, run: IncidentRun) -> StepRecord:
        return grade.take(run, number, given_of(answer, run.clock.now()))

    return _taking(grade.STEP, number, answer, _("The grading"), act)


def ask_impact(number: str) -> Question | None:
    """Write cause, possible harm, measures and what people can do, in both languages."""
    return impact.ask(context(place()), number)


def take_impact(number: str, answer: Answer) -> dict[str, Any]:
    """Take the words."""

    def act(_found: Workplace, run: IncidentRun) -> StepRecord:
        return impact.take(run, number, given_of(answer, run.clock.now()))

    return _taking(impact.STEP, number, answer, _("The impact assessment"), act)


def ask_decide(number: str) -> Question | None:
    """Decide whether affected people are told; shows the letter and the dry run."""
    found = place()
    run = context(found)
    asked = decide.ask(run, number)
    if asked is None:
        return None
    record = record_of(run, number)
    document = letter_document(run, record, scopes.newest(run, record.incident.id).categories)
    # Other words are another document: what somebody may have printed is not made anew.
    name = f"notice-{digest(notifying.text_of(run, record))[:8]}"
    path = sealed_document(found, run, document, name)
    lines = [_("The letter as a document, for those who are told on paper: {path}", path=path)]
    if found.mail_is_caught() and scenario_of(run) is None:
        lines.append(
            _(
                "WARNING: the connection mail leads to no mail server of yours. Letters would be "
                "written to files, and nobody would get them."
            )
        )
    return replace(asked, body="\n\n".join([asked.body, *map(in_both, lines)]) + "\n")


def take_decide(number: str, answer: Answer) -> dict[str, Any]:
    """Take the decision."""

    def act(_found: Workplace, run: IncidentRun) -> StepRecord:
        return decide.take(run, number, given_of(answer, run.clock.now()))

    return _taking(decide.STEP, number, answer, _("The decision on notices"), act)


def ask_report(part: str) -> Question | None:
    """Hand the first report to an authority, then enter when and the receipt."""
    return _ask_report(part, Phase.FIRST)


def take_report(part: str, answer: Answer) -> dict[str, Any]:
    """Take that the first report was handed in."""
    return _take_report(part, Phase.FIRST, answer)


def ask_report_rest(part: str) -> Question | None:
    """Hand the follow-up report to an authority, then enter when and the receipt."""
    return _ask_report(part, Phase.REST)


def take_report_rest(part: str, answer: Answer) -> dict[str, Any]:
    """Take that the follow-up report was handed in."""
    return _take_report(part, Phase.REST, answer)


def _ask_report(part: str, phase: Phase) -> Question | None:
    number, _slash, authority = part.partition("/")
    found = place()
    run = context(found)
    record = record_of(run, number)
    if not record.incident.is_led or report.handed_in(record, authority, phase):
        return None
    document = _report(run, record, authority, phase)
    lacking = missing(document)
    path = "" if lacking else sealed_document(found, run, document, f"{phase}-{authority}")
    return report.ask(run, number, authority, phase, path, lacking)


def _take_report(part: str, phase: Phase, answer: Answer) -> dict[str, Any]:
    number, _slash, authority = part.partition("/")

    def act(_found: Workplace, run: IncidentRun) -> StepRecord:
        lacking = missing(_report(run, record_of(run, number), authority, phase))
        given = given_of(answer, run.clock.now())
        return report.take(run, number, authority, phase, given, lacking)

    return _taking(
        report.STEPS[phase], part, answer, _("The report to {part}", part=authority), act
    )


def _report(run: IncidentRun, record: IncidentRecord, authority: str, phase: Phase) -> Document:
    return authority_report.report(
        run,
        record,
        scopes.newest(run, record.incident.id),
        clocks_of(run, record),
        rules_of(run, record).authority(authority),
        phase,
        evidence_kept.lines(run, record),
    )


def ask_close(number: str) -> Question | None:
    """Close the handling; refused while anything is open."""
    return close.ask(context(place()), number)


def take_close(number: str, answer: Answer) -> dict[str, Any]:
    """Close it."""

    def act(_found: Workplace, run: IncidentRun) -> StepRecord:
        return close.take(run, number, given_of(answer, run.clock.now()))

    return _taking(close.STEP, number, answer, _("The closing"), act)


def ask_review(number: str) -> Question | None:
    """Review it: lessons and corrective actions, which become findings."""
    return review.ask(context(place()), number)


def take_review(number: str, answer: Answer) -> dict[str, Any]:
    """Take lessons and actions."""

    def act(_found: Workplace, run: IncidentRun) -> StepRecord:
        return review.take(run, number, given_of(answer, run.clock.now()))

    return _taking(review.STEP, number, answer, _("The review of the incident"), act)


def ask_summary(number: str) -> Question | None:
    """Hand in the summary, or have it approved; due 30 days after the closing."""
    found = place()
    run = context(found)
    record = record_of(run, number)
    if not record.incident.is_led:
        return None
    document = _summary(run, record)
    lacking = missing(document)
    path = "" if lacking else sealed_document(found, run, document, "summary")
    return summary.ask(run, number, path, lacking)


def take_summary(number: str, answer: Answer) -> dict[str, Any]:
    """Take that the summary was handed in."""

    def act(_found: Workplace, run: IncidentRun) -> StepRecord:
        lacking = missing(_summary(run, record_of(run, number)))
        return summary.take(run, number, given_of(answer, run.clock.now()), lacking)

    return _taking(summary.STEP, number, answer, _("The summary"), act)


def _summary(run: IncidentRun, record: IncidentRecord) -> Document:
    return authority_report.summary(
        run,
        record,
        scopes.newest(run, record.incident.id),
        clocks_of(run, record),
        evidence_kept.lines(run, record),
    )


def sealed_document(found: Workplace, run: IncidentRun, document: Document, name: str) -> str:
    """Seal a document in a bundle of its own, before people hand it in; where it lies.

    Once for all that it says: what somebody may have handed in is not made anew. After another
    grade or count there is another one beside it, so that nobody hands in what is not so any more.
    In a drill it lies in the drill's own bundle.
    """
    if isinstance(found, SandboxedWorkplace):
        rendered = render_forms(document, run.zone.key, name)
        with run.state.begin() as conn:
            for file_name, content in rendered.files.items():
                keep_artifact(conn, *run_key(), file_name, content)
        return "-"
    record = record_of(run, document.reference)
    phase = Phase.FIRST if name.startswith(Phase.FIRST) else None
    workflow = f"{WORKFLOW}.{name}-{authority_report.document_version(record, phase)}"
    if (sealed := finished_run(found, workflow, run_key()[1])) is not None:
        return f"{found.store('evidence_store').description}/{sealed.row.bundle}"
    rendered = render_forms(document, run.zone.key, name)
    conclusion = Conclusion(
        title=document.title,
        summary=_("{title}, {reference}", title=document.title, reference=document.reference),
        outcome=Outcome.PASS,
        findings=[],
        metrics=[],
    )
    known = bundled.record(record)
    row = seal_aside(workflow, found, conclusion, rendered.files, records=[known], pdf=False)
    return f"{found.store('evidence_store').description}/{row.bundle}"


_Step = tuple[Callable[[str], Question | None], Callable[..., dict[str, Any]], tuple[str, ...]]
_REPORTED = (report.HANDED_IN, report.NOT_NEEDED)
_STEPS: dict[HumanStep, _Step] = {
    contain.STEP: (ask_contain, take_contain, (contain.CONTAINED,)),
    grade.STEP: (ask_grade, take_grade, (grade.CONFIRM,)),
    "report": (ask_report, take_report, _REPORTED),
    impact.STEP: (ask_impact, take_impact, (impact.ASSESSED,)),
    decide.STEP: (ask_decide, take_decide, (decide.TELL, decide.DO_NOT_TELL)),
    "report_rest": (ask_report_rest, take_report_rest, _REPORTED),
    close.STEP: (ask_close, take_close, (close.CLOSE, close.NOT_YET)),
    review.STEP: (ask_review, take_review, (review.REVIEWED,)),
    summary.STEP: (ask_summary, take_summary, (summary.DONE,)),
}
# They seal a document before people hand it in.
SEALING_STEPS: frozenset[HumanStep] = frozenset(
    {"report", decide.STEP, "report_rest", summary.STEP}
)


def asking(
    step_name: HumanStep, trigger_rule: TriggerRule = TriggerRule.NONE_FAILED
) -> dict[str, Any]:
    """What a human step is made of: how it asks, how it takes the answer, how long it waits.

    Args:
        step_name: of the step.
        trigger_rule: no authority may apply: then nothing is mapped, and what follows goes on.
    """
    ask, take, choices = _STEPS[step_name]
    sealing = {"queue": Queue.SEALING} if step_name in SEALING_STEPS else {}
    return {
        **sealing,
        "ask": in_open_run(step_name, explained(ask)),
        "take": take,
        "choices": choices,
        "doc_md": ask.__doc__,
        "response_timeout": response_timeout(step_name),
        "retries": RETRIES,
        "trigger_rule": trigger_rule,
    }
