"""Record classes bound to the tables and the moment of one plan, as SQL conditions.

Conditions speak of one record, ``t``. Sessions that use them are set up by
`include.retention.session`: they run in UTC, so that keys print the same everywhere, and the
moments here say for themselves in which timezone a date or a time without one is meant.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable

from include.erasure.masks import Mask, Shape, shapes, to_mask
from include.erasure.places import Place, key_texts
from include.erasure.request_records import Key, RequestRecords, digest_of
from include.holds.records import RecordHolds
from include.holds.registry import Hold, HoldKind
from include.policy.fragments import both, either, fixed, literal, pack_sql, quoted
from include.policy.period import Period
from include.policy.retention import Keys, Minimum, RetentionRule, SqlClock
from include.retention.relations import Relation
from include.services.errors import UsageError

_DATE, _TIMESTAMP, _TIMESTAMPTZ = 1082, 1114, 1184  # type oids of PostgreSQL
# The moments at which "over" begins or ends, the first an end. Adding months or days is no
# one-to-one affair: at noon of 28 February the morning of the 29th of a leap year is over, and the
# afternoon of the 28th before it is not. So clocks about the beginning of the period are looked at
# by the quarter of an hour, on whose borders days and daylight saving time change, and each change
# of the answer is narrowed down.
_CUTOFF = """
WITH RECURSIVE given AS (
    SELECT %(as_of)s::timestamptz AS as_of,
           make_interval(months => %(months)s, days => %(days)s, secs => %(seconds)s) AS period
), looked_at AS (
    SELECT moment, moment::timestamptz + period < as_of AS over
    FROM given,
    LATERAL (SELECT date_trunc('hour', as_of - period)::{type} AS about) AS a,
    generate_series(about - interval '5 days', about + interval '5 days', '15 minutes') AS quarter,
    LATERAL (VALUES (quarter - interval '1 microsecond'), (quarter)) AS p (moment)
), changes AS (
    SELECT lag(moment) OVER (ORDER BY moment) AS before, moment, over,
           lag(over) OVER (ORDER BY moment) AS over_before
    FROM looked_at
), search (start, before, moment, over) AS (
    SELECT before, before, moment, over FROM changes WHERE over <> over_before
    UNION ALL
    SELECT start, CASE WHEN same THEN before ELSE middle END,
           CASE WHEN same THEN middle ELSE moment END, over
    FROM (SELECT *, before + (moment - before) / 2 AS middle FROM search
          WHERE moment - before > interval '1 microsecond') AS n, given,
    LATERAL (SELECT (middle::timestamptz + period < as_of) = over AS same) AS s
)
SELECT array_agg(edge ORDER BY edge) FROM (SELECT min(moment) AS edge FROM search GROUP BY start) e
"""


@dataclass(frozen=True)
class Cutoff:
    """From when to when a clock is over: before the first moment, from the second to the third, ...

    Nearly always there is one moment, and what expired is before it.

    Attributes:
        zoned: for clocks with a timezone.
        local: for dates and times without one, in the pack's timezone.
    """

    zoned: tuple[datetime, ...]
    local: tuple[datetime, ...]


@dataclass(frozen=True)
class BoundClock:
    """A clock of one class with the moment before which it is over.

    Attributes:
        sql: the clock, over ``t``.
        zoned: whether it has a timezone.
        cutoff: of its period.
        now: for what lies in the future.
    """

    sql: Composable
    zoned: bool
    cutoff: Cutoff
    now: Cutoff

    @property
    def over(self) -> Composable:
        """The period is over; null while the clock has not started."""
        first, *more = self._moments(self.cutoff)
        parts: list[Composable] = [SQL("({} < {})").format(self.sql, first)]
        for begins, ends in zip(more[::2], more[1::2], strict=True):
            parts.append(SQL("({0} >= {1} AND {0} < {2})").format(self.sql, begins, ends))
        return either(parts) if more else parts[0]

    @property
    def ahead(self) -> Composable:
        """The clock lies in the future."""
        return SQL("({} > {})").format(self.sql, self._moments(self.now)[-1])

    @property
    def not_started(self) -> Composable:
        """The clock is null."""
        return SQL("(({}) IS NULL)").format(self.sql)

    def _moments(self, cutoff: Cutoff) -> list[Composable]:
        return [literal(one) for one in (cutoff.zoned if self.zoned else cutoff.local)]


@dataclass(frozen=True)
class RecordClass:
    """A record class of one database, bound to its table and to the moment of a plan.

    Attributes:
        rule: of retention.yaml.
        relation: its table.
        clock: of its period.
        minima: what laws ask beside it.
        shapes: what the table's columns can hold; of a class that masks.
    """

    rule: RetentionRule
    relation: Relation
    clock: BoundClock
    minima: tuple[BoundClock, ...] = ()
    shapes: Mapping[str, Shape] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the class."""
        return self.rule.record_class

    @property
    def belongs(self) -> Composable:
        """The record is of the class."""
        return SQL("(({}) IS TRUE)").format(pack_sql(self.rule.where)) if self.rule.where else _TRUE

    @property
    def expired(self) -> Composable:
        """Every period is over, and there is something left to do."""
        return both([self.clock.over, *(one.over for one in self.minima), *self._undone])

    def requested(self, subjects: Collection[str], records: RequestRecords) -> Composable:
        """Return the condition that its data subject asked for it, and no law keeps it any more.

        Args:
            subjects: keys of data subjects who asked to be erased.
            records: that are remembered for requests.
        """
        if not self.rule.on_request or not subjects:
            return _FALSE
        linked = both([self.belongs, self.linked(subjects)])
        remembered = self._not_taken_over(subjects, records)
        found = linked if remembered == _FALSE else either([linked, remembered])
        return both([found, *(one.over for one in self.minima), *self._undone])

    def linked(self, subjects: Collection[str]) -> Composable:
        """Return the condition that an expression of the class names one of some data subjects."""
        return _found(self.rule.keys.subject, subjects)

    def remembered(
        self, records: RequestRecords, subjects: Collection[str] | None = None
    ) -> Composable:
        """Return the condition that it is remembered for a request, of some subjects or of any."""
        keys = {key for group in records.of(self.name, subjects) for key in group.keys}
        return self._is_one_of(keys) if keys else _FALSE

    def _not_taken_over(self, subjects: Collection[str], records: RequestRecords) -> Composable:
        """Return the condition that it is remembered, and its link leads to nobody else by now."""
        expressions = {digest_of(text): text for text in self.rule.keys.subject}
        groups: dict[str, set[Key]] = {}
        for group in records.of(self.name, subjects):
            groups.setdefault(group.found_by, set()).update(group.keys)
        conditions = []
        for found_by, keys in sorted(groups.items()):
            condition = self._is_one_of(keys)
            if found_by in expressions:
                link = SQL("({})::text").format(pack_sql(expressions[found_by]))
                ours = SQL("({0} IS NULL OR {0} = ANY ({1}::text[]))").format(
                    link, literal(sorted(subjects))
                )
                condition = both([condition, ours])
            conditions.append(condition)
        return either(conditions)

    def _is_one_of(self, keys: Collection[Key]) -> Composable:
        """Return the condition that its primary key is one of some."""
        columns = list(zip(*sorted(keys), strict=True))
        if len(columns) == 1:
            return SQL("({} = ANY ({}::text[]))").format(
                fixed(key_texts(self.relation.key)), literal(list(columns[0]))
            )
        return SQL("(({}) IN (SELECT * FROM unnest({})))").format(
            fixed(key_texts(self.relation.key)),
            SQL(", ").join(SQL("{}::text[]").format(literal(list(one))) for one in columns),
        )

    @property
    def suspended(self) -> Composable:
        """It stays although its period is over."""
        suspended = self.rule.suspended
        return SQL("(({}) IS TRUE)").format(pack_sql(suspended.where)) if suspended else _FALSE

    def held(self, holds: RecordHolds) -> Composable:
        """A hold of the registry is on it."""
        if holds.everything or self.name in holds.classes:
            return _TRUE
        return either(
            [
                _found(expressions, sorted(holds.values[kind]))
                for kind, expressions in _expressions(self.rule.keys).items()
                if expressions and holds.values.get(kind)
            ]
        )

    def held_by(self, hold: Hold, value: str) -> Composable:
        """One hold is on it.

        Args:
            hold: of the registry.
            value: what it is on, without the database.
        """
        if hold.kind is HoldKind.DATABASE:
            return _TRUE
        if hold.kind is HoldKind.CLASS:
            return _TRUE if value == self.name else _FALSE
        return _found(_expressions(self.rule.keys).get(hold.kind, ()), [value])

    @property
    def mask(self) -> Mask:
        """What is hidden of its records."""
        return Mask(self.rule.mask, self.rule.stamp)

    @property
    def _undone(self) -> list[Composable]:
        return [fixed(to_mask(self.mask, self.shapes))] if self.rule.action == "mask" else []


_TRUE, _FALSE = SQL("true"), SQL("false")


def _expressions(keys: Keys) -> dict[HoldKind, tuple[str, ...]]:
    return {
        HoldKind.SUBJECT: keys.subject,
        HoldKind.WAYBILL: keys.waybill,
        HoldKind.CASE: keys.case,
    }


def _found(expressions: Sequence[str], values: Collection[str]) -> Composable:
    wanted = literal(sorted(values))
    return either(
        [
            SQL("((({})::text = ANY ({}::text[])) IS TRUE)").format(pack_sql(one), wanted)
            for one in expressions
        ]
    )


def bind(
    connection: psycopg.Connection[Any],
    rules: Sequence[RetentionRule],
    relations: Mapping[str, Relation],
    *,
    as_of: datetime,
    now: datetime,
    timezone: str,
) -> list[RecordClass]:
    """Bind record classes to their tables, and work out what is over at a moment.

    Args:
        connection: to the mapped database, inside of `include.retention.session`.
        rules: of one database.
        relations: tables by collection.
        as_of: the moment for which the plan is made; timezone-aware.
        now: the moment of planning.
        timezone: IANA name in which dates and times without a timezone are meant.

    Raises:
        UsageError: a clock or condition is no SQL that this database understands, a clock is
            neither a date nor a time, or a mask is put on a column of the primary key.
    """
    binder = _Binder(connection, as_of, now, timezone)
    return [binder.record_class(rule, relations[rule.collection]) for rule in rules]


class _Binder:
    def __init__(
        self, connection: psycopg.Connection[Any], as_of: datetime, now: datetime, timezone: str
    ) -> None:
        self.connection = connection
        self.as_of = as_of
        self.timezone = timezone
        self.cutoffs: dict[Period, Cutoff] = {}
        self.now = self._cutoff(now, Period("P0D"))

    def record_class(self, rule: RetentionRule, relation: Relation) -> RecordClass:
        if masked := [one for one in rule.mask if one in relation.key]:
            raise UsageError(
                f"The class {rule.record_class} masks a column of the primary key: {masked[0]}. "
                "The erasure ledger names masked records by it.",
                "Leave it out of `mask` in retention.yaml.",
            )
        clock = self._clock(rule, rule.clock, relation)
        bound = BoundClock(*clock, self._of_period(rule.period), self.now)
        minima = tuple(self._minimum(rule, one, relation, bound) for one in rule.minimum)
        place = Place(relation.schema, relation.name)
        held = shapes(self.connection, place) if rule.action == "mask" else {}
        made = RecordClass(rule, relation, bound, minima, held)
        for text in (rule.where, rule.suspended and rule.suspended.where):
            if text:
                self._type_of(rule, SQL("(({}) IS TRUE)").format(pack_sql(text)), relation)
        for expressions in _expressions(rule.keys).values():
            for text in expressions:
                self._type_of(rule, SQL("({})::text").format(pack_sql(text)), relation)
        return made

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
            columns = [quoted("t", one) for one in clock]
            only = len(columns) == 1
            kinds = [self._type_of(rule, one, relation) for one in columns] if not only else []
            if _TIMESTAMPTZ in kinds:  # PostgreSQL would take the others to be of the session's
                columns = [
                    one if kind == _TIMESTAMPTZ else self._zoned(one)
                    for one, kind in zip(columns, kinds, strict=True)
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
        try:
            with self.connection.transaction():
                cursor = self.connection.execute(query, {})
        except (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError) as error:
            if isinstance(error, psycopg.errors.InsufficientPrivilege):
                raise
            kind = type(error).__name__
            raise UsageError(
                f"A clock, condition or key of the class {rule.record_class} is no SQL that the "
                f"database understands ({kind}, SQLSTATE {error.sqlstate}).",
                "Correct it in retention.yaml; it speaks of the record as t.",
            ) from None
        assert cursor.description is not None
        return cursor.description[0].type_code

    def _of_period(self, period: Period) -> Cutoff:
        if period not in self.cutoffs:
            self.cutoffs[period] = self._cutoff(self.as_of, period)
        return self.cutoffs[period]

    def _cutoff(self, as_of: datetime, period: Period) -> Cutoff:
        given = {"months": period.months, "days": period.days, "seconds": period.seconds}
        with self.connection.transaction():
            self.connection.execute("SELECT set_config('TimeZone', %s, true)", [self.timezone])
            zoned = self._look("timestamptz", as_of, given)
            plain = self._look("timestamp", as_of, given)
            self.connection.execute("SET LOCAL TimeZone = 'UTC'")
        return Cutoff(zoned, plain)

    def _look(self, kind: str, as_of: datetime, given: Mapping[str, int]) -> tuple[datetime, ...]:
        query = SQL(_CUTOFF).format(type=SQL(kind))
        row = self.connection.execute(query, {"as_of": as_of, **given}).fetchone()
        assert row is not None
        return tuple(row[0])
