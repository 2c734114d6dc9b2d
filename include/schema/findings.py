"""Drift in plain language: one finding for each table and kind, with what to do."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from include.evidence.model import Finding
from include.messages import Message, _
from include.schema.drift import Drift, DriftKind

COLLECTION_CLAUSE, STORAGE_CLAUSE = "4.1", "5.2"
NAMED = 20  # columns that one sentence names


def findings(drifts: Iterable[Drift]) -> list[Finding]:
    """Say what drifted, one finding for each table and kind; columns are named, values never."""

    def what(one: Drift) -> tuple[str, str]:
        return one.place, one.kind

    return [_finding(list(group)) for _key, group in groupby(sorted(drifts, key=what), key=what)]


def _finding(group: list[Drift]) -> Finding:
    first = group[0]
    declared = not first.kind.startswith("undeclared")
    return Finding(
        code=f"schema.drift.{first.kind}",
        severity=first.severity,
        subject=first.place,
        message=_message(group),
        action=_action(first.kind),
        clause=STORAGE_CLAUSE if declared else COLLECTION_CLAUSE,
    )


def _message(group: list[Drift]) -> Message:
    first = group[0]
    match first.kind:
        case DriftKind.UNDECLARED_SCHEMA:
            return _("The database has tables in a schema of which the data map says nothing.")
        case DriftKind.UNDECLARED_TABLE:
            return _(
                "The database has a table that the data map lacks, with {count} columns.",
                count=int(first.live),
            )
        case DriftKind.UNDECLARED_COLUMN:
            return _(
                "The database has {count} columns that the data map lacks: {columns}.",
                count=len(group),
                columns=_names(one.column for one in group),
            )
        case DriftKind.MISSING_TABLE:
            return _("The data map has a table that the database lacks.")
        case DriftKind.MISSING_COLUMN:
            return _(
                "The data map has {count} columns that the database lacks: {columns}.",
                count=len(group),
                columns=_names(one.column for one in group),
            )
        case DriftKind.PRIMARY_KEY if not first.live:
            return _(
                "The data map marks the primary key {mapped}; the table has none.",
                mapped=first.mapped,
            )
        case DriftKind.PRIMARY_KEY:
            return _(
                "The data map marks the primary key {mapped}; the table's is {live}.",
                mapped=first.mapped,
                live=first.live,
            )
        case DriftKind.TYPE:
            return _(
                "{count} columns have another type than the data map says: {columns}.",
                count=len(group),
                columns=_names(f"{one.column}: {one.mapped} -> {one.live}" for one in group),
            )
        case DriftKind.REFERENCE_WITHOUT_KEY:
            return _(
                "{count} references of the data map are no foreign keys in the database: "
                "{columns}.",
                count=len(group),
                columns=_names(f"{one.column} -> {one.mapped}" for one in group),
            )
        case _:
            return _(
                "{count} foreign keys of the database are no references in the data map: "
                "{columns}.",
                count=len(group),
                columns=_names(f"{one.column} -> {one.live}" for one in group),
            )


def _action(kind: DriftKind) -> Message:
    match kind:
        case DriftKind.UNDECLARED_SCHEMA:
            return _("Map its tables if they hold data of the company, or move them elsewhere.")
        case DriftKind.UNDECLARED_TABLE | DriftKind.UNDECLARED_COLUMN:
            return _(
                "Find out who collects this and for which purpose; then add it to the data map and "
                "to a purpose, or delete it. `./parcelseal config map` drafts the entries."
            )
        case DriftKind.MISSING_TABLE | DriftKind.MISSING_COLUMN:
            return _(
                "Correct the data map if it was dropped or renamed on purpose; checks, retention "
                "and erasure do not reach it until then."
            )
        case DriftKind.PRIMARY_KEY:
            return _(
                "Mark the table's own key in the data map: records are named by it in findings and "
                "in the erasure ledger."
            )
        case DriftKind.TYPE:
            return _("Correct the type in the data map, or find out why the column was changed.")
        case _:
            return _(
                "Correct the reference in the data map, or add the foreign key, so that a person's "
                "records are found in every table."
            )


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - NAMED
    return ", ".join(listed[:NAMED]) + (f" (+{more})" if more > 0 else "")
