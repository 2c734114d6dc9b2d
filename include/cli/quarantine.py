"""``parcelseal quarantine``: which records break which rule, by key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.console import errors, json_row
from include.cli.options import AsJson
from include.cli.stack import local_stack, workplace
from include.cli.table import Columns, fields, print_list
from include.services.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from include.policy import PolicyPack
    from include.quarantine.register import Entry

app = typer.Typer(no_args_is_help=True, help="The register of records that break a rule, by key.")
MOST = 1_000  # records shown at once

Database = Annotated[str | None, typer.Option(help="Database of the data map.")]
Collection = Annotated[str | None, typer.Option(help="Collection of the data map.")]
RuleId = Annotated[str | None, typer.Option("--rule", help="Rule that they break.")]
Most = Annotated[int, typer.Option(min=1, help="How many to show, the oldest first.")]


@app.command("list")
def list_broken(
    rule: RuleId = None,
    database: Database = None,
    collection: Collection = None,
    most: Most = MOST,
    as_json: AsJson = False,
) -> int:
    """List the records that are broken now; their keys, never their content."""
    from include.quarantine import register

    asked = {"database": database, "collection": collection, "rule": rule}
    asked_for = {kind: name for kind, name in asked.items() if name is not None}
    with local_stack(workplace()) as place, place.state.connect() as conn:
        if asked_for:
            _require_known(conn, place.pack, asked_for)
        found = register.listed(conn, database, collection, rule, most + 1)
    shown = found[:most]
    columns: Columns[Entry] = {
        **fields("database", "collection", "rule"),
        "key": lambda entry: ", ".join(entry.key),
        "department": lambda entry: entry.part,
        "since (UTC)": lambda entry: f"{entry.found_at:%Y-%m-%d %H:%M}",
    }
    of = ", ".join(f"{kind} {name}" for kind, name in asked_for.items())
    nothing = f"No record {f'of {of} ' if of else ''}stands in the register."
    more = len(found) > most
    names = ("database", "collection", "rule", "key", "part", "found_at")
    content = {"records": [json_row(entry, *names) for entry in shown], "more": more}
    if print_list(as_json, content, shown, columns, nothing) and more:
        errors.print(f"There are more: --most shows more than {most:,}.")
    return 0


def _require_known(conn: Connection, pack: PolicyPack, asked: Mapping[str, str]) -> None:
    """Refuse a name that neither pack nor register has: a typo must not read as "all is good"."""
    from include.quarantine.register import names

    for kind, name in asked.items():
        known = _in_pack(pack, kind)
        if name in known:
            continue
        known |= set(names(conn, kind))
        if name not in known:
            raise UsageError(
                f"Neither the policy pack nor the register has a {kind} {name}.",
                f"There are: {', '.join(sorted(known)) or 'none'}.",
            )


def _in_pack(pack: PolicyPack, kind: str) -> set[str]:
    match kind:
        case "database":
            return set(pack.databases)
        case "collection":
            return {name for one in pack.databases.values() for name in one.collections}
        case _:
            rules = {rule.id for suite in pack.suites for rule in suite.expectations}
            return rules | {check.id for intake in pack.intake for check in intake.checks}
