"""Execute a disposition plan: mask records, then delete records.

If a record refers to another record, the referring record is deleted first. Records of a
foreign-key cycle are deleted together. The execution can be killed and repeated at any time. Each
transaction checks the legal holds, and writes the keys of its records to the erasure ledger before
it commits (`include.erasure.ledger`). All attempts of the step together erase at most the planned
number of records.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import psycopg
from sqlalchemy import text
from sqlalchemy.exc import OperationalError as StateLost
from sqlalchemy.exc import PendingRollbackError

from include.erasure import ledger
from include.erasure.masks import masks_of
from include.erasure.matching import check_keys, require_same_secrets
from include.erasure.resolve import resolve, server_of
from include.erasure.tables import primary_key_types, table_names_of
from include.holds.records import HoldGuard
from include.retention.database import RetentionDatabase
from include.retention.execution import batches, cycles, partitions
from include.retention.execution.batch_actions import Deleting, Masking
from include.retention.execution.counts import ExecutionCounts
from include.retention.execution.state import ExecutionState, Progress
from include.retention.planning.plan import Plan
from include.retention.planning.planner import make_plan
from include.retention.planning.schedule import Schedule
from include.retention.planning.subjects import store_request_records
from include.retention.postgres.session import (
    ONE_CORE,
    WRITE_AT_ONCE,
    open_snapshot,
    prepare_session,
    require_clocks_agree,
    translate_errors,
)
from include.services.errors import ControlFailed, ServiceError

MAX_ROUNDS = 1000  # passes over a cycle; each pass shortens a chain of references by one record
ROUNDS_OF_A_CHAIN = 20  # passes after which the rest of a chain is deleted in one statement

# While a batch waits for a lock on the ledger, it keeps its records locked.
LEDGER_LIMITS = text(
    "SELECT set_config('lock_timeout', '5s', false), set_config('statement_timeout', '60s', false)"
)


def execute(
    target: RetentionDatabase,
    plan: Plan,
    schedule: Schedule,
    allowed: Collection[str],
    progress: Progress = lambda _stage: None,
    confirm_alone: Callable[[], None] = lambda: None,
) -> ExecutionCounts:
    """Execute a disposition plan for the allowed record classes.

    Args:
        target: database of the plan.
        plan: the disposition plan.
        schedule: retention schedule at the time of the plan, with the current legal holds and
            erasure requests.
        allowed: record classes that are approved or need no approval.
        progress: function that is called at each stage of the execution with the name of the stage;
            for tests.
        confirm_alone: function that is called before each commit; it raises an error if another
            execution may have begun.

    Returns:
        The numbers of records that this call changed or did not change.

    Raises:
        ControlFailed: the policy pack or the database changed after the plan was made, or the
            system clock was set back.
        UsageError: a right or an HMAC key of the erasure ledger is missing.
        ServiceError: a database failed, or other sessions hold locks. The call can be repeated.
    """
    with target.writer.connect(autocommit=True) as connection:
        # A statement after a lock must see earlier commits, even if the server's default differs.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        prepare_session(connection, schedule.database)
        try:
            with translate_errors(connection, target.name):
                return _execute(
                    target, connection, plan, schedule, frozenset(allowed), progress, confirm_alone
                )
        except (
            psycopg.OperationalError,
            psycopg.errors.IdleInTransactionSessionTimeout,  # while the ledger did not answer
        ) as error:
            raise _lost_error(f"The database {target.name} was lost", error.sqlstate) from None
        except (StateLost, PendingRollbackError) as error:  # the second follows a lost session
            code = getattr(getattr(error, "orig", None), "sqlstate", None)
            raise _lost_error("The state database was lost, or kept us waiting", code) from None


def _lost_error(problem: str, sqlstate: str | None) -> ServiceError:
    return ServiceError(
        f"{problem} (SQLSTATE {sqlstate or 'none'}).",
        "Completed deletions are in the erasure ledger. Airflow retries the task.",
    )


def _execute(
    target: RetentionDatabase,
    connection: psycopg.Connection[Any],
    plan: Plan,
    schedule: Schedule,
    allowed: frozenset[str],
    progress: Progress,
    confirm_alone: Callable[[], None],
) -> ExecutionCounts:
    engine, clock = target.run.state, target.run.clock
    require_clocks_agree(connection, engine, clock)
    with engine.connect() as conn:
        others = ledger.key_ids_except(conn, schedule.keys.keys)
    check_keys({plan.key_id, *others}, schedule.keys)
    require_same_secrets(engine, schedule.keys, clock.now())
    places = table_names_of(schedule.database)
    collections = {rule.collection for rule in schedule.rules}
    key_types = {name: primary_key_types(connection, places[name]) for name in collections}
    masks = masks_of(schedule.rules)
    resolve(engine, connection, plan.database, places, schedule.keys, clock.now(), masks)
    schedule = store_request_records(connection, engine, clock, schedule)
    requests = [request for request in schedule.requests if request.id in plan.requests]
    schedule = replace(schedule, requests=requests)
    with engine.connect() as conn:
        before = ledger.count_erased_by_class(conn, plan.database, *target.run_key)
    live = make_plan(connection, schedule, ONE_CORE)
    require_same_rules(plan, live)
    with open_snapshot(connection, schedule.database):
        graph = schedule.graph(connection)
    with HoldGuard(engine, plan.database) as guard, engine.connect() as conn:
        with conn.begin():
            conn.execute(LEDGER_LIMITS)
            ledger.psycopg_connection(conn).execute(WRITE_AT_ONCE, {"is_local": False})
        state = ExecutionState(
            database=target,
            connection=connection,
            ledger=conn,
            guard=guard,
            schedule=schedule,
            graph=graph,
            plan=plan,
            allowed=allowed,
            budget_end=clock.now() + target.disposition.budget.span,
            server=server_of(connection),
            key_types=key_types,
            confirm_alone=confirm_alone,
            progress=progress,
        )
        state.counts.before = before
        state.counts.waiting = count_excess(plan, live, before)
        dispose_of_records(state)
        return state.counts


def dispose_of_records(state: ExecutionState) -> None:
    """Mask and delete the planned records that have no reason to stay."""
    for record_class in state.graph.masking:
        if state.remaining_allowance(record_class.name):
            if state.graph.may_make_untraceable(record_class.rule.collection):
                state.store_request_records()
            batches.process_class(state, Masking(record_class))
            batches.count_locked(state, Masking(record_class))
    for group in state.graph.groups:
        _delete_group(state, group)


def _delete_group(state: ExecutionState, group: tuple[str, ...]) -> None:
    """Delete the planned records of a single collection or of a foreign-key cycle.

    A single collection is processed once. A foreign-key cycle is processed repeatedly until none of
    its records can be deleted.

    Args:
        state: the execution.
        group: names of the collections of a foreign-key cycle, or the name of a single collection.
    """
    graph, counts = state.graph, state.counts
    is_cycle = graph.is_cycle(group)
    deleting = [
        record_class
        for name in group
        for record_class in graph.classes[name]
        if record_class.rule.deletes
    ]
    can_delete_cycle = is_cycle and not any(map(state.unapproved_classes, deleting))
    has_allowance = any(state.remaining_allowance(record_class.name) for record_class in deleting)
    if has_allowance and any(map(graph.may_make_untraceable, group)):
        state.store_request_records()
    for number in range(MAX_ROUNDS if is_cycle else 1):
        deleted = 0
        for record_class in deleting:
            if not state.remaining_allowance(record_class.name) or counts.stopped:
                continue
            unapproved = state.unapproved_classes(record_class)
            if record_class.rule.action == "drop_partition" and not unapproved:
                partitions.drop_planned_partitions(state, record_class)
            passes = 1 if is_cycle else batches.PASSES
            deleted += batches.process_class(state, Deleting(record_class, unapproved), passes)
        is_long = number % ROUNDS_OF_A_CHAIN == ROUNDS_OF_A_CHAIN - 1
        if can_delete_cycle and (not deleted or is_long) and not counts.stopped:
            deleted += cycles.delete_cycle(state, group)
        if not deleted or counts.stopped:
            break
    for record_class in deleting:
        batches.count_locked(state, Deleting(record_class, state.unapproved_classes(record_class)))


def require_same_rules(plan: Plan, live: Plan) -> None:
    """Check that record classes and foreign keys did not change after a plan was made.

    Args:
        plan: the plan to execute.
        live: a new plan, made from the current record classes and foreign keys.

    Raises:
        ControlFailed: record classes or foreign keys changed.
    """
    approved_rules, live_rules = (
        [(planned.name, planned.rule_sha256, planned.action) for planned in compared_plan.classes]
        for compared_plan in (plan, live)
    )
    if approved_rules != live_rules:
        raise _invalid_plan_error(
            f"retention.yaml was changed after the plan of {plan.database} was made"
        )
    before, after = (
        (
            compared_plan.order,
            [(table.collection, table.references) for table in compared_plan.tables],
        )
        for compared_plan in (plan, live)
    )
    if before != after:
        raise _invalid_plan_error(
            f"foreign keys of {plan.database} were changed after the plan was made"
        )


def count_excess(plan: Plan, live: Plan, done: Mapping[str, int]) -> dict[str, int]:
    """Count the records that could be erased now but were not planned, by record class.

    Such records exist, for example, if a legal hold was released after the plan was made. They wait
    for the next plan, since a run erases at most the planned number
    (`ExecutionState.remaining_allowance`).

    Args:
        plan: the plan to execute.
        live: a new plan, made from the current records.
        done: record class -> number of records that this run has already erased.
    """
    more = {
        planned.name: planned.planned + done.get(planned.name, 0) - plan.of(planned.name).planned
        for planned in live.classes
    }
    return {name: records for name, records in more.items() if records > 0}


def _invalid_plan_error(reason: str) -> ControlFailed:
    return ControlFailed(
        f"The plan is no longer valid: {reason}.",
        "Nothing more was deleted. Run the workflow again: it makes a new plan and requests "
        "approval again.",
    )
