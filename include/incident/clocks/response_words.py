"""Charts and tables of how long incidents took, for a report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from include.incident.clocks.clock_words import state
from include.incident.clocks.response_times import Figure, Figures, Handled, Measure
from include.messages import Message, _
from include.reports.model import Bar, BarChart, Block, Cell, Column, Table, table_of

_TITLES = {
    Measure.DETECT: _("to detect"),
    Measure.CONTAIN: _("to contain"),
    Measure.NOTIFY: _("to tell people"),
    Measure.REPORT: _("to the first report"),
}
_CHARTS = {
    Measure.DETECT: _("Mean time from the beginning of a leak to awareness"),
    Measure.CONTAIN: _("Mean time from awareness to containment"),
    Measure.NOTIFY: _("Mean time from awareness until people are told, or need not be"),
    Measure.REPORT: _("Mean time from awareness to the first report to an authority"),
}


def charts(found: Sequence[Figures]) -> list[BarChart]:
    """One chart for each thing that is measured, with a bar a year; no bar where none is known.

    Args:
        found: as `include.incident.clocks.response_times.figures` gives them.
    """
    return [
        BarChart(
            caption=_CHARTS[what],
            category=_("Year"),
            unit="seconds",
            bars=[Bar(label=_year(one), value=_seconds(one.took[what].mean)) for one in found],
        )
        for what in Measure
    ]


def figure_table(found: Sequence[Figures]) -> Table:
    """The figures in rows: year and what was measured, with how many it is not known of."""
    rows: list[list[Cell]] = [
        [
            _("{year}, {what}", year=_year(one), what=_TITLES[what]),
            *_row(one.took[what]),
        ]
        for one in found
        for what in Measure
    ]
    return Table(
        caption=_("How long incidents took"),
        columns=[
            Column(label=_("Year")),
            Column(label=_("Known of"), kind="number"),
            Column(label=_("Not known of"), kind="number"),
            Column(label=_("Mean"), kind="duration"),
            Column(label=_("Median"), kind="duration"),
            Column(label=_("Longest"), kind="duration"),
        ],
        rows=rows,
    )


def count_table(found: Sequence[Figures]) -> Table:
    """How many incidents there were, and how many clocks ran out."""
    return table_of(
        _("Incidents"),
        found,
        [
            (_("Year"), "text", _year),
            (_("Incidents"), "number", lambda year: year.incidents),
            (_("Cancelled"), "number", lambda year: year.cancelled),
            (_("Clocks that ran out"), "number", lambda year: year.late),
        ],
    )


def late_table(found: Iterable[Handled]) -> Table:
    """Every clock that ran out, by incident."""
    return Table(
        caption=_("Clocks that ran out"),
        columns=[
            Column(label=_("Incident"), kind="code"),
            Column(label=_("What")),
            Column(label=_("Due"), kind="datetime"),
            Column(label=_("Late by"), kind="duration"),
            Column(label=_("State")),
        ],
        rows=[
            [one.number, clock.rule.message, clock.due_at, clock.lateness.total_seconds(), words]
            for one in found
            for clock in one.late
            for words in (state(clock),)
        ],
    )


def blocks(years: Sequence[Figures], incidents: Iterable[Handled]) -> list[Block]:
    """All of them for a section of a report."""
    return [count_table(years), figure_table(years), *charts(years), late_table(incidents)]


def _row(figure: Figure) -> list[Cell]:
    return [
        figure.known,
        figure.missing,
        _seconds(figure.mean),
        _seconds(figure.median),
        _seconds(figure.longest),
    ]


def _seconds(length: timedelta | None) -> float | None:
    return None if length is None else length.total_seconds()


def _year(one: Figures) -> Message | str:
    return _("All years") if one.year is None else str(one.year)
