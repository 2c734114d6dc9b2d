"""Find the tables of the record classes of a database, and the ends of their retention periods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable

from include.erasure import request_records, requests
from include.erasure.ledger import ErasureKeys
from include.erasure.masks import read_column_shapes
from include.erasure.request_records import NamedRecord, RecordReader
from include.erasure.requests import ErasureRequest
from include.erasure.tables import TableName
from include.holds.records import RecordHolds, load_record_holds
from include.policy.datamap import MappedDatabase
from include.policy.fragments import literal, pack_sql, quoted
from include.policy.period import Period
from include.policy.retention import Minimum, RetentionRule, SqlClock
from include.retention.database import RetentionDatabase
from include.retention.planning.classes import BoundClock, Cutoff, RecordClass
from include.retention.planning.column_checks import require_detachable, require_masks_fit
from include.retention.planning.graph import Graph
from include.retention.postgres.key_types import (
    KeyType,
    TypedKeys,
    UnusableKey,
    explain_unusable,
    list_expressions,
    read_key_types,
)
from include.retention.postgres.relations import Relation, read_relations, require_disposable
from include.services.database import scalar
from include.services.errors import UsageError

_DATE, _TIMESTAMP, _TIMESTAMPTZ = 1082, 1114, 1184  # type oids of PostgreSQL
# Return the clock values at which the period changes between ended and not ended. For values before
# the first value, the period has ended. Adding months or days is not monotonic: with a period of a
# year, at noon of 28 February, the period has ended for a clock in the morning of 29 February of a
# leap year, but not for a clock in the afternoon of the 28 February before it. So the query samples
# clock values near the start of the period each quarter of an hour, since days and daylight saving
# time change at full quarters, and bisects each interval in which the answer changes.
_CUTOFF = """
WITH RECURSIVE input AS (
    SELECT %(as_of)s::timestamptz AS as_of,
           make_interval(months => %(months)s, days => %(days)s, secs => %(seconds)s) AS period
), samples AS (
    SELECT moment, moment::timestamptz + period < as_of AS over
    FROM input,
    LATERAL (SELECT date_trunc('hour', as_of - period)::{type} AS about) AS a,
    generate_series(about - interval '5 days', about + interval '5 days', '15 minutes') AS quarter,
    LATERAL (VALUES (quarter - interval '1 microsecond'), (quarter)) AS p (moment)
), changes AS (
    SELECT lag(moment) OVER (ORDER BY moment) AS before, moment, over,
           lag(over) OVER (ORDER BY moment) AS over_before
    FROM samples
), search (start, before, moment, over) AS (
    SELECT before, before, moment, over FROM changes WHERE over <> over_before
    UNION ALL
    SELECT start, CASE WHEN same THEN before ELSE middle END,
           CASE WHEN same THEN middle ELSE moment END, over
    FROM (SELECT *, before + (moment - before) / 2 AS middle FROM search
          WHERE moment - before > interval '1 microsecond') AS n, input,
    LATERAL (SELECT (middle::timestamptz + period < as_of) = over AS same) AS s
)
SELECT array_agg(edge ORDER BY edge) FROM (SELECT min(moment) AS edge FROM search GROUP BY start) e
"""


def bind_classes(
    connection: psycopg.Connection[Any],
    rules: Sequence[RetentionRule],
    relations: Mapping[str, Relation],
    *,
    as_of: datetime,
    now: datetime,
    timezone: str,
) -> list[RecordClass]:
    """Return record classes with their tables and the ends of their retention periods.

    Args:
        connection: connection to the mapped database, set up by
            `include.retention.postgres.session`.
        rules: definitions of the record classes of this database.
        relations: collection -> table.
        as_of: time for which the plan is made; timezone-aware.
        now: time at which the plan is made; timezone-aware.
        timezone: IANA name of the timezone in which columns without a timezone are read.

    Raises:
        UsageError: the database cannot evaluate the SQL of a record class; a start of a retention
            period is neither a date nor a time; a column of the primary key is to be masked; or no
            legal hold can match the type of a key.
    """
    binder = _Binder(connection, as_of, now, timezone)
    types = [binder.key_types(rule, relations[rule.collection]) for rule in rules]
    keys = TypedKeys.of([rule.keys for rule in rules], types)
    return [
        binder.record_class(rule, relations[rule.collection], key_types, keys)
        for rule, key_types in zip(rules, types, strict=True)
    ]


class _Binder:
    def __init__(
        self, connection: psycopg.Connection[Any], as_of: datetime, now: datetime, timezone: str
    ) -> None:
        self.connection = connection
        self.as_of = as_of
        self.timezone = timezone
        self.cutoffs: dict[Period, Cutoff] = {}
        self.now = self._cutoff(now, Period("P0D"))

    def record_class(
        self,
        rule: RetentionRule,
        relation: Relation,
        key_types: Mapping[str, KeyType],
        keys: TypedKeys,
    ) -> RecordClass:
        if masked := [column for column in rule.mask if column in relation.key]:
            raise UsageError(
                f"The class {rule.record_class} masks a column of the primary key: {masked[0]}. "
                "The erasure ledger identifies masked records by this key.",
                "Remove the column from `mask` in retention.yaml.",
            )
        clock = self._clock(rule, rule.clock, relation)
        bound = BoundClock(*clock, self._of_period(rule.period), self.now)
        minima = tuple(self._minimum(rule, minimum, relation, bound) for minimum in rule.minimum)
        name = TableName(relation.schema, relation.name)
        shapes = read_column_shapes(self.connection, name) if rule.action == "mask" else {}
        record_class = RecordClass(rule, relation, bound, minima, shapes, key_types, keys)
        for text in (rule.where, rule.suspended and rule.suspended.where):
            if text:
                self._type_of(rule, SQL("(({}) IS TRUE)").format(pack_sql(text)), relation)
        return record_class

    def key_types(self, rule: RetentionRule, relation: Relation) -> dict[str, KeyType]:
        with self._refusals(rule), self.connection.transaction():
            types = read_key_types(self.connection, rule.keys, relation)
        for kind, _place, text in list_expressions(rule.keys):
            if reason := explain_unusable(kind, types[text]):
                fault, action = reason
                raise UnusableKey(f"In the class {rule.record_class}, {fault}.", action)
        return types

    def _minimum(
        self, rule: RetentionRule, minimum: Minimum, relation: Relation, own: BoundClock
    ) -> BoundClock:
        cutoff = self._of_period(minimum.period)
        if minimum.clock is None:
            return BoundClock(own.sql, own.zoned, cutoff, self.now)
        return BoundClock(*self._clock(rule, minimum.clock, relation), cutoff, self.now)

    def _clock(
        self, rule: RetentionRule, clock: tuple[str, ...] | SqlClock, relation: Relation
    ) -> tuple[Composable, bool]:
        if isinstance(clock, SqlClock):
            expression: Composable = SQL("({})").format(pack_sql(clock.sql))
        else:
            columns = [quoted("t", column) for column in clock]
            only = len(columns) == 1
            kinds = (
                [self._type_of(rule, column, relation) for column in columns] if not only else []
            )
            if _TIMESTAMPTZ in kinds:  # PostgreSQL would read the others in the session's timezone
                columns = [
                    column if kind == _TIMESTAMPTZ else self._zoned(column)
                    for column, kind in zip(columns, kinds, strict=True)
                ]
            expression = columns[0] if only else SQL("GREATEST({})").format(SQL(", ").join(columns))
        kind = self._type_of(rule, expression, relation)
        if kind not in (_DATE, _TIMESTAMP, _TIMESTAMPTZ):
            raise UsageError(
                f"The clock of the class {rule.record_class} is neither a date nor a timestamp.",
                "Correct `clock` in retention.yaml.",
            )
        return expression, kind == _TIMESTAMPTZ

    def _zoned(self, column: Composable) -> Composable:
        zone = literal(self.timezone)
        return SQL("({}::timestamp AT TIME ZONE {})").format(column, zone)

    def _type_of(self, rule: RetentionRule, expression: Composable, relation: Relation) -> int:
        query = SQL("SELECT {} FROM {} AS t LIMIT 0").format(expression, relation.identifier)
        with self._refusals(rule), self.connection.transaction():
            cursor = self.connection.execute(query, {})
        assert cursor.description is not None
        return cursor.description[0].type_code

    @contextmanager
    def _refusals(self, rule: RetentionRule) -> Iterator[None]:
        try:
            yield
        except (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError) as error:
            if isinstance(error, psycopg.errors.InsufficientPrivilege):
                raise
            kind = type(error).__name__
            raise UsageError(
                f"The database cannot evaluate a clock, condition or key of the class "
                f"{rule.record_class} ({kind}, SQLSTATE {error.sqlstate}).",
                "Correct the SQL in retention.yaml; it names columns of the record as t.column.",
            ) from None

    def _of_period(self, period: Period) -> Cutoff:
        if period not in self.cutoffs:
            self.cutoffs[period] = self._cutoff(self.as_of, period)
        return self.cutoffs[period]

    def _cutoff(self, as_of: datetime, period: Period) -> Cutoff:
        span = {"months": period.months, "days": period.days, "seconds": period.seconds}
        with self.connection.transaction():
            self.connection.execute("SELECT set_config('TimeZone', %s, true)", [self.timezone])
            zoned = self._query_cutoff("timestamptz", as_of, span)
            plain = self._query_cutoff("timestamp", as_of, span)
            self.connection.execute("SET LOCAL TimeZone = 'UTC'")
        return Cutoff(zoned, plain)

    def _query_cutoff(
        self, kind: str, as_of: datetime, span: Mapping[str, int]
    ) -> tuple[datetime, ...]:
        query = SQL(_CUTOFF).format(type=SQL(kind))
        return tuple(scalar(self.connection, query, {"as_of": as_of, **span}))


Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Schedule:
    """The retention schedule of one database, for the time of a plan.

    Attributes:
        database: the database in the data map.
        rules: definitions of the record classes in retention.yaml.
        as_of: time for which the plan is made; timezone-aware.
        now: time at which the plan is made; timezone-aware.
        timezone: IANA name of the policy pack's timezone.
        holds: the active legal holds.
        requests: open erasure requests that this run may carry out.
        keys: HMAC keys of the erasure ledger.
        remembered: the records that runs found for open erasure requests and stored in the state
            database. Each item is a pair: key of the data subject, and the stored record.
    """

    database: MappedDatabase
    rules: Sequence[RetentionRule]
    as_of: datetime
    now: datetime
    timezone: str
    holds: RecordHolds
    requests: Sequence[ErasureRequest]
    keys: ErasureKeys
    remembered: Sequence[tuple[str, NamedRecord]] = ()

    def graph(self, connection: Connection) -> Graph:
        """Return the record classes with their current tables and foreign keys.

        Raises:
            UsageError: a table is missing or has no primary key, the SQL of a record class is
                faulty, or a foreign key cannot be set to null as retention.yaml requires.
        """
        relations = read_relations(connection, self.database)
        require_disposable(relations, [rule.collection for rule in self.rules])
        classes = bind_classes(
            connection,
            self.rules,
            relations.by_collection,
            as_of=self.as_of,
            now=self.now,
            timezone=self.timezone,
        )
        subjects = frozenset(request.subject for request in self.requests)
        reader = RecordReader(connection, self.database, self.keys, self.rules)
        records = reader.records(self.remembered)
        graph = Graph(classes, relations, self.holds, subjects, records)
        require_detachable(connection, graph)
        require_masks_fit(connection, graph)
        return graph


def schedule_of(database: RetentionDatabase, as_of: datetime) -> Schedule:
    """Return the retention schedule of a database for the time of a plan.

    It contains the current legal holds and open erasure requests.

    Args:
        database: the database.
        as_of: time for which the plan is made; timezone-aware.
    """
    run, name = database.run, database.name
    with run.state.connect() as conn:
        holds = load_record_holds(conn, name)
        open_requests = requests.open_requests(conn, name)
        remembered = request_records.load_records(conn, name)
    return Schedule(
        database=database.mapped,
        rules=database.rules,
        as_of=as_of,
        now=run.clock.now(),
        timezone=run.pack.calendar.timezone,
        holds=holds,
        requests=[request for request in open_requests if request.oversized_at is None],
        keys=run.services.erasure_keys,
        remembered=remembered,
    )
