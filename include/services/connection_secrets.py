"""Read lists and secret keys from the extra of a connection, and write secrets to private files.

A private file can only be read by the user of this process, and is deleted when the process ends.
It is stored in ``/dev/shm``, a file system in memory, if this process can write there. If the
process is killed, the files in ``/dev/shm`` remain until the machine is restarted.
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
    """Write the given bytes to a private file with mode 0600, and return its path.

    If the same bytes were written before, the path of the existing file is returned.
    """
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
    """Create the folder for the private files of a process, and delete it when the process ends.

    A child process that is forked later does not delete the folder when the child ends.

    Args:
        process: id of the current process. The result is cached for each id, so a forked child gets
            a folder of its own.
    """
    parent = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-", dir=parent))
    atexit.register(_remove, folder, process)
    stopping.before_forced_exit(partial(_remove, folder, process))
    return folder


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


LONGEST_NAME = 100  # characters of a key file's name that a message shows


def read_key_material(conn_id: str, value: str, home: Path) -> bytes:
    """Return a cryptographic key that a connection contains or names, as bytes.

    Args:
        conn_id: id of the connection, for the error message.
        value: the key itself as PEM text, or the name of the file that contains it.
        home: folder to which relative file names refer.

    Raises:
        UsageError: the value is neither PEM text nor the name of a readable file. The message never
            contains a value that may be a key.
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


def list_from_extra(spec: ConnectionSpec, key: str) -> Sequence[Any]:
    """Return the value of a key in a connection's extra as a list of names or objects.

    The value in the extra may be a list, a single name, or a list as JSON text. If the key is
    missing, the result is an empty list.

    Args:
        spec: connection.
        key: key of the extra.

    Raises:
        UsageError: the value is not a list of names or objects.
    """
    value = spec.extra.get(key) or []
    if isinstance(value, str):
        value = json_from_extra(spec, key, value) if value.lstrip().startswith("[") else [value]
    if not isinstance(value, list) or not all(isinstance(item, str | Mapping) for item in value):
        raise UsageError(
            f"`{key}` in the extra of the connection {spec.conn_id} is not a list of names or "
            "objects."
        )
    return list(value)


def json_from_extra(spec: ConnectionSpec, key: str, text: str) -> Any:
    """Parse a JSON text from a connection's extra.

    Args:
        spec: connection, for the error message.
        key: key of the extra, for the error message.
        text: JSON text.

    Raises:
        UsageError: the text is not valid JSON. The message never contains the text.
    """
    try:
        return json.loads(text)
    except ValueError:
        raise UsageError(
            f"`{key}` in the extra of the connection {spec.conn_id} begins like JSON but is not "
            "valid JSON."
        ) from None


def _shown(path: Path) -> str:
    """Return a file name in brackets for a message; empty if the name could be a secret key.

    A user may have entered a key where a file name is expected. A key in Base64 has no dot.
    Therefore, only a name with a dot is returned.
    """
    return f" ({path})" if "." in path.name and len(path.name) <= LONGEST_NAME else ""
