"""Convert differences between a live database and its data map to findings."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from include.evidence.model import Finding
from include.messages import Message, _, listed
from include.policy.datamap import MappedDatabase
from include.schema.drift import Drift, DriftKind

COLLECTION_CLAUSE, STORAGE_CLAUSE = "4.1", "5.2"
NAMED = 20  # columns in the text for engineers


def findings(drifts: Iterable[Drift], database: MappedDatabase) -> list[Finding]:
    """Return a finding for each combination of a table and a kind of difference.

    A finding states the action to take. Its text for engineers contains names of tables and
    columns, but never values of records.

    Args:
        drifts: differences between the live database and the data map.
        database: the data map.
    """

    def group_key(difference: Drift) -> tuple[str, str]:
        return difference.label, difference.kind

    titles = database.table_titles
    groups = groupby(sorted(drifts, key=group_key), key=group_key)
    return [
        _finding(list(group), titles.get(label, database.title)) for (label, _kind), group in groups
    ]


def _finding(group: list[Drift], title: Message) -> Finding:
    first = group[0]
    declared = not first.kind.startswith("undeclared")
    return Finding(
        code=f"schema.drift.{first.kind}",
        severity=first.severity,
        subject=first.label,
        message=_message(group),
        action=_action(first.kind),
        clause=STORAGE_CLAUSE if declared else COLLECTION_CLAUSE,
        for_engineers=_for_engineers(group),
        subject_title=title,
    )


def _for_engineers(group: list[Drift]) -> Message:
    first, columns = group[0], [difference.column for difference in group]
    match first.kind:
        case DriftKind.UNDECLARED_SCHEMA | DriftKind.MISSING_TABLE:
            return _table(first)
        case DriftKind.UNDECLARED_TABLE:
            return _("{table}. {command}", table=_table(first), command=_DRAFT_COMMAND)
        case DriftKind.UNDECLARED_COLUMN:
            return _(
                "{table}; columns: {columns}. {command}",
                table=_table(first),
                columns=_names(columns),
                command=_DRAFT_COMMAND,
            )
        case DriftKind.PRIMARY_KEY:
            columns = [f"{first.mapped} -> {first.live}"]
        case DriftKind.TYPE:
            columns = [
                f"{difference.column}: {difference.mapped} -> {difference.live}"
                for difference in group
            ]
        case DriftKind.REFERENCE_WITHOUT_KEY:
            columns = [f"{difference.column} -> {difference.mapped}" for difference in group]
        case DriftKind.KEY_WITHOUT_REFERENCE:
            columns = [f"{difference.column} -> {difference.live}" for difference in group]
    return _("{table}; columns: {columns}", table=_table(first), columns=_names(columns))


def _table(difference: Drift) -> Message:
    return (
        _("Table `{table}`", table=difference.label)
        if difference.table
        else _("Schema `{schema}`", schema=difference.label)
    )


def _names(columns: Iterable[str]) -> Message:
    return listed((f"`{column}`" for column in columns), NAMED)


_DRAFT_COMMAND = _("`./parcelseal config map` writes a draft of the entries for the data map.")


def _message(group: list[Drift]) -> Message:
    first = group[0]
    match first.kind:
        case DriftKind.UNDECLARED_SCHEMA:
            return _("The database has tables in a schema that is not in the data map.")
        case DriftKind.UNDECLARED_TABLE:
            return _(
                "The database has a table with {count} columns that is not in the data map.",
                count=int(first.live),
            )
        case DriftKind.UNDECLARED_COLUMN:
            return _(
                "The table has {count} columns that are not in the data map.", count=len(group)
            )
        case DriftKind.MISSING_TABLE:
            return _("The data map has a table that does not exist in the database.")
        case DriftKind.MISSING_COLUMN:
            return _(
                "The data map has {count} columns that do not exist in the database.",
                count=len(group),
            )
        case DriftKind.PRIMARY_KEY if not first.live:
            return _(
                "The primary key in the data map does not exist: the table has no primary key."
            )
        case DriftKind.PRIMARY_KEY:
            return _("The primary key of the table differs from the primary key in the data map.")
        case DriftKind.TYPE:
            return _("The types of {count} columns differ from the data map.", count=len(group))
        case DriftKind.REFERENCE_WITHOUT_KEY:
            return _(
                "{count} references in the data map have no foreign key in the database.",
                count=len(group),
            )
        case _:
            return _(
                "{count} foreign keys of the database have no reference in the data map.",
                count=len(group),
            )


def _action(kind: DriftKind) -> Message:
    match kind:
        case DriftKind.UNDECLARED_SCHEMA:
            return _(
                "Add the tables of this schema to the data map if they contain company data. "
                "Otherwise move the tables to another database."
            )
        case DriftKind.UNDECLARED_TABLE | DriftKind.UNDECLARED_COLUMN:
            return _(
                "Find out who collects this data and for which purpose. Then add the tables or "
                "columns to the data map and to a purpose, or have the data deleted from the "
                "database."
            )
        case DriftKind.MISSING_TABLE | DriftKind.MISSING_COLUMN:
            return _(
                "If the table or column was removed or renamed on purpose, correct the data "
                "map. Until then, quality checks, retention and erasure do not cover it."
            )
        case DriftKind.PRIMARY_KEY:
            return _(
                "Correct the primary key in the data map: findings and the erasure ledger "
                "identify records by it."
            )
        case DriftKind.TYPE:
            return _("Correct the type in the data map, or find out why the column was changed.")
        case _:
            return _(
                "Correct the reference in the data map, or add the foreign key to the "
                "database. Until then, a search for a customer's records does not find them in "
                "every table."
            )
