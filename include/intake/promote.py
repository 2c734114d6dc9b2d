"""Execute the decision on a batch in one transaction, exactly once.

To promote a row means to create its formal records. To settle a batch means to execute the decision
on it: each of its rows is promoted, quarantined or rejected.

The statement that promotes a row also changes the row's state from ``pending``, so that a retry
cannot promote the row again. The time of the decision is stored in the row as the time of review.
If a task was killed after the commit, its retry finds the rows by this time and reports the same
counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from include.intake.checks import Key
from include.intake.incoming import Incoming
from include.policy.fragments import pack_sql
from include.policy.intake import Target
from include.services.errors import ControlFailed, ServiceError, UsageError

_ROW = "batch_rows"


@dataclass(frozen=True)
class SettledRows:
    """The numbers of rows of a batch that were promoted, quarantined or rejected by a decision.

    Attributes:
        promoted: number of incoming rows that became formal records.
        set_aside: number of rows of an approved batch that were quarantined because they break a
            condition of intake.yaml or an expectation of severity ``fail``.
        rejected: number of rows of a rejected batch.
        records: number of formal records by collection; empty if an earlier attempt of the task
            created them.
    """

    promoted: int = 0
    set_aside: int = 0
    rejected: int = 0
    records: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Return the number of rows that were promoted, quarantined or rejected."""
        return self.promoted + self.set_aside + self.rejected


def earlier_settlement(
    connection: psycopg.Connection[Any],
    incoming: Incoming,
    batch: str,
    *,
    reviewer: Any,
    at: datetime,
    approved: bool,
) -> SettledRows:
    """Count the rows of a batch that an earlier attempt of the task has settled.

    To settle a row means to promote, quarantine or reject it. The settled rows have the reviewer
    and the time of the decision in their review columns.

    Args:
        connection: connection on which `unit_of_work` has opened a transaction.
        incoming: incoming table and its rule of intake.yaml.
        batch: name of the batch.
        reviewer: primary key of the reviewer in the staff table.
        at: time of the decision.
        approved: whether the decision approves the batch. If it does, the rows that did not become
            formal records are counted as quarantined, otherwise as rejected.
    """
    query = incoming.sql(
        "SELECT count(*) FILTER (WHERE {state} = {promoted}), "
        "count(*) FILTER (WHERE {state} IN ({rejected}, {set_aside})) FROM {table} WHERE "
        "{batch} = {name} AND {reviewed_by} = %(reviewer)s AND {reviewed_at} = %(at)s",
        name=Literal(batch),
    )
    row = connection.execute(query, {"reviewer": reviewer, "at": at}).fetchone()
    assert row is not None
    return SettledRows(row[0], row[1]) if approved else SettledRows(row[0], rejected=row[1])


def promote(
    connection: psycopg.Connection[Any],
    incoming: Incoming,
    batch: str,
    *,
    reviewer: Any,
    at: datetime,
    broken: Collection[Key],
) -> SettledRows:
    """Create the formal records of an approved batch.

    A first statement inserts the formal records of the valid rows into every target table, with new
    numbers, and sets the state of these rows to promoted. PostgreSQL checks foreign keys at the end
    of the statement, so target tables may refer to each other in cycles. A second statement
    quarantines the rows that are then still pending.

    Args:
        connection: connection on which `unit_of_work` has opened a transaction. Its login needs the
            right to write to the target tables and the incoming table.
        incoming: incoming table and its rule of intake.yaml.
        batch: name of the batch.
        reviewer: primary key of the reviewer in the staff table.
        at: time of the decision.
        broken: primary keys of the rows that are quarantined, because they break a condition of
            intake.yaml or an expectation of severity ``fail``.

    Raises:
        ControlFailed: the database refuses a record, or a statement changed an unexpected number of
            rows. The error contains only the SQLSTATE, since the database's message may quote a
            value.
        ServiceError: another session changed a row at the same time, or a lock took too long. The
            step can be repeated.
        UsageError: the login lacks a right, or the rule does not fit the tables.
    """
    statement = _statement(connection, incoming, batch, exclude_broken=bool(broken))
    parameters = {"reviewer": reviewer, "at": at, **incoming.listed_keys(broken)}
    row = _execute(connection, statement, parameters, batch).fetchone()
    assert row is not None
    rows, marked, *record_counts = row
    if rows != marked:
        raise ControlFailed(
            f"In the incoming table, only {marked} of {rows} rows of {batch} could be updated.",
            "Nothing was promoted. Check whether a trigger or row security prevents the update.",
        )
    records: dict[str, int] = {}
    for target, count in zip(incoming.rule.targets, record_counts, strict=True):
        records[target.collection] = records.get(target.collection, 0) + count
    set_aside_count = _mark(
        connection, incoming, batch, incoming.rule.state.quarantined_value, reviewer, at
    )
    if set_aside_count != len(broken):
        raise ControlFailed(
            f"{len(broken)} rows of {batch} break a rule, but {set_aside_count} were set aside.",
            "Nothing was promoted. Check whether the primary key in the data map is unique.",
        )
    return SettledRows(rows, set_aside=set_aside_count, records=records)


def reject(
    connection: psycopg.Connection[Any],
    incoming: Incoming,
    batch: str,
    *,
    reviewer: Any,
    at: datetime,
) -> SettledRows:
    """Reject all rows of a batch that wait for review.

    The state of these rows becomes rejected. The review columns of the rows receive the reviewer
    and the time of the decision.

    Args:
        connection: connection on which `unit_of_work` has opened a transaction. Its login needs the
            right to write to the incoming table.
        incoming: incoming table and its rule of intake.yaml.
        batch: name of the batch.
        reviewer: primary key of the reviewer in the staff table.
        at: time of the decision.

    Returns:
        The number of rejected rows; all other numbers are 0.

    Raises:
        ControlFailed: the database refuses the new values, for example because of a constraint.
        ServiceError: another session changed a row at the same time, or a lock took too long. The
            step can be repeated.
        UsageError: the login lacks a right, or the rule does not fit the incoming table.
    """
    state = incoming.rule.state.rejected
    return SettledRows(rejected=_mark(connection, incoming, batch, state, reviewer, at))


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
    connection: psycopg.Connection[Any], statement: Composed, parameters: dict[str, Any], batch: str
) -> psycopg.Cursor[Any]:
    try:
        return connection.execute(statement, parameters)
    except (psycopg.IntegrityError, psycopg.DataError) as error:
        raise ControlFailed(
            f"The database refuses a record of {batch} (SQLSTATE {error.sqlstate}).",
            "Nothing was promoted. Correct the rows, or add a check to intake.yaml that rejects "
            "such rows.",
        ) from None
    except psycopg.errors.SerializationFailure:
        raise ServiceError(
            f"A row of {batch} was changed while it was being settled.",
            "Nothing was written. The task is retried and reads the batch again.",
        ) from None
    except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled) as error:
        raise ServiceError(
            f"{batch} could not be settled in time (SQLSTATE {error.sqlstate}).",
            "Nothing was written. The task is retried. pg_locks names the session that locks the "
            "rows of the batch or the tables of its records.",
        ) from None
    except psycopg.ProgrammingError as error:
        raise UsageError(
            f"The database refuses the promotion of {batch} (SQLSTATE {error.sqlstate}).",
            "Check intake.yaml and the rights of its connection, which "
            "docs/explanation/intake.md lists.",
        ) from None


def _statement(
    connection: psycopg.Connection[Any], incoming: Incoming, batch: str, *, exclude_broken: bool
) -> Composed:
    """Return the SQL statement that creates the formal records of a batch.

    Args:
        connection: connection to the mapped database.
        incoming: incoming table and its rule of intake.yaml.
        batch: name of the batch.
        exclude_broken: whether the statement leaves out certain rows. Their primary keys are then
            query parameters (`Incoming.listed_keys`).
    """
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
        source=_source(connection, incoming, batch, exclude_broken=exclude_broken),
        parts=SQL(", ").join([*inserts, marked]),
        counts=SQL(", ").join(counts),
    )


def _source(
    connection: psycopg.Connection[Any], incoming: Incoming, batch: str, *, exclude_broken: bool
) -> Composable:
    """Return the query for the rows of a batch that become formal records.

    The query also assigns the numbers of the formal records.

    Args:
        connection: connection to the mapped database.
        incoming: incoming table and its rule of intake.yaml.
        batch: name of the batch.
        exclude_broken: whether the query leaves out certain rows. Their primary keys are then query
            parameters (`Incoming.listed_keys`).
    """
    keys = [
        SQL("nextval({}::regclass) AS {}").format(
            Literal(_sequence(connection, incoming, collection, column)), Identifier(name)
        )
        for name, (collection, column) in incoming.rule.keys.items()
    ]
    columns = map(incoming.column, _needed_columns(incoming))
    source = incoming.sql(
        "SELECT {columns} FROM {table} AS i WHERE {waits}",
        columns=SQL(", ").join([*columns, *keys]),
        waits=incoming.pending(batch),
    )
    return source + SQL(" AND NOT ") + incoming.key_is_listed if exclude_broken else source


def _needed_columns(incoming: Incoming) -> list[str]:
    """Return the columns of the incoming table that are needed to create formal records.

    These are the columns of the primary key, and all columns whose names occur in the SQL
    expressions of the targets in intake.yaml. A column is included even if its name means something
    else in the expression. This only costs memory.
    """
    texts = [
        text
        for target in incoming.rule.targets
        for text in (*target.columns.values(), target.each or "", target.where or "")
    ]
    expressions = "\n".join(texts)
    return [
        name for name in incoming.collection.fields if name in incoming.key or name in expressions
    ]


def _insert(incoming: Incoming, target: Target) -> Composable:
    # OVERRIDING, because the values of identity columns were taken from their sequences before
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
            f"{collection}.{column} has no sequence.",
            "In intake.yaml, name an identity or serial column under `keys`.",
        )
    return str(row[0])
