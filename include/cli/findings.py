"""``parcelseal findings``: list findings, and record their corrective actions and retests."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.cli.console import english, json_row, print_result
from include.cli.options import AsJson, By, day_option
from include.cli.stack import command_services, local_stack
from include.cli.table import Columns, fields, print_list
from include.services.errors import UsageError

if TYPE_CHECKING:
    from include.findings.register import Finding

app = typer.Typer(no_args_is_help=True, help="Findings, corrective actions, retests.")

Number = Annotated[int, typer.Argument(help="Number of the finding.")]


@app.command("list")
def list_findings(
    closed: Annotated[bool, typer.Option("--closed", help="Include closed findings.")] = False,
    as_json: AsJson = False,
) -> int:
    """List the open findings, earliest due date first."""
    from include.findings import register

    with local_stack(command_services()) as services, services.state.connect() as conn:
        listed = register.list_findings(conn, closed=closed)
    columns: Columns[Finding] = {
        "no.": lambda finding: finding.id,
        "due": lambda finding: finding.due_on,
        **fields("state", "owner", "reference"),
        "finding": lambda finding: english(finding.description),
    }
    print_list(as_json, {"findings": [_row(finding) for finding in listed]}, listed, columns)
    return 0


@app.command("answer")
def answer(
    number: Number,
    cause: Annotated[str, typer.Option(help="Cause of the finding, without customer data.")],
    action: Annotated[str, typer.Option(help="Corrective action, without customer data.")],
    by: By,
    due: Annotated[date | None, day_option("New due date.")] = None,
    as_json: AsJson = False,
) -> int:
    """Record the cause and the corrective action of a finding.

    The finding stays open until a retest passes.
    """
    from include.findings import register

    with local_stack(command_services()) as services, services.state.begin() as conn:
        finding = register.answer(
            conn,
            number,
            cause=cause,
            action=action,
            by=by,
            at=services.clock.now().astimezone(services.pack.calendar.zone),
            due_on=due,
        )
    return _show(finding, as_json)


@app.command("retest")
def retest(
    number: Number,
    by: By,
    met: Annotated[bool, typer.Option("--met", help="The retest passed.")] = False,
    deviates: Annotated[
        bool, typer.Option("--deviates", help="The retest deviates again.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Record the result of a retest. If the retest passed, the finding is closed.

    If the retest deviates again, the finding needs a new corrective action.
    """
    from include.findings import register

    if met == deviates:  # with both options, typer would silently take the last
        raise UsageError("The result of the retest is missing.", "Add either --met or --deviates.")
    with local_stack(command_services()) as services, services.state.begin() as conn:
        finding = register.retest(conn, number, met=met, by=by, at=services.clock.now())
    return _show(finding, as_json)


def _show(finding: Finding, as_json: bool) -> int:
    return print_result(
        as_json, _row(finding), f"finding {finding.id}: {finding.state}, due {finding.due_on}"
    )


def _row(finding: Finding) -> dict[str, Any]:
    return (
        json_row(finding, "id", "kind", "reference")
        | {"finding": english(finding.description)}
        | json_row(finding, "owner", "opened_at", "due_on", "first_due_on", "state")
        | {"moved": finding.due_date_changes}
        | json_row(finding, "cause", "action", "answered_by", "closed_by", "retests")
    )
