"""Tests of counting patterns in unusual tables that PostgreSQL allows."""

from __future__ import annotations

import psycopg
import pytest

from include.local.postgres import EmbeddedPostgres
from include.schema.live import read_schema
from include.schema.patterns import GROUP, TableCounts, count_patterns
from tests.schema.support import scratch
from tests.schema.test_patterns import count_table


@pytest.mark.parametrize(
    "name",
    ["100%", "%s", "%(given)s", "v", "n", 'quo"te', "two words", "Groß", "line\nbreak", "{}"],
)
def test_count_patterns_returns_correct_counts_if_column_name_has_special_characters(
    postgres: EmbeddedPostgres, name: str
) -> None:
    """The names are placeholders of the driver, aliases of the SQL, and names that need quotes."""
    quoted = '"' + name.replace('"', '""') + '"'
    script = f"""CREATE TABLE t ({quoted} text, "doc%" jsonb);
    INSERT INTO t SELECT 'a@b.example', '{{"mail%s": "a@b.example", "mail": "a@b.example"}}'
    FROM generate_series(1, 5);"""
    with scratch(postgres, script) as connection:
        counts = count_table(connection)
    assert counts.columns[name].share("email") == 1.0
    assert counts.keys["doc%"]["mail"].share("email") == 1.0
    assert not counts.refused
    assert not counts.unread


def test_count_patterns_counts_supported_column_types_and_skips_other_types(
    postgres: EmbeddedPostgres,
) -> None:
    """Texts in several collations, arrays, enums, domains and network types are counted."""
    script = """CREATE TYPE mood AS ENUM ('glad', 'sad');
    CREATE DOMAIN mail AS text COLLATE "POSIX";
    CREATE TYPE pair AS (a text, b int);
    CREATE TABLE t (c text COLLATE "C", p text COLLATE "POSIX", d text, feeling mood, m mail,
        host inet, net cidr, period tsrange, whole int4range, several tsmultirange, pair pair,
        many text[], grid int[][], place point, bytes bytea, flag bool, mac macaddr,
        x xml, i interval,
        fixed char(20), at timestamptz, doubled text GENERATED ALWAYS AS (c || c) STORED);
    INSERT INTO t (c, p, d, feeling, m, host, net, fixed, at, many)
    SELECT 'a@b.example', 'x@y.example', 'Jürgen Müller', 'glad', 'a@b.example', '10.0.0.1',
        '2001:db8::/128', 'a@b.example', 'infinity', '{a@b.example}' FROM generate_series(1, 5);"""
    with scratch(postgres, script) as connection:
        counts = count_table(connection)
    assert not counts.refused
    assert not counts.unread
    shares = {
        name: column.share("email", "ip", "latin_name") for name, column in counts.columns.items()
    }
    assert shares == {
        "c": 1.0, "p": 1.0, "d": 1.0, "feeling": 0.0, "m": 1.0, "host": 1.0, "net": 1.0,
        "fixed": 1.0, "at": 0.0, "doubled": 0.0, "many": 1.0,
    }  # fmt: skip


def test_other_columns_are_counted_if_a_column_cannot_be_read(
    postgres: EmbeddedPostgres,
) -> None:
    """A virtual column divides by zero, and a JSON column has a value that jsonb refuses."""
    others = ", ".join(f"c{number} text" for number in range(GROUP + 4))
    script = f"""CREATE TABLE t (mail text, zero int, {others}, j json,
        part text GENERATED ALWAYS AS ((1 / zero)::text) VIRTUAL);
    INSERT INTO t (mail, zero, j) SELECT 'a@b.example', 0, '{{"a": "\\u0000"}}' FROM
    generate_series(1, 5);"""
    with scratch(postgres, script) as connection:
        counts = count_table(connection)
    assert counts.columns["mail"].share("email") == 1.0
    # All texts, the number, and the column j, which is only counted.
    assert len(counts.columns) == GROUP + 7
    assert counts.unread == {"part": "22012", "j": "22P05"}
    assert not counts.refused


def test_other_columns_are_counted_if_select_privilege_on_a_column_is_missing(
    postgres: EmbeddedPostgres,
) -> None:
    """If the first statement can read none of its columns, no further columns are tried."""
    columns = ", ".join(f"c{number} text" for number in range(3 * GROUP))
    script = f"""CREATE TABLE t (mail text, secret text); CREATE TABLE closed ({columns});
    INSERT INTO t VALUES ('a@b.example', 'x');
    DROP ROLE IF EXISTS reader_of_one; CREATE ROLE reader_of_one;
    GRANT SELECT (mail) ON t TO reader_of_one"""
    with scratch(postgres, script) as connection:
        connection.execute("SET ROLE reader_of_one")
        partly, closed = count_table(connection), count_table(connection, "closed")
        connection.execute("RESET ROLE")
        connection.execute("DROP OWNED BY reader_of_one; DROP ROLE reader_of_one")
        connection.commit()
    assert partly.columns["mail"].share("email") == 1.0
    assert (partly.unread, partly.refused) == ({"secret": "42501"}, "")
    assert closed.refused == "42501"
    assert len(closed.unread) == GROUP


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("CREATE MATERIALIZED VIEW t AS SELECT 'x'::text AS v WITH NO DATA", "55000"),
        (
            "CREATE FOREIGN DATA WRAPPER gone; CREATE SERVER away FOREIGN DATA WRAPPER gone;"
            "CREATE FOREIGN TABLE t (v text) SERVER away",
            "55000",
        ),
        ("CREATE TABLE t (v text) PARTITION BY LIST (v)", ""),
        ("CREATE TABLE t ()", ""),
        ("CREATE TABLE t (v text[])", ""),
    ],
)
def test_connection_stays_usable_after_table_that_cannot_be_read(
    postgres: EmbeddedPostgres, script: str, code: str
) -> None:
    with scratch(postgres, script) as connection:
        assert count_table(connection).refused == code
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_locked_table_is_reported_as_unreadable_after_timeout(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the lock is released, the next attempt succeeds."""
    monkeypatch.setattr("include.schema.patterns.LOCK_TIMEOUT", "100ms")
    with scratch(postgres, "CREATE TABLE t (v text)") as connection:
        tables = read_schema(connection).tables
        connection.rollback()
        with psycopg.connect(connection.info.dsn, password=connection.info.password) as other:
            other.execute("LOCK TABLE t")
            refused: TableCounts = count_patterns(connection, tables["public", "t"])
            other.rollback()
        assert refused.refused == "55P03"
        assert count_patterns(connection, tables["public", "t"]).refused == ""


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_CN"])
def test_count_patterns_returns_correct_counts_in_databases_without_utf8_encoding(
    postgres: EmbeddedPostgres, encoding: str
) -> None:
    """In these encodings, a statement cannot contain Chinese characters."""
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        name = f"schema_{encoding.lower()}"
        admin.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' "
            "LOCALE_PROVIDER libc LOCALE 'C'"
        )
        try:
            conninfo = psycopg.conninfo.make_conninfo(
                postgres.conninfo(name), client_encoding="UTF8"
            )
            with psycopg.connect(conninfo) as connection:
                connection.execute("CREATE TABLE t (mail text, place text)")
                connection.execute("INSERT INTO t VALUES ('a@b.example', '12 Main Street')")
                counts = count_table(connection)
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert not counts.refused
    assert counts.columns["mail"].share("email") == 1.0
    assert counts.columns["place"].share("address") == 1.0
