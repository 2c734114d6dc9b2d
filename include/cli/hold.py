"""``parcelseal hold``: what may not be deleted, why, and until somebody says so."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.cli.console import errors, json_row, print_json, print_line, print_note, print_result
from include.cli.options import AsJson, require_prefix
from include.cli.stack import local_stack, workplace
from include.cli.table import Columns, fields, print_list
from include.services.errors import ParcelSealError, UsageError

if TYPE_CHECKING:
    from include.holds.registry import Hold, HoldKind
    from include.policy import PolicyPack
    from include.workplace import Workplace

app = typer.Typer(no_args_is_help=True, help="Legal holds: what may not be deleted.")

Kind = Annotated[
    str, typer.Argument(help="subject, waybill, case, class, database or restore_point.")
]
Value = Annotated[
    str, typer.Argument(help="Which one: VALUE in every database, DATABASE/VALUE in one.")
]


@app.command("add")
def add(
    kind: Kind,
    value: Value,
    reason: Annotated[str, typer.Option(help="Why, for the reader of a certificate.")],
    owner: Annotated[str, typer.Option(help="Who answers for it.")],
    case: Annotated[str, typer.Option(help="The case, claim or order behind it.")],
    review: Annotated[
        datetime,
        typer.Option(formats=["%Y-%m-%d"], help="When to ask whether it is still needed."),
    ],
    as_json: AsJson = False,
) -> int:
    """Place a hold. Records are named by key, never by a customer's name or number."""
    from include.holds import registry

    place = workplace()
    wanted, named = _kind(kind), value.strip()
    _require_known(place.pack, wanted, named)
    with local_stack(place):
        _require_keys(place, wanted, named)
        with place.state.begin() as conn:
            hold = registry.add(
                conn,
                place.clock,
                kind=wanted,
                value=named,
                reason=reason,
                owner=owner,
                case_ref=case,
                review_on=review.date(),
            )
        if not as_json:  # before tables are read, which may take minutes
            said = f"Hold {hold.id} on {hold.kind} {hold.value} counts from now on."
            print_line(said)
        found = _reach(place, hold)
    if as_json:
        print_json(_row(hold) | {"records": found})
    else:
        _tell_reach(found)
    return 0


def _require_keys(place: Workplace, kind: HoldKind, value: str) -> None:
    """Refuse a hold that no key can match. Unreachable databases do not prevent a hold."""
    from include.holds.registry import RECORD_KINDS
    from include.retention.hold_keys import can_keep, require_match
    from include.retention.postgres.key_types import UnusableKey

    if kind not in RECORD_KINDS:
        return
    answers: list[bool] = []
    for name, values in _databases(place.pack, value).items():
        rules = place.pack.retention_of(name)
        if not any(getattr(rule.keys, kind) for rule in rules):
            continue
        try:
            database = place.pack.database(name)
            address = place.database(database.connection)
            answers.append(can_keep(address, database, rules, kind, values))
        except UnusableKey:
            raise
        except ParcelSealError:
            answers.append(True)  # the hold is placed; `_reach` reports that it cannot count
    require_match(answers, kind)


def _databases(pack: PolicyPack, value: str) -> dict[str, set[str]]:
    """Return the databases to which a hold applies, each with the possible keys."""
    from include.holds.keys import split

    where, key = split(value)
    if where is not None and where in pack.databases:
        return {where: {value, key}}
    return {name: {value} for name in pack.databases}


def _reach(place: Workplace, hold: Hold) -> dict[str, dict[str, int]]:
    """Return the number of records under a hold by key, by database and record class.

    A message reports each database whose records cannot be counted; the result omits it.
    """
    from include.holds.registry import HoldKind
    from include.retention.database import RetentionDatabase
    from include.retention.hold_keys import count_held
    from include.workflow.run_context import RunContext

    found: dict[str, dict[str, int]] = {}
    if hold.kind in (HoldKind.CLASS, HoldKind.DATABASE, HoldKind.RESTORE_POINT):
        return found
    pack = place.pack
    for name in _databases(pack, hold.value):
        if not pack.retention_of(name):
            continue
        try:
            found[name] = count_held(RetentionDatabase(RunContext(place, None), name), hold)
        except ParcelSealError as error:
            print_note(
                f"The hold counts. How many records of {name} it is on could not be counted: "
                f"{error}"
            )
    return found


def _tell_reach(found: dict[str, dict[str, int]]) -> None:
    """Say how many records a hold is on, and above all when there is none."""
    several = len(found) > 1
    each = [
        f"{records:,} of {f'{database}/' if several else ''}{name}"
        for database, classes in found.items()
        for name, records in classes.items()
        if records
    ]
    if each:
        print_line(f"Records that it is on now: {', '.join(each)}.")
    elif found:
        errors.print(
            "No record is found by this key now. Compare it with the file of the case: a mistyped "
            "hold keeps nothing. To correct it, place the right one and release this.",
            soft_wrap=True,
        )


@app.command("list")
def list_(
    every: Annotated[bool, typer.Option("--all", help="Released ones too.")] = False,
    due: Annotated[
        bool, typer.Option("--due", help="Only those whose review date has come.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """List the holds that count now."""
    from include.holds import registry

    if every and due:
        raise UsageError("--all and --due exclude each other.", "Released holds are not reviewed.")
    place = workplace()
    today = place.clock.now().astimezone(place.pack.calendar.zone).date()
    with local_stack(place), place.state.connect() as conn:
        if due:
            holds = registry.due_for_review(conn, today)
        else:
            holds = registry.every(conn) if every else registry.active(conn)
    columns: Columns[Hold] = {
        **fields("id", "kind", "value", "reason", "owner"),
        "case": lambda hold: hold.case_ref,
        "placed (UTC)": lambda hold: f"{hold.placed_at:%Y-%m-%d %H:%M}",
        "review on": lambda hold: hold.review_on,
        "state": lambda hold: _state(hold, today),
    }
    nothing = "No hold is due for review." if due else "There is no hold."
    content = {"holds": [_row(hold) for hold in holds]}
    waiting = sum(_is_due(hold, today) for hold in holds)
    if print_list(as_json, content, holds, columns, nothing) and waiting:
        errors.print(f"Due for review: {waiting}. A hold counts until it is released.")
    return 0


@app.command("release")
def release(
    hold_id: Annotated[int, typer.Argument(metavar="ID", help="Its number in `hold list`.")],
    by: Annotated[str, typer.Option(help="Who releases it.")],
    reason: Annotated[str, typer.Option(help="Why it is no longer needed.")],
    as_json: AsJson = False,
) -> int:
    """End a hold; the next run disposes of what expired meanwhile. The registry keeps it."""
    from include.holds import registry

    with local_stack(workplace()) as place, place.state.begin() as conn:
        hold = registry.release(conn, place.clock, hold_id, released_by=by, reason=reason)
    text = f"Hold {hold.id} on {hold.kind} {hold.value} is released."
    return print_result(as_json, _row(hold), text)


def _row(hold: Hold) -> dict[str, Any]:
    return (
        json_row(hold, "id", "kind", "value", "reason", "owner")
        | {"case": hold.case_ref}
        | json_row(hold, "placed_at", "review_on", "released_at", "released_by", "release_reason")
    )


def _kind(typed: str) -> HoldKind:
    from include.holds.registry import HoldKind

    if typed not in list(HoldKind):
        raise UsageError("There is no such kind of hold.", f"There are: {', '.join(HoldKind)}.")
    return HoldKind(typed)


def _require_known(pack: PolicyPack, kind: HoldKind, value: str) -> None:
    """Refuse a hold that would keep nothing: a typo must not read as "held"."""
    from include.holds.keys import refuse_personal
    from include.holds.registry import RECORD_KINDS, HoldKind

    if kind not in RECORD_KINDS:
        refuse_personal("A hold's value", value)  # before a message repeats it
    if kind is HoldKind.DATABASE:
        pack.database(value)
        return
    database, named = require_prefix(pack, value)
    rules = pack.retention if database is None else pack.retention_of(database)
    where = f" of {database}" if database else ""
    if kind is HoldKind.CLASS:
        classes = [rule.record_class for rule in rules]
        if named not in classes:
            raise UsageError(
                f"The policy pack has no record class {named}{where}.",
                f"It has: {', '.join(classes) or 'none'}.",
            )
    elif kind is not HoldKind.RESTORE_POINT and rules:
        kinds = [one for one in HoldKind if any(getattr(rule.keys, one, ()) for rule in rules)]
        if kind not in kinds:
            raise UsageError(
                f"No record class{where} is found by {kind}: the hold would keep nothing.",
                f"Records are found by: {', '.join(kinds) or 'nothing'}. Hold their class, or add "
                "keys to retention.yaml.",
            )


def _is_due(hold: Hold, today: date) -> bool:
    return hold.released_at is None and hold.review_on <= today


def _state(hold: Hold, today: date) -> str:
    if hold.released_at is not None:
        return f"released {hold.released_at:%Y-%m-%d} by {hold.released_by}: {hold.release_reason}"
    return "review is due" if _is_due(hold, today) else ""
