"""``parcelseal erasure``: requests of data subjects to be erased, by key."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.cli.console import errors, json_row, print_note, print_result
from include.cli.options import AsJson, require_prefix
from include.cli.stack import local_stack, workplace
from include.cli.table import Columns, fields, print_list
from include.services.errors import ParcelSealError, UsageError

if TYPE_CHECKING:
    from include.erasure.requests import ErasureRequest
    from include.policy import PolicyPack
    from include.workplace import Workplace

app = typer.Typer(no_args_is_help=True, help="Requests of data subjects to be erased.")


@app.command("add")
def add(
    subject: Annotated[str, typer.Argument(help="Key of the data subject: KEY or DATABASE/KEY.")],
    reference: Annotated[str, typer.Option(help="Of the request's file.")],
    received: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="When the data subject asked.")
    ],
    by: Annotated[str, typer.Option(help="Who enters it.")],
    database: Annotated[
        str | None, typer.Option(help="Database of the data map; needed where it maps several.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Enter a request. The subject is named by key, never by name or number."""
    from include.erasure import requests

    place = workplace()
    chosen = _database(place.pack, subject.strip(), database)
    with local_stack(place):
        _require_key(place, chosen, subject)
        with place.state.begin() as conn:
            before = requests.open_request(conn, chosen, subject)
            request = requests.add(
                conn,
                place.clock,
                database=chosen,
                subject=subject,
                reference=reference,
                received_on=received.date(),
                entered_by=by,
            )
    if before is not None and before.id == request.id:
        print_note(
            f"The subject has asked already: request {request.id} of {request.received_on} is open "
            "and stays as it is."
        )
    text = f"Request {request.id} is due on {request.due_on}."
    return print_result(as_json, _row(request), text)


@app.command("list")
def list_(
    every: Annotated[bool, typer.Option("--all", help="Closed ones too.")] = False,
    as_json: AsJson = False,
) -> int:
    """List the open requests of all databases."""
    from include.erasure import requests

    place = workplace()
    today = place.clock.now().astimezone(place.pack.calendar.zone).date()
    with local_stack(place), place.state.connect() as conn:
        shown = [one for one in requests.every(conn) if every or one.closed_at is None]
    columns: Columns[ErasureRequest] = {
        **fields("id", "database", "subject", "reference"),
        "received": lambda request: request.received_on,
        **fields("due_on", "entered_by"),
        "state": lambda request: _state(request, today),
    }
    nothing = "There is no request." if every else "No request is open."
    content = {"requests": [_row(request) for request in shown]}
    late = sum(one.is_overdue(today) and one.restricted_at is None for one in shown)
    if print_list(as_json, content, shown, columns, nothing) and late:
        errors.print(
            f"Overdue: {late}. Run enforce_retention; its certificate says what came of them."
        )
    return 0


@app.command("withdraw")
def withdraw(
    request_id: Annotated[int, typer.Argument(metavar="ID", help="Its number in `erasure list`.")],
    by: Annotated[str, typer.Option(help="Who withdraws it.")],
    because: Annotated[str, typer.Option(help="Why.")],
    as_json: AsJson = False,
) -> int:
    """Close a request that is not to be carried out. What was erased by then stays erased."""
    from include.erasure import requests

    with local_stack(workplace()) as place, place.state.begin() as conn:
        request = requests.withdraw(conn, place.clock, request_id, by=by, because=because)
    return print_result(as_json, _row(request), f"Request {request.id} is withdrawn.")


def _row(request: ErasureRequest) -> dict[str, Any]:
    return json_row(
        request,
        *("id", "database", "subject", "reference", "received_on", "due_on", "entered_by"),
        *("closed_at", "closed_by", "closed_because", "found_at"),
    )


def _database(pack: PolicyPack, subject: str, asked: str | None) -> str:
    """The database that is meant; refused where nothing would ever be erased on request."""
    if asked is not None:
        pack.database(asked)
    named, _ = require_prefix(pack, subject)
    if named and asked and named != asked:
        raise UsageError(
            f"The subject is of {named}, and --database says {asked}.",
            f"A key of {asked} with a slash of its own is written {asked}/KEY.",
        )
    chosen = named or asked
    if chosen is None:
        if len(pack.databases) != 1:
            raise UsageError(
                "The policy pack maps several databases.",
                f"Name one as --database: {', '.join(pack.databases)}.",
            )
        chosen = next(iter(pack.databases))
    if not any(rule.on_request for rule in pack.retention_of(chosen)):
        raise UsageError(
            f"No record class of {chosen} is erased on request: nothing would ever be done.",
            "Set `on_request: true` on record classes in retention.yaml.",
        )
    return chosen


def _require_key(place: Workplace, database: str, subject: str) -> None:
    """Refuse a key that no record can have. An unreachable database does not prevent a request."""
    from include.erasure.requests import subject_key
    from include.retention.hold_keys import Unerasable, require_erasable
    from include.retention.postgres.key_types import UnusableKey

    try:
        mapped, rules = place.pack.database(database), place.pack.retention_of(database)
        address = place.database(mapped.connection)
        require_erasable(address, mapped, rules, subject_key(database, subject))
    except (UnusableKey, Unerasable):
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
