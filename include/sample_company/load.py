"""Loading the sample into an empty database, and telling two samples apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import psycopg
from psycopg import sql

from include.registry import logins
from include.sample_company import complaints, customers, governance, intake, staff, waybills
from include.sample_company.answers import AnswerSheet, Notes
from include.sample_company.columns import Table
from include.sample_company.incidents import incidents
from include.sample_company.world import Rates, World
from include.services.errors import UsageError

Progress = Callable[[str, int, int], None]
_FOLDER = Path(__file__).parent
_AHEAD = 3  # blocks made before the server took the first of them
MOST_CUSTOMERS = 20_000_000  # phones stay unique up to here


def load(
    connection: psycopg.Connection[Any],
    *,
    customers: int,
    seed: int = 20260101,
    as_of: datetime,
    rates: Rates | None = None,
    progress: Progress | None = None,
) -> AnswerSheet:
    """Fill an empty database with the sample courier's records, in one transaction.

    Args:
        connection: to the empty database, by a user who may create tables and types.
        customers: how many; the other tables follow from it (``Rates``).
        seed: of the dice.
        as_of: the sample's moment; its newest waybill is ten minutes older.
        rates: sizes and rates, else the usual ones.
        progress: told the step, what is done and the total of it (rows or statements).

    Returns:
        What was planted; the same for the same seed, size, moment and rates.

    Raises:
        UsageError: the database is not empty, the size is out of range, or ``as_of`` has no zone.
    """
    if not 0 <= customers <= MOST_CUSTOMERS:
        raise UsageError(f"The sample has 0 to {MOST_CUSTOMERS:,} customers, not {customers:,}.")
    if as_of.tzinfo is None:
        raise UsageError("The moment of the sample needs a time zone.")
    world = World(customers, seed, as_of.replace(microsecond=0), rates or Rates())
    notes = Notes()
    tell = progress or (lambda step, done, total: None)
    with connection.transaction():
        _require_empty(connection)
        _set_up(connection)
        connection.execute((_FOLDER / "tables.sql").read_bytes())
        _make_partitions(connection, world)
        counts = _fill(connection, _tables(world, notes), tell)
        for statement in statements(_FOLDER / "cycles.sql"):
            connection.execute(statement)
        _restart_identities(connection)
        notes.incidents = incidents(world)
        tell("analyze", 0, 1)
        _analyze(connection, counts)
        tell("analyze", 1, 1)
    return notes.sheet(seed, customers, world.as_of, counts)


def digest(connection: psycopg.Connection[Any], schema: str = "public") -> str:
    """Hash the content of every table of a schema, whatever the order of its rows.

    Two databases with the same rows have the same digest on the same server version.
    """
    lines: list[str] = []
    with connection.transaction():
        connection.execute("SET LOCAL TimeZone = 'UTC'")
        names = connection.execute(
            "SELECT c.relname FROM pg_class c WHERE c.relnamespace = %s::regnamespace "
            "AND c.relkind IN ('r', 'p') AND NOT c.relispartition",
            [schema],
        ).fetchall()
        for (name,) in sorted(names):
            row = connection.execute(
                sql.SQL(
                    "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0), "
                    "coalesce(sum(hashtextextended(t::text, 1)::numeric), 0) FROM {} t"
                ).format(sql.Identifier(schema, name))
            ).fetchone()
            assert row is not None
            lines.append(f"{name} {row[0]} {row[1]} {row[2]}\n")
    return sha256("".join(lines).encode()).hexdigest()


def _require_empty(connection: psycopg.Connection[Any]) -> None:
    row = connection.execute(
        "SELECT current_database(), min(n.nspname || '.' || c.relname) FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname NOT IN ('information_schema') AND n.nspname NOT LIKE 'pg\\_%'"
    ).fetchone()
    assert row is not None
    if row[1] is not None:
        raise UsageError(
            f"The database {row[0]} is not empty: it has {row[1]}.",
            "Give the sample a database of its own.",
        )


def _make_partitions(connection: psycopg.Connection[Any], world: World) -> None:
    for month in waybills.months(world):
        connection.execute(
            sql.SQL("CREATE TABLE {} PARTITION OF waybill FOR VALUES FROM ({}) TO ({})").format(
                sql.Identifier(month.name), sql.Literal(month.start), sql.Literal(month.end)
            )
        )


def _tables(world: World, notes: Notes) -> Iterator[Table]:
    yield from staff.build(world, notes)  # first: the others ask who was there
    for part in (customers, waybills, complaints, governance, intake):
        yield from part.build(world, notes)


def _copy(connection: psycopg.Connection[Any], table: Table, tell: Progress) -> int:
    # FREEZE: the tables are new in this transaction, so nobody has to visit the rows again.
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FREEZE)").format(
        sql.Identifier(table.name),
        sql.SQL(", ").join(sql.Identifier(one) for one in table.columns.split(", ")),
    )
    done = 0
    with connection.cursor() as cursor:
        tell(table.name, 0, table.total)
        with cursor.copy(statement) as copy:
            for block in _ahead(table.blocks):
                copy.write(block)
                done += block.count(b"\n")
                tell(table.name, done, max(table.total, done))
        return cursor.rowcount


def _ahead(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The same blocks, made in a thread while the server takes in the ones before."""
    queue: Queue[bytes | BaseException | None] = Queue(_AHEAD)
    given_up = False

    def make() -> None:
        try:
            for block in blocks:
                queue.put(block)
                if given_up:
                    return
            queue.put(None)
        except BaseException as error:  # noqa: BLE001 - handed over to the reader, raised there
            queue.put(error)

    maker = Thread(target=make, daemon=True)
    maker.start()
    try:
        while (item := queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        given_up = True
        while maker.is_alive():
            while not queue.empty():
                queue.get()
            maker.join(0.01)


def _set_up(connection: psycopg.Connection[Any]) -> None:
    settings = {
        "TimeZone": "UTC",
        "maintenance_work_mem": "256MB",
        "default_statistics_target": "10",  # autovacuum refines what matters
    }
    row = connection.execute(
        "SELECT has_parameter_privilege('session_replication_role', 'SET')"
    ).fetchone()
    if row == (True,):
        # As pg_restore --disable-triggers: the rows are right by construction (and by test), and
        # looking up every reference would take as long as everything else. Who may not set this
        # has the references checked row by row.
        settings["session_replication_role"] = "replica"
    for name, value in settings.items():
        connection.execute("SELECT set_config(%s, %s, true)", [name, value])


def _fill(
    connection: psycopg.Connection[Any], tables: Iterator[Table], tell: Progress
) -> dict[str, int]:
    """Copy each table between making its foreign keys and its indexes; return rows by table."""
    keys, references = _by_table("keys.sql"), _by_table("references.sql")
    counts: dict[str, int] = {}
    for name, parts in groupby(tables, key=lambda table: table.parent or table.name):
        for statement in references.get(name, ()):
            connection.execute(statement)
        counts[name] = sum(_copy(connection, part, tell) for part in parts)
        for statement in keys.get(name, ()):
            connection.execute(statement)
    return counts


def _analyze(connection: psycopg.Connection[Any], names: Iterable[str]) -> None:
    """Gather statistics; of waybills on what is searched only, since 38 times labels take long."""
    for name in names:
        statement = sql.SQL("ANALYZE {}").format(sql.Identifier(name))
        if name == "waybill":
            searched = map(sql.Identifier, waybills.SEARCHED)
            statement += sql.SQL(" ({})").format(sql.SQL(", ").join(searched))
        connection.execute(statement)


def _by_table(file: str) -> dict[str, list[bytes]]:
    """The statements of a file by the table they are about."""
    found: dict[str, list[bytes]] = {}
    for statement in statements(_FOLDER / file):
        about = re.match(rb"(?:ALTER TABLE|CREATE INDEX ON) (\w+)", statement)
        assert about, statement
        found.setdefault(about[1].decode(), []).append(statement)
    return found


def statements(file: Path) -> list[bytes]:
    """Return the statements of an SQL file; none of them has a semicolon inside."""
    lines = file.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("--"))
    return [one.strip().encode() for one in text.split(";") if one.strip()]


def grant(connection: psycopg.Connection[Any]) -> None:
    """Give the courier's roles their rights on the sample's tables; an older sample gets them too.

    Args:
        connection: of the tables' owner.
    """
    for login in logins():
        for statement in statements(login.sample_grants):
            connection.execute(statement)


def _restart_identities(connection: psycopg.Connection[Any]) -> None:
    columns = connection.execute(
        "SELECT table_name, column_name FROM information_schema.columns "
        "WHERE table_schema = 'public' AND is_identity = 'YES'"
    ).fetchall()
    partitions = {
        name for (name,) in connection.execute("SELECT relname FROM pg_class WHERE relispartition")
    }
    for table, column in columns:
        if table not in partitions:
            connection.execute(
                sql.SQL(
                    "SELECT setval(pg_get_serial_sequence({}, {}), "
                    "(SELECT coalesce(max({}), 0) + 1 FROM {}), false)"
                ).format(
                    sql.Literal(table), sql.Literal(column),
                    sql.Identifier(column), sql.Identifier(table),
                )
            )  # fmt: skip
