"""Waking people about clocks: once for each rung, whatever happened to the machines meanwhile.

Who looks again after a long night is told only the newest rung that passed: what came before it
says nothing that it does not. Whether a clock is late never depends on whether anybody was told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from include.incident.clocks.clock import Clock, ClockState
from include.incident.names import ALERT, WORKFLOW
from include.incident.rules import HumanStep, IncidentRules, Milestone, Wake
from include.messages import Message, _
from include.notify.notice import Notice, to_role
from include.policy.period import Period, earlier, later, utc
from include.policy.rules import Role

Phase = Literal["before", "after"]

STEPS: Mapping[Milestone, tuple[HumanStep, ...]] = {
    "graded": ("grade",),
    "contained": ("contain",),
    "reported": ("report",),
    "individuals_told": ("impact", "decide"),
    "closed": ("close",),
    "summarised": ("summary",),
}
"""The human steps that reach a milestone. The others are reached by tasks: whoever leads is woken,
who closes the incident in the end."""
_LEADS: HumanStep = "close"


@dataclass(frozen=True)
class WakeUp:
    """A rung that a clock has come to.

    Attributes:
        number: of the incident.
        clock: as it stands.
        phase: before or after it is due.
        rung: how long before or after.
        at: when it was to be told, in UTC.
    """

    number: str
    clock: Clock
    phase: Phase
    rung: Period
    at: datetime

    @property
    def key(self) -> str:
        """What makes it the same one: ``INC-2026-0001/cac_first/before/PT1H``."""
        return f"{self.number}/{self.clock.id}/{self.phase}/{self.rung}"

    @property
    def steps(self) -> tuple[HumanStep, ...]:
        """The human steps that reach the milestone; empty where a task does."""
        return STEPS.get(self.clock.rule.ends, ())


def wake_ups(
    number: str,
    clocks: Iterable[Clock],
    wake: Wake,
    now: datetime,
    zone: ZoneInfo,
    before: Collection[str] = (),
) -> list[WakeUp]:
    """What people are to be told now, at most once for each clock.

    Args:
        number: of the incident.
        clocks: as they stand now.
        wake: of incident.yaml.
        now: when somebody looks.
        zone: of the pack.
        before: keys of what they were told before.
    """
    newest = (
        passed[-1]
        for clock in clocks
        if (passed := [rung for rung in _rungs(number, clock, wake, zone) if rung.at <= utc(now)])
    )
    return sorted((one for one in newest if one.key not in before), key=lambda one: one.at)


def next_look(
    clocks: Iterable[Clock], wake: Wake, now: datetime, zone: ZoneInfo
) -> datetime | None:
    """When something is to be told next if nothing happens, in UTC; None where nothing is."""
    at = (rung.at for clock in clocks for rung in _rungs("", clock, wake, zone))
    return min((one for one in at if one > utc(now)), default=None)


def notices(
    found: Iterable[WakeUp], rules: IncidentRules, roles: Mapping[str, Role], zone: ZoneInfo
) -> Iterator[Notice]:
    """Urgent notices to those who have to act, and to management once a clock has run out.

    Args:
        found: the wake-ups.
        rules: incident.yaml.
        roles: of roles.yaml, by id.
        zone: of the pack; days are those there.
    """
    for wake_up in found:
        due = wake_up.clock.due_at
        assert due is not None
        steps = wake_up.steps or (_LEADS,)
        recipients = _roles(rules, *steps, management=wake_up.phase == "after")
        notice = Urgent(wake_up.key, _heading(wake_up), line(wake_up), recipients)
        yield from notice.notices(roles, due.astimezone(zone).date())


def failed_task(number: str, task: str, rules: IncidentRules) -> Urgent:
    """Return the notice of a task that failed, to the leader and to management."""
    line = _(
        "The task {task} of {workflow} failed, and what comes after it waits. In Airflow: open "
        "its log, remove the cause, then clear the task.",
        task=task,
        workflow=WORKFLOW,
    )
    heading = _("Incident {number}: a task failed", number=number)
    return Urgent(f"{number}/failed/{task}", heading, line, _roles(rules, _LEADS))


def unanswered_step(number: str, step: HumanStep, times: int, rules: IncidentRules) -> Urgent:
    """Return the notice of a step that was not answered in time, to its duty and to management.

    Args:
        number: of the incident.
        step: the step.
        times: how often nobody answered; each time has its own notice.
        rules: incident.yaml.
    """
    line = _(
        "Nobody answered the step {step}. Deputies and management may answer now too. In "
        "Airflow: {workflow}, step {step}.",
        step=step,
        workflow=WORKFLOW,
    )
    heading = _("Incident {number}: nobody answers", number=number)
    return Urgent(f"{number}/silent/{step}/{times}", heading, line, _roles(rules, step))


def corrected_entry(
    number: str, place: int, step: HumanStep | None, rules: IncidentRules
) -> Urgent:
    """Return the notice of work that turned out not to be done, to its duty and to management.

    Args:
        number: of the incident.
        place: of the correction in the timeline.
        step: whose answer it voids; None if it voids an addition.
        rules: incident.yaml.
    """
    line = (
        _(
            "What was entered in the step {step} was a mistake: it is not done. In Airflow: "
            "{workflow}, clear the task {step}; it asks again.",
            step=step,
            workflow=WORKFLOW,
        )
        if step
        else _("That people were told otherwise was a mistake: tell them, then enter it again.")
    )
    heading = _("Incident {number}: not done after all", number=number)
    return Urgent(f"{number}/corrected/{place}", heading, line, _roles(rules, step or _LEADS))


def _roles(rules: IncidentRules, *steps: HumanStep, management: bool = True) -> list[str]:
    """Return the roles of the duties that do some steps, and of management."""
    duties = [rules.steps[step] for step in steps] + ([rules.management] if management else [])
    return list(dict.fromkeys(rules.duty(duty).role for duty in duties))


@dataclass(frozen=True)
class Urgent:
    """An urgent notice to some roles.

    Attributes:
        key: identifies it; each role gets it once.
        heading: its subject.
        line: its text.
        recipients: roles of roles.yaml.
    """

    key: str
    heading: Message
    line: Message
    recipients: Sequence[str]

    def notices(self, roles: Mapping[str, Role], due_on: date) -> Iterator[Notice]:
        """Yield the notice to each role, due on a day."""
        for role in self.recipients:
            yield from to_role(
                roles[role],
                kind=ALERT,
                key=f"{self.key}/{role}",
                heading=self.heading,
                line=self.line,
                due_on=due_on,
                urgent=True,
            )


def wanted(keys: Sequence[str], number: str, clocks: Iterable[Clock], zone: ZoneInfo) -> set[str]:
    """Of these keys of notices about an incident, those that are not about a rung any more open.

    Nobody is woken about what was done, or ended, before the mail could leave; nor told that
    something will be due once it is overdue, nor of two rungs of one clock at a time. Keys of
    notices about anything else are always wanted.

    Args:
        keys: of waiting notices.
        number: of the incident; keys of other incidents are left out of the answer.
        clocks: as they stand now.
        zone: of the pack.
    """
    open_now = {one.id: one for one in clocks if one.is_open}
    latest: dict[tuple[str, str], tuple[datetime, str]] = {}
    found: set[str] = set()
    for key in keys:
        if key.partition("/")[0] != number:
            continue
        parts = key.split("/")
        if len(parts) != 5 or parts[2] not in get_args(Phase):
            found.add(key)
            continue
        clock, role = open_now.get(parts[1]), parts[4]
        after = parts[2] == "after"
        if clock is None or after != (clock.state is ClockState.OVERDUE):
            continue
        assert clock.due_at is not None  # it is open
        move = later if after else earlier
        rung = (move(clock.due_at, Period.parse(parts[3]), zone), key)
        latest[clock.id, role] = max(latest.get((clock.id, role), rung), rung)
    return found | {key for _at, key in latest.values()}


def line(one: WakeUp) -> Message:
    """What is due when, and where in Airflow it is done; no customer's value."""
    values = {"title": one.clock.rule.message, "due": one.clock.due_at, "where": _where(one)}
    if one.phase == "before":
        said = _("“{title}” is due by {due}. {where}", **values)
    else:
        said = _(
            "OVERDUE: “{title}” was due by {due} and is not done. {where} Do it now, and enter "
            "when it was done.",
            **values,
        )
    if not one.clock.provisional:
        return said
    return _("{said} The grade is not confirmed yet: confirm it first.", said=said)


def told_words(one: WakeUp) -> Message:
    """What the timeline says of it."""
    values = {"title": one.clock.rule.message, "due": one.clock.due_at}
    if one.phase == "before":
        return _("People were told that “{title}” is due by {due}.", **values)
    return _("People and management were told that “{title}” is overdue since {due}.", **values)


def _heading(wake_up: WakeUp) -> Message:
    if wake_up.phase == "before":
        return _("Incident {number}: due soon", number=wake_up.number)
    return _("Incident {number}: OVERDUE", number=wake_up.number)


def _where(wake_up: WakeUp) -> Message:
    if not wake_up.steps:
        return _("See the run of {workflow} in Airflow.", workflow=WORKFLOW)
    return _(
        "In Airflow: {workflow}, step {steps}.", workflow=WORKFLOW, steps=", ".join(wake_up.steps)
    )


def _rungs(number: str, clock: Clock, wake: Wake, zone: ZoneInfo) -> list[WakeUp]:
    """The rungs of a clock in which something has to be done, by their moments.

    One that lies before the clock began is none: people were called just then. Once it ran out
    nobody is told any more that it is due.
    """
    if not clock.is_open or clock.due_at is None or clock.begins_at is None:
        return []
    due, begun = clock.due_at, clock.begins_at
    found = [WakeUp(number, clock, "after", rung, later(due, rung, zone)) for rung in wake.after]
    if clock.state is not ClockState.OVERDUE:
        soon = (
            WakeUp(number, clock, "before", rung, earlier(due, rung, zone)) for rung in wake.before
        )
        found += [one for one in soon if one.at > begun]
    return sorted(found, key=lambda one: one.at)
