"""Tests of the extensions that a role without superuser rights may create."""

from __future__ import annotations

import psycopg
import pytest

from include.local.postgres import TRUSTED, EmbeddedPostgres


@pytest.fixture
def owner_conninfo(database: str, postgres: EmbeddedPostgres) -> str:
    """The connection string of a database with the login of the owner, who is not a superuser."""
    with psycopg.connect(database, autocommit=True) as admin:
        name = admin.info.dbname
        admin.execute("DROP ROLE IF EXISTS plain_owner")
        admin.execute("CREATE ROLE plain_owner LOGIN PASSWORD 'p'")
        admin.execute(f"ALTER DATABASE {name} OWNER TO plain_owner".encode())
    return postgres.conninfo(name, "plain_owner", "p")


@pytest.mark.parametrize("name", TRUSTED)
def test_database_owner_can_create_and_comment_on_a_trusted_extension(
    owner_conninfo: str, name: str
) -> None:
    """A restore does both. The superuser still owns the functions of the extension."""
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        connection.execute(f"CREATE EXTENSION {name}".encode())
        connection.execute(f"COMMENT ON EXTENSION {name} IS 'of the dump'".encode())
        is_super = connection.execute("SELECT current_setting('is_superuser')").fetchone()
        owners = connection.execute(
            "SELECT DISTINCT pg_get_userbyid(p.proowner)::text FROM pg_proc p JOIN pg_depend d "
            "ON d.objid = p.oid AND d.refclassid = 'pg_extension'::regclass "
            "JOIN pg_extension e ON e.oid = d.refobjid WHERE e.extname = %s",
            [name],
        ).fetchall()
    assert is_super == ("off",)
    assert owners in ([], [("postgres",)])


@pytest.mark.parametrize("name", ["dblink", "file_fdw", "pageinspect", "postgres_fdw"])
def test_database_owner_cannot_create_an_extension_with_access_to_files_or_servers(
    owner_conninfo: str, name: str
) -> None:
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege),
        psycopg.connect(owner_conninfo) as connection,
    ):
        connection.execute(f"CREATE EXTENSION {name}".encode())
