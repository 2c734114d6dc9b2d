"""Read the connections that are configured for Airflow, without using Airflow.

The command line must work even if Airflow is not available, such as after a disaster. It reads the
file of Airflow's ``LocalFilesystemBackend``, if this backend is configured, and the environment
variables ``AIRFLOW_CONN_*``. A connection may be written as a URI or as JSON.
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
# Airflow's settings of the secrets backend, for workers and for all components
BACKENDS = ("AIRFLOW__WORKERS__SECRETS_BACKEND", "AIRFLOW__SECRETS__BACKEND")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+._-]*")
FILE_BACKEND = "airflow.secrets.local_filesystem.LocalFilesystemBackend"


@dataclass(frozen=True)
class ConnectionSpec:
    """An Airflow connection. Its attributes have the names that Airflow uses.

    ``repr`` omits ``password`` and ``extra``, because they may contain secrets.
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
        """Return the value of a key in the connection's extra as text.

        The JSON values true and false are returned as the texts ``true`` and ``false``.

        Args:
            key: key of the extra.
            default: text that is returned if the value is missing or empty.
        """
        value = self.extra.get(key)
        if isinstance(value, bool):
            return str(value).lower()
        return default if value is None or value == "" else str(value)

    @property
    def verify(self) -> bool | str:
        """Return how to verify the server's certificate, as the key ``verify`` of the extra says.

        True means that the certificate authorities of the system are trusted. False means that the
        certificate is not verified. A text is the name of a file with a certificate authority to
        trust.
        """
        value = self.text("verify", "true")
        return value.lower() == "true" if value.lower() in {"true", "false"} else value


# For commands for which a person waits: they show each attempt, and retry the whole step.
_SHORT_TIMEOUTS: Mapping[str, Mapping[str, int]] = {
    "postgres": {"connect_timeout": 5},
    "aws": {"connect_timeout": 5, "max_attempts": 3},
    "s3": {"connect_timeout": 5, "max_attempts": 3},
}


def with_short_timeouts(
    lookup: Callable[[str], ConnectionSpec | None],
) -> Callable[[str], ConnectionSpec | None]:
    """Return a function like `lookup`, whose connections have short timeouts.

    Timeouts that the extra of a connection already sets are kept.

    Args:
        lookup: function that returns a configured connection by its id, or None.
    """

    def shortened(conn_id: str) -> ConnectionSpec | None:
        spec = lookup(conn_id)
        if spec is None or spec.conn_type not in _SHORT_TIMEOUTS:
            return spec
        return replace(spec, extra={**_SHORT_TIMEOUTS[spec.conn_type], **spec.extra})

    return shortened


def configured(conn_id: str, environment: Mapping[str, str]) -> ConnectionSpec | None:
    """Return a connection from Airflow's file of connections or from the environment.

    If both define the connection, the file takes precedence. Return None if neither defines it.

    Args:
        conn_id: id of the connection.
        environment: environment variables, which also name the file.

    Raises:
        UsageError: the file, or the definition of the connection, cannot be read.
    """
    return from_file(conn_id, environment) or from_environment(conn_id, environment)


def from_file(conn_id: str, environment: Mapping[str, str]) -> ConnectionSpec | None:
    """Return a connection from the file of Airflow's ``LocalFilesystemBackend``.

    Return None if the backend is not configured, or if the file does not define the connection. The
    file contains a JSON object with the id of each connection as a key. The value is the connection
    as a URI or as an object.

    Args:
        conn_id: id of the connection.
        environment: environment variables, which configure the backend and name the file.

    Raises:
        UsageError: the settings, the file or the connection cannot be read. The message never
            contains a value of the file.
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
            f"{setting}_KWARGS has no connections_file_path.",
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
    """Return the connections of a file by id, each as a URI or JSON text.

    Args:
        path: path of the file.
        moment: modification time of the file. The result is cached, and the file is read again if
            its modification time has changed.
    """
    del moment
    try:
        connections = json.loads(path.read_bytes())
        return {
            str(name): value if isinstance(value, str) else json.dumps(value)
            for name, value in connections.items()
        }
    except (ValueError, AttributeError):
        raise UsageError(
            f"The file of connections {path} is not a JSON object of connections by id."
        ) from None


def from_environment(conn_id: str, environment: Mapping[str, str]) -> ConnectionSpec | None:
    """Return the connection that an environment variable defines; None if the variable is not set.

    Args:
        conn_id: id of the connection, from which the name of the variable is derived.
        environment: environment variables.

    Raises:
        UsageError: the value is neither a URI nor JSON, or it is empty. An empty value may be a
            secret that was lost, so the connection must not count as not configured. The message
            never contains the value.
    """
    variable = ENVIRONMENT_PREFIX + conn_id.upper()
    value = environment.get(variable)
    if value is None:
        return None
    if not value.strip():
        raise UsageError(
            f"{variable} is set but empty.",
            "Set the variable to a value, or unset it to use the local profile.",
        )
    return parse(conn_id, value)


def parse(conn_id: str, value: str) -> ConnectionSpec:
    """Return the connection that a URI or a JSON text in the notation of Airflow describes.

    Args:
        conn_id: id of the connection.
        value: URI or JSON text.

    Raises:
        UsageError: the value cannot be parsed. The message never contains the value.
    """
    try:
        return (
            _from_json(conn_id, value)
            if value.lstrip().startswith("{")
            else _from_uri(conn_id, value)
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        # The message must not repeat the value, which contains a password.
        raise UsageError(
            f"Connection {conn_id} ({ENVIRONMENT_PREFIX}{conn_id.upper()}, or in the file of "
            "connections) cannot be read.",
            "Write it as Airflow does: postgresql://user:password@host:port/database, or as JSON.",
        ) from None


def _from_json(conn_id: str, value: str) -> ConnectionSpec:
    fields = json.loads(value)
    extra = fields.get("extra") or fields.get("extra_dejson") or {}  # extra_dejson: only in files
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
    """Refuse a URI whose user or password contains a character that must be escaped.

    In a URI, ``/``, ``?`` and ``#`` end the section with user, password and host. If the password
    contains such a character, the rest of the password would be read as host or database. It would
    then appear in errors and logs. Such a URI is recognised because it has an ``@`` after the text
    that looks like the host.

    Args:
        address: URI. Texts that are not URIs are accepted.
        subject: subject of the error message. The message never contains the URI.
        first_at: whether the host begins after the first ``@``, as in libpq. Otherwise, it begins
            after the last ``@``.

    Raises:
        UsageError: the user or password contains an unescaped character.
    """
    _scheme, sign, rest = address.partition("://")
    if not sign or not _SCHEME.fullmatch(_scheme) or _scheme in _OF_PATHS:
        return
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    behind = rest[len(authority) :]
    path, _question, query = behind.partition("?")
    # A query may contain a mail address, but no mail address that is followed by a slash.
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
    # `hostname` would convert the folder of a socket (%2Frun%2FPostgreSQL) to lower case.
    host = parts.netloc.rpartition("@")[2]
    if host.startswith("["):
        return parts.hostname or ""
    return unquote(host.partition(":")[0])


def _type(name: str) -> str:
    plain = name.lower().replace("-", "_").split("+")[0]
    return "postgres" if plain in {"postgresql", "pgsql"} else plain
