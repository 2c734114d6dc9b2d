"""purposes.yaml: why each personal field is collected (PIPL articles 6 and 17)."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Literal

from pydantic import AfterValidator

from include.policy.datamap import MappedDatabase, MappedField
from include.policy.expectations import Suite, Unneeded
from include.policy.kwargs import Uncollected
from include.policy.rules import Identifier, Name, Rule, Text, Texts, some

_PLAIN = re.compile(r"[a-z0-9_]+")


class Purpose(Rule):
    """One purpose and the fields that it needs.

    Attributes:
        id: stable name, ``delivery``.
        title: the purpose, by language.
        basis: what makes it lawful: ``consent``, ``contract``, ``law``, ... (PIPL article 13).
        fields: database -> collection -> fields.
    """

    id: Identifier
    title: Texts
    basis: Literal["consent", "contract", "law", "emergency", "public_interest", "published"]
    note: Text | None = None
    fields: Mapping[Name, Mapping[Name, Annotated[tuple[Name, ...], AfterValidator(some)]]]


def with_unneeded(
    suites: Sequence[Suite], purposes: Sequence[Purpose], databases: Mapping[str, MappedDatabase]
) -> tuple[Suite, ...]:
    """Join the suites of one collection, and add what purposes.yaml says of it.

    Each personal field of a database that purposes.yaml names, and that no purpose needs, is
    expected to hold no value.
    """
    joined: dict[tuple[str, str, bool], Suite] = {}
    for suite in suites:
        key = (suite.database or "", suite.collection, suite.incoming)
        before = joined.get(key)
        joined[key] = suite if before is None else _joined(before, suite)
    needed = {
        (database, collection, field)
        for purpose in purposes
        for database, collections in purpose.fields.items()
        for collection, fields in collections.items()
        for field in fields
    }
    for database in {one[0] for one in needed} & set(databases):
        for collection in databases[database].collections.values():
            unneeded = tuple(
                _unneeded(path)
                for field in collection.fields.values()
                for path in _personal(field, (), needed, (database, collection.name))
            )
            if unneeded:
                key = (database, collection.name, False)
                added = Suite(database=database, collection=collection.name, expectations=unneeded)
                joined[key] = _joined(joined[key], added) if key in joined else added
    return tuple(joined[key] for key in sorted(joined))


def _joined(one: Suite, other: Suite) -> Suite:
    return one.model_copy(
        update={
            "expectations": (*one.expectations, *other.expectations),
            "breakdown": one.breakdown or other.breakdown,
            "changed": one.changed or other.changed,
        }
    )


def _personal(
    field: MappedField,
    above: tuple[str, ...],
    needed: Container[tuple[str, str, str]],
    place: tuple[str, str],
) -> Iterator[tuple[str, ...]]:
    """The personal fields that no purpose needs; a column or key speaks for the keys inside it."""
    path = (*above, field.name)
    if (*place, ".".join(path)) in needed:
        return
    if field.is_personal:
        yield path
        return
    for inner in field.fields.values():
        yield from _personal(inner, path, needed, place)


def _unneeded(path: tuple[str, ...]) -> Unneeded:
    field = ".".join(path)
    name = field
    if not _PLAIN.fullmatch(field):  # one id for one field, whatever its script
        name = f"{''.join(_PLAIN.findall(field))}.{sha256(field.encode()).hexdigest()[:8]}"
    return Unneeded(
        id=f"over_collected_{name}",
        kwargs=Uncollected(column=path[0], path=path[1:]),
        severity="fail",
        clause="4.1",
        title={
            "en": f"The field {field}, which no purpose needs, holds no value",
            "zh-CN": f"字段 {field} 不属于任何收集目的，应为空",
        },
        type="expect_column_values_to_not_be_collected",
    )
