"""Tasks of `respond_to_incident`: services in, step records out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from airflow.sdk import get_current_context

from include.drill_sandbox.workplace import clear_leftovers, live_of, sandboxed
from include.evidence.model import StepRecord
from include.incident import assessing, opening, register, report, scopes, watching
from include.incident.evidence import preserving
from include.incident.incident_run import SCENARIO, IncidentRun, record_of
from include.incident.names import (
    CLAUSE,
    STEP_ASSESS,
    STEP_NOTIFY,
    STEP_OPEN,
    STEP_PRESERVE,
)
from include.incident.rule_checks import INCIDENT
from include.incident.steps.report import authorities as applying
from include.incident.telling.notifying import queue, queued
from include.messages import Message, _
from include.notify.delivery import deliver
from include.notify.outbox import Run
from include.orchestration import notices
from include.orchestration.incident_partner import reopen_review
from include.orchestration.run import (
    confirm_open,
    open_run,
    run_key,
    seal_run,
    step,
    workplace,
)
from include.orchestration.run_lock import at_work
from include.orchestration.starter import started_by
from include.orchestration.watching import ENDED, others
from include.orchestration.watching import watch as watching_task
from include.partners.rules import PARTNERS
from include.reports.conclusion import Conclusion
from include.services.errors import ServiceError, UsageError
from include.workflow.run_context import RunContext, context_of
from include.workplace import Workplace

WATCH_ARGS: dict[str, Any] = {"retries": 100}
"""Of a task that looks for weeks: each worker that is killed meanwhile takes one."""
AT_MOST = timedelta(minutes=5)  # between two looks at an incident


def scenario() -> str:
    """The scenario that this run plays; empty for a real incident."""
    return str(get_current_context()["params"].get("tabletop") or "")


def place() -> Workplace:
    """The workplace of this run: in a drill one whose state is a sandbox."""
    return sandboxed(workplace(), *run_key()) if scenario() else workplace()


def beginning() -> Workplace:
    """The workplace of a run's first step, which makes a drill's state."""
    return sandboxed(workplace(), *run_key(), begins=True) if scenario() else workplace()


log = logging.getLogger(__name__)


def context(services: Workplace) -> IncidentRun:
    """Return the context of this run's steps."""
    return RunContext(
        services,
        services.pack.require(INCIDENT),
        Run(*run_key()),
        triggered_by=started_by(),
        parameters={SCENARIO: scenario()},
    )


def work(
    name: str, number: str, title: Message, act: Callable[[Workplace, IncidentRun], StepRecord]
) -> dict[str, Any]:
    """Do one step of an incident; what it returns names the incident."""
    done = step(name, "", title, lambda found: act(found, context(found)), CLAUSE, place)
    return done | {"part": number}


def open_incident(params: dict[str, Any]) -> dict[str, Any]:
    """Register the incident, or say of which one it is a duplicate; call its team."""
    numbers: list[str] = []

    def act(found: Workplace) -> StepRecord:
        if scenario():
            clear_leftovers(workplace())
        run = context(found)
        record = opening.open_incident(run, params, _pressed_at(found))
        numbers.append(str(record.data["number"]))
        known = found.pack.section(PARTNERS) is not None
        reopen_review(run, numbers[0], partial(context_of, PARTNERS, found) if known else None)
        return record

    done = step(STEP_OPEN, "", _("The opening"), act, CLAUSE, beginning)
    if first := record_of(context(place()), numbers[0]).incident.duplicate_of:
        log.warning(
            "This is %s, a duplicate of %s: nothing is done here. Answer the steps of %s. If it is "
            "another incident, trigger again with `This is another incident`.",
            numbers[0], first, first,
        )  # fmt: skip
    send_now(numbers[0])
    return done | {"part": numbers[0]}


def assess(number: str) -> dict[str, Any]:
    """Count what is affected in every database, and propose a grade; unknown is never zero."""

    def act(_found: Workplace, run: IncidentRun) -> StepRecord:
        context = get_current_context()
        last = context["ti"].try_number > context["ti"].max_tries
        record, unknown = assessing.assess(run, number)
        if unknown and not last:
            raise ServiceError(unknown, "The task is repeated, then it goes on without it.")
        return record

    return work(STEP_ASSESS, number, _("The count of what is affected"), act)


def preserve(number: str) -> dict[str, Any]:
    """Freeze the list of people, extract the log of accesses, place legal holds."""

    def act(found: Workplace, run: IncidentRun) -> StepRecord:
        context = get_current_context()
        return preserving.preserve(
            run,
            number,
            lambda: found.store("evidence_store"),
            lambda: found.recipients()[0],
            last=context["ti"].try_number > context["ti"].max_tries,
        )

    return work(STEP_PRESERVE, number, _("The evidence"), act)


def authorities(number: str) -> list[dict[str, Any]]:
    """Name the authorities that it is reported to, each with the incident."""
    run = context(open_run(place))
    record = record_of(run, number)
    if not record.incident.is_led:
        return []
    return [{"part": f"{number}/{one.id}"} for one in applying(run, record)]


def notify(number: str) -> dict[str, Any]:
    """Queue the notices that were decided on, each once."""

    def act(_found: Workplace, run: IncidentRun) -> StepRecord:
        return queued(number, queue(run, record_of(run, number)))

    return work(STEP_NOTIFY, number, _("The queueing of notices"), act)


def send(number: str) -> dict[str, Any]:
    """Send what is queued, and enter what came of it."""
    done = notices.send(CLAUSE, place)
    watching.settle(context(place()), number)
    return done | {"part": number}


def send_now(number: str, *, letters: bool = False) -> None:
    """Send what is urgent, then letters too where asked to; what cannot leave now waits.

    People are not woken behind 100,000 letters.
    """
    found = place()
    try:
        for each in (False, True) if letters else (False,):
            deliver(notices.office(found), letters=each)
    except (ServiceError, UsageError):  # the task `send` tells it; the call must not be held up
        return
    watching.settle(context(found), number)


def watch(number: str) -> int:
    """Look at the clocks, wake people, send; again until nothing is left to watch.

    While the incident is not over a failed task ends nothing: people are told, and may clear it.
    Letters that `send` could not send for want of a mail server are sent here once it is back.
    """
    found = open_run(place)

    def look() -> datetime | None:
        with at_work(live_of(found).state, *run_key()):
            confirm_open(found)
            seen = watching.look(context(found), number)
            if seen.waiting:
                send_now(number, letters=others().get("send") in ENDED)
        return None if seen.over else seen.again_at

    def goes_on(states: Mapping[str, str]) -> bool:
        failed = sorted(name for name, state in states.items() if state == "failed")
        going_on = watching.failed(context(found), number, failed)
        if going_on:
            send_now(number)
        return going_on

    return watching_task(found.clock, look, AT_MOST, goes_on)


def seal_incident() -> dict[str, Any]:
    """Seal the evidence of an incident, or of a drill, whose state is dropped then."""

    def conclude(
        found: Workplace, records: Sequence[StepRecord], artifacts: dict[str, bytes]
    ) -> Conclusion:
        with found.state.connect() as conn:
            opened = register.of_run(conn, Run(*run_key()))
        if opened is None:  # there are no rules either, where the pack or the scenario is wrong
            return report.nothing_opened(records)
        run = context(found)
        artifacts[report.TIMELINE] = report.timeline_file(record_of(run, opened.number))
        scope = scopes.found(run, opened.id)
        return report.conclude(run, opened.number, scope, records)

    return seal_run(conclude, place)


def _pressed_at(found: Workplace) -> datetime:
    run = get_current_context()["dag_run"]
    moment: datetime = getattr(run, "queued_at", None) or run.start_date or found.clock.now()
    return moment
