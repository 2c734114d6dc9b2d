"""Read a mapped database for an incident in a read-only snapshot with a statement timeout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier

from include.incident.rules import Lookup, Named
from include.messages import Message, _
from include.policy.datamap import MappedDatabase
from include.policy.fragments import pack_sql, quoted
from include.reports.i18n import Translator
from include.services.database import PRINTING, DatabaseAddress
from include.services.errors import ParcelSealError, ServiceError


def table_name(database: MappedDatabase, collection: str) -> Composable:
    """Return the SQL name of a collection's table, with its schema."""
    mapped = database.collections[collection]
    return quoted(mapped.schema_name, mapped.table)


def as_text(name: Composable) -> str:
    """Return an SQL name as text, for use as the value of a query parameter.

    In the text of a query, percent signs are doubled; in a parameter they must not be.
    """
    return name.as_string(None).replace("%%", "%")


def column(alias: str, name: str) -> Composable:
    """Return the SQL name of a column, qualified with the alias of its table."""
    return quoted(alias, name)


def name_expression(database: MappedDatabase, row: str, named: Named) -> Composable:
    """Return SQL that yields, as text, a name that belongs to a row, such as its department.

    Args:
        database: database that contains the row and the name.
        row: alias of the row in the query.
        named: SQL expression or lookup of incident.yaml that yields the name.
    """
    if isinstance(named, str):
        return SQL("({})::text").format(pack_sql(named))
    return SQL("(SELECT n.{}::text FROM {} AS n WHERE n.{} = {})").format(
        quoted(named.name), table_name(database, named.collection), quoted(named.key),
        column(row, named.column),
    )  # fmt: skip


def name_condition(
    database: MappedDatabase, row: str, named: Named, names: Composable
) -> Composable:
    """Return the SQL condition that a row's name, such as its department, is in a list of names.

    If the name is read from another table by a lookup, the matching rows of that table are read
    once, not for every row.

    Args:
        database: database that contains the row and the name.
        row: alias of the row in the query.
        named: SQL expression or lookup of incident.yaml that yields the name.
        names: SQL array of the accepted names.
    """
    if isinstance(named, str):
        return SQL("({})::text = ANY({})").format(pack_sql(named), names)
    return SQL("{} IN (SELECT n.{} FROM {} AS n WHERE n.{}::text = ANY({}))").format(
        column(row, named.column), quoted(named.key), table_name(database, named.collection),
        quoted(named.name), names,
    )  # fmt: skip


def lookup_join(database: MappedDatabase, row: str, lookup: Lookup, alias: str) -> Composable:
    """Return an SQL JOIN that adds to each row of a query the row with the looked-up name.

    Args:
        database: database that contains the table with the names.
        row: alias of the row in the query.
        lookup: rule of incident.yaml that reads the name from another table by a foreign key.
        alias: alias of the added row.
    """
    return SQL(" LEFT JOIN {} AS {} ON {} = {}").format(
        table_name(database, lookup.collection), Identifier(alias), column(alias, lookup.key),
        column(row, lookup.column),
    )  # fmt: skip


TIMEOUT_MINUTES = 15  # limit of one statement; a scan of 100 million rows takes less
_SETTINGS = {
    "statement_timeout": f"{TIMEOUT_MINUTES}min",
    "lock_timeout": "30s",  # only DDL blocks reading, and DDL must not wait for a reader
    "work_mem": "128MB",
    "jit": "off",  # JIT would compile again for every partition
}
_SQL_ERRORS, _DATA_ERRORS = (
    "42",
    "22",
)  # SQLSTATE classes; only messages of the second may contain a value of a row
_CANCELLED, _LOCKED = "57014", "55P03"
_MOMENT_TYPES = {1082, 1114, 1184}  # type oids of PostgreSQL: date, timestamp, timestamptz


class CannotCount(Exception):
    """An error raised if the affected records of a database cannot be counted.

    Attributes:
        reason: reason as display text, which contains no value of a record.
        may_succeed_on_retry: whether a retry may succeed.
    """

    def __init__(self, reason: Message, *, may_succeed_on_retry: bool = False) -> None:
        super().__init__(Translator("en", "UTC").text(reason))
        self.reason = reason
        self.may_succeed_on_retry = may_succeed_on_retry


@contextmanager
def open_snapshot(
    address: DatabaseAddress, database: MappedDatabase, timezone: str
) -> Iterator[psycopg.Connection[Any]]:
    """Open a read-only snapshot of a mapped database for the duration of a with block.

    Args:
        address: address of the database. Its login may read the tables that incident.yaml names.
        database: database of the data map.
        timezone: timezone of the policy pack, for times without a timezone.

    Raises:
        CannotCount: the database cannot be reached, refuses the login, has no table or column that
            incident.yaml names, or takes too long. Database errors inside the block are converted
            to this error.
    """
    with translate_errors():
        connection = address.connect()
        try:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            connection.prepare_threshold = None  # plan each statement for its values
            settings = {**PRINTING, **_SETTINGS, "TimeZone": timezone}
            path = as_text(quoted(database.schema_name))
            settings["search_path"] = f"{path}, pg_catalog"
            for name, value in settings.items():
                connection.execute("SELECT set_config(%s, %s, true)", [name, value])
            yield connection
        finally:
            connection.close()


@contextmanager
def translate_errors() -> Iterator[None]:
    """Convert database errors inside a with block into `CannotCount` with the reason."""
    try:
        yield
    except ParcelSealError as error:
        raise CannotCount(
            _(
                "The database could not be reached, or refused the connection: {error}",
                error=error.message,
            ),
            may_succeed_on_retry=isinstance(error, ServiceError),
        ) from None
    except psycopg.Error as error:
        raise _as_cannot_count(error) from None


def _as_cannot_count(error: psycopg.Error) -> CannotCount:
    state = error.sqlstate or ""
    if state == _CANCELLED:
        return CannotCount(
            _(
                "The query was cancelled by a person or because it took longer than {minutes} "
                "minutes.",
                minutes=TIMEOUT_MINUTES,
            ),
            may_succeed_on_retry=True,
        )
    if state == _LOCKED:
        return CannotCount(_("Another process has locked a table."), may_succeed_on_retry=True)
    if isinstance(error, psycopg.OperationalError):
        return CannotCount(
            _(
                "The connection was lost ({code}).",
                code=state or _("the database server did not answer"),
            ),
            may_succeed_on_retry=True,
        )
    if state.startswith(_SQL_ERRORS):
        message = error.diag.message_primary or state
        return CannotCount(
            _(
                "A table or column that the incident rules name does not exist, or the "
                "database login may not read it: {error}.",
                error=message,
            )
        )
    if state.startswith(_DATA_ERRORS):
        return CannotCount(
            _(
                "A value does not have the format that the incident rules expect ({code}).",
                code=state,
            )
        )
    return CannotCount(_("The database refused the query ({code}).", code=state or "?"))


def min_max_aggregates(at: Composable, kind: int | None = None) -> Composable:
    """Return two SQL aggregates for a SELECT list: the earliest and the latest time.

    The aggregates yield texts, which `first_and_last` converts to times.

    Args:
        at: SQL expression for the time.
        kind: OID of the data type of the expression; None if it is certain to be a timestamp.
    """
    if kind is not None and kind not in _MOMENT_TYPES:
        at = SQL("({})::timestamptz").format(at)
    return SQL("min({at})::timestamptz::text, max({at})::timestamptz::text").format(at=at)


def first_and_last(
    connection: psycopg.Connection[Any],
    texts: Sequence[Sequence[str | None]],
    at: Composable,
    source: Composable,
    values: Mapping[str, Any],
) -> tuple[datetime | None, datetime | None]:
    """Return the earliest and the latest time of the rows that a query selects.

    Times that Python cannot represent, such as infinity, are ignored.

    Args:
        connection: connection to the database.
        texts: pairs of earliest and latest time that a query with `min_max_aggregates` returned. A
            query with GROUP BY returns several pairs.
        at: SQL expression for the time.
        source: FROM clause with its condition, as in the query that returned `texts`.
        values: values of the query parameters.
    """
    if any((parse_moment(text) is None) != (text is None) for group in texts for text in group):
        representable = SQL(
            "SELECT min(at)::text, max(at)::text FROM (SELECT ({})::timestamptz AS at FROM {})"
            " AS one WHERE at BETWEEN '0001-01-03Z' AND '9999-12-29Z'"
        ).format(at, source)
        texts = connection.execute(representable, values).fetchall()
    firsts, lasts = ([parse_moment(pair[index]) for pair in texts] for index in (0, 1))
    return min(filter(None, firsts), default=None), max(filter(None, lasts), default=None)


def parse_moment(text: str | None) -> datetime | None:
    """Parse a time that PostgreSQL printed, and return it in UTC.

    Return None for infinity, for years before Christ and for years after 9999.
    """
    try:
        return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
