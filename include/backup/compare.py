"""Comparing a restored database with its manifest: every table's rows, every foreign key."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from include.backup.archive import ArchiveReader, Entry, read_archive
from include.backup.child import ending_with_us
from include.backup.manifest import Manifest
from include.backup.restore import Source
from include.backup.stream import PIECE
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError
from include.services.programs import program

FOREIGN_KEYS = """
SELECT k.conname, n.nspname, c.relname, rn.nspname, rc.relname,
       array(SELECT a.attname FROM unnest(k.conkey) WITH ORDINALITY u(num, ord)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY ord),
       array(SELECT a.attname FROM unnest(k.confkey) WITH ORDINALITY u(num, ord)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY ord),
       k.confmatchtype
FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class rc ON rc.oid = k.confrelid JOIN pg_namespace rn ON rn.oid = rc.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND k.convalidated
ORDER BY 2, 3, 1
"""


@dataclass(frozen=True)
class Comparison:
    """How a restored database differs from the manifest.

    Attributes:
        compared: tables whose content was compared.
        different: labels of tables whose content is not the manifest's.
        missing: labels of tables that are not there at all.
        reordered: tables with the same rows in another order, which is no difference.
        same_schema: whether all definitions are the same.
    """

    compared: int
    different: tuple[str, ...]
    missing: tuple[str, ...]
    reordered: tuple[str, ...]
    same_schema: bool


def compare(source: Source, copy: DatabaseAddress) -> Comparison:
    """Compare every table's content with the manifest's checksums.

    The copy is dumped like the original, so that both sides are the same bytes if they are the same
    rows in the same order. PostgreSQL may load rows into other pages than before; a table whose
    checksum differs is therefore compared again, row by row without order, with the original
    archive, which is authentic because it was decrypted under the manifest's checksum.

    Raises:
        ServiceError: the copy cannot be dumped.
    """
    manifest = source.manifest
    found = _dump(copy)
    digests = {
        (entry.schema, entry.name): found.digests[entry.dump_id].sha256 for entry in found.tables()
    }
    missing, differing = [], []
    for table in manifest.tables:
        digest = digests.get((table.schema_name, table.name))
        if digest is None:
            missing.append(table.label)
        elif digest != table.sha256:
            differing.append((table.schema_name, table.name))
    different = _really_different(source, copy, found, differing) if differing else []
    return Comparison(
        compared=len(manifest.tables) - len(missing),
        different=tuple(f"{schema}.{name}" for schema, name in different),
        missing=tuple(missing),
        reordered=tuple(f"{s}.{n}" for s, n in differing if (s, n) not in different),
        same_schema=found.schema_sha256() == manifest.schema_sha256,
    )


def _really_different(
    source: Source,
    copy: DatabaseAddress,
    found: ArchiveReader,
    names: Sequence[tuple[str, str]],
) -> list[tuple[str, str]]:
    _, entries = source.head()
    with source.archive() as archive:
        original = read_archive(iter(lambda: archive.read(PIECE), b""), _ids(entries, names))
    again = _dump(copy, _ids(found.entries, names))
    before, after = _sums(original), _sums(again)
    _require_authentic(source.manifest, original, names)
    return [name for name in names if before[name] != after[name]]


def _require_authentic(
    manifest: Manifest, original: ArchiveReader, names: Sequence[tuple[str, str]]
) -> None:
    digests = {
        (entry.schema, entry.name): original.digests[entry.dump_id].sha256
        for entry in original.tables()
    }
    for table in manifest.tables:
        name = (table.schema_name, table.name)
        if name in names and digests[name] != table.sha256:
            raise ServiceError(
                f"The archive of {manifest.id} does not fit its own manifest in {table.label}.",
                "Do not use this restore point; raise an incident.",
            )


def _ids(entries: Sequence[Entry], names: Sequence[tuple[str, str]]) -> frozenset[int]:
    wanted = set(names)
    return frozenset(
        entry.dump_id
        for entry in entries
        if entry.kind == "TABLE DATA" and (entry.schema, entry.name) in wanted
    )


def _sums(reader: ArchiveReader) -> dict[tuple[str, str], int]:
    return {
        (entry.schema, entry.name): reader.row_sums[entry.dump_id]
        for entry in reader.tables()
        if entry.dump_id in reader.row_sums
    }


def _dump(address: DatabaseAddress, rows_of: frozenset[int] = frozenset()) -> ArchiveReader:
    command = [
        program("pg_dump"),
        "--format=custom",
        "--compress=none",
        "--no-password",
        f"--dbname={address.public_conninfo()}",
    ]
    with subprocess.Popen(
        ending_with_us(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=address.environment(),
    ) as process:
        output = process.stdout
        assert output is not None
        try:
            reader = ArchiveReader(rows_of=rows_of)
            while piece := output.read(PIECE):
                reader.feed(piece)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise ServiceError(
            f"The restored copy {address.place} cannot be read back.",
            "See the log of the server that holds it.",
        )
    reader.close()
    return reader


@dataclass(frozen=True)
class ForeignKeys:
    """Foreign keys looked at, and those with rows that point nowhere: name -> rows."""

    checked: int
    broken: dict[str, int]


def check_foreign_keys(copy: psycopg.Connection) -> ForeignKeys:
    """Count, for every foreign key, the rows whose parent does not exist."""
    keys = copy.execute(FOREIGN_KEYS).fetchall()
    return ForeignKeys(len(keys), {name: rows for name, rows in _orphans(copy, keys) if rows})


def _orphans(
    copy: psycopg.Connection, keys: Sequence[tuple[object, ...]]
) -> Iterator[tuple[str, int]]:
    for name, schema, table, parent_schema, parent, columns, targets, match in keys:
        pairs = list(zip(columns, targets, strict=True))  # type: ignore[call-overload] # catalogue
        same = sql.SQL(" AND ").join(
            sql.SQL("p.{} = c.{}").format(sql.Identifier(target), sql.Identifier(column))
            for column, target in pairs
        )
        # MATCH SIMPLE asks only about rows with all columns set, MATCH FULL about any.
        joined = sql.SQL(" OR " if match == "f" else " AND ").join(
            sql.SQL("c.{} IS NOT NULL").format(sql.Identifier(column)) for column, _ in pairs
        )
        query = sql.SQL(
            "SELECT count(*) FROM {child} c WHERE ({joined}) "
            "AND NOT EXISTS (SELECT FROM {parent} p WHERE {same})"
        ).format(
            child=sql.Identifier(str(schema), str(table)),
            parent=sql.Identifier(str(parent_schema), str(parent)),
            joined=joined,
            same=same,
        )
        row = copy.execute(query).fetchone()
        assert row is not None
        yield f"{schema}.{table}.{name}", int(row[0])
