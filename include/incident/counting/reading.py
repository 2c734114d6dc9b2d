"""Read a mapped database for an incident: one read-only snapshot with a time limit."""

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


def table(database: MappedDatabase, collection: str) -> Composable:
    """The table of a collection, qualified."""
    found = database.collections[collection]
    return quoted(found.schema_name, found.table)


def as_text(name: Composable) -> str:
    """A name as PostgreSQL writes it, for a parameter: there a percent sign is one."""
    return name.as_string(None).replace("%%", "%")


def column(row: str, name: str) -> Composable:
    """A column of a row that a query knows by an alias."""
    return quoted(row, name)


def value(database: MappedDatabase, row: str, named: Named) -> Composable:
    """The name, as text, of a row.

    Args:
        database: in which it is looked up.
        row: alias of the row in the query.
        named: of incident.yaml.
    """
    if isinstance(named, str):
        return SQL("({})::text").format(pack_sql(named))
    return SQL("(SELECT n.{}::text FROM {} AS n WHERE n.{} = {})").format(
        quoted(named.name), table(database, named.collection), quoted(named.key),
        column(row, named.column),
    )  # fmt: skip


def among(database: MappedDatabase, row: str, named: Named, wanted: Composable) -> Composable:
    """Whether the name of a row is one of some; found by one look into the table of the names.

    Args:
        database: in which it is looked up.
        row: alias of the row in the query.
        named: of incident.yaml.
        wanted: array of texts.
    """
    if isinstance(named, str):
        return SQL("({})::text = ANY({})").format(pack_sql(named), wanted)
    return SQL("{} IN (SELECT n.{} FROM {} AS n WHERE n.{}::text = ANY({}))").format(
        column(row, named.column), quoted(named.key), table(database, named.collection),
        quoted(named.name), wanted,
    )  # fmt: skip


def joined(database: MappedDatabase, row: str, lookup: Lookup, alias: str) -> Composable:
    """A join that brings the row with the name beside each row, named by an alias."""
    return SQL(" LEFT JOIN {} AS {} ON {} = {}").format(
        table(database, lookup.collection), Identifier(alias), column(alias, lookup.key),
        column(row, lookup.column),
    )  # fmt: skip


MINUTES = 15  # of one statement; a scan of 100 million rows takes less
_SETTINGS = {
    "statement_timeout": f"{MINUTES}min",
    "lock_timeout": "30s",  # reading waits only for changes of tables, which must not wait for us
    "work_mem": "128MB",
    "jit": "off",  # it compiles for every partition anew
}
_OF_THE_SQL, _OF_THE_DATA = "42", "22"  # SQLSTATE classes; the former says no value of a row
_CANCELLED, _LOCKED = "57014", "55P03"
_MOMENTS = {1082, 1114, 1184}  # type oids of PostgreSQL: date, timestamp, timestamptz


class CannotCount(Exception):
    """Nobody can count in a database.

    Attributes:
        reason: for people; no value of a record.
        passing: whether it may be worth another try soon.
    """

    def __init__(self, reason: Message, *, passing: bool = False) -> None:
        super().__init__(Translator("en", "UTC").text(reason))
        self.reason = reason
        self.passing = passing


@contextmanager
def reading(
    address: DatabaseAddress, database: MappedDatabase, timezone: str
) -> Iterator[psycopg.Connection[Any]]:
    """Open a mapped database: repeatable read, read-only; ends with the block.

    Args:
        address: where it is, as one who may read what incident.yaml names.
        database: of the data map.
        timezone: of the pack; dates and times without one are meant in it.

    Raises:
        CannotCount: it cannot be reached, refuses, does not have what incident.yaml names, or takes
            too long; whatever of it happens inside of the block.
    """
    with explained():
        connection = address.connect()
        try:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            connection.prepare_threshold = None  # every statement is planned for its values
            settings = {**PRINTING, **_SETTINGS, "TimeZone": timezone}
            path = as_text(quoted(database.schema_name))
            settings["search_path"] = f"{path}, pg_catalog"
            for name, value in settings.items():
                connection.execute("SELECT set_config(%s, %s, true)", [name, value])
            yield connection
        finally:
            connection.close()


@contextmanager
def explained() -> Iterator[None]:
    """Turn what a database says into the reason why nobody can count in it."""
    try:
        yield
    except ParcelSealError as error:
        raise CannotCount(
            _("It could not be reached, or refused the connection: {said}", said=error.message),
            passing=isinstance(error, ServiceError),
        ) from None
    except psycopg.Error as error:
        raise _reason(error) from None


def _reason(error: psycopg.Error) -> CannotCount:
    state = error.sqlstate or ""
    if state == _CANCELLED:
        return CannotCount(
            _("It took longer than {minutes} minutes, or somebody cancelled it.", minutes=MINUTES),
            passing=True,
        )
    if state == _LOCKED:
        return CannotCount(_("A table is locked by somebody who changes it."), passing=True)
    if isinstance(error, psycopg.OperationalError):
        return CannotCount(
            _("The connection was lost ({code}).", code=state or _("no answer")), passing=True
        )
    if state.startswith(_OF_THE_SQL):
        said = error.diag.message_primary or state
        return CannotCount(
            _("What incident.yaml names is not there, or may not be read: {said}.", said=said)
        )
    if state.startswith(_OF_THE_DATA):
        return CannotCount(
            _("A value has another form than incident.yaml expects ({code}).", code=state)
        )
    return CannotCount(_("The database refused the query ({code}).", code=state or "?"))


def span(at: Composable, kind: int | None = None) -> Composable:
    """Aggregates: the first and the last moment as texts, for `first_and_last`.

    Args:
        at: the moment.
        kind: oid of its type; None where it is sure to be a moment.
    """
    if kind is not None and kind not in _MOMENTS:
        at = SQL("({})::timestamptz").format(at)
    return SQL("min({at})::timestamptz::text, max({at})::timestamptz::text").format(at=at)


def first_and_last(
    connection: psycopg.Connection[Any],
    texts: Sequence[Sequence[str | None]],
    at: Composable,
    source: Composable,
    values: Mapping[str, Any],
) -> tuple[datetime | None, datetime | None]:
    """The first and the last moment; without those that Python cannot hold, which are rare.

    Args:
        connection: to the database.
        texts: what `span` gave, of each group.
        at: the moment.
        source: where `span` found it, with its condition.
        values: parameters.
    """
    if any((moment(one) is None) != (one is None) for group in texts for one in group):
        held = SQL(
            "SELECT min(at)::text, max(at)::text FROM (SELECT ({})::timestamptz AS at FROM {})"
            " AS one WHERE at BETWEEN '0001-01-03Z' AND '9999-12-29Z'"
        ).format(at, source)
        texts = connection.execute(held, values).fetchall()
    firsts, lasts = ([moment(one[place]) for one in texts] for place in (0, 1))
    return min(filter(None, firsts), default=None), max(filter(None, lasts), default=None)


def moment(text: str | None) -> datetime | None:
    """A moment that PostgreSQL printed, in UTC; None for infinity, BC and after 9999."""
    try:
        return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
