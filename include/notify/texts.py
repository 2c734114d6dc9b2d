"""The words of a letter that many people get: kept once, and named by their digest.

A letter with such a text goes to a person outside of the company, so it is none of the digests in
which people at work read their lines.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql import insert

from include.frozen import StrictModel
from include.messages import Message
from include.notify.tables import notice_text
from include.reports.i18n import visible

_NOT_STORED = re.compile(r"\\u0000|\\ud[89a-f]", re.IGNORECASE)  # by JSONB


def stored(message: Message) -> str:
    """Return a message as JSON for JSONB; characters that it cannot store are escaped."""
    return json.dumps(storable(message.model_dump(mode="json")))


def storable(plain: Any) -> Any:
    """Values of JSON whose texts JSONB takes; done twice, it changes nothing more."""
    return _written_out(plain) if _NOT_STORED.search(json.dumps(plain)) else plain


def _written_out(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {key: _written_out(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_written_out(item) for item in value]
    return value


class LetterPart(StrictModel):
    """A part of a letter.

    Attributes:
        title: stands above it.
        words: a blank line in them begins a paragraph, a line break a line.
    """

    title: Message
    words: Message


class LetterText(StrictModel):
    """The text of a letter, the same for all recipients.

    Attributes:
        heading: the subject of the mail, and what stands above the letter.
        opening: after the greeting; as the words of a part.
        parts: in their order.
        closing: after them; None where there is nothing to add.
        contact: whom the reader may ask, and how; stands at the letter's foot.
    """

    heading: Message
    opening: Message
    parts: tuple[LetterPart, ...] = ()
    closing: Message | None = None
    contact: Message


class TextChanged(Exception):
    """A text in the state database is not the one that its digest names."""


def content(words: LetterText) -> str:
    """A letter's text as JSON that is the same wherever it is written, and after JSONB had it.

    Raises:
        ValueError: a value is no number that JSON knows.
    """
    plain = storable(_settled(words.model_dump(mode="json")))
    return json.dumps(
        plain, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    )


def digest(words: LetterText) -> str:
    """Return the SHA-256 of `content` in hex, to which a decision about the text is bound.

    Raises:
        ValueError: as `content`.
    """
    return hashlib.sha256(content(words).encode()).hexdigest()


def keep_text(conn: Connection, words: LetterText) -> str:
    """Keep a letter's text; the same again is the one that is there.

    Args:
        conn: the state database, in a transaction.
        words: of the letter; no customer's value.

    Returns:
        Its `digest`, by which notices name it.

    Raises:
        ValueError: as `content`.
    """
    sha256 = digest(words)
    row = {"sha256": sha256, "content": json.loads(content(words))}
    conn.execute(insert(notice_text).values(row).on_conflict_do_nothing())
    return sha256


def kept_texts(conn: Connection, digests: Iterable[str]) -> dict[str, str]:
    """Return the texts of these digests, each as its `content`.

    Raises:
        TextChanged: one is not what its digest names: somebody changed it since it was kept.
    """
    wanted = sorted(set(digests))
    if not wanted:
        return {}
    query = text("SELECT sha256, content::text FROM notice_text WHERE sha256 = ANY(:wanted)")
    found = {sha256: _read(words) for sha256, words in conn.execute(query, {"wanted": wanted})}
    for sha256, words in found.items():
        if hashlib.sha256(words.encode()).hexdigest() != sha256:
            raise TextChanged
    return found


def _read(words: str) -> str:
    try:
        return content(LetterText.model_validate_json(words))
    except ValidationError as error:
        raise TextChanged from error


def _settled(value: Any) -> Any:
    """Whole numbers as such, for JSONB gives 1e22 back as one; line ends as a form has them."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        return value.replace("\r\n", "\n").replace("\r", "\n")
    if isinstance(value, dict):
        return {key: _settled(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_settled(item) for item in value]
    return value
