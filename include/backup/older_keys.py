"""Decide from an archive's head, before it is loaded, whether its erased records can be found.

The ledger names a record by the values of its table's primary key. A backup from before the table
had that key may hold records that no entry names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sqlalchemy import Engine

from include.backup.archive_entry import Entry
from include.erasure.ledger import entries as ledger_entries
from include.erasure.ledger import entries_by_key_types
from include.erasure.places import Place, order_of_key
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
    places: Mapping[str, Place],
    mapped_keys: Mapping[str, Sequence[str]],
    state: Engine,
    point: str,
) -> None:
    """Refuse a restore point whose records the entries of the ledger cannot name.

    The replay reports a table that the archive lacks: it is younger than the restore point, or had
    another name.

    Args:
        archive: entries of the archive's table of contents.
        database: name in the data map.
        places: collection -> table.
        mapped_keys: collection -> its key's columns in the data map.
        state: database of the ledger.
        point: id of the restore point.

    Raises:
        ControlFailed: names the collections and what to do.
    """
    keys = _primary_keys(archive)
    columns = _columns(archive)
    unfit: dict[str, int] = {}
    with state.connect() as conn:
        for collection in ledger_entries(conn, database):
            place = places.get(collection)
            if place is None or (place.schema, place.table) not in columns:
                continue
            table = columns[place.schema, place.table]
            key = keys.get((place.schema, place.table), ())
            for types, number in entries_by_key_types(conn, database, collection).items():
                if not _names_records(types, key, mapped_keys.get(collection, ()), table):
                    unfit[collection] = unfit.get(collection, 0) + number
    if unfit:
        listed = ", ".join(f"{name} ({number})" for name, number in sorted(unfit.items()))
        raise ControlFailed(
            f"Restore point {point} is older than the current primary key of a table, so "
            f"erased records of {listed} could not be found in it. Nothing was loaded.",
            "Restore a later point. Or mark the key's columns with `primary_key: true` in the data "
            "map, if the table had them then. Or restore with --skip-erasures, keep the copy "
            "closed, and erase these people by hand from their requests.",
        )


def _names_records(
    types: str | None, key: Sequence[str], mapped: Sequence[str], table: Mapping[str, str]
) -> bool:
    """Return whether entries whose keys are of these types name records; true where unclear."""
    if key and (types is None or _types(key, table) in (types, None)):
        return True
    return order_of_key(mapped, types, lambda columns: _types(columns, table)) is not None


def _types(columns: Sequence[str], table: Mapping[str, str]) -> str | None:
    """Return types as `include.erasure.places.types_of_key` does; None where they are unclear."""
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
    """Return the columns of each table with their types, as far as the definition lists them."""
    tables = {}
    for entry in archive:
        if entry.kind in ("TABLE", "FOREIGN TABLE"):
            lines = [_COLUMN.match(line) for line in entry.definition.splitlines()]
            columns = {_unquoted(it["name"]): it["type"] for it in lines if it}
            tables[entry.schema, entry.name] = columns
    return tables


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
