"""``parcelseal findings``: what was found, who answers for it, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.cli.console import print_result
from include.cli.options import AsJson, By
from include.cli.stack import local_stack, workplace
from include.cli.table import print_list
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

    place = workplace()
    with local_stack(place), place.state.connect() as conn:
        found = register.listed(conn, closed=closed)
    columns: dict[str, Callable[[Found], object]] = {
        "no.": lambda finding: finding.id,
        "due": lambda finding: finding.due_on,
        "state": lambda finding: finding.state,
        "owner": lambda finding: finding.owner,
        "reference": lambda finding: finding.reference,
        "finding": _text,
    }
    print_list(as_json, {"findings": [_told(one) for one in found]}, found, columns)
    return 0


@app.command("answer")
def answer(
    number: Number,
    cause: Annotated[str, typer.Option(help="Why it happened; no customer data.")],
    action: Annotated[str, typer.Option(help="What is done about it; no customer data.")],
    by: By,
    due: Annotated[
        str | None, typer.Option(help="Another day for it: YYYY-MM-DD.", metavar="YYYY-MM-DD")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Enter cause and corrective action of a finding; it stays open until a retest is met."""
    from include.findings import register

    place = workplace()
    with local_stack(place), place.state.begin() as conn:
        found = register.answer(
            conn,
            number,
            cause=cause,
            action=action,
            by=by,
            at=place.clock.now().astimezone(place.pack.calendar.zone),
            due_on=_day(due) if due else None,
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
    place = workplace()
    with local_stack(place), place.state.begin() as conn:
        found = register.retest(conn, number, met=met, by=by, at=place.clock.now())
    return _show(found, as_json)


def _show(found: Found, as_json: bool) -> int:
    return print_result(
        as_json, _told(found), f"finding {found.id}: {found.state}, due {found.due_on}"
    )


def _told(one: Found) -> dict[str, Any]:
    return {
        "id": one.id,
        "kind": one.kind,
        "reference": one.reference,
        "finding": _text(one),
        "owner": one.owner,
        "opened_at": one.opened_at.isoformat(),
        "due_on": one.due_on.isoformat(),
        "first_due_on": one.first_due_on.isoformat(),
        "moved": one.moved,
        "state": str(one.state),
        "cause": one.cause,
        "action": one.action,
        "answered_by": one.answered_by,
        "closed_by": one.closed_by,
        "retests": one.retests,
    }


def _text(one: Found) -> str:
    from include.reports.i18n import Translator

    return Translator("en").text(one.what)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no day.", "Write 2026-12-31.") from None
