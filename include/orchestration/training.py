"""Tasks of `remind_training`: services in, step records out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from include.evidence.model import Outcome, StepRecord
from include.messages import _
from include.notify.asking import Confirm
from include.notify.outbox import Run
from include.orchestration.notices import STEP_SEND
from include.orchestration.run import run_key, seal_run, step
from include.reports.conclusion import Conclusion
from include.training import confirm, coverage, report
from include.training import plan as planning
from include.training.desk import Desk
from include.training.names import CLAUSE, STEP_PLAN
from include.workdays.calendar import Workdays
from include.workplace import Workplace


def plan() -> dict[str, Any]:
    """Decide who is told what today, and measure how many are trained."""

    def work(place: Workplace) -> StepRecord:
        if place.pack.training is None:
            return StepRecord(step=STEP_PLAN, outcome=Outcome.PASS, data={})
        return planning.plan(desk_of(place))

    return step(STEP_PLAN, "", _("The plan"), work, CLAUSE)


def seal_training() -> dict[str, Any]:
    """Seal the evidence of the reminders."""

    def conclude(
        place: Workplace, records: Sequence[StepRecord], artifacts: dict[str, bytes]
    ) -> Conclusion:
        del artifacts
        if place.pack.training is None:
            return report.nothing_to_train(records)
        with place.state.connect() as conn:
            trend = coverage.trend(conn, place.clock.now())
        controls = place.pack.controls_of(run_key()[0])
        return report.conclude(records, controls=controls, trend=trend, send=STEP_SEND)

    return seal_run(conclude)


def confirming(kind: str) -> Callable[[Workplace], Confirm]:
    """Return what says of a run's place which queued notices of a kind are still wanted."""

    def of(place: Workplace) -> Confirm:
        if place.pack.training is None:  # no longer: what is queued is of no use
            return lambda keys: set()
        desk = desk_of(place)
        return lambda keys: confirm.still_wanted(desk, kind, keys)

    return of


def desk_of(place: Workplace) -> Desk:
    """Return what the steps of the running task work with."""
    pack = place.pack
    rules = pack.training
    assert rules is not None
    named = {one.database for one in rules.sources.values() if one.database is not None}
    return Desk(
        rules=rules,
        roles=pack.roles,
        readers={
            one: place.role_database(rules.connection, pack.database(one).connection)
            for one in sorted(named)
        },
        notices=pack.notices,
        workdays=Workdays(pack.calendar),
        state=place.state,
        clock=place.clock,
        zone=pack.calendar.zone,
        run=Run(*run_key()),
    )
