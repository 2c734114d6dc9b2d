"""Translate expectations of the policy pack into SQL conditions.

A condition is true for a record that breaks the expectation.
"""

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
# For a composite value, IS NULL would test its fields.
_IS_NULL, _IS_NOT_NULL = "IS NOT DISTINCT FROM NULL", "IS DISTINCT FROM NULL"
SOURCE, RECORD, OTHER = "source", "record", "other"
_COUNTED_BACK = re.compile(r"\(\s*('[^']*'::timestamptz - INTERVAL '[^']*')\s*\)", re.IGNORECASE)


@dataclass(frozen=True)
class Records:
    """The records to check, and the table that contains them.

    Attributes:
        collection: collection of the data map that describes the table.
        database: data map of the database.
        columns: names of the table's columns.
        key: names of the primary key's columns; empty if the table has no primary key.
        where: SQL condition that selects the records; None for all records of the table. In the
            condition, the table has the alias in the constant `SOURCE`.
        few: whether `where` selects few records. Related records in other tables are then found
            with an index.
        indexed: pairs of collection and field for which the database has an index.
        timezone: IANA name of the policy pack's timezone, in which days begin and end.
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
        """Return the table that contains the records, as a clause for SQLAlchemy queries."""
        return table_of(self.collection, self.columns)

    @property
    def selectable(self) -> sa.Subquery:
        """Return the records to check as a subquery.

        Conditions refer to the columns of this subquery. Its alias is in the constant `RECORD`.
        """
        return self.with_columns({})

    def with_columns(self, bound: Mapping[str, str]) -> sa.Subquery:
        """Return the records to check as a subquery with additional columns.

        An additional column is computed once per record, even if several conditions use it.

        Args:
            bound: SQL expression of each additional column, by name of the column. In the
                expressions, the table has the alias in the constant `SOURCE`.
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
            # OFFSET stops PostgreSQL from copying the expression to each use of the column. The
            # quotes make the constant a bigint: any other type would disable parallel workers.
            query = query.offset(sa.literal_column("'0'"))
        return query.subquery(RECORD)


@dataclass(frozen=True)
class Condition:
    """The SQL condition under which a record breaks an expectation.

    Attributes:
        broken: SQL condition that is true for a record that breaks the expectation, and null or
            false for other records.
        joined: whether the condition compares a record with other records. Such a condition needs
            its own query. In a scan for several expectations, PostgreSQL would search the other
            records again for each record.
        needs_keys: whether the primary keys of the records are needed. If not, the records that
            meet the condition are only counted.
        bound: SQL expressions of additional columns that the condition uses, by name of the column
            (see `Records.with_columns`).
    """

    broken: sa.ColumnElement[bool]
    joined: bool = False
    needs_keys: bool = True
    bound: Mapping[str, str] = field(default_factory=dict)


def table_of(collection: MappedCollection, columns: tuple[str, ...]) -> sa.TableClause:
    """Return the table of a collection with its columns, as a clause for SQLAlchemy queries."""
    names: list[sa.ColumnClause[Any]] = [
        sa.column(sa.quoted_name(column, quote=True)) for column in columns
    ]
    table = sa.table(sa.quoted_name(collection.table, quote=True), *names)
    table.schema = sa.quoted_name(collection.schema_name, quote=True)
    return table


def condition_of(
    expectation: Expectation,
    records: Records,
    now: datetime,
    types: Mapping[str, ColumnType] = MappingProxyType({}),
) -> Condition | None:
    """Return the SQL condition under which a record breaks an expectation.

    Args:
        expectation: the expectation.
        records: records to check.
        now: time from which periods are measured.
        types: types of the table's columns, by name. They are needed for the expectations that
            Great Expectations itself defines.

    Returns:
        The condition; None if the expectation is about the whole table and not about single
        records.
    """
    kwargs = _fix_now(expectation.kwargs, now)
    columns = {name: quoted(RECORD, name) for name in expectation.columns()}
    core = broken_sql(expectation, columns, types, records.timezone)
    if core is not None:
        return Condition(_where(None, core))
    if isinstance(kwargs, Satisfy):
        where = None if kwargs.where is None else _evaluate_once(kwargs.where)
        return Condition(_where(where, f"NOT ({_evaluate_once(kwargs.condition)})"))
    if isinstance(kwargs, Distinct):
        return _has_twin(kwargs, records)
    if isinstance(kwargs, Related):
        return _related(kwargs, records)
    if isinstance(kwargs, ResidentIdDivision):
        return _not_division(kwargs, records)
    if isinstance(kwargs, ExistsAt):
        return Condition(_not_listed(kwargs, records, types), joined=True)
    if isinstance(kwargs, Recent):
        kind = types[kwargs.column].kind if kwargs.column in types else Kind.MOMENT
        earliest = before(now, kwargs.period, records.timezone, kind)
        return Condition(_where_first(kwargs.where, _column(kwargs.column) < earliest))
    if isinstance(kwargs, Uncollected):
        return Condition(_collected(kwargs))
    repeats = repeated(expectation, records, types)
    if repeats is not None:
        return Condition(repeats, joined=True)
    if expectation.type == "expect_column_values_to_not_be_null" and isinstance(kwargs, Column):
        return Condition(_where(None, f"{quoted(RECORD, kwargs.column)} {_IS_NULL}"))
    if isinstance(kwargs, ResidentId):
        return _resident_id(kwargs, records, now)
    broken = _FORMATS.get(expectation.type)
    if broken is None or not isinstance(kwargs, ColumnWhere):
        return None
    return Condition(_where(kwargs.where, broken(f"{quoted(RECORD, kwargs.column)}::text")))


def selected(expectation: Expectation, now: datetime) -> sa.ColumnElement[bool] | None:
    """Return the SQL condition that selects the records to which an expectation applies.

    An expectation applies to the records that its ``where`` selects. If the expectation ignores
    null, it does not apply to a record with null in a column that the expectation is about.

    Args:
        expectation: the expectation.
        now: time from which periods such as "older than a year" are measured.

    Returns:
        The condition; None if the expectation applies to all records.
    """
    kwargs = _fix_now(expectation.kwargs, now)
    where = getattr(kwargs, "where", None)
    conditions: list[str | sa.ColumnElement[bool]] = (
        [] if where is None else [_evaluate_once(where)]
    )
    if isinstance(kwargs, Satisfy):
        conditions.append(f"({_evaluate_once(kwargs.condition)}) IS NOT NULL")
    elif expectation.type not in _ABOUT_ALL and not isinstance(
        kwargs, Related | RowCount | Uncollected
    ):
        conditions += [f"{quoted(RECORD, name)} {_IS_NOT_NULL}" for name in expectation.columns()]
    if not conditions:
        return None
    # The order matters: `where` may exclude values for which the other conditions fail.
    first, *rest = conditions
    return _all_of(first) if not rest else sa.case((_all_of(first), _all_of(*rest)))


def repeated(
    expectation: Expectation, records: Records, types: Mapping[str, ColumnType]
) -> sa.ColumnElement[bool] | None:
    """Return the SQL condition under which a record breaks an expectation of unique values.

    The condition is true for a record if another record has the same values in the columns whose
    values must be unique. The result is None if the expectation does not require unique values.

    Args:
        expectation: the expectation.
        records: records to check.
        types: types of the table's columns, by name.
    """
    if isinstance(expectation.kwargs, ColumnList):
        columns = expectation.kwargs.column_list
    elif expectation.type == "expect_column_values_to_be_unique" and isinstance(
        expectation.kwargs, Column
    ):
        columns = (expectation.kwargs.column,)
    else:
        return None
    others = records.table.alias(OTHER)
    other_columns = [others.c[name] for name in columns]
    groups = sa.select(*other_columns).group_by(*other_columns).having(sa.func.count() > 1)
    if any(types[name].kind is Kind.OTHER for name in columns if name in types):
        # IN needs a type with an order to compare rows; the type xid has none.
        group = groups.subquery("repeated")
        same = [group.c[name] == _column(name) for name in columns]
        return sa.exists().select_from(group).where(*same)
    return sa.tuple_(*(_column(name) for name in columns)).in_(groups)


def _fix_now(kwargs: Rule, now: datetime) -> Rule:
    """Replace ``:now`` in the SQL of an expectation by the time ``now`` of the check.

    All queries of the check, also when they are repeated, then compare with the same time.

    Args:
        kwargs: arguments of the expectation.
        now: time of the check.
    """
    moment = f"'{now.isoformat()}'::timestamptz"
    written = {key: getattr(kwargs, key, None) for key in ("condition", "where")}
    replaced = {key: NOW.sub(moment, sql) for key, sql in written.items() if sql}
    return kwargs.model_copy(update=replaced)


def _evaluate_once(sql: str) -> str:
    """Wrap interval arithmetic in a subquery, so that PostgreSQL evaluates it once per query.

    The caller must not use this function for conditions with joins, because PostgreSQL's planner
    cannot estimate how many rows a condition with a subquery selects.
    """
    # Two brackets, since the interval may be the argument of a function.
    return _COUNTED_BACK.sub(r"((SELECT \1))", sql)


_FORMATS = {
    "expect_column_values_to_not_be_blank": formats.blank,
    "expect_column_values_to_be_mobile_numbers": formats.not_mobile_number,
    "expect_column_values_to_be_email_addresses": formats.not_email_address,
}


def _resident_id(kwargs: ResidentId, records: Records, now: datetime) -> Condition:
    text = f"{quoted(RECORD, kwargs.column)}::text"
    bound, octets = _octets(kwargs.column, records)
    broken = {
        "form": formats.not_resident_id_form(text, octets),
        "birth_date": formats.not_resident_id_birth_date(text, f"'{now:%Y%m%d}'", octets),
        "check_character": formats.not_resident_id_check_character(text, octets),
    }
    return Condition(_where(kwargs.where, broken[kwargs.part]), bound=bound)


def _octets(column: str, records: Records) -> tuple[dict[str, str], str]:
    """Return an additional column that contains the bytes of a resident ID number.

    Args:
        column: name of the column that contains the resident ID number.
        records: records to check.

    Returns:
        A mapping of the additional column's name to its SQL expression (for
        `Records.with_columns`), and the quoted name for use in conditions.
    """
    name = f"octets of column {records.columns.index(column) + 1}"
    octets = formats.resident_id_octets(f"{quoted(SOURCE, column)}::text")
    return {name: octets}, quoted(RECORD, name)


def quoted(alias: str, column: str) -> str:
    """Return the quoted SQL name of a column, such as ``record."name"``.

    Args:
        alias: alias of the table in the query.
        column: name of the column.
    """
    escaped = column.replace('"', '""')
    return f'{alias}."{escaped}"'  # SQLAlchemy's own quoting would double percent signs twice


def _column(name: str, of: str = RECORD) -> sa.ColumnElement[bool]:
    return sa.literal_column(quoted(of, name))


def _where(where: str | None, broken: str) -> sa.ColumnElement[bool]:
    return _where_first(where, sa.literal_column(f"({broken})", sa.Boolean))


def _where_first(where: str | None, broken: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Return a condition in which PostgreSQL evaluates ``where`` before it evaluates ``broken``.

    This order is needed because ``where`` may exclude values for which ``broken`` raises an error.
    If ``where`` is None, the result is ``broken``.
    """
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


def _not_listed(
    kwargs: ExistsAt, records: Records, types: Mapping[str, ColumnType]
) -> sa.ColumnElement[bool]:
    listed = [_text(kwargs.field, OTHER) == _text(kwargs.column)]
    if kwargs.at is not None:
        day: sa.ColumnElement[date] = sa.cast(_column(kwargs.at), sa.Date)
        if kind := types.get(kwargs.at):
            local = local_form(quoted(RECORD, kwargs.at), kind, records.timezone, as_day=True)
            day = sa.literal_column(local, sa.Date)
        for name, operator in ((kwargs.valid_from, "<="), (kwargs.retired_on, ">=")):
            if name is not None:
                end = _column(name, OTHER)
                is_valid = sa.cast(end, sa.Date).op(operator, is_comparison=True)(day)
                listed.append(sa.or_(end.is_(None), day.is_(None), is_valid))
    is_listed = sa.exists().select_from(_other(records, kwargs.collection)).where(*listed)
    return _all_of(kwargs.where, _column(kwargs.column).is_not(None), ~is_listed)


def _not_division(kwargs: ResidentIdDivision, records: Records) -> Condition:
    """Return the condition that an ID number begins with a wrong administrative division code.

    A code is right if the collection of administrative divisions contains it, and if the division
    was not retired before the person's birth. The query reads this short collection once, so no
    join is needed.

    Args:
        kwargs: arguments of the expectation.
        records: records to check.
    """
    bound, octets = _octets(kwargs.column, records)
    number = _text(kwargs.column)
    listed = _other(records, kwargs.collection)
    code = _text(kwargs.field, OTHER)
    current = (
        sa.select(sa.func.convert_to(code, "UTF8")).select_from(listed).where(code.is_not(None))
    )
    division: sa.ColumnElement[Any] = sa.literal_column(f"substr({octets}, 1, 6)")
    is_valid: sa.ColumnElement[bool]
    if kwargs.retired_on is None:
        is_valid = division.in_(current)
    else:
        end = sa.cast(_column(kwargs.retired_on, OTHER), sa.Date)
        # Compared as text, because an invalid date of birth breaks another rule and must not fail.
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
        is_valid = sa.or_(division.in_(current.where(end.is_(None))), lived)
    return Condition(_all_of(kwargs.where, f"{octets} IS NOT NULL", ~is_valid), bound=bound)


def _text(name: str, of: str = RECORD) -> sa.ColumnElement[str]:
    return sa.cast(_column(name, of), sa.Text)


def _related(kwargs: Related, records: Records) -> Condition:
    other = _other(records, kwargs.collection)
    same = _column(kwargs.field, OTHER) == _column(kwargs.key)
    related: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(other)
    related = related.where(_all_of(same, kwargs.condition))
    looked_up = records.few and (kwargs.collection, kwargs.field) in records.indexed
    if looked_up:
        # Otherwise PostgreSQL may scan the whole related table for a few records.
        related = related.offset(sa.literal_column("'0'"))
    exists = related.exists()
    broken = _all_of(kwargs.where, ~exists if kwargs.present else exists)
    return Condition(broken, joined=not looked_up)


def _collected(kwargs: Uncollected) -> sa.ColumnElement[bool]:
    """Return the condition that a column has a value although it must not be collected.

    If the expectation has a path, it is about the value at this path in a JSON column.

    Args:
        kwargs: arguments of the expectation.
    """
    if not kwargs.path:
        return _column(kwargs.column).is_not(None)
    keys = postgresql.array([sa.cast(key, sa.Text) for key in kwargs.path])
    return sa.cast(_column(kwargs.column), postgresql.JSONB).op("#>>")(keys).is_not(None)


def _has_twin(kwargs: Distinct, records: Records) -> Condition:
    """Return the condition that a record is a duplicate of a record with a smaller primary key.

    Two records are duplicates if they have the same values in the columns of the expectation.

    Args:
        kwargs: arguments of the expectation.
        records: records to check.
    """
    named = [_column(column).is_not(None) for column in kwargs.columns]
    others = records.table.alias(OTHER)
    keys = [sa.tuple_(*(_column(column, of) for column in records.key)) for of in (OTHER, RECORD)]
    same = [_column(column, OTHER) == _column(column) for column in kwargs.columns]
    has_twin = sa.exists().select_from(others).where(*same, keys[0] < keys[1])
    return Condition(_all_of(kwargs.where, *named, has_twin), joined=True)
