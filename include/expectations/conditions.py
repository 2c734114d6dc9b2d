"""From an expectation of the pack to the SQL condition under which a record breaks it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from include.expectations import formats
from include.expectations.core import broken_sql
from include.expectations.types import ColumnType, Kind, before, local_form
from include.policy.datamap import MappedCollection, MappedDatabase
from include.policy.expectations import Expectation
from include.policy.kwargs import (
    NOW,
    Column,
    ColumnList,
    ColumnWhere,
    Distinct,
    ExistsAt,
    Recent,
    Related,
    ResidentId,
    ResidentIdDivision,
    RowCount,
    Satisfy,
    Uncollected,
)
from include.policy.rules import Rule

_ABOUT_ALL = {"expect_column_values_to_not_be_null", "expect_column_values_to_not_be_blank"}
# Of a composite value IS NULL asks for its fields.
_IS_NULL, _IS_NOT_NULL = "IS NOT DISTINCT FROM NULL", "IS DISTINCT FROM NULL"
SOURCE, RECORD, OTHER = "source", "record", "other"
_COUNTED_BACK = re.compile(r"\(\s*('[^']*'::timestamptz - INTERVAL '[^']*')\s*\)", re.IGNORECASE)


@dataclass(frozen=True)
class Records:
    """The records that are checked.

    Attributes:
        collection: of the data map.
        database: the data map.
        columns: the table's columns.
        key: columns of its primary key; empty when there is none.
        where: which records, as a condition over `SOURCE`; None means all.
        few: whether `where` selects few of them, so that other records are looked up one by one.
        indexed: collections and fields by which PostgreSQL finds records without reading them all.
        timezone: IANA name of the pack's timezone, in which days begin and end.
    """

    collection: MappedCollection
    database: MappedDatabase
    columns: tuple[str, ...]
    key: tuple[str, ...]
    where: sa.ColumnElement[bool] | None = None
    few: bool = False
    indexed: frozenset[tuple[str, str]] = frozenset()
    timezone: str = "UTC"

    @property
    def table(self) -> sa.TableClause:
        """The table itself."""
        return table_of(self.collection, self.columns)

    @property
    def selectable(self) -> sa.Subquery:
        """The records, under the name that conditions know them by."""
        return self.with_columns({})

    def with_columns(self, bound: Mapping[str, str]) -> sa.Subquery:
        """The records with further columns, each computed once however often it is named.

        Args:
            bound: SQL expressions over `SOURCE`, by name.
        """
        source = self.table.alias(SOURCE)
        more: list[sa.ColumnElement[Any]] = [
            sa.literal_column(expression).label(sa.quoted_name(name, quote=True))
            for name, expression in bound.items()
        ]
        query = sa.select(*source.columns, *more)
        if self.where is not None:
            query = query.where(self.where)
        if bound:
            # Else PostgreSQL writes the expression in wherever the column is named. In quotes: only
            # a constant that is a bigint from the beginning leaves its parallel workers in.
            query = query.offset(sa.literal_column("'0'"))
        return query.subquery(RECORD)


@dataclass(frozen=True)
class Condition:
    """When a record breaks an expectation.

    Attributes:
        broken: true where it does; null and false where it does not.
        joined: other records are asked too, so that it is a query of its own: in one scan with
            others PostgreSQL would look them up record by record. That is right for few records.
        bound: columns that it names beside the record's own: SQL over `SOURCE`, by name.
        named: whether the records are wanted by key, or only how many they are.
    """

    broken: sa.ColumnElement[bool]
    joined: bool = False
    named: bool = True
    bound: Mapping[str, str] = field(default_factory=dict)


def table_of(collection: MappedCollection, columns: tuple[str, ...]) -> sa.TableClause:
    """A table of a mapped database."""
    names: list[sa.ColumnClause[Any]] = [
        sa.column(sa.quoted_name(column, quote=True)) for column in columns
    ]
    table = sa.table(sa.quoted_name(collection.table, quote=True), *names)
    table.schema = sa.quoted_name(collection.schema_name, quote=True)
    return table


def condition_of(
    one: Expectation,
    records: Records,
    now: datetime,
    types: Mapping[str, ColumnType] = MappingProxyType({}),
) -> Condition | None:
    """Return the condition of an expectation; None for those about the whole table.

    Args:
        one: the expectation.
        records: that are checked.
        now: the moment from which periods count back.
        types: of the table's columns, which a core expectation fits.
    """
    kwargs = _at(one.kwargs, now)
    columns = {name: quoted(RECORD, name) for name in one.columns()}
    core = broken_sql(one, columns, types, records.timezone)
    if core is not None:
        return Condition(_where(None, core))
    if isinstance(kwargs, Satisfy):
        where = None if kwargs.where is None else _once(kwargs.where)
        return Condition(_where(where, f"NOT ({_once(kwargs.condition)})"))
    if isinstance(kwargs, Distinct):
        return _twin(kwargs, records)
    if isinstance(kwargs, Related):
        return _related(kwargs, records)
    if isinstance(kwargs, ResidentIdDivision):
        return _no_division(kwargs, records)
    if isinstance(kwargs, ExistsAt):
        return Condition(_absent(kwargs, records, types), joined=True)
    if isinstance(kwargs, Recent):
        kind = types[kwargs.column].kind if kwargs.column in types else Kind.MOMENT
        earliest = before(now, kwargs.period, records.timezone, kind)
        return Condition(_case(kwargs.where, _column(kwargs.column) < earliest))
    if isinstance(kwargs, Uncollected):
        return Condition(_collected(kwargs))
    repeats = repeated(one, records, types)
    if repeats is not None:
        return Condition(repeats, joined=True)
    if one.type == "expect_column_values_to_not_be_null" and isinstance(kwargs, Column):
        return Condition(_where(None, f"{quoted(RECORD, kwargs.column)} {_IS_NULL}"))
    if isinstance(kwargs, ResidentId):
        return _resident_id(kwargs, records, now)
    broken = _FORMATS.get(one.type)
    if broken is None or not isinstance(kwargs, ColumnWhere):
        return None
    return Condition(_where(kwargs.where, broken(f"{quoted(RECORD, kwargs.column)}::text")))


def selected(one: Expectation, now: datetime) -> sa.ColumnElement[bool] | None:
    """The records that an expectation is about; None when that is all of them.

    Those that ``where`` selects; where null has no answer, those that have a value.
    """
    kwargs = _at(one.kwargs, now)
    where = getattr(kwargs, "where", None)
    conditions: list[str | sa.ColumnElement[bool]] = [] if where is None else [_once(where)]
    if isinstance(kwargs, Satisfy):
        conditions.append(f"({_once(kwargs.condition)}) IS NOT NULL")
    elif one.type not in _ABOUT_ALL and not isinstance(kwargs, Related | RowCount | Uncollected):
        conditions += [f"{quoted(RECORD, name)} {_IS_NOT_NULL}" for name in one.columns()]
    if not conditions:
        return None
    # In their order: `where` may keep the rest from values that it cannot take.
    first, *rest = conditions
    return _all_of(first) if not rest else sa.case((_all_of(first), _all_of(*rest)))


def repeated(
    one: Expectation, records: Records, types: Mapping[str, ColumnType]
) -> sa.ColumnElement[bool] | None:
    """Return which records repeat others; None for expectations that are not of uniqueness."""
    if isinstance(one.kwargs, ColumnList):
        columns = one.kwargs.column_list
    elif one.type == "expect_column_values_to_be_unique" and isinstance(one.kwargs, Column):
        columns = (one.kwargs.column,)
    else:
        return None
    others = records.table.alias(OTHER)
    theirs = [others.c[name] for name in columns]
    groups = sa.select(*theirs).group_by(*theirs).having(sa.func.count() > 1)
    if any(types[name].kind is Kind.OTHER for name in columns if name in types):
        # IN compares rows and needs an order; xid has none.
        group = groups.subquery("repeated")
        same = [group.c[name] == _column(name) for name in columns]
        return sa.exists().select_from(group).where(*same)
    return sa.tuple_(*(_column(name) for name in columns)).in_(groups)


def _at(kwargs: Rule, now: datetime) -> Rule:
    """The same with ``:now`` in its SQL as the moment: two runs of one moment find the same."""
    moment = f"'{now.isoformat()}'::timestamptz"
    written = {key: getattr(kwargs, key, None) for key in ("condition", "where")}
    said = {key: NOW.sub(moment, sql) for key, sql in written.items() if sql}
    return kwargs.model_copy(update=said)


def _once(sql: str) -> str:
    """Let PostgreSQL count back from a moment once and not for every record.

    Not where it plans a join: of such a moment it does not know how many records lie behind it.
    """
    return _COUNTED_BACK.sub(r"((SELECT \1))", sql)  # it may be an argument


_FORMATS = {
    "expect_column_values_to_not_be_blank": formats.blank,
    "expect_column_values_to_be_mobile_numbers": formats.no_mobile_number,
    "expect_column_values_to_be_email_addresses": formats.no_email_address,
}


def _resident_id(kwargs: ResidentId, records: Records, now: datetime) -> Condition:
    text = f"{quoted(RECORD, kwargs.column)}::text"
    bound, octets = _octets(kwargs.column, records)
    broken = {
        "form": formats.no_resident_id_form(text, octets),
        "birth_date": formats.no_resident_id_birth_date(text, f"'{now:%Y%m%d}'", octets),
        "check_character": formats.no_resident_id_check_character(text, octets),
    }
    return Condition(_where(kwargs.where, broken[kwargs.part]), bound=bound)


def _octets(column: str, records: Records) -> tuple[dict[str, str], str]:
    """A resident ID number's bytes as a further column: its definition, and the column."""
    name = f"octets of column {records.columns.index(column) + 1}"
    given = formats.resident_id_octets(f"{quoted(SOURCE, column)}::text")
    return {name: given}, quoted(RECORD, name)


def quoted(alias: str, column: str) -> str:
    """Return a column of an alias in SQL."""
    escaped = column.replace('"', '""')
    return f'{alias}."{escaped}"'  # SQLAlchemy's own quoting doubles percent signs, and once more


def _column(name: str, of: str = RECORD) -> sa.ColumnElement[bool]:
    return sa.literal_column(quoted(of, name))


def _where(where: str | None, broken: str) -> sa.ColumnElement[bool]:
    return _case(where, sa.literal_column(f"({broken})", sa.Boolean))


def _case(where: str | None, broken: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """``where`` first: it may keep the condition from values that it cannot take."""
    if where is None:
        return broken
    return sa.case((sa.literal_column(f"({where})", sa.Boolean), broken))


def _all_of(*conditions: str | sa.ColumnElement[bool] | None) -> sa.ColumnElement[bool]:
    return sa.and_(
        *(
            sa.literal_column(f"({condition})", sa.Boolean)
            if isinstance(condition, str)
            else condition
            for condition in conditions
            if condition is not None
        )
    )


def _other(records: Records, name: str) -> sa.FromClause:
    return table_of(records.database.collections[name], ()).alias(OTHER)


def _absent(
    kwargs: ExistsAt, records: Records, types: Mapping[str, ColumnType]
) -> sa.ColumnElement[bool]:
    listed = [_text(kwargs.field, OTHER) == _text(kwargs.column)]
    if kwargs.at is not None:
        day: sa.ColumnElement[date] = sa.cast(_column(kwargs.at), sa.Date)
        if kind := types.get(kwargs.at):
            local = local_form(quoted(RECORD, kwargs.at), kind, records.timezone, as_day=True)
            day = sa.literal_column(local, sa.Date)
        for name, holds in ((kwargs.valid_from, "<="), (kwargs.retired_on, ">=")):
            if name is not None:
                end = _column(name, OTHER)
                kept = sa.cast(end, sa.Date).op(holds, is_comparison=True)(day)
                listed.append(sa.or_(end.is_(None), day.is_(None), kept))
    found = sa.exists().select_from(_other(records, kwargs.collection)).where(*listed)
    return _all_of(kwargs.where, _column(kwargs.column).is_not(None), ~found)


def _no_division(kwargs: ResidentIdDivision, records: Records) -> Condition:
    """Digits 1 to 6 are no code that was in force on the holder's day of birth or later.

    A record tells by itself: the list is read once, since it is short.
    """
    bound, octets = _octets(kwargs.column, records)
    number = _text(kwargs.column)
    listed = _other(records, kwargs.collection)
    code = _text(kwargs.field, OTHER)
    current = (
        sa.select(sa.func.convert_to(code, "UTF8")).select_from(listed).where(code.is_not(None))
    )
    mine: sa.ColumnElement[Any] = sa.literal_column(f"substr({octets}, 1, 6)")
    known: sa.ColumnElement[bool]
    if kwargs.retired_on is None:
        known = mine.in_(current)
    else:
        end = sa.cast(_column(kwargs.retired_on, OTHER), sa.Date)
        # As text: a day of birth that is none (a rule of its own) is no error here.
        last = sa.func.max(sa.func.to_char(end, "YYYYMMDD"))
        retired = (
            sa.select(code.label("code"), last.label("last"))
            .select_from(listed)
            .where(code.is_not(None), end.is_not(None))
            .group_by(code)
            .subquery("retired")
        )
        days = sa.select(sa.func.jsonb_object_agg(retired.c.code, retired.c.last)).scalar_subquery()
        until = days.op("->>")(sa.func.substr(number, 1, 6))
        lived = sa.func.coalesce(until >= sa.func.substr(number, 7, 8), sa.false())
        known = sa.or_(mine.in_(current.where(end.is_(None))), lived)
    return Condition(_all_of(kwargs.where, f"{octets} IS NOT NULL", ~known), bound=bound)


def _text(name: str, of: str = RECORD) -> sa.ColumnElement[str]:
    return sa.cast(_column(name, of), sa.Text)


def _related(kwargs: Related, records: Records) -> Condition:
    other = _other(records, kwargs.collection)
    same = _column(kwargs.field, OTHER) == _column(kwargs.key)
    related: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(other)
    related = related.where(_all_of(same, kwargs.condition))
    looked_up = records.few and (kwargs.collection, kwargs.field) in records.indexed
    if looked_up:
        # Else PostgreSQL may read all other records to know those of a few.
        related = related.offset(sa.literal_column("'0'"))
    found = related.exists()
    broken = _all_of(kwargs.where, ~found if kwargs.present else found)
    return Condition(broken, joined=not looked_up)


def _collected(kwargs: Uncollected) -> sa.ColumnElement[bool]:
    """A value is there; that JSON says null is none."""
    if not kwargs.path:
        return _column(kwargs.column).is_not(None)
    keys = postgresql.array([sa.cast(key, sa.Text) for key in kwargs.path])
    return sa.cast(_column(kwargs.column), postgresql.JSONB).op("#>>")(keys).is_not(None)


def _twin(kwargs: Distinct, records: Records) -> Condition:
    """Another record with a smaller key has the same values."""
    named = [_column(column).is_not(None) for column in kwargs.columns]
    others = records.table.alias(OTHER)
    keys = [sa.tuple_(*(_column(column, of) for column in records.key)) for of in (OTHER, RECORD)]
    same = [_column(column, OTHER) == _column(column) for column in kwargs.columns]
    found = sa.exists().select_from(others).where(*same, keys[0] < keys[1])
    return Condition(_all_of(kwargs.where, *named, found), joined=True)
