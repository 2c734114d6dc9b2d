"""Draft expectations and a purpose beside a data map, as YAML with comments."""

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
    """A text as a YAML scalar that reads back as the same text, quoted where it has to be."""
    if _PLAIN.fullmatch(text) and yaml.safe_load(text) == text:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: _escaped(found[0]), quoted)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def flow_list(texts: Iterable[str]) -> str:
    """Texts as a list on one line."""
    return f"[{', '.join(map(scalar, texts))}]"


def flow_map(pairs: Iterable[tuple[str, str]]) -> str:
    """Keys with values that are YAML already, on one line."""
    return "{" + ", ".join(f"{scalar(key)}: {value}" for key, value in pairs) + "}"


def comment(text: str) -> str:
    """A text as the end of a line; a name with a line break in it does not break out."""
    return "# " + " ".join(_UNPRINTABLE.sub(" ", text).split())


class Lines:
    """A YAML document that grows line by line."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, depth: int, text: str, why: str = "") -> None:
        """Add a line.

        Args:
            depth: levels of indentation, two spaces each.
            text: YAML.
            why: comment at its end.
        """
        self._lines.append("  " * depth + text + (f"  {comment(why)}" if why else ""))

    def note(self, depth: int, *texts: str) -> None:
        """Add whole lines of comment."""
        for text in texts:
            self._lines.append("  " * depth + comment(text))

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"


FORMAT = 0.95
"""Share of values that have to fit a format already, for a draft to ask for it."""
FILLED, ENOUGH = 0.99, 20
"""Share of rows that have a value, and how many rows it takes, for a draft to ask for one."""
CLAUSE = "4.1"
_NAMES = ("user.name", "user.name.first", "user.name.last")
_PHONES = ("user.contact.phone_number", "user.contact.fax_number")
_ID = "user.government_id.national_identification_number"
_PHONE_FORM = "^[+]?[0-9 ().-]{7,25}$"
_TEXT = {"text", "varchar", "bpchar", "citext"}


@dataclass(frozen=True)
class _Rule:
    what: str
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
    _Rule(what, "expect_column_values_to_be_resident_id_numbers", en, zh, (("part", part),))
    for part, what, en, zh in (
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
    """Return the text of ``quality/<name>.yaml``: expectations that nearly all values meet."""
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
    name = f"{rule.what}_{plain or f'column_{number}'}"
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
    """The text of ``purposes.yaml``: every field that was found, under one purpose to be decided.

    What no purpose lists counts as over-collected, and a draft may not hide that nobody decided.
    """
    lines = Lines()
    lines.note(
        0,
        "A draft. Somebody who may has to decide: which purposes there are, which fields each of",
        "them needs, on which basis (consent, contract, ...). A personal field that no purpose",
        "lists is reported as over-collected; delete from the list below what you do not need.",
    )
    found: dict[Name, list[str]] = {}
    for one in guesses:
        if not one.key:
            found.setdefault((one.schema, one.table), []).append(one.column)
    lines.add(0, "- id: undecided")
    lines.add(1, "title: {en: Not decided yet, zh-CN: 尚未确定的处理目的}")
    lines.add(1, "basis: contract", "to decide")
    if not found:
        lines.add(1, f"fields: {flow_map([(name, '{}')])}")
        return str(lines)
    lines.add(1, "fields:")
    lines.add(2, f"{scalar(name)}:")
    for key, columns in found.items():
        lines.add(3, f"{scalar(collections[key])}: {flow_list(columns)}")
    return str(lines)
