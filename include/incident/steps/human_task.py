"""Human tasks of incidents: who is asked when, and what a task of a cancelled incident does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial, wraps
from typing import TypeAlias

from include.approvals.answer import Answer
from include.approvals.question import Question
from include.evidence.step_findings import StepFindings
from include.incident.incident_run import IncidentRecord, IncidentRun, incident_of
from include.incident.names import CLAUSE
from include.incident.rule_checks import INCIDENT
from include.incident.rules import HumanStep, IncidentRules
from include.incident.steps import answer
from include.incident.steps.answer import Answered, Given
from include.messages import Message
from include.policy import PolicyPack
from include.workflow.declaration import Queue
from include.workflow.step import HumanTask

Ask: TypeAlias = Callable[[IncidentRun, IncidentRecord], Question | None]
AskAbout: TypeAlias = Callable[[IncidentRun, IncidentRecord, str], Question | None]
Take: TypeAlias = Callable[[IncidentRun, IncidentRecord, Given], Answered]

NOT_ASKED = Answered(asked=False)
RETRIES = 20  # of a task that is open for weeks: each worker that is stopped meanwhile takes one


def human_task(
    name: HumanStep,
    title: Message,
    ask: Ask,
    take: Take,
    choices: tuple[str, ...],
    *,
    patience: int = 1,
    seals_document: bool = False,
) -> HumanTask[IncidentRules, Answered]:
    """Return a human task about the whole incident; see `human_task_by_part`."""

    @wraps(ask)
    def ask_about(run: IncidentRun, record: IncidentRecord, _part: str) -> Question | None:
        return ask(run, record)

    return human_task_by_part(
        name, title, ask_about, take, choices, patience=patience, seals_document=seals_document
    )


def human_task_by_part(
    name: HumanStep,
    title: Message,
    ask: AskAbout,
    take: Take,
    choices: tuple[str, ...],
    *,
    patience: int = 1,
    seals_document: bool = False,
) -> HumanTask[IncidentRules, Answered]:
    """Return a human task that is done for each of several parts.

    An incident that is a duplicate, or was cancelled, asks nobody and takes no answer.

    Args:
        name: of the step.
        title: of the step, for people.
        ask: returns the question about a part; None if nobody has to be asked.
        take: enters an answer.
        choices: possible answers.
        patience: multiple of the policy's time after which deputies and management are asked too.
            A step on which the incident's first hours do not depend waits longer.
        seals_document: whether its question seals a document before people hand it in, so that its
            task needs the key that seals evidence.
    """

    @wraps(ask)
    def ask_if_led(run: IncidentRun, findings: StepFindings) -> Question | Answered:
        record = incident_of(run)
        question = ask(run, record, findings.part) if record.incident.is_led else None
        return question or NOT_ASKED

    def take_if_led(run: IncidentRun, findings: StepFindings, given: Answer) -> Answered:
        record = incident_of(run)
        if not record.incident.is_led:
            return NOT_ASKED
        return take(run, record, Given.of(given, findings.part, run.clock.now()))

    def entered(run: IncidentRun, findings: StepFindings, at: datetime) -> Answered | None:
        return answer.entered_at(run, incident_of(run), name, findings.part, at)

    return HumanTask(
        name=name,
        title=title,
        question_title=title,
        clause=CLAUSE,
        result=Answered,
        ask=ask_if_led,
        take=take_if_led,
        entered=entered,
        response=partial(_response_time, patience),
        choices=choices,
        queue=Queue.SEALING if seals_document else "",
        retries=RETRIES,
        follows_skipped=True,  # no authority may apply: then no report is asked for
    )


def _response_time(patience: int, pack: PolicyPack) -> timedelta:
    rules = pack.section(INCIDENT)
    return (timedelta(minutes=30) if rules is None else rules.answer_within.span) * patience
