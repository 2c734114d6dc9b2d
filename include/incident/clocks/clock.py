"""Clocks of an incident: what is due by when, whether it was done, and how late.

Nothing here is stored and nothing waits: every figure is computed from the rules as they were when
the incident was opened, the moments on its timeline, and the time at which somebody looks. A
workflow that stood still for six hours, or was never started, changes none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from include.incident.clocks.milestones import (
    CLOSED,
    Graded,
    Reached,
    cancelled_at,
    grades,
    milestones,
    not_needed,
    reported,
)
from include.incident.entries import Opened, Scoped
from include.incident.incident_run import IncidentRecord, IncidentRun
from include.incident.names import Kind
from include.incident.register import as_opened
from include.incident.rules import Applies, ClockRule, IncidentRules
from include.incident.timeline import Entry, last_of
from include.policy.period import later, utc

SOON = timedelta(hours=1)
IN_TIME = timedelta(0)


class ClockState(StrEnum):
    """Where a clock stands; in the order in which people want to see them."""

    OVERDUE = "overdue"  # it ran out, and still has to be done
    DUE_SOON = "due_soon"
    RUNNING = "running"
    NOT_YET = "not_yet"  # would run if the incident were graded as is not expected
    NOT_BEGUN = "not_begun"  # runs from the end of the handling
    LATE = "late"  # done after it ran out
    MISSED = "missed"  # ran out, and need not be done any more
    MET = "met"  # done in time
    LAPSED = "lapsed"  # ended in time by a grade to which it does not apply
    STOPPED = "stopped"  # ended in time by a person: cancelled, or said not to be needed
    NOT_APPLICABLE = "not_applicable"


OPEN = (ClockState.OVERDUE, ClockState.DUE_SOON, ClockState.RUNNING)
"""States in which something has to be done."""


class Why(StrEnum):
    """Why a clock does not run."""

    GRADE = "grade"  # it is for other grades
    TYPE = "type"  # for other types of incidents
    SYSTEMS = "systems"  # for companies with, or without, critical systems
    REGRADED = "regraded"
    CANCELLED = "cancelled"
    NOT_NEEDED = "not_needed"


class Bearing(StrEnum):
    """The bearing of a rule on an incident."""

    YES = "yes"
    PROVISIONAL = "provisional"  # if the grade is confirmed as proposed, or is not known at all
    NOT_YET = "not_yet"  # only if another grade than the proposed one is confirmed
    LAPSED = "lapsed"  # it did before the incident was regraded
    NO = "no"


@dataclass(frozen=True)
class Facts:
    """What clocks have to know of an incident.

    Attributes:
        aware_at: when the company became aware.
        type: of incident.yaml.
        critical: whether the company's systems are critical infrastructure.
        graded: grades as people confirmed them, oldest first; the last one stands.
        proposed: grade that was proposed; None where none is known, or where something could not
            be counted and it may be higher: then every grade is held possible.
        closed_at: when its handling ended.
        cancelled_at: when it was entered that it was none.
        not_needed: milestones that need not be reached, as a person decided, and since when.
    """

    aware_at: datetime
    type: str
    critical: bool = False
    graded: tuple[Graded, ...] = ()
    proposed: str | None = None
    closed_at: datetime | None = None
    cancelled_at: datetime | None = None
    not_needed: Mapping[str, datetime] = field(default_factory=dict)

    @property
    def grade(self) -> str | None:
        """The grade that stands, None before one was confirmed."""
        return self.graded[-1].grade if self.graded else None


def facts_of(
    entries: Sequence[Entry],
    *,
    aware_at: datetime,
    type: str,  # noqa: A002 - the incident's own word
    critical: bool,
    order: Sequence[str],
    proposed: str | None = None,
) -> Facts:
    """Gather the facts from a timeline; see `Facts`. `order` has the grades, least first."""
    closed = milestones(entries).get(CLOSED)
    return Facts(
        aware_at=aware_at,
        type=type,
        critical=critical,
        graded=grades(entries),
        proposed=proposed,
        closed_at=closed.at if closed else None,
        cancelled_at=cancelled_at(entries),
        not_needed=not_needed(entries, order),
    )


@dataclass(frozen=True)
class Clock:
    """A clock as it stands; all moments in UTC.

    Attributes:
        rule: what it measures.
        state: where it stands.
        provisional: whether it runs for a grade that nobody confirmed yet.
        begins_at: None where it has not begun or does not apply.
        due_at: done then is done in time, a moment later is late; None likewise.
        done: what stopped it, and when that was entered; None where nothing did in its time.
        ended_at: when people ended it: regraded, cancelled, or said that it is not needed.
        why: why it does not run.
        lateness: how long after it was due it was done, ended, or is looked at; zero where it was
            not late.
        remaining: until it is due, where it has to be done and is not late.
    """

    rule: ClockRule
    state: ClockState
    provisional: bool = False
    begins_at: datetime | None = None
    due_at: datetime | None = None
    done: Reached | None = None
    ended_at: datetime | None = None
    why: Why | None = None
    lateness: timedelta = IN_TIME
    remaining: timedelta | None = None

    @property
    def id(self) -> str:
        """Of its rule."""
        return self.rule.id

    @property
    def milestone(self) -> str:
        """What stops it, ``reported:cac``."""
        return milestone_of(self.rule)

    @property
    def done_at(self) -> datetime | None:
        """When it was stopped."""
        return self.done.at if self.done else None

    @property
    def is_open(self) -> bool:
        """Return whether something has to be done."""
        return self.state in OPEN

    @property
    def is_late(self) -> bool:
        """Return whether it ran out before its milestone was reached."""
        return self.lateness > IN_TIME


def milestone_of(rule: ClockRule) -> str:
    """The milestone that stops a clock."""
    return reported(rule.authority) if rule.authority else rule.ends


def clocks(
    rules: Sequence[ClockRule],
    facts: Facts,
    reached: Mapping[str, Reached],
    now: datetime,
    zone: ZoneInfo,
    soon: timedelta = SOON,
) -> list[Clock]:
    """Say how each clock stands, in the order of the rules.

    What was late when people ended it stays late, for as long as it was by then; a clock whose
    grade nobody had confirmed was never a duty, and is not.

    Args:
        rules: as they were when the incident was opened.
        facts: about the incident.
        reached: its milestones.
        now: when somebody looks.
        zone: of the pack; days and months are those of its calendar.
        soon: how long before it is due a clock is due soon.

    Raises:
        ValueError: a moment has no timezone.
        UsageError: a period is longer than the calendar.
    """
    return [_clock(rule, facts, reached, utc(now), zone, soon) for rule in rules]


def late(found: Iterable[Clock]) -> list[Clock]:
    """Clocks that ran out before their milestone was reached, the one due first before others."""
    return sorted((clock for clock in found if clock.is_late), key=_due)


def for_people(found: Iterable[Clock]) -> list[Clock]:
    """What has to be done first, then what will be, then what is over; by due time in each."""
    order = list(ClockState)
    return sorted(found, key=lambda one: (order.index(one.state), *_due(one)))


def bearing(rule: Applies, facts: Facts) -> Bearing:
    """Say whether a rule applies: a clock's, or an authority's."""
    return _bearing(rule, facts)[0]


def _due(clock: Clock) -> tuple[bool, float, str]:
    return clock.due_at is None, clock.due_at.timestamp() if clock.due_at else 0.0, clock.id


def _bearing(rule: Applies, facts: Facts) -> tuple[Bearing, Why | None, datetime | None]:
    """With why it does not, and since when."""
    if rule.types and facts.type not in rule.types:
        return Bearing.NO, Why.TYPE, None
    if rule.critical is not None and rule.critical != facts.critical:
        return Bearing.NO, Why.SYSTEMS, None
    if not rule.grades or facts.grade in rule.grades:
        return Bearing.YES, None, None
    if facts.grade is None:
        if facts.proposed is None or facts.proposed in rule.grades:
            return Bearing.PROVISIONAL, None, None
        return Bearing.NOT_YET, Why.GRADE, None
    for place in range(len(facts.graded) - 2, -1, -1):
        if facts.graded[place].grade in rule.grades:
            return Bearing.LAPSED, Why.REGRADED, utc(facts.graded[place + 1].at)
    return Bearing.NO, Why.GRADE, None


def _clock(
    rule: ClockRule,
    facts: Facts,
    reached: Mapping[str, Reached],
    now: datetime,
    zone: ZoneInfo,
    soon: timedelta,
) -> Clock:
    stands, why, ended = _bearing(rule, facts)
    if stands is Bearing.NO:
        return Clock(rule, ClockState.NOT_APPLICABLE, why=why)
    if ended is None:
        ended, why = _ended(facts, milestone_of(rule)) or (None, why)
    start = facts.aware_at if rule.begins == "awareness" else facts.closed_at
    begins = utc(start) if start else None
    due = later(begins, rule.within, zone) if begins else None
    done = reached.get(milestone_of(rule))
    if done is not None and ended is not None and utc(done.at) > ended:
        done = None
    state, until = _state(stands, why, due, done, ended, now, soon)
    lateness = IN_TIME
    if due and until and state in (ClockState.OVERDUE, ClockState.LATE, ClockState.MISSED):
        lateness = until - due
    waits = state in (*OPEN, ClockState.NOT_YET)
    return Clock(
        rule=rule,
        state=state,
        provisional=stands is Bearing.PROVISIONAL,
        begins_at=begins,
        due_at=due,
        done=done,
        ended_at=None if done else ended,
        why=None if done else why,
        lateness=lateness,
        remaining=due - now if due and waits and now <= due else None,
    )


def _ended(facts: Facts, milestone: str) -> tuple[datetime, Why] | None:
    """When people ended a clock, and how; the first of both."""
    found = []
    if facts.cancelled_at is not None:
        found.append((utc(facts.cancelled_at), Why.CANCELLED))
    if (at := facts.not_needed.get(milestone)) is not None:
        found.append((utc(at), Why.NOT_NEEDED))
    return min(found, default=None)


def _state(
    stands: Bearing,
    why: Why | None,
    due: datetime | None,
    done: Reached | None,
    ended: datetime | None,
    now: datetime,
    soon: timedelta,
) -> tuple[ClockState, datetime | None]:
    """The state, and the moment up to which lateness counts."""
    if done is not None and stands is not Bearing.NOT_YET:
        at = utc(done.at)
        return (ClockState.LATE if due and at > due else ClockState.MET), at
    if ended is not None:
        was_a_duty = stands in (Bearing.YES, Bearing.LAPSED)
        if due and ended > due and was_a_duty:
            return ClockState.MISSED, ended
        return (ClockState.LAPSED if why is Why.REGRADED else ClockState.STOPPED), ended
    if stands is Bearing.NOT_YET:
        return ClockState.NOT_YET, None
    if due is None:
        return ClockState.NOT_BEGUN, None
    if now > due:
        return ClockState.OVERDUE, now
    return (ClockState.DUE_SOON if due - now <= soon else ClockState.RUNNING), now


def facts_from(today: IncidentRules, record: IncidentRecord) -> Facts:
    """What clocks have to know of an incident.

    Args:
        today: incident.yaml.
        record: the incident.
    """
    scoped = last_of(record.entries, Kind.SCOPED)
    count = scoped.as_(Scoped) if scoped is not None else None
    opened = last_of(record.entries, Kind.OPENED)
    critical = opened.as_(Opened).critical if opened is not None else None
    rules = as_opened(today, record.incident.kept, record.incident.clocks)
    return facts_of(
        record.entries,
        aware_at=record.incident.aware_at,
        type=record.incident.type,
        # Incidents opened before this was kept have today's.
        critical=today.critical if critical is None else critical,
        order=[grade.id for grade in rules.grades],
        proposed=count.proposed if count is not None and count.certain else None,
    )


def clocks_of(run: IncidentRun, record: IncidentRecord) -> list[Clock]:
    """How its clocks stand now, by the rules as they were when it was opened.

    Args:
        run: the run or command.
        record: the incident.
    """
    return clocks_at(run.rules, record, run.clock.now(), run.zone)


def clocks_at(
    today: IncidentRules, record: IncidentRecord, now: datetime, zone: ZoneInfo
) -> list[Clock]:
    """How its clocks stand at a moment, for who has nothing to work on the incident with.

    Args:
        today: incident.yaml.
        record: the incident.
        now: the moment.
        zone: of the pack.
    """
    return clocks(
        record.incident.clocks, facts_from(today, record), milestones(record.entries), now, zone
    )
