"""Masks of GB/T 41833-2022 as SQL, and an independent check of masked values.

`mask_expression` builds the mask and `exceeds_mask` builds the check. The two functions share no
code, so the check detects a mistake in the mask. Both compare characters without the database's
collation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier, Literal

from include.erasure.tables import TableName
from include.policy.retention import MaskKind, RetentionRule
from include.services.errors import UsageError

# White space and invisible characters around a name are not characters of the name.
_BLANK = r"[\s\u0001-\u001f\u007f-\u00a0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u2064\u3000\ufeff]"
_DIGIT = "[0-9０-９]"
_LETTER = "A-Za-zＡ-Ｚａ-ｚ"
_CHINESE = "〇零一二三四五六七八九十百千两兩壹贰叁肆伍陆柒捌玖拾佰甲乙丙丁戊己庚辛壬癸"
_COUNTED = f"[0-9０-９{_LETTER}Ⅰ-ⅿ①-⑳{_CHINESE}]"
_PART = "(?:单元|單元|室|栋|棟|幢|座|楼|樓|层|層|户|戶|房)"
_UNIT = rf"{_COUNTED}+\s*{_PART}"
_HOUSE = f"^.*?{_DIGIT}+[号號]"  # as short as possible: up to the first house number
# A number with 号 after a building, a part of a building, a letter or a number is a room number
# (A座1203号, 3-2-502号).
_ROOM = (
    rf"(?:{_PART}|大厦|大廈|公寓|[{_LETTER}#＃/／.．~～_＿－‐-―-]|{_DIGIT}\s)\s*{_DIGIT}+[号號]$"
)
_ROOM_GOES_ON = r"^\s*(?:单元|單元|室|户|戶|房)"  # 502号房
_REST = f"(?:{_UNIT}|[{_LETTER}#＃－‐-―-]*{_DIGIT}).*$"
# Patterns of the independent check: a visible part of a building, and a visible house number.
_VISIBLE_PART = (
    "(?:[a-zａ-ｚ0-9０-９]|[Ⅰ-ⅿ①-⑳]|[甲乙丙丁戊己庚辛壬癸]|[〇零一二三四五六七八九十百千]|[壹贰叁肆伍陆柒捌玖拾佰]|[两兩])"
    "[[:space:]]*(?:[单單]元|[室房户戶]|[座幢栋棟]|[楼樓层層])"
)
_VISIBLE_DIGIT = "[0123456789０１２３４５６７８９]"
_VISIBLE_HOUSE = rf"{_VISIBLE_DIGIT}[号號][楼樓]?\*\*$"
_VISIBLE_ROOM = (
    r"(?:[-#/.~_＃／．～＿－‐‑‒–—―a-zA-Zａ-ｚＡ-Ｚ]|[单單]元|[室房户戶座幢栋棟楼樓层層]|大[厦廈]|公寓"
    rf"|{_VISIBLE_DIGIT}(?:[[:space:]]|[号號](?![[:space:]]*{_VISIBLE_DIGIT}+[号號][楼樓])))"
    rf"[[:space:]]*{_VISIBLE_DIGIT}+[号號][楼樓]?\*\*$"
)
_DIGITS = ("０１２３４５６７８９", "0123456789")

# Resolve domains to their base type. A column accepts null only if all of its domains accept null.
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
    """The masks that a record class applies to its columns.

    Attributes:
        columns: column -> type of the mask that is applied to the column, such as ``phone``.
        stamp: name of the column in which the time of masking is stored; None if the record class
            has no such column.
    """

    columns: Mapping[str, MaskKind]
    stamp: str | None = None


@dataclass(frozen=True)
class ColumnShape:
    """The properties of a column that decide which masked values it can store.

    Attributes:
        is_text: whether the type is a text type.
        max_length: maximum number of characters; None if the type has no limit.
        is_not_null: whether the column is NOT NULL.
    """

    is_text: bool
    max_length: int | None
    is_not_null: bool


def masks_of(rules: Iterable[RetentionRule]) -> dict[str, Mask]:
    """Return, for each record class that retention rules mask, the masks of its columns."""
    return {
        rule.record_class: Mask(rule.mask, rule.stamp) for rule in rules if rule.action == "mask"
    }


def read_column_shapes(
    connection: psycopg.Connection[Any], table_name: TableName
) -> dict[str, ColumnShape]:
    """Return the `ColumnShape` of each column of a table.

    The result is empty if the table does not exist.
    """
    name = table_name.identifier.as_string(connection)
    return {row[0]: ColumnShape(*row[1:]) for row in connection.execute(_SHAPES, [name])}


def mask_expression(value: Composable, kind: MaskKind) -> Composable:
    """Return SQL that masks a value.

    Null, empty text and text that is already masked do not change. The masked value never shows
    more than the original value.

    - A name keeps its first character.
    - A phone number keeps at most its first three and last two digits. At least six digits are
      hidden. If the number has fewer than seven digits, all are hidden.
    - An address keeps the text up to its first house number, which ends with 号. The unit and the
      room are hidden. A number after a section of a building (A座1203号) or after a hyphen
      (3-2-502号) is not a house number. If the address has no house number, it keeps the text
      before the first digit or section of a building. If it has none of these, it keeps its first
      half.
    - ``erase`` gives null.

    Args:
        value: SQL expression of any type that can be cast to text.
        kind: type of the mask.
    """
    mask = {"name": _name, "phone": _phone, "address": _address, "erase": _null}[kind]
    return mask(_text(value))


def exceeds_mask(value: Composable, kind: MaskKind) -> Composable:
    """Return the SQL condition that a value shows more than its mask allows. It is false for null.

    The check does not know the original value. It therefore accepts a name that shows two
    characters before its stars, which may be a compound surname, although `mask_expression` shows
    only one.

    Args:
        value: SQL expression of the masked value.
        kind: type of the mask.
    """
    text = _text(value)
    if kind == "erase":
        return SQL("({} IS NOT NULL AND {} <> '')").format(text, text)
    if kind == "name":
        is_masked = SQL("{} ~ {}").format(text, Literal(r"^[^*]{0,2}\*\*+$"))
    elif kind == "phone":
        is_masked = SQL("({v} ~ {signs} AND {v} !~ {six_digits} AND {v} ~ {six_stars})").format(
            v=text,
            signs=Literal(r"^\+?[0-9*]+$"),
            six_digits=Literal("(?:[0-9][^0-9]*){6}"),
            six_stars=Literal(r"(?:\*[^*]*){6}"),
        )
    else:
        is_masked = SQL(
            "({v} ~ {stars} AND {v} !~* {part} AND ({v} !~ {digit} OR ({v} ~ {house} "
            "AND {v} !~ {room})))"
        ).format(
            v=text,
            stars=Literal(r"\*\*$"),
            part=Literal(_VISIBLE_PART),
            house=Literal(_VISIBLE_HOUSE),
            room=Literal(_VISIBLE_ROOM),
            digit=Literal(_VISIBLE_DIGIT),
        )
    # A column that is too short for the mask contains only stars.
    return SQL("coalesce({v} !~ {stars} AND NOT {is_masked}, false)").format(
        v=text, stars=Literal(r"^\**$"), is_masked=is_masked
    )


def mask_assignments(mask: Mask, shapes: Mapping[str, ColumnShape], at: Composable) -> Composable:
    """Return the SET clause of an UPDATE that masks the records of the table with the alias ``t``.

    The SET clause also stores the time of masking. A masked value that is too long for its column
    is shortened, which hides more of the value. Columns that the table does not have are left out.

    Args:
        mask: masks of the record class.
        shapes: columns of the table, as `read_column_shapes` returns them.
        at: SQL expression of the time of masking. If the record already has a time in the stamp
            column, that time is kept.

    Raises:
        UsageError: a column cannot store the masked value.
    """
    parts = [
        SQL("{} = {}").format(Identifier(name), masked_value(name, shapes[name], kind))
        for name, kind in mask.columns.items()
        if name in shapes
    ]
    if mask.stamp is not None and mask.stamp in shapes:
        stamp = Identifier(mask.stamp)
        parts.append(SQL("{} = coalesce({}.{}, {})").format(stamp, Identifier("t"), stamp, at))
    return SQL(", ").join(parts)


def record_exceeds_mask(mask: Mask, shapes: Mapping[str, ColumnShape]) -> Composable:
    """Return the SQL condition that a column of record ``t`` shows more than its mask allows.

    The condition is true if at least one column shows too much.

    Args:
        mask: masks of the record class.
        shapes: columns of the table, as `read_column_shapes` returns them.
    """
    conditions = [
        exceeds_mask(Identifier("t", name), kind)
        for name, kind in mask.columns.items()
        if name in shapes
    ]
    return SQL("({})").format(SQL(" OR ").join([*conditions, SQL("false")]))


def needs_masking(mask: Mask, shapes: Mapping[str, ColumnShape]) -> Composable:
    """Return the SQL condition under which a record (table alias ``t``) still has to be masked.

    The condition is true if the column for the time of masking is empty, or if a column shows more
    than its mask allows.

    Args:
        mask: masks of the record class.
        shapes: columns of the table, as `read_column_shapes` returns them.
    """
    condition = record_exceeds_mask(mask, shapes)
    if mask.stamp is None or mask.stamp not in shapes:
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
    # Stars count as digits, since they replace digits in a masked number.
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


def masked_value(name: str, shape: ColumnShape, kind: MaskKind) -> Composable:
    """Return SQL for the masked value of a column of record ``t``.

    The value is shortened to the maximum length of the column. In a text column that is NOT NULL,
    the mask ``erase`` gives an empty text instead of null.

    Args:
        name: name of the column.
        shape: type and maximum length of the column.
        kind: type of the mask.

    Raises:
        UsageError: the column cannot store the masked value.
    """
    if kind == "erase":
        if not shape.is_not_null:
            return SQL("NULL")
        if shape.is_text:
            return SQL("''")
        raise UsageError(
            f"The column {name} cannot be masked: it is NOT NULL and not of a text type.",
            "Allow NULL in the column, or remove it from `mask` in retention.yaml.",
        )
    if not shape.is_text:
        raise UsageError(
            f"The mask {kind} cannot be used for the column {name}, which is not of a text type.",
            "Use the mask `erase` for it in retention.yaml.",
        )
    full = mask_expression(Identifier("t", name), kind)
    if shape.max_length is None:
        return full
    stars = min(2, shape.max_length)
    return SQL(
        "(SELECT CASE WHEN w IS NULL OR length(w) <= {limit} THEN w "
        "WHEN {all} THEN repeat('*', {limit}) "
        "ELSE regexp_replace(left(w, {room}), {rest}, '') || repeat('*', {stars}) END "
        "FROM (SELECT {full} AS w) AS f)"
    ).format(
        limit=Literal(shape.max_length),
        all=Literal(kind == "phone"),
        room=Literal(shape.max_length - stars),
        rest=Literal(f"{_DIGIT}.*$"),
        stars=Literal(stars),
        full=full,
    )
