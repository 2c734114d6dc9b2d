"""The step of `enforce_retention` that executes the disposition plan and reports findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from psycopg.sql import Identifier

from include.approvals import registry
from include.erasure import ledger
from include.erasure.ledger import require_no_missing_entry
from include.erasure.resolve import is_same_database, server_of
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.messages import Message, _, listed
from include.retention.database import RetentionDatabase
from include.retention.execution import executor
from include.retention.execution.batch_actions import KeptByTrigger
from include.retention.execution.counts import ExecutionCounts
from include.retention.execution.state import Progress
from include.retention.planning import breaker
from include.retention.planning.approval import describe_limit, read_plan_file
from include.retention.planning.breaker import ExceededLimit
from include.retention.planning.plan import Plan
from include.retention.planning.plan_step import exceeded_limits as limits_tripped
from include.retention.planning.planner import make_plan
from include.retention.planning.schedule import schedule_of
from include.retention.postgres.session import ONE_CORE, prepare_session
from include.retention.postgres.transaction_counters import SideEffect, UnrecordedChanges
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
    """Execute the disposition plan for the record classes that are approved or need no approval.

    The function may be called again after an error, and its process may be killed at any time
    (`include.retention.execution.executor`).

    Args:
        database: database of the plan.
        findings: collector of the findings of the execution step.
        planned: result of the planning step.
        progress: function that is called at each stage of the execution with the name of the stage;
            for tests.
        alone: function that is called before each commit; it raises an error if another execution
            may have begun.

    Raises:
        ControlFailed: the plan file was edited, record classes or foreign keys changed after the
            plan was made, or entries of the database are missing in the erasure ledger.
        UsageError: the login that may delete connects to another database.
        ServiceError: a database failed, or other sessions hold locks. The step can be retried.
    """
    run = database.run
    findings.subject_titles |= database.subject_titles
    _require_one_database(database)
    with run.state.connect() as conn:
        require_no_missing_entry(conn, database.name)
    plan = read_plan_file(database, planned)
    exceeded = _exceeded_limits(database, planned, plan)
    # An approval covers only the classes that its request named.
    requested = {limit.name for limit in planned.tripped}
    approved = requested if _is_approved(database, planned, plan) else set()
    refused = [limit for limit in exceeded if limit.name not in approved]
    allowed = {planned_class.name for planned_class in plan.classes} - {
        limit.name for limit in refused
    }
    schedule = schedule_of(database, plan.as_of)
    counts = executor.execute(database, plan, schedule, allowed, progress, alone)
    done = erased_by_class(database)
    unreached = {
        planned_class.name: planned_class.planned - done.get(planned_class.name, 0)
        for planned_class in plan.classes
        if planned_class.name in allowed
    }
    staying = (
        _count_staying(database, plan, unreached) if any(n > 0 for n in unreached.values()) else {}
    )
    with run.state.begin() as conn:
        executed = {name: done.get(name, 0) for name in unreached}
        breaker.enter_execution(conn, plan.database, database.run_key, executed)
    for limit in refused:
        findings.find(
            "retention.not_approved",
            Outcome.ATTENTION,
            _(
                "{count} records remain, because their disposition was not approved. The approval "
                "was required for this reason: {reason}.",
                count=limit.planned,
                reason=describe_limit(limit),
            ),
            _(
                "If the approval request was rejected, read the reason. If it was not "
                "answered, remind the approvers."
            )
            if limit.name in requested
            else _(
                "Answer the approval request of the next run. This run did not request an "
                "approval for this record class: the limit was exceeded only later, because "
                "other records of the class were disposed of in the meantime."
            ),
            subject=limit.name,
        )
    waiting = {name: more for name, more in counts.waiting.items() if name in allowed}
    _report_waiting(findings, waiting)
    _report_shortfalls(findings, counts)
    _report_side_effects(findings, counts, plan)
    _report_copies(findings, counts, database)
    entered = {name: records - counts.before.get(name, 0) for name, records in done.items()}
    return ExecutionResult(
        done=done,
        executed_as=database.writer.parameters.get("user"),
        counted=counts.done,
        entered={name: records for name, records in entered.items() if records},
        partitions=_count_dropped_partitions(database, plan),
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
        not_approved=[limit.name for limit in refused],
    )


def _require_one_database(database: RetentionDatabase) -> None:
    """Check that the login that may delete connects to the database for which the plan was made.

    Args:
        database: database of the plan.

    Raises:
        UsageError: the connection with this login and the read-only connection lead to different
            databases.
        ServiceError: one of the connections cannot be opened.
    """
    reader, writer = database.reader, database.writer
    if reader == writer:
        return
    with connected(reader) as read, connected(writer) as written:
        if is_same_database(server_of(read), server_of(written)):
            return
    conn_id, mapped = database.disposition.connection, database.mapped.connection
    raise UsageError(
        f"The connection {conn_id} leads to another database than {mapped}, the connection of "
        f"{database.name} in the data map.",
        ANOTHER_DATABASE.format(conn_id=conn_id, mapped=mapped),
    )


def _count_staying(
    database: RetentionDatabase, plan: Plan, unreached: Mapping[str, int]
) -> dict[str, dict[str, int]]:
    """Count the planned records that were not erased, by the reason why they remain.

    The function makes a new plan and compares it with the executed plan.

    Args:
        database: database of the plan.
        plan: the executed plan.
        unreached: record class -> number of planned records that were not erased.

    Returns:
        Record class -> reason -> number of records. The reasons ``held``, ``suspended``,
        ``kept_longer`` and ``kept_by_reference`` apply to records that the new plan keeps and the
        executed plan did not keep. ``due`` counts records that can still be erased, and ``not_due``
        records that were changed or no longer exist.
    """
    schedule = schedule_of(database, plan.as_of)
    planned_requests = [request for request in schedule.requests if request.id in plan.requests]
    with database.reader.connect(autocommit=True) as connection:
        prepare_session(connection, database.mapped)
        now = make_plan(connection, replace(schedule, requests=planned_requests), ONE_CORE)
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


def _count_dropped_partitions(database: RetentionDatabase, plan: Plan) -> dict[str, int]:
    """Count the planned partitions that no longer exist, by record class.

    The numbers include partitions that earlier attempts of this run dropped.
    """
    dropped = {}
    with database.reader.connect(autocommit=True) as connection:
        for planned in plan.classes:
            partitions = (
                plan.table(planned.collection).partitions if planned.to_drop_partitions else ()
            )
            names = [
                Identifier(*partition.table.split(".", 1)).as_string(connection)
                for partition in partitions
            ]
            query = "SELECT count(*) FROM unnest(%s::text[]) AS n WHERE to_regclass(n) IS NULL"
            if number := scalar(connection, query, [names]):
                dropped[planned.name] = number
    return dropped


def _exceeded_limits(
    database: RetentionDatabase, planned: PlanResult, plan: Plan
) -> list[ExceededLimit]:
    """Return the exceeded limits that make an approval necessary.

    These are the limits that were exceeded according to the planning step, and the limits that are
    exceeded since then. The limits are checked again for two reasons:

    - Other runs may have erased records of a record class after the plan was made.
    - The approval covers the hash of the plan file, but not the result of the planning step.

    Args:
        database: database of the plan.
        planned: result of the planning step.
        plan: the plan to execute.
    """
    names = {limit.name for limit in planned.tripped}
    return planned.tripped + [
        limit for limit in limits_tripped(database, plan) if limit.name not in names
    ]


def _is_approved(database: RetentionDatabase, planned: PlanResult, plan: Plan) -> bool:
    """Return whether an approver approved exactly this plan.

    Args:
        database: database of the plan.
        planned: result of the planning step.
        plan: the plan to execute.

    Raises:
        ControlFailed: the approval is for another plan.
    """
    if planned.request is None:
        return False
    with database.run.state.connect() as conn:
        decision = registry.decision_on(conn, planned.request)
        if decision is None or not decision.approved:
            return False
        registry.require_approval(conn, planned.request, plan.sha256)
    return True


def erased_by_class(database: RetentionDatabase) -> dict[str, int]:
    """Return how many records all attempts of this run erased, by record class.

    The numbers are read from the erasure ledger.
    """
    with database.run.state.connect() as conn:
        return ledger.count_erased_by_class(conn, database.name, *database.run_key)


def _report_waiting(findings: StepFindings, waiting: dict[str, int]) -> None:
    for name, records in sorted(waiting.items()):
        findings.find(
            "retention.waiting",
            Outcome.ATTENTION,
            _(
                "{count} more records became due for disposition after the plan was made. The "
                "next plan will contain them.",
                count=records,
            ),
            _(
                "No action is required if claims were closed or legal holds released after the "
                "plan was made. Otherwise check why the start of the retention period of these "
                "records changed."
            ),
            subject=name,
        )


def _report_shortfalls(findings: StepFindings, counts: ExecutionCounts) -> None:
    if counts.stopped:
        reason = (
            _("the time limit of the run expired")
            if counts.stopped == "budget"
            else _("the daily window for deletions ended")
        )
        findings.find(
            "retention.stopped",
            Outcome.ATTENTION,
            _("The execution ended early: {reason}.", reason=reason),
            _(
                "Wait for the next run, which continues. If this repeats, extend the daily window "
                "or the time limit for deletions."
            ),
            for_engineers=_("Change `window` or `budget` in `disposition.yaml`."),
        )
    for name, records in sorted(counts.locked.items()):
        findings.find(
            "retention.locked",
            Outcome.ATTENTION,
            _(
                "{count} records were not disposed of: database statements timed out, or other "
                "database sessions locked the records.",
                count=records,
            )
            if name in counts.slow
            else _(
                "{count} records were not disposed of: other database sessions locked them.",
                count=records,
            ),
            _(
                "Check that every foreign key that refers to the table of this record class has "
                "an index on its columns."
            )
            if name in counts.slow
            else _(
                "Wait for the next run, which tries again. If this repeats, find out which program "
                "locks the records."
            ),
            subject=name,
            for_engineers=_("`pg_locks` shows the sessions that hold locks."),
        )
    for name, records in sorted(counts.large_cycles.items()):
        findings.find(
            "retention.knot",
            Outcome.FAIL,
            _(
                "At least {count} records remain: they refer to each other in a cycle that is "
                "too large for one transaction.",
                count=records,
            ),
            _(
                "Ask the data engineers to set one foreign key of the cycle to null before the "
                "deletion."
            ),
            subject=name,
            for_engineers=_("Name a nullable foreign key under `detach` in `retention.yaml`."),
        )
    for (name, code), records in sorted(counts.refused.items()):
        if code == UnrecordedChanges.sqlstate:
            continue
        is_trigger = code == KeptByTrigger.sqlstate
        findings.find(
            "retention.refused",
            Outcome.FAIL,
            _(
                "A database trigger prevented the disposition of {count} records and reported "
                "no error.",
                count=records,
            )
            if is_trigger
            else _("The database refused the disposition of {count} records.", count=records),
            _(
                "Find the cause in the log of the database: a trigger, a check constraint or a "
                "foreign key that forbids the deletion."
            ),
            subject=name,
            for_engineers=None if is_trigger else _("The SQLSTATE is `{code}`.", code=code),
        )


def _report_side_effects(findings: StepFindings, counts: ExecutionCounts, plan: Plan) -> None:
    """Report records that were kept because triggers or rules would have changed other records.

    Args:
        findings: collector of the findings of the execution step.
        counts: numbers of records that the execution changed or did not change.
        plan: the executed plan.
    """
    for name, effects in sorted(counts.side_effects.items()):
        records = counts.refused[name, UnrecordedChanges.sqlstate]
        reactions = [
            reaction.label for reaction in plan.reactions if reaction.kind != "publication"
        ]
        for effect in effects.values():
            findings.find(
                "retention.side_effect",
                Outcome.FAIL,
                _describe_side_effect(effect, records),
                _(
                    "Change the trigger or rule so that it has no effect for the database user "
                    "that deletes records. If it only updates records, such as a counter, allow "
                    "these updates in the retention schedule. The plan lists these triggers "
                    "and rules: {names}.",
                    names=listed(reactions) if reactions else "-",
                ),
                subject=name,
                for_engineers=_(
                    "Name the collection of the updated records under `triggers_update` in "
                    "`retention.yaml`."
                ),
            )


def _report_copies(
    findings: StepFindings, counts: ExecutionCounts, database: RetentionDatabase
) -> None:
    """Report personal data that triggers copied into tables that have no record class.

    Args:
        findings: collector of the findings of the execution step.
        counts: numbers of records that the execution changed or did not change.
        database: database of the plan.
    """
    classes = {rule.collection for rule in database.rules}
    for collection in database.mapped.collections.values():
        table = f"{collection.schema_name}.{collection.table}"
        copies = counts.inserted.get(table, 0)
        if copies and collection.name not in classes and collection.fields_about(()):
            findings.find(
                "retention.copied",
                Outcome.ATTENTION,
                _(
                    "During the disposition, triggers or rules inserted {count} records into "
                    "{table}, which contains personal data and has no record class. These "
                    "records may contain deleted data.",
                    count=copies,
                    table=table,
                ),
                _("Define a retention period for the records of this table."),
                subject=collection.name,
                for_engineers=_("Add a record class for the table to `retention.yaml`."),
            )


def _describe_side_effect(effect: SideEffect, records: int) -> Message:
    if effect.rewritten:
        return _(
            "{count} records remain: during their disposition, a trigger or rule emptied or "
            "altered {table}, so the transaction was rolled back.",
            count=records,
            table=effect.table,
        )
    if effect.deleted > 0 or effect.updated > 0:
        return _(
            "{count} records remain: during their disposition, a trigger or rule also deleted "
            "{deleted} and changed {updated} records of {table}, so the transaction was rolled "
            "back.",
            count=records,
            deleted=max(0, effect.deleted),
            updated=max(0, effect.updated),
            table=effect.table,
        )
    return _(
        "{count} records remain: the database changed fewer rows of {table} than expected, so "
        "the transaction was rolled back. A trigger or rule prevented the change, or another "
        "session changed the records.",
        count=records,
        table=effect.table,
    )
