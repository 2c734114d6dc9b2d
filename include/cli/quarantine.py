"""``parcelseal quarantine``: which records break which rule, by key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.console import errors, print_json, results
from include.cli.stack import local_stack, workplace
from include.cli.table import print_table
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
    asked = {"database": database, "collection": collection, "rule": rule}
    asked_for = {kind: name for kind, name in asked.items() if name is not None}
    with local_stack(place), place.state.connect() as conn:
        if asked_for:
            _require_known(conn, place.pack, asked_for)
        found = register.listed(conn, database, collection, rule, most + 1)
    shown = found[:most]
    if as_json:
        print_json({"records": [one.as_json() for one in shown], "more": len(found) > most})
        return 0
    if shown:
        _print(shown)
    else:
        of = ", ".join(f"{kind} {name}" for kind, name in asked_for.items())
        results.print(
            f"No record {f'of {of} ' if of else ''}stands in the register.",
            markup=False,
            soft_wrap=True,
        )
    if len(found) > most:
        errors.print(f"There are more: --most shows more than {most:,}.")
    return 0


def _require_known(conn: Connection, pack: PolicyPack, asked: Mapping[str, str]) -> None:
    """Refuse a name that neither pack nor register has: a typo must not read as "all is good"."""
    from include.quarantine.names import names

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


def _print(shown: list[Entry]) -> None:
    print_table(
        ("database", "collection", "rule", "key", "department", "since (UTC)"),
        (
            (
                one.database,
                one.collection,
                one.rule,
                ", ".join(one.key),
                one.part or "",
                f"{one.found_at:%Y-%m-%d %H:%M}",
            )
            for one in shown
        ),
    )
