"""Describe how to connect to a PostgreSQL database with psycopg and PostgreSQL's own programs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
from psycopg.abc import QueryNoTemplate
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from include.services.connection_secrets import private_file
from include.services.connections import ConnectionSpec, refuse_unescaped
from include.services.errors import ServiceError, UsageError
from include.services.transport import Transport, is_local_database, of_database

_SERVICE_FILES = ("PGSERVICEFILE", "PGSYSCONFDIR")
CONNECT_TIMEOUT = "15"  # seconds
# SQLSTATE classes and codes with which a running server refuses a statement: resources, limits,
# object state, cancelled statements, system errors.
SERVER_ANSWERED = ("53", "54", "55", "57014", "58")
LIBPQ_EXTRAS = {
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcertmode",
    "sslcrl",
    "sslcrldir",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "host",
    "hostaddr",
    "service",
    "options",
    "target_session_attrs",
    "connect_timeout",
    "require_auth",
    "requirepeer",
    "channel_binding",
    "gssencmode",
    "krbsrvname",
    "load_balance_hosts",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
}
_REFUSALS = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "pg_hba",
    "permission denied",
)
# libpq puts a colon and two blanks between the server's severity and its message.
_SERVER_MESSAGE = re.compile(r": [^:\"]+:  \S")
_TLS_FAILURE = re.compile(r"failed: [^\"]*(?:certificate|SSL (?!SYSCALL))")
_HINT = " Is the server running"  # libpq appends this question to the reason
_FILE_MISSING = "58P01"  # SQLSTATE
_LETS_NOBODY_IN = "FATAL: the database system is "
# pg_locks shows the bigint key of an advisory lock as two halves, with objsubid 1 (PostgreSQL 18).
ADVISORY_LOCKS = """
SELECT (classid::bigint << 32 | objid::bigint) AS key, mode FROM pg_locks
WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid() AND objsubid = 1
"""
SECRETS = {"sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"}
"""libpq keywords, beside the password, that no command line may contain: every user of the machine
reads those. libpq has no variables of the environment for them."""
SERVICE = "parcelseal"  # name of the service in the file that has them

LOGIN_PREFIX = "parcelseal_use_"
"""Start of the names of transient logins and of their schemas (`include.disclosure.logins`). The
schemas contain copies of keys for a few days, and are no part of the company's data."""

PRINTING: Mapping[str, str] = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "row_security": "off",  # a query fails if a policy would hide rows
}
"""Settings of every session that identifies records by their keys, as PostgreSQL prints the keys.

The session that erases a record and the session that searches for it must print the same text.
"""


class DatabaseUnavailable(ServiceError):
    """The error for a database server that cannot be reached, or for a lost connection.

    Attributes:
        answered: True if the server answered the connection attempt and refused it, for example
            because of a limit or of its TLS settings. The server may accept another connection.
            Also True if the message of the server is not in English, so that the reason is unknown.
    """

    answered = False


# Errors for a text that cannot be converted to UTF-8, the encoding of every ParcelSeal session.
UNREADABLE = (psycopg.errors.CharacterNotInRepertoire, psycopg.errors.UntranslatableCharacter)


class DatabaseMissing(UsageError):
    """The error for a server that has no database with the requested name."""


@dataclass(frozen=True)
class DatabaseAddress:
    """The address of a database and the login with which ParcelSeal connects to it.

    Attributes:
        parameters: libpq keywords, except the password and other secrets.
        password: password; it never appears in ``repr`` or on a command line.
        secrets: libpq keywords with other secrets. They never appear in ``repr`` or on a command
            line.
    """

    parameters: Mapping[str, str]
    password: str = field(default="", repr=False)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_connection(cls, spec: ConnectionSpec) -> DatabaseAddress:
        """Return the address that an Airflow connection of type postgres describes.

        If the server is on another machine, its certificate is verified over TLS, except if the
        extra of the connection sets a weaker ``sslmode``.

        Raises:
            UsageError: the connection is of another type, or its database name contains an ``@``.
                If a password is not escaped, Airflow reads the end of the password as part of the
                database name. Therefore, a name with an ``@`` probably contains a piece of the
                password.
        """
        if spec.conn_type != "postgres":
            raise UsageError(
                f"Connection {spec.conn_id} is of type {spec.conn_type}, not postgres.",
                "ParcelSeal works on PostgreSQL databases.",
            )
        if "@" in spec.schema and ("/" in spec.schema or not spec.login):
            raise UsageError(
                f"Connection {spec.conn_id} has an @ in its database name, which is probably "
                "part of its password.",
                "Write / as %2F and @ as %40 in the password of its URI.",
            )
        keywords = {
            "host": spec.host,
            "port": str(spec.port or ""),
            "user": spec.login,
            "dbname": spec.schema,
            **{key: str(value) for key, value in spec.extra.items() if key in LIBPQ_EXTRAS},
        }
        return cls.from_parameters(keywords, spec.password)

    @classmethod
    def from_conninfo(cls, conninfo: str) -> DatabaseAddress:
        """Return the address that a libpq connection string or a ``postgresql://`` URI describes.

        If the text contains no password, the environment variable ``PGPASSWORD`` supplies it, as in
        libpq. With this variable, users need not write a password on the command line.

        Raises:
            UsageError: the text is empty or invalid, or a special character in its user or password
                is not escaped. The message never contains the text.
        """
        if not conninfo.strip():
            raise UsageError(
                "The database address is empty.",
                "Write postgresql://user:password@host:port/database or host=... dbname=...",
            )
        refuse_unescaped(conninfo, "The database address", first_at=True)
        try:
            keywords = {key: str(value) for key, value in conninfo_to_dict(conninfo).items()}
        except psycopg.ProgrammingError:
            raise UsageError(
                "The database address cannot be read.",
                "Write postgresql://user:password@host:port/database or host=... dbname=...",
            ) from None
        password = keywords.pop("password", "") or os.environ.get("PGPASSWORD", "")
        return cls.from_parameters(keywords, password)

    @classmethod
    def from_parameters(cls, keywords: Mapping[str, str], password: str) -> DatabaseAddress:
        """Return the address for libpq keywords, and set defaults for timeout, encoding and TLS.

        If the server is on another machine, the default is TLS with verification of the server.

        Args:
            keywords: libpq keywords and their values, without the password.
            password: password; empty if the server needs none.

        Raises:
            UsageError: the keywords contain secrets, and also name a section of a libpq service
                file. ParcelSeal passes secrets to PostgreSQL's programs in a service file of its
                own, and libpq can read only one service file.
        """
        secrets = {key: value for key, value in keywords.items() if value and key in SECRETS}
        parameters = {key: value for key, value in keywords.items() if value and key not in SECRETS}
        if secrets and "service" in parameters:
            raise UsageError(
                f"A database address has a service and {', '.join(sorted(secrets))}.",
                "Write the whole address without the service.",
            )
        parameters.setdefault("connect_timeout", CONNECT_TIMEOUT)
        parameters.setdefault("application_name", "parcelseal")
        # One encoding for the dumps, names and digests of all databases.
        parameters.setdefault("client_encoding", "UTF8")
        if not is_local_database(parameters) and "sslmode" not in parameters:
            parameters["sslmode"] = "verify-full"
            if "service" not in parameters:  # a service may name another authority
                parameters.setdefault("sslrootcert", "system")
        return cls(parameters, password, secrets)

    @property
    def transport(self) -> Transport:
        """Return the protection of the network route to the server."""
        return of_database(self.parameters)

    @property
    def name(self) -> str:
        """Return the name of the database on its server."""
        return self.parameters.get("dbname", "")

    @property
    def display_name(self) -> str:
        """Return the database name and the server as display text, without user and password."""
        at = self.parameters
        host = at.get("host") or at.get("hostaddr") or at.get("service", "local socket")
        port = at.get("port", "5432")
        return f"{self.name} on {host}" + ("" if host.startswith("/") else f":{port}")

    def conninfo(self) -> str:
        """Return a libpq connection string that contains the password and all other secrets."""
        password = {"password": self.password} if self.password else {}
        # If both are empty, libpq ignores PGHOST and PGHOSTADDR, which may name another server.
        here = {} if "service" in self.parameters else {"host": "", "hostaddr": ""}
        return make_conninfo("", **{**here, **self.parameters, **password, **self.secrets})

    def public_conninfo(self) -> str:
        """Return a libpq connection string without secrets. It may appear on a command line."""
        return make_conninfo("", **self.parameters)

    def environment(self) -> dict[str, str]:
        """Return the environment variables with which PostgreSQL's programs are started.

        The result contains the password, and those variables of this process that do not change the
        connection. Other secrets are written to a service file that only the user of this process
        can read, and the result names this file.

        With these variables, the programs print timestamps in UTC. Otherwise, the same rows would
        have different digests on servers with different timezones.
        """
        kept = _SERVICE_FILES if "service" in self.parameters else ()
        clean = {
            key: value
            for key, value in os.environ.items()
            if key in kept or (not key.startswith("PG") and key != "LC_ALL")
        }
        if self.secrets:
            clean |= {"PGSERVICEFILE": private_file(_service(self.secrets)), "PGSERVICE": SERVICE}
        return {
            **clean,
            "PGPASSWORD": self.password,
            "PGTZ": "UTC",
            "LC_MESSAGES": "C",
            "LANGUAGE": "C",
        }

    def with_database(self, name: str) -> DatabaseAddress:
        """Return the address of another database on the same server, with the same login."""
        return replace(self, parameters={**self.parameters, "dbname": name})

    def connect(self, *, autocommit: bool = False) -> psycopg.Connection:
        """Open a connection to the database.

        Raises:
            DatabaseMissing: the server has no database with this name.
            UsageError: the user, password or database name is wrong.
            DatabaseUnavailable: the server does not answer, or refuses the connection for another
                reason.
        """
        try:
            return psycopg.connect(self.conninfo(), autocommit=autocommit)
        except psycopg.OperationalError as error:
            raise self.explain(error) from None

    def explain(self, error: psycopg.OperationalError) -> ServiceError | UsageError:
        """Return the error for a failed connection attempt, with a one-line message and an action.

        The cause can only be recognised from the text of the error, because libpq reports no
        SQLSTATE for a failed connection attempt. If the server refused the connection in another
        language than English, the result is a `DatabaseUnavailable` whose `answered` is True.

        Args:
            error: error that psycopg raised for the attempt.
        """
        text = " ".join(str(error).split())
        if is_refusal(text):
            is_missing = re.search(r'FATAL: database ".*" does not exist', text)
            kind = DatabaseMissing if is_missing and text.count("FATAL:") == 1 else UsageError
            reason = text.split("FATAL:")[-1].strip()
            return kind(
                f"The server refused the connection to {self.display_name}: {reason}.",
                "Check user, password and database name of the connection.",
            )
        reason = text.split("failed:")[-1].partition(_HINT)[0].strip().rstrip(".")
        message = f"No connection to {self.display_name}: {reason}."
        has_answer = _SERVER_MESSAGE.search(str(error)) or _TLS_FAILURE.search(text)
        if has_answer and _LETS_NOBODY_IN not in text:
            answered = DatabaseUnavailable(
                message,
                "The server answered. Check user, password and database name of the connection, "
                "its TLS, and the limits of the server.",
            )
            answered.answered = True
            return answered
        return DatabaseUnavailable(
            message, "Check that the server runs and can be reached from here."
        )


def is_refusal(text: str) -> bool:
    """Return whether an error text of libpq means that a server answered and refused the login."""
    return any(sign in text for sign in _REFUSALS)


def scalar(
    connection: psycopg.Connection[Any], query: QueryNoTemplate, parameters: Any = None
) -> Any:
    """Return the first column of the first row of a query, or None if the query returns no row.

    Args:
        connection: connection to the database.
        query: SQL query.
        parameters: values for the placeholders in the query; None if it has none.
    """
    row = connection.execute(query, parameters).fetchone()
    return None if row is None else row[0]


@contextmanager
def connected(address: DatabaseAddress) -> Iterator[psycopg.Connection]:
    """Open a connection for the duration of the ``with`` block, and close it afterwards.

    Raises:
        UsageError: the user, password or database name is wrong.
        ServiceError: the server cannot be reached, the connection is lost, or the server cannot
            execute a statement.
    """
    with address.connect() as connection:
        try:
            yield connection
        except psycopg.OperationalError as error:
            raise lost(address, error) from None


def unreadable_text(error: BaseException) -> UsageError | None:
    """Return the error for a text in the database that cannot be read as UTF-8.

    Return None if the given error has another cause. The result is a UsageError, because a retry
    would read the same text. Its message does not contain the server's message, which quotes bytes
    of the unreadable text.

    Args:
        error: error of psycopg, or SQLAlchemy's error that wraps it.
    """
    if not isinstance(getattr(error, "orig", error), UNREADABLE):
        return None
    return UsageError(
        "The database has a text that cannot be read as UTF-8: its encoding is SQL_ASCII, or a "
        "value has bytes that are invalid in its encoding.",
        "Correct the value, or remove the column from the rules. Backups, drills and restores "
        "still work, since they copy bytes. A database with encoding UTF8 accepts no such text.",
    )


def lost(address: DatabaseAddress, error: psycopg.OperationalError) -> ServiceError | UsageError:
    """Return the error for a statement that failed because the connection or the server failed.

    Args:
        address: address of the database.
        error: error that psycopg raised for the statement.
    """
    # The whole text may quote a row in its DETAIL; a lost connection has only the text.
    text = " ".join((error.diag.message_primary or str(error)).split()).rstrip(".")
    if error.sqlstate == _FILE_MISSING:
        return lacks_library(address, text)
    if (error.sqlstate or "").startswith(SERVER_ANSWERED):
        return ServiceError(
            f"The server of {address.display_name} cannot continue: {text}.",
            "The log of the server has the details.",
        )
    return DatabaseUnavailable(
        f"The connection to {address.display_name} was lost: {text}.",
        "Nothing was recorded as done. The run is repeated when the server is back.",
    )


def lacks_library(address: DatabaseAddress, text: str) -> UsageError:
    """Return the error for a server that lacks a file of an extension, such as its library.

    Args:
        address: address of the database that uses the extension.
        text: error message of the server.
    """
    return UsageError(
        f"The server of {address.display_name} lacks a file of an extension: {text}.",
        "Install the extension's package on that server, in the version that the database uses.",
    )


def _service(secrets: Mapping[str, str]) -> bytes:
    """Return the content of a libpq service file that contains the given secrets.

    Args:
        secrets: libpq keywords and their secret values.

    Raises:
        UsageError: libpq would read another value, because a value has a line break, ends in
            spaces, or is longer than about 900 bytes.
    """
    for name, value in secrets.items():
        if value != value.rstrip() or "\n" in value or len(f"{name}={value}".encode()) > 1000:
            raise UsageError(
                f"{name} of a database address cannot be handed to PostgreSQL's programs.",
                "It may have no line breaks and no blanks at its end, and up to 900 bytes.",
            )
    lines = [f"{name}={value}" for name, value in secrets.items()]
    return "\n".join([f"[{SERVICE}]", *lines, ""]).encode()
