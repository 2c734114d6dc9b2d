"""``parcelseal findings``: what was found, who answers for it, and what became of it."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.cli.console import english, json_row, print_result
from include.cli.options import AsJson, By, day_option
from include.cli.stack import local_stack, workplace
from include.cli.table import Columns, fields, print_list
from include.services.errors import UsageError

if TYPE_CHECKING:
    from include.findings.register import Found

app = typer.Typer(no_args_is_help=True, help="Findings, corrective actions, retests.")

Number = Annotated[int, typer.Argument(help="Number of the finding.")]


@app.command("list")
def list_findings(
    closed: Annotated[bool, typer.Option("--closed", help="Closed ones too.")] = False,
    as_json: AsJson = False,
) -> int:
    """Show findings, the one that is due first at the head."""
    from include.findings import register

    with local_stack(workplace()) as place, place.state.connect() as conn:
        found = register.listed(conn, closed=closed)
    columns: Columns[Found] = {
        "no.": lambda finding: finding.id,
        "due": lambda finding: finding.due_on,
        **fields("state", "owner", "reference"),
        "finding": lambda finding: english(finding.what),
    }
    print_list(as_json, {"findings": [_told(one) for one in found]}, found, columns)
    return 0


@app.command("answer")
def answer(
    number: Number,
    cause: Annotated[str, typer.Option(help="Why it happened; no customer data.")],
    action: Annotated[str, typer.Option(help="What is done about it; no customer data.")],
    by: By,
    due: Annotated[date | None, day_option("Another day for it: YYYY-MM-DD.")] = None,
    as_json: AsJson = False,
) -> int:
    """Enter cause and corrective action of a finding; it stays open until a retest is met."""
    from include.findings import register

    with local_stack(workplace()) as place, place.state.begin() as conn:
        found = register.answer(
            conn,
            number,
            cause=cause,
            action=action,
            by=by,
            at=place.clock.now().astimezone(place.pack.calendar.zone),
            due_on=due,
        )
    return _show(found, as_json)


@app.command("retest")
def retest(
    number: Number,
    by: By,
    met: Annotated[bool, typer.Option("--met", help="The second test was met.")] = False,
    deviates: Annotated[
        bool, typer.Option("--deviates", help="The second test deviates again.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Enter the second test of a finding: met closes it, deviating opens it again."""
    from include.findings import register

    if met == deviates:  # with both, the last one must not win unseen
        raise UsageError("What did the test come to?", "Write --met or --deviates, one of them.")
    with local_stack(workplace()) as place, place.state.begin() as conn:
        found = register.retest(conn, number, met=met, by=by, at=place.clock.now())
    return _show(found, as_json)


def _show(found: Found, as_json: bool) -> int:
    return print_result(
        as_json, _told(found), f"finding {found.id}: {found.state}, due {found.due_on}"
    )


def _told(finding: Found) -> dict[str, Any]:
    return (
        json_row(finding, "id", "kind", "reference")
        | {"finding": english(finding.what)}
        | json_row(finding, "owner", "opened_at", "due_on", "first_due_on", "moved", "state")
        | json_row(finding, "cause", "action", "answered_by", "closed_by", "retests")
    )
