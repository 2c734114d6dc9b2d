"""Keys of records as people type them: ``KEY`` or ``<database>/KEY``.

A registry that is kept for years names records by key and never by what tells who a person is (PIPL
(2021-11-01) article 6). A running number can look like a mobile or ID number all the same; whoever
writes its database before it says that it is a key.
"""

from __future__ import annotations

from collections.abc import Mapping

from include.approvals.reasons import names_a_person
from include.services.errors import UsageError


def split(value: str) -> tuple[str | None, str]:
    """Return database and key of ``<database>/KEY``; None and the whole where there is no slash."""
    database, slash, key = value.partition("/")
    return (database, key) if slash else (None, value)


def refuse_empty(what: str, texts: Mapping[str, str]) -> None:
    """Raise UsageError if a text is empty or blank.

    Args:
        what: subject of the error message, "A hold".
        texts: what was typed, by the name of its field.
    """
    for name, typed in texts.items():
        if not typed.strip():
            raise UsageError(f"{what} needs {name.replace('_', ' ')}.")


def refuse_personal(what: str, text: str) -> None:
    """Raise UsageError if a text contains a mobile or ID number.

    Args:
        what: subject of the error message, "A hold's reason".
        text: what was typed; the message does not repeat it.
    """
    if names_a_person(text):
        raise UsageError(
            f"{what} holds what looks like a mobile or ID number; it is kept for years.",
            "Name the person by the record's key or the file's number instead.",
        )


def refuse_personal_key(what: str, value: str) -> None:
    """Raise UsageError when a key looks like a mobile or ID number.

    Plain digits after ``<database>/`` count as a key. A number in personal format (+86, spaces, a
    final X) is refused there too.

    Args:
        what: subject of the error message, "A hold's value".
        value: the key as it was typed; the message does not repeat it.
    """
    database, key = split(value)
    said = database is not None and key.isascii() and key.isdigit()
    if any(map(names_a_person, (database or "",) if said else (value, database or "", key))):
        raise UsageError(
            f"{what} looks like a mobile or ID number; it is kept for years.",
            "Use the record's key. If this is one, write the database before it: <database>/KEY.",
        )
