"""``parcelseal erasure``: add, list and withdraw erasure requests of data subjects."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.cli.console import errors, json_row, print_note, print_result
from include.cli.options import AsJson, require_prefix
from include.cli.stack import command_services, local_stack
from include.cli.table import Columns, fields, print_list
from include.services.errors import ParcelSealError, UsageError

if TYPE_CHECKING:
    from include.erasure.requests import ErasureRequest
    from include.policy import PolicyPack
    from include.service_container import Services

app = typer.Typer(no_args_is_help=True, help="Erasure requests of data subjects.")


@app.command("add")
def add(
    subject: Annotated[str, typer.Argument(help="Key of the data subject: KEY or DATABASE/KEY.")],
    reference: Annotated[str, typer.Option(help="Reference of the case file about the request.")],
    received: Annotated[
        datetime,
        typer.Option(formats=["%Y-%m-%d"], help="Day on which the data subject made the request."),
    ],
    by: Annotated[str, typer.Option(help="User id of the person who enters the request.")],
    database: Annotated[
        str | None,
        typer.Option(
            help="Name of the mapped database. Required if the pack has several data maps."
        ),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Add an erasure request. Identify the data subject by key, never by name or phone number."""
    from include.erasure import requests

    services = command_services()
    chosen = _database(services.pack, subject.strip(), database)
    with local_stack(services):
        _require_key(services, chosen, subject)
        with services.state.begin() as conn:
            before = requests.open_request(conn, chosen, subject)
            request = requests.add(
                conn,
                services.clock,
                database=chosen,
                subject=subject,
                reference=reference,
                received_on=received.date(),
                entered_by=by,
            )
    if before is not None and before.id == request.id:
        print_note(
            f"Request {request.id} of {request.received_on} for this data subject is already open. "
            "It stays unchanged."
        )
    text = f"Request {request.id} is due on {request.due_on}."
    return print_result(as_json, _row(request), text)


@app.command("list")
def list_(
    every: Annotated[bool, typer.Option("--all", help="Include closed requests.")] = False,
    as_json: AsJson = False,
) -> int:
    """List the open erasure requests of all databases."""
    from include.erasure import requests

    services = command_services()
    today = services.clock.now().astimezone(services.pack.calendar.zone).date()
    with local_stack(services), services.state.connect() as conn:
        listed = [
            entry for entry in requests.all_requests(conn) if every or entry.closed_at is None
        ]
    columns: Columns[ErasureRequest] = {
        **fields("id", "database", "subject", "reference"),
        "received": lambda request: request.received_on,
        **fields("due_on", "entered_by"),
        "state": lambda request: _state(request, today),
    }
    nothing = "There are no requests." if every else "There are no open requests."
    content = {"requests": [_row(request) for request in listed]}
    late = sum(entry.is_overdue(today) and entry.restricted_at is None for entry in listed)
    if print_list(as_json, content, listed, columns, nothing) and late:
        errors.print(
            f"Overdue: {late}. Run enforce_retention; its certificate states their results."
        )
    return 0


@app.command("withdraw")
def withdraw(
    request_id: Annotated[
        int, typer.Argument(metavar="ID", help="Number of the request in `erasure list`.")
    ],
    by: Annotated[str, typer.Option(help="User id of the person who withdraws the request.")],
    because: Annotated[str, typer.Option(help="Reason for the withdrawal.")],
    as_json: AsJson = False,
) -> int:
    """Withdraw an erasure request. Records that were already erased stay erased."""
    from include.erasure import requests

    with local_stack(command_services()) as services, services.state.begin() as conn:
        request = requests.withdraw(conn, services.clock, request_id, by=by, because=because)
    return print_result(as_json, _row(request), f"Request {request.id} is withdrawn.")


def _row(request: ErasureRequest) -> dict[str, Any]:
    return json_row(
        request,
        *("id", "database", "subject", "reference", "received_on", "due_on", "entered_by"),
        *("closed_at", "closed_by", "closed_because", "found_at"),
    )


def _database(pack: PolicyPack, subject: str, database: str | None) -> str:
    """Return the name of the database to which an erasure request applies.

    Args:
        pack: the policy pack.
        subject: key of the data subject, with or without the prefix ``<database>/``.
        database: value of the option ``--database``; None if the option is not given.

    Raises:
        UsageError: the database is unknown or not given, or none of its record classes is erased on
            request.
    """
    if database is not None:
        pack.database(database)
    named, _ = require_prefix(pack, subject)
    if named and database and named != database:
        raise UsageError(
            f"The key names the database {named}, but --database names {database}.",
            f"If the slash is part of the key, write {database}/KEY.",
        )
    chosen = named or database
    if chosen is None:
        if len(pack.databases) != 1:
            raise UsageError(
                "The policy pack maps several databases.",
                f"Name a database with --database: {', '.join(pack.databases)}.",
            )
        chosen = next(iter(pack.databases))
    if not any(rule.on_request for rule in pack.retention_of(chosen)):
        raise UsageError(
            f"No record class of {chosen} is erased on request, so the request would have no "
            f"effect.",
            "Set `on_request: true` on record classes in retention.yaml.",
        )
    return chosen


def _require_key(services: Services, database: str, subject: str) -> None:
    """Raise UsageError if no record can have the key `subject`, such as text for a numeric column.

    If the database is unreachable, the key is accepted without this check.
    """
    from include.erasure.requests import subject_key
    from include.retention.hold_keys import UnmatchedRequest, require_matching_request
    from include.retention.postgres.key_types import UnusableKey

    try:
        mapped, rules = services.pack.database(database), services.pack.retention_of(database)
        address = services.database(mapped.connection)
        require_matching_request(address, mapped, rules, subject_key(database, subject))
    except (UnusableKey, UnmatchedRequest):
        raise
    except ParcelSealError:
        return  # each run reports a request for which it finds no record


def _state(request: ErasureRequest, today: date) -> str:
    if request.closed_at is not None:
        return (
            f"closed {request.closed_at:%Y-%m-%d} by {request.closed_by}: {request.closed_because}"
        )
    if request.restricted_at is not None:
        return f"restricted since {request.restricted_at:%Y-%m-%d}: see the certificate"
    return "overdue" if request.is_overdue(today) else ""
