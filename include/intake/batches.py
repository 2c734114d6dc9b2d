"""Pending batches of an incoming table: content hash, people who entered and may review them.

Everything is counted and hashed inside PostgreSQL: no value of a row leaves it here. Messages of
PostgreSQL are in the server's language and may quote values, so errors take only names from them
that the pack has anyway.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from include.approvals.people import as_compared, is_among, same_person
from include.approvals.reasons import names_a_person
from include.intake.names import Incoming, is_name
from include.policy.fragments import pack_sql
from include.services.errors import ControlFailed, ServiceError, UsageError


@contextmanager
def refusals(connection: psycopg.Connection[Any], incoming: Incoming) -> Iterator[None]:
    """Make the project's own errors of rights that are missing and of locks that others hold.

    Raises:
        UsageError: a right is missing, or row security hides rows.
        ServiceError: another session holds a lock, or a statement took too long.
    """
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        kind, name = _named(error, incoming)
        right = f"USAGE on the schema {name}" if kind == "schema" else f"a right on {kind} {name}"
        raise UsageError(
            f"The user {connection.info.user} lacks {right}, or row security would hide "
            f"rows of it (SQLSTATE {error.sqlstate}).",
            "Grant it: the configuration check prints the statement when it tries the connections "
            "(--connect). Where a table has row security, the user needs BYPASSRLS.",
        ) from None
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
        kind, name = _named(error, incoming)
        raise ServiceError(
            f"Another session holds a lock on {kind} {name} (SQLSTATE {error.sqlstate}).",
            "No record was let in, and the task is repeated. See in pg_locks who holds it.",
        ) from None
    except psycopg.errors.QueryCanceled as error:
        raise ServiceError(
            f"A statement about {incoming.rule.collection} took too long, or was cancelled "
            f"(SQLSTATE {error.sqlstate}).",
            "No record was let in, and the task is repeated. See in pg_stat_activity what keeps "
            "it.",
        ) from None


def _named(error: psycopg.Error, incoming: Incoming) -> tuple[str, str]:
    """Kind and name of what an error is about, as far as PostgreSQL tells."""
    collections = incoming.database.collections.values()
    said = f"{error.diag.table_name or ''} {error.diag.message_primary or ''}"
    for kind, names in (
        ("the table", {collection.table for collection in collections}),
        ("schema", {collection.schema_name for collection in collections}),
    ):
        for name in sorted(names, key=len, reverse=True):
            if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", said):
                return kind, name
    return "a table that the review reads beside", incoming.rule.collection


Connection = psycopg.Connection[Any]
CLOCKS_APART = timedelta(minutes=5)  # what clocks of two machines may differ by

# What a row's text depends on; without them the same row could have another hash elsewhere.
_SETTINGS = {
    "TimeZone": "UTC",
    "row_security": "off",  # rows that are hidden from us are an error, not a smaller batch
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "work_mem": "64MB",  # the rows of a batch are kept aside while their records are made
}
_LIMITS = {"lock_timeout": "1min", "statement_timeout": "2h"}  # where the server's owner set none
_LIMIT = """
SELECT set_config(%(name)s, CASE WHEN current_setting(%(name)s) = '0' THEN %(limit)s
                            ELSE current_setting(%(name)s) END, true)
"""


@dataclass(frozen=True)
class Batch:
    """A batch that waits for its review.

    Attributes:
        name: as the incoming table has it.
        rows: pending ones.
        undated: of these, without a time of entry that can be read.
        ahead: of these, entered in the future.
        due: until when it should be reviewed; None when no row has a time of entry.
    """

    name: str
    rows: int
    undated: int
    ahead: int
    due: datetime | None


@dataclass(frozen=True)
class Waiting:
    """The batches that wait for review.

    Attributes:
        batches: with a name that evidence can carry, oldest first.
        nameless: how many others there are.
        personal: of these, named by a phone or ID number.
        unnamed: rows of the others.
    """

    batches: list[Batch]
    nameless: int
    personal: int
    unnamed: int


@dataclass(frozen=True)
class Content:
    """The content of a batch at a moment.

    Attributes:
        sha256: of every column that can be promoted, of every pending row.
        rows: pending ones; 0 has no hash worth the name.
        oldest: when the first of them was entered; None when no row has a time of entry.
        newest: when the last of them was.
        due: until when they should be reviewed.
        undated: rows without a time of entry that can be read.
    """

    sha256: str
    rows: int
    oldest: datetime | None
    newest: datetime | None
    due: datetime | None
    undated: int


@contextmanager
def unit_of_work(connection: Connection, incoming: Incoming, *, write: bool) -> Iterator[None]:
    """Work on one unchanging view of the database, and commit at the end.

    REPEATABLE READ instead of a lock on each row: what is read is one snapshot, and writing to a
    row that somebody changed after it fails with SQLSTATE 40001 and undoes everything. That is as
    safe as locking 100,000 rows first and does not write each of them twice.

    Args:
        connection: outside of a transaction.
        incoming: its schema is where names of the pack's SQL are looked up.
        write: whether the work changes anything.

    Raises:
        UsageError: a right is missing.
        ServiceError: another session holds a lock, or a statement took too long.
    """
    with refusals(connection, incoming), connection.transaction():
        mode = SQL("READ WRITE" if write else "READ ONLY")
        begin = SQL("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, {}").format(mode)
        connection.execute(begin)
        path = SQL("{}, pg_catalog").format(Identifier(incoming.collection.schema_name))
        settings = {**_SETTINGS, "search_path": path.as_string(connection)}
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, true)", [name, value])
        for name, value in _LIMITS.items():
            connection.execute(_LIMIT, {"name": name, "limit": value})
        yield


def waiting(connection: Connection, incoming: Incoming, now: datetime) -> Waiting:
    """Return the batches that nobody has decided on, oldest first.

    Args:
        connection: inside of `unit_of_work`.
        incoming: the table.
        now: rows that were entered later were entered in the future.
    """
    rule = incoming.rule
    query = incoming.sql(
        "SELECT left(d.batch::text, 1000), count(*), count(*) FILTER (WHERE d.at IS NULL), "
        "count(*) FILTER (WHERE d.at > %(ahead)s), min(d.at) + %(deadline)s::interval "
        "FROM (SELECT {batch} AS batch, {at} AS at FROM {table} WHERE {state} = {pending}) AS d "
        "GROUP BY d.batch ORDER BY min(d.at), 1",
        at=incoming.entered_at,
    )
    parameters = {"deadline": rule.deadline.text, "ahead": now + CLOCKS_APART}
    found = [Batch(*row) for row in connection.execute(query, parameters)]
    plain = [batch for batch in found if batch.name is not None and is_name(batch.name)]
    named = [batch for batch in plain if not names_a_person(batch.name)]
    unnamed = sum(batch.rows for batch in found) - sum(batch.rows for batch in plain)
    return Waiting(named, len(found) - len(named), len(plain) - len(named), unnamed)


def content(connection: Connection, incoming: Incoming, batch: str) -> Content:
    """Hash and count a batch's pending rows; call it inside of `unit_of_work`.

    The hash is SHA-256 over the table's and its columns' names and, sorted, the SHA-256 of each
    row's text. It covers every column of the live table but those that a decision writes, so a
    column that the data map lacks cannot be exchanged unseen either.
    """
    rule = incoming.rule
    columns = _columns(connection, incoming)
    head = "\n".join([incoming.table.as_string(connection), *columns, ""])
    query = incoming.sql(
        "SELECT encode(sha256(convert_to({head}, 'UTF8') "
        "|| coalesce(string_agg(d.digest, ''::bytea ORDER BY d.digest), '')), 'hex'), "
        "count(*), min(d.at), max(d.at), min(d.at) + {deadline}::interval, "
        "count(*) FILTER (WHERE d.at IS NULL) "
        "FROM (SELECT sha256(convert_to(ROW({columns})::text, 'UTF8')) AS digest, "
        "{at} AS at FROM {table} AS i WHERE {waits}) AS d",
        head=Literal(head),
        deadline=Literal(rule.deadline.text),
        columns=SQL(", ").join(incoming.column(name) for name in columns),
        at=incoming.entered_at,
        waits=incoming.pending(batch),
    )
    row = connection.execute(query).fetchone()
    assert row is not None
    return Content(*row)


def _columns(connection: Connection, incoming: Incoming) -> list[str]:
    """Columns of the live table in its order, without those that a decision writes."""
    rule = incoming.rule
    written = {
        rule.state.column,
        rule.reviewed.by,
        rule.reviewed.at,
        rule.back_reference.column,
    }
    rows = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 "
        "AND NOT attisdropped ORDER BY attnum",
        [incoming.table.as_string(connection)],
    )
    return [name for (name,) in rows if name not in written]


MOST_REVIEWERS = 1000  # names on one question


UNKNOWN_STAFF = "staff:"  # before the key of somebody without an account


@dataclass(frozen=True)
class People:
    """The people of one batch.

    Attributes:
        enterers: Airflow user ids of those who entered rows; ``staff:<key>`` where one has none.
        reviewers: user id -> staff key of those who may review this batch: entitled by the pack
            and not among those who entered a row of it.
    """

    enterers: list[str]
    reviewers: Mapping[str, Any]


def people_of(connection: psycopg.Connection[Any], incoming: Incoming, batch: str) -> People:
    """Look up who entered the pending rows of a batch, and who else may review them."""
    query = incoming.sql(
        "SELECT DISTINCT e.by, p.{account}::text "
        "FROM (SELECT DISTINCT {entered_by} AS by FROM {table} WHERE {waits}) AS e "
        "LEFT JOIN {staff} AS p ON p.{person} = e.by",
        waits=incoming.pending(batch),
    )
    entered = connection.execute(query).fetchall()
    accounts = sorted({account or f"{UNKNOWN_STAFF}{key}" for key, account in entered})
    keys = {key for key, _account in entered}
    # by key too: one person may have two accounts
    others = {
        account: key
        for account, key in reviewers(connection, incoming).items()
        if key not in keys and not is_among(account, accounts)
    }
    return People(accounts, others)


def reviewers(connection: psycopg.Connection[Any], incoming: Incoming) -> dict[str, Any]:
    """Return all who may review by the pack's condition: user id -> staff key, in key order.

    An account that several people have, in whatever spelling, identifies nobody and is left out.
    """
    query = incoming.sql(
        "SELECT p.{account}::text, p.{person}, coalesce(({condition}), false) FROM {staff} AS p "
        "WHERE p.{account} IS NOT NULL ORDER BY 2",
        condition=pack_sql(incoming.rule.people.reviewers),
    )
    rows = connection.execute(query, {}).fetchall()
    holders = Counter(as_compared(account) for account, _key, _may in rows)
    found = [(account, key) for account, key, may in rows if may]
    return dict([row for row in found if holders[as_compared(row[0])] == 1][:MOST_REVIEWERS])


def staff_key(connection: psycopg.Connection[Any], incoming: Incoming, account: str) -> Any:
    """Return the staff key of an account.

    Raises:
        ControlFailed: nobody has it, or several do.
    """
    query = incoming.sql(
        "SELECT p.{person}, p.{account}::text FROM {staff} AS p WHERE p.{account} IS NOT NULL"
    )
    found = [row for row in connection.execute(query) if same_person(row[1], account)]
    if len(found) != 1:
        raise ControlFailed(
            f"{len(found)} people of the staff table have the account {account}.",
            "Correct the staff table; the decision stands and is acted on by the next try.",
        )
    return found[0][0]
