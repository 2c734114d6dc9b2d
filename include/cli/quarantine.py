"""``parcelseal quarantine``: which records break which rule, by key."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from include.cli.console import errors, print_json, results
from include.cli.stack import local_stack, workplace

app = typer.Typer(no_args_is_help=True, help="The register of records that break a rule, by key.")
MOST = 1_000  # records shown at once

Database = Annotated[str | None, typer.Option(help="Database of the data map.")]
Collection = Annotated[str | None, typer.Option(help="Collection of the data map.")]
RuleId = Annotated[str | None, typer.Option("--rule", help="Rule that they break.")]
Most = Annotated[int, typer.Option(min=1, help="How many to show, the oldest first.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@app.command("list")
def list_broken(
    rule: RuleId = None,
    database: Database = None,
    collection: Collection = None,
    most: Most = MOST,
    as_json: Json = False,
) -> int:
    """List the records that are broken now; their keys, never their content."""
    from include.quarantine import register

    place = workplace()
    with local_stack(place), place.state.connect() as conn:
        found = register.listed(conn, database, collection, rule, most + 1)
    shown = found[:most]
    if as_json:
        print_json({"records": [one.as_json() for one in shown], "more": len(found) > most})
        return 0
    table = Table(box=None)
    for name in ("database", "collection", "rule", "key", "department", "since"):
        table.add_column(name, overflow="fold")
    for one in shown:
        table.add_row(
            one.database,
            one.collection,
            one.rule,
            ", ".join(one.key),
            one.part or "",
            f"{one.found_at:%Y-%m-%d %H:%M} UTC",
        )
    results.print(table if shown else "No record stands in the register.")
    if len(found) > most:
        errors.print(f"There are more: --most shows more than {most:,}.")
    return 0
