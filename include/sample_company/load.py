"""Load the sample database into an empty database, and compute a hash of a database's content."""

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
from include.sample_company.answers import AnswerSheet, AnswerSheetBuilder
from include.sample_company.columns import Table
from include.sample_company.incidents import incidents
from include.sample_company.world import Rates, World
from include.services.errors import UsageError

Progress = Callable[[str, int, int], None]
_FOLDER = Path(__file__).parent
_MOST_WAITING_BLOCKS = 3  # generated blocks that wait for the server
MOST_CUSTOMERS = 20_000_000  # phones are unique up to this number


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
        connection: connection to the empty database, with a login that may create tables and types.
        customers: number of customers. The sizes of other tables follow from it (see `Rates`).
        seed: seed of the random numbers.
        as_of: time for which the records are generated; the newest waybill is ten minutes older.
        rates: sizes of the tables and rates of deliberate defects; None for the defaults.
        progress: callback that receives the name of the table that is filled, the number of its
            finished rows, and its total number of rows. In the last step, the name is ``analyze``.

    Returns:
        The answer sheet: the defects that the controls should find in the sample, and other
            expected results. It depends only on ``customers``, ``seed``, ``as_of`` and ``rates``.

    Raises:
        UsageError: the database is not empty, the number of customers is out of range, or ``as_of``
            has no timezone.
    """
    if not 0 <= customers <= MOST_CUSTOMERS:
        raise UsageError(f"The sample has 0 to {MOST_CUSTOMERS:,} customers, not {customers:,}.")
    if as_of.tzinfo is None:
        raise UsageError("The moment of the sample needs a time zone.")
    world = World(customers, seed, as_of.replace(microsecond=0), rates or Rates())
    sheet_builder = AnswerSheetBuilder()
    report = progress or (lambda step, done, total: None)
    with connection.transaction():
        _require_empty(connection)
        _set_up(connection)
        connection.execute((_FOLDER / "tables.sql").read_bytes())
        _make_partitions(connection, world)
        counts = _fill(connection, _tables(world, sheet_builder), report)
        for statement in statements(_FOLDER / "cycles.sql"):
            connection.execute(statement)
        _restart_identities(connection)
        sheet_builder.incidents = incidents(world)
        report("analyze", 0, 1)
        _analyze(connection, counts)
        report("analyze", 1, 1)
    return sheet_builder.sheet(seed, customers, world.as_of, counts)


def digest(connection: psycopg.Connection[Any], schema: str = "public") -> str:
    """Return a hash of the content of all tables of a schema.

    Two databases with the same rows have the same hash if their servers have the same version of
    PostgreSQL. The order of the rows does not matter.
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
            "Use an empty database for the sample.",
        )


def _make_partitions(connection: psycopg.Connection[Any], world: World) -> None:
    for month in waybills.months(world):
        connection.execute(
            sql.SQL("CREATE TABLE {} PARTITION OF waybill FOR VALUES FROM ({}) TO ({})").format(
                sql.Identifier(month.name), sql.Literal(month.start), sql.Literal(month.end)
            )
        )


def _tables(world: World, sheet_builder: AnswerSheetBuilder) -> Iterator[Table]:
    yield from staff.build(
        world, sheet_builder
    )  # first, because the other tables need the employees
    for part in (customers, waybills, complaints, governance, intake):
        yield from part.build(world, sheet_builder)


def _copy(connection: psycopg.Connection[Any], table: Table, report: Progress) -> int:
    # FREEZE: the tables are new in this transaction, so no later VACUUM has to freeze the rows.
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FREEZE)").format(
        sql.Identifier(table.name),
        sql.SQL(", ").join(sql.Identifier(part) for part in table.columns.split(", ")),
    )
    copied = 0
    with connection.cursor() as cursor:
        report(table.name, 0, table.total)
        with cursor.copy(statement) as copy:
            for block in _generate_in_thread(table.blocks):
                copy.write(block)
                copied += block.count(b"\n")
                report(table.name, copied, max(table.total, copied))
        return cursor.rowcount


def _generate_in_thread(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield blocks of rows, which a separate thread generates.

    The thread generates the next blocks while the server processes the previous ones.

    Args:
        blocks: generator of the blocks, which the thread runs.
    """
    queue: Queue[bytes | BaseException | None] = Queue(_MOST_WAITING_BLOCKS)
    is_cancelled = False

    def generate() -> None:
        try:
            for block in blocks:
                queue.put(block)
                if is_cancelled:
                    return
            queue.put(None)
        except BaseException as error:  # noqa: BLE001 - the reading thread raises it
            queue.put(error)

    generator = Thread(target=generate, daemon=True)
    generator.start()
    try:
        while (item := queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        is_cancelled = True
        while generator.is_alive():
            while not queue.empty():
                queue.get()
            generator.join(0.01)


def _set_up(connection: psycopg.Connection[Any]) -> None:
    settings = {
        "TimeZone": "UTC",
        "maintenance_work_mem": "256MB",
        "default_statistics_target": "10",  # autovacuum refines the statistics later
    }
    row = connection.execute(
        "SELECT has_parameter_privilege('session_replication_role', 'SET')"
    ).fetchone()
    if row == (True,):
        # Like pg_restore --disable-triggers: the generated rows are valid, and checking each
        # reference would double the time. Without this privilege, the server checks them.
        settings["session_replication_role"] = "replica"
    for name, value in settings.items():
        connection.execute("SELECT set_config(%s, %s, true)", [name, value])


def _fill(
    connection: psycopg.Connection[Any], tables: Iterator[Table], report: Progress
) -> dict[str, int]:
    """Fill the tables one after another, and return the number of rows of each table.

    For each table, the foreign keys are created first, then the rows are copied, then primary keys
    and indexes are created.

    Args:
        connection: connection to the empty database, in a transaction.
        tables: tables to fill. The partitions of a table follow each other.
        report: callback that receives the name of the table, the number of copied rows, and the
            total number of rows.
    """
    keys, references = _by_table("keys.sql"), _by_table("references.sql")
    counts: dict[str, int] = {}
    for name, parts in groupby(tables, key=lambda table: table.parent or table.name):
        for statement in references.get(name, ()):
            connection.execute(statement)
        counts[name] = sum(_copy(connection, part, report) for part in parts)
        for statement in keys.get(name, ()):
            connection.execute(statement)
    return counts


def _analyze(connection: psycopg.Connection[Any], names: Iterable[str]) -> None:
    """Update the statistics that PostgreSQL's query planner uses for some tables.

    In the table of waybills, only the columns that queries search are analysed, because analysing
    all columns would take long.
    """
    for name in names:
        statement = sql.SQL("ANALYZE {}").format(sql.Identifier(name))
        if name == "waybill":
            searched = map(sql.Identifier, waybills.SEARCHED)
            statement += sql.SQL(" ({})").format(sql.SQL(", ").join(searched))
        connection.execute(statement)


def _by_table(file: str) -> dict[str, list[bytes]]:
    """Return the statements of an SQL file: name of the table -> statements.

    A statement belongs to the table that it alters, or for which it creates an index.
    """
    by_table: dict[str, list[bytes]] = {}
    for statement in statements(_FOLDER / file):
        match = re.match(rb"(?:ALTER TABLE|CREATE INDEX ON) (\w+)", statement)
        assert match, statement
        by_table.setdefault(match[1].decode(), []).append(statement)
    return by_table


def statements(file: Path) -> list[bytes]:
    """Split an SQL file at semicolons, and return its statements without comments."""
    lines = file.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("--"))
    return [part.strip().encode() for part in text.split(";") if part.strip()]


def grant(connection: psycopg.Connection[Any]) -> None:
    """Grant the database roles of the sample courier their rights on its tables.

    The call can be repeated. For a sample database that an earlier version of ParcelSeal loaded, it
    grants the rights that were added since then.

    Args:
        connection: connection of the owner of the tables.
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
