"""PostgreSQL: one address for libpq, psycopg and PostgreSQL's own programs."""

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

from include.services.connections import ConnectionSpec, refuse_unescaped
from include.services.errors import ServiceError, UsageError
from include.services.material import private_file
from include.services.transport import Transport, is_local_database, of_database

_SERVICE_FILES = ("PGSERVICEFILE", "PGSYSCONFDIR")
CONNECT_TIMEOUT = "15"  # seconds
# SQLSTATE classes of a server that is up and cannot do this: no resources, limits, locks.
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
_HINT = " Is the server running"  # a question of libpq behind the reason
_FILE_MISSING = "58P01"  # SQLSTATE
_LETS_NOBODY_IN = "FATAL: the database system is "
# pg_locks shows the bigint key of an advisory lock as two halves, with objsubid 1 (PostgreSQL 18).
ADVISORY_LOCKS = """
SELECT (classid::bigint << 32 | objid::bigint) AS key, mode FROM pg_locks
WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid() AND objsubid = 1
"""
SECRETS = {"sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"}
"""libpq keywords, beside the password, that no command line may hold: every user of the machine
reads those. libpq has no variables of the environment for them."""
SERVICE = "parcelseal"  # name of the service in the file that has them

PRINTING: Mapping[str, str] = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "row_security": "off",  # an error where a policy would hide rows
}
"""Settings of every session that names records: keys are named as PostgreSQL prints them, so the
printing must not depend on the session, neither when they are erased nor when they are looked for.
"""


class DatabaseUnavailable(ServiceError):
    """The server cannot be reached or went away.

    Attributes:
        answered: a server answered and refused this connection. It may accept others: the reason
            is one of its limits, its TLS, or a text in another language than English.
    """

    answered = False


# A text that has no equivalent in UTF-8, in which each of our sessions reads.
UNREADABLE = (psycopg.errors.CharacterNotInRepertoire, psycopg.errors.UntranslatableCharacter)


class DatabaseMissing(UsageError):
    """The server has no database of that name."""


@dataclass(frozen=True)
class DatabaseAddress:
    """The address of a database and our login.

    Attributes:
        parameters: libpq keywords without the password and other secrets.
        password: never part of ``repr`` nor of a command line.
        secrets: other libpq keywords that are secrets, likewise.
    """

    parameters: Mapping[str, str]
    password: str = field(default="", repr=False)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_connection(cls, spec: ConnectionSpec) -> DatabaseAddress:
        """Read an Airflow connection of type postgres.

        A server that is not on this machine is verified over TLS unless the connection's extra
        says otherwise (``sslmode``).

        Raises:
            UsageError: the connection is of another type, or a part of its password was read as
                the name of a database, as Airflow does where it is not escaped.
        """
        if spec.conn_type != "postgres":
            raise UsageError(
                f"Connection {spec.conn_id} is of type {spec.conn_type}, not postgres.",
                "ParcelSeal works on PostgreSQL databases.",
            )
        if "@" in spec.schema and ("/" in spec.schema or not spec.login):
            raise UsageError(
                f"Connection {spec.conn_id} names a database with @: a part of its password, as "
                "it seems.",
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
        """Read a libpq connection string or ``postgresql://`` URI.

        As libpq does, it takes a password that is not there from ``PGPASSWORD``, so that none has
        to stand on a command line.

        Raises:
            UsageError: it is empty, libpq cannot read it, or would take a part of the password for
                something else; the text is not repeated, it may hold a password.
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
        """Complete libpq keywords with a timeout, an encoding, and verified TLS where it is due.

        Raises:
            UsageError: an address has secrets and a service, or programs cannot get a secret.
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
        # The same encoding for dumps, names and digests of all databases.
        parameters.setdefault("client_encoding", "UTF8")
        if not is_local_database(parameters) and "sslmode" not in parameters:
            parameters["sslmode"] = "verify-full"
            if "service" not in parameters:  # which may name an authority of its own
                parameters.setdefault("sslrootcert", "system")
        return cls(parameters, password, secrets)

    @property
    def transport(self) -> Transport:
        """Return how safe the way to the server is."""
        return of_database(self.parameters)

    @property
    def name(self) -> str:
        """The database's name on its server."""
        return self.parameters.get("dbname", "")

    @property
    def place(self) -> str:
        """Return its name and server for people, without user or password."""
        at = self.parameters
        host = at.get("host") or at.get("hostaddr") or at.get("service", "local socket")
        port = at.get("port", "5432")
        return f"{self.name} on {host}" + ("" if host.startswith("/") else f":{port}")

    def conninfo(self) -> str:
        """Return a libpq connection string, password and other secrets included."""
        password = {"password": self.password} if self.password else {}
        # Empty, libpq does not look for PGHOST and PGHOSTADDR, which would lead elsewhere.
        here = {} if "service" in self.parameters else {"host": "", "hostaddr": ""}
        return make_conninfo("", **{**here, **self.parameters, **password, **self.secrets})

    def public_conninfo(self) -> str:
        """Return a libpq connection string without any secret, fit for a command line."""
        return make_conninfo("", **self.parameters)

    def environment(self) -> dict[str, str]:
        """Return the environment for PostgreSQL's programs: ours, plus the password.

        Other secrets are in a service file that only this user can read.

        Moments are printed in UTC, or the same rows would have another digest on a server in
        another timezone.
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
        """Return the same server and user with another database."""
        return replace(self, parameters={**self.parameters, "dbname": name})

    def connect(self, *, autocommit: bool = False) -> psycopg.Connection:
        """Open a connection.

        Raises:
            DatabaseMissing: the server has no such database.
            UsageError: user, password or database name is wrong.
            DatabaseUnavailable: the server does not answer, or its answer cannot be read.
        """
        try:
            return psycopg.connect(self.conninfo(), autocommit=autocommit)
        except psycopg.OperationalError as error:
            raise self.explain(error) from None

    def explain(self, error: psycopg.OperationalError) -> ServiceError | UsageError:
        """Return a message of one line and an action for a failed connection.

        libpq gives no SQLSTATE of a failed connection, only the text in the server's language. A
        refusal in another language than English is a `DatabaseUnavailable` that `answered`.
        """
        text = " ".join(str(error).split())
        if is_refusal(text):
            is_missing = re.search(r'FATAL: database ".*" does not exist', text)
            kind = DatabaseMissing if is_missing and text.count("FATAL:") == 1 else UsageError
            reason = text.split("FATAL:")[-1].strip()
            return kind(
                f"The server refused the connection to {self.place}: {reason}.",
                "Check user, password and database name of the connection.",
            )
        reason = text.split("failed:")[-1].partition(_HINT)[0].strip().rstrip(".")
        message = f"No connection to {self.place}: {reason}."
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
    """Return whether a server refused a login, by libpq's text of a failed connection."""
    return any(sign in text for sign in _REFUSALS)


def scalar(
    connection: psycopg.Connection[Any], query: QueryNoTemplate, parameters: Any = None
) -> Any:
    """Return the first column of the first row of a query, or None without a row."""
    row = connection.execute(query, parameters).fetchone()
    return None if row is None else row[0]


@contextmanager
def connected(address: DatabaseAddress) -> Iterator[psycopg.Connection]:
    """Open a connection and close it at the end.

    Raises:
        UsageError: user, password or database name is wrong.
        ServiceError: the server cannot be reached, is lost or cannot do the work.
    """
    with address.connect() as connection:
        try:
            yield connection
        except psycopg.OperationalError as error:
            raise lost(address, error) from None


def unreadable_text(error: BaseException) -> UsageError | None:
    """Return the error for a text that cannot be read as UTF-8; None if this is another error.

    A retry would read the same text. The result omits the server's message, which quotes bytes.

    Args:
        error: an error of psycopg, or SQLAlchemy's error that wraps it.
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
    """Return the error for a lost connection, or for a server that cannot do the work."""
    # The whole text may quote a row in its DETAIL; a lost connection has only the text.
    text = " ".join((error.diag.message_primary or str(error)).split()).rstrip(".")
    if error.sqlstate == _FILE_MISSING:
        return lacks_library(address, text)
    if (error.sqlstate or "").startswith(SERVER_ANSWERED):
        return ServiceError(
            f"The server of {address.place} cannot go on: {text}.", "The server's log tells more."
        )
    return DatabaseUnavailable(
        f"The connection to {address.place} was lost: {text}.",
        "Nothing was recorded as done. The run is repeated when the server is back.",
    )


def lacks_library(address: DatabaseAddress, text: str) -> UsageError:
    """Return the error for a server that lacks a file of an extension.

    Args:
        address: address of the database that uses the extension.
        text: message of the server.
    """
    return UsageError(
        f"The server of {address.place} lacks a file of an extension: {text}.",
        "Install the extension's package on that server, in the version that the database uses.",
    )


def _service(secrets: Mapping[str, str]) -> bytes:
    """Return a service file for secrets.

    Raises:
        UsageError: libpq would read another value: it ends at a line's end, and blanks there go.
    """
    for name, value in secrets.items():
        if value != value.rstrip() or "\n" in value or len(f"{name}={value}".encode()) > 1000:
            raise UsageError(
                f"{name} of a database address cannot be handed to PostgreSQL's programs.",
                "It may have no line breaks and no blanks at its end, and up to 900 bytes.",
            )
    lines = [f"{name}={value}" for name, value in secrets.items()]
    return "\n".join([f"[{SERVICE}]", *lines, ""]).encode()
