"""How a refused connection is told from a server that cannot be reached."""

from __future__ import annotations

import pytest

from include.local.postgres import EmbeddedPostgres
from include.services.database import DatabaseAddress, DatabaseMissing, DatabaseUnavailable
from include.services.errors import UsageError
from tests.support.refusing_server import RefusingServer


def test_connect_says_that_a_database_is_missing(postgres: EmbeddedPostgres):
    """A missing role is another error: it says nothing about the database."""
    with pytest.raises(DatabaseMissing, match='database "no_such" does not exist'):
        DatabaseAddress.from_conninfo(postgres.conninfo("no_such")).connect()
    with pytest.raises(UsageError, match="refused the connection") as error:
        DatabaseAddress.from_conninfo(postgres.conninfo("postgres", "no_such", "x")).connect()
    assert not isinstance(error.value, DatabaseMissing)


def test_connect_counts_a_server_without_tls_as_one_that_answered():
    """It is reachable; only the address requires TLS."""
    with RefusingServer("FATAL", "28000", "not reached") as server:
        required = DatabaseAddress.from_conninfo(f"{server.conninfo} sslmode=require")
        with pytest.raises(DatabaseUnavailable, match="SSL was required") as error:
            required.connect()
    assert error.value.answered


@pytest.mark.parametrize(
    ("severity", "state", "message"),
    [
        ("致命错误", "3D000", '数据库 "courier" 不存在'),
        ("FATAL", "53300", "sorry, too many clients already"),
    ],
)
def test_connect_tells_a_refusal_that_it_cannot_read_from_an_unreachable_server(
    severity: str, state: str, message: str
):
    """A failed connection has no SQLSTATE, only a text in the language of the server."""
    with (
        RefusingServer(severity, state, message) as server,
        pytest.raises(DatabaseUnavailable, match=message) as error,
    ):
        DatabaseAddress.from_conninfo(server.conninfo).connect()
    assert error.value.answered
    assert "user, password and database name" in error.value.action


def test_connect_counts_a_server_that_starts_as_unreachable():
    """It lets nobody in yet, whatever the login."""
    with (
        RefusingServer("FATAL", "57P03", "the database system is starting up") as server,
        pytest.raises(DatabaseUnavailable, match="starting up") as error,
    ):
        DatabaseAddress.from_conninfo(server.conninfo).connect()
    assert not error.value.answered
