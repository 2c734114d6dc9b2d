"""Store the text of a notice to many data subjects once, and identify it by its SHA-256.

A notice goes to people outside of the company, so it is never part of a digest for staff. It is
queued as a notification with a text of its own.
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
from include.notify.tables import notification_text
from include.reports.i18n import visible

_UNSTORABLE = re.compile(
    r"\\u0000|\\ud[89a-f]", re.IGNORECASE
)  # characters that JSONB cannot store


def to_jsonb_text(message: Message) -> str:
    """Return the JSON form of a translatable message, which PostgreSQL can store as JSONB.

    Characters that JSONB cannot store are replaced by visible escape sequences.
    """
    return json.dumps(to_storable(message.model_dump(mode="json")))


def to_storable(plain: Any) -> Any:
    """Replace characters in JSON values that JSONB cannot store by visible escape sequences.

    A second call does not change the result.

    Args:
        plain: JSON value, such as a text, a list or a dict.
    """
    return _escape_unstorable(plain) if _UNSTORABLE.search(json.dumps(plain)) else plain


def _escape_unstorable(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {key: _escape_unstorable(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_escape_unstorable(item) for item in value]
    return value


class NoticePart(StrictModel):
    """A section of a notice to data subjects, with its own heading.

    Attributes:
        title: heading of the section.
        words: text of the section. Blank lines separate its paragraphs.
    """

    title: Message
    words: Message


class NoticeText(StrictModel):
    """The text of a notice to data subjects, the same for all recipients.

    Attributes:
        heading: subject of the mail and heading of the notice.
        opening: text after the greeting. Blank lines separate its paragraphs.
        parts: sections in the order in which they appear.
        closing: text after the sections, or None.
        contact: contact for questions, at the end of the notice.
    """

    heading: Message
    opening: Message
    parts: tuple[NoticePart, ...] = ()
    closing: Message | None = None
    contact: Message


class TextChanged(Exception):
    """The error that the text of a notice in the state database does not match its SHA-256."""


def canonical_text(notice_text: NoticeText) -> str:
    """Return the text of a notice as canonical JSON. Storage as JSONB does not change it.

    Raises:
        ValueError: the text contains a number that is not valid in JSON.
    """
    plain = to_storable(_normalize(notice_text.model_dump(mode="json")))
    return json.dumps(
        plain, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    )


def text_digest(notice_text: NoticeText) -> str:
    """Return the SHA-256 (hex) of `canonical_text`. The approval of a notice refers to this value.

    Raises:
        ValueError: the text contains a number that is not valid in JSON.
    """
    return hashlib.sha256(canonical_text(notice_text).encode()).hexdigest()


def store_text(conn: Connection, notice_text: NoticeText) -> str:
    """Store the text of a notice if it is not stored yet, and return its SHA-256.

    Notifications refer to the text by its SHA-256.

    Args:
        conn: connection to the state database, in a transaction.
        notice_text: text of the notice, without customer data.

    Raises:
        ValueError: the text contains a number that is not valid in JSON.
    """
    sha256 = text_digest(notice_text)
    row = {"sha256": sha256, "content": json.loads(canonical_text(notice_text))}
    conn.execute(insert(notification_text).values(row).on_conflict_do_nothing())
    return sha256


def load_texts(conn: Connection, digests: Iterable[str]) -> dict[str, str]:
    """Load the texts of notices, in the form that `canonical_text` returns.

    Args:
        conn: connection to the state database.
        digests: SHA-256 of the texts.

    Returns:
        SHA-256 -> text.

    Raises:
        TextChanged: a text was changed since it was stored.
    """
    unique_digests = sorted(set(digests))
    if not unique_digests:
        return {}
    query = text("SELECT sha256, content::text FROM notification_text WHERE sha256 = ANY(:wanted)")
    texts = {
        sha256: _canonical(words)
        for sha256, words in conn.execute(query, {"wanted": unique_digests})
    }
    for sha256, words in texts.items():
        if hashlib.sha256(words.encode()).hexdigest() != sha256:
            raise TextChanged
    return texts


def _canonical(words: str) -> str:
    try:
        return canonical_text(NoticeText.model_validate_json(words))
    except ValidationError as error:
        raise TextChanged from error


def _normalize(value: Any) -> Any:
    """Return a JSON value in a form that stays the same when it is stored as JSONB and read again.

    The SHA-256 of a text can therefore be computed before and after storage. A float without a
    fraction becomes an integer: 2.0 becomes 2. The line breaks CR LF and CR become LF.

    Args:
        value: JSON value, such as a text, a list or a dict.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        return value.replace("\r\n", "\n").replace("\r", "\n")
    if isinstance(value, dict):
        return {key: _normalize(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_normalize(item) for item in value]
    return value
