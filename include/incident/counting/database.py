"""Count the affected records and people in each database of an incident's scope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from psycopg.sql import SQL, Composable

from include.incident.counting.affected_records import (
    AffectedRecords,
    key_as_text,
    resolve_selection,
)
from include.incident.counting.live_database import inspect_database
from include.incident.counting.logs import LoggedSubjects
from include.incident.counting.snapshot import CannotCount, open_snapshot
from include.incident.counting.subject_counts import count_subjects
from include.incident.rules import IncidentRules
from include.incident.scope import DatabaseCount, Scope, UncountedDatabase
from include.incident.selection import Selection
from include.messages import verbatim
from include.policy.datamap import MappedDatabase
from include.services.database import DatabaseAddress
from include.services.errors import UsageError

_MAX_POSITIONS = 20  # shown in a report


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
    """Count the affected records and people in every database that the entered criteria cover.

    Args:
        selection: criteria that `check_selection` returned.
        rules: content of incident.yaml.
        databases: databases of the data map, by name.
        readers: addresses of the databases, by database name. The login of each address may read
            the tables that incident.yaml names.
        version: version number of the returned scope, from 1.
        moment: time of awareness, at which the age of people is determined.
        zone: timezone of the policy pack, for times without a timezone.
    """
    counted: list[DatabaseCount] = []
    unknown: list[UncountedDatabase] = []
    for name in selection.databases:
        rule = rules.scope_of(name)
        try:
            with open_snapshot(readers[name], databases[name], zone.key) as connection:
                live = inspect_database(connection, databases[name], rule)
                counted.append(
                    count_database(resolve_selection(live, selection, moment), rules.sensitive)
                )
        except CannotCount as error:
            unknown.append(
                UncountedDatabase(
                    database=name, reason=error.reason, passing=error.may_succeed_on_retry
                )
            )
        except UsageError as error:  # its data map is faulty, or its connection is missing
            unknown.append(UncountedDatabase(database=name, reason=verbatim(error.message)))
    return Scope(
        version=version, selection=selection, counted=tuple(counted), unknown=tuple(unknown)
    )


def count_database(affected: AffectedRecords, sensitive: Sequence[str]) -> DatabaseCount:
    """Count the affected records and people in one database.

    Args:
        affected: affected records of a database with an open connection.
        sensitive: sensitive data categories. Their subcategories are sensitive as well.

    Raises:
        psycopg.Error: the database does not match incident.yaml, or the connection was lost.
    """
    subjects, rows = count_subjects(affected, sensitive)
    logged = affected.logged or LoggedSubjects(SQL(""))
    missing_positions = missing_key_positions(affected)
    return DatabaseCount(
        database=affected.live.rule.database,
        everything=affected.everything,
        subjects=subjects.count,
        records={name: counts.count for name, counts in rows.items()},
        categories=dict(subjects.categories),
        sensitive=subjects.sensitive,
        minors=subjects.minors,
        age_unknown=subjects.age_unknown,
        unlisted=subjects.unlisted,
        undated=sum(row.undated for row in rows.values()),
        first=min((row.first for row in rows.values() if row.first), default=None),
        last=max((row.last for row in rows.values() if row.last), default=None),
        departments={} if affected.everybody else dict(subjects.departments),
        accounts=dict(logged.accounts),
        log_rows=logged.rows,
        log_first=logged.first,
        log_last=logged.last,
        not_narrowed=affected.not_narrowed,
        listed=len(affected.listed.keys),
        not_found=len(missing_positions),
        not_found_at=tuple(missing_positions[:_MAX_POSITIONS]),
    )


def missing_key_positions(affected: AffectedRecords) -> list[int]:
    """Return the positions, from 1, of the listed keys that do not exist in the database.

    The key of a person exists if it is in the subject table or in a record.

    Args:
        affected: affected records of the database, with the listed keys.

    Raises:
        psycopg.Error: the database does not match incident.yaml, or the connection was lost.
    """
    live, listed = affected.live, affected.listed
    if not listed.keys:
        return []
    if listed.collection is not None:
        collection = affected.collections[listed.collection]
        queries = [
            SQL("SELECT ({})::text FROM {} AS r WHERE {}").format(
                value.sql, collection.table, condition
            )
            for value, condition in zip(collection.named, listed.records(collection), strict=True)
        ]
        return listed.missing(_query_texts(affected, queries, listed.keys), None)
    query = SQL("SELECT {} FROM {} AS s WHERE {} IN ({})").format(
        key_as_text(live, live.person), live.people, live.person, listed.people(live)
    )
    missing = set(listed.missing(_query_texts(affected, [query], listed.keys), live.key))
    if not missing:
        return []
    keys = [
        key
        for position, key in zip(listed.positions, listed.keys, strict=True)
        if position in missing
    ]
    queries = [
        SQL("SELECT {} FROM {} AS r WHERE {} IN ({})").format(
            key_as_text(live, live.as_key(key)), collection.table, key, listed.people(live)
        )
        for collection in affected.collections.values()
        for key in collection.keys
    ]
    keys_in_records = _query_texts(affected, queries, keys) if queries else set()
    return [
        position for position in listed.missing(keys_in_records, live.key) if position in missing
    ]


def _query_texts(
    affected: AffectedRecords, queries: Sequence[Composable], keys: Sequence[str]
) -> set[str]:
    values = {**affected.values, **affected.listed.values(affected.live, keys)}
    query = SQL(" UNION ").join(queries)
    return {text for (text,) in affected.live.connection.execute(query, values)}
