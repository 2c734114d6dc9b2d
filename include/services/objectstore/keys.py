"""Check the keys of objects, and name temporary files and lock files.

The same keys are valid in S3 buckets and in directories. Therefore, a backup can be moved from a
bucket to a directory, or from a directory to a bucket.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from datetime import datetime, timedelta

from include.services.errors import UsageError

# S3 accepts 1,024 bytes, including the prefix of the store. File systems accept 255 bytes for a
# name; names of temporary files and lock files are longer than those of their objects.
MAX_KEY_BYTES = 900
MAX_NAME_BYTES = 200

_NOT_XML = "\ufffe\uffff"  # XML, the format of S3's responses, does not allow these
_OWN_NAME = re.compile(r"\..+\.(?:partial-[0-9a-f]+|lock\.json)", re.DOTALL)
_PARTIAL_NAME = re.compile(r"\..+\.partial-[0-9a-f]+", re.DOTALL)


def checked_key(key: str) -> str:
    """Return the key unchanged if it is valid.

    Raises:
        UsageError: the key is empty, absolute, too long or not Unicode text. Also raised if it
            contains control characters, ``.``, ``..``, an empty name or a name that is reserved for
            temporary files and lock files.
    """
    problem = key_problem(key)
    if problem:
        raise UsageError(
            f"The object key {key!r} cannot be used: {problem}.",
            "Use a relative path such as 'courier/manifest.json'.",
        )
    return key


def checked_list_prefix(prefix: str) -> str:
    """Return the prefix unchanged if a valid key can begin with it.

    All keys begin with an empty prefix.

    Raises:
        UsageError: no valid key can begin with the prefix.
    """
    if prefix:
        checked_key(prefix.removesuffix("/"))
    return prefix


def is_own_name(name: str) -> bool:
    """Return whether a directory store reserves a file name for temporary files and lock files."""
    return _OWN_NAME.fullmatch(name) is not None


def is_partial_name(name: str) -> bool:
    """Return whether a file name is that of a temporary file."""
    return _PARTIAL_NAME.fullmatch(name) is not None


def partial_name(name: str) -> str:
    """Return a new random name for the temporary file of an object."""
    return f".{name}.partial-{secrets.token_hex(6)}"


def finished_name(partial: str) -> str:
    """Return the name of the object's file to which a temporary file will be renamed.

    Args:
        partial: name of the temporary file. For the name of any other file, the result is empty.
    """
    return partial[1:].rpartition(".partial-")[0] if is_partial_name(partial) else ""


def locked_name(lock: str) -> str:
    """Return the name of the object's file to which a lock file belongs.

    Args:
        lock: name of the lock file. For the name of any other file, the result is empty.
    """
    is_lock = is_own_name(lock) and not is_partial_name(lock)
    return lock[1:].removesuffix(".lock.json") if is_lock else ""


def checked_lock_end(until: datetime) -> datetime:
    """Return the end of a lock, rounded up to a whole second, because S3 stores whole seconds.

    Raises:
        UsageError: the time has no timezone.
    """
    if until.tzinfo is None:
        raise UsageError("The end of a lock needs a timezone.")
    if until.microsecond:
        return until.replace(microsecond=0) + timedelta(seconds=1)
    return until


def key_problem(key: str) -> str:
    """Return the reason why a key is not valid, or an empty text if it is valid."""
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
