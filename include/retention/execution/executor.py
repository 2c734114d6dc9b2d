"""Executing an approved plan: masking first, then children before parents, then cycles.

Safe to repeat and to kill at any point. What a transaction erased stands in the ledger before it
commits (`include.erasure.ledger`), holds are asked inside of each, and never more goes than the
plan says, however often the step is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from sqlalchemy import text
from sqlalchemy.exc import OperationalError as StateLost
from sqlalchemy.exc import PendingRollbackError

from include.erasure import ledger
from include.erasure.masks import masks_of
from include.erasure.matching import check_keys, require_same
from include.erasure.places import places_of, types_of_key
from include.erasure.resolve import resolve, server_of
from include.holds.records import HoldGuard
from include.retention.database import RetentionDatabase
from include.retention.execution import batches, cycles, partitions
from include.retention.execution.batch_actions import Deleting, Masking
from include.retention.execution.counts import ExecutionCounts
from include.retention.execution.state import ExecutionState, Limits, Progress
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
ROUNDS_OF_A_CHAIN = 20  # after which the rest is tried at once

# Somebody who keeps the ledger locked would keep the records of a batch locked with it.
LEDGER_LIMITS = text(
    "SELECT set_config('lock_timeout', '5s', false), set_config('statement_timeout', '60s', false)"
)


@dataclass(frozen=True)
class Executor:
    """Executes plans of one database.

    Attributes:
        target: the database.
        progress: called with each stage, for tests.
        alone: raises if another execution may have begun meanwhile.
    """

    target: RetentionDatabase
    progress: Progress = lambda _stage: None
    alone: Callable[[], None] = lambda: None

    def execute(self, plan: Plan, schedule: Schedule, allowed: Collection[str]) -> ExecutionCounts:
        """Execute a plan as far as it still holds.

        Args:
            plan: what was approved, or needed no approval.
            schedule: as the plan's, with the holds and requests of now.
            allowed: record classes that may be executed.

        Returns:
            What was done by this call, and what was not.

        Raises:
            ControlFailed: the plan is not what the pack and the database say now, or the clock
                was set back.
            UsageError: a right is missing, or a key of the ledger.
            ServiceError: a database failed, or others hold locks; repeat it.
        """
        database = schedule.database
        with self.target.writer.connect(autocommit=True) as connection:
            # What came in before a lock has to be seen after it, whatever the server's default is.
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            prepare(connection, database)
            try:
                with refusals(connection, database.name):
                    return self._execute(connection, plan, schedule, frozenset(allowed))
            except (
                psycopg.OperationalError,
                psycopg.errors.IdleInTransactionSessionTimeout,  # while the ledger did not answer
            ) as error:
                raise ServiceError(
                    f"The database {database.name} was lost (SQLSTATE {error.sqlstate or 'none'}).",
                    "What was done stays done and is in the ledger; the task is repeated.",
                ) from None
            except (
                StateLost,
                PendingRollbackError,
            ) as error:  # the latter: in the statement before
                code = getattr(getattr(error, "orig", None), "sqlstate", None)
                raise ServiceError(
                    f"The state database was lost, or kept us waiting (SQLSTATE {code or 'none'}).",
                    "What was done stays done and is in the ledger; the task is repeated.",
                ) from None

    def _execute(
        self,
        connection: psycopg.Connection[Any],
        plan: Plan,
        schedule: Schedule,
        allowed: frozenset[str],
    ) -> ExecutionCounts:
        state, clock = self.target.run.state, self.target.run.clock
        require_agreement(connection, state, clock)
        with state.connect() as conn:
            others = ledger.keys_other_than(conn, schedule.keys.keys)
        check_keys({plan.key_id, *others}, schedule.keys)
        require_same(state, schedule.keys, clock.now())
        places = places_of(schedule.database)
        collections = {rule.collection for rule in schedule.rules}
        key_types = {name: types_of_key(connection, places[name]) for name in collections}
        resolve(
            state,
            connection,
            plan.database,
            places,
            schedule.keys,
            clock.now(),
            masks_of(schedule.rules),
        )
        schedule = remember(connection, state, clock, schedule)
        asked = [request for request in schedule.requests if request.id in plan.requests]
        schedule = replace(schedule, requests=asked)
        with state.connect() as conn:
            before = ledger.erased_by_class(conn, plan.database, *self.target.run_key)
        live = make_plan(connection, schedule, ONE_CORE)
        require_same_rules(plan, live)
        with one_view(connection, schedule.database):
            graph = schedule.graph(connection)
        with (
            HoldGuard(state, plan.database) as guard,
            state.connect() as conn,
        ):
            with conn.begin():
                conn.execute(LEDGER_LIMITS)
                ledger.driver_of(conn).execute(WRITE_AT_ONCE, {"is_local": False})
            work = ExecutionState(
                connection=connection,
                ledger=conn,
                guard=guard,
                schedule=schedule,
                graph=graph,
                plan=plan,
                allowed=allowed,
                limits=self._limits(schedule),
                server=server_of(connection),
                key_types=key_types,
                dag_id=self.target.run.run.dag_id,
                run_id=self.target.run.run.run_id,
                alone=self.alone,
                progress=self.progress,
            )
            work.tally.before = before
            work.tally.waiting = waiting(plan, live, before)
            dispose(work)
            return work.tally

    def _limits(self, schedule: Schedule) -> Limits:
        rules, clock = self.target.disposition, self.target.run.clock
        until = clock.now() + rules.budget.span
        return Limits(until, rules, clock, ZoneInfo(schedule.timezone))


def dispose(work: ExecutionState) -> None:
    """Mask and delete everything that the plan allows and that may go."""
    for record_class in work.graph.masking:
        if work.left(record_class.name):
            if work.graph.loses_subjects(record_class.rule.collection):
                work.remember_requests()
            batches.walk(work, record_class, Masking(record_class))
            batches.count_locked(work, record_class, Masking(record_class))
    for group in work.graph.groups:
        _empty(work, group)


def _empty(work: ExecutionState, group: tuple[str, ...]) -> None:
    """Delete what may go of a group: in one pass, or of a circle until nothing goes any more."""
    is_circle = work.graph.is_circle(group)
    deleting = [it for name in group for it in work.graph.classes[name] if it.rule.deletes]
    can_untie = is_circle and not any(work.unapproved(one) for one in deleting)
    if any(work.left(one.name) for one in deleting) and any(map(work.graph.loses_subjects, group)):
        work.remember_requests()
    for _round in range(MOST_ROUNDS if is_circle else 1):
        gone = 0
        for name in group:
            for one in work.graph.classes[name]:
                if not one.rule.deletes or not work.left(one.name) or work.tally.stopped:
                    continue
                unapproved = work.unapproved(one)
                if one.rule.action == "drop_partition" and not unapproved:
                    partitions.drop_whole(work, one)
                passes = 1 if is_circle else batches.PASSES
                gone += batches.walk(work, one, Deleting(one, unapproved), passes)
        is_long = _round % ROUNDS_OF_A_CHAIN == ROUNDS_OF_A_CHAIN - 1
        if can_untie and (not gone or is_long) and not work.tally.stopped:
            gone += cycles.untie(work, group)
        if not gone or work.tally.stopped:
            break
    for one in deleting:
        batches.count_locked(work, one, Deleting(one, work.unapproved(one)))


def require_same_rules(plan: Plan, live: Plan) -> None:
    """Refuse a plan that was made from other rules or foreign keys than those of now.

    Args:
        plan: what was approved.
        live: the plan as it would be made now.

    Raises:
        ControlFailed: it was.
    """
    wanted = [(one.name, one.rule_sha256, one.action) for one in plan.classes]
    if wanted != [(one.name, one.rule_sha256, one.action) for one in live.classes]:
        raise _void(f"retention.yaml was changed after the plan of {plan.database} was made")
    if plan.order != live.order or [(one.collection, one.references) for one in plan.tables] != [
        (one.collection, one.references) for one in live.tables
    ]:
        raise _void(f"foreign keys of {plan.database} were changed after the plan was made")


def waiting(plan: Plan, live: Plan, done: Mapping[str, int]) -> dict[str, int]:
    """Records that could go now and are more than the plan says, by class.

    A claim was closed since, a hold released. They wait for the next plan: never more goes than was
    planned (`ExecutionState.left`).

    Args:
        plan: what was approved.
        live: the plan as it would be made now.
        done: records that this run has erased already, by class.
    """
    more = {
        one.name: one.planned + done.get(one.name, 0) - plan.of(one.name).planned
        for one in live.classes
    }
    return {name: records for name, records in more.items() if records > 0}


def _void(reason: str) -> ControlFailed:
    return ControlFailed(
        f"The plan is no longer valid: {reason}.",
        "Nothing more was deleted. Run the workflow again: it makes a new plan and requests "
        "approval again.",
    )
