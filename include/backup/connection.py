"""Connections whose loss is one clear line, wherever in the work it happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from include.services.database import DatabaseAddress, DatabaseUnavailable
from include.services.errors import ServiceError

# SQLSTATE classes of a server that is up and cannot do this: no resources, limits, locks.
SERVER_ANSWERED = ("53", "54", "55", "57014", "58")


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
