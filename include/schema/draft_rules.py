"""Draft expectations and a purpose for a drafted data map, as YAML with comments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import yaml

from include.schema.guesses import Guess
from include.schema.live import LiveColumn, LiveTable, Name
from include.schema.patterns import Counts, TableCounts

_PLAIN = re.compile(r"[^\W\d][\w.-]*")
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u200a\u2010-\u2027\u202f-\u2065\u2070-\ud7ff\ue000-\ufefe\uff00-\ufffd"
    "\U00010000-\U0010ffff]"
)


def scalar(text: str) -> str:
    """Return a text as a YAML scalar, in quotes if YAML would not read it as the same text."""
    if _PLAIN.fullmatch(text) and yaml.safe_load(text) == text:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda match: _escaped(match[0]), quoted)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def flow_list(texts: Iterable[str]) -> str:
    """Return texts as a YAML list on one line. Texts are quoted if necessary."""
    return f"[{', '.join(map(scalar, texts))}]"


def flow_map(pairs: Iterable[tuple[str, str]]) -> str:
    """Return pairs of key and value as a YAML mapping on one line.

    The values must already be YAML.
    """
    return "{" + ", ".join(f"{scalar(key)}: {value}" for key, value in pairs) + "}"


def comment(text: str) -> str:
    """Return a text as a YAML comment on one line; line breaks become spaces."""
    return "# " + " ".join(_UNPRINTABLE.sub(" ", text).split())


class Lines:
    """A YAML document to which lines are added."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, depth: int, text: str, why: str = "") -> None:
        """Add a line to the document.

        Args:
            depth: number of indentation levels, two spaces each.
            text: YAML of the line.
            why: text of the comment at the end of the line; empty for no comment.
        """
        self._lines.append("  " * depth + text + (f"  {comment(why)}" if why else ""))

    def note(self, depth: int, *texts: str) -> None:
        """Add each text as a comment on its own line.

        Args:
            depth: number of indentation levels, two spaces each.
            texts: texts of the comments.
        """
        for text in texts:
            self._lines.append("  " * depth + comment(text))

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"


FORMAT = 0.95
"""Share of values that must already fit a format for the draft to expect it."""
FILLED, ENOUGH = 0.99, 20
"""Share of filled rows, and minimum number of rows, for the draft to expect a value."""
CLAUSE = "4.1"
_NAMES = ("user.name", "user.name.first", "user.name.last")
_PHONES = ("user.contact.phone_number", "user.contact.fax_number")
_ID = "user.government_id.national_identification_number"
_PHONE_FORM = "^[+]?[0-9 ().-]{7,25}$"
_TEXT = {"text", "varchar", "bpchar", "citext"}


@dataclass(frozen=True)
class _Rule:
    id_prefix: str
    type: str
    en: str
    zh: str
    extra: tuple[tuple[str, str], ...] = ()


_BLANK = _Rule(
    "blank", "expect_column_values_to_not_be_blank", "{} is not blank", "{} 不是空白"
)  # fmt: skip
_MISSING = _Rule(
    "missing", "expect_column_values_to_not_be_null", "{} is filled in", "{} 已填写"
)  # fmt: skip
_MOBILE = _Rule(
    "invalid", "expect_column_values_to_be_mobile_numbers", "{} is a mobile number",
    "{} 是有效的手机号码",
)  # fmt: skip
_PHONE = _Rule(
    "invalid", "expect_column_values_to_match_regex", "{} has the form of a phone number",
    "{} 符合电话号码格式", (("regex", scalar(_PHONE_FORM)),),
)  # fmt: skip
_EMAIL = _Rule(
    "invalid", "expect_column_values_to_be_email_addresses", "{} is an e-mail address",
    "{} 是有效的电子邮箱地址",
)  # fmt: skip
_ID_PARTS = tuple(
    _Rule(id_prefix, "expect_column_values_to_be_resident_id_numbers", en, zh, (("part", part),))
    for part, id_prefix, en, zh in (
        ("form", "form", "{} has the form of a resident ID number", "{} 符合居民身份证号码格式"),
        ("birth_date", "birth", "{} holds a real date of birth", "{} 中的出生日期真实存在"),
        ("check_character", "check", "{} has the right check character", "{} 的校验码正确"),
    )
)


def quality(
    name: str,
    tables: Mapping[Name, LiveTable],
    collections: Mapping[Name, str],
    counts: Mapping[Name, TableCounts],
    guesses: Sequence[Guess],
) -> str:
    """Return ``quality/<name>.yaml``: expectations that nearly all current values meet.

    Args:
        name: fides_key of the data map.
        tables: mapped tables.
        collections: schema and name of a table -> name of its collection.
        counts: pattern counts of the tables.
        guesses: guesses about personal columns.
    """
    lines = Lines()
    lines.note(
        0,
        "A draft: expectations that nearly all of today's values meet. All of them only warn;",
        "decide which should fail, and add what the business knows and values do not show.",
    )
    by_table: dict[Name, list[Guess]] = {}
    for guess in guesses:
        by_table.setdefault((guess.schema, guess.table), []).append(guess)
    has_rules = False
    for key, table in tables.items():
        rules = list(_rules(table, counts.get(key, TableCounts()), by_table.get(key, [])))
        if not rules:
            continue
        has_rules = True
        lines.add(0, f"- database: {scalar(name)}")
        lines.add(1, f"collection: {scalar(collections[key])}")
        lines.add(1, "expectations:")
        taken: set[str] = set()
        for column, rule in rules:
            _expectation(lines, table, column, rule, taken)
    if not has_rules:
        lines.add(0, "[]")
    return str(lines)


def _rules(
    table: LiveTable, counts: TableCounts, guesses: Sequence[Guess]
) -> Iterator[tuple[LiveColumn, _Rule]]:
    for guess in guesses:
        if guess.key or guess.confidence == "low":
            continue
        column = table.columns[guess.column]
        values = counts.columns.get(column.name, Counts())
        if column.base in _TEXT and not column.is_array:
            yield from ((column, rule) for rule in _formats(guess.category, values))
        is_filled = values.rows >= ENOUGH and values.filled >= FILLED * values.rows
        if column.nullable and is_filled and guess.category not in _NAMES:
            yield column, _MISSING


def _formats(category: str, values: Counts) -> Iterator[_Rule]:
    if category in _NAMES:
        if values.filled >= FILLED * values.rows:
            yield _BLANK
    elif category in _PHONES and values.share("mobile") >= FORMAT:
        yield _MOBILE
    elif category in _PHONES and values.share("phone", "digits") >= FORMAT:
        yield _PHONE
    elif category == "user.contact.email" and (
        not values.filled or values.share("email") >= FORMAT
    ):
        yield _EMAIL
    elif category == _ID and values.share("resident_id") >= FORMAT:
        yield from _ID_PARTS


def _expectation(
    lines: Lines, table: LiveTable, column: LiveColumn, rule: _Rule, taken: set[str]
) -> None:
    number = list(table.columns).index(column.name) + 1
    plain = re.sub(r"[^a-z0-9]+", "_", column.name.lower()).strip("_")[:60]
    name = f"{rule.id_prefix}_{plain or f'column_{number}'}"
    if name in taken:
        name = f"{name}_{number}"
    taken.add(name)
    titles = flow_map(
        [
            ("en", scalar(rule.en.format(column.name))),
            ("zh-CN", scalar(rule.zh.format(column.name))),
        ]
    )
    lines.add(2, f"- id: {name}")
    lines.add(3, f"type: {rule.type}")
    lines.add(3, f"kwargs: {flow_map([('column', scalar(column.name)), *rule.extra])}")
    lines.add(3, "severity: warn")
    lines.add(3, f'clause: "{CLAUSE}"')
    lines.add(3, f"title: {titles}")


def purposes(name: str, collections: Mapping[Name, str], guesses: Sequence[Guess]) -> str:
    """Return the text of ``purposes.yaml``, which lists all personal fields under one purpose.

    A field without a purpose would be reported as collected without need. The drafted purpose has
    the id ``undecided``, so that a person notices that the real purposes are still missing.

    Args:
        name: fides_key of the data map.
        collections: schema and name of a table -> name of its collection.
        guesses: guesses about personal columns.
    """
    lines = Lines()
    lines.note(
        0,
        "A draft. An authorised person has to decide which purposes exist, which fields each",
        "purpose needs, and its legal basis (consent, contract, ...). A personal field without",
        "a purpose is reported as over-collected. Delete the fields that you do not need.",
    )
    columns_by_table: dict[Name, list[str]] = {}
    for guess in guesses:
        if not guess.key:
            columns_by_table.setdefault((guess.schema, guess.table), []).append(guess.column)
    lines.add(0, "- id: undecided")
    lines.add(1, "title: {en: Not decided yet, zh-CN: 尚未确定的处理目的}")
    lines.add(1, "basis: contract", "to decide")
    if not columns_by_table:
        lines.add(1, f"fields: {flow_map([(name, '{}')])}")
        return str(lines)
    lines.add(1, "fields:")
    lines.add(2, f"{scalar(name)}:")
    for key, columns in columns_by_table.items():
        lines.add(3, f"{scalar(collections[key])}: {flow_list(columns)}")
    return str(lines)
