"""Restore a database: download, verify, decrypt and load in parallel, without plaintext on disk.

pg_restore can load in parallel only from a seekable file. A restore reads the archive as a stream,
so there is no such file of the whole archive. Therefore, the head of the archive, which contains
the schema and no rows, is kept as a file in memory. From this file, pg_restore creates tables
before the rows are loaded, and indexes and constraints afterwards. The rows are loaded by several
pg_restore processes at the same time. Each process receives its own stream of the archive and the
list of the tables that it loads (docs/decisions/0005-parallel-restore.md). Each stream is verified,
because the object in the store may have changed after it was checked
(docs/decisions/0031-each-reader-verifies-what-it-reads.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psycopg
from psycopg import sql

from include.backup.access import CLOSED, close_functions, definers_of
from include.backup.archive_entry import Entry, loadable_head
from include.backup.manifest import Manifest, TableRecord
from include.backup.restore_program import RestoreProcess, RestoreTarget, in_memory, load_rows
from include.backup.server_needs import DatabaseLocale, require_fitting_target, require_needs
from include.backup.snapshot import ALL_TABLES
from include.backup.source import Source
from include.encryption.crypto import ContentRefused
from include.services.database import (
    DatabaseAddress,
    DatabaseMissing,
    DatabaseUnavailable,
    connected,
)
from include.services.errors import ParcelSealError, ServiceError, UsageError

FORCED = """
SELECT n.nspname, c.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_roles r ON r.rolname = current_user AND NOT (r.rolsuper OR r.rolbypassrls)
WHERE c.relkind IN ('r', 'p') AND c.relforcerowsecurity ORDER BY 1, 2
"""


def forced_tables(copy: DatabaseAddress) -> list[tuple[str, str]]:
    """Return the schema and name of each table whose row-level security also applies to its owner.

    The list is empty for a superuser or a role with BYPASSRLS, because row-level security does not
    apply to them.
    """
    with connected(copy) as connection:
        return _forced(connection)


@contextmanager
def policies_lifted(
    copy: DatabaseAddress, only: Collection[tuple[str, str]] | None = None
) -> Iterator[None]:
    """Let the owner of a restored copy's tables read and change all rows during the block.

    During the block, the tables have ``NO FORCE ROW LEVEL SECURITY`` for every session. If the
    process is killed in the block, the tables keep this setting.

    Args:
        copy: restored copy that no application uses yet.
        only: schema and name of each table that is changed in this way; None for all tables.

    Raises:
        UsageError: row-level security is forced on one of these tables, and the role does not own
            the table.
        ServiceError: the server failed.
    """
    with connected(copy) as connection:
        tables = [table for table in _forced(connection) if only is None or table in only]
        try:
            _alter(connection, tables, "NO FORCE")
        except psycopg.errors.InsufficientPrivilege:
            raise UsageError(
                f"Row-level security of {copy.display_name} is forced on tables that the "
                f"role does not "
                "own, and may hide rows from it.",
                "Use the role that owns the tables, or let it read everything: "
                "ALTER ROLE ... BYPASSRLS.",
            ) from None
    try:
        yield
    except BaseException:
        with suppress(ParcelSealError):  # the first error is reported
            _force(copy, tables)
        raise
    _force(copy, tables)


def _force(copy: DatabaseAddress, tables: list[tuple[str, str]]) -> None:
    if tables:
        with connected(copy) as connection:
            _alter(connection, tables, "FORCE")


def _forced(connection: psycopg.Connection) -> list[tuple[str, str]]:
    return [(schema, name) for schema, name in connection.execute(FORCED)]


def _alter(connection: psycopg.Connection, tables: list[tuple[str, str]], force: str) -> None:
    for table in tables:
        connection.execute(
            sql.SQL("ALTER TABLE {} {} ROW LEVEL SECURITY").format(
                sql.Identifier(*table),
                sql.SQL(force),
            )
        )


ALWAYS = {"DATABASE PROPERTIES"}  # ALTER DATABASE ... SET names the original database
WITHOUT_OWNERS = {"PUBLICATION", "SUBSCRIPTION"}


def left_out(entries: Iterable[Entry], manifest: Manifest, *, owners: bool) -> tuple[str, ...]:
    """Return the labels of the objects and options in a backup that a restore omits, sorted.

    Owners and grants are never listed, because a restore without ``owners`` omits them for every
    object. Roles, tablespaces and settings of the server are never listed either, because no backup
    contains them.

    Args:
        entries: entries of the archive's table of contents.
        manifest: manifest, which names the user mappings whose options could not be read.
        owners: whether owners, grants, publications and subscriptions are restored.
    """
    kinds = ALWAYS if owners else ALWAYS | WITHOUT_OWNERS
    labels = {entry.label for entry in entries if entry.kind in kinds}
    mappings = {f"options of USER MAPPING {name}" for name in manifest.mappings_without_options}
    return tuple(sorted(labels | mappings))


# Identifies a database and the start of its server, under any name or address.
WHO_AM_I = (
    "SELECT oid, pg_postmaster_start_time() FROM pg_database WHERE datname = current_database()"
)

_COMMENT = """
SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()
"""
HAD_CONTENT = "The target had content before, and may hold part of the backup now."


@dataclass(frozen=True)
class Restored:
    """The result of a restore.

    Attributes:
        tables: number of restored tables.
        rows: number of restored rows.
        seconds: time in seconds from the start of the download until all indexes and constraints
            are built.
        differences: labels of tables whose number of rows differs from the manifest.
        left_out: labels of objects and options that were not restored, as the function `left_out`
            returns them.
    """

    tables: int
    rows: int
    seconds: float
    differences: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def restore(
    source: Source,
    target: DatabaseAddress,
    *,
    jobs: int = 2,
    owners: bool = False,
    allow_content: bool = False,
    progress: Callable[[str], None] | None = None,
    prepare: Callable[[bytes, Sequence[Entry]], None] | None = None,
) -> Restored:
    """Load a restore point into a database, and compare its row counts with the manifest.

    After the call, the login of the target owns all restored objects, and no other role has a right
    on them. `include.backup.access` sets owners and grants later, when the erased records have been
    deleted again.

    Args:
        source: restore point, which is checked before the target is changed.
        target: existing database into which the restore point is loaded.
        jobs: number of concurrent processes that load rows or build indexes.
        owners: whether the caller sets owners and grants, and creates publications and
            subscriptions, after this call. If so, `Restored.left_out` does not list the
            publications and subscriptions.
        allow_content: whether the target may already have tables.
        progress: function that is called with the name of each step.
        prepare: function that is called with the archive's head, as bytes and as decoded entries.
            It is called after the check of the restore point and before anything is loaded. If it
            raises an error, nothing is loaded.

    Raises:
        UsageError: the target is not empty, its server is older than the server of the original, or
            the server lacks extensions, collations or a role.
        ContentRefused: the key cannot decrypt the backup, or the backup differs from the manifest.
            If the backup was changed during the load, the target contains unverified rows, and the
            action of the error says so.
        ServiceError: the database or the store failed.
    """
    tell = progress or (lambda _: None)
    if not target.name:
        raise UsageError("The target has no database name.", "Write postgresql://.../DATABASE.")
    require_fitting_target(source.manifest, target)
    if not allow_content:
        refuse_content(target)
    started = time.monotonic()
    head, entries = source.head()
    require_needs(entries, target)
    _report_other_collation(entries, target, tell)
    tell("checking the object against the manifest")
    source.check()
    if prepare:
        prepare(head, entries)
    # Tablespaces belong to the server, and the target's need not have the same.
    options = ["--no-tablespaces", "--no-owner", "--no-privileges"]
    options += ["--no-publications", "--no-subscriptions"]
    load_target = RestoreTarget.of(target)
    with (
        in_memory(loadable_head(head, entries)) as archive,
        _without_drop_advice(when=allow_content),
    ):
        tell("creating the schema")
        functions = definers_of(target)
        _pg_restore([*options, "--section=pre-data"], archive, load_target)
        close_functions(target, functions)
        created = {(entry.schema, entry.name) for entry in entries if entry.kind == "TABLE"}
        with policies_lifted(target, created):
            tell(f"loading {len(source.manifest.tables)} tables")
            load_rows(source, head, entries, load_target, options, jobs)
            tell("building indexes and constraints")
            _pg_restore([*options, "--section=post-data"], archive, load_target, jobs)
            close_functions(target, functions)  # includes functions that need a primary key
            seconds = time.monotonic() - started
            tell("counting rows")
            counted = count_rows(target, source.manifest.tables)
    return Restored(
        tables=len(counted),
        rows=sum(counted.values()),
        seconds=seconds,
        differences=tuple(
            table.label
            for table in source.manifest.tables
            if counted.get(table.label) != table.rows
        ),
        left_out=left_out(entries, source.manifest, owners=owners),
    )


def _report_other_collation(
    entries: Sequence[Entry], target: DatabaseAddress, tell: Callable[[str], None]
) -> None:
    original = DatabaseLocale.of_archive(entries)
    with connected(target) as connection:
        own = DatabaseLocale.of_database(connection)
    if not original.sorts_like(own):
        tell(
            f"the target sorts texts by {own.collation}, the original by {original.collation}; "
            f"CREATE DATABASE ... {original.options} gives the same order"
        )


def refuse_live(target: DatabaseAddress, live: DatabaseAddress) -> None:
    """Refuse to restore into the live database.

    If the live database was dropped, or if its server cannot be reached, the target is accepted
    without a comparison.

    Args:
        target: database into which a backup is to be restored.
        live: live database.

    Raises:
        UsageError: the target is the live database. Also raised if the live server refused the
            login, because the two databases can then not be compared.
        ServiceError: the server of the target cannot be reached.
    """
    try:
        with connected(live) as connection:
            itself = connection.execute(WHO_AM_I).fetchone()
    except DatabaseMissing:
        return
    except DatabaseUnavailable as error:
        if not error.answered:
            return
        raise _not_compared(live, error.message) from None
    except (ServiceError, UsageError) as error:
        raise _not_compared(live, error.message) from None
    with connected(target) as connection:
        if connection.execute(WHO_AM_I).fetchone() == itself:
            raise UsageError(
                f"The target {target.display_name} is the live database.",
                "Restore into a new database, check it, then point the application to it.",
            )


def _not_compared(live: DatabaseAddress, reason: str) -> UsageError:
    return UsageError(
        f"The live database {live.display_name} cannot be compared with the target: {reason}",
        "Correct user, password and TLS of its connection: the target could be the live database. "
        "If the live database was dropped, create an empty database with its name. If its server "
        "does not accept users any more, stop the server. Then repeat the restore.",
    )


def refuse_content(target: DatabaseAddress) -> None:
    """Raise UsageError if the target has tables."""
    tables, is_closed = _content(target)
    if tables and is_closed:
        raise _half_copy(target, tables)
    if tables:
        raise UsageError(
            f"The target {target.display_name} is not empty: it has {tables} tables.",
            "Create a new database for the restore, or add --into-existing to load into this one.",
        )


def interrupted_copy(
    target: DatabaseAddress, *, had_content: bool, was_closed: bool
) -> UsageError | None:
    """Return the error that tells the user what an interrupted restore left in the target.

    Args:
        target: database into which the backup was restored.
        had_content: whether the target may have had tables before the restore (`--into-existing`).
        was_closed: whether the restore closed the target to other roles.

    Returns:
        The error. If ``had_content`` is False, the result is None in two cases: the target has no
        tables, or the restore had already opened the target to other roles again.

    Raises:
        ServiceError: the database failed.
    """
    if had_content:
        return UsageError(f"The restore into {target.display_name} did not finish.", HAD_CONTENT)
    tables, is_closed = _content(target)
    if not tables or (was_closed and not is_closed):
        return None
    return _half_copy(target, tables, is_closed=is_closed)


def _content(target: DatabaseAddress) -> tuple[int, bool]:
    """Return the number of tables in a restore's target, and whether the target is closed.

    A restore closes its target to other roles. It writes the text `CLOSED` in the database comment,
    and removes this text when it opens the target again.
    """
    with connected(target) as connection:
        tables = connection.execute(ALL_TABLES).fetchall()
        row = connection.execute(_COMMENT).fetchone()
    return len(tables), row is not None and CLOSED in (row[0] or "")


def _half_copy(target: DatabaseAddress, tables: int, *, is_closed: bool = True) -> UsageError:
    name = target.name.replace('"', '""')
    state = " and is closed, as its comment says" if is_closed else ""
    return UsageError(
        f"The target {target.display_name} has {tables} tables{state}: it is the copy of an "
        f"earlier "
        "restore that did not finish or did not open it.",
        f'If the copy is not needed, drop it (DROP DATABASE "{name}"), create the database again, '
        "and repeat the restore. Otherwise restore into another new database.",
    )


def count_rows(target: DatabaseAddress, tables: Sequence[TableRecord]) -> dict[str, int]:
    """Return the number of rows of each of the given tables in a restored copy, by table label.

    Tables that the copy lacks are omitted.

    Args:
        target: restored copy.
        tables: tables of the manifest.
    """
    counted = {}
    with connected(target) as connection:
        for table in tables:
            query = sql.SQL("SELECT count(*) FROM ONLY {}").format(
                sql.Identifier(table.schema_name, table.name)
            )
            try:
                row = connection.execute(query).fetchone()
            except psycopg.errors.UndefinedTable:
                connection.rollback()
                continue
            counted[table.label] = int(row[0]) if row else 0
    return counted


def _pg_restore(words: Sequence[str], archive: int, target: RestoreTarget, jobs: int = 1) -> None:
    # pg_restore reads its own descriptor: only root can read /proc/PID/fd of an Airflow task.
    command = [*words, f"/proc/self/fd/{archive}"]
    if error := RestoreProcess(command, target, jobs=jobs, pass_fds=(archive,)).failure():
        raise error


@contextmanager
def _without_drop_advice(*, when: bool) -> Iterator[None]:
    """Replace the advice of an error in the block, so that it does not say to drop the target.

    Args:
        when: True if the target may have had tables before the restore. If False, errors are not
            changed.
    """
    try:
        yield
    except ServiceError as error:
        if when:
            error.action = HAD_CONTENT
        raise
    except ContentRefused as error:
        if when:
            error.action = (
                "The target had content before, and now has data of the backup that was not "
                "verified: remove that data. Use another restore point, and open an incident."
            )
        raise
