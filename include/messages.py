"""Texts for readers. Each text is translated only when it is rendered.

Code writes ``_("{count} tables were compared", count=12)``. The English sentence is the key of the
translation catalogue: Babel extracts the sentence (keyword ``_``), and ``include/reports/locale``
contains its Chinese translation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})")


def _moment(value: Any) -> Any:
    """Parse a date or time that is stored as text in JSON. Return any other value unchanged.

    This function accepts only complete dates and times. Pydantic alone would parse "5" as a date. A
    text such as "2026-13-01" has the form of a date, but is none, and stays a text.
    """
    if not isinstance(value, str):
        return value
    try:
        if _DATE.fullmatch(value):
            return date.fromisoformat(value)
        return datetime.fromisoformat(value) if _MOMENT.fullmatch(value) else value
    except ValueError:
        return value


# Pydantic would copy a default of {} for each message, which doubles the time of creating one. The
# published JSON schema still states this default.
_EMPTY: JsonDict = {"default": {}}

Value = Annotated[bool | int | float | datetime | date | str, BeforeValidator(_moment)]


class Message(BaseModel):
    """A sentence of the translation catalogue with values for its fields.

    Attributes:
        text: English source text with ``{name}`` fields, as in ``str.format``.
        values: values of the fields, by name. If a value is a Message, it is translated.
        translations: the sentence in other languages, by language tag (``zh-CN``). Used only for
            company data that no catalogue contains, such as titles of the policy pack.
    """

    model_config = ConfigDict(frozen=True)

    text: str
    values: dict[str, Value | Message] = Field(default_factory=dict, json_schema_extra=_EMPTY)
    translations: dict[str, str] = Field(default_factory=dict, json_schema_extra=_EMPTY)


def _(text: str, /, **values: Any) -> Message:
    """Return a catalogue message.

    As in gettext, the name ``_`` marks the text for extraction into the translation catalogue.
    """
    return Message(text=text, values=values)


def in_english(message: Message) -> str:
    """Return a message in English, for errors, logs and JSON.

    Numbers and times in the message are not formatted.
    """
    values = {
        name: in_english(value) if isinstance(value, Message) else value
        for name, value in message.values.items()
    }
    return message.text.format(**values)


def verbatim(text: str) -> Message:
    """Return a message for a text without a translation, such as a path or an error message."""
    return Message(text="{words}", values={"words": text})


def listed(items: Iterable[Message | str], limit: int | None = None) -> Message:
    """Join items into one message, such as "a, b" in English and "a、b" in Chinese.

    Args:
        items: messages, or texts that have no translation.
        limit: largest number of items that are named. If there are more items, the message ends
            with the number of the others. None to name all items.
    """
    messages = [item if isinstance(item, Message) else verbatim(item) for item in items]
    shown = messages if limit is None else messages[:limit]
    fields = [f"{{p{number}}}" for number in range(len(shown))]
    names = Message(
        text=", ".join(fields),
        values={f"p{number}": item for number, item in enumerate(shown)},
        translations={"zh-CN": "、".join(fields)},
    )
    hidden = len(messages) - len(shown)
    return _("{names} and {count} more", names=names, count=hidden) if hidden else names
