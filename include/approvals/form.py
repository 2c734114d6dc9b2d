"""The fields of an approval form, and reading what a person entered.

Airflow checks no answer: whoever answers over its REST API may send anything, or nothing. So the
domain reads every answer against the form that it asked with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal
from unicodedata import category
from zoneinfo import ZoneInfo

from include.approvals.reasons import LONGEST_REASON, value_free_reason
from include.messages import Message, _

Kind = Literal["text", "long_text", "choice", "yes_no", "moment", "number", "list"]
Entry = str | bool | int | datetime | tuple[str, ...]
_UNSHOWN = {"Cc", "Cs"}  # controls and lone surrogates, which no database takes
MOST_LINES = 200  # of a list that people write themselves
_YES, _NO = ("true", "yes", "1", "是"), ("false", "no", "0", "否", "")


@dataclass(frozen=True)
class Field:
    """A field of a form.

    Attributes:
        name: by which the answer has it.
        title: for people.
        help: a sentence below it.
        kind: ``list`` is several of the options, or lines where there are none; ``number`` is a
            whole one from zero on; ``moment`` has a time zone.
        options: what may be chosen, with its title.
        value: what stands in it already.
        required: whether an answer without it is incomplete. The page does not let anybody answer
            while it is empty, whatever they choose.
        longest: characters of a text, or of one line of a list.
        exact: whether a text is kept as it was typed. Else what could be a customer's number or
            address is blotted out (`value_free_reason`).
        schema: more of the JSON schema of a parameter in a trigger form; nothing else checks it.
    """

    name: str
    title: Message
    kind: Kind = "text"
    help: Message | None = None
    options: Mapping[str, Message] = field(default_factory=dict)
    value: Entry | None = None
    required: bool = False
    longest: int = LONGEST_REASON
    exact: bool = False
    schema: Mapping[str, Any] = field(default_factory=dict)


FormSections = Mapping[str, Sequence[Field]]
"""The fields of a trigger form, by the title of their section."""


@dataclass(frozen=True)
class Entered:
    """An answer that was read.

    Attributes:
        values: what could be read, by name; nothing that was left empty. A text that is too long is
            cut.
        problems: why the answer is incomplete or wrong, one sentence a field.
    """

    values: Mapping[str, Entry]
    problems: Sequence[Message]


def read_form(
    form: Iterable[Field], entered: Mapping[str, Any], zone: ZoneInfo | None = None
) -> Entered:
    """Read what was entered; fields that the form does not have are left out.

    Args:
        form: the fields.
        entered: as Airflow hands it over: texts, booleans, numbers, lists, null.
        zone: of moments that name none; without one such a moment is refused.
    """
    values: dict[str, Entry] = {}
    problems: list[Message] = []
    for entry in form:
        try:
            value = _READERS[entry.kind](entry, entered.get(entry.name), zone)
        except _WrongError as wrong:
            problems.append(_("{field}: {problem}", field=entry.title, problem=wrong.problem))
            if wrong.kept is not None:
                values[entry.name] = wrong.kept
            continue
        if value is not None:
            values[entry.name] = value
        elif entry.required:
            problems.append(_("{field}: {problem}", field=entry.title, problem=_("is missing")))
    return Entered(values, problems)


def refilled(form: Iterable[Field], values: Mapping[str, Entry]) -> tuple[Field, ...]:
    """Return the form with what was entered before in its fields."""
    return tuple(replace(entry, value=values.get(entry.name, entry.value)) for entry in form)


class _WrongError(Exception):
    def __init__(self, problem: Message, kept: Entry | None = None) -> None:
        super().__init__(problem.text)
        self.problem, self.kept = problem, kept


def _text(one: Field, entered: Any, _zone: ZoneInfo | None) -> str | None:
    if entered is None:
        return None
    if not isinstance(entered, str):
        raise _WrongError(_("is not a text"))
    lines = [entered] if one.kind == "text" else entered.splitlines()
    kept = "\n".join(_line(one, line) for line in lines).strip()
    if len(kept) > one.longest:
        problem = _("has more than {most} characters", most=one.longest)
        raise _WrongError(problem, kept[: one.longest])
    return kept or None


def _line(one: Field, typed: str) -> str:
    shown = (sign for sign in typed if sign.isspace() or category(sign) not in _UNSHOWN)
    plain = " ".join("".join(shown).split())
    return plain if one.exact else value_free_reason(plain, longest=one.longest + 1)


def _choice(one: Field, entered: Any, _zone: ZoneInfo | None) -> str | None:
    if entered in (None, ""):
        return None
    if not isinstance(entered, str) or entered not in one.options:
        raise _WrongError(_("is none of the choices"))
    return entered


def _yes_no(_one: Field, entered: Any, _zone: ZoneInfo | None) -> bool | None:
    if entered is None or isinstance(entered, bool):
        return entered
    said = str(entered).strip().lower()
    if said not in _YES + _NO:
        raise _WrongError(_("is neither yes nor no"))
    return said in _YES


def _moment(_one: Field, entered: Any, zone: ZoneInfo | None) -> datetime | None:
    if entered in (None, ""):
        return None
    try:
        found = datetime.fromisoformat(str(entered).strip())
    except ValueError:
        raise _WrongError(_("is not a date and time")) from None
    if found.tzinfo is None:
        if zone is None:
            raise _WrongError(_("has no time zone"))
        found = found.replace(tzinfo=zone)
    return found.astimezone(UTC)


def _number(_one: Field, entered: Any, _zone: ZoneInfo | None) -> int | None:
    if entered in (None, ""):
        return None
    whole = isinstance(entered, float) and entered.is_integer()
    said = str(int(entered)) if whole else str(entered).strip()
    if isinstance(entered, bool) or not (said.isascii() and said.isdigit() and len(said) < 19):
        raise _WrongError(_("is not a whole number"))
    return int(said)


def _list(one: Field, entered: Any, _zone: ZoneInfo | None) -> tuple[str, ...] | None:
    given = entered.splitlines() if isinstance(entered, str) else entered
    if given is None:
        return None
    if not isinstance(given, Sequence) or not all(isinstance(line, str) for line in given):
        raise _WrongError(_("is not a list"))
    if one.options:
        if not set(given) <= set(one.options):
            raise _WrongError(_("is none of the choices"))
        return tuple(option for option in one.options if option in given) or None
    lines = tuple(line for typed in given if (line := _line(one, typed)))
    cut = tuple(line[: one.longest] for line in lines[:MOST_LINES])
    if len(lines) > MOST_LINES:
        raise _WrongError(_("has more than {most} lines", most=MOST_LINES), cut)
    if cut != lines:
        raise _WrongError(_("has more than {most} characters", most=one.longest), cut)
    return lines or None


_READERS = {
    "text": _text,
    "long_text": _text,
    "choice": _choice,
    "yes_no": _yes_no,
    "moment": _moment,
    "number": _number,
    "list": _list,
}
