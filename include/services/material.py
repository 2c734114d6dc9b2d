"""What extras of a connection hold: lists, JSON, and key material as PEM text or in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from include.services.connections import ConnectionSpec
from include.services.errors import UsageError

LONGEST_NAME = 100  # characters of a key file's name that a message shows


def material(conn_id: str, given: str, home: Path) -> bytes:
    """Return key material that is given as PEM text or as the name of a file.

    Args:
        conn_id: of the connection that names it.
        given: the text or the name.
        home: folder below which a name lies that is no absolute path.

    Raises:
        UsageError: it is neither; what may be a key is not repeated.
    """
    if "-----BEGIN" in given:
        return given.replace("\\n", "\n").encode()
    named = Path(given).expanduser()
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
    """Return an extra that is a list of names or objects, also where it is one or is JSON text.

    Raises:
        UsageError: it is none.
    """
    given = spec.extra.get(key) or []
    if isinstance(given, str):
        given = json_of(spec, key, given) if given.lstrip().startswith("[") else [given]
    if not isinstance(given, list) or not all(isinstance(one, str | Mapping) for one in given):
        raise UsageError(
            f"`{key}` in the extra of the connection {spec.conn_id} is no list of names or objects."
        )
    return list(given)


def json_of(spec: ConnectionSpec, key: str, text: str) -> Any:
    """Return what the JSON text of an extra says; the text is never repeated.

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
    """Name a file, but not what may be a key whose first line was lost: base64 has no dot."""
    return f" ({path})" if "." in path.name and len(path.name) <= LONGEST_NAME else ""
