"""Milestones of an incident, and the decisions to notify affected people.

The time of a milestone is the time of its event, not the time at which the event was recorded,
because Airflow may have been down. The timeline stores both times. There is one exception. A new
grade, a cancellation, or a declaration that a report is not needed can end a time limit too. For
such an event, the time at which it was recorded counts, because it must not be backdated.

A decision whether to notify people is about one notice text and one list of people. A later
decision about the same text covers the people added to the list since. If the text changes, earlier
decisions are not in force any more. The next decision then covers all people to whom no notice was
sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile

from include.incident.entries import (
    NOT_LISTED,
    Decided,
    EntryData,
    GradeConfirmed,
    NoticesQueuedFor,
    Preserved,
    Reported,
    Scoped,
)
from include.incident.incident_ids import Kind, Phase
from include.incident.timeline import Entry, last_of, of_kind

_HANDLING_KINDS = (Kind.SCOPED, Kind.PRESERVED, Kind.DECIDED, Kind.QUEUED)


def notice_digests_of(decided: Entry) -> tuple[str, str]:
    """Return the digests of the notice text and of the impact texts that a decision is about.

    A decision that an older version of ParcelSeal recorded has no digest of the impact texts. In
    this case the second value is the position of the decision in the timeline. Such a decision
    therefore never counts as being about the same texts as another decision.

    Args:
        decided: timeline entry of the decision.
    """
    bound = _bound(decided)
    return str(bound.get("text", "")), str(bound.get("words", decided.place))


def list_digest_of(decided: Entry) -> str:
    """Return the digest of the list of people that a decision is about.

    Return an empty text if an older version of ParcelSeal recorded the decision without this
    digest.

    Args:
        decided: timeline entry of the decision.
    """
    return str(_bound(decided).get("list", ""))


def decisions_on_last_notice(entries: Sequence[Entry]) -> list[Entry]:
    """Return the decisions about the newest notice text, oldest first.

    This is the text that the newest decision is about. Decisions before the last change of the text
    are left out.

    Args:
        entries: entries of one incident, oldest first.
    """
    decisions = of_kind(entries, Kind.DECIDED)
    if not decisions:
        return []
    digests = notice_digests_of(decisions[-1])
    return list(takewhile(lambda entry: notice_digests_of(entry) == digests, reversed(decisions)))[
        ::-1
    ]


def is_notifying_decided(entries: Sequence[Entry]) -> bool:
    """Return whether a person decided to notify people with the current notice text.

    The current text is the text that the newest decision is about.

    Args:
        entries: entries of one incident, oldest first.
    """
    return any(entry.as_(Decided).tell for entry in decisions_on_last_notice(entries))


def decision_chain(entries: Sequence[Entry]) -> list[Entry]:
    """Return the decisions in force, oldest first.

    These are the newest decision and all earlier decisions that it extends to more people.

    Args:
        entries: entries of one incident, oldest first.
    """
    by_place = {entry.place: entry for entry in decisions_on_last_notice(entries)}
    decision = last_of(entries, Kind.DECIDED)
    decisions = []
    while decision is not None:
        decisions.append(decision)
        decision = by_place.get(decision.as_(Decided).adds_to or 0)
    return decisions[::-1]


def has_unqueued_notices(entries: Sequence[Entry]) -> bool:
    """Return whether the notices of the newest decision to notify people still have to be queued.

    Only decisions in force are examined. Return False if none of them is a decision to notify
    people.

    Args:
        entries: entries of one incident, oldest first.
    """
    notifying = [entry for entry in decision_chain(entries) if entry.as_(Decided).tell]
    if not notifying:
        return False
    sha256 = notifying[-1].as_(Decided).sha256
    return not any(
        entry.place > notifying[-1].place and entry.as_(NoticesQueuedFor).sha256 == sha256
        for entry in of_kind(entries, Kind.QUEUED)
    )


def is_everybody_handled(entries: Sequence[Entry]) -> bool:
    """Return whether all affected people are known, and the decisions about them are carried out.

    A decision to notify people is carried out when the notices are queued. For a decision not to
    notify people, nothing has to be done. Return False if a database could not be counted or its
    people could not be listed, or if no decision covers the newest list of people. Before the first
    count, return True, because no decision is possible yet.

    Args:
        entries: entries of one incident up to some time, oldest first.
    """
    counted, preserved = last_of(entries, Kind.SCOPED), last_of(entries, Kind.PRESERVED)
    if counted is None:  # no decision is possible before the first count
        return True
    decided = last_of(entries, Kind.DECIDED)
    if decided is None or has_unqueued_notices(entries):
        return False
    if preserved is None:
        return False
    count, evidence = counted.as_(Scoped), preserved.as_(Preserved)
    if evidence.version < count.version or count.unknown or evidence.not_listed:
        return False
    return evidence.list_sha256 in (NOT_LISTED, list_digest_of(decided))


def everybody_handled_at(entries: Sequence[Entry], moment: datetime) -> datetime | None:
    """Return the first time, not before `moment`, at which `is_everybody_handled` is true.

    Return None if it is not true at `moment` or later.

    Args:
        entries: entries of one incident, oldest first.
        moment: earliest time to return.
    """
    if is_everybody_handled([entry for entry in entries if entry.recorded_at <= moment]):
        return moment
    for count, entry in enumerate(entries, 1):
        if (
            entry.kind in _HANDLING_KINDS
            and entry.recorded_at > moment
            and is_everybody_handled(entries[:count])
        ):
            return entry.recorded_at
    return None


def _bound(decided: Entry) -> Mapping[str, str]:
    return decided.as_(Decided).bound or {}


CLOSED, INDIVIDUALS_TOLD = "closed", "individuals_told"
_MILESTONE_BY_KIND = {
    Kind.OPENED: "opened",
    Kind.TEAM_CALLED: "team_called",
    Kind.GRADED: "graded",
    Kind.CONTAINED: "contained",
    Kind.PRESERVED: "preserved",
    Kind.TOLD: INDIVIDUALS_TOLD,
    Kind.CLOSED: CLOSED,
    Kind.SUMMARISED: "summarised",
}

_DECISION_KINDS = (Kind.DECIDED, Kind.SCOPED, Kind.PRESERVED)
"""Kinds of entries that change whether everybody affected is known and decided on."""


@dataclass(frozen=True)
class ReachedMilestone:
    """When a milestone was reached, and the timeline entry that records it.

    Attributes:
        at: time of the event that reached the milestone.
        recorded_at: time at which the event was recorded.
        place: position of the entry in the timeline.
    """

    at: datetime
    recorded_at: datetime
    place: int


@dataclass(frozen=True)
class ConfirmedGrade:
    """A grade that a person confirmed, and the time from which it is in force.

    Attributes:
        grade: id of a grade in incident.yaml.
        at: time from which the grade is in force.
    """

    grade: str
    at: datetime


def report_milestone(authority: str) -> str:
    """Return the name of the milestone that is reached when a report is handed in.

    Args:
        authority: id of the authority that receives the report.
    """
    return f"reported:{authority}"


def milestones(entries: Sequence[Entry]) -> dict[str, ReachedMilestone]:
    """Return the reached milestones by name, with the time when each was first reached.

    A new grade, a second report, or notices to people who were found later do not change the time
    of a reached milestone. Entries that a later correction declares to be mistakes are ignored. A
    decision not to notify people is ignored if a later decision is to notify people. The milestone
    of the notification is reached only if all affected people are known and covered by a decision.

    Args:
        entries: entries of one incident, oldest first.
    """
    reached: dict[str, ReachedMilestone] = {}
    for name, milestone in _reached_milestones(entries):
        if name not in reached or milestone.at < reached[name].at:
            reached[name] = milestone
    return reached


def confirmed_grades(entries: Sequence[Entry]) -> tuple[ConfirmedGrade, ...]:
    """Return the grades that people confirmed, oldest first. The newest grade is in force.

    The time of the first grade is the time at which a person answered the grading step. The time of
    a later grade is the time at which it was recorded.

    Args:
        entries: entries of one incident, oldest first.
    """
    grades: list[ConfirmedGrade] = []
    for entry in valid_entries(entries):
        if entry.kind is Kind.GRADED:
            grades.append(
                ConfirmedGrade(entry.as_(GradeConfirmed).grade, _graded_at(entry, first=not grades))
            )
    return tuple(grades)


def cancelled_at(entries: Sequence[Entry]) -> datetime | None:
    """Return the time at which the cancellation of the incident was recorded, or None."""
    times = [entry.recorded_at for entry in valid_entries(entries) if entry.kind is Kind.CANCELLED]
    return times[-1] if times else None


def unneeded_reports(entries: Sequence[Entry], order: Sequence[str]) -> dict[str, datetime]:
    """Return the declarations that a first report to an authority is not needed.

    A declaration is left out if the report was handed in after all, or if a more severe grade was
    confirmed after the declaration. Declarations about follow-up reports are left out too.

    Args:
        entries: entries of one incident, oldest first.
        order: ids of the grades of incident.yaml, least severe first.

    Returns:
        Name of the report's milestone -> time at which the declaration was recorded.
    """
    declined_at: dict[str, datetime] = {}
    reached = milestones(entries)
    for entry in valid_entries(entries):
        if entry.kind is not Kind.REPORTED or not _is_first_report(entry):
            continue
        if is_declined(entry) and not is_superseded_by_grade(entry, entries, order):
            declined_at.setdefault(
                report_milestone(entry.as_(Reported).authority), entry.recorded_at
            )
    return {name: at for name, at in declined_at.items() if name not in reached}


def declined_reports(entries: Sequence[Entry]) -> list[Entry]:
    """Return the timeline entries that declare a report not needed.

    An entry is left out if a later entry about the same report replaced it. So each report to an
    authority has at most one entry.

    Args:
        entries: entries of one incident, oldest first.
    """
    last: dict[tuple[str, Phase | None], Entry] = {}
    for entry in valid_entries(entries):
        if entry.kind is Kind.REPORTED:
            report = entry.as_(Reported)
            last[report.authority, report.phase] = entry
    return [entry for entry in last.values() if is_declined(entry)]


def is_declined(report: Entry) -> bool:
    """Return whether an entry about a report declares that the report is not needed.

    Args:
        report: timeline entry of the kind `Kind.REPORTED`.
    """
    return not report.as_(Reported).complete


def is_superseded_by_grade(answer: Entry, entries: Sequence[Entry], order: Sequence[str]) -> bool:
    """Return whether an answer is invalid because a more severe grade was confirmed after it.

    The answer stays invalid even if a less severe grade is confirmed later.

    Args:
        answer: timeline entry of the answer.
        entries: entries of the same incident, oldest first.
        order: ids of the grades of incident.yaml, least severe first. A grade that is missing in
            the list counts as the most severe grade.
    """
    rank = {grade: index for index, grade in enumerate(order)}
    ranks = [
        (entry.place, rank.get(entry.as_(GradeConfirmed).grade, len(order)))
        for entry in valid_entries(entries)
        if entry.kind is Kind.GRADED
    ]
    earlier = [grade for position, grade in ranks if position < answer.place]
    return any(
        grade > (earlier[-1] if earlier else 0)
        for position, grade in ranks
        if position > answer.place
    )


def valid_entries(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries of a timeline without those that a correction declares to be mistakes.

    A correction counts only if no later correction declares it to be a mistake itself.

    Args:
        entries: entries of one incident, oldest first.
    """
    void: set[int] = set()
    for later in reversed(entries):
        if later.place not in void:
            void.update(
                position for position in later.as_(EntryData).voids if position < later.place
            )
    return [entry for entry in entries if entry.place not in void]


def _reached_milestones(entries: Sequence[Entry]) -> Iterator[tuple[str, ReachedMilestone]]:
    declined_at: list[ReachedMilestone] = []
    has_sent_notices = False  # sent, perhaps not to everybody, and none queued since
    has_grade = False
    counted_entries = valid_entries(entries)
    for position, entry in enumerate(counted_entries, 1):
        at = entry.happened_at
        if entry.kind is Kind.GRADED:
            at, has_grade = _graded_at(entry, first=not has_grade), True
        moment = ReachedMilestone(at, entry.recorded_at, entry.place)
        if entry.kind in (Kind.TOLD, Kind.QUEUED):
            has_sent_notices = entry.kind is Kind.TOLD
        if entry.kind in _DECISION_KINDS:
            entries_so_far = counted_entries[:position]
            if is_notifying_decided(entries_so_far):
                declined_at = []
            elif last_of(entries_so_far, Kind.DECIDED) is not None and is_everybody_handled(
                entries_so_far
            ):
                declined_at.append(moment)
        if not entry.as_(EntryData).complete:
            continue
        if (
            entry.kind is Kind.TOLD_OTHERWISE
            and has_sent_notices
            and is_everybody_handled(counted_entries[:position])
        ):
            yield INDIVIDUALS_TOLD, moment  # the people whom no notice reached were notified
        if entry.kind in _MILESTONE_BY_KIND:
            yield _MILESTONE_BY_KIND[entry.kind], moment
        elif entry.kind is Kind.REPORTED and _is_first_report(entry):
            yield report_milestone(entry.as_(Reported).authority), moment
    for moment in declined_at:
        yield INDIVIDUALS_TOLD, moment


def _is_first_report(report: Entry) -> bool:
    return report.as_(Reported).phase is not Phase.REST


def _graded_at(entry: Entry, *, first: bool) -> datetime:
    return entry.happened_at if first and entry.as_(EntryData).action is None else entry.recorded_at
