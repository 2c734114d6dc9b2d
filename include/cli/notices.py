"""``parcelseal notices``: what people are to be told, what came of it, what they do not want."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from include.cli.console import (
    english,
    errors,
    json_row,
    print_json,
    print_result,
    results,
)
from include.cli.options import AsJson, By
from include.cli.stack import local_stack, workplace
from include.cli.table import Columns, fields, print_list
from include.services.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Notices to people, and what came of them.")
MOST = 1_000  # shown at once


class State(StrEnum):
    """What became of a notice."""

    PENDING = "pending"
    SENT = "sent"
    WITHDRAWN = "withdrawn"
    UNDELIVERABLE = "undeliverable"
    IN_DOUBT = "in_doubt"


@app.command("list")
def list_notices(
    state: Annotated[
        list[State] | None, typer.Option(help="Only these; without it, what is not settled well.")
    ] = None,
    most: Annotated[
        int, typer.Option(min=1, max=100_000, help="How many to show, the newest first.")
    ] = MOST,
    as_json: AsJson = False,
) -> int:
    """Show notices: those that wait, could not be sent or may not have arrived; no addresses."""
    from include.notify import outbox

    wanted = [str(one) for one in state or (State.PENDING, State.UNDELIVERABLE, State.IN_DOUBT)]
    with local_stack(workplace()) as place, place.state.connect() as conn:
        found = outbox.listed(conn, wanted, most + 1)
    shown, more = [_told(one) for one in found[:most]], len(found) > most
    columns: Columns[dict[str, Any]] = {
        "no.": lambda notice: notice["id"],
        **fields("state", "kind", "recipient"),
        "due": lambda notice: notice["due_on"],
        "queued": lambda notice: notice["queued_at"][:16].replace("T", " "),
        **fields("cause", "notice"),
    }
    nothing = f"No notice is {' or '.join(wanted)}."
    content = {"notices": shown, "more": more}
    if print_list(as_json, content, shown, columns, nothing) and more:
        errors.print(f"There are more than {most}: --most shows more of them.", soft_wrap=True)
    return 0


@app.command("retry")
def retry(
    number: Annotated[int | None, typer.Argument(help="Number of the notice.")] = None,
    recipient: Annotated[
        str, typer.Option(help="Instead of a number: all of this recipient.")
    ] = "",
    cause: Annotated[
        str, typer.Option(help="Instead of a number: all with this cause, as the list shows it.")
    ] = "",
    as_json: AsJson = False,
) -> int:
    """Queue notices again that could not be sent, or may not have arrived."""
    from include.notify import outbox

    if number is not None and (recipient or cause):
        raise UsageError("One notice is named, and many.", "Leave the number out, or the options.")
    with local_stack(workplace()) as place, place.state.begin() as conn:
        if number is None:
            kind, count = "", outbox.retry_all(conn, recipient, cause)
        else:
            kind, count = outbox.retry(conn, number), 1
    if as_json:
        many = {"count": count, "state": str(State.PENDING)}
        one = {"id": number, "kind": kind, "state": str(State.PENDING)}
        print_json(many if number is None else one)
    else:
        said = f"{count} notices are" if number is None else f"notice {number} is"
        results.print(
            f"{said} queued again; the next run of a workflow that tells people sends what is "
            "still wanted",
            soft_wrap=True,
        )
    return 0


@app.command("opt-out")
def opt_out(
    recipient: Annotated[str, typer.Argument(help="Staff number, role:ID, partner:ID.")],
    kind: Annotated[str, typer.Argument(help="Kind of notice, as the list shows it.")],
    by: By,
    as_json: AsJson = False,
) -> int:
    """Keep that a recipient does not want a kind of notice; only where the policy lets them."""
    from include.notify import outbox

    with local_stack(workplace()) as place, place.state.begin() as conn:
        rules, now = place.pack.notices, place.clock.now()
        outbox.opt_out(conn, recipient, kind, rules=rules, by=by, at=now)
    content = {"recipient": recipient, "kind": kind, "opted_out": True}
    return print_result(as_json, content, f"{recipient} gets no more {kind}")


def _told(notice: dict[str, Any]) -> dict[str, Any]:
    return (
        json_row(notice, "id", "state", "kind", "key", "recipient", "channel", "urgent")
        | {"heading": english(notice["heading"]), "notice": english(notice["line"])}
        | json_row(notice, "due_on", "queued_at", "settled_at", "cause", "dag_id", "run_id")
    )
