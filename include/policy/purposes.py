"""Models of purposes.yaml: purposes of processing and the fields that they need.

Source of the requirement: PIPL (2021-11-01), articles 6 and 17.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Literal

from pydantic import AfterValidator

from include.policy.datamap import MappedDatabase, MappedField
from include.policy.expectations import Suite, Unneeded
from include.policy.kwargs import Uncollected
from include.policy.rules import Identifier, Name, Rule, Text, Texts, require_items

_PLAIN = re.compile(r"[a-z0-9_]+")


class Purpose(Rule):
    """A purpose of processing personal data, with the fields that the purpose needs.

    Attributes:
        id: Stable name of the purpose.
        title: Name of the purpose, as reports show it.
        basis: Legal basis (PIPL 2021-11-01, article 13).
        note: Remark for readers of the pack.
        fields: Names of the fields that the purpose needs, by database and collection. A key inside
            a JSON column is written with dots, for example ``prefs.creed``. A listed column
            includes all its keys. Databases that no purpose names are not checked.
    """

    id: Identifier
    title: Texts
    basis: Literal["consent", "contract", "law", "emergency", "public_interest", "published"]
    note: Text | None = None
    fields: Mapping[Name, Mapping[Name, Annotated[tuple[Name, ...], AfterValidator(require_items)]]]


def add_over_collection_checks(
    suites: Sequence[Suite], purposes: Sequence[Purpose], databases: Mapping[str, MappedDatabase]
) -> tuple[Suite, ...]:
    """Merge suites of the same collection, and add the expectations that follow from purposes.yaml.

    For each personal field that no purpose needs, the function adds the expectation that the field
    has no value. Only fields in databases that purposes.yaml names are checked.

    Args:
        suites: suites of quality/*.yaml.
        purposes: purposes of purposes.yaml.
        databases: mapped databases by name. Other databases get no new expectations.

    Returns:
        The suites, sorted by database and collection. A collection has at most one suite as a
        formal collection and one as an incoming collection.
    """
    merged: dict[tuple[str, str, bool], Suite] = {}
    for suite in suites:
        key = (suite.database or "", suite.collection, suite.incoming)
        earlier = merged.get(key)
        merged[key] = suite if earlier is None else _merge(earlier, suite)
    needed = {
        (database, collection, field)
        for purpose in purposes
        for database, collections in purpose.fields.items()
        for collection, fields in collections.items()
        for field in fields
    }
    for database in {name for name, _collection, _field in needed} & set(databases):
        for collection in databases[database].collections.values():
            unneeded = tuple(
                _over_collection_check(path, field)
                for column in collection.fields.values()
                for path, field in _unneeded_paths(column, (), needed, (database, collection.name))
            )
            if unneeded:
                key = (database, collection.name, False)
                added = Suite(database=database, collection=collection.name, expectations=unneeded)
                merged[key] = _merge(merged[key], added) if key in merged else added
    return tuple(merged[key] for key in sorted(merged))


def _merge(first: Suite, second: Suite) -> Suite:
    return first.model_copy(
        update={
            "expectations": (*first.expectations, *second.expectations),
            "breakdown": first.breakdown or second.breakdown,
            "changed": first.changed or second.changed,
        }
    )


def _unneeded_paths(
    field: MappedField,
    parent_path: tuple[str, ...],
    needed: Container[tuple[str, str, str]],
    collection: tuple[str, str],
) -> Iterator[tuple[tuple[str, ...], MappedField]]:
    """Yield each personal field that no purpose needs, in a column or JSON key, with its path.

    A purpose needs the fields that it lists, and all fields inside them. The fields inside a
    yielded field are not yielded.

    Args:
        field: the column, or key inside a JSON column.
        parent_path: names of the fields that contain the field.
        needed: database, collection and path of the fields that purposes list.
        collection: database and name of the collection.
    """
    path = (*parent_path, field.name)
    if (*collection, ".".join(path)) in needed:
        return
    if field.is_personal:
        yield path, field
        return
    for inner in field.fields.values():
        yield from _unneeded_paths(inner, path, needed, collection)


def _over_collection_check(path: tuple[str, ...], field: MappedField) -> Unneeded:
    dotted = ".".join(path)
    name = dotted
    if not _PLAIN.fullmatch(dotted):  # a digest keeps ids of names in other scripts unique
        name = f"{''.join(_PLAIN.findall(dotted))}.{sha256(dotted.encode()).hexdigest()[:8]}"
    titles = field.titles or {}
    return Unneeded(
        id=f"over_collected_{name}",
        kwargs=Uncollected(column=path[0], path=path[1:]),
        severity="fail",
        clause="4.1",
        title={
            "en": f"The field {titles.get('en', dotted)}, which no purpose needs, is empty",
            "zh-CN": f"{titles.get('zh-CN', f'字段 {dotted} ')}并非任何处理目的所必需，该项应为空",
        },
        type="expect_column_values_to_not_be_collected",
    )
