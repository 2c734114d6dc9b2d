"""``parcelseal retention``: show which records the next disposition would delete, mask or keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.cli.console import print_json, print_note, results
from include.cli.options import AsJson
from include.cli.stack import DEFAULT_CUSTOMERS, command_services, local_stack
from include.cli.table import Columns, fields, print_table
from include.services.errors import UsageError

if TYPE_CHECKING:
    from include.holds.registry import Hold
    from include.policy import PolicyPack
    from include.retention.planning.breaker import ExceededLimit
    from include.retention.planning.plan import Plan, PlannedClass

app = typer.Typer(no_args_is_help=True, help="Records that have expired by the retention schedule.")
NOT_MAPPED = "add this table to the data map"
COLUMNS: Columns[PlannedClass] = {
    "class": lambda planned: planned.name,
    **fields("records", "expired", "requested", "held", "suspended", "kept_longer", form=","),
    "referred to": lambda planned: f"{planned.kept_by_reference:,}",
    **fields("to_delete", "to_mask", form=","),
    "to drop": lambda planned: f"{planned.to_drop_partitions:,}",
}


@app.callback()
def commands() -> None:
    """Declare a group of commands, so that `plan` stays a subcommand.

    Without this function, typer would run `plan` as ``parcelseal retention``, because the group has
    only one command.
    """


@app.command("plan")
def plan(
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of",
            metavar="YYYY-MM-DD",
            help="Time for which the plan is made: a day, or a time with an offset. A future "
            "time gives a preview. Default: today.",
        ),
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="Plan only for this mapped database.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Show which records the next run of enforce_retention would delete, mask or keep.

    The command changes no data and requests no approval.
    """
    from include.holds.registry import holds_due_for_review
    from include.retention.database import RetentionDatabase
    from include.retention.planning.approval import has_approvers
    from include.retention.planning.plan import combined_sha256
    from include.retention.planning.plan_step import exceeded_limits
    from include.retention.planning.planner import plan_database
    from include.workflow.run_context import RunContext

    services = command_services()
    context, chosen = RunContext(services, None), _chosen(services.pack, database)
    with local_stack(services, customers=DEFAULT_CUSTOMERS):
        databases = {name: RetentionDatabase(context, name) for name in chosen}
        plans = [
            plan_database(retention_database, as_of, is_preview=True)
            for retention_database in databases.values()
        ]
        waits = {plan.database: exceeded_limits(databases[plan.database], plan) for plan in plans}
        stuck = {
            plan.database
            for plan in plans
            if waits[plan.database] and not has_approvers(databases[plan.database], plan)
        }
        with services.state.connect() as conn:
            reviews = holds_due_for_review(conn, context.today)
    if as_json:
        print_json({"plan_hash": combined_sha256(plans), "classes": list(_classes(plans, waits))})
        return 0
    for plan in plans:
        _show(plan, several=len(plans) > 1)
        for limit in waits[plan.database]:
            print_note(
                f"{limit.name} will need an approval: {limit.planned:,} records"
                + (f" after {limit.recent:,} of the last day" if limit.recent else "")
                + f", allowed {limit.allowed:,} ({limit.cause})."
            )
        if plan.database in stuck:
            print_note(
                "The plan has no approver: name owners and approvers in disposition.yaml. "
                "They must "
                "be different people."
            )
        _print_triggers(plan)
    if len(plans) > 1:
        results.print(f"All plans: SHA-256 {combined_sha256(plans)}", soft_wrap=True)
    left_out = [name for name in services.pack.databases if name not in chosen and database is None]
    if left_out:
        print_note(f"{', '.join(left_out)} has no record class, so its records never expire.")
    _print_reviews(reviews)
    return 0


def _chosen(pack: PolicyPack, name: str | None) -> list[str]:
    """Return the names of the databases that get a disposition plan.

    Args:
        pack: the policy pack.
        name: value of the option ``--database``. None selects all databases that have record
            classes.

    Raises:
        UsageError: the database is unknown, or the policy pack has no record class for it.
    """
    if name is not None:
        pack.database(name)
    if not pack.retention:
        raise UsageError(
            "The policy pack has no retention.yaml, so records never expire.",
            f"Write {pack.folder / 'retention.yaml'}: docs/reference/policy-pack/retention.md.",
        )
    databases = [
        database
        for database in pack.databases
        if pack.retention_of(database) and name in (None, database)
    ]
    if not databases:
        raise UsageError(
            f"retention.yaml has no record class of {name}, so its records never expire.",
            "Add one: docs/reference/policy-pack/retention.md.",
        )
    return databases


def _classes(
    plans: Sequence[Plan], waits: Mapping[str, Sequence[ExceededLimit]]
) -> Iterator[dict[str, Any]]:
    for plan in plans:
        causes = {limit.name: limit.cause for limit in waits[plan.database]}
        for record_class in plan.classes:
            where = {"database": plan.database} if len(plans) > 1 else {}
            yield (
                where
                | record_class.as_json()
                | {"waits_for_approval": causes.get(record_class.name)}
            )


def _show(plan: Plan, *, several: bool) -> None:
    where = f"{plan.database}, " if several else ""
    results.print(f"{where}as of {plan.as_of:%Y-%m-%d %H:%M %z}", soft_wrap=True)
    print_table(plan.classes, COLUMNS)
    if stays := [row for planned in plan.classes for row in _stays(planned)]:
        results.print("Expired records that are kept, by cause; a record may have several causes:")
        names = ("class", "records", "kept by", "note")
        print_table(stays, {name: itemgetter(at) for at, name in enumerate(names)})
    results.print(f"Plan of {plan.database}: SHA-256 {plan.sha256}", soft_wrap=True)


def _stays(planned: PlannedClass) -> Iterator[tuple[str, str, str, str]]:
    for hold in planned.held_by:
        yield planned.name, f"{hold.records:,}", f"hold {hold.hold}", ""
    if planned.suspended:
        yield planned.name, f"{planned.suspended:,}", "`suspended` of retention.yaml", ""
    if planned.kept_longer:
        yield planned.name, f"{planned.kept_longer:,}", "another class of its collection", ""
    for key in planned.referred_by:
        note = NOT_MAPPED if key.collection is None else ""
        yield planned.name, f"{key.records:,}", f"{key.table}, foreign key {key.constraint}", note


def _print_triggers(plan: Plan) -> None:
    """Print triggers and rules of tables, because they may prevent the disposition of records.

    Args:
        plan: the disposition plan.
    """
    names = [reaction.label for reaction in plan.reactions if reaction.kind != "publication"]
    if names:
        print_note(
            f"Triggers and rules on these tables: {', '.join(names)}. If they change other mapped "
            "records, the deletion or mask is rolled back; `triggers_update` of the record class "
            "allows updates (docs/explanation/retention-execution.md)."
        )


def _print_reviews(reviews: Sequence[Hold]) -> None:
    if reviews:
        named = ", ".join(str(review.id) for review in reviews)
        print_note(
            f"The review of these holds is due: {named}. A hold stays in force until it is "
            f"released."
        )
