"""``parcelseal findings``: list findings, and record answers, retests and decisions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.cli.console import english, json_row, print_result
from include.cli.options import AsJson, By, day_option
from include.cli.stack import command_services, local_stack
from include.cli.table import Columns, fields, print_list
from include.services.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from include.findings.decisions import Deciders, Decision
    from include.findings.register import Finding
    from include.service_container import Services

app = typer.Typer(
    no_args_is_help=True,
    help="Findings of runs, audits and incidents: owners, due dates, decisions, retests.",
)

Number = Annotated[int, typer.Argument(help="Number of the finding.")]
Reason = Annotated[str, typer.Option("--reason", help="Reason, without customer data.")]
Version = Annotated[
    str | None,
    typer.Option(
        "--version-seen",
        help="Version of the finding that you read. If the finding has changed since, nothing is "
        "recorded.",
    ),
]


@app.command("list")
def list_findings(
    closed: Annotated[bool, typer.Option("--closed", help="Include closed findings.")] = False,
    only_open: Annotated[
        bool, typer.Option("--open", help="Leave out closed findings, which is the default.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """List the open findings, earliest due date first."""
    from include.findings import register

    if closed and only_open:
        raise UsageError("--open and --closed contradict each other.", "Leave out one of them.")
    with local_stack(command_services()) as services, services.state.connect() as conn:
        listed = register.list_findings(conn, closed=closed)
        today = _now(services).date()
    columns: Columns[Finding] = {
        "no.": lambda finding: finding.id,
        "due": lambda finding: finding.due_on,
        "state": lambda finding: finding.state_on(today),
        **fields("owner"),
        "about": _about,
        "finding": lambda finding: english(finding.description),
    }
    rows = [_row(finding, today) for finding in listed]
    print_list(as_json, {"findings": rows}, listed, columns)
    return 0


@app.command("comment")
def comment(
    number: Number,
    text: Annotated[str, typer.Option("--text", help="Comment, without customer data.")],
    by: By,
    as_json: AsJson = False,
) -> int:
    """Add a comment to a finding."""
    from include.findings import decisions

    return _decide(decisions.comment, number, by, text, None, as_json)


@app.command("reassign")
def reassign(
    number: Number,
    owner: Annotated[str, typer.Option(help="Role of roles.yaml.")],
    reason: Reason,
    by: By,
    assignee: Annotated[str, typer.Option(help="User id of a person of the role.")] = "",
    version: Version = None,
    as_json: AsJson = False,
) -> int:
    """Name another owner of a finding, or another responsible person of the owner."""
    from include.findings import decisions

    record = partial(decisions.reassign, owner=owner, assignee=assignee)
    return _decide(record, number, by, reason, version, as_json)


@app.command("accept-risk")
def accept_risk(
    number: Number,
    until: Annotated[date, day_option("Last day of the acceptance.")],
    reason: Reason,
    by: By,
    version: Version = None,
    as_json: AsJson = False,
) -> int:
    """Accept the risk of a finding until a day.

    The finding stays open, and the outcome of the control stays the same.
    """
    from include.findings import decisions

    record = partial(decisions.accept_risk, until=until)
    return _decide(record, number, by, reason, version, as_json)


@app.command("withdraw-acceptance")
def withdraw_acceptance(
    number: Number, reason: Reason, by: By, version: Version = None, as_json: AsJson = False
) -> int:
    """Withdraw the acceptance of the risk of a finding."""
    from include.findings import decisions

    return _decide(decisions.withdraw_acceptance, number, by, reason, version, as_json)


def _decide(
    record: Callable[[Connection, Deciders, Decision], Finding],
    number: int,
    by: str,
    reason: str,
    version: str | None,
    as_json: bool,
) -> int:
    from include.findings.decisions import Deciders, Decision

    with local_stack(command_services()) as services, services.state.begin() as conn:
        pack, now = services.pack, _now(services)
        deciders = Deciders(pack.roles, pack.findings, pack.calendar.zone)
        finding = record(conn, deciders, Decision(number, by, now, reason, version))
    return _show(finding, now.date(), as_json)


def _now(services: Services) -> datetime:
    return services.clock.now().astimezone(services.pack.calendar.zone)


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

    The finding stays open until a retest passes, or a complete run no longer reports it.
    """
    from include.findings import register
    from include.policy.period import add_period

    with local_stack(command_services()) as services, services.state.begin() as conn:
        now = _now(services)
        # People without an account, such as a partner's, answer through an engineer: the command
        # checks the dates, and the form in Airflow the person, too.
        pack = services.pack
        zone, longest = pack.calendar.zone, pack.findings.longest_postponement
        latest = add_period(now, longest, zone).astimezone(zone).date()
        finding = register.answer(
            conn, number, cause=cause, action=action, by=by, at=now, due_on=due, latest=latest
        )
    return _show(finding, now.date(), as_json)


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
        now = _now(services)
        finding = register.retest(conn, number, met=met, by=by, at=now)
    return _show(finding, now.date(), as_json)


def _show(finding: Finding, today: date, as_json: bool) -> int:
    text = f"finding {finding.id}: {finding.state_on(today)}, due {finding.due_on}"
    return print_result(as_json, _row(finding, today), text)


def _about(finding: Finding) -> str:
    """Return the workflow and subject of a finding, or the reference of an audit or incident."""
    origin = finding.origin
    if origin is None:
        return finding.reference
    return " ".join(filter(None, (origin.workflow, origin.subject)))


def _row(finding: Finding, today: date) -> dict[str, Any]:
    origin, acceptance = finding.origin, finding.acceptance
    return (
        json_row(finding, "id", "kind", "reference")
        | {
            "code": origin.code if origin else None,
            "workflow": origin.workflow if origin else None,
            "clause": origin.clause if origin else None,
            "severity": str(finding.severity),
            "subject": origin.subject if origin else None,
            "finding": english(finding.description),
        }
        | json_row(finding, "owner", "assignee", "opened_at")
        | {"due": str(finding.due_on)}
        | json_row(finding, "due_on", "first_due_on")
        | {
            "state": str(finding.state_on(today)),
            "moved": finding.due_date_changes,
            "version": finding.version,
            "accepted_until": str(acceptance.until) if acceptance else None,
            "opened_in": origin.opened_in if origin else None,
            "reported_in": origin.reported_in if origin else None,
            "closed_in": finding.closed_in or None,
        }
        | json_row(finding, "cause", "action", "answered_by", "closed_by", "retests")
    )
