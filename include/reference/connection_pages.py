"""Generate the page about connections, their extras, and the rights of database logins."""

from __future__ import annotations

import re
from collections.abc import Iterator

from include.reference.markdown import Page, code, plain, render, table
from include.registry import logins, workflows
from include.rights.declared import declared_rights
from include.service_container import ROOT
from include.services.declared_connections import (
    CONNECTIONS,
    DATABASE_EXTRAS,
    POSTGRES_FIELDS,
    SIGNING_EXTRAS,
    STORE_EXTRAS,
    DeclaredConnection,
    Extra,
)

_EXTRA_HEADER = ("connection", "extra", "type", "default", "meaning")


def rights_table() -> str:
    """Return a Markdown table of the rights that the database logins need."""
    rows = (
        (right.connection, code(_in_capitals(right.grant)), right.workflows, plain(right.reason))
        for right in declared_rights()
    )
    return table(("login", "statement", "workflows", "reason"), rows)


def _in_capitals(grant: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda name: name[1].upper(), grant)


def login_connections() -> Iterator[DeclaredConnection]:
    """Yield the connections with a workflow's own login to a mapped database."""
    for login in logins():
        users = [workflow for workflow in workflows() if workflow.login == login]
        files = dict.fromkeys(workflow.rules.file for workflow in users if workflow.rules)
        named = " and ".join(code(file) for file in files)
        reads = (
            f"Reads the columns that {named} names. The login needs SELECT on these columns, and "
            "USAGE on their schemas."
        )
        yield DeclaredConnection(
            login.connection,
            ("postgres",),
            f"{login.purpose or reads} Without this connection, the connection of the mapped "
            "database is used.",
            ", ".join(code(workflow.id) for workflow in users),
            POSTGRES_FIELDS,
            f"login of the sample database with the rights in "
            f"`{login.sample_grants.relative_to(ROOT)}`",
        )


def _connection_row(connection: DeclaredConnection) -> tuple[str, ...]:
    name = connection.id if " " in connection.id else code(connection.id)
    return (
        name,
        ", ".join(code(connection_type) for connection_type in connection.types),
        connection.purpose,
        connection.used_by,
        connection.fields,
        connection.local_default,
    )


def _extra_row(connection: str, extra: Extra) -> tuple[str, ...]:
    default = "**required**" if extra.is_required else extra.default
    names = ", ".join(code(name) for name in extra.name.split(", "))
    return connection, names, extra.kind, default, f"{extra.meaning}."


def _extras() -> Iterator[tuple[str, ...]]:
    shared = {*STORE_EXTRAS, *SIGNING_EXTRAS}
    for title, extras in (
        ("every database", DATABASE_EXTRAS),
        ("every store", STORE_EXTRAS),
        ("`offsite_store`, `evidence_store`", SIGNING_EXTRAS),
    ):
        yield from (_extra_row(title, extra) for extra in extras)
    for connection in CONNECTIONS:
        title = connection.id if " " in connection.id else code(connection.id)
        yield from (_extra_row(title, extra) for extra in connection.extras if extra not in shared)


def connection_pages() -> Iterator[Page]:
    """Yield the reference page of connections."""
    first, *others = CONNECTIONS
    connections = [first, *login_connections(), *others]
    yield render(
        "connections.md.j2",
        "connections.md",
        connections=table(
            ("id", "type", "purpose", "used by", "fields", "local default"),
            (_connection_row(connection) for connection in connections),
        ),
        extras=table(_EXTRA_HEADER, _extras()),
        rights=rights_table(),
    )
