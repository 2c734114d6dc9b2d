"""Notify people about time limits before and after each deadline.

The policy lists the times before and after a deadline at which a notification is sent. If several
of these times have passed since the last check, only the newest notification is sent. Notifications
have no effect on whether a time limit counts as missed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from include.incident.incident_ids import ALERT
from include.incident.rules import EscalationRules, HumanStep, IncidentRules, Milestone
from include.incident.step_titles import step_title
from include.incident.time_limits.time_limit import TimeLimit, TimeLimitState
from include.messages import Message, _, listed
from include.notify.notification import Notification, to_role
from include.policy.period import Period, add_period, subtract_period, utc
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
"""The human steps that reach a milestone. Tasks reach the other milestones; then the incident's
leader is notified."""
_LEADER_STEP: HumanStep = "close"


@dataclass(frozen=True)
class Escalation:
    """A notification about a time limit, which is due a certain time before or after the deadline.

    Attributes:
        number: number of the incident.
        time_limit: time limit that the notification is about.
        phase: whether the notification is due ``before`` or ``after`` the deadline.
        period: period between the deadline and the time at which the notification is due.
        at: time at which the notification is due, in UTC.
    """

    number: str
    time_limit: TimeLimit
    phase: Phase
    period: Period
    at: datetime

    @property
    def key(self) -> str:
        """The unique key of the notification, such as ``INC-2026-0001/cac_first/before/PT1H``."""
        return f"{self.number}/{self.time_limit.id}/{self.phase}/{self.period}"

    @property
    def steps(self) -> tuple[HumanStep, ...]:
        """The steps that people answer to reach the milestone; empty if no person is needed."""
        return STEPS.get(self.time_limit.rule.ends, ())


def due_escalations(
    number: str,
    time_limits: Iterable[TimeLimit],
    wake: EscalationRules,
    now: datetime,
    zone: ZoneInfo,
    sent_keys: Collection[str] = (),
) -> list[Escalation]:
    """Return the notifications that are due now, at most one for each time limit.

    Args:
        number: number of the incident.
        time_limits: current time limits of the incident.
        wake: periods before and after a deadline at which people are notified.
        now: current time.
        zone: timezone of the policy pack.
        sent_keys: keys (`Escalation.key`) of notifications that were sent before. They are not
            returned again.
    """
    newest = (
        passed[-1]
        for time_limit in time_limits
        if (
            passed := [
                escalation
                for escalation in _open_escalations(number, time_limit, wake, zone)
                if escalation.at <= utc(now)
            ]
        )
    )
    return sorted(
        (escalation for escalation in newest if escalation.key not in sent_keys),
        key=lambda escalation: escalation.at,
    )


def next_escalation_at(
    time_limits: Iterable[TimeLimit], wake: EscalationRules, now: datetime, zone: ZoneInfo
) -> datetime | None:
    """Return the time in UTC at which the next notification about a time limit is due.

    It is assumed that no milestone is reached before that time. Return None if no further
    notification will be due.

    Args:
        time_limits: current time limits of an incident.
        wake: periods before and after a deadline at which people are notified.
        now: current time.
        zone: timezone of the policy pack.
    """
    times = (
        escalation.at
        for time_limit in time_limits
        for escalation in _open_escalations("", time_limit, wake, zone)
    )
    return min((at for at in times if at > utc(now)), default=None)


def escalation_notifications(
    escalations: Iterable[Escalation],
    rules: IncidentRules,
    roles: Mapping[str, Role],
    zone: ZoneInfo,
    run_address: str = "",
) -> Iterator[Notification]:
    """Yield the messages about near and passed deadlines to the responsible roles.

    A message goes to the roles that are responsible for the steps that reach the milestone. If the
    deadline has passed, the management gets the message as well.

    Args:
        escalations: the time limits about which roles have to be notified now.
        rules: content of incident.yaml.
        roles: roles of roles.yaml, by id.
        zone: timezone of the policy pack. The due date of a message is the date of the deadline in
            this timezone.
        run_address: address of the incident's run in Airflow; empty if it is not known.
    """
    for escalation in escalations:
        due = escalation.time_limit.due_at
        assert due is not None
        steps = escalation.steps or (_LEADER_STEP,)
        recipients = _roles(rules, *steps, management=escalation.phase == "after")
        notice = UrgentNotification(
            escalation.key,
            _heading(escalation),
            escalation_line(escalation),
            recipients,
            escalation.steps,
        )
        yield from notice.for_roles(roles, due.astimezone(zone).date(), run_address)


def failed_task(number: str, task: str, rules: IncidentRules) -> UrgentNotification:
    """Return the notification to the incident leader and the management that a task failed.

    Args:
        number: number of the incident.
        task: id of the Airflow task.
        rules: content of incident.yaml.
    """
    line = _(
        "The step “{step}” failed, and the following steps are waiting. Ask the data engineers "
        "to correct the cause and to repeat the step in Airflow.",
        step=step_title(task),
    )
    heading = _("Incident {number}: a step failed", number=number)
    return UrgentNotification(f"{number}/failed/{task}", heading, line, _roles(rules, _LEADER_STEP))


def unanswered_step(
    number: str, step: HumanStep, times: int, rules: IncidentRules
) -> UrgentNotification:
    """Return the notification that a step was not answered in time.

    The recipients are the role responsible for the step and the management.

    Args:
        number: number of the incident.
        step: step that was not answered in time.
        times: number of times that the step was not answered in time. Each time has its own
            notification.
        rules: content of incident.yaml.
    """
    line = _(
        "The step “{step}” was not answered in time. Deputies and management may now answer it "
        "too, in Airflow under Required Actions.",
        step=step_title(step),
    )
    heading = _("Incident {number}: a step was not answered", number=number)
    return UrgentNotification(
        f"{number}/silent/{step}/{times}", heading, line, _roles(rules, step), (step,)
    )


def corrected_entry(
    number: str, position: int, step: HumanStep | None, rules: IncidentRules
) -> UrgentNotification:
    """Return the notification that an action has to be repeated, because its entry was a mistake.

    A correction is a timeline entry that declares an earlier entry a mistake. The recipients are
    the role responsible for the action and the management.

    Args:
        number: number of the incident.
        position: the correction's position in the timeline.
        step: step whose answer was the mistake; None if the mistake was an update.
        rules: content of incident.yaml.
    """
    line = (
        _(
            "The answer to the step “{step}” was declared a mistake, so the step is not done. "
            "In Airflow, open the run of this incident and clear the task of the step. Airflow "
            "then requests the answer again.",
            step=step_title(step),
        )
        if step
        else _(
            "The entry “People were notified in another way” was declared a mistake. Notify "
            "the people concerned, then make the entry again."
        )
    )
    heading = _("Incident {number}: a completed action has to be done again", number=number)
    return UrgentNotification(
        f"{number}/corrected/{position}", heading, line, _roles(rules, step or _LEADER_STEP)
    )


def _roles(rules: IncidentRules, *steps: HumanStep, management: bool = True) -> list[str]:
    """Return the ids of the roles responsible for the given steps, each once.

    Args:
        rules: content of incident.yaml.
        steps: steps that people answer.
        management: whether to include the role of the management.
    """
    duties = [rules.steps[step] for step in steps] + ([rules.management] if management else [])
    return list(dict.fromkeys(rules.duty(duty).role for duty in duties))


@dataclass(frozen=True)
class UrgentNotification:
    """An urgent notification to one or more roles.

    Attributes:
        key: unique key of the notification. Each role receives the notification once.
        heading: subject of the message.
        line: text of the message.
        recipients: ids of roles in roles.yaml.
        steps: human steps that the notification is about.
    """

    key: str
    heading: Message
    line: Message
    recipients: Sequence[str]
    steps: Sequence[HumanStep] = ()

    def for_roles(
        self, roles: Mapping[str, Role], due_on: date, run_address: str = ""
    ) -> Iterator[Notification]:
        """Yield the messages of the notification to each role.

        Args:
            roles: roles of roles.yaml, by id.
            due_on: due date of the messages.
            run_address: address of the incident's run in Airflow; empty if it is not known. The
                messages then have no link.
        """
        line = with_link(self.line, run_address, self.steps)
        for role in self.recipients:
            yield from to_role(
                roles[role],
                kind=ALERT,
                key=f"{self.key}/{role}",
                heading=self.heading,
                line=line,
                due_on=due_on,
                urgent=True,
            )


_MAPPED_STEPS: frozenset[HumanStep] = frozenset({"report", "report_rest"})  # one per authority


def with_link(line: Message, run_address: str, steps: Sequence[HumanStep] = ()) -> Message:
    """Add the address of the required action of a step to the text of a message.

    Args:
        line: text of the message.
        run_address: address of the incident's run in Airflow; if empty, no address is added.
        steps: human steps that the message is about. If there is not exactly one, the address is
            that of the list of required actions of the run.
    """
    if not run_address:
        return line
    address = f"{run_address}/required_actions?response_received=false"
    if len(steps) == 1 and steps[0] not in _MAPPED_STEPS:
        address = f"{run_address}/tasks/{steps[0]}/required_actions"
    return _("{message} Open: {address}", message=line, address=address)


def still_due(
    keys: Sequence[str], number: str, time_limits: Iterable[TimeLimit], zone: ZoneInfo
) -> set[str]:
    """Return the keys of waiting notifications about an incident that still have to be sent.

    A notification about a time limit is dropped if the time limit was met or ended, or if it
    announces a deadline that has passed. It is also dropped if a newer notification to the same
    role about the same time limit waits. Notifications that are not about time limits are always
    kept.

    Args:
        keys: keys of waiting notifications.
        number: number of the incident. Keys of other incidents are not returned.
        time_limits: current time limits of the incident.
        zone: timezone of the policy pack.
    """
    open_now = {time_limit.id: time_limit for time_limit in time_limits if time_limit.is_open}
    latest: dict[tuple[str, str], tuple[datetime, str]] = {}
    other_keys: set[str] = set()
    for key in keys:
        if key.partition("/")[0] != number:
            continue
        parts = key.split("/")
        if len(parts) != 5 or parts[2] not in get_args(Phase):
            other_keys.add(key)
            continue
        time_limit, role = open_now.get(parts[1]), parts[4]
        after = parts[2] == "after"
        if time_limit is None or after != (time_limit.state is TimeLimitState.OVERDUE):
            continue
        assert time_limit.due_at is not None  # it is open
        move = add_period if after else subtract_period
        candidate = (move(time_limit.due_at, Period.parse(parts[3]), zone), key)
        latest[time_limit.id, role] = max(latest.get((time_limit.id, role), candidate), candidate)
    return other_keys | {key for _at, key in latest.values()}


def escalation_line(escalation: Escalation) -> Message:
    """Return the text of a notification about a time limit, without customer data.

    The text contains the title, the deadline, and the steps to answer in Airflow.
    """
    values = {
        "title": escalation.time_limit.rule.message,
        "due": escalation.time_limit.due_at,
        "where": _airflow_hint(escalation),
    }
    if escalation.phase == "before":
        text = _("“{title}” is due by {due}. {where}", **values)
    else:
        text = _(
            "OVERDUE: “{title}” was due by {due} and is not done. {where} Complete this action "
            "now, then enter the time of completion.",
            **values,
        )
    if not escalation.time_limit.provisional:
        return text
    return _(
        "{message} The grade of the incident is not confirmed yet: confirm it first.", message=text
    )


def timeline_words(escalation: Escalation) -> Message:
    """Return the display text of the timeline entry that records a sent notification."""
    values = {"title": escalation.time_limit.rule.message, "due": escalation.time_limit.due_at}
    if escalation.phase == "before":
        return _("The team was reminded that “{title}” is due by {due}.", **values)
    return _(
        "The team and management were notified that “{title}” has been overdue since {due}.",
        **values,
    )


def _heading(escalation: Escalation) -> Message:
    if escalation.phase == "before":
        return _("Incident {number}: a deadline is near", number=escalation.number)
    return _("Incident {number}: a deadline was MISSED", number=escalation.number)


def _airflow_hint(escalation: Escalation) -> Message:
    if not escalation.steps:
        return _("See the run of this incident in Airflow.")
    return _(
        "Answer in Airflow under Required Actions: {steps}.",
        steps=listed([step_title(step) for step in escalation.steps]),
    )


def _open_escalations(
    number: str, time_limit: TimeLimit, wake: EscalationRules, zone: ZoneInfo
) -> list[Escalation]:
    """Return all notifications that a time limit can still cause, earliest first.

    Return an empty list if the milestone is already reached or the time limit has not started. A
    notification that would be due before the start of the time limit is left out, because the
    incident team is called at the start. After the deadline, notifications from before the deadline
    are left out.

    Args:
        number: number of the incident.
        time_limit: time limit.
        wake: periods before and after a deadline at which people are notified.
        zone: timezone of the policy pack.
    """
    if not time_limit.is_open or time_limit.due_at is None or time_limit.begins_at is None:
        return []
    due, begun = time_limit.due_at, time_limit.begins_at
    escalations = [
        Escalation(number, time_limit, "after", period, add_period(due, period, zone))
        for period in wake.after
    ]
    if time_limit.state is not TimeLimitState.OVERDUE:
        escalations_before = (
            Escalation(number, time_limit, "before", period, subtract_period(due, period, zone))
            for period in wake.before
        )
        escalations += [escalation for escalation in escalations_before if escalation.at > begun]
    return sorted(escalations, key=lambda escalation: escalation.at)
