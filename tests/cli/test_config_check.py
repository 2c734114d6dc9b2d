"""`config check` reports supported PostgreSQL versions, and workflows that lack a right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from include.cli import config
from include.cli.config_connect import pack_queries, query_logins, transient_logins
from include.policy import SHIPPED
from include.registry import load_pack, workflows
from include.rights.missing import Login, lacks_reading
from include.services.database import DatabaseAddress
from include.services.programs import CLIENT_VARIABLE
from tests.policy.packs import write_pack

Checking = Callable[[str], tuple[int, dict[str, object]]]


@pytest.fixture
def check_pack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Checking:
    """Return a function that runs `config check` with client programs of a given version.

    The function returns the exit code and the JSON output.
    """
    pack = load_pack(write_pack(tmp_path / "pack"))
    stub = SimpleNamespace(pack=pack, policy=tmp_path / "pack", connection_faults=list, routes=list)
    monkeypatch.setattr(config, "command_services", lambda: stub)
    monkeypatch.setenv(CLIENT_VARIABLE, str(tmp_path))

    def check(version: str) -> tuple[int, dict[str, object]]:
        program = tmp_path / "pg_dump"
        program.write_text(f"#!/bin/sh\necho 'pg_dump (PostgreSQL) {version}'\n")
        program.chmod(0o755)
        code = config.check(as_json=True)
        return code, json.loads(capsys.readouterr().out)

    return check


@pytest.mark.parametrize(
    ("version", "servers"),
    [
        ("15.20 (Debian 15.20-0+deb12u1)", [15]),
        ("16.2", [15, 16]),
        ("17.12", [15, 16, 17]),
        ("18.4", [15, 16, 17, 18]),
    ],
)
def test_config_check_lists_server_versions_that_the_client_programs_support(
    check_pack: Checking, version: str, servers: list[int]
) -> None:
    code, answer = check_pack(version)
    assert (code, answer["valid"]) == (0, True)
    assert answer["postgresql"] == {"client": version.partition(" ")[0], "servers": servers}


@pytest.mark.parametrize("version", ["14.19", "19beta1"])
def test_config_check_exits_with_2_if_client_programs_have_an_unsupported_version(
    check_pack: Checking, version: str
) -> None:
    code, answer = check_pack(version)
    assert (code, answer["valid"]) == (2, False)
    (problem,) = answer["problems"]  # type: ignore[misc]
    assert f"version {version.partition('beta')[0]}, which is not supported" in problem["message"]
    assert "15, 16, 17 and 18" in f"{problem['message']} {problem['action']}"


def test_config_check_lists_for_each_connection_the_workflows_whose_login_runs_its_queries() -> (
    None
):
    services: Any = SimpleNamespace(pack=load_pack(SHIPPED))
    needed = {query.connection: rights[0].workflows for query, rights in pack_queries(services)}
    logins = [each.login for each in workflows() if each.queries and each.login]
    assert needed == {
        login.connection: ", ".join(each.id for each in workflows() if each.login == login)
        for login in logins
    }
    assert needed["incident_db"] == "respond_to_incident, update_incident"


def test_config_check_message_about_missing_select_right_contains_the_workflow_of_the_login(
    database: str,
) -> None:
    """Each workflow has its own login, so a missing right concerns only that workflow."""
    role = "partners_without_rights"
    login = DatabaseAddress.from_conninfo(make_conninfo(database, user=role, password="x"))
    services: Any = SimpleNamespace(
        pack=load_pack(SHIPPED), role_database=lambda conn_id, mapped: login
    )
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(
            f"""
            CREATE TABLE partner (partner_id int, name text, tier int, contact jsonb,
              nda_from date, nda_until date, agreement_until date, last_review_on date,
              live_access bool);
            CREATE ROLE {role} LOGIN PASSWORD 'x'
            """.encode()
        )
        try:
            problems = [each for each in query_logins(services) if each.connection == "partners_db"]
        finally:
            admin.execute(f"DROP ROLE {role}".encode())
    (problem,) = problems
    assert problem.message.startswith(f"{role} lacks SELECT on partner_id, name")
    assert problem.message.endswith("of public.partner; needed by review_partners.")


def test_config_check_lists_rights_that_the_creation_of_transient_logins_lacks(
    database: str,
) -> None:
    role = "use_without_rights"
    login = DatabaseAddress.from_conninfo(make_conninfo(database, user=role, password="x"))
    services: Any = SimpleNamespace(
        pack=load_pack(SHIPPED), role_database=lambda conn_id, mapped: login
    )
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'".encode())
        try:
            problems = list(transient_logins(services))
            for problem in problems:
                admin.execute((problem.grant or "").encode())
            assert list(transient_logins(services)) == []
        finally:
            admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
    assert [problem.message.split(";")[0].split(" on database")[0] for problem in problems] == [
        f"{role} lacks CREATEROLE",
        f"{role} lacks CREATE",
        f"{role} lacks CONNECT WITH GRANT OPTION",
    ]


def test_backup_login_needs_no_right_on_schema_of_transient_login(database: str) -> None:
    """pg_dump leaves these schemas out."""
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(
            """CREATE SCHEMA parcelseal_use_17_ab12;
            CREATE TABLE parcelseal_use_17_ab12.approved_key (id int);
            CREATE TABLE unreadable (id int); CREATE ROLE backup_reader_only LOGIN"""
        )
        admin.execute("SET ROLE backup_reader_only")
        try:
            missing = [each.message for each in lacks_reading(Login(admin))]
        finally:
            admin.execute("RESET ROLE")
            admin.execute("DROP SCHEMA parcelseal_use_17_ab12 CASCADE")
            admin.execute("DROP TABLE unreadable; DROP ROLE backup_reader_only")
    assert any("unreadable" in message for message in missing)
    assert not any("parcelseal_use_17" in message for message in missing)
