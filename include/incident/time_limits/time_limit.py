"""Compute the time limits of an incident: each deadline, whether it was met, and the delay.

Deadlines are computed whenever they are needed, and are not stored. They depend only on the rules
stored with the incident, on the times on its timeline, and on the current time. Therefore a
deadline stays the same even if no workflow ran for hours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from include.incident.entries import Opened, Scoped
from include.incident.incident_ids import Kind
from include.incident.incident_run import IncidentRecord, IncidentRun
from include.incident.register import apply_snapshot
from include.incident.rules import ConditionalRule, IncidentRules, TimeLimitRule
from include.incident.time_limits.milestones import (
    CLOSED,
    ConfirmedGrade,
    ReachedMilestone,
    cancelled_at,
    confirmed_grades,
    milestones,
    report_milestone,
    unneeded_reports,
)
from include.incident.timeline import Entry, last_of
from include.policy.period import add_period, utc

DUE_SOON_WITHIN = timedelta(hours=1)
NO_LATENESS = timedelta(0)


class TimeLimitState(StrEnum):
    """The state of a time limit. The states are defined in order of urgency, most urgent first."""

    OVERDUE = "overdue"  # the deadline passed, and the step is not done
    DUE_SOON = "due_soon"
    RUNNING = "running"
    NOT_YET = "not_yet"  # runs only if another grade than the proposed one is confirmed
    NOT_BEGUN = "not_begun"  # starts when the handling ends
    LATE = "late"  # the step was done after the deadline
    MISSED = "missed"  # the deadline passed before people ended the time limit
    MET = "met"  # the step was done by the deadline
    LAPSED = "lapsed"  # ended by a new grade before the deadline
    STOPPED = "stopped"  # cancelled, or declared not needed, before the deadline
    NOT_APPLICABLE = "not_applicable"


OPEN = (TimeLimitState.OVERDUE, TimeLimitState.DUE_SOON, TimeLimitState.RUNNING)
"""States of time limits that have started and apply, and whose step is not done yet."""


class InactiveReason(StrEnum):
    """The reason why a time limit does not apply or has ended."""

    GRADE = "grade"  # the time limit applies only to other grades
    TYPE = "type"  # applies only to other types of incidents
    SYSTEMS = "systems"  # applies only with, or only without, critical systems
    REGRADED = "regraded"
    CANCELLED = "cancelled"
    NOT_NEEDED = "not_needed"


class Applicability(StrEnum):
    """Whether a rule of incident.yaml, for a time limit or an authority, applies to an incident."""

    YES = "yes"
    PROVISIONAL = "provisional"  # the proposed grade is not confirmed, or no grade is known
    NOT_YET = "not_yet"  # applies if another grade than the proposed one is confirmed
    LAPSED = "lapsed"  # applied before the incident was regraded
    NO = "no"


@dataclass(frozen=True)
class IncidentFacts:
    """The facts about an incident from which its time limits are computed.

    Attributes:
        aware_at: time at which the company became aware of the incident.
        type: id of the incident type in incident.yaml.
        critical: whether the company's systems are critical information infrastructure.
        graded: confirmed grades, oldest first. The newest grade is in force.
        proposed: id of the grade that ParcelSeal proposed after the newest count of affected
            people. None before the first count, or if not everything on which the grade depends
            could be counted. In both cases every grade is possible.
        closed_at: time at which the incident was closed; None if it is not closed.
        cancelled_at: time at which the cancellation was recorded; None if the incident is not
            cancelled.
        not_needed: declarations that a report is not needed, as name of the report's milestone ->
            time at which the declaration was recorded.
    """

    aware_at: datetime
    type: str
    critical: bool = False
    graded: tuple[ConfirmedGrade, ...] = ()
    proposed: str | None = None
    closed_at: datetime | None = None
    cancelled_at: datetime | None = None
    not_needed: Mapping[str, datetime] = field(default_factory=dict)

    @property
    def grade(self) -> str | None:
        """The confirmed grade in force, or None before the first confirmation."""
        return self.graded[-1].grade if self.graded else None


def build_facts(
    entries: Sequence[Entry],
    *,
    aware_at: datetime,
    type: str,  # noqa: A002 - the name of the incident's field
    critical: bool,
    order: Sequence[str],
    proposed: str | None = None,
) -> IncidentFacts:
    """Collect, from a timeline, the facts that determine the time limits of an incident.

    Args:
        entries: entries of the timeline, oldest first.
        aware_at: time at which the company became aware of the incident.
        type: id of the incident type in incident.yaml.
        critical: whether the company's systems are critical information infrastructure.
        order: ids of the grades, least severe first.
        proposed: id of the grade that ParcelSeal proposed after the newest count of affected
            people; None if there is no certain proposal.
    """
    closed = milestones(entries).get(CLOSED)
    return IncidentFacts(
        aware_at=aware_at,
        type=type,
        critical=critical,
        graded=confirmed_grades(entries),
        proposed=proposed,
        closed_at=closed.at if closed else None,
        cancelled_at=cancelled_at(entries),
        not_needed=unneeded_reports(entries, order),
    )


@dataclass(frozen=True)
class TimeLimit:
    """A time limit of an incident with its computed state. All times are in UTC.

    Attributes:
        rule: rule of incident.yaml that sets the time limit.
        state: state of the time limit.
        provisional: whether the time limit depends on a grade that no person has confirmed yet.
        begins_at: start; None if the time limit has not started or does not apply.
        due_at: deadline; None if the time limit has not started or does not apply.
        reached_milestone: time and timeline entry of the milestone; None if the milestone was not
            reached before the time limit ended.
        ended_at: time at which a decision of a person ended the time limit; None if no decision
            did. Such decisions are a new grade, the cancellation of the incident, and the
            declaration that a report is not needed.
        inactive_reason: reason why the time limit does not apply or has ended; None if it applies,
            or if its milestone was reached.
        lateness: how long after the deadline the milestone was reached or a person ended the time
            limit. If neither has happened, the time from the deadline until now. Zero if the time
            limit was not missed.
        remaining: time until the deadline; None if there is no deadline, the deadline has passed,
            the milestone was reached, or a person ended the time limit.
    """

    rule: TimeLimitRule
    state: TimeLimitState
    provisional: bool = False
    begins_at: datetime | None = None
    due_at: datetime | None = None
    reached_milestone: ReachedMilestone | None = None
    ended_at: datetime | None = None
    inactive_reason: InactiveReason | None = None
    lateness: timedelta = NO_LATENESS
    remaining: timedelta | None = None

    @property
    def id(self) -> str:
        """The id of the time limit in incident.yaml."""
        return self.rule.id

    @property
    def milestone(self) -> str:
        """The name of the milestone to reach by the deadline, such as ``reported:cac``."""
        return milestone_of(self.rule)

    @property
    def done_at(self) -> datetime | None:
        """The time at which the milestone was reached; None if it was not reached."""
        return self.reached_milestone.at if self.reached_milestone else None

    @property
    def is_open(self) -> bool:
        """Whether the time limit has started and applies, and its milestone is not reached yet."""
        return self.state in OPEN

    @property
    def is_late(self) -> bool:
        """Whether the time limit was missed: the milestone was not reached by the deadline.

        A time limit that a person ended before the deadline is not late.
        """
        return self.lateness > NO_LATENESS


def milestone_of(rule: TimeLimitRule) -> str:
    """Return the name of the milestone that has to be reached within a time limit.

    Args:
        rule: rule of the time limit in incident.yaml.
    """
    return report_milestone(rule.authority) if rule.authority else rule.ends


def compute_time_limits(
    rules: Sequence[TimeLimitRule],
    facts: IncidentFacts,
    reached: Mapping[str, ReachedMilestone],
    now: datetime,
    zone: ZoneInfo,
    soon: timedelta = DUE_SOON_WITHIN,
) -> list[TimeLimit]:
    """Compute the state of each time limit, in the order of the rules.

    If a person ends a time limit after its deadline, the time limit counts as missed, and its
    lateness is the time from the deadline until it was ended. A time limit that applies only to a
    grade that was never confirmed does not count as missed.

    Args:
        rules: rules of the time limits, which were stored with the incident.
        facts: facts about the incident.
        reached: milestones that were reached, by name.
        now: current time.
        zone: timezone of the policy pack, which defines the length of days and months.
        soon: remaining time at or below which a running time limit has the state `DUE_SOON`.

    Raises:
        ValueError: a time has no timezone.
        UsageError: a deadline is after the last date that Python can represent.
    """
    return [_compute_time_limit(rule, facts, reached, utc(now), zone, soon) for rule in rules]


def missed_time_limits(time_limits: Iterable[TimeLimit]) -> list[TimeLimit]:
    """Return the time limits that were missed, earliest deadline first."""
    return sorted((time_limit for time_limit in time_limits if time_limit.is_late), key=_due_order)


def sort_by_urgency(time_limits: Iterable[TimeLimit]) -> list[TimeLimit]:
    """Return the time limits sorted by state, most urgent first, then by deadline."""
    order = list(TimeLimitState)
    return sorted(
        time_limits, key=lambda time_limit: (order.index(time_limit.state), *_due_order(time_limit))
    )


def applicability(rule: ConditionalRule, facts: IncidentFacts) -> Applicability:
    """Return whether the rule of a time limit or of an authority applies to an incident.

    Args:
        rule: rule of incident.yaml.
        facts: facts about the incident.
    """
    return _applicability(rule, facts)[0]


def _due_order(time_limit: TimeLimit) -> tuple[bool, float, str]:
    return (
        time_limit.due_at is None,
        time_limit.due_at.timestamp() if time_limit.due_at else 0.0,
        time_limit.id,
    )


def _applicability(
    rule: ConditionalRule, facts: IncidentFacts
) -> tuple[Applicability, InactiveReason | None, datetime | None]:
    """Return whether a rule applies to an incident, why it does not, and when it ceased to apply.

    The reason is None if the rule applies. The time is None unless the rule ceased to apply because
    a new grade was confirmed.
    """
    if rule.types and facts.type not in rule.types:
        return Applicability.NO, InactiveReason.TYPE, None
    if rule.critical is not None and rule.critical != facts.critical:
        return Applicability.NO, InactiveReason.SYSTEMS, None
    if not rule.grades or facts.grade in rule.grades:
        return Applicability.YES, None, None
    if facts.grade is None:
        if facts.proposed is None or facts.proposed in rule.grades:
            return Applicability.PROVISIONAL, None, None
        return Applicability.NOT_YET, InactiveReason.GRADE, None
    for index in range(len(facts.graded) - 2, -1, -1):
        if facts.graded[index].grade in rule.grades:
            return Applicability.LAPSED, InactiveReason.REGRADED, utc(facts.graded[index + 1].at)
    return Applicability.NO, InactiveReason.GRADE, None


def _compute_time_limit(
    rule: TimeLimitRule,
    facts: IncidentFacts,
    reached: Mapping[str, ReachedMilestone],
    now: datetime,
    zone: ZoneInfo,
    soon: timedelta,
) -> TimeLimit:
    applies, why, ended = _applicability(rule, facts)
    if applies is Applicability.NO:
        return TimeLimit(rule, TimeLimitState.NOT_APPLICABLE, inactive_reason=why)
    if ended is None:
        ended, why = _end_by_decision(facts, milestone_of(rule)) or (None, why)
    started_at = facts.aware_at if rule.begins == "awareness" else facts.closed_at
    begins = utc(started_at) if started_at else None
    due = add_period(begins, rule.within, zone) if begins else None
    done = reached.get(milestone_of(rule))
    if done is not None and ended is not None and utc(done.at) > ended:
        done = None
    state, counted_until = _time_limit_state(applies, why, due, done, ended, now, soon)
    lateness = NO_LATENESS
    if (
        due
        and counted_until
        and state in (TimeLimitState.OVERDUE, TimeLimitState.LATE, TimeLimitState.MISSED)
    ):
        lateness = counted_until - due
    is_waiting = state in (*OPEN, TimeLimitState.NOT_YET)
    return TimeLimit(
        rule=rule,
        state=state,
        provisional=applies is Applicability.PROVISIONAL,
        begins_at=begins,
        due_at=due,
        reached_milestone=done,
        ended_at=None if done else ended,
        inactive_reason=None if done else why,
        lateness=lateness,
        remaining=due - now if due and is_waiting and now <= due else None,
    )


def _end_by_decision(
    facts: IncidentFacts, milestone: str
) -> tuple[datetime, InactiveReason] | None:
    """Return when and why a person ended a time limit by a decision.

    The decision is to cancel the incident, or to declare that the report is not needed. If a person
    did both, the earlier decision counts. Return None if there is no such decision.

    Args:
        facts: facts about the incident.
        milestone: name of the milestone that has to be reached within the time limit.
    """
    ends = []
    if facts.cancelled_at is not None:
        ends.append((utc(facts.cancelled_at), InactiveReason.CANCELLED))
    if (at := facts.not_needed.get(milestone)) is not None:
        ends.append((utc(at), InactiveReason.NOT_NEEDED))
    return min(ends, default=None)


def _time_limit_state(
    applies: Applicability,
    why: InactiveReason | None,
    due: datetime | None,
    done: ReachedMilestone | None,
    ended: datetime | None,
    now: datetime,
    soon: timedelta,
) -> tuple[TimeLimitState, datetime | None]:
    """Return the state of a time limit, and the time until which its lateness is counted.

    The time is None if the time limit has not started, or applies only to a grade that is not
    confirmed.

    Args:
        applies: whether the rule of the time limit applies to the incident.
        why: reason why the rule does not apply; None if it applies.
        due: deadline; None if the time limit has not started.
        done: the reached milestone; None if it was not reached.
        ended: time at which a decision of a person ended the time limit, or None.
        now: current time.
        soon: remaining time at or below which a running time limit has the state `DUE_SOON`.
    """
    if done is not None and applies is not Applicability.NOT_YET:
        at = utc(done.at)
        return (TimeLimitState.LATE if due and at > due else TimeLimitState.MET), at
    if ended is not None:
        was_a_duty = applies in (Applicability.YES, Applicability.LAPSED)
        if due and ended > due and was_a_duty:
            return TimeLimitState.MISSED, ended
        return (
            TimeLimitState.LAPSED if why is InactiveReason.REGRADED else TimeLimitState.STOPPED
        ), ended
    if applies is Applicability.NOT_YET:
        return TimeLimitState.NOT_YET, None
    if due is None:
        return TimeLimitState.NOT_BEGUN, None
    if now > due:
        return TimeLimitState.OVERDUE, now
    return (TimeLimitState.DUE_SOON if due - now <= soon else TimeLimitState.RUNNING), now


def facts_of_record(current_rules: IncidentRules, record: IncidentRecord) -> IncidentFacts:
    """Return the facts about an incident from which its time limits are computed.

    Args:
        current_rules: current content of incident.yaml.
        record: incident with its timeline.
    """
    scope_entry = last_of(record.entries, Kind.SCOPED)
    count = scope_entry.as_(Scoped) if scope_entry is not None else None
    opened = last_of(record.entries, Kind.OPENED)
    critical = opened.as_(Opened).critical if opened is not None else None
    rules = apply_snapshot(current_rules, record.incident.kept, record.incident.clocks)
    return build_facts(
        record.entries,
        aware_at=record.incident.aware_at,
        type=record.incident.type,
        # For incidents opened before `critical` was stored, use the current value.
        critical=current_rules.critical if critical is None else critical,
        order=[grade.id for grade in rules.grades],
        proposed=count.proposed if count is not None and count.certain else None,
    )


def time_limits_of(run: IncidentRun, record: IncidentRecord) -> list[TimeLimit]:
    """Return the time limits of an incident at the current time.

    The time limits follow the rules that were stored when the incident was opened.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
    """
    return time_limits_at(run.rules, record, run.clock.now(), run.zone)


def time_limits_at(
    current_rules: IncidentRules, record: IncidentRecord, now: datetime, zone: ZoneInfo
) -> list[TimeLimit]:
    """Return the time limits of an incident at a given time.

    Unlike `time_limits_of`, this function needs no run.

    Args:
        current_rules: current content of incident.yaml.
        record: incident with its timeline.
        now: time for which the time limits are computed.
        zone: timezone of the policy pack.
    """
    return compute_time_limits(
        record.incident.clocks,
        facts_of_record(current_rules, record),
        milestones(record.entries),
        now,
        zone,
    )
