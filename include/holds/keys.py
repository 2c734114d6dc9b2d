"""Validate the keys of records that people type, as ``KEY`` or ``<database>/KEY``.

The registers of legal holds and erasure requests are kept for years. They therefore identify a
record by its key, and must not contain a phone or ID number (PIPL (2021-11-01) article 6). But a
serial number can be a key and look like a phone or ID number. With the prefix ``<database>/``, a
person states that such a number is a key.
"""

from __future__ import annotations

from collections.abc import Mapping

from include.approvals.reasons import has_personal_number
from include.services.errors import UsageError


def split_key(value: str) -> tuple[str | None, str]:
    """Split ``<database>/KEY`` into the database and the key.

    Without a slash in the text, the database is None and the key is the whole text.

    Args:
        value: key that a person typed.
    """
    database, slash, key = value.partition("/")
    return (database, key) if slash else (None, value)


def refuse_empty(subject: str, texts: Mapping[str, str]) -> None:
    """Check that no text is empty or has only white space.

    Args:
        subject: subject of the error message, such as "A hold".
        texts: field name -> text that a person typed.

    Raises:
        UsageError: a text is empty or has only white space.
    """
    for name, text in texts.items():
        if not text.strip():
            raise UsageError(f"{subject} needs {name.replace('_', ' ')}.")


def refuse_personal(subject: str, text: str) -> None:
    """Check that a text contains no number that looks like a mobile or ID number.

    Args:
        subject: subject of the error message, such as "A hold's reason".
        text: text that a person typed. The error message does not contain it.

    Raises:
        UsageError: the text contains a number that looks like a mobile or ID number.
    """
    if has_personal_number(text):
        raise UsageError(
            f"{subject} has a part that looks like a mobile or ID number; it is stored for years.",
            "Use the key of the record or the number of the case file instead.",
        )


def refuse_personal_key(subject: str, value: str) -> None:
    """Check that a key of a record does not look like a mobile or ID number.

    If the key has the prefix ``<database>/`` and only digits follow, it is accepted. A number in a
    format that only phone or ID numbers have (+86, spaces, a final X) is refused even with the
    prefix.

    Args:
        subject: subject of the error message, such as "A hold's value".
        value: key that a person typed. The error message does not contain it.

    Raises:
        UsageError: the key looks like a mobile or ID number.
    """
    database, key = split_key(value)
    is_declared_key = database is not None and key.isascii() and key.isdigit()
    checked = (database or "",) if is_declared_key else (value, database or "", key)
    if any(map(has_personal_number, checked)):
        raise UsageError(
            f"{subject} looks like a mobile or ID number; it is stored for years.",
            "Use the key of the record. If the value is such a key, write <database>/KEY.",
        )
