"""Restore a database: fetch, verify, decrypt and load in parallel, without a clear file on disk.

pg_restore can only work in parallel on a file it can seek in, and there is no such file here. The
archive's head (schema, no rows) is kept in memory for the parts before and after the data, where
pg_restore runs its own jobs. The data is loaded by several pg_restore processes at once, each fed
by a stream of its own and told which tables are its share
(docs/decisions/0005-parallel-restore.md). Each stream is verified again, because the object may
change after it was checked (docs/decisions/0031-each-reader-verifies-what-it-reads.md).
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
from include.encryption.crypto import Refused
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
    """Return the tables, (schema, name), whose policies bind the role although it owns them.

    A role with BYPASSRLS, and a superuser, is bound by none.
    """
    with connected(copy) as connection:
        return _forced(connection)


@contextmanager
def policies_lifted(
    copy: DatabaseAddress, only: Collection[tuple[str, str]] | None = None
) -> Iterator[None]:
    """Let the owner of a restored copy's tables read and change all rows inside the block.

    The tables have ``NO FORCE ROW LEVEL SECURITY`` meanwhile, for every session. A process that is
    killed in the block leaves them so.

    Args:
        copy: a database that is not in use yet.
        only: tables, (schema, name), that may be changed; None for all.

    Raises:
        UsageError: the role is not the owner of such a table.
        ServiceError: the server failed.
    """
    with connected(copy) as connection:
        tables = [table for table in _forced(connection) if only is None or table in only]
        try:
            _alter(connection, tables, "NO FORCE")
        except psycopg.errors.InsufficientPrivilege:
            raise UsageError(
                f"Row-level security of {copy.place} is forced on tables that the role does not "
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
    """Return sorted labels of the objects and options that a restore leaves out.

    Owners and grants, which a restore without ``owners`` leaves out for every object, are not
    listed. Neither are roles, tablespaces and settings of the server, which no backup has.

    Args:
        entries: of the archive's table of contents.
        manifest: with the mappings whose options the backup's role could not read.
        owners: whether owners and grants are restored, and publications and subscriptions too.
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
        seconds: from the first byte fetched to the last index built.
        differences: tables whose row count is not the manifest's; empty when all fit.
        left_out: labels of objects and options that were not restored, see `left_out`.
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
    """Load a restore point into a database and compare its row counts with the manifest.

    Everything belongs to the role of the target then, and no other role has a right on it:
    `include.backup.access` sets owners and grants once the erasures were replayed.

    Args:
        source: checked before the target is changed.
        target: an existing database.
        jobs: loaders and index builders at once.
        owners: the caller sets owners and grants afterwards; `Restored.left_out` depends on it.
        allow_content: load into a database that already has tables.
        progress: is called with the name of each step.
        prepare: is called with the archive's head, as bytes and decoded, when the object was
            checked and nothing is loaded yet; its error ends the restore there.

    Raises:
        UsageError: the target is not empty, its server is older than the original's, or it lacks
            extensions, collations or a role.
        Refused: the key does not open the object, or the object is not the manifest's. Where it
            changed during the load, the target holds unverified rows, and the action says so.
        ServiceError: database or store failed.
    """
    tell = progress or (lambda _: None)
    if not target.name:
        raise UsageError("The target names no database.", "Write postgresql://.../DATABASE.")
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
    with in_memory(loadable_head(head, entries)) as archive, _never_say_drop(when=allow_content):
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
            close_functions(target, functions)  # one that needs a primary key is created only now
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
    """Refuse a target that is the live database itself.

    A live database whose server cannot be reached, or that was dropped, is not the target.

    Raises:
        UsageError: the target is the live database; or the live server refused the login, so that
            the two cannot be compared.
        ServiceError: the target's server cannot be reached.
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
                f"The target {target.place} is the live database.",
                "Restore into a new database, check it, then point the application to it.",
            )


def _not_compared(live: DatabaseAddress, reason: str) -> UsageError:
    return UsageError(
        f"The live database {live.place} cannot be compared with the target: {reason}",
        "Correct user, password and TLS of its connection: the target could be the live database. "
        "If it was dropped, create an empty database of its name; if its server accepts no user "
        "any more, stop the server. Then repeat the restore.",
    )


def refuse_content(target: DatabaseAddress) -> None:
    """Raise UsageError when the target has tables."""
    tables, is_closed = _content(target)
    if tables and is_closed:
        raise _half_copy(target, tables)
    if tables:
        raise UsageError(
            f"The target {target.place} is not empty: it has {tables} tables.",
            "Create a new database for the restore, or add --into-existing to load into this one.",
        )


def interrupted_copy(
    target: DatabaseAddress, *, had_content: bool, was_closed: bool
) -> UsageError | None:
    """Describe the content that an interrupted restore left in the target.

    Args:
        target: the database.
        had_content: the target may have had tables before the restore (`--into-existing`).
        was_closed: the restore closed the target to other roles.

    Returns:
        The message and the action; None if the target has no tables, or was opened.

    Raises:
        ServiceError: the database failed.
    """
    if had_content:
        return UsageError(f"The restore into {target.place} did not finish.", HAD_CONTENT)
    tables, is_closed = _content(target)
    if not tables or (was_closed and not is_closed):
        return None
    return _half_copy(target, tables, is_closed=is_closed)


def _content(target: DatabaseAddress) -> tuple[int, bool]:
    """Return the number of tables, and whether a restore that did not finish closed the target."""
    with connected(target) as connection:
        tables = connection.execute(ALL_TABLES).fetchall()
        row = connection.execute(_COMMENT).fetchone()
    return len(tables), row is not None and CLOSED in (row[0] or "")


def _half_copy(target: DatabaseAddress, tables: int, *, is_closed: bool = True) -> UsageError:
    name = target.name.replace('"', '""')
    state = " and is closed, as its comment says" if is_closed else ""
    return UsageError(
        f"The target {target.place} has {tables} tables{state}: it is the copy of an earlier "
        "restore that did not finish or did not open it.",
        f'If nobody needs that copy, drop it (DROP DATABASE "{name}"), create it again, and '
        "repeat the restore. Or restore into another new database.",
    )


def count_rows(target: DatabaseAddress, tables: Sequence[TableRecord]) -> dict[str, int]:
    """Count the rows of the manifest's tables in the target; a table it has not is left out."""
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
    # Its own descriptor: Airflow closes a task's /proc/PID/fd to everybody but root.
    command = [*words, f"/proc/self/fd/{archive}"]
    if error := RestoreProcess(command, target, jobs=jobs, pass_fds=(archive,)).failure():
        raise error


@contextmanager
def _never_say_drop(*, when: bool) -> Iterator[None]:
    """Change the action of an error: a target that had content must not be dropped."""
    try:
        yield
    except ServiceError as error:
        if when:
            error.action = HAD_CONTENT
        raise
    except Refused as error:
        if when:
            error.action = (
                "The target had content before, and holds data of the backup that was not "
                "verified: remove that. Use another restore point and raise an incident."
            )
        raise
