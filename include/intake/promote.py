"""Letting a batch in, or turning it down: one transaction, exactly once.

A row is promoted by the same statement that takes it out of `pending`, so no retry can do it again.
The moment of the decision is written as the review's time: a task that was killed after the commit
finds its own work by it and reports the same figures.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from include.intake.checks import Key
from include.intake.names import Incoming
from include.policy.fragments import pack_sql
from include.policy.intake import Target
from include.services.errors import ControlFailed, ServiceError, UsageError

_ROW = "batch_rows"


@dataclass(frozen=True)
class Settled:
    """The result of a decision about a batch.

    Attributes:
        promoted: incoming rows with a formal record.
        set_aside: rows that break a rule, in a batch that was let in.
        rejected: rows of a batch that was turned down.
        records: formal records by collection; empty when only counted afterwards.
    """

    promoted: int = 0
    set_aside: int = 0
    rejected: int = 0
    records: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """All rows that the decision settled."""
        return self.promoted + self.set_aside + self.rejected


def settled_by(
    connection: psycopg.Connection[Any],
    incoming: Incoming,
    batch: str,
    *,
    reviewer: Any,
    at: datetime,
    approved: bool,
) -> Settled:
    """Return what a decision has done already; nothing yet is no rows."""
    query = incoming.sql(
        "SELECT count(*) FILTER (WHERE {state} = {promoted}), "
        "count(*) FILTER (WHERE {state} IN ({rejected}, {set_aside})) FROM {table} WHERE "
        "{batch} = {name} AND {reviewed_by} = %(reviewer)s AND {reviewed_at} = %(at)s",
        name=Literal(batch),
    )
    row = connection.execute(query, {"reviewer": reviewer, "at": at}).fetchone()
    assert row is not None
    return Settled(row[0], row[1]) if approved else Settled(row[0], rejected=row[1])


def promote(
    connection: psycopg.Connection[Any],
    incoming: Incoming,
    batch: str,
    *,
    reviewer: Any,
    at: datetime,
    broken: Collection[Key],
) -> Settled:
    """Make the formal records of a batch and settle its rows; call it inside of `unit_of_work`.

    One statement numbers the good rows, inserts into every target and marks these rows. Foreign
    keys are checked at its end, so targets may refer to each other in a circle. A second statement
    marks what is left pending, the rows that are set aside.

    Args:
        connection: may write to targets and the incoming table.
        incoming: the table.
        batch: its name.
        reviewer: staff key of who let it in.
        at: when.
        broken: primary keys of rows that break a rule; they are set aside.

    Raises:
        ControlFailed: the database does not take a record, or took another number of rows; the
            SQLSTATE is named, its words may quote a value.
        ServiceError: a row was changed meanwhile; repeat it.
    """
    statement = _statement(connection, incoming, batch, leave_out=bool(broken))
    parameters = {"reviewer": reviewer, "at": at, **incoming.listed_keys(broken)}
    row = _execute(connection, statement, parameters, batch).fetchone()
    assert row is not None
    rows, marked, *made = row
    if rows != marked:
        raise ControlFailed(
            f"The incoming table let only {marked} of {rows} rows of {batch} be marked.",
            "A trigger or row security stands in the way. Nothing was promoted.",
        )
    records: dict[str, int] = {}
    for target, count in zip(incoming.rule.targets, made, strict=True):
        records[target.collection] = records.get(target.collection, 0) + count
    aside = _mark(connection, incoming, batch, incoming.rule.state.set_aside, reviewer, at)
    if aside != len(broken):
        raise ControlFailed(
            f"{len(broken)} rows of {batch} break a rule, and {aside} were set aside.",
            "Their keys cannot be told from others. Nothing was promoted.",
        )
    return Settled(rows, set_aside=aside, records=records)


def reject(
    connection: psycopg.Connection[Any],
    incoming: Incoming,
    batch: str,
    *,
    reviewer: Any,
    at: datetime,
) -> Settled:
    """Turn a batch down; call it inside of `unit_of_work`."""
    state = incoming.rule.state.rejected
    return Settled(rejected=_mark(connection, incoming, batch, state, reviewer, at))


def _mark(
    connection: psycopg.Connection[Any],
    incoming: Incoming,
    batch: str,
    state: str,
    reviewer: Any,
    at: datetime,
) -> int:
    statement = incoming.sql(
        "UPDATE {table} SET {state} = {value}, {reviewed_by} = %(reviewer)s, "
        "{reviewed_at} = %(at)s WHERE {waits}",
        value=Literal(state),
        waits=incoming.pending(batch),
    )
    return _execute(connection, statement, {"reviewer": reviewer, "at": at}, batch).rowcount


def _execute(
    connection: psycopg.Connection[Any], statement: Composed, given: dict[str, Any], batch: str
) -> psycopg.Cursor[Any]:
    try:
        return connection.execute(statement, given)
    except (psycopg.IntegrityError, psycopg.DataError) as error:
        raise ControlFailed(
            f"The database does not take a record of {batch} (SQLSTATE {error.sqlstate}).",
            "Nothing was promoted. Add a check to intake.yaml that names such rows, or mend them.",
        ) from None
    except psycopg.errors.SerializationFailure:
        raise ServiceError(
            f"A row of {batch} was changed while it was being settled.",
            "Nothing was written. The task is repeated and looks at the batch anew.",
        ) from None
    except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled) as error:
        raise ServiceError(
            f"{batch} could not be settled in time (SQLSTATE {error.sqlstate}).",
            "Nothing was written, and the task is repeated. See in pg_locks who keeps its rows, or "
            "the tables of its records, locked.",
        ) from None
    except psycopg.ProgrammingError as error:
        raise UsageError(
            f"The database refuses the promotion of {batch} (SQLSTATE {error.sqlstate}).",
            "Check intake.yaml, and the rights of its connection: docs/intake.md lists them.",
        ) from None


def _statement(
    connection: psycopg.Connection[Any], incoming: Incoming, batch: str, *, leave_out: bool
) -> Composed:
    """Return the statement that promotes; rows of the parameters `listed_keys` may be left out."""
    rule = incoming.rule
    inserts = [
        SQL("t{number} AS ({insert} RETURNING 1)").format(
            number=SQL(str(number)), insert=_insert(incoming, target)
        )
        for number, target in enumerate(rule.targets)
    ]
    marked = incoming.sql(
        "marked AS (UPDATE {table} AS u SET {state} = {promoted}, {reviewed_by} = r.reviewer, "
        "{reviewed_at} = r.at, {back_reference} = i.{key} FROM {rows} AS i, r "
        "WHERE {same} AND u.{state} = {pending} RETURNING 1)",
        key=Identifier(rule.back_reference.key),
        rows=Identifier(_ROW),
        same=SQL(" AND ").join(
            SQL("u.{k} = i.{k}").format(k=Identifier(name)) for name in incoming.key
        ),
    )
    names = [_ROW, "marked", *(f"t{number}" for number in range(len(inserts)))]
    counts = [SQL("(SELECT count(*) FROM {})").format(Identifier(name)) for name in names]
    return SQL(
        "WITH r AS ({r}), {rows} AS MATERIALIZED ({source}), {parts} SELECT {counts}"
    ).format(
        r=SQL("SELECT %(reviewer)s AS reviewer, %(at)s::timestamptz AS at"),
        rows=Identifier(_ROW),
        source=_source(connection, incoming, batch, leave_out=leave_out),
        parts=SQL(", ").join([*inserts, marked]),
        counts=SQL(", ").join(counts),
    )


def _source(
    connection: psycopg.Connection[Any], incoming: Incoming, batch: str, *, leave_out: bool
) -> Composable:
    """Return the query of the batch's good rows, each with the numbers of its formal records."""
    keys = [
        SQL("nextval({}::regclass) AS {}").format(
            Literal(_sequence(connection, incoming, collection, column)), Identifier(name)
        )
        for name, (collection, column) in incoming.rule.keys.items()
    ]
    columns = map(incoming.column, _needed(incoming))
    source = incoming.sql(
        "SELECT {columns} FROM {table} AS i WHERE {waits}",
        columns=SQL(", ").join([*columns, *keys]),
        waits=incoming.pending(batch),
    )
    return source + SQL(" AND NOT ") + incoming.is_listed if leave_out else source


def _needed(incoming: Incoming) -> list[str]:
    """Columns that the key or some expression names; the rest need not be kept aside.

    A name that stands in an expression for something else costs memory and nothing more.
    """
    texts = [
        text
        for target in incoming.rule.targets
        for text in (*target.columns.values(), target.each or "", target.where or "")
    ]
    said = "\n".join(texts)
    return [name for name in incoming.collection.fields if name in incoming.key or name in said]


def _insert(incoming: Incoming, target: Target) -> Composable:
    # OVERRIDING: a number of an identity is taken from its own sequence a moment before
    statement = SQL(
        "INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values} "
        "FROM {rows} AS i CROSS JOIN r"
    ).format(
        table=incoming.table_of(target.collection),
        columns=SQL(", ").join(map(Identifier, target.columns)),
        values=SQL(", ").join(map(pack_sql, target.columns.values())),
        rows=Identifier(_ROW),
    )
    if target.each:
        statement += SQL(" CROSS JOIN {}").format(pack_sql(target.each))
    if target.where:
        statement += SQL(" WHERE {}").format(pack_sql(target.where))
    return statement


def _sequence(
    connection: psycopg.Connection[Any], incoming: Incoming, collection: str, column: str
) -> str:
    row = connection.execute(
        "SELECT pg_get_serial_sequence(%s, %s)",
        [incoming.table_of(collection).as_string(connection), column],
    ).fetchone()
    if row is None or row[0] is None:
        raise UsageError(
            f"{collection}.{column} takes no numbers from a sequence.",
            "In intake.yaml, name an identity or serial column under `keys`.",
        )
    return str(row[0])
