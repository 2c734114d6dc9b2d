"""PostgreSQL: one address for libpq, psycopg and PostgreSQL's own programs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from include.services.connections import ConnectionSpec
from include.services.errors import ServiceError, UsageError

CONNECT_TIMEOUT = "15"  # seconds
# SQLSTATE classes of a server that is up and cannot do this: no resources, limits, locks.
SERVER_ANSWERED = ("53", "54", "55", "57014", "58")
LIBPQ_EXTRAS = {
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslcrl",
    "host",
    "options",
    "target_session_attrs",
    "connect_timeout",
    "channel_binding",
    "gssencmode",
    "keepalives_idle",
}

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
    """The server cannot be reached or went away."""


@dataclass(frozen=True)
class DatabaseAddress:
    """Where a database is and who we are there.

    Attributes:
        parameters: libpq keywords without the password.
        password: never part of ``repr`` nor of a command line.
    """

    parameters: Mapping[str, str]
    password: str = field(default="", repr=False)

    @classmethod
    def from_connection(cls, spec: ConnectionSpec) -> DatabaseAddress:
        """Read an Airflow connection of type postgres.

        A server that is not on this machine is verified over TLS unless the connection's extra
        says otherwise (``sslmode``).

        Raises:
            UsageError: the connection is of another type or names no database.
        """
        if spec.conn_type != "postgres":
            raise UsageError(
                f"Connection {spec.conn_id} is of type {spec.conn_type}, not postgres.",
                "ParcelSeal works on PostgreSQL databases.",
            )
        given = {
            "host": spec.host,
            "port": str(spec.port or ""),
            "user": spec.login,
            "dbname": spec.schema,
            **{key: str(value) for key, value in spec.extra.items() if key in LIBPQ_EXTRAS},
        }
        return cls.from_parameters(given, spec.password)

    @classmethod
    def from_conninfo(cls, conninfo: str) -> DatabaseAddress:
        """Read a libpq connection string or ``postgresql://`` URI.

        Raises:
            UsageError: libpq cannot read it; the text is not repeated, it may hold a password.
        """
        try:
            given = {key: str(value) for key, value in conninfo_to_dict(conninfo).items()}
        except psycopg.ProgrammingError:
            raise UsageError(
                "The database address cannot be read.",
                "Write postgresql://user:password@host:port/database or host=... dbname=...",
            ) from None
        return cls.from_parameters(given, given.pop("password", ""))

    @classmethod
    def from_parameters(cls, given: Mapping[str, str], password: str) -> DatabaseAddress:
        """Complete libpq keywords with a timeout, an encoding, and verified TLS where it is due."""
        parameters = {key: value for key, value in given.items() if value}
        host = parameters.get("host") or parameters.get("hostaddr", "")
        parameters.setdefault("connect_timeout", CONNECT_TIMEOUT)
        parameters.setdefault("application_name", "parcelseal")
        # One encoding for dumps, names and digests, whatever the database's own is.
        parameters.setdefault("client_encoding", "UTF8")
        if not _on_this_machine(host) and "sslmode" not in parameters:
            parameters["sslmode"] = "verify-full"
            parameters.setdefault("sslrootcert", "system")
        return cls(parameters, password)

    @property
    def name(self) -> str:
        """The database's name on its server."""
        return self.parameters.get("dbname", "")

    @property
    def place(self) -> str:
        """Say for people where it is, without user or password."""
        host = self.parameters.get("host", "local socket")
        port = self.parameters.get("port", "5432")
        return f"{self.name} on {host}" + ("" if host.startswith("/") else f":{port}")

    def conninfo(self) -> str:
        """Return a libpq connection string, password included."""
        return make_conninfo(
            "", **{**self.parameters, **({"password": self.password} if self.password else {})}
        )

    def public_conninfo(self) -> str:
        """Return a libpq connection string without the password, fit for a command line."""
        return make_conninfo("", **self.parameters)

    def environment(self) -> dict[str, str]:
        """Return the environment for PostgreSQL's programs: ours, plus the password.

        Moments are printed in UTC, or the same rows would have another digest on a server that
        stands in another timezone.
        """
        clean = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("PG") and key != "LC_ALL"
        }
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
            UsageError: user, password or database name is wrong.
            DatabaseUnavailable: the server does not answer.
        """
        try:
            return psycopg.connect(self.conninfo(), autocommit=autocommit)
        except psycopg.OperationalError as error:
            raise self.explain(error) from None

    def explain(self, error: psycopg.OperationalError) -> ServiceError | UsageError:
        """Turn a failed connection into one line with what to do."""
        text = " ".join(str(error).split())
        if any(
            sign in text
            for sign in (
                "authentication failed",
                "no password supplied",
                "does not exist",
                "pg_hba",
                "permission denied",
            )
        ):
            reason = text.split("FATAL:")[-1].strip()
            return UsageError(
                f"The server refused the connection to {self.place}: {reason}.",
                "Check user, password and database name of the connection.",
            )
        return DatabaseUnavailable(
            f"No connection to {self.place}: {text.split('failed:')[-1].strip()}.",
            "Check that the server runs and can be reached from here.",
        )


@contextmanager
def connected(address: DatabaseAddress) -> Iterator[psycopg.Connection]:
    """Open a connection and close it at the end.

    Raises:
        UsageError: user, password or database name is wrong.
        ServiceError: the server cannot be reached, goes away or cannot do what it is asked.
    """
    with address.connect() as connection:
        try:
            yield connection
        except psycopg.OperationalError as error:
            raise lost(address, error) from None


def lost(address: DatabaseAddress, error: psycopg.OperationalError) -> ServiceError:
    """Say in one line that the server went away, or what it cannot do."""
    # The whole text may quote a row in its DETAIL; a lost connection has only the text.
    text = " ".join((error.diag.message_primary or str(error)).split()).rstrip(".")
    if (error.sqlstate or "").startswith(SERVER_ANSWERED):
        return ServiceError(
            f"The server of {address.place} cannot go on: {text}.", "The server's log tells more."
        )
    return DatabaseUnavailable(
        f"The connection to {address.place} was lost: {text}.",
        "Nothing was recorded as done. The run is repeated when the server is back.",
    )


def _on_this_machine(host: str) -> bool:
    return all(
        not one or one.startswith(("/", "@")) or one == "localhost" or _is_loopback(one)
        for one in host.split(",")  # libpq tries each of several hosts
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
