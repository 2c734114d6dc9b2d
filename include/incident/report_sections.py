"""Sections of an incident's report: what happened, whom, by when, what was learned, timeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from include.incident.clocks import clock_words, response_times, response_words
from include.incident.clocks.clock import Clock
from include.incident.clocks.milestones import milestones
from include.incident.clocks.response_times import Figures, Handled
from include.incident.clocks.standing import clocks_of
from include.incident.incident_run import IncidentRecord, IncidentRun, scenario_of
from include.incident.names import Kind
from include.incident.scope import Scope
from include.incident.scope_words import scope_notes, scope_table
from include.incident.score import score, score_sheet
from include.incident.timeline import of_kind
from include.incident.words import action_lines, told
from include.messages import _
from include.reports.model import Cell, Column, Paragraph, Section, Steps, Table, table_of

_NOT_NAMED, _COMMAND = _("not named"), _("a command, in nobody's name,")


def about(run: IncidentRun, record: IncidentRecord) -> Section:
    """What happened, who noticed, who opened it."""
    one = record.incident
    lines = [
        _("What happened: {what}", what=told(run, record)),
        _("Noticed by: {who}", who=one.noticed_by or _NOT_NAMED),
        _("Opened by {who} at {at}", who=one.opened_by or _COMMAND, at=one.opened_at),
    ]
    if scenario_of(run) is not None:
        lines.insert(0, _("DRILL: this is not a real incident."))
    return Section(heading=_("What happened"), blocks=[Paragraph(text=line) for line in lines])


def score_of(run: IncidentRun, clocks: Sequence[Clock]) -> list[Section]:
    """A drill's score sheet; nothing of a real incident."""
    if scenario_of(run) is None:
        return []
    points, most = score(clocks)
    words = _("{points} of {most} clocks were met.", points=points, most=most)
    return [Section(heading=_("Score sheet"), blocks=[Paragraph(text=words), score_sheet(clocks)])]


def times(clocks: Sequence[Clock]) -> Section:
    """By when everything was due, and when it was done."""
    heading = _("Time limits and when they were met")
    return Section(heading=heading, blocks=[clock_words.clock_table(clocks)])


def affected(scope: Scope | None) -> list[Section]:
    """Whom and what it hit; nothing where nobody counted."""
    if scope is None:
        return []
    notes = [Paragraph(text=one) for one in scope_notes(scope)]
    return [Section(heading=_("What is affected"), blocks=[scope_table(scope), *notes])]


def delivery(delivered: Mapping[str, int]) -> list[Section]:
    """What became of the notices to people; nothing where there are none."""
    if not delivered:
        return []
    titles = {
        "pending": _("wait to be sent"),
        "sent": _("sent"),
        "withdrawn": _("taken back"),
        "undeliverable": _("could not be delivered"),
        "in_doubt": _("may have arrived"),
    }
    rows: list[list[Cell]] = [[titles[state], count] for state, count in delivered.items()]
    table = Table(
        caption=_("Notices to people"),
        columns=[Column(label=_("State")), Column(label=_("People affected"), kind="number")],
        rows=rows,
    )
    return [Section(heading=_("Notices to people"), blocks=[table])]


def learned(run: IncidentRun, record: IncidentRecord) -> list[Section]:
    """Lessons and corrective actions; nothing before the review."""
    found = of_kind(record.entries, Kind.REVIEWED)
    if not found:
        return []
    actions = [line for entry in found for line in action_lines(run, entry)]
    blocks: list[Paragraph | Steps] = [Paragraph(text=entry.words) for entry in found]
    return [
        Section(
            heading=_("Lessons and corrective actions"),
            blocks=[*blocks, *([Steps(items=actions)] if actions else [])],
        )
    ]


def timeline_of(record: IncidentRecord) -> Section:
    """Every entry, with the beginning of its digest; of a mistake that it is one."""
    counting = {one.place for one in record.valid}
    table = table_of(
        _("Each entry holds the digest of the one before"),
        record.entries,
        [
            (_("Entry"), "number", lambda entry: entry.place),
            (
                _("Happened"),
                "text",
                lambda entry: clock_words.happened(entry.happened_at, entry.recorded_at),
            ),
            (_("By"), "code", lambda entry: entry.by),
            (
                _("What was entered"),
                "text",
                lambda entry: (
                    entry.words
                    if entry.place in counting
                    else _("(does not count) {words}", words=entry.words)
                ),
            ),
            (_("Digest"), "code", lambda entry: entry.sha256[:12]),
        ],
    )
    return Section(heading=_("Timeline"), blocks=[table])


def register_of(run: IncidentRun, records: Sequence[IncidentRecord]) -> list[Section]:
    """How long all incidents took, by year; a drill knows of itself only, and says nothing."""
    if scenario_of(run) is not None:
        return []
    return [
        Section(heading=_("All incidents"), blocks=response_words.blocks(*_figures(run, records)))
    ]


def _figures(
    run: IncidentRun, records: Sequence[IncidentRecord]
) -> tuple[list[Figures], list[Handled]]:
    found = [
        response_times.handled(
            one.incident.number,
            one.incident.state,
            began_at=one.incident.began_at,
            aware_at=one.incident.aware_at,
            reached=milestones(one.entries),
            clocks=clocks_of(run, one),
        )
        for one in records
    ]
    return response_times.figures(found, run.zone), found
