"""Masks of GB/T 41833-2022 as SQL, and an independent check of masked values.

`masked` and `shows_too_much` are written differently on purpose, so that a mistake in one of them
is noticed. Both look at characters, whatever the collation of the database is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier, Literal

from include.erasure.places import Place
from include.policy.retention import MaskKind, RetentionRule
from include.services.errors import UsageError

# White space and invisible characters around a name are none of its characters.
_BLANK = r"[\s\u0001-\u001f\u007f-\u00a0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u2064\u3000\ufeff]"
_DIGIT = "[0-9０-９]"
_LETTER = "A-Za-zＡ-Ｚａ-ｚ"
_CHINESE = "〇零一二三四五六七八九十百千两兩壹贰叁肆伍陆柒捌玖拾佰甲乙丙丁戊己庚辛壬癸"
_COUNTED = f"[0-9０-９{_LETTER}Ⅰ-ⅿ①-⑳{_CHINESE}]"
_PART = "(?:单元|單元|室|栋|棟|幢|座|楼|樓|层|層|户|戶|房)"
_UNIT = rf"{_COUNTED}+\s*{_PART}"
_HOUSE = f"^.*?{_DIGIT}+[号號]"  # as short as possible: up to the first house number
# After a building, a part of one, a letter or a number it is a room's (A座1203号, 3-2-502号).
_ROOM = (
    rf"(?:{_PART}|大厦|大廈|公寓|[{_LETTER}#＃/／.．~～_＿－‐-―-]|{_DIGIT}\s)\s*{_DIGIT}+[号號]$"
)
_ROOM_GOES_ON = r"^\s*(?:单元|單元|室|户|戶|房)"  # 502号房
_REST = f"(?:{_UNIT}|[{_LETTER}#＃－‐-―-]*{_DIGIT}).*$"
# The second opinion's own: what is seen of a part of a building, and of a house number.
_PART_SEEN = (
    "(?:[a-zａ-ｚ0-9０-９]|[Ⅰ-ⅿ①-⑳]|[甲乙丙丁戊己庚辛壬癸]|[〇零一二三四五六七八九十百千]|[壹贰叁肆伍陆柒捌玖拾佰]|[两兩])"
    "[[:space:]]*(?:[单單]元|[室房户戶]|[座幢栋棟]|[楼樓层層])"
)
_DIGIT_SEEN = "[0123456789０１２３４５６７８９]"
_HOUSE_SEEN = rf"{_DIGIT_SEEN}[号號][楼樓]?\*\*$"
_ROOM_SEEN = (
    r"(?:[-#/.~_＃／．～＿－‐‑‒–—―a-zA-Zａ-ｚＡ-Ｚ]|[单單]元|[室房户戶座幢栋棟楼樓层層]|大[厦廈]|公寓"
    rf"|{_DIGIT_SEEN}(?:[[:space:]]|[号號](?![[:space:]]*{_DIGIT_SEEN}+[号號][楼樓])))"
    rf"[[:space:]]*{_DIGIT_SEEN}+[号號][楼樓]?\*\*$"
)
_DIGITS = ("０１２３４５６７８９", "0123456789")

# A domain is of the type below it, however many domains lie between, and null where all allow it.
_SHAPES = """
WITH RECURSIVE base AS (
    SELECT attname, atttypid AS type, atttypmod AS modifier, attnotnull AS filled
    FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT b.attname, t.typbasetype, CASE WHEN b.modifier < 0 THEN t.typtypmod ELSE b.modifier END,
        b.filled OR t.typnotnull
    FROM base b JOIN pg_type t ON t.oid = b.type WHERE t.typtype = 'd'
)
SELECT b.attname, t.typcategory = 'S',
    CASE WHEN t.typname IN ('varchar', 'bpchar') AND b.modifier > 4 THEN b.modifier - 4 END,
    b.filled OR t.typnotnull
FROM base b JOIN pg_type t ON t.oid = b.type WHERE t.typtype <> 'd'
"""


@dataclass(frozen=True)
class Mask:
    """The masks of a record class.

    Attributes:
        columns: column -> what of it is hidden.
        stamp: column that says when a record was masked.
    """

    columns: Mapping[str, MaskKind]
    stamp: str | None = None


@dataclass(frozen=True)
class Shape:
    """The type and size of a column.

    Attributes:
        text: whether it is a type of text.
        limit: characters at most; None without a limit.
        filled: whether null is refused.
    """

    text: bool
    limit: int | None
    filled: bool


def masks_of(rules: Iterable[RetentionRule]) -> dict[str, Mask]:
    """Return the masks of retention.yaml by record class."""
    return {
        rule.record_class: Mask(rule.mask, rule.stamp) for rule in rules if rule.action == "mask"
    }


def shapes(connection: psycopg.Connection[Any], place: Place) -> dict[str, Shape]:
    """Return the columns of a table with what they can hold; none where there is no table."""
    name = place.identifier.as_string(connection)
    return {row[0]: Shape(*row[1:]) for row in connection.execute(_SHAPES, [name])}


def masked(value: Composable, kind: MaskKind) -> Composable:
    """Return SQL for the masked text of a value, which is SQL of any type that casts to text.

    Null and the empty text stay. What is masked already comes out as it is, and no mask shows more
    than the value did.

    - A name keeps its first character.
    - A phone number keeps at most its first three and last two digits. At least six digits are
      hidden; with fewer than seven, all are.
    - An address keeps the text up to its first house number, which ends with 号. Unit and room are
      hidden: a number after a part of a building (A座1203号) or after a hyphen (3-2-502号) is no
      house number. Without a house number, the text before the first digit or part of a building
      stays; without these, the first half stays.
    - ``erase`` leaves null.
    """
    made = {"name": _name, "phone": _phone, "address": _address, "erase": _null}[kind]
    return made(_text(value))


def shows_too_much(value: Composable, kind: MaskKind) -> Composable:
    """Return a condition in SQL: the value has more than the mask leaves; false for null.

    It knows the result only: a name that ends with two stars and has two characters before them
    (a compound surname) is fine, whoever wrote it.
    """
    text = _text(value)
    if kind == "erase":
        return SQL("({} IS NOT NULL AND {} <> '')").format(text, text)
    if kind == "name":
        fine = SQL("{} ~ {}").format(text, Literal(r"^[^*]{0,2}\*\*+$"))
    elif kind == "phone":
        fine = SQL("({v} ~ {signs} AND {v} !~ {six_digits} AND {v} ~ {six_stars})").format(
            v=text,
            signs=Literal(r"^\+?[0-9*]+$"),
            six_digits=Literal("(?:[0-9][^0-9]*){6}"),
            six_stars=Literal(r"(?:\*[^*]*){6}"),
        )
    else:
        fine = SQL(
            "({v} ~ {stars} AND {v} !~* {part} AND ({v} !~ {digit} OR ({v} ~ {house} "
            "AND {v} !~ {room})))"
        ).format(
            v=text,
            stars=Literal(r"\*\*$"),
            part=Literal(_PART_SEEN),
            house=Literal(_HOUSE_SEEN),
            room=Literal(_ROOM_SEEN),
            digit=Literal(_DIGIT_SEEN),
        )
    # Where a column has no room for the whole mask, nothing but stars is left.
    return SQL("coalesce({v} !~ {stars} AND NOT {fine}, false)").format(
        v=text, stars=Literal(r"^\**$"), fine=fine
    )


def assignments(mask: Mask, found: Mapping[str, Shape], at: Composable) -> Composable:
    """Return what UPDATE sets, to mask and stamp the records of alias ``t``.

    A mask that a column has no room for is cut so that it hides more. ``at`` is the moment for the
    stamp; a stamp that is there stays. Columns that `shapes` did not find are left out.

    Raises:
        UsageError: a column cannot hold what the mask leaves.
    """
    parts = [
        SQL("{} = {}").format(Identifier(name), masked_value(name, found[name], kind))
        for name, kind in mask.columns.items()
        if name in found
    ]
    if mask.stamp is not None and mask.stamp in found:
        stamp = Identifier(mask.stamp)
        parts.append(SQL("{} = coalesce({}.{}, {})").format(stamp, Identifier("t"), stamp, at))
    return SQL(", ").join(parts)


def shows(mask: Mask, found: Mapping[str, Shape]) -> Composable:
    """Return a condition: one of the columns of a record of alias ``t`` shows too much."""
    conditions = [
        shows_too_much(Identifier("t", name), kind)
        for name, kind in mask.columns.items()
        if name in found
    ]
    return SQL("({})").format(SQL(" OR ").join([*conditions, SQL("false")]))


def to_mask(mask: Mask, found: Mapping[str, Shape]) -> Composable:
    """Return a condition: a record of alias ``t`` has no stamp yet, or shows too much."""
    condition = shows(mask, found)
    if mask.stamp is None or mask.stamp not in found:
        return condition
    return SQL("({} IS NULL OR {})").format(Identifier("t", mask.stamp), condition)


def _text(value: Composable) -> Composable:
    return SQL('(({})::text COLLATE "C")').format(value)


def _name(text: Composable) -> Composable:
    return SQL(
        "(SELECT CASE WHEN n = '' THEN '' WHEN length(n) = 1 OR left(n, 1) = '*' THEN '**' "
        "ELSE left(n, 1) || '**' END FROM (SELECT regexp_replace({}, {}, '', 'g') AS n) AS m)"
    ).format(text, Literal(f"^{_BLANK}+|{_BLANK}+$"))


def _phone(text: Composable) -> Composable:
    # Stars stand for digits that were hidden before.
    return SQL(
        "(SELECT CASE WHEN v IS NULL OR v = '' THEN v WHEN n < 7 THEN '******' ELSE "
        "plus || left(d, least(3, greatest(n - 8, 0))) "
        "|| repeat('*', n - least(3, greatest(n - 8, 0)) - least(2, n - 6)) "
        "|| right(d, least(2, n - 6)) END "
        "FROM (SELECT v, d, length(d) AS n, CASE WHEN v ~ {plus} THEN '+' ELSE '' END AS plus "
        "FROM (SELECT v, regexp_replace(translate(v, {wide}, {plain}), '[^0-9*]', '', 'g') AS d "
        "FROM (SELECT {text} AS v) AS a) AS b) AS m)"
    ).format(
        text=text,
        plus=Literal(f"^{_BLANK}*[+＋]"),
        wide=Literal(_DIGITS[0]),
        plain=Literal(_DIGITS[1]),
    )


def _address(text: Composable) -> Composable:
    return SQL(
        "(SELECT CASE WHEN v IS NULL OR v = '' THEN v WHEN v ~ {done} AND v !~ {unit} THEN v "
        "WHEN kept !~ {unit} AND kept !~ {room} AND substr(v, length(kept) + 1) !~ {goes_on} "
        "THEN kept || '**' "
        "WHEN v ~ {rest} THEN regexp_replace(v, {rest}, '') || '**' "
        "ELSE left(v, length(v) / 2) || '**' END "
        "FROM (SELECT v, substring(v FROM {house}) AS kept FROM (SELECT {text} AS v) AS a) AS m)"
    ).format(
        text=text,
        done=Literal(rf"^{_DIGIT.replace('[', '[^')}*\*\*$"),
        unit=Literal(_UNIT),
        room=Literal(_ROOM),
        goes_on=Literal(_ROOM_GOES_ON),
        rest=Literal(_REST),
        house=Literal(_HOUSE),
    )


def _null(_: Composable) -> Composable:
    return SQL("NULL::text")


def masked_value(name: str, shape: Shape, kind: MaskKind) -> Composable:
    """Return the masked value of a column of the record of alias ``t``, as UPDATE computes it.

    Args:
        name: of the column.
        shape: of the column.
        kind: of the mask.

    Raises:
        UsageError: the column cannot hold what the mask leaves.
    """
    if kind == "erase":
        if not shape.filled:
            return SQL("NULL")
        if shape.text:
            return SQL("''")
        raise UsageError(
            f"The mask cannot erase the column {name}: it must not be null and is no text.",
            "Let the column be null, or leave it out of `mask` in retention.yaml.",
        )
    if not shape.text:
        raise UsageError(
            f"The mask {kind} cannot be put on the column {name}: it is no text.",
            "Use the mask `erase` for it in retention.yaml.",
        )
    full = masked(Identifier("t", name), kind)
    if shape.limit is None:
        return full
    stars = min(2, shape.limit)
    return SQL(
        "(SELECT CASE WHEN w IS NULL OR length(w) <= {limit} THEN w "
        "WHEN {all} THEN repeat('*', {limit}) "
        "ELSE regexp_replace(left(w, {room}), {rest}, '') || repeat('*', {stars}) END "
        "FROM (SELECT {full} AS w) AS f)"
    ).format(
        limit=Literal(shape.limit),
        all=Literal(kind == "phone"),
        room=Literal(shape.limit - stars),
        rest=Literal(f"{_DIGIT}.*$"),
        stars=Literal(stars),
        full=full,
    )
