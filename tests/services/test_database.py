"""One address for libpq, psycopg and PostgreSQL's programs: TLS, secrets, errors in one line."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator

import psycopg
import pytest

from include.local.postgres import EmbeddedPostgres
from include.services.connections import ConnectionSpec, parse
from include.services.database import DatabaseAddress, DatabaseUnavailable
from include.services.errors import UsageError
from include.services.programs import program

SECRET = "s3cr3t ' pass\\ wört"


def address(host: str, **extra: object) -> DatabaseAddress:
    return DatabaseAddress.from_connection(
        ConnectionSpec("x", "postgres", host, 5432, "u", SECRET, "courier", extra)
    )


@pytest.mark.parametrize("host", ["db.example", "10.0.0.5", "127.0.0.1.example", "127.example"])
def test_other_machines_are_verified(host: str):
    """Certificate and name, against the system's authorities."""
    found = address(host).parameters
    assert (found["sslmode"], found["sslrootcert"]) == ("verify-full", "system")


def test_tls_as_said_and_none_on_this_machine():
    """An explicit sslmode counts; sockets and loopback need none."""
    assert address("db.example", sslmode="require").parameters["sslmode"] == "require"
    with_file = address("db.example", sslrootcert="/etc/ca.pem").parameters
    assert (with_file["sslmode"], with_file["sslrootcert"]) == ("verify-full", "/etc/ca.pem")
    for host in ("", "/run/postgresql", "@abstract", "localhost", "127.0.0.1", "127.9.9.9", "::1"):
        assert "sslmode" not in address(host).parameters


def test_every_host_counts_and_an_address_without_a_name_too():
    """Several hosts are tried one by one; hostaddr alone is a host as well."""
    assert address("localhost,db.example").parameters["sslmode"] == "verify-full"
    assert "sslmode" not in address("localhost,/tmp").parameters
    given = DatabaseAddress.from_conninfo("hostaddr=10.0.0.5 dbname=x")
    assert given.parameters["sslmode"] == "verify-full"


def test_the_password_is_only_where_it_must_be():
    """Not in repr, not on a command line, not in the place; in the environment and conninfo."""
    one = address("db.example")
    for shown in (repr(one), one.public_conninfo(), one.place, json.dumps(dict(one.parameters))):
        assert SECRET not in shown
        assert "s3cr3t" not in shown
    assert one.environment()["PGPASSWORD"] == SECRET
    assert psycopg.conninfo.conninfo_to_dict(one.conninfo())["password"] == SECRET
    uri = DatabaseAddress.from_conninfo("postgresql://u:s3cr3t@h/d")
    assert (uri.password, "s3cr3t" in repr(uri)) == ("s3cr3t", False)


def test_only_known_extras_reach_libpq():
    """Airflow's own extras are no libpq keywords."""
    found = address("h", sslmode="disable", cursor="dictcursor", password="x", passfile="/x")
    assert "cursor" not in found.parameters
    assert not {"password", "passfile"} & set(found.parameters)


def test_no_pg_variable_of_ours_reaches_the_programs(monkeypatch: pytest.MonkeyPatch):
    """PGOPTIONS or PGSSLMODE of the worker must not change a backup; messages are in English."""
    monkeypatch.setenv("PGSSLMODE", "disable")
    monkeypatch.setenv("PGOPTIONS", "-c search_path=evil")
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    found = address("h").environment()
    assert {key for key in found if key.startswith("PG")} == {"PGPASSWORD", "PGTZ"}
    assert "LC_ALL" not in found
    assert found["LC_MESSAGES"] == "C"


def test_other_types_and_unreadable_addresses_are_refused_without_repeating_them():
    """One line; the text may hold a password."""
    with pytest.raises(UsageError, match="Connection x is of type mysql, not postgres"):
        DatabaseAddress.from_connection(ConnectionSpec("x", "mysql"))
    for text in ("postgresql://u:s3cr3t@h:notaport:x/d?bad", "password='s3cr3t"):
        with pytest.raises(UsageError, match="cannot be read") as error:
            DatabaseAddress.from_conninfo(text)
        assert "s3cr3t" not in str(error.value)
        assert error.value.__suppress_context__


@pytest.mark.parametrize("form", ["uri", "json", "socket uri"])
def test_a_connection_of_either_form_connects(postgres: EmbeddedPostgres, form: str):
    """Through a socket, as the local profile does."""
    host, password = str(postgres.socket_folder), postgres.password
    if form == "json":
        text = json.dumps(
            {"conn_type": "postgres", "host": host, "login": "postgres", "password": password,
             "schema": "postgres"}
        )  # fmt: skip
    elif form == "uri":
        text = f"postgres://postgres:{password}@/postgres?host={host}"
    else:
        text = f"postgres://postgres:{password}@{host.replace('/', '%2F')}/postgres"
    with DatabaseAddress.from_connection(parse("x", text)).connect() as conn:
        assert conn.execute("SELECT current_user").fetchone() == ("postgres",)


def test_with_database_changes_only_the_database(postgres: EmbeddedPostgres):
    """Same server, same user, same password."""
    one = DatabaseAddress.from_conninfo(postgres.conninfo("postgres"))
    other = one.with_database('od"d')
    assert (other.name, other.password) == ('od"d', one.password)
    assert {**other.parameters, "dbname": ""} == {**one.parameters, "dbname": ""}


@pytest.fixture
def role(postgres: EmbeddedPostgres) -> Iterator[str]:
    name = f"r_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'right'")
        yield name
        admin.execute(f"DROP ROLE {name}")


def test_wrong_password_role_and_database_are_wrong_configuration(
    postgres: EmbeddedPostgres, role: str
):
    """Exit code 2 with what to check, and no password in the line."""
    right = DatabaseAddress.from_conninfo(postgres.conninfo("postgres", role, "right"))
    with right.connect():
        pass
    for wrong in (
        postgres.conninfo("postgres", role, "wr0ng"),
        postgres.conninfo("postgres", "nobody_of_that_name", "wr0ng"),
        postgres.conninfo("postgres", role, ""),
        postgres.conninfo("no_such_database", role, "right"),
    ):
        with pytest.raises(UsageError, match="refused the connection") as error:
            DatabaseAddress.from_conninfo(wrong).connect()
        assert "wr0ng" not in str(error.value)
        assert "\n" not in str(error.value)


def test_a_database_that_lets_nobody_in_is_wrong_configuration(
    postgres: EmbeddedPostgres, role: str, database: str
):
    """Missing CONNECT is said as such."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")
    with pytest.raises(UsageError, match="permission denied"):
        DatabaseAddress.from_conninfo(postgres.conninfo(str(name), role, "right")).connect()


def test_a_server_that_does_not_answer_is_unavailable():
    """Exit code 3, one line."""
    for conninfo in ("host=127.0.0.1 port=9 dbname=x", "host=/nowhere dbname=x"):
        with pytest.raises(DatabaseUnavailable, match="No connection to x on") as error:
            DatabaseAddress.from_conninfo(conninfo).connect()
        assert "\n" not in str(error.value)


def test_dumps_are_in_utf8_and_utc_whatever_the_database_says(postgres: EmbeddedPostgres):
    """Or the same rows would have other digests on another server."""
    name = f"t_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(
            f"CREATE DATABASE {name} ENCODING 'EUC_CN' "
            "LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0"
        )
        admin.execute(f"ALTER DATABASE {name} SET timezone = 'Asia/Shanghai'")
        admin.execute(f"ALTER DATABASE {name} SET datestyle = 'German'")
        one = DatabaseAddress.from_conninfo(postgres.conninfo(name))
        with one.connect() as conn:
            conn.execute('CREATE TABLE "客户" (name text, at timestamptz)')
            conn.execute("""INSERT INTO "客户" VALUES ('王', '2026-11-24 10:00+08')""")
            assert conn.execute("SELECT relname FROM pg_class WHERE relname = '客户'").fetchall()
        dumped = subprocess.run(
            [program("pg_dump"), "--data-only", f"--dbname={one.public_conninfo()}"],
            check=True,
            capture_output=True,
            env=one.environment(),
        ).stdout.decode("utf-8")
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert "王\t2026-11-24 02:00:00+00" in dumped
