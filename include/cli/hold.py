"""``parcelseal hold``: place, list and release legal holds on records."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.cli.console import errors, json_row, print_json, print_line, print_note, print_result
from include.cli.options import AsJson, require_prefix
from include.cli.stack import command_services, local_stack
from include.cli.table import Columns, fields, print_list
from include.services.errors import ParcelSealError, UsageError

if TYPE_CHECKING:
    from include.holds.registry import Hold, HoldKind
    from include.policy import PolicyPack
    from include.service_container import Services

app = typer.Typer(no_args_is_help=True, help="Legal holds: records that must not be deleted.")

Kind = Annotated[
    str,
    typer.Argument(
        help="What the value identifies: subject, waybill, case, class, database or restore_point."
    ),
]
Value = Annotated[
    str,
    typer.Argument(
        help="Key of the data subject or waybill, number of the case, name of the class or "
        "database, or id of the restore point. VALUE applies to every database, DATABASE/VALUE "
        "to one database."
    ),
]


@app.command("add")
def add(
    kind: Kind,
    value: Value,
    reason: Annotated[
        str, typer.Option(help="Reason for the hold. Certificates of deletion show this text.")
    ],
    owner: Annotated[str, typer.Option(help="Person responsible for the hold.")],
    case: Annotated[str, typer.Option(help="Number of the case, claim or order.")],
    review: Annotated[
        datetime,
        typer.Option(formats=["%Y-%m-%d"], help="Day on which a person reviews the hold."),
    ],
    as_json: AsJson = False,
) -> int:
    """Place a legal hold. Identify records by key, never by a customer's name or phone number."""
    from include.holds import registry

    services = command_services()
    hold_kind, named = _kind(kind), value.strip()
    _require_known(services.pack, hold_kind, named)
    with local_stack(services):
        _require_keys(services, hold_kind, named)
        with services.state.begin() as conn:
            hold = registry.add(
                conn,
                services.clock,
                kind=hold_kind,
                value=named,
                reason=reason,
                owner=owner,
                case_ref=case,
                review_on=review.date(),
            )
        if not as_json:  # before the tables are read, which may take minutes
            print_line(f"Hold {hold.id} on {hold.kind} {hold.value} is in force.")
        reach = _reach(services, hold)
    if as_json:
        print_json(_row(hold) | {"records": reach})
    else:
        _print_reach(reach)
    return 0


def _require_keys(services: Services, kind: HoldKind, value: str) -> None:
    """Raise UsageError if no record can have the key of a hold, such as text for a numeric column.

    If a database is unreachable, the hold is accepted without this check.

    Args:
        services: connections and policy pack.
        kind: kind of object to which the hold applies, such as a data subject.
        value: value of the legal hold, which contains the key.
    """
    from include.holds.registry import RECORD_KINDS
    from include.retention.hold_keys import can_match, require_matching_hold
    from include.retention.postgres.key_types import UnusableKey

    if kind not in RECORD_KINDS:
        return
    answers: list[bool] = []
    for name, values in _databases(services.pack, value).items():
        rules = services.pack.retention_of(name)
        if not any(getattr(rule.keys, kind) for rule in rules):
            continue
        try:
            database = services.pack.database(name)
            address = services.database(database.connection)
            answers.append(can_match(address, database, rules, kind, values))
        except UnusableKey:
            raise
        except ParcelSealError:
            answers.append(True)  # the hold is placed; `_reach` reports that it cannot count
    require_matching_hold(answers, kind)


def _databases(pack: PolicyPack, value: str) -> dict[str, set[str]]:
    """Return the databases to which a legal hold applies, with the record keys that it may mean.

    The text before a slash in the value may be the name of a mapped database. In that case the hold
    applies only to this database, and its key is either the text after the slash or the whole
    value. Otherwise the hold applies to all databases, and its key is the whole value.

    Args:
        pack: the policy pack.
        value: value of the legal hold.

    Returns:
        Database -> possible keys.
    """
    from include.holds.keys import split_key

    where, key = split_key(value)
    if where is not None and where in pack.databases:
        return {where: {value, key}}
    return {name: {value} for name in pack.databases}


def _reach(services: Services, hold: Hold) -> dict[str, dict[str, int]]:
    """Count the records that a legal hold keeps, for each database and record class.

    The result is empty if the hold applies to a whole record class, database or restore point. If
    the records of a database cannot be counted, a message is printed and the database is missing in
    the result.
    """
    from include.holds.registry import HoldKind
    from include.retention.database import RetentionDatabase
    from include.retention.hold_keys import count_on_hold
    from include.workflow.run_context import RunContext

    reach: dict[str, dict[str, int]] = {}
    if hold.kind in (HoldKind.CLASS, HoldKind.DATABASE, HoldKind.RESTORE_POINT):
        return reach
    pack = services.pack
    for name in _databases(pack, hold.value):
        if not pack.retention_of(name):
            continue
        try:
            reach[name] = count_on_hold(RetentionDatabase(RunContext(services, None), name), hold)
        except ParcelSealError as error:
            print_note(
                f"The hold is in force, but its records in {name} could not be counted: {error}"
            )
    return reach


def _print_reach(reach: dict[str, dict[str, int]]) -> None:
    """Print the number of records that a legal hold keeps, and warn if it keeps no record.

    Args:
        reach: database -> record class -> number of records.
    """
    several = len(reach) > 1
    kept = [
        f"{records:,} of {f'{database}/' if several else ''}{name}"
        for database, classes in reach.items()
        for name, records in classes.items()
        if records
    ]
    if kept:
        print_line(f"Records under this hold now: {', '.join(kept)}.")
    elif reach:
        errors.print(
            "No record matches this key now. Compare the key with the case file: a hold with a "
            "mistyped key keeps no records. To correct it, place the right hold and release this "
            "hold.",
            soft_wrap=True,
        )


@app.command("list")
def list_(
    every: Annotated[bool, typer.Option("--all", help="Include released holds.")] = False,
    due: Annotated[
        bool, typer.Option("--due", help="List only holds whose review is due.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """List the active legal holds."""
    from include.holds import registry

    if every and due:
        raise UsageError("--all and --due exclude each other.", "Released holds are not reviewed.")
    services = command_services()
    today = services.clock.now().astimezone(services.pack.calendar.zone).date()
    with local_stack(services), services.state.connect() as conn:
        if due:
            holds = registry.holds_due_for_review(conn, today)
        else:
            holds = registry.all_holds(conn) if every else registry.active_holds(conn)
    columns: Columns[Hold] = {
        **fields("id", "kind", "value", "reason", "owner"),
        "case": lambda hold: hold.case_ref,
        "placed (UTC)": lambda hold: f"{hold.placed_at:%Y-%m-%d %H:%M}",
        "review on": lambda hold: hold.review_on,
        "state": lambda hold: _state(hold, today),
    }
    nothing = "No hold is due for review." if due else "There are no holds."
    content = {"holds": [_row(hold) for hold in holds]}
    waiting = sum(_is_due(hold, today) for hold in holds)
    if print_list(as_json, content, holds, columns, nothing) and waiting:
        errors.print(f"Due for review: {waiting}. A hold stays in force until it is released.")
    return 0


@app.command("release")
def release(
    hold_id: Annotated[
        int, typer.Argument(metavar="ID", help="Number of the hold in `hold list`.")
    ],
    by: Annotated[str, typer.Option(help="User id of the person who releases the hold.")],
    reason: Annotated[str, typer.Option(help="Reason for the release.")],
    as_json: AsJson = False,
) -> int:
    """Release a legal hold, so that enforce_retention may dispose of the records that were on hold.

    The register keeps the released hold.
    """
    from include.holds import registry

    with local_stack(command_services()) as services, services.state.begin() as conn:
        hold = registry.release(conn, services.clock, hold_id, released_by=by, reason=reason)
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
        raise UsageError("The kind of hold is unknown.", f"Use one of: {', '.join(HoldKind)}.")
    return HoldKind(typed)


def _require_known(pack: PolicyPack, kind: HoldKind, value: str) -> None:
    """Raise UsageError if a legal hold would keep no records, for example after a typing error.

    Args:
        pack: the policy pack.
        kind: kind of object to which the hold applies, such as a record class.
        value: value of the legal hold, such as the name of the record class.
    """
    from include.holds.keys import refuse_personal
    from include.holds.registry import RECORD_KINDS, HoldKind

    if kind not in RECORD_KINDS:
        refuse_personal("The value of a hold", value)  # before an error message repeats the value
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
        kinds = [
            key_kind
            for key_kind in HoldKind
            if any(getattr(rule.keys, key_kind, ()) for rule in rules)
        ]
        if kind not in kinds:
            raise UsageError(
                f"No record class{where} has keys of the kind {kind}: the hold would keep no "
                f"records.",
                f"The kinds with keys are: {', '.join(kinds) or 'none'}. Place a hold on the "
                f"record "
                "class, or add keys to retention.yaml.",
            )


def _is_due(hold: Hold, today: date) -> bool:
    return hold.released_at is None and hold.review_on <= today


def _state(hold: Hold, today: date) -> str:
    if hold.released_at is not None:
        return f"released {hold.released_at:%Y-%m-%d} by {hold.released_by}: {hold.release_reason}"
    return "review is due" if _is_due(hold, today) else "in force"
