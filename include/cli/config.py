"""``parcelseal config`` and ``parcelseal migrate``."""

from __future__ import annotations

from typing import Annotated

import typer

from include.cli.console import errors, print_json, results
from include.cli.stack import local_stack, workplace
from include.policy import PackError
from include.workplace import Workplace

app = typer.Typer(help="The policy pack.", no_args_is_help=True)


@app.callback()
def config() -> None:
    """The policy pack."""


@app.command("check")
def check(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> int:
    """Check the policy pack, with file, line and path of every error, then the connections.

    Connections are read, not tried: a server that is down is no error here.
    """
    place = workplace()
    try:
        pack = place.pack
    except PackError as error:
        found = [str(problem) for problem in error.problems]
        return _refuse(place, found, f"in {place.policy}", as_json=as_json)
    if faults := place.connection_faults():
        return _refuse(place, faults, "in the connections", as_json=as_json)
    if as_json:
        print_json({"valid": True, "pack": str(place.policy), "problems": []})
        return 0
    for remark in pack.remarks:
        errors.print(f"remark: {remark}", soft_wrap=True, markup=False)
    collections = sum(len(one.collections) for one in pack.databases.values())
    results.print(
        f"valid: {len(pack.databases)} databases, {collections} collections, "
        f"{len(pack.controls)} controls; policy {pack.sha256[:12]}"
    )
    return 0


def _refuse(place: Workplace, problems: list[str], where: str, *, as_json: bool) -> int:
    if as_json:
        print_json({"valid": False, "pack": str(place.policy), "problems": problems})
        return 2
    for problem in problems:
        errors.print(problem, soft_wrap=True, markup=False)
    errors.print(f"[bold red]{len(problems)} errors[/bold red] {where}", soft_wrap=True)
    return 2


def migrate() -> int:
    """Bring the state database to the schema of this version."""
    from include.state.connect import engine
    from include.state.migrate import migrate as apply
    from include.state.migrate import newest_revision

    place = workplace()
    with local_stack(place):
        apply(engine(place.database("state_db").conninfo()))
    results.print(f"state database at revision {newest_revision()}")
    return 0
