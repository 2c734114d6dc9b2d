"""Counting what is affected, database by database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from psycopg.sql import SQL, Composable

from include.incident.counting.affected import Affected, affected, printed
from include.incident.counting.live import look
from include.incident.counting.logs import Logged
from include.incident.counting.people import some
from include.incident.counting.reading import CannotCount, reading
from include.incident.rules import IncidentRules
from include.incident.scope import Counted, Scope, Unknown
from include.incident.selection import Selection
from include.messages import verbatim
from include.policy.datamap import MappedDatabase
from include.services.database import DatabaseAddress
from include.services.errors import UsageError

_MOST_PLACES = 20  # that a report shows


def count_all(
    selection: Selection,
    rules: IncidentRules,
    databases: Mapping[str, MappedDatabase],
    readers: Mapping[str, DatabaseAddress],
    *,
    version: int,
    moment: datetime,
    zone: ZoneInfo,
) -> Scope:
    """Count what is affected in every database of a selection.

    Args:
        selection: what is affected, `selection.checked`.
        rules: incident.yaml.
        databases: of the data map, by name.
        readers: where they are, as one who may read what incident.yaml names.
        version: of the scope, from 1.
        moment: as of which the age of people counts: when the company became aware.
        zone: of the pack; dates without one are meant in it.
    """
    counted: list[Counted] = []
    unknown: list[Unknown] = []
    for name in selection.databases:
        rule = rules.scope_of(name)
        try:
            with reading(readers[name], databases[name], zone.key) as connection:
                there = look(connection, databases[name], rule)
                counted.append(count(affected(there, selection, moment), rules.sensitive))
        except CannotCount as error:
            unknown.append(Unknown(database=name, reason=error.reason, passing=error.passing))
        except UsageError as error:  # its data map is faulty, or its connection is missing
            unknown.append(Unknown(database=name, reason=verbatim(error.message)))
    return Scope(
        version=version, selection=selection, counted=tuple(counted), unknown=tuple(unknown)
    )


def count(found: Affected, sensitive: Sequence[str]) -> Counted:
    """Count what is affected in one database.

    Args:
        found: in an open database.
        sensitive: data categories that count as such, with those below them.

    Raises:
        psycopg.Error: the database is not as incident.yaml says, or was lost.
    """
    who, rows = some(found, sensitive)
    logged = found.logged or Logged(SQL(""))
    places = missing(found)
    return Counted(
        database=found.live.rule.database,
        everything=found.everything,
        subjects=who.count,
        records={name: one.count for name, one in rows.items()},
        categories=dict(who.categories),
        sensitive=who.sensitive,
        minors=who.minors,
        age_unknown=who.age_unknown,
        unlisted=who.unlisted,
        undated=sum(row.undated for row in rows.values()),
        first=min((row.first for row in rows.values() if row.first), default=None),
        last=max((row.last for row in rows.values() if row.last), default=None),
        departments={} if found.everybody else dict(who.departments),
        accounts=dict(logged.accounts),
        log_rows=logged.rows,
        log_first=logged.first,
        log_last=logged.last,
        not_narrowed=found.not_narrowed,
        listed=len(found.listed.keys),
        not_found=len(places),
        not_found_at=tuple(places[:_MOST_PLACES]),
    )


def missing(found: Affected) -> list[int]:
    """Places in the list, from 1, of keys that the database does not have.

    A person who does not stand in the collection of people, and whom records name, is there.

    Raises:
        psycopg.Error: the database is not as incident.yaml says, or was lost.
    """
    live, listed = found.live, found.listed
    if not listed.keys:
        return []
    if listed.collection is not None:
        one = found.collections[listed.collection]
        named = [
            SQL("SELECT ({})::text FROM {} AS r WHERE {}").format(value.sql, one.table, condition)
            for value, condition in zip(one.named, listed.records(one), strict=True)
        ]
        return listed.missing(_texts(found, named, listed.keys), None)
    there = SQL("SELECT {} FROM {} AS s WHERE {} IN ({})").format(
        printed(live, live.person), live.people, live.person, listed.people(live)
    )
    left = set(listed.missing(_texts(found, [there], listed.keys), live.key))
    if not left:
        return []
    keys = [key for place, key in zip(listed.places, listed.keys, strict=True) if place in left]
    named = [
        SQL("SELECT {} FROM {} AS r WHERE {} IN ({})").format(
            printed(live, live.as_key(key)), collection.table, key, listed.people(live)
        )
        for collection in found.collections.values()
        for key in collection.keys
    ]
    strangers = _texts(found, named, keys) if named else set()
    return [place for place in listed.missing(strangers, live.key) if place in left]


def _texts(found: Affected, queries: Sequence[Composable], keys: Sequence[str]) -> set[str]:
    values = {**found.values, **found.listed.values(found.live, keys)}
    query = SQL(" UNION ").join(queries)
    return {text for (text,) in found.live.connection.execute(query, values)}
