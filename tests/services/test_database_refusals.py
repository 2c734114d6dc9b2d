"""Test that a refused connection is distinguished from an unreachable server."""

from __future__ import annotations

import pytest

from include.local.postgres import EmbeddedPostgres
from include.services.database import DatabaseAddress, DatabaseMissing, DatabaseUnavailable
from include.services.errors import UsageError
from tests.support.refusing_server import RefusingServer


def test_connect_raises_database_missing_if_database_does_not_exist(postgres: EmbeddedPostgres):
    """If the role is missing, the error is different, because the database may exist."""
    with pytest.raises(DatabaseMissing, match='database "no_such" does not exist'):
        DatabaseAddress.from_conninfo(postgres.conninfo("no_such")).connect()
    with pytest.raises(UsageError, match="refused the connection") as error:
        DatabaseAddress.from_conninfo(postgres.conninfo("postgres", "no_such", "x")).connect()
    assert not isinstance(error.value, DatabaseMissing)


def test_connect_error_is_marked_as_answered_by_server_if_server_lacks_required_tls():
    """The server can be reached; the connection fails only because the address requires TLS."""
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
def test_connect_error_is_marked_as_answered_by_server_if_refusal_has_unknown_reason(
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


def test_connect_error_is_not_marked_as_answered_if_server_is_still_starting():
    """The server refuses every login until it has started."""
    with (
        RefusingServer("FATAL", "57P03", "the database system is starting up") as server,
        pytest.raises(DatabaseUnavailable, match="starting up") as error,
    ):
        DatabaseAddress.from_conninfo(server.conninfo).connect()
    assert not error.value.answered
