"""Airflow's connections as plain data, read without Airflow.

The command line works on the worst day, when there may be no Airflow: it reads what Airflow reads,
the file of its ``LocalFilesystemBackend`` where one is set, and the ``AIRFLOW_CONN_*`` values, in
both forms of a connection (URI and JSON).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from include.services.errors import UsageError

ENVIRONMENT_PREFIX = "AIRFLOW_CONN_"
# Airflow's own settings of a secrets backend: its components', and its workers'
BACKENDS = ("AIRFLOW__WORKERS__SECRETS_BACKEND", "AIRFLOW__SECRETS__BACKEND")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+._-]*")
FILE_BACKEND = "airflow.secrets.local_filesystem.LocalFilesystemBackend"


@dataclass(frozen=True)
class ConnectionSpec:
    """A connection, with Airflow's field names.

    ``password`` and ``extra`` may hold secrets and are left out of ``repr``.
    """

    conn_id: str
    conn_type: str
    host: str = ""
    port: int | None = None
    login: str = ""
    password: str = field(default="", repr=False)
    schema: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def text(self, key: str, default: str = "") -> str:
        """Return one extra as text; JSON's true and false as ``true`` and ``false``."""
        value = self.extra.get(key)
        if isinstance(value, bool):
            return str(value).lower()
        return default if value is None or value == "" else str(value)

    @property
    def verify(self) -> bool | str:
        """Extra ``verify``: whether to check a server's certificate, or the authority's file."""
        value = self.text("verify", "true")
        return value.lower() == "true" if value.lower() in {"true", "false"} else value


# For commands on which a person waits: they show each attempt, and retry the whole step.
_SHORT_TIMEOUTS: Mapping[str, Mapping[str, int]] = {
    "postgres": {"connect_timeout": 5},
    "aws": {"connect_timeout": 5, "max_attempts": 3},
    "s3": {"connect_timeout": 5, "max_attempts": 3},
}


def with_short_timeouts(
    lookup: Callable[[str], ConnectionSpec | None],
) -> Callable[[str], ConnectionSpec | None]:
    """Return a lookup that adds short timeouts to connections without timeouts of their own.

    Args:
        lookup: finds a configured connection.
    """

    def shortened(conn_id: str) -> ConnectionSpec | None:
        spec = lookup(conn_id)
        if spec is None or spec.conn_type not in _SHORT_TIMEOUTS:
            return spec
        return replace(spec, extra={**_SHORT_TIMEOUTS[spec.conn_type], **spec.extra})

    return shortened


def configured(conn_id: str, environment: Mapping[str, str]) -> ConnectionSpec | None:
    """Return a connection as Airflow would find it without its database: file, then environment.

    Raises:
        UsageError: a file or a value cannot be read.
    """
    return from_file(conn_id, environment) or from_environment(conn_id, environment)


def from_file(conn_id: str, environment: Mapping[str, str]) -> ConnectionSpec | None:
    """Return the connection that Airflow's file of connections has, None when it has none.

    The file is JSON: an object of connections by id, each a URI or an object.

    Raises:
        UsageError: the settings, the file or the connection cannot be read; never shows a value.
    """
    for setting in BACKENDS:
        if environment.get(setting) == FILE_BACKEND:
            words = environment.get(f"{setting}_KWARGS") or "{}"
            value = _in_file(_file_of(setting, words), conn_id)
            if value is not None:
                return parse(conn_id, value)
    return None


def _file_of(setting: str, words: str) -> Path:
    try:
        return Path(json.loads(words)["connections_file_path"])
    except (ValueError, TypeError, KeyError):
        raise UsageError(
            f"{setting}_KWARGS names no file of connections.",
            'Write {"connections_file_path": "/run/secrets/connections.json"}.',
        ) from None


def _in_file(path: Path, conn_id: str) -> str | None:
    if path.suffix != ".json":
        raise UsageError(
            f"The file of connections {path} is not JSON.", "Name a file that ends in .json."
        )
    try:
        moment = path.stat().st_mtime_ns
        return _connections(path, moment).get(conn_id)
    except OSError as error:
        raise UsageError(
            f"The file of connections {path} cannot be read: {error.strerror}."
        ) from None


@cache
def _connections(path: Path, moment: int) -> dict[str, str]:
    """Return the connections of a file as texts; read again when the file has another moment."""
    del moment
    try:
        connections = json.loads(path.read_bytes())
        return {
            str(name): value if isinstance(value, str) else json.dumps(value)
            for name, value in connections.items()
        }
    except (ValueError, AttributeError):
        raise UsageError(
            f"The file of connections {path} is no JSON object of connections by id."
        ) from None


def from_environment(conn_id: str, environment: Mapping[str, str]) -> ConnectionSpec | None:
    """Return the connection that an environment names, None when it names none.

    Raises:
        UsageError: the value is neither a URI nor JSON, or empty: a secret that was lost on its way
            must not be taken for "not configured". The value itself is never shown.
    """
    variable = ENVIRONMENT_PREFIX + conn_id.upper()
    value = environment.get(variable)
    if value is None:
        return None
    if not value.strip():
        raise UsageError(
            f"{variable} is set and empty.", "Give it its value, or unset it for the local profile."
        )
    return parse(conn_id, value)


def parse(conn_id: str, value: str) -> ConnectionSpec:
    """Read a connection from Airflow's URI or JSON form."""
    try:
        return (
            _from_json(conn_id, value)
            if value.lstrip().startswith("{")
            else _from_uri(conn_id, value)
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        # The message must not repeat the value: it holds a password.
        raise UsageError(
            f"Connection {conn_id} ({ENVIRONMENT_PREFIX}{conn_id.upper()}, or in the file of "
            "connections) cannot be read.",
            "Write it as Airflow does: postgresql://user:password@host:port/database, or as JSON.",
        ) from None


def _from_json(conn_id: str, value: str) -> ConnectionSpec:
    fields = json.loads(value)
    extra = fields.get("extra") or fields.get("extra_dejson") or {}  # the second: in files only
    if isinstance(extra, str):
        extra = json.loads(extra)
    return ConnectionSpec(
        conn_id=conn_id,
        conn_type=_type(fields["conn_type"]),
        host=fields.get("host") or "",
        port=int(fields["port"]) if fields.get("port") else None,
        login=fields.get("login") or "",
        password=fields.get("password") or "",
        schema=fields.get("schema") or "",
        extra=dict(extra),
    )


_OF_PATHS = {"fs", "file", "directory"}  # without user and password; a path may have an @


def refuse_unescaped(address: str, subject: str, *, first_at: bool = False) -> None:
    """Refuse a URI whose unescaped password would be read as a host or database in part.

    ``/``, ``?`` and ``#`` end the part of a URI that has the password. Errors and logs would show
    the rest of the password. A name of a database, a path or an account has no bare ``@``.

    Args:
        address: a URI; other texts pass.
        subject: of the message; the address itself is never repeated.
        first_at: whether the host begins behind the first ``@``, as for libpq, not the last.

    Raises:
        UsageError: there is an ``@`` behind the host.
    """
    _scheme, sign, rest = address.partition("://")
    if not sign or not _SCHEME.fullmatch(_scheme) or _scheme in _OF_PATHS:
        return
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    behind = rest[len(authority) :]
    path, _question, query = behind.partition("?")
    # A query may hold a mail address, but nothing behind it that looks like a host's path.
    in_query = "@" not in authority and re.search(r"@[^&]*/", query)
    if "@" in path or "#" in behind or in_query or (first_at and authority.count("@") > 1):
        raise UsageError(
            f"{subject} has a character in its user or password that must be escaped.",
            "Write / as %2F, ? as %3F, # as %23, @ as %40 and % as %25.",
        )


def _from_uri(conn_id: str, value: str) -> ConnectionSpec:
    refuse_unescaped(value, f"Connection {conn_id}")
    parts = urlsplit(value)
    if not parts.scheme:
        raise ValueError("no scheme")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    extra = dict(json.loads(query["__extra__"])) if "__extra__" in query else query
    return ConnectionSpec(
        conn_id=conn_id,
        conn_type=_type(parts.scheme),
        host=_host(parts),
        port=parts.port,
        login=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        schema=unquote(parts.path.removeprefix("/")),
        extra=extra,
    )


def _host(parts: SplitResult) -> str:
    # `hostname` is in lower case, which a socket's folder (%2Frun%2FPostgreSQL) must not be.
    host = parts.netloc.rpartition("@")[2]
    if host.startswith("["):
        return parts.hostname or ""
    return unquote(host.partition(":")[0])


def _type(name: str) -> str:
    plain = name.lower().replace("-", "_").split("+")[0]
    return "postgres" if plain in {"postgresql", "pgsql"} else plain
