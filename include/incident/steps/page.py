"""The page of an incident's human task: instructions, time limits and people, in both languages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from include.approvals.required_action import LANGUAGES, format_accounts, markdown_table
from include.incident.entries import Refused
from include.incident.incident_run import IncidentRecord, IncidentRun, scenario_of
from include.incident.team import Team
from include.incident.time_limits.time_limit import TimeLimit, sort_by_urgency, time_limits_of
from include.incident.time_limits.time_limit_texts import deadline_rows, due_text
from include.incident.timeline import Entry
from include.messages import Message, _
from include.reports.i18n import Translator

MAX_NAMES = 10  # people shown by name; the rest is a number


def page_body(
    run: IncidentRun,
    record: IncidentRecord,
    lines: Sequence[Message],
    deadlines: Sequence[TimeLimit] = (),
) -> str:
    """Return the text of a human task's page as Markdown, in both languages.

    The page begins with the deadlines and the given display texts. The table of all time limits is
    at its end, because Airflow (3.3) removes HTML and therefore cannot fold a table. The text stays
    on the page until a person answers, so it states deadlines but no remaining time.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
        lines: display texts, one per paragraph.
        deadlines: time limits that the answer ends.
    """
    if scenario_of(run):
        lines = [
            _("DRILL: no message is sent, no person is notified, and no legal hold is placed."),
            *lines,
        ]
    lines = [*deadline_lines(deadlines), *lines]
    heads, rows = deadline_rows(time_limits_of(run, record))
    if rows and run.task.pages_address:
        address = f"{run.task.pages_address}/clocks"
        lines = [*lines, _("Remaining time of all deadlines: {address}", address=address)]
    texts, tables = [], []
    for language, name in LANGUAGES.items():
        translator = Translator(language, run.zone.key)
        texts.append(f"### {name}")
        texts.append("\n".join(f"- {_one_line(translator.text(line))}" for line in lines))
        if rows:
            cells = [[_one_line(translator.text(cell)) for cell in row] for row in rows]
            tables.append(markdown_table([translator.text(head) for head in heads], cells))
    return "\n\n".join([*texts, *tables]) + "\n"


def deadline_lines(time_limits: Iterable[TimeLimit]) -> list[Message]:
    """Return display texts with the title and the deadline of each time limit, earliest first."""
    due = [time_limit for time_limit in time_limits if time_limit.is_open and time_limit.due_at]
    return [
        _("Deadline: {due} ({title})", due=due_text(time_limit), title=time_limit.rule.message)
        for time_limit in sort_by_urgency(due)
    ]


def _one_line(text: str) -> str:
    """Return a text as one line that contains no Markdown heading, link or line break.

    `include.approvals.required_action.escape_text` does more, but it would change the readable
    text. A person decides on the exact text of the notice, and needs the UTC offset of deadlines.

    Args:
        text: text to show in a form.
    """
    return re.sub(r"([\[\]<>`*#|~])", r"\\\1", " ".join(text.split()))


def refusal_lines(refusal: Entry | None) -> list[Message]:
    """Return display texts with the author of the last answer and the reason why it was refused.

    Return an empty list if the last answer was not refused.

    Args:
        refusal: timeline entry of the refused answer, or None.
    """
    if refusal is None:
        return []
    cause = refusal.as_(Refused).cause
    return [
        _(
            "The last answer, by {person}, was not accepted: {cause}.",
            person=refusal.by,
            cause=cause,
        )
    ]


def silence_lines(team: Team) -> list[Message]:
    """Return a display text that says how many times nobody answered the step in time.

    Return an empty list if this never happened.

    Args:
        team: people who may answer the step.
    """
    if not team.unanswered_count:
        return []
    return [
        _(
            "The time to answer this step ended {count} times without an answer. Deputies and "
            "management may therefore also answer it.",
            count=team.unanswered_count,
        )
    ]


def team_lines(team: Team) -> list[Message]:
    """Return display texts that name the people who may answer, and the excluded people."""
    shown_names, hidden_count = (
        format_accounts(team.people[:MAX_NAMES]),
        len(team.people[MAX_NAMES:]),
    )
    lines = [
        _(
            "Only {people} and {more} more people may answer this step.",
            people=shown_names,
            more=hidden_count,
        )
        if hidden_count
        else _("Only {people} may answer this step.", people=shown_names)
    ]
    if team.excluded:
        excluded_names = format_accounts(team.excluded[:MAX_NAMES])
        lines.append(
            _(
                "These people are not allowed to answer, because the incident concerns them or "
                "they were removed from the team: {people}.",
                people=excluded_names,
            )
        )
    if team.involved:
        involved = format_accounts(team.involved[:MAX_NAMES])
        lines.append(
            _(
                "These people are not allowed to answer, because they wrote the content of the "
                "notice: {people}.",
                people=involved,
            )
        )
    return [*lines, _("Do not enter customer data in any field.")]
