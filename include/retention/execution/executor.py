"""Execute an approved plan: mask first, then delete children before parents, then cycles.

The execution can be repeated and killed at any point. The ledger has the records of a transaction
before it commits (`include.erasure.ledger`), each transaction checks the holds, and no more records
are erased than planned, however often the step is tried.
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
from include.erasure.places import places_of, types_of_key
from include.erasure.resolve import resolve, server_of
from include.holds.records import HoldGuard
from include.retention.database import RetentionDatabase
from include.retention.execution import batches, cycles, partitions
from include.retention.execution.batch_actions import Deleting, Masking
from include.retention.execution.counts import ExecutionCounts
from include.retention.execution.state import ExecutionState, Progress
from include.retention.planning.plan import Plan
from include.retention.planning.planner import make_plan
from include.retention.planning.schedule import Schedule
from include.retention.planning.subjects import remember
from include.retention.postgres.session import (
    ONE_CORE,
    WRITE_AT_ONCE,
    one_view,
    prepare,
    refusals,
    require_agreement,
)
from include.services.errors import ControlFailed, ServiceError

MOST_ROUNDS = 1000  # passes over records that refer to each other; each shortens a chain by one
ROUNDS_OF_A_CHAIN = 20  # after which the rest is deleted at once if possible

# A session that keeps the ledger locked would keep the records of a batch locked with it.
LEDGER_LIMITS = text(
    "SELECT set_config('lock_timeout', '5s', false), set_config('statement_timeout', '60s', false)"
)


def execute(
    target: RetentionDatabase,
    plan: Plan,
    schedule: Schedule,
    allowed: Collection[str],
    progress: Progress = lambda _stage: None,
    alone: Callable[[], None] = lambda: None,
) -> ExecutionCounts:
    """Execute a plan as far as it is still valid.

    Args:
        target: the database.
        plan: was approved, or needed no approval.
        schedule: as the plan's, with the current holds and requests.
        allowed: record classes that may be executed.
        progress: called with each stage, for tests.
        alone: raises if another execution may have begun meanwhile.

    Returns:
        The records that this call disposed of, and those that it left.

    Raises:
        ControlFailed: the pack or the database changed since the plan, or the clock was set back.
        UsageError: a right is missing, or a key of the ledger.
        ServiceError: a database failed, or others hold locks; repeat it.
    """
    with target.writer.connect(autocommit=True) as connection:
        # A statement after a lock must see earlier commits, whatever the server's default is.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        prepare(connection, schedule.database)
        try:
            with refusals(connection, target.name):
                return _execute(
                    target, connection, plan, schedule, frozenset(allowed), progress, alone
                )
        except (
            psycopg.OperationalError,
            psycopg.errors.IdleInTransactionSessionTimeout,  # while the ledger did not answer
        ) as error:
            raise _lost(f"The database {target.name} was lost", error.sqlstate) from None
        except (StateLost, PendingRollbackError) as error:  # the latter: lost a statement earlier
            code = getattr(getattr(error, "orig", None), "sqlstate", None)
            raise _lost("The state database was lost, or kept us waiting", code) from None


def _lost(what: str, sqlstate: str | None) -> ServiceError:
    return ServiceError(
        f"{what} (SQLSTATE {sqlstate or 'none'}).",
        "What was done stays done and is in the ledger; the task is repeated.",
    )


def _execute(
    target: RetentionDatabase,
    connection: psycopg.Connection[Any],
    plan: Plan,
    schedule: Schedule,
    allowed: frozenset[str],
    progress: Progress,
    alone: Callable[[], None],
) -> ExecutionCounts:
    engine, clock = target.run.state, target.run.clock
    require_agreement(connection, engine, clock)
    with engine.connect() as conn:
        others = ledger.keys_other_than(conn, schedule.keys.keys)
    check_keys({plan.key_id, *others}, schedule.keys)
    require_same_secrets(engine, schedule.keys, clock.now())
    places = places_of(schedule.database)
    collections = {rule.collection for rule in schedule.rules}
    key_types = {name: types_of_key(connection, places[name]) for name in collections}
    masks = masks_of(schedule.rules)
    resolve(engine, connection, plan.database, places, schedule.keys, clock.now(), masks)
    schedule = remember(connection, engine, clock, schedule)
    requests = [request for request in schedule.requests if request.id in plan.requests]
    schedule = replace(schedule, requests=requests)
    with engine.connect() as conn:
        before = ledger.erased_by_class(conn, plan.database, *target.run_key)
    live = make_plan(connection, schedule, ONE_CORE)
    require_same_rules(plan, live)
    with one_view(connection, schedule.database):
        graph = schedule.graph(connection)
    with HoldGuard(engine, plan.database) as guard, engine.connect() as conn:
        with conn.begin():
            conn.execute(LEDGER_LIMITS)
            ledger.driver_of(conn).execute(WRITE_AT_ONCE, {"is_local": False})
        state = ExecutionState(
            database=target,
            connection=connection,
            ledger=conn,
            guard=guard,
            schedule=schedule,
            graph=graph,
            plan=plan,
            allowed=allowed,
            until=clock.now() + target.disposition.budget.span,
            server=server_of(connection),
            key_types=key_types,
            alone=alone,
            progress=progress,
        )
        state.counts.before = before
        state.counts.waiting = waiting(plan, live, before)
        dispose(state)
        return state.counts


def dispose(state: ExecutionState) -> None:
    """Mask and delete the records that the plan allows and that nothing keeps."""
    for record_class in state.graph.masking:
        if state.left(record_class.name):
            if state.graph.loses_subjects(record_class.rule.collection):
                state.remember_requests()
            batches.walk(state, Masking(record_class))
            batches.count_locked(state, Masking(record_class))
    for group in state.graph.groups:
        _empty(state, group)


def _empty(state: ExecutionState, group: tuple[str, ...]) -> None:
    """Delete the records of a group: in one pass, or for a cycle until no more can be deleted."""
    graph, counts = state.graph, state.counts
    is_cycle = graph.is_cycle(group)
    deleting = [it for name in group for it in graph.classes[name] if it.rule.deletes]
    can_delete_cycle = is_cycle and not any(map(state.unapproved, deleting))
    if any(state.left(it.name) for it in deleting) and any(map(graph.loses_subjects, group)):
        state.remember_requests()
    for number in range(MOST_ROUNDS if is_cycle else 1):
        deleted = 0
        for record_class in deleting:
            if not state.left(record_class.name) or counts.stopped:
                continue
            unapproved = state.unapproved(record_class)
            if record_class.rule.action == "drop_partition" and not unapproved:
                partitions.drop_whole(state, record_class)
            passes = 1 if is_cycle else batches.PASSES
            deleted += batches.walk(state, Deleting(record_class, unapproved), passes)
        is_long = number % ROUNDS_OF_A_CHAIN == ROUNDS_OF_A_CHAIN - 1
        if can_delete_cycle and (not deleted or is_long) and not counts.stopped:
            deleted += cycles.delete_cycle(state, group)
        if not deleted or counts.stopped:
            break
    for record_class in deleting:
        batches.count_locked(state, Deleting(record_class, state.unapproved(record_class)))


def require_same_rules(plan: Plan, live: Plan) -> None:
    """Refuse a plan if rules or foreign keys changed since it was made.

    Args:
        plan: the approved plan.
        live: the plan as it would be made now.

    Raises:
        ControlFailed: they changed.
    """
    then, now = (
        [(planned.name, planned.rule_sha256, planned.action) for planned in each.classes]
        for each in (plan, live)
    )
    if then != now:
        raise _void(f"retention.yaml was changed after the plan of {plan.database} was made")
    before, after = (
        (each.order, [(table.collection, table.references) for table in each.tables])
        for each in (plan, live)
    )
    if before != after:
        raise _void(f"foreign keys of {plan.database} were changed after the plan was made")


def waiting(plan: Plan, live: Plan, done: Mapping[str, int]) -> dict[str, int]:
    """Return the erasable records in excess of the plan, by class.

    For example, a claim was closed or a hold released since the plan. They wait for the next plan,
    since a run erases at most as many records as planned (`ExecutionState.left`).

    Args:
        plan: the approved plan.
        live: the plan as it would be made now.
        done: records that this run has erased already, by class.
    """
    more = {
        planned.name: planned.planned + done.get(planned.name, 0) - plan.of(planned.name).planned
        for planned in live.classes
    }
    return {name: records for name, records in more.items() if records > 0}


def _void(reason: str) -> ControlFailed:
    return ControlFailed(
        f"The plan is no longer valid: {reason}.",
        "Nothing more was deleted. Run the workflow again: it makes a new plan and requests "
        "approval again.",
    )
