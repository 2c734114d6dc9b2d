"""``parcelseal retention``: what would be deleted and masked, and what stays and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.cli.console import print_json, print_note, results
from include.cli.options import AsJson
from include.cli.stack import DEFAULT_CUSTOMERS, local_stack, workplace
from include.cli.table import Columns, fields, print_table
from include.services.errors import UsageError

if TYPE_CHECKING:
    from include.holds.registry import Hold
    from include.policy import PolicyPack
    from include.retention.planning.breaker import Tripped
    from include.retention.planning.plan import Plan, PlannedClass

app = typer.Typer(no_args_is_help=True, help="What is over by the retention schedule.")
NOT_MAPPED = "it is not in the data map: add it there"
COLUMNS: Columns[PlannedClass] = {
    "class": lambda planned: planned.name,
    **fields("records", "expired", "requested", "held", "suspended", "kept_longer", form=","),
    "referred to": lambda planned: f"{planned.kept_by_reference:,}",
    **fields("to_delete", "to_mask", form=","),
    "to drop": lambda planned: f"{planned.to_drop_partitions:,}",
}


@app.callback()
def commands() -> None:
    """Keep `plan` a word of its own, as of a group with several commands."""


@app.command("plan")
def plan(
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of",
            metavar="YYYY-MM-DD",
            help="Day, or moment with offset, for which records are over; a future one is a "
            "preview. Without it: today.",
        ),
    ] = None,
    database: Annotated[str | None, typer.Option(help="Database of the data map.")] = None,
    as_json: AsJson = False,
) -> int:
    """Show what a run of enforce_retention would do; reads only, asks nobody, keeps nothing."""
    from include.holds.registry import due_for_review
    from include.retention.database import RetentionDatabase
    from include.retention.planning.approval import may_be_approved
    from include.retention.planning.plan import combined
    from include.retention.planning.plan_step import tripped
    from include.retention.planning.planner import plan_of
    from include.workflow.run_context import RunContext

    place = workplace()
    context, chosen = RunContext(place, None), _chosen(place.pack, database)
    with local_stack(place, customers=DEFAULT_CUSTOMERS):
        databases = {name: RetentionDatabase(context, name) for name in chosen}
        plans = [plan_of(each, as_of, is_preview=True) for each in databases.values()]
        waits = {plan.database: tripped(databases[plan.database], plan) for plan in plans}
        stuck = {
            plan.database
            for plan in plans
            if waits[plan.database] and not may_be_approved(databases[plan.database], plan)
        }
        with place.state.connect() as conn:
            reviews = due_for_review(conn, context.today)
    if as_json:
        print_json({"plan_hash": combined(plans), "classes": list(_classes(plans, waits))})
        return 0
    for one in plans:
        _show(one, several=len(plans) > 1)
        for each in waits[one.database]:
            print_note(
                f"{each.name} will wait for a second person: {each.planned:,} records"
                + (f" after {each.recent:,} of the last day" if each.recent else "")
                + f", allowed {each.allowed:,} ({each.cause})."
            )
        if one.database in stuck:
            print_note(
                "Nobody may approve it: name owners and approvers, who are different people, in "
                "disposition.yaml."
            )
        _tell_triggers(one)
    if len(plans) > 1:
        results.print(f"All plans: SHA-256 {combined(plans)}", soft_wrap=True)
    left_out = [one for one in place.pack.databases if one not in chosen and database is None]
    if left_out:
        print_note(f"No record class is of {', '.join(left_out)}: nothing there ever expires.")
    _tell_reviews(reviews)
    return 0


def _chosen(pack: PolicyPack, asked: str | None) -> list[str]:
    """The databases to plan for: those with record classes."""
    if asked is not None:
        pack.database(asked)
    if not pack.retention:
        raise UsageError(
            "The policy pack has no retention.yaml: nothing ever expires.",
            f"Write {pack.folder / 'retention.yaml'}; docs/policy-pack.md has every key.",
        )
    found = [one for one in pack.databases if pack.retention_of(one) and asked in (None, one)]
    if not found:
        raise UsageError(
            f"retention.yaml has no record class of {asked}: nothing of it ever expires.",
            "Add one; docs/policy-pack.md has every key.",
        )
    return found


def _classes(
    plans: Sequence[Plan], waits: Mapping[str, Sequence[Tripped]]
) -> Iterator[dict[str, Any]]:
    for one in plans:
        causes = {each.name: each.cause for each in waits[one.database]}
        for found in one.classes:
            where = {"database": one.database} if len(plans) > 1 else {}
            yield where | found.as_json() | {"waits_for_approval": causes.get(found.name)}


def _show(plan: Plan, *, several: bool) -> None:
    where = f"{plan.database}, " if several else ""
    results.print(f"{where}as of {plan.as_of:%Y-%m-%d %H:%M %z}", soft_wrap=True)
    print_table(plan.classes, COLUMNS)
    if stays := [row for one in plan.classes for row in _stays(one)]:
        results.print("What keeps records that are over; one may be kept by several:")
        names = ("class", "records", "kept by", "note")
        print_table(stays, {name: itemgetter(at) for at, name in enumerate(names)})
    results.print(f"Plan of {plan.database}: SHA-256 {plan.sha256}", soft_wrap=True)


def _stays(one: PlannedClass) -> Iterator[tuple[str, str, str, str]]:
    for hold in one.held_by:
        yield one.name, f"{hold.records:,}", f"hold {hold.hold}", ""
    if one.suspended:
        yield one.name, f"{one.suspended:,}", "`suspended` of retention.yaml", ""
    if one.kept_longer:
        yield one.name, f"{one.kept_longer:,}", "another class of its collection", ""
    for key in one.referred_by:
        note = NOT_MAPPED if key.collection is None else ""
        yield one.name, f"{key.records:,}", f"{key.table}, foreign key {key.constraint}", note


def _tell_triggers(plan: Plan) -> None:
    """Name triggers and rules, which may make the run keep records."""
    names = [one.label for one in plan.reactions if one.kind != "publication"]
    if names:
        print_note(
            f"Triggers and rules that react: {', '.join(names)}. A deletion or mask in which they "
            "change other mapped records is rolled back; `triggers_update` of the class allows "
            "updates (docs/retention.md)."
        )


def _tell_reviews(reviews: Sequence[Hold]) -> None:
    if reviews:
        named = ", ".join(str(one.id) for one in reviews)
        print_note(f"Past their review date: hold {named}. Each counts until it is released.")
