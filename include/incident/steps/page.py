"""Human tasks of incidents: who is asked, and the page with what is due."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial, wraps
from hashlib import sha256
from typing import Any, TypeAlias

from include.approvals.form import Entry as Entered
from include.approvals.form import Field, refilled
from include.approvals.question import (
    LANGUAGES,
    Answer,
    Question,
    in_both,
    markdown_table,
    names,
)
from include.evidence.step_findings import StepFindings
from include.incident import timeline
from include.incident.clocks.clock import clocks_of
from include.incident.clocks.clock_words import clock_rows
from include.incident.entries import EntryData, Refused
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    incident_of,
    record_of,
    scenario_of,
)
from include.incident.names import CLAUSE, Kind
from include.incident.rule_checks import INCIDENT
from include.incident.rules import HumanStep, IncidentRules
from include.incident.steps import answer
from include.incident.steps.answer import Answered, Given
from include.incident.team import Team, team_of
from include.messages import Message, _, listed
from include.policy import PolicyPack
from include.reports.i18n import Translator
from include.services.errors import ServiceError
from include.workflow.declaration import Queue
from include.workflow.step import HumanTask

MOST_NAMES = 10  # of those who may answer; the others are counted
_VERSION = re.compile(r"[0-9a-f]{8}")
LONGEST = 2_000  # characters of a text that is entered


def led(run: IncidentRun, number: str) -> IncidentRecord | None:
    """The incident, None where its steps are not to be done: a duplicate, or cancelled."""
    found = record_of(run, number)
    return found if found.incident.is_led else None


def question(
    run: IncidentRun,
    record: IncidentRecord,
    step: HumanStep,
    title: Message,
    lines: Sequence[Message],
    *,
    choices: Sequence[str],
    form: Sequence[Field] = (),
    tables: Sequence[tuple[Sequence[Message], Sequence[Sequence[Message]]]] = (),
    never: Iterable[str] = (),
    part: str = "",
    content: str,
) -> Question:
    """Make the page of a human step: what to do, by when what is due, who may answer.

    Args:
        run: the run or command.
        record: the incident.
        step: which one.
        title: what is asked, in a line.
        lines: what the person has to know and do.
        choices: what may be answered; the first one lets the run go on.
        form: what else is entered; what was entered in an answer that did not count is there.
        tables: heads and rows.
        never: user ids of people whose own work it is about.
        part: of the step, where it is done several times.
        content: what an answer to the page is about; `content_of` makes it.

    Raises:
        ServiceError: nobody is left who may answer.
    """
    team = team_of(run, record, step, never)
    if not team.people:
        raise ServiceError(
            f"Nobody may do the step {step} of {record.incident.number}.",
            "Assign somebody: workflow update_incident, action `assign`.",
        )
    number = record.incident.number
    drill = (
        [_("DRILL: nothing leaves, nobody is told, nothing is held.")] if scenario_of(run) else []
    )
    refused = _last_refused(record, step, part)
    shown = [*drill, *_refused(refused), *_silent(team), *lines, *_who(team)]
    parts = []
    for language, name in LANGUAGES.items():
        words = Translator(language, run.zone.key)
        parts.append(f"### {name}")
        parts.append("\n".join(f"- {_one_line(words.text(one))}" for one in shown))
        for head, rows in [*tables, clock_rows(clocks_of(run, record))]:
            if rows:
                parts.append(
                    markdown_table(
                        [words.text(one) for one in head],
                        [[_one_line(words.text(cell)) for cell in row] for row in rows],
                    )
                )
    subject = in_both(_("{number}: {title}", number=number, title=title))
    return Question(
        subject,
        "\n\n".join(parts) + "\n",
        list(team.people),
        content,
        form=refilled(form, _kept(refused)),
        choices=tuple(choices),
    )


def content_of(
    record: IncidentRecord,
    step: HumanStep,
    lines: Sequence[Message],
    *,
    form: Sequence[Field] = (),
    part: str = "",
    facts: Sequence[Any] = (),
) -> str:
    """Return the SHA-256 of the content that an answer to a page is about.

    Deadlines, people and what was entered before are left out: they change while a person reads,
    and no answer is about them.

    Args:
        record: the incident.
        step: which one.
        lines: of the page; none may change merely because time passes.
        form: its fields; their values are left out.
        part: of the step, where it is done several times.
        facts: JSON values that identify what the lines only name, such as a version.
    """
    shown = [record.incident.number, step, part, *facts]
    shown += [line.model_dump(mode="json") for line in lines]
    shown += [[each.name, list(each.options)] for each in form]
    return sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


def with_version(content: str, version: str) -> str:
    """Return the content of a form about a document, which names the version that it shows."""
    return f"{content}:{version}"


def version_of(content: str) -> str:
    """Return the version of the document that a form showed; empty where it named none."""
    version = content.partition(":")[2]
    return version if _VERSION.fullmatch(version) else ""


def blocked(missing: Sequence[Message]) -> list[Message]:
    """Say that a document cannot be handed in, where it lacks required fields.

    Args:
        missing: required fields that say nothing.
    """
    if not missing:
        return []
    return [_("The document lacks: {fields}. It cannot be handed in.", fields=listed(missing))]


def _one_line(text: str) -> str:
    """A line of the page: what people entered makes no heading, no link and no line of its own.

    Unlike `include.approvals.question.harmless` it changes nothing of what is read: a letter is
    decided on as it is sent, and a clock's due day is read with its offset.
    """
    return re.sub(r"([\[\]<>`*#|~])", r"\\\1", " ".join(text.split()))


def _last_refused(record: IncidentRecord, step: str, part: str) -> timeline.Entry | None:
    """The refusal after which nothing of the step counted."""
    mine = [
        one
        for one in record.entries
        if (data := one.as_(EntryData)).step == step and data.part == part
    ]
    answers = [one for one in mine if one.kind is not Kind.UNANSWERED]
    return answers[-1] if answers and answers[-1].kind is Kind.REFUSED else None


def _refused(found: timeline.Entry | None) -> list[Message]:
    if found is None:
        return []
    cause = found.as_(Refused).cause
    return [_("The last answer, by {who}, did not count: {cause}.", who=found.by, cause=cause)]


def _kept(found: timeline.Entry | None) -> dict[str, Entered]:
    given = found.as_(Refused).given if found else {}
    return {name: tuple(one) if isinstance(one, list) else one for name, one in given.items()}


def _silent(team: Team) -> list[Message]:
    if not team.silent:
        return []
    return [
        _(
            "Nobody has answered {count} times: deputies and management are asked too.",
            count=team.silent,
        )
    ]


def _who(team: Team) -> list[Message]:
    shown, more = names(team.people[:MOST_NAMES]), len(team.people[MOST_NAMES:])
    found = [
        _("Only {people} and {more} more may answer.", people=shown, more=more)
        if more
        else _("Only {people} may answer.", people=shown)
    ]
    if team.left_out:
        left = names(team.left_out[:MOST_NAMES])
        found.append(
            _("Not asked, since it is about them or they were taken off: {out}.", out=left)
        )
    if team.involved:
        involved = names(team.involved[:MOST_NAMES])
        found.append(_("Not asked, since they wrote it: {people}.", people=involved))
    return [*found, _("Write no customer's data into any field.")]


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
