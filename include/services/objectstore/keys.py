"""Rules for object keys, the same for every kind of store.

A key that works in one store works in the other, so that a backup can be moved between them.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from datetime import datetime, timedelta

from include.services.errors import UsageError

# S3 takes 1,024 bytes with the store's prefix; file systems take 255 bytes a name, of which the
# names of temporary files and lock files need a part.
MAX_KEY_BYTES = 900
MAX_NAME_BYTES = 200

_NOT_XML = "\ufffe\uffff"  # S3 answers in XML, which has no place for these
_OWN_NAME = re.compile(r"\..+\.(?:partial-[0-9a-f]+|lock\.json)", re.DOTALL)
_PARTIAL_NAME = re.compile(r"\..+\.partial-[0-9a-f]+", re.DOTALL)


def checked_key(key: str) -> str:
    """Return the key when every store can hold it.

    Raises:
        UsageError: the key is empty, absolute, too long, not Unicode text, contains control
            characters or ``.``/``..``/empty names, or is one of the store's own file names.
    """
    problem = key_problem(key)
    if problem:
        raise UsageError(
            f"The object key {key!r} cannot be used: {problem}.",
            "Use a relative path such as 'courier/manifest.json'.",
        )
    return key


def checked_list_prefix(prefix: str) -> str:
    """Return the prefix when a listing can be asked for it; empty means everything.

    Raises:
        UsageError: the prefix could not begin any key.
    """
    if prefix:
        checked_key(prefix.removesuffix("/"))
    return prefix


def is_own_name(name: str) -> bool:
    """Return whether a file name is reserved for the store: temporary files and lock files."""
    return _OWN_NAME.fullmatch(name) is not None


def is_partial_name(name: str) -> bool:
    """Return whether a file name is that of an unfinished object."""
    return _PARTIAL_NAME.fullmatch(name) is not None


def partial_name(name: str) -> str:
    """Return a fresh name for the unfinished object ``name``."""
    return f".{name}.partial-{secrets.token_hex(6)}"


def finished_name(partial: str) -> str:
    """Return the name that an unfinished object was to get; empty for any other file's name."""
    return partial[1:].rpartition(".partial-")[0] if is_partial_name(partial) else ""


def locked_name(lock: str) -> str:
    """Return the name of the object that a lock file is for; empty for any other file's name."""
    is_lock = is_own_name(lock) and not is_partial_name(lock)
    return lock[1:].removesuffix(".lock.json") if is_lock else ""


def checked_lock_end(until: datetime) -> datetime:
    """Return the end of a lock in whole seconds, rounded up: S3 keeps no fractions.

    Raises:
        UsageError: the moment has no timezone.
    """
    if until.tzinfo is None:
        raise UsageError("The end of a lock needs a timezone.")
    if until.microsecond:
        return until.replace(microsecond=0) + timedelta(seconds=1)
    return until


def key_problem(key: str) -> str:
    """Return why no store can hold the key; empty when every store can."""
    if not key:
        return "it is empty"
    if key.startswith("/"):
        return "it begins with a slash"
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "it is not valid Unicode text"
    if size > MAX_KEY_BYTES:
        return f"it is longer than {MAX_KEY_BYTES} bytes"
    if any(unicodedata.category(letter) == "Cc" or letter in _NOT_XML for letter in key):
        return "it contains a control character"
    for name in key.split("/"):
        if name in {"", ".", ".."}:
            return f"it contains the name {name!r}"
        if len(name.encode()) > MAX_NAME_BYTES:
            return f"a name in it is longer than {MAX_NAME_BYTES} bytes"
        if is_own_name(name):
            return f"the store keeps names like {name!r} for itself"
    return ""
