"""The step of `enforce_retention` that executes the plan, and its findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from psycopg.sql import Identifier

from include.approvals import registry
from include.erasure import ledger
from include.erasure.ledger import require_no_entry_missing
from include.erasure.resolve import are_one_database, server_of
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.messages import Message, _
from include.retention.database import RetentionDatabase
from include.retention.execution import executor
from include.retention.execution.batch_actions import Kept
from include.retention.execution.counts import ExecutionCounts
from include.retention.execution.state import Progress
from include.retention.planning import breaker
from include.retention.planning.approval import plan_file, why
from include.retention.planning.breaker import Tripped
from include.retention.planning.plan import Plan
from include.retention.planning.plan_step import tripped as limits_tripped
from include.retention.planning.planner import make_plan
from include.retention.planning.schedule import schedule_of
from include.retention.postgres.session import ONE_CORE, prepare
from include.retention.postgres.transaction_counters import ChangedUnrecorded, SideEffect
from include.retention.results import ExecutionResult, PlanResult
from include.services.database import connected, scalar
from include.services.errors import UsageError

ANOTHER_DATABASE = (
    "Correct the address of {conn_id}. If the pack maps several databases, remove {conn_id}: each "
    "database is then worked on with its own connection ({mapped}), which needs the rights."
)


def execute(
    database: RetentionDatabase,
    findings: StepFindings,
    planned: PlanResult,
    progress: Progress = lambda _stage: None,
    alone: Callable[[], None] = lambda: None,
) -> ExecutionResult:
    """Execute the plan as far as it was approved or needs no approval.

    Safe to repeat and to kill at any point: see `include.retention.execution.executor`.

    Args:
        database: of the plan.
        findings: of the step.
        planned: result of the plan's step.
        progress: called with each stage, for tests.
        alone: raises if another execution may have begun meanwhile.

    Raises:
        ControlFailed: the plan was edited, rules or foreign keys changed, or the erasure ledger
            lacks entries of the database.
        UsageError: the connection that may delete leads to another database.
        ServiceError: a database failed, or others hold locks; repeat it.
    """
    run = database.run
    _require_one_database(database)
    with run.state.connect() as conn:
        require_no_entry_missing(conn, database.name)
    plan = plan_file(database, planned)
    exceeded = _tripped(database, planned, plan)
    # An approval covers only the classes that its request named.
    asked = {each.name for each in planned.tripped}
    approved = asked if _is_approved(database, planned, plan) else set()
    refused = [each for each in exceeded if each.name not in approved]
    allowed = {each.name for each in plan.classes} - {each.name for each in refused}
    schedule = schedule_of(database, plan.as_of)
    counts = executor.execute(database, plan, schedule, allowed, progress, alone)
    done = erased_by_class(database)
    unreached = {
        each.name: each.planned - done.get(each.name, 0)
        for each in plan.classes
        if each.name in allowed
    }
    staying = _staying(database, plan, unreached) if any(n > 0 for n in unreached.values()) else {}
    with run.state.begin() as conn:
        executed = {name: done.get(name, 0) for name in unreached}
        breaker.executed(conn, plan.database, database.run_key, executed)
    for each in refused:
        findings.find(
            "retention.not_approved",
            Outcome.ATTENTION,
            _(
                "{count} records stay, not approved; it was needed for {why}.",
                count=each.planned,
                why=why(each),
            ),
            _("If somebody rejected it, read why. If nobody answered, remind the approvers.")
            if each.name in asked
            else _("Others were erased since the question was put; the next run asks about these."),
            subject=each.name,
        )
    waiting = {name: more for name, more in counts.waiting.items() if name in allowed}
    _waiting(findings, waiting)
    _shortfalls(findings, counts)
    _side_effects(findings, counts, plan)
    _copies(findings, counts, database)
    entered = {name: records - counts.before.get(name, 0) for name, records in done.items()}
    return ExecutionResult(
        done=done,
        executed_as=database.writer.parameters.get("user"),
        counted=counts.done,
        entered={name: records for name, records in entered.items() if records},
        partitions=_dropped(database, plan),
        waiting=waiting,
        staying=staying,
        stopped=counts.stopped,
        refused={f"{name} {code}": records for (name, code), records in counts.refused.items()},
        inserted=counts.inserted,
        updated=counts.updated,
        busy=counts.busy,
        locked=counts.locked,
        knots=counts.large_cycles,
        given_up=sorted(counts.given_up),
        slow=sorted(counts.slow),
        longest_transaction_ms=round(counts.seconds * 1000),
        not_approved=[each.name for each in refused],
    )


def _require_one_database(database: RetentionDatabase) -> None:
    """Check that records would be deleted in the database in which the plan counted them.

    Raises:
        UsageError: the two connections lead to different databases.
        ServiceError: one of them cannot be reached.
    """
    reader, writer = database.reader, database.writer
    if reader == writer:
        return
    with connected(reader) as read, connected(writer) as written:
        if are_one_database(server_of(read), server_of(written)):
            return
    conn_id, mapped = database.disposition.connection, database.mapped.connection
    raise UsageError(
        f"The connection {conn_id} leads to another database than {mapped}, which is mapped as "
        f"{database.name}.",
        ANOTHER_DATABASE.format(conn_id=conn_id, mapped=mapped),
    )


def _staying(
    database: RetentionDatabase, plan: Plan, unreached: Mapping[str, int]
) -> dict[str, dict[str, int]]:
    """Count the planned records that remain by reason, by a new plan.

    Args:
        database: of the plan.
        plan: that was executed.
        unreached: record class -> planned records that were not erased.

    Returns:
        Record class -> reason -> records: ``held``, ``suspended``, ``kept_longer`` and
        ``kept_by_reference``, each in excess of the executed plan; ``due``, which could still be
        erased; and ``not_due``, which changed or no longer exist.
    """
    schedule = schedule_of(database, plan.as_of)
    asked = [request for request in schedule.requests if request.id in plan.requests]
    with database.reader.connect(autocommit=True) as connection:
        prepare(connection, database.mapped)
        now = make_plan(connection, replace(schedule, requests=asked), ONE_CORE)
    staying: dict[str, dict[str, int]] = {}
    for record_class in now.classes:
        name, left = record_class.name, unreached.get(record_class.name, 0)
        reasons = {}
        for reason in ("held", "suspended", "kept_longer", "kept_by_reference"):
            more = getattr(record_class, reason) - getattr(plan.of(name), reason)
            reasons[reason] = max(0, min(left, more))
            left -= reasons[reason]
        reasons["due"] = max(0, min(left, record_class.planned))
        reasons["not_due"] = max(0, left - reasons["due"])
        if any(reasons.values()):
            staying[name] = {reason: records for reason, records in reasons.items() if records}
    return staying


def _dropped(database: RetentionDatabase, plan: Plan) -> dict[str, int]:
    """Count the dropped partitions of the plan by class, over all tries of this run."""
    dropped = {}
    with database.reader.connect(autocommit=True) as connection:
        for planned in plan.classes:
            whole = plan.table(planned.collection).partitions if planned.to_drop_partitions else ()
            names = [Identifier(*each.table.split(".", 1)).as_string(connection) for each in whole]
            query = "SELECT count(*) FROM unnest(%s::text[]) AS n WHERE to_regclass(n) IS NULL"
            if number := scalar(connection, query, [names]):
                dropped[planned.name] = number
    return dropped


def _tripped(database: RetentionDatabase, planned: PlanResult, plan: Plan) -> list[Tripped]:
    """Return the classes that need approval, by the step of the plan and by the current counts.

    Other runs may have erased more of a class meanwhile. The result of the step, unlike the plan,
    is not bound to a hash.
    """
    known = {each.name for each in planned.tripped}
    return planned.tripped + [
        each for each in limits_tripped(database, plan) if each.name not in known
    ]


def _is_approved(database: RetentionDatabase, planned: PlanResult, plan: Plan) -> bool:
    """Return whether a second person approved this very plan.

    Raises:
        ControlFailed: the approval is of another plan.
    """
    if planned.request is None:
        return False
    with database.run.state.connect() as conn:
        decision = registry.decision_on(conn, planned.request)
        if decision is None or not decision.approved:
            return False
        registry.require(conn, planned.request, plan.sha256)
    return True


def erased_by_class(database: RetentionDatabase) -> dict[str, int]:
    """Return the records that this run erased, by class: from the ledger, over all its tries."""
    with database.run.state.connect() as conn:
        return ledger.erased_by_class(conn, database.name, *database.run_key)


def _waiting(findings: StepFindings, waiting: dict[str, int]) -> None:
    for name, records in sorted(waiting.items()):
        findings.find(
            "retention.waiting",
            Outcome.ATTENTION,
            _(
                "{count} records more than the plan says may go by now; they wait for the next "
                "plan.",
                count=records,
            ),
            _(
                "Nothing, if claims were closed or holds released since the plan. If not, see what "
                "changed the clock of the class."
            ),
            subject=name,
        )


def _shortfalls(findings: StepFindings, counts: ExecutionCounts) -> None:
    if counts.stopped:
        reason = (
            _("the run's time was used up")
            if counts.stopped == "budget"
            else _("the time of day in which records may be deleted ended")
        )
        findings.find(
            "retention.stopped",
            Outcome.ATTENTION,
            _("The execution stopped before its end: {reason}.", reason=reason),
            _(
                "The next run goes on. If it repeats, widen `window` or `budget` "
                "(disposition.yaml)."
            ),
        )
    for name, records in sorted(counts.locked.items()):
        findings.find(
            "retention.locked",
            Outcome.ATTENTION,
            _(
                "{count} records were not reached: statements on them took too long, or other "
                "sessions kept them locked.",
                count=records,
            )
            if name in counts.slow
            else _(
                "{count} records were not reached: other sessions kept them locked.", count=records
            ),
            _("See that every foreign key that leads to the table has an index on its columns.")
            if name in counts.slow
            else _("The next run tries again. If it repeats, see in pg_locks who locks them."),
            subject=name,
        )
    for name, records in sorted(counts.large_cycles.items()):
        findings.find(
            "retention.knot",
            Outcome.FAIL,
            _(
                "{count} records or more refer to each other in a circle that one transaction "
                "cannot delete.",
                count=records,
            ),
            _("Set one of the foreign keys of the circle to null: `detach` in retention.yaml."),
            subject=name,
        )
    for (name, code), records in sorted(counts.refused.items()):
        if code == ChangedUnrecorded.sqlstate:
            continue
        findings.find(
            "retention.refused",
            Outcome.FAIL,
            _("A trigger of the database kept {count} records and raised no error.", count=records)
            if code == Kept.sqlstate
            else _(
                "The database refused to let {count} records go (SQLSTATE {code}).",
                count=records,
                code=code,
            ),
            _("See its log: a trigger, a check, or a foreign key with RESTRICT forbids it."),
            subject=name,
        )


def _side_effects(findings: StepFindings, counts: ExecutionCounts, plan: Plan) -> None:
    """Report records that stay because erasing them changed other records too."""
    for name, effects in sorted(counts.side_effects.items()):
        records = counts.refused[name, ChangedUnrecorded.sqlstate]
        known = ", ".join(
            reaction.label for reaction in plan.reactions if reaction.kind != "publication"
        )
        for effect in effects.values():
            findings.find(
                "retention.side_effect",
                Outcome.FAIL,
                _effect(effect, records),
                _(
                    "Change the trigger or rule so that it does nothing for the database user that "
                    "erases. If it only updates, such as a counter, name the collection in "
                    "`triggers_update` in retention.yaml. The plan lists these triggers and rules: "
                    "{names}.",
                    names=known or "-",
                ),
                subject=name,
            )


def _copies(findings: StepFindings, counts: ExecutionCounts, database: RetentionDatabase) -> None:
    """Report personal data that triggers copied into tables without a record class."""
    classes = {rule.collection for rule in database.rules}
    for collection in database.mapped.collections.values():
        table = f"{collection.schema_name}.{collection.table}"
        copies = counts.inserted.get(table, 0)
        if copies and collection.name not in classes and collection.fields_about(()):
            findings.find(
                "retention.copied",
                Outcome.ATTENTION,
                _(
                    "While records were erased, triggers or rules inserted {count} records into "
                    "{table}, which has personal data and no record class. They may hold what was "
                    "erased.",
                    count=copies,
                    table=table,
                ),
                _("Say in retention.yaml how long the records of that table are kept."),
                subject=collection.name,
            )


def _effect(effect: SideEffect, records: int) -> Message:
    if effect.rewritten:
        return _(
            "{count} records stay: a trigger or rule emptied or altered {table} when they were "
            "erased, so the transaction was rolled back.",
            count=records,
            table=effect.table,
        )
    if effect.deleted > 0 or effect.updated > 0:
        return _(
            "{count} records stay: a trigger or rule also deleted {deleted} and changed {updated} "
            "records of {table} when they were erased, so the transaction was rolled back.",
            count=records,
            deleted=max(0, effect.deleted),
            updated=max(0, effect.updated),
            table=effect.table,
        )
    return _(
        "{count} records stay: fewer records of {table} were changed than their deletion requires, "
        "so the transaction was rolled back. A trigger or rule kept them, or another session "
        "changed them.",
        count=records,
        table=effect.table,
    )
