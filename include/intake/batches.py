"""Read the pending batches of an incoming table, and find the people who may review them.

PostgreSQL counts and hashes the rows, so no value leaves the database. PostgreSQL's error messages
are in the server's language and may quote values. ParcelSeal's own errors therefore repeat only
names that the data map contains.
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

from include.approvals.approvers import is_among, normalize_person, same_person
from include.approvals.reasons import has_personal_number
from include.intake.incoming import Incoming, is_batch_name
from include.policy.fragments import pack_sql
from include.services.errors import ControlFailed, ServiceError, UsageError


@contextmanager
def report_database_errors(
    connection: psycopg.Connection[Any], incoming: Incoming
) -> Iterator[None]:
    """Run the block, and convert PostgreSQL errors about rights, locks and timeouts.

    The errors that ParcelSeal raises instead quote no values of the database.

    Args:
        connection: connection on which the block executes SQL.
        incoming: incoming table that the block reads or writes.

    Raises:
        UsageError: the login lacks a right, or row security hides rows.
        ServiceError: another session holds a lock, or a statement took too long or was cancelled.
    """
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        kind, name = _object_of_error(error, incoming)
        right = f"USAGE on the schema {name}" if kind == "schema" else f"a right on {kind} {name}"
        raise UsageError(
            f"The user {connection.info.user} lacks {right}, or row security would hide "
            f"rows of it (SQLSTATE {error.sqlstate}).",
            "Grant the right: ./parcelseal config check --connect prints the statement. If a table "
            "has row security, the user needs BYPASSRLS.",
        ) from None
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
        kind, name = _object_of_error(error, incoming)
        raise ServiceError(
            f"Another session holds a lock on {kind} {name} (SQLSTATE {error.sqlstate}).",
            "No record was accepted. The task is retried. pg_locks names the session.",
        ) from None
    except psycopg.errors.QueryCanceled as error:
        raise ServiceError(
            f"A statement about {incoming.rule.collection} took too long, or was cancelled "
            f"(SQLSTATE {error.sqlstate}).",
            "No record was accepted. The task is retried. pg_stat_activity shows what delays it.",
        ) from None


def _object_of_error(error: psycopg.Error, incoming: Incoming) -> tuple[str, str]:
    """Return the type and the name of the table or schema that a PostgreSQL error is about.

    If the error names no table or schema of the data map, the result is a general description.
    """
    collections = incoming.database.collections.values()
    error_text = f"{error.diag.table_name or ''} {error.diag.message_primary or ''}"
    for kind, names in (
        ("the table", {collection.table for collection in collections}),
        ("schema", {collection.schema_name for collection in collections}),
    ):
        for name in sorted(names, key=len, reverse=True):
            if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", error_text):
                return kind, name
    return "a table that the review reads in addition to", incoming.rule.collection


Connection = psycopg.Connection[Any]
CLOCK_TOLERANCE = timedelta(minutes=5)  # tolerated difference between the clocks of servers

# Settings that change the text of a row, so that the same row always has the same hash
_SETTINGS = {
    "TimeZone": "UTC",
    "row_security": "off",  # rows hidden by row security must raise an error
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "work_mem": "64MB",  # a promotion materializes the rows of the batch
}
_LIMITS = {
    "lock_timeout": "1min",
    "statement_timeout": "2h",
}  # unless the server has its own limits
_LIMIT = """
SELECT set_config(%(name)s, CASE WHEN current_setting(%(name)s) = '0' THEN %(limit)s
                            ELSE current_setting(%(name)s) END, true)
"""


@dataclass(frozen=True)
class Batch:
    """A batch of incoming rows that waits for its review.

    Attributes:
        name: name of the batch in the incoming table.
        rows: number of rows of the batch that wait for review (pending rows).
        undated: number of pending rows without a valid time of entry.
        ahead: number of pending rows whose time of entry is in the future.
        due: deadline of the review; None if no pending row has a valid time of entry.
    """

    name: str
    rows: int
    undated: int
    ahead: int
    due: datetime | None


@dataclass(frozen=True)
class PendingBatches:
    """The batches of an incoming table that wait for their review.

    The name of a batch is valid if it is short, has no special characters, and contains no phone or
    ID number.

    Attributes:
        batches: batches with a valid name, ordered by their earliest time of entry.
        nameless: number of batches whose name is missing or not valid.
        personal: number of batches whose name is not valid for the only reason that it contains a
            phone or ID number. They are included in `nameless`.
        unnamed: number of rows in the batches whose name is missing, too long or has special
            characters.
    """

    batches: list[Batch]
    nameless: int
    personal: int
    unnamed: int


@dataclass(frozen=True)
class BatchContent:
    """The hash, size and entry times of a batch at the time when the batch was read.

    Attributes:
        sha256: SHA-256 of all rows that wait for review (pending rows). It covers all columns
            except those that change when a decision is executed.
        rows: number of pending rows; if it is 0, the hash has no meaning.
        oldest: earliest time of entry; None if no pending row has a valid one.
        newest: latest time of entry; None if no pending row has a valid one.
        due: deadline of the review; None if no pending row has a valid time of entry.
        undated: number of pending rows without a valid time of entry.
    """

    sha256: str
    rows: int
    oldest: datetime | None
    newest: datetime | None
    due: datetime | None
    undated: int


@contextmanager
def unit_of_work(connection: Connection, incoming: Incoming, *, write: bool) -> Iterator[None]:
    """Run the block in one transaction with a consistent snapshot of the database, then commit.

    The isolation level REPEATABLE READ makes a lock on each row unnecessary: if the block writes to
    a row that another session changed after the transaction began, PostgreSQL raises SQLSTATE
    40001, and the transaction is rolled back. To lock the rows first would not be safer, and
    PostgreSQL would have to write each row twice.

    Args:
        connection: connection on which no transaction is open.
        incoming: incoming table and its rule. SQL of the policy pack may name tables without a
            schema if they are in the schema of this table.
        write: whether the transaction may write.

    Raises:
        UsageError: the login lacks a right, or row security hides rows.
        ServiceError: another session holds a lock, or a statement took too long.
    """
    with report_database_errors(connection, incoming), connection.transaction():
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


def find_pending(connection: Connection, incoming: Incoming, now: datetime) -> PendingBatches:
    """Return the batches of an incoming table that wait for their review.

    Args:
        connection: connection on which `unit_of_work` has opened a transaction.
        incoming: incoming table and its rule of intake.yaml.
        now: current time. A row counts as entered in the future if its time of entry is later than
            this time by more than `CLOCK_TOLERANCE`.
    """
    rule = incoming.rule
    query = incoming.sql(
        "SELECT left(d.batch::text, 1000), count(*), count(*) FILTER (WHERE d.at IS NULL), "
        "count(*) FILTER (WHERE d.at > %(ahead)s), min(d.at) + %(deadline)s::interval "
        "FROM (SELECT {batch} AS batch, {at} AS at FROM {table} WHERE {state} = {pending}) AS d "
        "GROUP BY d.batch ORDER BY min(d.at), 1",
        at=incoming.entered_at,
    )
    parameters = {"deadline": rule.deadline.text, "ahead": now + CLOCK_TOLERANCE}
    pending = [Batch(*row) for row in connection.execute(query, parameters)]
    with_plain_name = [
        batch for batch in pending if batch.name is not None and is_batch_name(batch.name)
    ]
    reviewable = [batch for batch in with_plain_name if not has_personal_number(batch.name)]
    unnamed = sum(batch.rows for batch in pending) - sum(batch.rows for batch in with_plain_name)
    return PendingBatches(
        reviewable, len(pending) - len(reviewable), len(with_plain_name) - len(reviewable), unnamed
    )


def read_content(connection: Connection, incoming: Incoming, batch: str) -> BatchContent:
    """Count and hash the rows of a batch that wait for review.

    PostgreSQL hashes the names of the table and its columns, followed by the sorted SHA-256 of each
    row's text. The hash covers every column of the database table except those that change when a
    decision is executed. A change of a column that is not in the data map is therefore detected,
    too.

    Args:
        connection: connection on which `unit_of_work` has opened a transaction.
        incoming: incoming table and its rule of intake.yaml.
        batch: name of the batch.
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
    return BatchContent(*row)


def _columns(connection: Connection, incoming: Incoming) -> list[str]:
    """Return the columns of the incoming table that do not change when a decision is executed.

    The columns are in the same order as in the database.
    """
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


MAX_REVIEWERS = 1000  # maximum number of people who may review a batch


UNKNOWN_STAFF_PREFIX = "staff:"  # prefix of the staff key of a person without an account


@dataclass(frozen=True)
class BatchPeople:
    """The people who entered the rows of a batch, and the people who may review the batch.

    Attributes:
        enterers: Airflow user ids of the people who entered rows; ``staff:<key>`` for a person
            without a user id.
        reviewers: Airflow user id -> primary key in the staff table, for each person who may review
            the batch. The policy pack entitles these people to review, and they entered none of the
            rows.
    """

    enterers: list[str]
    reviewers: Mapping[str, Any]


def load_people(connection: psycopg.Connection[Any], incoming: Incoming, batch: str) -> BatchPeople:
    """Return the people who entered a batch's pending rows, and those who may review them.

    A person may review the batch if the policy pack entitles the person to review and the person
    entered none of these rows.
    """
    query = incoming.sql(
        "SELECT DISTINCT e.by, p.{account}::text "
        "FROM (SELECT DISTINCT {entered_by} AS by FROM {table} WHERE {waits}) AS e "
        "LEFT JOIN {staff} AS p ON p.{person} = e.by",
        waits=incoming.pending(batch),
    )
    entered = connection.execute(query).fetchall()
    accounts = sorted({account or f"{UNKNOWN_STAFF_PREFIX}{key}" for key, account in entered})
    keys = {key for key, _account in entered}
    # compared by key too, because a person may have two accounts
    eligible = {
        account: key
        for account, key in load_reviewers(connection, incoming).items()
        if key not in keys and not is_among(account, accounts)
    }
    return BatchPeople(accounts, eligible)


def load_reviewers(connection: psycopg.Connection[Any], incoming: Incoming) -> dict[str, Any]:
    """Return the people whom the policy pack entitles to review incoming rows.

    A user id that belongs to several people in the staff table is left out. User ids that differ
    only in case or white space count as the same user id.

    Returns:
        Airflow user id -> primary key in the staff table, sorted by key. Only the first
        `MAX_REVIEWERS` people are returned.
    """
    query = incoming.sql(
        "SELECT p.{account}::text, p.{person}, coalesce(({condition}), false) FROM {staff} AS p "
        "WHERE p.{account} IS NOT NULL ORDER BY 2",
        condition=pack_sql(incoming.rule.people.reviewers),
    )
    rows = connection.execute(query, {}).fetchall()
    holders = Counter(normalize_person(account) for account, _key, _may in rows)
    entitled = [(account, key) for account, key, may in rows if may]
    return dict([row for row in entitled if holders[normalize_person(row[0])] == 1][:MAX_REVIEWERS])


def staff_key(connection: psycopg.Connection[Any], incoming: Incoming, account: str) -> Any:
    """Return the primary key in the staff table of the person to whom an Airflow account belongs.

    Raises:
        ControlFailed: the account belongs to no person or to several people of the staff table.
    """
    query = incoming.sql(
        "SELECT p.{person}, p.{account}::text FROM {staff} AS p WHERE p.{account} IS NOT NULL"
    )
    people = [row for row in connection.execute(query) if same_person(row[1], account)]
    if len(people) != 1:
        raise ControlFailed(
            f"The staff table has {len(people)} people with the account {account}, not one.",
            "Correct the staff table. The decision remains valid, and the next try executes it.",
        )
    return people[0][0]
