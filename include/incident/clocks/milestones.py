"""Milestones of an incident, and the decisions whether people are notified.

A milestone counts from when it happened, not from when it was recorded: Airflow may have been down.
The timeline has both moments. Entries that end a clock by a decision (another grade, a
cancellation, a report that is not needed) count from when they were entered: otherwise a late
decision could be dated back.

A decision is about the words of a letter and a list of people. A later decision on the same words
adds people to those before. Once the words differ, it is about everybody to whom nothing was sent,
and the decisions before no longer stand.
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
from include.incident.names import Kind, Phase
from include.incident.timeline import Entry, last_of, of_kind

_CHANGES = (Kind.SCOPED, Kind.PRESERVED, Kind.DECIDED, Kind.QUEUED)


def words_of(decided: Entry) -> tuple[str, str]:
    """Digests of the letter, and of the entry with its words, that a decision is bound to.

    Where that is not kept, each decision is on words of its own.
    """
    bound = _bound(decided)
    return str(bound.get("text", "")), str(bound.get("words", decided.place))


def list_of(decided: Entry) -> str:
    """Digest of the list of people that a decision is bound to; empty where none is kept."""
    return str(_bound(decided).get("list", ""))


def on_last_words(entries: Sequence[Entry]) -> list[Entry]:
    """Decisions on the words that were decided on last, oldest first."""
    found = of_kind(entries, Kind.DECIDED)
    if not found:
        return []
    words = words_of(found[-1])
    return list(takewhile(lambda one: words_of(one) == words, reversed(found)))[::-1]


def tells(entries: Sequence[Entry]) -> bool:
    """Return whether anybody is told, by the decisions on the words that were decided on last."""
    return any(entry.as_(Decided).tell for entry in on_last_words(entries))


def chain(entries: Sequence[Entry]) -> list[Entry]:
    """The last decision and those that it adds to, oldest first; each about people of its own."""
    by_place = {entry.place: entry for entry in on_last_words(entries)}
    one = last_of(entries, Kind.DECIDED)
    found = []
    while one is not None:
        found.append(one)
        one = by_place.get(one.as_(Decided).adds_to or 0)
    return found[::-1]


def unqueued(entries: Sequence[Entry]) -> bool:
    """Return whether it was decided that people are told, and their notices are not queued yet."""
    telling = [entry for entry in chain(entries) if entry.as_(Decided).tell]
    if not telling:
        return False
    sha256 = telling[-1].as_(Decided).sha256
    return not any(
        entry.place > telling[-1].place and entry.as_(NoticesQueuedFor).sha256 == sha256
        for entry in of_kind(entries, Kind.QUEUED)
    )


def everybody(entries: Sequence[Entry]) -> bool:
    """Return whether all that are affected are known, decided on and, if they are told, queued.

    Not while a database of the newest count could not be counted or listed, or while somebody is on
    the list on whom nobody decided.

    Args:
        entries: of one incident up to some moment, oldest first.
    """
    counted, secured = last_of(entries, Kind.SCOPED), last_of(entries, Kind.PRESERVED)
    if counted is None:  # nobody decides before
        return True
    decided = last_of(entries, Kind.DECIDED)
    if decided is None or unqueued(entries):
        return False
    if secured is None:
        return False
    count, evidence = counted.as_(Scoped), secured.as_(Preserved)
    if evidence.version < count.version or count.unknown or evidence.not_listed:
        return False
    return evidence.list_sha256 in (NOT_LISTED, list_of(decided))


def everybody_since(entries: Sequence[Entry], moment: datetime) -> datetime | None:
    """From when on, at or after a moment, `everybody` was so first; None where it never was.

    Args:
        entries: of one incident, oldest first.
        moment: as of which it is looked first, by what was entered until then.
    """
    if everybody([entry for entry in entries if entry.recorded_at <= moment]):
        return moment
    for place, one in enumerate(entries, 1):
        if one.kind in _CHANGES and one.recorded_at > moment and everybody(entries[:place]):
            return one.recorded_at
    return None


def _bound(decided: Entry) -> Mapping[str, str]:
    return decided.as_(Decided).bound or {}


CLOSED, INDIVIDUALS_TOLD = "closed", "individuals_told"
_PLAIN = {
    Kind.OPENED: "opened",
    Kind.TEAM_CALLED: "team_called",
    Kind.GRADED: "graded",
    Kind.CONTAINED: "contained",
    Kind.PRESERVED: "preserved",
    Kind.TOLD: INDIVIDUALS_TOLD,
    Kind.CLOSED: CLOSED,
    Kind.SUMMARISED: "summarised",
}

_ON_PEOPLE = (Kind.DECIDED, Kind.SCOPED, Kind.PRESERVED)
"""What changes whether all that are affected are known and decided on."""


@dataclass(frozen=True)
class Reached:
    """A milestone that was reached.

    Attributes:
        at: when it happened.
        recorded_at: when that was entered.
        place: of the entry.
    """

    at: datetime
    recorded_at: datetime
    place: int


@dataclass(frozen=True)
class Graded:
    """A grade that a person confirmed.

    Attributes:
        grade: of incident.yaml.
        at: when.
    """

    grade: str
    at: datetime


def reported(authority: str) -> str:
    """Name of the milestone of a report to an authority."""
    return f"reported:{authority}"


def milestones(entries: Sequence[Entry]) -> dict[str, Reached]:
    """Say when each milestone was first reached; those that were not are left out.

    A grade that is changed later, a second report or notices to people found later leave the first
    time as it is. What was voided by a later entry counts for nothing, and neither does the
    decision that people need not be told once it was decided that they are. People are told only
    once all that are affected are known and were decided on.

    Args:
        entries: of one incident, oldest first.
    """
    found: dict[str, Reached] = {}
    for name, one in _counting(entries):
        if name not in found or one.at < found[name].at:
            found[name] = one
    return found


def grades(entries: Sequence[Entry]) -> tuple[Graded, ...]:
    """The grades that were confirmed one after the other; the last one stands.

    The first one by the step that grades counts from when it was answered, every other from when it
    was entered.
    """
    found: list[Graded] = []
    for entry in valid(entries):
        if entry.kind is Kind.GRADED:
            found.append(
                Graded(entry.as_(GradeConfirmed).grade, _graded_at(entry, first=not found))
            )
    return tuple(found)


def cancelled_at(entries: Sequence[Entry]) -> datetime | None:
    """When it was entered that it was none; None where nobody did."""
    found = [entry.recorded_at for entry in valid(entries) if entry.kind is Kind.CANCELLED]
    return found[-1] if found else None


def not_needed(entries: Sequence[Entry], order: Sequence[str]) -> dict[str, datetime]:
    """Reports that need not be handed in, as a person decided: milestone -> when that was entered.

    Args:
        entries: of one incident, oldest first.
        order: grades of incident.yaml, least first.
    """
    found: dict[str, datetime] = {}
    handed_in = milestones(entries)
    for entry in valid(entries):
        if entry.kind is not Kind.REPORTED or not _is_first(entry):
            continue
        if is_declined(entry) and not outgrown(entry, entries, order):
            found.setdefault(reported(entry.as_(Reported).authority), entry.recorded_at)
    return {name: at for name, at in found.items() if name not in handed_in}


def declined(entries: Sequence[Entry]) -> list[Entry]:
    """Reports that, by the last answer to each, a person said need not be handed in."""
    last: dict[tuple[str, Phase | None], Entry] = {}
    for one in valid(entries):
        if one.kind is Kind.REPORTED:
            report = one.as_(Reported)
            last[report.authority, report.phase] = one
    return [one for one in last.values() if is_declined(one)]


def is_declined(report: Entry) -> bool:
    """Return whether an answer to a report says that it need not be handed in."""
    return not report.as_(Reported).complete


def outgrown(answer: Entry, entries: Sequence[Entry], order: Sequence[str]) -> bool:
    """Whether a worse grade was confirmed after an answer: it was decided for a lesser incident.

    Going down again does not bring it back: what ran out meanwhile would never have.

    Args:
        answer: an entry.
        entries: of its incident, oldest first.
        order: grades of incident.yaml, least first; one that it does not have any more is worse.
    """
    rank = {grade: place for place, grade in enumerate(order)}
    ranks = [
        (entry.place, rank.get(entry.as_(GradeConfirmed).grade, len(order)))
        for entry in valid(entries)
        if entry.kind is Kind.GRADED
    ]
    then = [grade for place, grade in ranks if place < answer.place]
    return any(grade > (then[-1] if then else 0) for place, grade in ranks if place > answer.place)


def valid(entries: Sequence[Entry]) -> list[Entry]:
    """Entries that no later entry voids, unless that one was voided itself; oldest first."""
    void: set[int] = set()
    for one in reversed(entries):
        if one.place not in void:
            void.update(place for place in one.as_(EntryData).voids if place < one.place)
    return [entry for entry in entries if entry.place not in void]


def _counting(entries: Sequence[Entry]) -> Iterator[tuple[str, Reached]]:
    untold: list[Reached] = []
    sent = False  # whether notices went out, be it not to everybody, and none was queued since
    graded = False
    counting = valid(entries)
    for place, one in enumerate(counting, 1):
        at = one.happened_at
        if one.kind is Kind.GRADED:
            at, graded = _graded_at(one, first=not graded), True
        moment = Reached(at, one.recorded_at, one.place)
        if one.kind in (Kind.TOLD, Kind.QUEUED):
            sent = one.kind is Kind.TOLD
        if one.kind in _ON_PEOPLE:
            known = counting[:place]
            if tells(known):
                untold = []
            elif last_of(known, Kind.DECIDED) is not None and everybody(known):
                untold.append(moment)
        if not one.as_(EntryData).complete:
            continue
        if one.kind is Kind.TOLD_OTHERWISE and sent and everybody(counting[:place]):
            yield INDIVIDUALS_TOLD, moment  # those whom no notice reached
        if one.kind in _PLAIN:
            yield _PLAIN[one.kind], moment
        elif one.kind is Kind.REPORTED and _is_first(one):
            yield reported(one.as_(Reported).authority), moment
    for moment in untold:
        yield INDIVIDUALS_TOLD, moment


def _is_first(report: Entry) -> bool:
    return report.as_(Reported).phase is not Phase.REST


def _graded_at(entry: Entry, *, first: bool) -> datetime:
    return entry.happened_at if first and entry.as_(EntryData).action is None else entry.recorded_at
