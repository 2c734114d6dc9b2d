"""Tests that `config check --connect` prints a GRANT statement for each missing right."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg import sql

from include.cli.config_connect import lacks_retention_rights, pack_queries
from include.policy import SHIPPED
from include.registry import load_pack
from include.rights.missing import Login, MissingRight, lacks_query, lacks_reading
from include.rights.workflows import lacks_intake
from tests.e2e.conftest import Cli

PACK = load_pack(SHIPPED)
GRANTED = """
SELECT c.relname::text, a.attname::text, g.privilege_type::text
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid, aclexplode(a.attacl) g
WHERE g.grantee = %(role)s::regrole AND NOT c.relispartition
UNION ALL
SELECT c.relname::text, NULL, g.privilege_type::text FROM pg_class c, aclexplode(c.relacl) g
WHERE g.grantee = %(role)s::regrole AND c.relkind IN ('r', 'p') AND NOT c.relispartition
ORDER BY 1, 2, 3
"""
# A run reads approvers with the mapped database's own login.
OF_APPROVERS: set[tuple[str, str | None]] = {
    ("department", "department_id"),
    ("department", "name"),
    ("employee", "department_id"),
    ("employee", "leave_from"),
    ("employee", "leave_until"),
    ("employee", "left_on"),
}
# The check does not cover the expectations for the incoming table.
OF_QUALITY_SUITE: set[tuple[str, str | None]] = {("customer", None), ("notice_version", None)}
Lacks = Callable[[Login], Iterable[MissingRight]]


@pytest.fixture
def admin(cli: Cli) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(cli.postgres("courier")) as conn:
        yield conn
        conn.rollback()


def grants(conn: psycopg.Connection[Any], role: str, lacks: Lacks) -> list[str]:
    """Return the statements that grant a role its missing rights.

    Args:
        conn: connection of a superuser.
        role: the role.
        lacks: yields the missing rights of a login.
    """
    conn.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
    statements = [missing.grant for missing in lacks(Login(conn))]
    conn.execute("RESET ROLE")
    return statements


def retention(login: Login) -> Iterator[MissingRight]:
    return lacks_retention_rights(login, PACK.database("courier"), PACK.retention_of("courier"))


def intake(login: Login) -> Iterator[MissingRight]:
    (rule,) = PACK.intake
    return lacks_intake(login, PACK.database("courier"), rule)


def queries(login: Login) -> Iterator[MissingRight]:
    """Yield the rights that a role of the sample lacks for the queries of its connection."""
    services: Any = SimpleNamespace(pack=PACK)
    for query, rights in pack_queries(services):
        if query.connection.removesuffix("_db") == login.role.removeprefix("courier_"):
            yield from lacks_query(login, query.sql, rights)


@pytest.mark.parametrize(
    ("role", "lacks", "unneeded"),
    [
        ("courier_retention", retention, OF_APPROVERS),
        ("courier_audit", queries, set()),
        ("courier_training", queries, set()),
        ("courier_partners", queries, set()),
        ("courier_incident", queries, set()),
        ("courier_intake", intake, OF_QUALITY_SUITE),
    ],
)
def test_each_missing_right_is_reported_with_a_statement_that_grants_it(
    admin: psycopg.Connection[Any], role: str, lacks: Lacks, unneeded: set[tuple[str, str | None]]
) -> None:
    granted = admin.execute(GRANTED, {"role": role}).fetchall()
    assert granted
    assert grants(admin, role, lacks) == []
    unnoticed = []
    for table, column, privilege in granted:
        admin.execute("SAVEPOINT one")
        named = sql.SQL(" ({})").format(sql.Identifier(column)) if column else sql.SQL("")
        admin.execute(
            sql.SQL("REVOKE {}{} ON {} FROM {}").format(
                sql.SQL(privilege), named, sql.Identifier(table), sql.Identifier(role)
            )
        )
        statements = grants(admin, role, lacks)
        if not statements:
            unnoticed.append((table, column, privilege))
        for statement in statements:
            admin.execute(statement)
        assert grants(admin, role, lacks) == []
        admin.execute("ROLLBACK TO one")
    assert [right for right in unnoticed if right[:2] not in unneeded] == []


def test_rights_check_returns_grant_statements_for_missing_schema_select_and_ownership_rights(
    admin: psycopg.Connection[Any],
) -> None:
    admin.execute("REVOKE USAGE ON SCHEMA public FROM courier_retention, PUBLIC")
    admin.execute("REVOKE courier_owner FROM courier_retention")
    assert grants(admin, "courier_retention", retention)[0] == (
        'GRANT USAGE ON SCHEMA "public" TO "courier_retention";'
    )
    assert 'GRANT "courier_owner" TO "courier_retention" WITH INHERIT FALSE, SET TRUE;' in grants(
        admin, "courier_retention", retention
    )
    admin.execute("CREATE SCHEMA archive")
    admin.execute("CREATE TABLE archive.old (id int)")
    admin.execute("ALTER TABLE archive.old ENABLE ROW LEVEL SECURITY")
    admin.execute("SELECT lo_create(4711)")
    statements = grants(admin, "courier_reader", lacks_reading)
    assert statements == [
        'ALTER ROLE "courier_reader" BYPASSRLS;',
        'GRANT SELECT ON LARGE OBJECT 4711 TO "courier_reader";',
    ]
    for statement in statements:
        admin.execute(statement)
    assert grants(admin, "courier_reader", lacks_reading) == []
    admin.execute("REVOKE pg_read_all_data FROM courier_reader")
    assert grants(admin, "courier_reader", lacks_reading)[0] == (
        'GRANT pg_read_all_data TO "courier_reader";'
    )


def test_ownership_grant_is_reported_if_the_retention_login_does_not_own_the_partitions(
    admin: psycopg.Connection[Any],
) -> None:
    """A run deletes from each partition by its name.

    Rights on the parent table do not cover that.
    """
    rules = [each for each in PACK.retention_of("courier") if each.collection == "waybill"]
    rules = [each for each in rules if each.action != "drop_partition"]
    assert rules
    admin.execute("REVOKE courier_owner FROM courier_retention")

    def deleting(login: Login) -> Iterator[MissingRight]:
        return lacks_retention_rights(login, PACK.database("courier"), rules)

    (statement,) = grants(admin, "courier_retention", deleting)
    assert statement == 'GRANT "courier_owner" TO "courier_retention" WITH INHERIT FALSE, SET TRUE;'
    admin.execute(statement)
    assert grants(admin, "courier_retention", deleting) == []


def test_bypassrls_is_reported_as_missing_for_each_login_that_reads_a_table_with_row_security(
    admin: psycopg.Connection[Any],
) -> None:
    """ParcelSeal refuses to read tables with hidden rows: a run would fail with SQLSTATE 42501."""
    for protected in ("waybill", "intake_record", "employee"):
        name = sql.Identifier(protected)
        admin.execute(sql.SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(name))
    admin.execute("SET row_security = off")
    for role, lacks in (
        ("courier_retention", retention),
        ("courier_intake", intake),
        ("courier_training", queries),
    ):
        statements = set(grants(admin, role, lacks))
        assert statements == {f'ALTER ROLE "{role}" BYPASSRLS;'}
        admin.execute(statements.pop())
        assert grants(admin, role, lacks) == []


def test_config_check_with_option_connect_prints_grant_statements_for_missing_rights(
    cli: Cli,
) -> None:
    assert cli.json("config", "check", "--connect")["valid"] is True
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as admin:
        admin.execute("CREATE ROLE lonely LOGIN PASSWORD 'lonely'")
        admin.execute("GRANT CONNECT ON DATABASE courier TO lonely")
    dead = {"AIRFLOW_CONN_DRILL_DB": "postgresql://x@127.0.0.1:1/x?private_key=keys/drill.key"}
    lonely = {"AIRFLOW_CONN_CUSTOMER_DB": cli.uri("courier", "lonely", "lonely")}
    words = ("config", "check", "--connect")
    checked = cli.json(*words, code=2, **lonely, **dead)
    assert checked["valid"] is False
    by_connection = {problem["connection"]: problem for problem in checked["problems"]}
    assert by_connection["customer_db"]["grant"] == 'GRANT pg_read_all_data TO "lonely";'
    assert by_connection["drill_db"]["grant"] is None
    assert "Connection refused" in by_connection["drill_db"]["message"]
    assert set(by_connection["drill_db"]) == {
        "file", "line", "path", "connection", "message", "action", "grant",
    }  # fmt: skip
    printed = cli.call(*words, **lonely).stderr
    assert 'GRANT pg_read_all_data TO "lonely";' in printed
    json.dumps(checked)
