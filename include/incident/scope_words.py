"""What people read of what is affected: in questions and reports."""

from __future__ import annotations

from include.evidence.model import Outcome
from include.incident.information import types_of
from include.incident.scope import FICTION, Scope
from include.messages import Message, _, listed, verbatim
from include.reports.model import Cell, Column, Table


def scope_lines(scope: Scope) -> list[Message]:
    """What is affected, a line each; what could not be counted first and loudly."""
    lines = [
        _(
            "NOT COUNTED: {database}. {reason} Nobody knows how many people are affected there.",
            database=one.database,
            reason=one.reason,
        )
        for one in scope.unknown
    ]
    if scope.nobody:
        lines.append(
            _("Nobody was found by what was entered: rather a slip of the pen than good news.")
        )
    lines += [
        _(
            "{database}: {people} people, {records} records",
            database=_name(one.database),
            people=one.subjects,
            records=sum(one.records.values()),
        )
        for one in scope.counted
    ]
    lines.append(_("Sensitive information of {count} people", count=scope.sensitive))
    lines.append(
        _("Under 14: not known")
        if scope.minors is None
        else _(
            "Under 14: {count} people; of {unknown} nobody knows the age",
            count=scope.minors,
            unknown=scope.age_unknown,
        )
    )
    if types := types_of(scope.categories):
        lines.append(_("Types of information: {types}", types=listed(types)))
    if scope.first and scope.last:
        lines.append(_("Records from {first} to {last}", first=scope.first, last=scope.last))
    lines += _warnings(scope)
    return lines


def scope_table(scope: Scope) -> Table:
    """What is affected, by database."""
    rows: list[list[Cell]] = [
        [
            _name(one.database),
            one.subjects,
            sum(one.records.values()),
            one.sensitive,
            one.minors,
            one.first,
            one.last,
            None,
        ]
        for one in scope.counted
    ]
    rows += [
        [verbatim(one.database), None, None, None, None, None, None, Outcome.FAIL]
        for one in scope.unknown
    ]
    return Table(
        caption=_("By database; whoever stands in two of them counts twice"),
        columns=[
            Column(label=_("Database")),
            Column(label=_("People affected"), kind="number"),
            Column(label=_("Records"), kind="number"),
            Column(label=_("Of them sensitive"), kind="number"),
            Column(label=_("Under 14"), kind="number"),
            Column(label=_("From"), kind="datetime"),
            Column(label=_("Until"), kind="datetime"),
            Column(label=_("Result"), kind="outcome"),
        ],
        rows=rows,
    )


def _name(database: str) -> Message:
    return _("scenario of the drill") if database == FICTION else verbatim(database)


def _warnings(scope: Scope) -> list[Message]:
    found: list[Message] = []
    for one in scope.counted:
        if one.everything and one.database != FICTION:
            found.append(
                _(
                    "{database}: nothing narrowed it down, so everything counts.",
                    database=one.database,
                )
            )
        if one.not_found:
            found.append(
                _(
                    "{database}: {count} of {listed} listed keys are not there.",
                    database=one.database,
                    count=one.not_found,
                    listed=one.listed,
                )
            )
        if one.unlisted:
            found.append(
                _(
                    "{database}: {count} people stand on records, but not among the people: they "
                    "cannot be told by mail.",
                    database=one.database,
                    count=one.unlisted,
                )
            )
    return found
