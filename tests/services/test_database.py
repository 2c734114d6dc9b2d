"""One address for libpq, psycopg and PostgreSQL's programs: TLS, secrets, errors in one line."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from include.local.postgres import EmbeddedPostgres
from include.services.connections import ConnectionSpec, parse
from include.services.database import DatabaseAddress, DatabaseUnavailable
from include.services.errors import UsageError
from include.services.programs import program
from include.workplace import ROOT

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


@pytest.mark.parametrize("variable", ["PGHOST", "PGHOSTADDR"])
def test_environment_variable_does_not_redirect_a_local_address(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, variable: str
):
    """Without TLS it would go over the network; TEST-NET-1 never answers."""
    monkeypatch.setenv(variable, "192.0.2.1")
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "1")
    one = DatabaseAddress.from_conninfo(postgres.conninfo("postgres"))
    with one.connect() as conn:
        assert conn.execute("SELECT inet_server_addr()").fetchone() == (None,)
    if variable == "PGHOST":  # no host at all is the system's socket, not the variable's host
        with pytest.raises(DatabaseUnavailable, match="local socket") as error:
            DatabaseAddress.from_conninfo("dbname=x user=x").connect()
        assert "192.0.2.1" not in str(error.value)


def test_service_of_the_environment_does_not_redirect_a_local_address(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """An address takes values that it leaves out from the service file."""
    (tmp_path / "services").write_text("[elsewhere]\nhostaddr=192.0.2.1\nconnect_timeout=1\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    monkeypatch.setenv("PGSERVICE", "elsewhere")
    with DatabaseAddress.from_conninfo(postgres.conninfo("postgres")).connect() as conn:
        assert conn.execute("SELECT inet_server_addr()").fetchone() == (None,)


def test_an_address_by_a_service_reaches_it_and_is_verified_unless_it_says_otherwise(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Nobody knows where it leads before libpq reads the file."""
    (tmp_path / "services").write_text(f"[here]\nhost={postgres.socket_folder}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    words = f"service=here dbname=postgres user=postgres password={postgres.password}"
    assert DatabaseAddress.from_conninfo(words).parameters["sslmode"] == "verify-full"
    one = DatabaseAddress.from_conninfo(f"{words} sslmode=prefer")
    with one.connect() as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    assert _asked_by_psql(one, "SELECT current_database()") == "postgres"


def _asked_by_psql(one: DatabaseAddress, query: str) -> str:
    done = subprocess.run(
        [program("psql"), "-XAtq", "-c", query, one.public_conninfo()],
        check=True, capture_output=True, text=True, env=one.environment(),
    )  # fmt: skip
    return done.stdout.strip()


def test_a_password_of_the_environment_serves_programs_too(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
):
    """`restore --into` needs none on its command line."""
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    words = f"host={postgres.socket_folder} dbname=postgres user=postgres"
    one = DatabaseAddress.from_conninfo(words)
    assert _asked_by_psql(one, "SELECT current_user") == "postgres"
    assert DatabaseAddress.from_conninfo(f"{words} password=other").password == "other"


def test_no_secret_is_on_a_command_line(postgres: EmbeddedPostgres):
    """Programs read the others from a file that only this user can read; they connect by it."""
    one = DatabaseAddress.from_conninfo(
        f"{postgres.conninfo('postgres')} sslpassword='pass phrase'"
    )
    for shown in (repr(one), one.public_conninfo(), one.place, json.dumps(dict(one.parameters))):
        assert "phrase" not in shown
    assert psycopg.conninfo.conninfo_to_dict(one.conninfo())["sslpassword"] == "pass phrase"
    file = Path(one.environment()["PGSERVICEFILE"])
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert "sslpassword=pass phrase\n" in file.read_text()
    assert _asked_by_psql(one.with_database("postgres"), "SELECT 1") == "1"
    assert one.environment()["PGSERVICEFILE"] == str(file)


def test_the_file_with_a_secret_is_gone_with_its_process(tmp_path: Path):
    """Also a process that was forked from it leaves it alone."""
    code = (
        "import os\n"
        "from include.services.material import private_file\n"
        "path = private_file(b'secret')\n"
        "if os.fork() == 0:\n"
        "    raise SystemExit(0)\n"
        "os.wait()\n"
        "assert os.path.exists(path)\n"
        "print(path)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    path = Path(done.stdout.strip())
    assert path.is_absolute()
    assert not path.parent.exists()


@pytest.mark.parametrize("secret", ["ends with a blank ", "a\nb", "x" * 1000])
def test_a_secret_that_programs_would_read_otherwise_is_refused(secret: str):
    """The error does not quote the secret."""
    one = DatabaseAddress.from_parameters({"host": "localhost", "sslpassword": secret}, "")
    with pytest.raises(UsageError, match="sslpassword of a database address") as error:
        one.environment()
    assert secret.strip() not in str(error.value)


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://u:12/s3cr3t@h/d",
        "postgresql://u:12?s3cr3t@h/d",
        "postgresql://u:12#s3cr3t@h/d",
        "postgresql://u:p@s3cr3t@h/d",
        "postgresql://u:12/s3cr3t%40x@h/d",
        "postgresql://u/s3cr3t@h/d",
    ],
)
def test_a_part_of_a_password_is_never_taken_for_a_host_or_database(uri: str):
    """Errors name the host and the database, so the part would be in a log."""
    with pytest.raises(UsageError, match="must be escaped") as error:
        DatabaseAddress.from_conninfo(uri)
    assert "s3cr3t" not in str(error.value)
    if "p@s3cr3t" not in uri:  # Airflow reads the host behind the last @
        with pytest.raises(UsageError, match="Connection x has a character") as error:
            parse("x", uri)
        assert "s3cr3t" not in str(error.value)


@pytest.mark.parametrize(
    ("login", "schema"), [("", "s3cr3t@h/d"), ("u", "s3cr3t@h/d"), ("", "s3cr3t@h")]
)
def test_a_part_of_a_password_that_airflow_took_for_a_database_is_refused(login: str, schema: str):
    """In a task, Airflow parses URIs itself; errors name the database."""
    spec = ConnectionSpec("x", "postgres", "u", 12, login, "", schema)
    with pytest.raises(UsageError, match="Connection x names a database with @") as error:
        DatabaseAddress.from_connection(spec)
    assert "s3cr3t" not in str(error.value)
    named = ConnectionSpec("x", "postgres", "h", 5432, "u", "p", "mail@shop")
    assert DatabaseAddress.from_connection(named).name == "mail@shop"


def test_escaped_and_unsuspicious_addresses_pass():
    """Mail addresses in queries, paths of sockets, passwords with a bare @ where that is clear."""
    one = DatabaseAddress.from_conninfo("postgresql://u:a%2Fb%40c%23d%3F@h:5432/d")
    assert (one.password, one.place) == ("a/b@c#d?", "d on h:5432")
    assert parse("x", "postgres://u:p@ss@h/d").password == "p@ss"
    mail = parse("x", "smtp://h:25?from_email=a@b.example&verify=/etc/ca.pem")
    assert mail.text("from_email") == "a@b.example"
    assert parse("x", "postgres://u:p@/d?host=/run/postgresql").extra["host"] == "/run/postgresql"


def test_a_required_method_of_authentication_is_kept():
    """Left out, a server in the middle could ask for the password in plain text."""
    found = address("h", require_auth="scram-sha-256", channel_binding="require").parameters
    assert (found["require_auth"], found["channel_binding"]) == ("scram-sha-256", "require")


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
    for conninfo in (
        "host=127.0.0.1 port=9 dbname=x",
        "host=/nowhere dbname=x",
        "host='/nowhere SSL certificate' dbname=x",
        "host=127.0.0.1,/nowhere port=9 dbname=x",
    ):
        with pytest.raises(DatabaseUnavailable, match="No connection to x on") as error:
            DatabaseAddress.from_conninfo(conninfo).connect()
        assert "\n" not in str(error.value)
        assert not error.value.answered


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
