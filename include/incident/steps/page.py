"""The page of a human step: what to do, what is due by when, who may answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

from include.approvals.form import Entry as Entered
from include.approvals.form import Field, refilled
from include.approvals.question import (
    LANGUAGES,
    Question,
    in_both,
    markdown_table,
    names,
)
from include.incident import timeline
from include.incident.clocks.clock_words import clock_rows
from include.incident.clocks.standing import clocks_of
from include.incident.entries import EntryData, Refused
from include.incident.incident_run import IncidentRecord, IncidentRun, record_of, scenario_of
from include.incident.names import Kind
from include.incident.rules import HumanStep
from include.incident.team import Team, team_of
from include.messages import Message, _, listed
from include.reports.i18n import Translator
from include.services.errors import ServiceError

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
