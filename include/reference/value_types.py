"""Describe the types, units and allowed values of a policy pack's keys in words."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, time
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import AfterValidator, BaseModel, BeforeValidator, StringConstraints
from pydantic.fields import FieldInfo

from include.policy import expectations, kwargs, retention
from include.policy.mapping import as_tuple
from include.policy.period import IsoPeriod, PositivePeriod
from include.policy.rates import ExactRate
from include.policy.rules import (
    Basis,
    Clause,
    Day,
    Identifier,
    Name,
    Sql,
    Text,
    Texts,
    TimeOfDay,
    Unit,
    Year,
    require_items,
)

_SUFFIXES = {
    "days": "days",
    "days_before_expiry": "days",
    "hours": "hours",
    "minutes": "minutes",
    "milliseconds": "ms",
    "ms": "ms",
    "s": "s",
    "percent": "%",
}
_LONGEST_PATTERN = 40


@dataclass(frozen=True)
class ValueType:
    """The type of a key's value, described in words.

    Attributes:
        name: name of the type, such as ``integer``.
        allowed: allowed values, each as Markdown.
        unit: unit of a number; empty if the number has no unit.
    """

    name: str
    allowed: tuple[str, ...] = ()
    unit: str = ""


_NAMED: tuple[tuple[Any, ValueType], ...] = (
    (Text, ValueType("text")),
    (Name, ValueType("name")),
    (Texts, ValueType("text in `en` and `zh-CN`")),
    (Sql, ValueType("SQL")),
    (kwargs.Condition, ValueType("SQL")),
    (Identifier, ValueType("identifier", ("`a-z`, `0-9`, `_ . -`",))),
    (Clause, ValueType("text in quotes")),
    (Day, ValueType("date")),
    (Year, ValueType("year", ("2000 to 2200",))),
    (TimeOfDay, ValueType("time of day", ("`00:00` to `23:59`",))),
    (retention.WindowTime, ValueType("time of day", ("`00:00` to `23:59`",))),
    (IsoPeriod, ValueType("period")),
    (PositivePeriod, ValueType("period")),
    (retention.KeptFor, ValueType("period", ("at most 100 years",))),
    (ExactRate, ValueType("rate", ("0% to 100%",))),
    (Basis, ValueType("`business` or mapping")),
    (retention.Clock, ValueType("column, list of columns or mapping")),
    (kwargs.Bound, ValueType("number or text")),
    (expectations.Margin, ValueType("period or integer")),
)
"""Aliases of annotations, and their names in words."""
_PLAIN: Mapping[Any, str] = {
    str: "text",
    int: "integer",
    float: "number",
    Decimal: "number",
    Fraction: "rate",
    bool: "boolean",
    date: "date",
    time: "time of day",
}


def describe(annotation: Any, key: str = "") -> ValueType:
    """Return the type of a key's value in words.

    Args:
        annotation: type annotation of the model's field, with its metadata.
        key: name of the key. If the type of a number states no unit, the end of the name does:
            ``_days`` means days.
    """
    described = _describe(annotation)
    if not described.unit and described.name in {"integer", "number"}:
        unit = next((_SUFFIXES[end] for end in _ends(key) if end in _SUFFIXES), "")
        described = replace(described, unit=unit)
    return described


def _ends(key: str) -> Iterator[str]:
    parts = key.split("_")
    yield from ("_".join(parts[at:]) for at in range(len(parts)))


def _describe(annotation: Any) -> ValueType:
    base, metadata = _split(annotation)
    named = max(
        ((alias, words) for alias, words in _NAMED if _is_alias(alias, base, metadata)),
        key=lambda alias_and_words: len(_split(alias_and_words[0])[1]),
        default=None,
    )
    if named is not None:
        alias, words = named
        return _constrained(words, metadata[len(_split(alias)[1]) :])
    return _constrained(_base(base), metadata)


def _split(annotation: Any) -> tuple[Any, list[Any]]:
    if get_origin(annotation) is Annotated:
        base, *metadata = get_args(annotation)
        flat: list[Any] = []
        for constraint in metadata:
            flat += (
                constraint.metadata
                if isinstance(constraint, FieldInfo) and constraint.metadata
                else [constraint]
            )
        return base, flat
    return annotation, []


def _is_alias(alias: Any, base: Any, metadata: list[Any]) -> bool:
    alias_base, alias_metadata = _split(alias)
    return bool(alias_base == base and metadata[: len(alias_metadata)] == alias_metadata)


def _base(base: Any) -> ValueType:
    origin, arguments = get_origin(base), get_args(base)
    if base in _PLAIN:
        return ValueType(_PLAIN[base])
    if origin is Literal:
        values = tuple("`true`" if choice is True else f"`{choice}`" for choice in arguments)
        return ValueType("boolean" if arguments == (True,) else "text", values)
    if origin in (Union, types.UnionType):
        kinds = [_describe(argument) for argument in arguments if argument is not type(None)]
        names = dict.fromkeys(kind.name for kind in kinds)
        allowed = tuple(text for kind in kinds for text in kind.allowed)
        return ValueType(" or ".join(names), allowed, kinds[0].unit)
    if origin is tuple:
        item = _describe(arguments[0])
        return replace(item, name=f"list of {_plural(item.name)}")
    if origin is not None and issubclass(origin, Mapping):
        key, value = (_describe(argument) for argument in arguments)
        allowed = key.allowed if key.name == "text" else value.allowed
        return replace(value, name=f"mapping: {key.name} to {value.name}", allowed=allowed)
    if isinstance(base, type) and issubclass(base, BaseModel):
        return ValueType("mapping")
    return ValueType("any")


def _plural(name: str) -> str:
    return name if name in {"text", "SQL"} or " " in name else f"{name}s"


def _constrained(words: ValueType, metadata: list[Any]) -> ValueType:
    least = next((constraint for constraint in metadata if isinstance(constraint, Ge | Gt)), None)
    most = next((constraint.le for constraint in metadata if isinstance(constraint, Le)), None)
    allowed = list(words.allowed)
    if least is not None:
        lower = f"above {least.gt}" if isinstance(least, Gt) else f"{least.ge:,}"
        allowed.append(f"{lower} to {most:,}" if most is not None else f"{lower} or more")
    has_minimum = any(isinstance(constraint, MinLen) for constraint in metadata)
    for constraint in metadata:
        if isinstance(constraint, AfterValidator) and constraint.func is require_items:
            allowed += [] if has_minimum else ["at least one"]
        elif isinstance(constraint, MinLen):
            allowed.append(f"at least {constraint.min_length}")
        elif isinstance(constraint, MaxLen):
            allowed.append(f"at most {constraint.max_length}")
        elif isinstance(constraint, Unit):
            words = replace(words, unit=constraint.name)
        elif isinstance(constraint, BeforeValidator) and constraint.func is as_tuple:
            words = replace(words, name=f"{_singular(words.name)} or {words.name}")
        elif isinstance(constraint, StringConstraints):
            allowed += _pattern(constraint)
    return replace(words, allowed=tuple(allowed))


def _singular(name: str) -> str:
    item = name.removeprefix("list of ")
    return item if item in {"text", "SQL"} else item.removesuffix("s")


def _pattern(constraints: StringConstraints) -> list[str]:
    pattern = str(constraints.pattern or "")
    shown = re.sub(r"^\^|\\z$", "", pattern)
    allowed = [f"`{shown}`"] if 2 < len(shown) <= _LONGEST_PATTERN else []
    if constraints.max_length:
        allowed.append(f"at most {constraints.max_length} characters")
    return allowed
