"""``parcelseal quarantine``: list the keys of the records that break an expectation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.console import errors, json_row
from include.cli.options import AsJson
from include.cli.stack import command_services, local_stack
from include.cli.table import Columns, fields, print_list
from include.services.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from include.policy import PolicyPack
    from include.quarantine.register import Entry

app = typer.Typer(no_args_is_help=True, help="Register of records that break a rule, by key.")
MOST = 1_000  # records that are listed at once

Database = Annotated[str | None, typer.Option(help="List only records of this mapped database.")]
Collection = Annotated[str | None, typer.Option(help="List only records of this collection.")]
RuleId = Annotated[
    str | None,
    typer.Option("--rule", help="List only records that break the expectation with this id."),
]
Most = Annotated[
    int, typer.Option(min=1, help="Largest number of records that are listed, oldest entry first.")
]


@app.command("list")
def list_broken(
    rule: RuleId = None,
    database: Database = None,
    collection: Collection = None,
    most: Most = MOST,
    as_json: AsJson = False,
) -> int:
    """List the keys of the records that currently break a quality rule.

    Other values of the records are not printed.
    """
    from include.quarantine import register

    filters = {"database": database, "collection": collection, "rule": rule}
    asked_for = {kind: name for kind, name in filters.items() if name is not None}
    with local_stack(command_services()) as services, services.state.connect() as conn:
        if asked_for:
            _require_known(conn, services.pack, asked_for)
        entries = register.list_open_entries(conn, database, collection, rule, most + 1)
    shown = entries[:most]
    columns: Columns[Entry] = {
        **fields("database", "collection", "rule"),
        "key": lambda entry: ", ".join(entry.key),
        "department": lambda entry: entry.part,
        "since (UTC)": lambda entry: f"{entry.found_at:%Y-%m-%d %H:%M}",
    }
    of = ", ".join(f"{kind} {name}" for kind, name in asked_for.items())
    nothing = f"The register has no record{f' of {of}' if of else ''}."
    more = len(entries) > most
    names = ("database", "collection", "rule", "key", "part", "found_at")
    content = {"records": [json_row(entry, *names) for entry in shown], "more": more}
    if print_list(as_json, content, shown, columns, nothing) and more:
        errors.print(f"There are more than {most:,} records: --most raises the limit.")
    return 0


def _require_known(conn: Connection, pack: PolicyPack, filters: Mapping[str, str]) -> None:
    """Raise UsageError if the value of a filter is neither in the policy pack nor in the register.

    Otherwise a mistyped name would give an empty list, as if no record broke an expectation.

    Args:
        conn: connection to the state database.
        pack: the policy pack.
        filters: option (``database``, ``collection`` or ``rule``) -> value of the option.
    """
    from include.quarantine.register import registered_names

    for kind, name in filters.items():
        names = _in_pack(pack, kind)
        if name in names:
            continue
        names |= set(registered_names(conn, kind))
        if name not in names:
            raise UsageError(
                f"The {kind} {name} is neither in the policy pack nor in the register.",
                f"Use one of: {', '.join(sorted(names)) or 'none'}.",
            )


def _in_pack(pack: PolicyPack, kind: str) -> set[str]:
    match kind:
        case "database":
            return set(pack.databases)
        case "collection":
            return {name for database in pack.databases.values() for name in database.collections}
        case _:
            rules = {rule.id for suite in pack.suites for rule in suite.expectations}
            return rules | {check.id for intake in pack.intake for check in intake.checks}
