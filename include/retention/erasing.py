"""The step of `enforce_retention` that erases: what of the plan may go, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from psycopg.sql import Identifier

from include.approvals import registry
from include.erasure import ledger
from include.erasure.entry_losses import require_no_entry_missing
from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import StepFindings
from include.messages import Message, _
from include.retention import breaker
from include.retention.acts import Kept
from include.retention.breaker import Tripped
from include.retention.desk import Desk
from include.retention.execute import Executor
from include.retention.names import CLAUSE, STEP_EXECUTE
from include.retention.plan import Plan
from include.retention.planning import make_plan
from include.retention.question import why
from include.retention.session import ONE_CORE, prepare
from include.retention.steps import planned
from include.retention.steps import tripped as limits_tripped
from include.retention.tally import Tally
from include.retention.transaction_counters import ChangedUnrecorded, SideEffect
from include.retention.work import Progress


def execute(
    desk: Desk,
    record: StepRecord,
    progress: Progress | None = None,
    alone: Callable[[], None] = lambda: None,
) -> StepRecord:
    """Execute the plan as far as it was approved or needs no approval.

    Safe to repeat and to kill at any point: see `include.retention.execute`.

    Args:
        desk: of the database.
        record: of the plan.
        progress: is told each stage, for tests.
        alone: raises where another execution may have begun meanwhile.

    Raises:
        ControlFailed: the plan was edited, rules or foreign keys are others since, or the erasure
            ledger lacks entries of the database.
        UsageError: the connection that may delete leads to another database.
        ServiceError: a database failed, or others hold locks; repeat it.
    """
    desk.require_one_database()
    with desk.state.connect() as conn:
        require_no_entry_missing(conn, desk.database.name)
    seen = StepFindings(STEP_EXECUTE, CLAUSE, part=desk.database.name)
    made = planned(desk, record)
    tripped = _tripped(desk, record, made)
    # An answer is to what the question named: a class that came to need one since has none.
    asked = {one["name"] for one in record.data["tripped"]}
    approved = asked if _approved(desk, record, made) else set()
    refused = [one for one in tripped if one.name not in approved]
    allowed = {one.name for one in made.classes} - {one.name for one in refused}
    executor = Executor(
        writer=desk.writer,
        state=desk.state,
        rules=desk.disposition,
        clock=desk.clock,
        dag_id=desk.dag_id,
        run_id=desk.run_id,
        alone=alone,
        progress=progress or (lambda _stage: None),
    )
    tally = executor.execute(made, desk.schedule(made.as_of), allowed)
    done = done_of(desk)
    unreached = {
        one.name: one.planned - done.get(one.name, 0) for one in made.classes if one.name in allowed
    }
    staying = _staying(desk, made, unreached) if any(n > 0 for n in unreached.values()) else {}
    with desk.state.begin() as conn:
        executed = {one.name: done.get(one.name, 0) for one in made.classes if one.name in allowed}
        breaker.executed(conn, made.database, desk.run, executed)
    for one in refused:
        seen.find(
            "retention.not_approved",
            Outcome.ATTENTION,
            _(
                "{count} records stay, not approved; it was needed for {why}.",
                count=one.planned,
                why=why(one),
            ),
            _("If somebody rejected it, read why. If nobody answered, remind the approvers.")
            if one.name in asked
            else _("Others were erased since the question was put; the next run asks about these."),
            subject=one.name,
        )
    waiting = {name: more for name, more in tally.waiting.items() if name in allowed}
    _waiting(seen, waiting)
    _shortfalls(seen, tally)
    _side_effects(seen, tally, made)
    _copies(seen, tally, desk)
    return seen.record(
        {
            "done": done,
            "executed_as": desk.writer.parameters.get("user"),
            "counted": tally.done,
            "entered": {
                name: entered
                for name in done
                if (entered := done[name] - tally.before.get(name, 0))
            },
            "partitions": _dropped(desk, made),
            "waiting": waiting,
            "staying": staying,
            "stopped": tally.stopped,
            "refused": {f"{name} {code}": n for (name, code), n in tally.refused.items()},
            "inserted": tally.inserted,
            "updated": tally.updated,
            "busy": tally.busy,
            "locked": tally.locked,
            "knots": tally.knots,
            "given_up": sorted(tally.given_up),
            "slow": sorted(tally.slow),
            "longest_transaction_ms": round(tally.seconds * 1000),
            "not_approved": [one.name for one in refused],
        }
    )


def _staying(desk: Desk, plan: Plan, unreached: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Count why planned records are still there, as a plan of now says it.

    Args:
        desk: of the database.
        plan: that was executed.
        unreached: record class -> planned records that were not erased.

    Returns:
        Record class -> reason -> records: ``held``, ``suspended``, ``kept_longer`` and
        ``kept_by_reference``, as many more as in the plan that was executed, ``due``, which could
        still go, and ``not_due``, which changed or are gone.
    """
    schedule = desk.schedule(plan.as_of)
    asked = [request for request in schedule.requests if request.id in plan.requests]
    with desk.reader.connect(autocommit=True) as connection:
        prepare(connection, desk.database)
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


def _dropped(desk: Desk, made: Plan) -> dict[str, int]:
    """Partitions of the plan that are gone, by class: over all tries of this run."""
    gone = {}
    with desk.reader.connect(autocommit=True) as connection:
        for one in made.classes:
            planned = made.table(one.collection).partitions if one.to_drop_partitions else ()
            names = [
                Identifier(*each.table.split(".", 1)).as_string(connection) for each in planned
            ]
            row = connection.execute(
                "SELECT count(*) FROM unnest(%s::text[]) AS n WHERE to_regclass(n) IS NULL",
                [names],
            ).fetchone()
            if row is not None and row[0]:
                gone[one.name] = int(row[0])
    return gone


def _tripped(desk: Desk, record: StepRecord, made: Plan) -> list[Tripped]:
    """The classes that need a second person: by the plan's step, and by what counts now.

    Other runs may have erased more of a class meanwhile; and what the step wrote down is not bound
    to a hash, as the plan is.
    """
    then = [Tripped(**one) for one in record.data["tripped"]]
    known = {one.name for one in then}
    return then + [one for one in limits_tripped(desk, made) if one.name not in known]


def _approved(desk: Desk, record: StepRecord, made: Plan) -> bool:
    """Whether a second person approved this very plan.

    Raises:
        ControlFailed: the approval is of another plan.
    """
    if "request" not in record.data:
        return False
    request = int(record.data["request"])
    with desk.state.connect() as conn:
        decision = registry.decision_on(conn, request)
        if decision is None or not decision.approved:
            return False
        registry.require(conn, request, made.sha256)
    return True


def done_of(desk: Desk) -> dict[str, int]:
    """Records that this run erased, by class: the ledger says so, over all its tries."""
    with desk.state.connect() as conn:
        return ledger.erased_by_class(conn, desk.database.name, *desk.run)


def _waiting(seen: StepFindings, waiting: dict[str, int]) -> None:
    for name, records in sorted(waiting.items()):
        seen.find(
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


def _shortfalls(seen: StepFindings, tally: Tally) -> None:
    if tally.stopped:
        reason = (
            _("the run's time was used up")
            if tally.stopped == "budget"
            else _("the time of day in which records may be deleted ended")
        )
        seen.find(
            "retention.stopped",
            Outcome.ATTENTION,
            _("The execution stopped before its end: {reason}.", reason=reason),
            _(
                "The next run goes on. If it repeats, widen `window` or `budget` "
                "(disposition.yaml)."
            ),
        )
    for name, records in sorted(tally.locked.items()):
        seen.find(
            "retention.locked",
            Outcome.ATTENTION,
            _(
                "{count} records were not reached: statements on them took too long, or other "
                "sessions kept them locked.",
                count=records,
            )
            if name in tally.slow
            else _(
                "{count} records were not reached: other sessions kept them locked.", count=records
            ),
            _("See that every foreign key that leads to the table has an index on its columns.")
            if name in tally.slow
            else _("The next run tries again. If it repeats, see in pg_locks who locks them."),
            subject=name,
        )
    for name, records in sorted(tally.knots.items()):
        seen.find(
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
    for (name, code), records in sorted(tally.refused.items()):
        if code == ChangedUnrecorded.sqlstate:
            continue
        seen.find(
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


def _side_effects(seen: StepFindings, tally: Tally, made: Plan) -> None:
    """Report records that stay because erasing them changed other records too."""
    for name, effects in sorted(tally.side_effects.items()):
        records = tally.refused[name, ChangedUnrecorded.sqlstate]
        known = ", ".join(one.label for one in made.reactions if one.kind != "publication")
        for effect in effects.values():
            seen.find(
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


def _copies(seen: StepFindings, tally: Tally, desk: Desk) -> None:
    """Report personal data that triggers copied into tables without a record class."""
    classes = {rule.collection for rule in desk.rules}
    for collection in desk.database.collections.values():
        table = f"{collection.schema_name}.{collection.table}"
        copies = tally.inserted.get(table, 0)
        if copies and collection.name not in classes and collection.fields_about(()):
            seen.find(
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
