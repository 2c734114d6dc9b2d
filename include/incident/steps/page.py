"""The page of a human task of an incident: lines, deadlines and people, in both languages."""

from __future__ import annotations

import re
from collections.abc import Sequence

from include.approvals.question import LANGUAGES, markdown_table, names
from include.incident.clocks.clock import clocks_of
from include.incident.clocks.clock_words import clock_rows
from include.incident.entries import Refused
from include.incident.incident_run import IncidentRecord, IncidentRun, scenario_of
from include.incident.team import Team
from include.incident.timeline import Entry
from include.messages import Message, _
from include.reports.i18n import Translator

MOST_NAMES = 10  # of those who may answer; the others are counted


def body(run: IncidentRun, record: IncidentRecord, lines: Sequence[Message]) -> str:
    """Return lines and deadlines as Markdown in both languages."""
    if scenario_of(run):
        lines = [_("DRILL: nothing leaves, nobody is told, nothing is held."), *lines]
    heads, rows = clock_rows(clocks_of(run, record))
    parts = []
    for language, name in LANGUAGES.items():
        translator = Translator(language, run.zone.key)
        parts.append(f"### {name}")
        parts.append("\n".join(f"- {_one_line(translator.text(line))}" for line in lines))
        if rows:
            cells = [[_one_line(translator.text(cell)) for cell in row] for row in rows]
            parts.append(markdown_table([translator.text(head) for head in heads], cells))
    return "\n\n".join(parts) + "\n"


def _one_line(text: str) -> str:
    """A line of the page: what people entered makes no heading, no link and no line of its own.

    Unlike `include.approvals.question.harmless` it changes nothing of what is read: a letter is
    decided on as it is sent, and a clock's due day is read with its offset.
    """
    return re.sub(r"([\[\]<>`*#|~])", r"\\\1", " ".join(text.split()))


def refusal_lines(refusal: Entry | None) -> list[Message]:
    """Return who gave the last answer and why it did not count; nothing if it counted."""
    if refusal is None:
        return []
    cause = refusal.as_(Refused).cause
    return [_("The last answer, by {who}, did not count: {cause}.", who=refusal.by, cause=cause)]


def silence_lines(team: Team) -> list[Message]:
    """Return how often nobody answered; nothing if somebody always did."""
    if not team.silent:
        return []
    return [
        _(
            "Nobody has answered {count} times: deputies and management are asked too.",
            count=team.silent,
        )
    ]


def team_lines(team: Team) -> list[Message]:
    """Return who may answer, and who may not."""
    shown, more = names(team.people[:MOST_NAMES]), len(team.people[MOST_NAMES:])
    lines = [
        _("Only {people} and {more} more may answer.", people=shown, more=more)
        if more
        else _("Only {people} may answer.", people=shown)
    ]
    if team.left_out:
        left = names(team.left_out[:MOST_NAMES])
        lines.append(
            _("Not asked, since it is about them or they were taken off: {out}.", out=left)
        )
    if team.involved:
        involved = names(team.involved[:MOST_NAMES])
        lines.append(_("Not asked, since they wrote it: {people}.", people=involved))
    return [*lines, _("Write no customer's data into any field.")]
