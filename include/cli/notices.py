"""``parcelseal notices``: list notifications, retry them, and record recipients who opt out."""

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
from include.cli.stack import command_services, local_stack
from include.cli.table import Columns, fields, print_list
from include.services.errors import UsageError

app = typer.Typer(
    no_args_is_help=True,
    help="Notifications to staff, notices to data subjects, and their delivery.",
)
MOST = 1_000  # notifications that are listed at once


class State(StrEnum):
    """The delivery state of a notification."""

    PENDING = "pending"
    SENT = "sent"
    WITHDRAWN = "withdrawn"
    UNDELIVERABLE = "undeliverable"
    IN_DOUBT = "in_doubt"


@app.command("list")
def list_notifications(
    state: Annotated[
        list[State] | None,
        typer.Option(
            help="List only notifications in this state. Default: unfinished and failed "
            "notifications."
        ),
    ] = None,
    most: Annotated[
        int,
        typer.Option(
            min=1,
            max=100_000,
            help="Largest number of notifications that are listed, newest first.",
        ),
    ] = MOST,
    as_json: AsJson = False,
) -> int:
    """List notifications that are not sent yet, failed, or may not have arrived.

    With --state, the command lists the notifications in the given states instead, for example sent
    notifications. Mail addresses are not printed.
    """
    from include.notify import outbox

    states = [
        str(listed_state)
        for listed_state in state or (State.PENDING, State.UNDELIVERABLE, State.IN_DOUBT)
    ]
    with local_stack(command_services()) as services, services.state.connect() as conn:
        notifications = outbox.list_notifications(conn, states, most + 1)
    shown, more = (
        [_row(notification) for notification in notifications[:most]],
        len(notifications) > most,
    )
    columns: Columns[dict[str, Any]] = {
        "no.": lambda notification: notification["id"],
        **fields("state", "kind", "recipient"),
        "due": lambda notification: notification["due_on"],
        "queued": lambda notification: notification["queued_at"][:16].replace("T", " "),
        **fields("cause", "notice"),
    }
    nothing = f"There are no notifications in the state {' or '.join(states)}."
    content = {"notices": shown, "more": more}
    if print_list(as_json, content, shown, columns, nothing) and more:
        errors.print(
            f"There are more than {most} notifications: --most raises the limit.", soft_wrap=True
        )
    return 0


@app.command("retry")
def retry(
    number: Annotated[int | None, typer.Argument(help="Number of the notification.")] = None,
    recipient: Annotated[
        str,
        typer.Option(
            help="Queue all failed or doubtful notifications to this recipient. Use it instead of "
            "a number."
        ),
    ] = "",
    cause: Annotated[
        str,
        typer.Option(
            help="Queue all failed or doubtful notifications with this cause, as `notices list` "
            "shows it. Use it instead of a number."
        ),
    ] = "",
    as_json: AsJson = False,
) -> int:
    """Requeue notifications that failed or may not have arrived.

    Give the number of one notification, or select several notifications by recipient, by cause, or
    by both.
    """
    from include.notify import outbox

    if number is not None and (recipient or cause):
        raise UsageError(
            "The command has both a number and options.",
            "Use either the number of a notification, or the options.",
        )
    with local_stack(command_services()) as services, services.state.begin() as conn:
        if number is None:
            kind, count = "", outbox.retry_all(conn, recipient, cause)
        else:
            kind, count = outbox.retry(conn, number), 1
    if as_json:
        many = {"count": count, "state": str(State.PENDING)}
        single = {"id": number, "kind": kind, "state": str(State.PENDING)}
        print_json(many if number is None else single)
    else:
        queued = f"{count} notifications are" if number is None else f"notification {number} is"
        results.print(
            f"{queued} queued again; the next run of a workflow that notifies people sends them if "
            "they are still due",
            soft_wrap=True,
        )
    return 0


@app.command("opt-out")
def opt_out(
    recipient: Annotated[
        str, typer.Argument(help="Recipient: staff number, role:ID or partner:ID.")
    ],
    kind: Annotated[str, typer.Argument(help="Kind of notification, as `notices list` shows it.")],
    by: By,
    as_json: AsJson = False,
) -> int:
    """Record that a recipient opts out of a kind of notification, if the policy pack allows it."""
    from include.notify import outbox

    with local_stack(command_services()) as services, services.state.begin() as conn:
        rules, now = services.pack.notices, services.clock.now()
        outbox.opt_out(conn, recipient, kind, rules=rules, by=by, at=now)
    content = {"recipient": recipient, "kind": kind, "opted_out": True}
    return print_result(
        as_json, content, f"{recipient} receives no more notifications of the kind {kind}"
    )


def _row(notification: dict[str, Any]) -> dict[str, Any]:
    return (
        json_row(notification, "id", "state", "kind", "key", "recipient", "channel", "urgent")
        | {"heading": english(notification["heading"]), "notice": english(notification["line"])}
        | json_row(notification, "due_on", "queued_at", "settled_at", "cause", "dag_id", "run_id")
    )
