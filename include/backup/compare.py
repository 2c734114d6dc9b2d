"""Compare a restored copy with its restore point's manifest, and check the copy's foreign keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from include.backup.archive import (
    ArchiveError,
    ArchiveReader,
    read_archive,
    restored_definitions,
)
from include.backup.archive_entry import Entry
from include.backup.manifest import LargeObjectsRecord, Manifest
from include.backup.restore import forced_tables, policies_lifted
from include.backup.snapshot import PgDump
from include.backup.source import Source, refused
from include.encryption.stream import PIECE
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError

LARGE_OBJECTS = "pg_catalog.pg_largeobject"
# The query reads the operators of each foreign key. An operator that is only named could be
# another one in the search path (citext).
FOREIGN_KEYS = """
SELECT k.conname AS name, n.nspname AS schema, c.relname AS table, c.relkind = 'r' AS alone,
       rn.nspname AS parent_schema, rc.relname AS parent_table, rc.relkind = 'r' AS parent_alone,
       array(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(num, ord)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY ord)
           AS columns,
       array(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(num, ord)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY ord)
           AS targets,
       array(SELECT format('OPERATOR(%I.%s)', o_n.nspname, o.oprname)
             FROM unnest(k.conpfeqop) WITH ORDINALITY u(num, ord)
             JOIN pg_operator o ON o.oid = u.num
             JOIN pg_namespace o_n ON o_n.oid = o.oprnamespace ORDER BY ord) AS operators,
       k.confmatchtype = 'f' AS full_match,
       coalesce((to_jsonb(k) ->> 'conperiod')::boolean, false) AS with_period
FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class rc ON rc.oid = k.confrelid JOIN pg_namespace rn ON rn.oid = rc.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND k.convalidated
ORDER BY 2, 3, 1
"""


@dataclass(frozen=True)
class Definitions:
    """The objects whose definitions differ between the restored copy and the original.

    Attributes:
        missing: labels of objects that only the original has.
        added: labels of objects that only the restored copy has.
        changed: labels of objects that the original and the copy define differently.
    """

    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """The result of comparing a restored copy with the manifest of its restore point.

    Attributes:
        compared: number of tables whose content was compared.
        different: labels of tables whose content differs from the manifest. The label
            ``pg_catalog.pg_largeobject`` stands for the large objects.
        missing: labels of tables that the restored copy lacks.
        reordered: labels of tables that have the same rows in another order. These tables do not
            count as different.
        definitions: objects with different definitions.
        server_version: version of the server that contains the restored copy.
    """

    compared: int
    different: tuple[str, ...]
    missing: tuple[str, ...]
    reordered: tuple[str, ...]
    definitions: Definitions
    server_version: str = ""


def compare(source: Source, copy: DatabaseAddress) -> Comparison:
    """Compare all definitions and the content of every table of a restored copy with the manifest.

    The restored copy is dumped with the same options as the original. If a table has the same rows
    in the same order, its checksum then equals the checksum in the manifest. PostgreSQL may load
    rows in another order. Therefore, if the checksum of a table differs, the original archive and
    the copy are read again. In this second comparison, the order of the rows is ignored.

    Args:
        source: restore point with its manifest.
        copy: restored copy.

    Raises:
        ContentRefused: the restore point in the store differs from its manifest.
        UsageError: the restored copy cannot be opened, or its row-level security hides rows.
        ServiceError: the restored copy cannot be dumped.
    """
    manifest = source.manifest
    # FORCE ROW LEVEL SECURITY is part of a definition; pg_dump reads no rows while it is in force.
    forced = forced_tables(copy)
    dump = partial(_dump, copy, manifest.encoding or "UTF8")
    without_rows = dump(more=["--exclude-table-data=*.*"]) if forced else None
    with policies_lifted(copy):
        dumped = dump()
        digests = dumped.table_digests()
        missing, differing = [], []
        for table in manifest.tables:
            digest = digests.get((table.schema_name, table.name))
            if digest is None:
                missing.append(table.label)
            elif digest != table.sha256:
                differing.append((table.schema_name, table.name))
        different = _really_different(source, dump, dumped, differing) if differing else []
    labels = [f"{schema}.{name}" for schema, name in different]
    if LargeObjectsRecord.of(dumped.large_objects) != manifest.large_objects:
        labels.append(LARGE_OBJECTS)
    return Comparison(
        compared=len(manifest.tables) - len(missing),
        different=tuple(labels),
        missing=tuple(missing),
        reordered=tuple(f"{s}.{n}" for s, n in differing if (s, n) not in different),
        definitions=_compare_definitions(source, dumped, without_rows),
        server_version=dumped.server_version,
    )


def _compare_definitions(
    source: Source, dumped: ArchiveReader, without_rows: ArchiveReader | None
) -> Definitions:
    if without_rows is None and dumped.schema_sha256() == source.manifest.schema_sha256:
        return Definitions()
    copied = dumped.entries
    if without_rows:  # dumped while the policies of its tables were in force
        tables = [entry for entry in without_rows.entries if entry.kind == "TABLE"]
        copied = tables + [entry for entry in copied if entry.kind != "TABLE"]
    _, entries = source.head()
    before, after = restored_definitions(entries), restored_definitions(copied)
    return Definitions(
        missing=tuple(sorted(before.keys() - after.keys())),
        added=tuple(sorted(after.keys() - before.keys())),
        changed=tuple(
            sorted(label for label in before.keys() & after.keys() if before[label] != after[label])
        ),
    )


def _really_different(
    source: Source,
    dump: Callable[[frozenset[int]], ArchiveReader],
    dumped: ArchiveReader,
    names: Sequence[tuple[str, str]],
) -> list[tuple[str, str]]:
    _, entries = source.head()
    with source.archive() as archive:
        try:
            original = read_archive(iter(lambda: archive.read(PIECE), b""), _ids(entries, names))
        except ArchiveError as error:
            raise refused(source.manifest.dump.key, str(error)) from None
    again = dump(_ids(dumped.entries, names))
    before, after = _sums(original), _sums(again)
    _require_authentic(source.manifest, original, names)
    return [name for name in names if before[name] != after[name]]


def _require_authentic(
    manifest: Manifest, original: ArchiveReader, names: Sequence[tuple[str, str]]
) -> None:
    digests = original.table_digests()
    for table in manifest.tables:
        name = (table.schema_name, table.name)
        if name in names and digests[name] != table.sha256:
            raise ServiceError(
                f"The archive of {manifest.id} does not match its own manifest in {table.label}.",
                "Do not use this restore point. Open an incident.",
            )


def _ids(entries: Sequence[Entry], names: Sequence[tuple[str, str]]) -> frozenset[int]:
    tables = set(names)
    return frozenset(
        entry.dump_id
        for entry in entries
        if entry.kind == "TABLE DATA" and (entry.schema, entry.name) in tables
    )


def _sums(reader: ArchiveReader) -> dict[tuple[str, str], int]:
    return {
        (entry.schema, entry.name): reader.row_sums[entry.dump_id]
        for entry in reader.tables()
        if entry.dump_id in reader.row_sums
    }


def _dump(
    address: DatabaseAddress,
    encoding: str,
    rows_of: frozenset[int] = frozenset(),
    more: Sequence[str] = (),
) -> ArchiveReader:
    reader = ArchiveReader(rows_of=rows_of)
    with PgDump(address, encoding, more) as dump:
        for piece in dump.pieces():
            reader.feed(piece)
        code = dump.wait()
    if code:
        raise ServiceError(
            f"The restored copy {address.display_name} cannot be read.",
            "Read the log of its server.",
        )
    reader.close()
    return reader


@dataclass(frozen=True)
class ForeignKeys:
    """The result of checking the foreign keys of a restored copy row by row.

    Attributes:
        checked: number of checked foreign keys.
        broken: number of rows that refer to a missing row, by the label of the foreign key. Foreign
            keys without such rows are omitted.
    """

    checked: int
    broken: dict[str, int]


def check_foreign_keys(copy: psycopg.Connection) -> ForeignKeys:
    """Count, for each validated foreign key, the rows that refer to a missing row."""
    with copy.cursor(row_factory=class_row(_ForeignKey)) as cursor:
        keys = cursor.execute(FOREIGN_KEYS).fetchall()
    orphans = {key.label: _orphans(copy, key) for key in keys}
    return ForeignKeys(len(keys), {label: rows for label, rows in orphans.items() if rows})


@dataclass(frozen=True)
class _ForeignKey:
    name: str
    schema: str
    table: str
    alone: bool  # a plain table: the key does not cover rows of child tables
    parent_schema: str
    parent_table: str
    parent_alone: bool
    columns: list[str]
    targets: list[str]
    operators: list[str]
    full_match: bool
    with_period: bool

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.table}.{self.name}"


def _orphans(copy: psycopg.Connection, key: _ForeignKey) -> int:
    child = [sql.Identifier("c", name) for name in key.columns]
    parent = [sql.Identifier("p", name) for name in key.targets]
    same: list[sql.Composable] = [
        sql.SQL("{} {} {}").format(target, sql.SQL(operator), column)
        for target, operator, column in zip(parent, key.operators, child, strict=True)
    ]
    # MATCH SIMPLE checks only rows with all columns set, MATCH FULL rows with any.
    checked = sql.SQL(" OR " if key.full_match else " AND ").join(
        sql.SQL("{} IS NOT NULL").format(column) for column in child
    )
    if key.with_period:  # several parent rows together may cover the period
        covered = sql.SQL("coalesce(range_agg({}) @> {}, false)").format(parent[-1], child[-1])
        has_parent, same = sql.SQL("(SELECT {} ").format(covered), same[:-1]
    else:
        has_parent = sql.SQL("EXISTS (SELECT ").format()
    query = sql.SQL("SELECT count(*) FROM {} {} c WHERE ({}) AND NOT {} FROM {} {} p WHERE {})")
    row = copy.execute(
        query.format(
            _only(key.alone),
            sql.Identifier(key.schema, key.table),
            checked,
            has_parent,
            _only(key.parent_alone),
            sql.Identifier(key.parent_schema, key.parent_table),
            sql.SQL(" AND ").join(same or [sql.SQL("true")]),
        )
    ).fetchone()
    assert row is not None
    return int(row[0])


def _only(alone: bool) -> sql.SQL:
    return sql.SQL("ONLY" if alone else "")
