"""Tests of the generated page of connections."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from include.deployment.zones import FIXED
from include.local.roles import sample_logins
from include.reference.connection_pages import connection_pages, login_connections, rights_table
from include.rights.declared import declared_rights
from include.service_container import ROOT
from include.services.declared_connections import CONNECTIONS, DATABASE_EXTRAS


def extras_read_by(path: Path) -> Iterator[str]:
    """Yield the names of the connection extras that a module reads."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        helper = node.func.id if isinstance(node.func, ast.Name) else ""
        arguments = node.args if name == "text" else node.args[1:] if helper in HELPERS else []
        if name == "get" and ast.unparse(node.func).endswith("extra.get"):
            arguments = node.args
        yield from (
            each.value
            for each in arguments[:1]
            if isinstance(each, ast.Constant) and isinstance(each.value, str)
        )


HELPERS = {"_seconds", "_on", "list_from_extra", "json_from_extra"}


def test_every_connection_extra_that_the_code_reads_is_declared_for_the_reference_page() -> None:
    modules = [
        *(ROOT / "include" / "services").glob("*.py"),
        ROOT / "include" / "service_container.py",
    ]
    read = {extra for module in modules for extra in extras_read_by(module)}
    declared = {
        name
        for extras in (DATABASE_EXTRAS, *(each.extras for each in CONNECTIONS))
        for extra in extras
        for name in extra.name.split(", ")
    }
    assert {"bucket", "erasure_keys", "from_email", "recipients", "timeout"} <= read
    assert read - declared == set()


def test_connections_of_the_stack_and_of_workflows_are_declared_for_the_reference_page() -> None:
    ids = {each.id.partition(",")[0] for each in (*CONNECTIONS, *login_connections())}
    assert {*FIXED, *sample_logins(), "pages_db"} <= ids


def test_connections_page_contains_connections_with_extras_and_table_of_rights() -> None:
    [page] = connection_pages()
    assert "| `state_db` | `erasure_keys` |" in page.text
    assert rights_table() in page.text
    assert all(right.workflows in page.text for right in declared_rights())


def test_reference_entry_for_a_connection_contains_workflows_and_grants_of_its_login() -> None:
    by_id = {each.id: each for each in login_connections()}
    assert by_id["incident_db"].used_by == "`respond_to_incident`, `update_incident`"
    assert "`incident.yaml`" in by_id["incident_db"].purpose
    assert "include/intake/sample_grants.sql" in by_id["intake_db"].local_default
