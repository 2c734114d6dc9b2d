"""Texts for people, translated when they are rendered, never when they are made.

Domain code writes ``_("{count} tables were compared", count=12)``; the English sentence is the
catalogue's key. Babel extracts it (keyword ``_``), ``include/reports/locale`` holds the Chinese.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})")


def _moment(value: Any) -> Any:
    """Read back a date or moment that went through JSON; pydantic alone takes "5" for one too."""
    if isinstance(value, str) and _DATE.fullmatch(value):
        return date.fromisoformat(value)
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        return datetime.fromisoformat(value)
    return value


Value = Annotated[bool | int | float | datetime | date | str, BeforeValidator(_moment)]


class Message(BaseModel):
    """A sentence of the catalogue with its values.

    Attributes:
        text: English source text with ``{name}`` fields, as in ``str.format``.
        values: what goes into the fields; a Message as a value is translated too.
        translations: the sentence in other languages, by locale (``zh-CN``), for texts that are
            company data and stand in no catalogue: titles of the policy pack.
    """

    model_config = ConfigDict(frozen=True)

    text: str
    values: dict[str, Value | Message] = {}
    translations: dict[str, str] = {}


def _(text: str, /, **values: Any) -> Message:
    """Make a catalogue message; the name is the extraction keyword, as in gettext."""
    return Message(text=text, values=values)


def in_english(message: Message) -> str:
    """Return a message in English, its values as they are: for errors, logs and JSON."""
    values = {
        name: in_english(value) if isinstance(value, Message) else value
        for name, value in message.values.items()
    }
    return message.text.format(**values)


def verbatim(text: str) -> Message:
    """Wrap words that stand in no catalogue: an error's own, a path."""
    return Message(text="{words}", values={"words": text})


def listed(items: Sequence[Message]) -> Message:
    """Several messages one after the other, with each language's own comma."""
    names = [f"{{p{number}}}" for number in range(len(items))]
    return Message(
        text=", ".join(names),
        values={f"p{number}": item for number, item in enumerate(items)},
        translations={"zh-CN": "、".join(names)},
    )
