"""Test the address of a database: TLS, secrets and short error messages."""

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
from include.service_container import ROOT
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
def test_tls_certificate_of_database_on_another_host_is_verified_by_default(host: str):
    """The certificate and the name are verified with the system's certificate authorities."""
    parameters = address(host).parameters
    assert (parameters["sslmode"], parameters["sslrootcert"]) == ("verify-full", "system")


def test_explicit_sslmode_is_used_and_local_hosts_need_no_tls():
    """Local hosts are sockets and loopback addresses."""
    assert address("db.example", sslmode="require").parameters["sslmode"] == "require"
    with_file = address("db.example", sslrootcert="/etc/ca.pem").parameters
    assert (with_file["sslmode"], with_file["sslrootcert"]) == ("verify-full", "/etc/ca.pem")
    for host in ("", "/run/postgresql", "@abstract", "localhost", "127.0.0.1", "127.9.9.9", "::1"):
        assert "sslmode" not in address(host).parameters


def test_tls_is_required_if_one_of_several_hosts_is_remote():
    """The libpq library tries the hosts one after the other. It uses ``hostaddr`` like a host."""
    assert address("localhost,db.example").parameters["sslmode"] == "verify-full"
    assert "sslmode" not in address("localhost,/tmp").parameters
    database_address = DatabaseAddress.from_conninfo("hostaddr=10.0.0.5 dbname=x")
    assert database_address.parameters["sslmode"] == "verify-full"


def test_database_password_is_in_environment_and_conninfo_but_not_in_repr_or_display_name():
    """The password is neither in the repr, nor in the description, nor on a command line."""
    database_address = address("db.example")
    for shown in (
        repr(database_address),
        database_address.public_conninfo(),
        database_address.display_name,
        json.dumps(dict(database_address.parameters)),
    ):
        assert SECRET not in shown
        assert "s3cr3t" not in shown
    assert database_address.environment()["PGPASSWORD"] == SECRET
    assert psycopg.conninfo.conninfo_to_dict(database_address.conninfo())["password"] == SECRET
    uri = DatabaseAddress.from_conninfo("postgresql://u:s3cr3t@h/d")
    assert (uri.password, "s3cr3t" in repr(uri)) == ("s3cr3t", False)


@pytest.mark.parametrize("variable", ["PGHOST", "PGHOSTADDR"])
def test_pghost_variable_does_not_change_the_server_of_a_local_database_address(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, variable: str
):
    """Otherwise, the password would be sent to another host without TLS.

    The variable names an address of TEST-NET-1, which never answers.
    """
    monkeypatch.setenv(variable, "192.0.2.1")
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "1")
    database_address = DatabaseAddress.from_conninfo(postgres.conninfo("postgres"))
    with database_address.connect() as conn:
        assert conn.execute("SELECT inet_server_addr()").fetchone() == (None,)
    if variable == "PGHOST":  # no host at all is the system's socket, not the variable's host
        with pytest.raises(DatabaseUnavailable, match="local socket") as error:
            DatabaseAddress.from_conninfo("dbname=x user=x").connect()
        assert "192.0.2.1" not in str(error.value)


def test_pgservice_variable_does_not_change_the_server_of_a_local_database_address(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """The libpq library reads omitted keywords from the service file that the environment names."""
    (tmp_path / "services").write_text("[elsewhere]\nhostaddr=192.0.2.1\nconnect_timeout=1\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    monkeypatch.setenv("PGSERVICE", "elsewhere")
    with DatabaseAddress.from_conninfo(postgres.conninfo("postgres")).connect() as conn:
        assert conn.execute("SELECT inet_server_addr()").fetchone() == (None,)


def test_address_with_libpq_service_connects_and_its_default_sslmode_is_verify_full(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """The libpq library reads the host from the service file, which ParcelSeal does not read."""
    (tmp_path / "services").write_text(f"[here]\nhost={postgres.socket_folder}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    words = f"service=here dbname=postgres user=postgres password={postgres.password}"
    assert DatabaseAddress.from_conninfo(words).parameters["sslmode"] == "verify-full"
    database_address = DatabaseAddress.from_conninfo(f"{words} sslmode=prefer")
    with database_address.connect() as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    assert _asked_by_psql(database_address, "SELECT current_database()") == "postgres"


def _asked_by_psql(database_address: DatabaseAddress, query: str) -> str:
    done = subprocess.run(
        [program("psql"), "-XAtq", "-c", query, database_address.public_conninfo()],
        check=True, capture_output=True, text=True, env=database_address.environment(),
    )  # fmt: skip
    return done.stdout.strip()


def test_address_without_password_uses_password_of_environment(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
):
    """`restore --into` then needs no password on its command line."""
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    words = f"host={postgres.socket_folder} dbname=postgres user=postgres"
    database_address = DatabaseAddress.from_conninfo(words)
    assert _asked_by_psql(database_address, "SELECT current_user") == "postgres"
    assert DatabaseAddress.from_conninfo(f"{words} password=other").password == "other"


def test_sslpassword_is_passed_in_private_service_file_and_not_on_command_line(
    postgres: EmbeddedPostgres,
):
    """PostgreSQL's programs read other secrets from a file that only this user can read."""
    database_address = DatabaseAddress.from_conninfo(
        f"{postgres.conninfo('postgres')} sslpassword='pass phrase'"
    )
    for shown in (
        repr(database_address),
        database_address.public_conninfo(),
        database_address.display_name,
        json.dumps(dict(database_address.parameters)),
    ):
        assert "phrase" not in shown
    assert (
        psycopg.conninfo.conninfo_to_dict(database_address.conninfo())["sslpassword"]
        == "pass phrase"
    )
    file = Path(database_address.environment()["PGSERVICEFILE"])
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert "sslpassword=pass phrase\n" in file.read_text()
    assert _asked_by_psql(database_address.with_database("postgres"), "SELECT 1") == "1"
    assert database_address.environment()["PGSERVICEFILE"] == str(file)


def test_secret_file_is_deleted_when_the_process_that_created_it_ends(tmp_path: Path):
    """A forked child process must not delete the file."""
    code = (
        "import os\n"
        "from include.services.connection_secrets import private_file\n"
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
def test_secret_with_trailing_space_line_break_or_1000_characters_raises_usage_error(secret: str):
    """The error must not contain the secret."""
    database_address = DatabaseAddress.from_parameters(
        {"host": "localhost", "sslpassword": secret}, ""
    )
    with pytest.raises(UsageError, match="sslpassword of a database address") as error:
        database_address.environment()
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
def test_uri_with_unescaped_special_character_in_password_raises_usage_error(uri: str):
    """Errors name the host and the database, so the end of the password would appear in a log."""
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
def test_connection_raises_usage_error_if_airflow_parsed_end_of_password_as_database_name(
    login: str, schema: str
):
    """In a task, Airflow itself parses the URI.

    The end of the password is then the database name.
    """
    spec = ConnectionSpec("x", "postgres", "u", 12, login, "", schema)
    with pytest.raises(UsageError, match="Connection x has an @ in its database name") as error:
        DatabaseAddress.from_connection(spec)
    assert "s3cr3t" not in str(error.value)
    named = ConnectionSpec("x", "postgres", "h", 5432, "u", "p", "mail@shop")
    assert DatabaseAddress.from_connection(named).name == "mail@shop"


def test_uri_with_escaped_or_unambiguous_special_characters_is_accepted():
    """Cases: mail addresses in the query of a URI, paths of sockets, and escaped passwords."""
    database_address = DatabaseAddress.from_conninfo("postgresql://u:a%2Fb%40c%23d%3F@h:5432/d")
    assert (database_address.password, database_address.display_name) == ("a/b@c#d?", "d on h:5432")
    assert parse("x", "postgres://u:p@ss@h/d").password == "p@ss"
    mail = parse("x", "smtp://h:25?from_email=a@b.example&verify=/etc/ca.pem")
    assert mail.text("from_email") == "a@b.example"
    assert parse("x", "postgres://u:p@/d?host=/run/postgresql").extra["host"] == "/run/postgresql"


def test_required_authentication_method_is_passed_to_libpq():
    """Without this setting, an attacker on the network could request the password in plain text."""
    parameters = address("h", require_auth="scram-sha-256", channel_binding="require").parameters
    assert (parameters["require_auth"], parameters["channel_binding"]) == (
        "scram-sha-256",
        "require",
    )


def test_unknown_extras_of_connection_are_not_passed_to_libpq():
    """Some keys of the extra have a meaning only for Airflow, and libpq would refuse them."""
    parameters = address("h", sslmode="disable", cursor="dictcursor", password="x", passfile="/x")
    assert "cursor" not in parameters.parameters
    assert not {"password", "passfile"} & set(parameters.parameters)


def test_programs_get_no_pg_variables_of_the_worker(monkeypatch: pytest.MonkeyPatch):
    """PGOPTIONS or PGSSLMODE of the worker must not affect a backup. Messages are in English."""
    monkeypatch.setenv("PGSSLMODE", "disable")
    monkeypatch.setenv("PGOPTIONS", "-c search_path=evil")
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    environment = address("h").environment()
    assert {key for key in environment if key.startswith("PG")} == {"PGPASSWORD", "PGTZ"}
    assert "LC_ALL" not in environment
    assert environment["LC_MESSAGES"] == "C"


def test_error_for_invalid_database_address_does_not_contain_its_password():
    """The text of an address may contain a password."""
    with pytest.raises(UsageError, match="Connection x is of type mysql, not postgres"):
        DatabaseAddress.from_connection(ConnectionSpec("x", "mysql"))
    for text in ("postgresql://u:s3cr3t@h:notaport:x/d?bad", "password='s3cr3t"):
        with pytest.raises(UsageError, match="cannot be read") as error:
            DatabaseAddress.from_conninfo(text)
        assert "s3cr3t" not in str(error.value)
        assert error.value.__suppress_context__


@pytest.mark.parametrize("form", ["uri", "json", "socket uri"])
def test_postgres_connection_as_json_or_uri_connects(postgres: EmbeddedPostgres, form: str):
    """As in the local profile, the connection uses a socket."""
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


def test_with_database_returns_address_of_another_database_with_same_server_and_login(
    postgres: EmbeddedPostgres,
):
    """The server, the user and the password stay the same."""
    database_address = DatabaseAddress.from_conninfo(postgres.conninfo("postgres"))
    other = database_address.with_database('od"d')
    assert (other.name, other.password) == ('od"d', database_address.password)
    assert {**other.parameters, "dbname": ""} == {**database_address.parameters, "dbname": ""}


@pytest.fixture
def role(postgres: EmbeddedPostgres) -> Iterator[str]:
    name = f"r_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'right'")
        yield name
        admin.execute(f"DROP ROLE {name}")


def test_connecting_with_wrong_password_role_or_database_raises_usage_error(
    postgres: EmbeddedPostgres, role: str
):
    """The exit code is 2. The error has an action and does not contain the password."""
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


def test_connecting_without_the_connect_right_raises_usage_error(
    postgres: EmbeddedPostgres, role: str, database: str
):
    """The error states that the role lacks permission to connect."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")
    with pytest.raises(UsageError, match="permission denied"):
        DatabaseAddress.from_conninfo(postgres.conninfo(str(name), role, "right")).connect()


def test_connecting_to_unreachable_server_raises_database_unavailable():
    """The exit code is 3, and the message has a single line."""
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


def test_pg_dump_output_has_utf8_text_and_utc_timestamps(postgres: EmbeddedPostgres):
    """Otherwise, the same rows would have different digests on different servers."""
    name = f"t_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(
            f"CREATE DATABASE {name} ENCODING 'EUC_CN' "
            "LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0"
        )
        admin.execute(f"ALTER DATABASE {name} SET timezone = 'Asia/Shanghai'")
        admin.execute(f"ALTER DATABASE {name} SET datestyle = 'German'")
        database_address = DatabaseAddress.from_conninfo(postgres.conninfo(name))
        with database_address.connect() as conn:
            conn.execute('CREATE TABLE "客户" (name text, at timestamptz)')
            conn.execute("""INSERT INTO "客户" VALUES ('王', '2026-11-24 10:00+08')""")
            assert conn.execute("SELECT relname FROM pg_class WHERE relname = '客户'").fetchall()
        dumped = subprocess.run(
            [program("pg_dump"), "--data-only", f"--dbname={database_address.public_conninfo()}"],
            check=True,
            capture_output=True,
            env=database_address.environment(),
        ).stdout.decode("utf-8")
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert "王\t2026-11-24 02:00:00+00" in dumped
