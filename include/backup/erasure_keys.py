"""Check before the load whether the erased records in a backup can be identified.

A restore has to delete or mask the records of the erasure ledger again. The erasure ledger
identifies a record by the values of its table's primary key. If the primary key of a table was
added or replaced after the backup, the ledger cannot identify the table's records in the backup.
The check reads only the archive's head: its header and table of contents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sqlalchemy import Engine

from include.backup.archive_entry import Entry
from include.erasure.ledger import count_entries as ledger_entries
from include.erasure.ledger import count_entries_by_key_types
from include.erasure.tables import TableName, order_key_columns
from include.services.errors import ControlFailed

_NAME = r'"(?:[^"]|"")*"|[^\s"(),.]+'
_PRIMARY_KEY = re.compile(
    rf"^ALTER TABLE (?:ONLY )?(?P<schema>{_NAME})\.(?P<table>{_NAME})\s+"
    rf"ADD CONSTRAINT (?:{_NAME}) PRIMARY KEY \((?P<columns>(?:\"[^\"]*\"|[^)])+)\)",
    re.DOTALL,
)
_KEY_COLUMN = re.compile(rf"\s*(?P<name>{_NAME})[^,]*(?:,|$)")
_COLUMN = re.compile(
    rf"^    (?P<name>{_NAME}) (?P<type>.+?)"
    r"(?: COLLATE .*| DEFAULT .*| NOT NULL.*| GENERATED .*| CONSTRAINT .*| STORAGE .*)?,?$"
)
_OWN_TYPE = re.compile(rf"^(?:{_NAME})\.(?P<name>{_NAME})(?:\(.*\))?(?P<array>\[\])?$")
_WHOLE_NUMBERS = {"smallint", "integer", "bigint"}
_TEXTS = re.compile(r"^(?:text|character varying(?:\(\d+\))?|character(?:\(\d+\))?)$")


def require_findable(
    archive: Sequence[Entry],
    database: str,
    tables: Mapping[str, TableName],
    mapped_keys: Mapping[str, Sequence[str]],
    state: Engine,
    point: str,
) -> None:
    """Refuse a restore point if the erasure ledger cannot identify the erased records in it.

    A table that is not in the archive is no reason to refuse: it was created after the backup, or
    had another name. The restore reports such a table when it deletes the erased records again.

    Args:
        archive: entries of the archive's table of contents.
        database: name of the database in the data map.
        tables: schema and table of each collection, by the name of the collection.
        mapped_keys: primary key columns that the data map names, by the name of the collection.
        state: state database with the erasure ledger.
        point: id of the restore point.

    Raises:
        ControlFailed: erased records cannot be identified. The message names their collections.
    """
    keys = _primary_keys(archive)
    columns = _columns(archive)
    unfit: dict[str, int] = {}
    with state.connect() as conn:
        for collection in ledger_entries(conn, database):
            table_name = tables.get(collection)
            if table_name is None or (table_name.schema, table_name.table) not in columns:
                continue
            table = columns[table_name.schema, table_name.table]
            key = keys.get((table_name.schema, table_name.table), ())
            for types, number in count_entries_by_key_types(conn, database, collection).items():
                if not _names_records(types, key, mapped_keys.get(collection, ()), table):
                    unfit[collection] = unfit.get(collection, 0) + number
    if unfit:
        listed = ", ".join(f"{name} ({number})" for name, number in sorted(unfit.items()))
        raise ControlFailed(
            f"Restore point {point} is older than the current primary key of a table, so the "
            f"erased records of {listed} could not be found in it. Nothing was loaded.",
            "Restore a later point. If the table had the columns of the key at that time, mark "
            "them with `primary_key: true` in the data map. Otherwise restore with "
            "--skip-erasures, keep the copy closed, and erase these people by hand.",
        )


def _names_records(
    types: str | None, key: Sequence[str], mapped: Sequence[str], table: Mapping[str, str]
) -> bool:
    """Return whether entries of the erasure ledger can identify the records of a table.

    If this cannot be decided, return True.

    Args:
        types: types of the key columns in the entries; None if they were not recorded.
        key: columns of the table's primary key in the archive; empty if the table has no primary
            key.
        mapped: columns of the primary key in the data map.
        table: SQL type of each column of the table in the archive, by column name.
    """
    if key and (types is None or _types(key, table) in (types, None)):
        return True
    return order_key_columns(mapped, types, lambda columns: _types(columns, table)) is not None


def _types(columns: Sequence[str], table: Mapping[str, str]) -> str | None:
    """Return the types of key columns, written as in the erasure ledger.

    `include.erasure.tables.primary_key_types` defines the notation. Return None if a column is not
    in ``table``.

    Args:
        columns: names of the key columns.
        table: SQL type of each column of the table, by column name.
    """
    types = []
    for column in columns:
        kind = table.get(column)
        if kind is None:
            return None
        if kind in _WHOLE_NUMBERS:
            types.append("whole number")
        elif _TEXTS.match(kind):
            types.append("text")
        elif own := _OWN_TYPE.match(kind):  # is named without its schema
            types.append(("_" if own["array"] else "") + _unquoted(own["name"]))
        else:
            types.append(kind)
    return ", ".join(types)


def _primary_keys(archive: Sequence[Entry]) -> dict[tuple[str, str], tuple[str, ...]]:
    keys = {}
    for entry in archive:
        if entry.kind == "CONSTRAINT" and (key := _PRIMARY_KEY.match(entry.definition.strip())):
            names = [column["name"] for column in _KEY_COLUMN.finditer(key["columns"])]
            table = (_unquoted(key["schema"]), _unquoted(key["table"]))
            keys[table] = tuple(_unquoted(name) for name in names)
    return keys


def _columns(archive: Sequence[Entry]) -> dict[tuple[str, str], dict[str, str]]:
    """Return the columns of each table of the archive, with their SQL types.

    The outer key is the schema and name of the table, and the inner key is the name of the column.
    A column that the definition of the table does not list is omitted.
    """
    tables = {}
    for entry in archive:
        if entry.kind in ("TABLE", "FOREIGN TABLE"):
            lines = [_COLUMN.match(line) for line in entry.definition.splitlines()]
            columns = {_unquoted(match["name"]): match["type"] for match in lines if match}
            tables[entry.schema, entry.name] = columns
    return tables


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
