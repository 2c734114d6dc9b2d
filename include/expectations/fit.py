"""Find expectations that do not fit the types of the database columns that they are about.

No records are read for this.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from pydantic import TypeAdapter

from include.expectations.core import (
    DAY,
    Value,
    are_comparable,
    bounds,
    value_set_member_sql,
)
from include.expectations.types import (
    NUMBERS,
    RANGED,
    WRITTEN,
    ColumnType,
    Kind,
    read_types,
    text_literal,
)
from include.messages import Message, _, in_english
from include.policy.datamap import MappedDatabase
from include.policy.document import Loc, read_bytes, read_document
from include.policy.expectations import Expectation, Suite
from include.policy.files import QUALITY
from include.policy.kwargs import (
    Between,
    Column,
    ColumnList,
    ColumnPair,
    Distinct,
    Lengths,
    Regex,
    ValueSet,
)
from include.policy.model import PolicyPack
from include.policy.problems import PackProblem

_UNIQUE = "expect_column_values_to_be_unique"
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?", re.ASCII)
_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?P<offset>Z|[+-]\d\d(?::?\d\d)?)?",
    re.ASCII,
)
_EXAMPLES: Mapping[Kind, str] = {
    Kind.TEXT: '"12"',
    Kind.CASELESS: '"12"',
    Kind.INTEGER: "12",
    Kind.EXACT: "12.5",
    Kind.FLOAT: "12.5",
    Kind.MONEY: "12.5",
    Kind.BOOLEAN: "true",
    Kind.DAY: '"2026-10-01"',  # quoted, so that reports do not format the date by language
    Kind.LOCAL: '"2026-10-01", "2026-10-01T08:30"',
    Kind.MOMENT: '"2026-10-01", "2026-10-01T08:30+08:00"',
    Kind.TIME: '"08:30"',
    Kind.INTERVAL: '"P1D"',
}


@dataclass(frozen=True)
class Misfit:
    """The reason why an expectation does not fit the type of its column.

    Attributes:
        loc: path inside the expectation's kwargs to the argument that does not fit; empty if an
            expectation of this type cannot be applied to the column at all.
        message: the reason, without values of the database.
    """

    loc: Loc
    message: Message


def misfits(
    connection: psycopg.Connection[Any],
    expectation: Expectation,
    types: Mapping[str, ColumnType],
    timezone: str,
) -> list[Misfit]:
    """Return the reasons why an expectation does not fit the types of its columns.

    Args:
        connection: connection to the mapped database, on which a transaction is open. It is only
            used to cast constants, and no record is read.
        expectation: an expectation whose columns exist.
        types: types of the table's columns, by name.
        timezone: IANA name of the policy pack's timezone.
    """
    kwargs = expectation.kwargs
    if isinstance(kwargs, ColumnPair):
        return _pair(kwargs, types)
    equal = _equal_columns(expectation)
    if unknown := [name for name in equal if not types[name].has_equality]:
        return [_unsuitable(unknown[0], types[unknown[0]])]
    if not isinstance(kwargs, ValueSet | Regex | Lengths | Between):
        return []
    kind = types[kwargs.column]
    if not _suits(kwargs, kind):
        return [_unsuitable(kwargs.column, kind)]
    if isinstance(kwargs, ValueSet):
        return _members(connection, kwargs, kind, timezone)
    if isinstance(kwargs, Between):
        return _range(connection, kwargs, kind, timezone)
    if isinstance(kwargs, Regex):
        code = _failing(connection, f"'' ~ {text_literal(kwargs.regex)}")
        if code:
            invalid = _(
                "the regular expression of the expectation is invalid (SQLSTATE {code})", code=code
            )
            return [Misfit(("regex",), invalid)]
    return []


def _equal_columns(expectation: Expectation) -> Sequence[str]:
    """Return the columns whose values an expectation compares for equality with other records."""
    kwargs = expectation.kwargs
    if isinstance(kwargs, ColumnList):
        return kwargs.column_list
    if isinstance(kwargs, Distinct):
        return kwargs.columns
    is_unique = expectation.type == _UNIQUE and isinstance(kwargs, Column)
    return [kwargs.column] if is_unique and isinstance(kwargs, Column) else []


def _suits(kwargs: Column, kind: ColumnType) -> bool:
    match kwargs:
        case Regex():
            return kind.kind in WRITTEN
        case Lengths():
            return kind.kind in WRITTEN or kind.kind in (Kind.BYTES, Kind.BITS)
        case Between():
            return kind.kind in RANGED
        case _:
            return kind.has_equality


def _unsuitable(column: str, kind: ColumnType) -> Misfit:
    message = _(
        "the column {column} has the type {type}, which this expectation does not support",
        column=column,
        type=kind.title,
    )
    return Misfit((), message)


def _unfit(argument: str, kind: ColumnType) -> Message:
    if example := _EXAMPLES.get(kind.kind):
        return _(
            "{argument} is not a value of the type {type}: write it like {example}",
            argument=argument,
            type=kind.title,
            example=example,
        )
    return _("{argument} is not a value of the type {type}", argument=argument, type=kind.title)


def _pair(kwargs: ColumnPair, types: Mapping[str, ColumnType]) -> list[Misfit]:
    a, b = types[kwargs.column_A], types[kwargs.column_B]
    if are_comparable(a, b):
        return []
    message = _("values of the types {a} and {b} cannot be compared", a=a.title, b=b.title)
    return [Misfit((), message)]


def _members(
    connection: psycopg.Connection[Any], kwargs: ValueSet, kind: ColumnType, timezone: str
) -> list[Misfit]:
    values = kwargs.value_set
    faulty = {at for at, value in enumerate(values) if not _is_written_for(value, kind)}
    rest = [at for at in range(len(values)) if at not in faulty]
    casts = {at: f"{value_set_member_sql(values[at], kind, timezone)} IS NULL" for at in rest}
    # One array instead of columns, since a query has at most 1,664 columns.
    if casts and _failing(connection, f"ARRAY[{', '.join(casts.values())}]"):
        faulty |= {at for at, cast in casts.items() if _failing(connection, cast)}
    return [Misfit(("value_set", at), _unfit(f"value_set[{at}]", kind)) for at in sorted(faulty)]


def _range(
    connection: psycopg.Connection[Any], kwargs: Between, kind: ColumnType, timezone: str
) -> list[Misfit]:
    ends = bounds(kwargs, kind, timezone)
    faulty = [
        name
        for name, end in ends.items()
        if not _is_written_for(getattr(kwargs, name), kind)
        or _failing(connection, f"({end.sql}) IS NULL")
    ]
    if faulty:
        return [Misfit((name,), _unfit(name, kind)) for name in faulty]
    if len(ends) == 2:
        least, most = ends["min_value"], ends["max_value"]
        sign = "<=" if (least.comparison, most.comparison) == (">=", "<=") else "<"
        row = connection.execute(_query(f"{least.sql} {sign} {most.sql}")).fetchone()
        if row and not row[0]:
            message = _(
                "no value of the type {type} is between min_value and max_value", type=kind.title
            )
            return [Misfit(("min_value",), message)]
    return []


def _is_written_for(value: Value, kind: ColumnType) -> bool:
    """Return whether a value of the policy pack has the format that a column type requires.

    A value with this format may nevertheless be invalid for PostgreSQL. The required formats are
    stricter than those of PostgreSQL, which accepts ``today`` as a date and 1 for true. In a
    timestamp without timezone, PostgreSQL also accepts an offset and ignores it.

    Args:
        value: value in the policy pack.
        kind: type of the column.
    """
    if isinstance(value, bool) or kind.kind is Kind.BOOLEAN:
        return isinstance(value, bool) and kind.kind is Kind.BOOLEAN
    if not isinstance(value, str):
        return kind.kind in NUMBERS
    if kind.kind in NUMBERS:
        return _NUMBER.fullmatch(value) is not None
    moment = _MOMENT.fullmatch(value)
    match kind.kind:
        case Kind.DAY:
            return DAY.fullmatch(value) is not None
        case Kind.LOCAL:
            return DAY.fullmatch(value) is not None or bool(moment and not moment["offset"])
        case Kind.MOMENT:
            return DAY.fullmatch(value) is not None or moment is not None
        case _:
            return True


def _failing(connection: psycopg.Connection[Any], constants: str) -> str:
    """Return the SQLSTATE of the error that PostgreSQL reports for SQL constants.

    The text is empty if PostgreSQL accepts the constants.

    Args:
        connection: connection to the mapped database.
        constants: SQL expressions without columns, separated by commas.
    """
    try:
        with connection.transaction():
            connection.execute(_query(constants))
    except (psycopg.DataError, psycopg.ProgrammingError, psycopg.NotSupportedError) as error:
        return error.sqlstate or "XX000"
    return ""


def _query(constants: str) -> bytes:
    return f"SELECT {constants}".encode()


def expectation_problems(
    pack: PolicyPack, database: MappedDatabase, connection: psycopg.Connection[Any]
) -> list[PackProblem]:
    """Return the problems of the expectations in quality/*.yaml that do not fit their columns.

    Args:
        pack: the policy pack.
        database: mapped database. Only expectations about its collections are examined.
        connection: connection to this database in autocommit mode; no record is read.
    """
    problems = []
    with connection.transaction():
        connection.execute("SET TRANSACTION READ ONLY")
        connection.execute("SELECT set_config('DateStyle', 'ISO, YMD', true)")
        for name in sorted(file.path for file in pack.files if file.path.startswith(f"{QUALITY}/")):
            document = read_document(read_bytes(Path(pack.folder) / name, name), name)
            for loc, message in _of_suites(pack, database, connection, document.data):
                problems.append(document.problem(loc, message))
    return problems


def _of_suites(
    pack: PolicyPack, database: MappedDatabase, connection: psycopg.Connection[Any], data: Any
) -> Iterator[tuple[Loc, str]]:
    suites = TypeAdapter(list[Suite]).validate_json(json.dumps(data), strict=True)
    for at, suite in enumerate(suites):
        if pack.database_of(suite.collection, suite.database).name != database.name:
            continue
        collection = database.collections[suite.collection]
        types = read_types(connection, collection.schema_name, collection.table)
        for number, expectation in enumerate(suite.expectations):
            if any(column not in types for column in expectation.columns()):
                continue  # the schema check reports missing columns
            base: Loc = (at, "expectations", number)
            timezone = pack.calendar.timezone
            for misfit in misfits(connection, expectation, types, timezone):
                loc: Loc = (*base, "kwargs", *misfit.loc) if misfit.loc else (*base, "type")
                yield loc, in_english(misfit.message)
