"""Whether a row has a value of a data category, by the data map.

An empty text is no value. Of keys inside a JSON column each is looked at where the column is JSON;
what the column itself is said to hold, it holds where it is not NULL.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from psycopg.sql import SQL, Composable

from include.incident.counting.named import column
from include.policy.datamap import MappedField
from include.policy.fragments import either, literal

_TEXTS = {25, 1042, 1043}  # type oids of PostgreSQL: text, character, character varying
_JSON = {114, 3802}
ALWAYS = SQL("true")


def by_category(
    row: str,
    fields: Mapping[str, MappedField],
    types: Mapping[str, int],
    never_null: Collection[str] = (),
) -> dict[str, Composable]:
    """The conditions, by category of personal data, sorted by its name.

    Args:
        row: alias of the row.
        fields: of the collection.
        types: oid of each field's type.
        never_null: columns that the database keeps from being NULL.
    """
    found: dict[str, list[Composable]] = {}
    for name, one in fields.items():
        certain = name in never_null
        for category, condition in _of_field(column(row, name), types[name], one, certain=certain):
            found.setdefault(category, []).append(condition)
    return {
        name: ALWAYS if ALWAYS in found[name] else either(found[name]) for name in sorted(found)
    }


def is_below(category: str, above: Iterable[str]) -> bool:
    """Whether a category is one of some, or below one of them."""
    return any(category == one or category.startswith(f"{one}.") for one in above)


def _of_field(
    value: Composable, kind: int, field: MappedField, *, certain: bool
) -> Iterator[tuple[str, Composable]]:
    here: Composable = SQL("{} <> ''" if kind in _TEXTS else "{} IS NOT NULL").format(value)
    if certain and kind not in _TEXTS:
        here = ALWAYS
    for category in _personal(field):
        yield category, here
    for path, inner in _inside(field, ()):
        condition = here
        if kind in _JSON:
            condition = SQL("{} #>> {} <> ''").format(value, literal(list(path)))
        for category in _personal(inner):
            if category not in field.categories:  # else the column says it already
                yield category, condition


def _inside(
    field: MappedField, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], MappedField]]:
    for name, inner in field.fields.items():
        yield (*path, name), inner
        yield from _inside(inner, (*path, name))


def _personal(field: MappedField) -> Iterator[str]:
    return (one for one in field.categories if one == "user" or one.startswith("user."))
