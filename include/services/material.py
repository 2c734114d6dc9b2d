"""Read the extras of a connection, such as lists and keys, and keep secrets in private files.

Only this user can read private files, and they are removed when the process ends. They are in
memory where the system has a file system there: a restart removes what a killed process leaves.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from include.services import stopping
from include.services.connections import ConnectionSpec
from include.services.errors import UsageError

_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of mode 0700 is made there


def private_file(content: bytes) -> str:
    """Return the path of a file of mode 0600 with that content; the same for the same content."""
    path = _folder(os.getpid()) / sha256(content).hexdigest()
    if not path.exists():
        unfinished = path.with_suffix(".new")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        unfinished.replace(path)
    return str(path)


@cache
def _folder(process: int) -> Path:
    """Make the folder of a process, which a process that is forked from it leaves alone."""
    parent = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-", dir=parent))
    atexit.register(_remove, folder, process)
    stopping.at_sudden_exit(partial(_remove, folder, process))
    return folder


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


LONGEST_NAME = 100  # characters of a key file's name that a message shows


def material(conn_id: str, value: str, home: Path) -> bytes:
    """Return key material from PEM text or from the file of a name.

    Args:
        conn_id: of the connection that names it.
        value: the text or the name.
        home: folder of names that are no absolute paths.

    Raises:
        UsageError: it is neither; what may be a key is not repeated.
    """
    if "-----BEGIN" in value:
        return value.replace("\\n", "\n").encode()
    named = Path(value).expanduser()
    path = named if named.is_absolute() else home / named
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        raise UsageError(
            f"A key of the connection {conn_id} is neither PEM text nor a file that can be "
            f"read{_shown(path)}: {reason}."
        ) from None


def listed(spec: ConnectionSpec, key: str) -> Sequence[Any]:
    """Return an extra that is a list of names or objects, a single name, or JSON text of a list.

    Raises:
        UsageError: it is none.
    """
    value = spec.extra.get(key) or []
    if isinstance(value, str):
        value = json_of(spec, key, value) if value.lstrip().startswith("[") else [value]
    if not isinstance(value, list) or not all(isinstance(item, str | Mapping) for item in value):
        raise UsageError(
            f"`{key}` in the extra of the connection {spec.conn_id} is no list of names or objects."
        )
    return list(value)


def json_of(spec: ConnectionSpec, key: str, text: str) -> Any:
    """Return the value of an extra's JSON text; errors never repeat the text.

    Raises:
        UsageError: it is not JSON.
    """
    try:
        return json.loads(text)
    except ValueError:
        raise UsageError(
            f"`{key}` in the extra of the connection {spec.conn_id} is not the JSON it begins as."
        ) from None


def _shown(path: Path) -> str:
    """Return a file's name for a message, unless it may be a key: base64 has no dot."""
    return f" ({path})" if "." in path.name and len(path.name) <= LONGEST_NAME else ""
