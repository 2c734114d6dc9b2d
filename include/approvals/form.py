"""Declare the fields of forms, and validate what a person entered in them.

Airflow does not validate the answer to a required action: a client of its REST API may send any
values. So ParcelSeal validates each answer against the form of the required action.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal
from unicodedata import category
from zoneinfo import ZoneInfo

from include.approvals.reasons import MAX_REASON_LENGTH, redact_reason
from include.messages import Message, _

Kind = Literal["text", "long_text", "choice", "yes_no", "moment", "number", "list"]
Entry = str | bool | int | datetime | tuple[str, ...]
_FORBIDDEN_CATEGORIES = {"Cc", "Cs"}  # controls and lone surrogates, refused by databases
MAX_LIST_LINES = 200  # maximum lines of a list without options
PAST = "parcelseal-day-or-moment-that-has-begun"
OVER = "parcelseal-quarter-that-is-over"
"""JSON schema formats of run parameters; see `include.orchestration.param_formats`."""

IN_THE_PAST: Mapping[str, Any] = {"allOf": [{"format": PAST}]}
"""Schema of a moment in the past. Airflow's page chooses the widget by the field's own format."""

HAS_WORDS: Mapping[str, Any] = {"pattern": r"\S"}
"""Schema of a text that is not blank."""

LARGEST_NUMBER = 2**53 - 1  # browsers cannot represent larger whole numbers exactly
_YES, _NO = ("true", "yes", "1", "是"), ("false", "no", "0", "否", "")


@dataclass(frozen=True)
class Field:
    """A field of a form that a person fills in on a page of Airflow.

    Attributes:
        name: key of the field in the answer.
        title: title that the form shows.
        help: sentence below the field.
        kind: type of the value. ``list`` is a choice of several options, or several lines of text
            if the field has no options; ``number`` is an integer of 0 or more; ``moment`` is a time
            with a timezone.
        options: value that the person can choose -> title of this value.
        value: initial value.
        required: whether the field must have a value. Airflow's page accepts no answer while the
            field is empty.
        may_be_omitted: whether only Airflow's page requires a required field of a trigger form. A
            run without the value then starts: a drill needs no value, and any other run is refused
            by its first step and leaves evidence. If Airflow refused the value in each task, the
            run would leave no evidence.
        max_length: maximum length of a text, or of each line of a list, in characters.
        stored_as_typed: whether a text is stored as typed. Otherwise possible customer data in the
            text is redacted, see `include.approvals.reasons.redact_reason`.
        schema: additional JSON schema for a run parameter. Only Airflow validates it.
    """

    name: str
    title: Message
    kind: Kind = "text"
    help: Message | None = None
    options: Mapping[str, Message] = field(default_factory=dict)
    value: Entry | None = None
    required: bool = False
    may_be_omitted: bool = False
    max_length: int = MAX_REASON_LENGTH
    stored_as_typed: bool = False
    schema: Mapping[str, Any] = field(default_factory=dict)


FormSections = Mapping[str, Sequence[Field]]
"""The fields of a trigger form, by the title of their section."""


@dataclass(frozen=True)
class FormEntries:
    """The values that a person entered in a form, after their validation.

    Attributes:
        values: valid values by field name, without empty fields. A text or list that is too long is
            shortened to the maximum length. Its field is in `problems` as well.
        problems: one sentence for each field whose value is invalid, or is required and missing.
    """

    values: Mapping[str, Entry]
    problems: Sequence[Message]


def read_form(
    form: Iterable[Field], entered: Mapping[str, Any], zone: ZoneInfo | None = None
) -> FormEntries:
    """Validate the values that a person entered in a form. Values for unknown fields are ignored.

    Args:
        form: fields of the form.
        entered: field name -> value as Airflow passes it: text, boolean, number, list or None.
        zone: timezone of times that are entered without a timezone. If it is None, such times are
            invalid.
    """
    values: dict[str, Entry] = {}
    problems: list[Message] = []
    for entry in form:
        try:
            value = _READERS[entry.kind](entry, entered.get(entry.name), zone)
        except _InvalidEntryError as error:
            problems.append(_("{field}: {problem}", field=entry.title, problem=error.problem))
            if error.kept is not None:
                values[entry.name] = error.kept
            continue
        if value is not None:
            values[entry.name] = value
        elif entry.required:
            problems.append(
                _("{field}: {problem}", field=entry.title, problem=_("a value is required"))
            )
    return FormEntries(values, problems)


def prefill_form(form: Iterable[Field], values: Mapping[str, Entry]) -> tuple[Field, ...]:
    """Return the fields of a form with new initial values.

    Args:
        form: fields of the form.
        values: field name -> new initial value. A field without an entry keeps its initial value.
    """
    return tuple(replace(entry, value=values.get(entry.name, entry.value)) for entry in form)


class _InvalidEntryError(Exception):
    def __init__(self, problem: Message, kept: Entry | None = None) -> None:
        super().__init__(problem.text)
        self.problem, self.kept = problem, kept


def _text(form_field: Field, entered: Any, _zone: ZoneInfo | None) -> str | None:
    if entered is None:
        return None
    if not isinstance(entered, str):
        raise _InvalidEntryError(_("the value is not a text"))
    lines = [entered] if form_field.kind == "text" else entered.splitlines()
    text = "\n".join(_line(form_field, line) for line in lines).strip()
    if len(text) > form_field.max_length:
        problem = _("the value has more than {limit} characters", limit=form_field.max_length)
        raise _InvalidEntryError(problem, text[: form_field.max_length])
    return text or None


def _line(form_field: Field, typed: str) -> str:
    storable = (
        sign for sign in typed if sign.isspace() or category(sign) not in _FORBIDDEN_CATEGORIES
    )
    text = " ".join("".join(storable).split())
    return (
        text
        if form_field.stored_as_typed
        else redact_reason(text, max_length=form_field.max_length + 1)
    )


def _choice(form_field: Field, entered: Any, _zone: ZoneInfo | None) -> str | None:
    if entered in (None, ""):
        return None
    if not isinstance(entered, str) or entered not in form_field.options:
        raise _InvalidEntryError(_("the value is not one of the options of this field"))
    return entered


def _yes_no(_field: Field, entered: Any, _zone: ZoneInfo | None) -> bool | None:
    if entered is None or isinstance(entered, bool):
        return entered
    text = str(entered).strip().lower()
    if text not in _YES + _NO:
        raise _InvalidEntryError(_("the value is not yes or no"))
    return text in _YES


def _moment(_field: Field, entered: Any, zone: ZoneInfo | None) -> datetime | None:
    if entered in (None, ""):
        return None
    try:
        moment = datetime.fromisoformat(str(entered).strip())
    except ValueError:
        raise _InvalidEntryError(_("the value is not a date and time")) from None
    if moment.tzinfo is None:
        if zone is None:
            raise _InvalidEntryError(_("the time has no time zone"))
        moment = moment.replace(tzinfo=zone)
    return moment.astimezone(UTC)


def _number(_field: Field, entered: Any, _zone: ZoneInfo | None) -> int | None:
    if entered in (None, ""):
        return None
    is_integer = isinstance(entered, float) and entered.is_integer()
    digits = str(int(entered)) if is_integer else str(entered).strip()
    if isinstance(entered, bool) or not (
        digits.isascii() and digits.isdigit() and len(digits) < 19
    ):
        raise _InvalidEntryError(_("the value must be a whole number that is zero or greater"))
    return int(digits)


def _list(form_field: Field, entered: Any, _zone: ZoneInfo | None) -> tuple[str, ...] | None:
    entered_lines = entered.splitlines() if isinstance(entered, str) else entered
    if entered_lines is None:
        return None
    if not isinstance(entered_lines, Sequence) or not all(
        isinstance(line, str) for line in entered_lines
    ):
        raise _InvalidEntryError(_("the value is not a list with one item in each line"))
    if form_field.options:
        if not set(entered_lines) <= set(form_field.options):
            raise _InvalidEntryError(_("the value is not one of the options of this field"))
        return tuple(option for option in form_field.options if option in entered_lines) or None
    lines = tuple(line for typed in entered_lines if (line := _line(form_field, typed)))
    cut = tuple(line[: form_field.max_length] for line in lines[:MAX_LIST_LINES])
    if len(lines) > MAX_LIST_LINES:
        raise _InvalidEntryError(
            _("the list has more than {limit} lines", limit=MAX_LIST_LINES), cut
        )
    if cut != lines:
        raise _InvalidEntryError(
            _("the value has more than {limit} characters", limit=form_field.max_length), cut
        )
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
