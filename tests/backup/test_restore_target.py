"""Test which databases a restore refuses as its target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from include.backup.access import CLOSED
from include.backup.restore import interrupted_copy, refuse_content, refuse_live
from include.local.postgres import EmbeddedPostgres
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from tests.backup.support import run
from tests.support.refusing_server import RefusingServer


def test_live_database_is_refused_as_restore_target_under_any_address(database: str) -> None:
    """A database is identified by its server and OID, not by how its address is written."""
    live = DatabaseAddress.from_conninfo(database)
    renamed = replace(live, parameters={**live.parameters, "application_name": "other"})
    with pytest.raises(UsageError, match="is the live database"):
        refuse_live(renamed, live)


def test_other_database_of_live_server_is_accepted_as_restore_target(database: str) -> None:
    """A live database that was dropped does not stop the restore."""
    target = DatabaseAddress.from_conninfo(database)
    refuse_live(target, target.with_database("postgres"))
    refuse_live(target, target.with_database("no_such_database"))


@pytest.mark.parametrize("live", ["host=127.0.0.1 port=9 dbname=x", "host=/nowhere dbname=x"])
def test_restore_target_is_accepted_if_live_server_cannot_be_reached(
    database: str, live: str
) -> None:
    """The loss of a server is the main reason for a restore."""
    refuse_live(DatabaseAddress.from_conninfo(database), DatabaseAddress.from_conninfo(live))


@pytest.fixture
def locked_out(postgres: EmbeddedPostgres, database: str) -> Iterator[DatabaseAddress]:
    """Return the address of the test's database, with a role that may not connect to it."""
    name = str(psycopg.conninfo.conninfo_to_dict(database)["dbname"])
    role = f"out_{name}"
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'right'").format(sql.Identifier(role)))
        admin.execute(
            sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name))
        )
        yield DatabaseAddress.from_conninfo(postgres.conninfo(name, role, "right"))
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.mark.parametrize("wrong", ["password", "no password", "user", "no right to connect"])
def test_restore_target_is_refused_if_live_server_refuses_login(
    database: str, locked_out: DatabaseAddress, wrong: str
) -> None:
    """The target is the live database, but this cannot be seen with the wrong login."""
    target = DatabaseAddress.from_conninfo(database)
    live = {
        "password": replace(target, password="wr0ng"),
        "no password": replace(target, password=""),
        "user": replace(target, parameters={**target.parameters, "user": "no_such_role"}),
        "no right to connect": locked_out,
    }[wrong]
    with pytest.raises(UsageError, match="cannot be compared with the target") as refused:
        refuse_live(target, live)
    assert "Correct user, password" in refused.value.action
    assert "wr0ng" not in str(refused.value)


@pytest.mark.parametrize(
    ("severity", "state", "message"),
    [
        ("致命错误", "28P01", '用户 "reader" 的密码认证失败'),
        ("FATAL", "53300", "sorry, too many clients already"),
    ],
)
def test_restore_target_is_refused_if_error_of_live_server_is_unknown_or_not_in_english(
    database: str, severity: str, state: str, message: str
) -> None:
    """If the error is unknown or not in English, the live database may be on the same server."""
    target = DatabaseAddress.from_conninfo(database)
    with RefusingServer(severity, state, message) as server:
        live = DatabaseAddress.from_conninfo(server.conninfo)
        with pytest.raises(UsageError, match="cannot be compared with the target"):
            refuse_live(target, live)


def test_restore_target_is_accepted_if_live_server_does_not_accept_connections_yet(
    database: str,
) -> None:
    """The server of the target accepts logins, so it is another server."""
    message = "the database system is not yet accepting connections"
    with RefusingServer("FATAL", "57P03", message) as server:
        refuse_live(
            DatabaseAddress.from_conninfo(database), DatabaseAddress.from_conninfo(server.conninfo)
        )


@pytest.mark.parametrize("comment", [CLOSED, f"{CLOSED} of the shop", f"of the shop {CLOSED}"])
def test_restore_into_incomplete_copy_of_earlier_restore_is_refused_with_advice_to_drop_it(
    target: DatabaseAddress, comment: str
) -> None:
    """A killed restore left tables, and a comment that says that the database is closed."""
    run(target, f"CREATE TABLE buyer (); COMMENT ON DATABASE {target.name} IS '{comment}'")
    with pytest.raises(UsageError, match="earlier restore that did not finish") as refused:
        refuse_content(target)
    assert f'DROP DATABASE "{target.name}"' in refused.value.action
    assert "--into-existing" not in refused.value.action


def test_incomplete_copy_is_reported_to_role_that_does_not_own_database(
    target: DatabaseAddress,
) -> None:
    """A role that does not own the database cannot set its comment."""
    assert interrupted_copy(target, had_content=False, was_closed=False) is None
    run(target, "CREATE TABLE buyer ()")
    left = interrupted_copy(target, had_content=False, was_closed=False)
    assert left is not None
    assert "has 1 tables: it is the copy" in left.message
    assert f'DROP DATABASE "{target.name}"' in left.action


def test_interrupted_restore_reports_no_incomplete_copy_if_it_had_opened_the_copy_again(
    target: DatabaseAddress,
) -> None:
    run(target, "CREATE TABLE buyer ()")
    assert interrupted_copy(target, had_content=False, was_closed=True) is None


def test_error_for_target_database_with_own_tables_does_not_advise_to_drop_it(
    target: DatabaseAddress,
) -> None:
    """The database has no comment of a restore. So the tables may belong to an application."""
    run(target, f"CREATE TABLE buyer (); COMMENT ON DATABASE {target.name} IS 'of the shop'")
    with pytest.raises(UsageError, match="is not empty: it has 1 tables") as refused:
        refuse_content(target)
    assert "DROP" not in refused.value.action
