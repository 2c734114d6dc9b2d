"""Compile the selection of a request to SQL with bound values, and the columns of its extract."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Placeholder

from include.disclosure.content import Filter, PlannedColumn, RequestContent
from include.disclosure.rules import DisplayMask, FilterKind, UsableCollection
from include.erasure.masks import ColumnShape, masked_value
from include.policy.datamap import MappedCollection
from include.policy.fragments import all_of, any_of, escape_percent, pack_sql, quoted
from include.services.errors import UsageError

_INTEGERS = ("smallint", "integer", "bigint")
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,19}\s*", re.ASCII)
_LARGEST = 2**63 - 1  # of a bigint
_TYPES = """
WITH RECURSIVE base AS (
    SELECT attname, atttypid AS type FROM pg_attribute
    WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT b.attname, t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.type
    WHERE t.typtype = 'd'
)
SELECT b.attname, format_type(b.type, NULL) FROM base b JOIN pg_type t ON t.oid = b.type
WHERE t.typtype <> 'd'
"""


@dataclass(frozen=True)
class Selection:
    """The records that a request selects, as SQL over the table with the alias ``t``.

    Attributes:
        source: table of the collection with its alias, for use after FROM.
        condition: SQL condition of the selection, without the exclusion of data subjects.
        values: name of each placeholder of `condition` -> value.
        excluded: SQL condition under which a matching record is left out.
    """

    source: Composable
    condition: Composable
    values: Mapping[str, Any]
    excluded: Composable


def compile_selection(
    content: RequestContent,
    collection: MappedCollection,
    usable: UsableCollection,
    *,
    types: Mapping[str, str],
    keys: Collection[str],
    timezone: str,
    erased_subjects: Sequence[str],
) -> Selection:
    """Return the selection of a request as SQL with named placeholders.

    Days of the request are days in the policy pack's timezone.

    Args:
        content: content of the request.
        collection: collection of the data map.
        usable: rule of the collection in use.yaml.
        types: PostgreSQL types of the table's columns, see `read_column_types`.
        keys: uploaded keys of the request.
        timezone: IANA name of the policy pack's timezone.
        erased_subjects: keys of data subjects who asked for erasure. Their records are left out.

    Raises:
        UsageError: the request filters by a column that use.yaml does not allow, or by another kind
            than use.yaml states. Or the table lacks the column.
    """
    values: dict[str, Any] = {}
    conditions = []
    for number, entry in enumerate(content.filters):
        if usable.filters.get(entry.column) is not entry.kind:
            raise UsageError(
                f"Records of {content.collection} cannot be selected by {entry.column}.",
                f"Use one of: {', '.join(usable.filters)}.",
            )
        if entry.column not in types:
            raise UsageError(
                f"The table of {content.collection} has no column {entry.column}.",
                "Correct the data map, and request the information again.",
            )
        column_type = types[entry.column]
        conditions.append(
            _condition(entry, f"filter_{number}", values, keys, column_type, timezone)
        )
    if missing := [name for name in usable.subjects if name not in types]:
        raise UsageError(
            f"The table of {content.collection} has no column {', '.join(missing)}.",
            "Correct use.yaml or the data map, and request the information again.",
        )
    erased = [form for subject in erased_subjects for form in forms_of_key(subject)]
    excluded = [
        _is_among(name, types[name], f"erased_{number}", erased, values)
        for number, name in enumerate(usable.subjects)
    ]
    return Selection(
        source=SQL("{} AS t").format(quoted(collection.schema_name, collection.table)),
        condition=all_of(conditions),
        values=values,
        excluded=any_of(excluded),
    )


def _condition(
    entry: Filter,
    name: str,
    values: dict[str, Any],
    keys: Collection[str],
    column_type: str,
    timezone: str,
) -> Composable:
    if entry.kind in (FilterKind.KEY, FilterKind.CODE):
        accepted = sorted(keys) if entry.kind is FilterKind.KEY else list(entry.values)
        return _is_among(entry.column, column_type, name, accepted, values)
    column = quoted("t", entry.column)
    limits: list[Composable] = []
    for limit, sign in ((entry.start, ">="), (entry.end, "<=")):
        if not limit:
            continue
        key = f"{name}_{'start' if sign == '>=' else 'end'}"
        values[key] = limit
        if entry.kind is FilterKind.NUMBER:
            part: Composable = SQL("({} {} {}::numeric)").format(
                column, SQL(sign), Placeholder(key)
            )
        elif column_type == "date":
            part = SQL("({} {} {}::date)").format(column, SQL(sign), Placeholder(key))
        else:
            part = _moment_limit(column, column_type, key, is_end=sign == "<=")
            values["timezone"] = timezone
        limits.append(part)
    return all_of(limits)


def forms_of_key(text: str) -> list[str]:
    """Return the texts that PostgreSQL may print for a key that a person wrote.

    A person may write an integer with leading zeros, or a UUID in capital letters.
    """
    forms = [text, text.strip(), text.strip().lower()]
    if _INTEGER.fullmatch(text):
        forms.append(str(int(text)))
    return list(dict.fromkeys(forms))


def _is_among(
    name: str, column_type: str, key: str, accepted: Sequence[str], values: dict[str, Any]
) -> Composable:
    """Return the condition that a column has one of the accepted values.

    Values that cannot be a value of an integer column match nothing. Comparing integers and texts
    without a cast of the column lets PostgreSQL use an index.
    """
    if column_type in _INTEGERS:
        numbers = (int(text) for text in accepted if _INTEGER.fullmatch(text))
        values[key] = [number for number in numbers if -_LARGEST - 1 <= number <= _LARGEST]
        return SQL("({} = ANY({}::bigint[]))").format(quoted("t", name), Placeholder(key))
    values[key] = list(accepted)
    column = quoted("t", name) if column_type == "text" else _text(name)
    return SQL("({} = ANY({}::text[]))").format(column, Placeholder(key))


def _moment_limit(column: Composable, column_type: str, key: str, *, is_end: bool) -> Composable:
    """Return the condition that a timestamp is not before, or not after, a day."""
    day = SQL("({}::date + {})::timestamp").format(Placeholder(key), SQL("1" if is_end else "0"))
    if column_type == "timestamp with time zone":
        day = SQL("({} AT TIME ZONE {}::text)").format(day, Placeholder("timezone"))
    return SQL("({} {} {})").format(column, SQL("<" if is_end else ">="), day)


def _text(column: str) -> Composable:
    return SQL("{}::text").format(quoted("t", column))


def read_column_types(
    connection: psycopg.Connection[Any], collection: MappedCollection
) -> dict[str, str]:
    """Return the PostgreSQL type of each column of a collection: name -> type.

    The type of a domain is its base type. The result is empty if the table does not exist.
    """
    name = Identifier(collection.schema_name, collection.table).as_string(connection)
    return dict(connection.execute(_TYPES, [name]).fetchall())


def planned_columns(
    content: RequestContent, collection: MappedCollection, usable: UsableCollection
) -> tuple[PlannedColumn, ...]:
    """Return the columns of the extract with their masks.

    A personal column without a mask in use.yaml is left empty (``erase``), unless the request names
    it as unmasked.
    """

    def mask(name: str) -> DisplayMask:
        if name in content.unmasked or not collection.fields[name].is_personal:
            return "show"
        return usable.masks.get(name, "erase")

    return tuple(PlannedColumn(name=name, mask=mask(name)) for name in content.fields)


def extract_query(
    selection: Selection,
    columns: Sequence[PlannedColumn],
    shapes: Mapping[str, ColumnShape],
    order_by: Sequence[str],
) -> Composed:
    """Return the SELECT of an extract: only the planned columns, each with its mask.

    Args:
        selection: selection of the request.
        columns: planned columns.
        shapes: columns of the table, as `include.erasure.masks.read_column_shapes` returns them.
        order_by: columns of the primary key. The records are sorted by them.

    Raises:
        UsageError: the table lacks a column, or a mask does not fit the type of its column.
    """
    order = SQL(", ").join(quoted("t", name) for name in order_by) if order_by else SQL("1")
    return SQL("SELECT {} FROM {} WHERE {} ORDER BY {}").format(
        shown_columns(columns, shapes), selection.source, kept_records(selection), order
    )


def shown_columns(
    columns: Sequence[PlannedColumn], shapes: Mapping[str, ColumnShape]
) -> Composable:
    """Return the output columns of a SELECT over the table ``t``, each with its mask.

    Percent signs are doubled, as a query with bound values requires.

    Raises:
        UsageError: the table lacks a column, or a mask does not fit the type of its column.
    """
    if missing := [column.name for column in columns if column.name not in shapes]:
        raise UsageError(
            f"The table has no column {', '.join(missing)}.",
            "Correct the data map, and request the information again.",
        )
    return SQL(", ").join(
        SQL("{} AS {}").format(
            quoted("t", column.name)
            if column.mask == "show"
            else _masked(column.name, shapes[column.name], column.mask),
            quoted(column.name),
        )
        for column in columns
    )


def kept_records(selection: Selection) -> Composable:
    """Return the SQL condition of the records that are delivered."""
    return SQL("{} AND {}").format(selection.condition, _kept(selection))


def _masked(name: str, shape: ColumnShape, mask: DisplayMask) -> Composable:
    assert mask != "show"
    if mask == "erase":  # an extract may have empty values where the table allows none
        return SQL("NULL::text")
    return escape_percent(masked_value(name, shape, mask))


def counting_query(selection: Selection, usable: UsableCollection) -> Composed:
    """Return the SELECT with the figures of records, in one row.

    The columns are the numbers of records, of records about minors (null if the policy pack does
    not define minors), and of records that are left out.
    """
    minors: Composable = SQL("NULL::bigint")
    if usable.minor is not None:
        minors = SQL("count(*) FILTER (WHERE {} AND ({}) IS TRUE)").format(
            _kept(selection), pack_sql(usable.minor)
        )
    return SQL(
        "SELECT count(*) FILTER (WHERE {kept}), {minors}, count(*) FILTER (WHERE NOT {kept}) "
        "FROM {source} WHERE {condition}"
    ).format(
        kept=_kept(selection),
        minors=minors,
        source=selection.source,
        condition=selection.condition,
    )


def _kept(selection: Selection) -> Composable:
    return SQL("({} IS NOT TRUE)").format(selection.excluded)


def matched_keys_query(selection: Selection, key_column: str) -> Composed:
    """Return the SELECT with the number of different keys that match a record."""
    return SQL("SELECT count(DISTINCT {}) FROM {} WHERE {}").format(
        _text(key_column), selection.source, selection.condition
    )


def subjects_query(selection: Selection, usable: UsableCollection) -> Composed:
    """Return the SELECT with the key of each data subject in the extract, as text."""
    return SQL(
        "SELECT DISTINCT s.key FROM {source}, unnest(ARRAY[{keys}]) AS s (key) "
        "WHERE {kept} AND s.key IS NOT NULL"
    ).format(
        source=selection.source,
        keys=SQL(", ").join(map(_text, usable.subjects)),
        kept=kept_records(selection),
    )


def counting_people_query(selection: Selection, usable: UsableCollection) -> Composed:
    """Return the SELECT with the number of data subjects in the extract."""
    return SQL("SELECT count(*) FROM ({}) AS people").format(subjects_query(selection, usable))
