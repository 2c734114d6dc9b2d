"""Decisions whether people are told: which of them stand, whom each is about, and who is left.

A decision is about the words of the letter and a list of people. On the same words a later one adds
to the ones before: it is about the people who came to the list since. Once the words are others it
is about everybody to whom nothing was sent, and the ones before stand no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import takewhile

from include.incident.entries import Decided, NoticesQueuedFor, Scoped
from include.incident.names import Kind
from include.incident.results import NOT_LISTED, Preserved
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
    """Whether anybody is told, by the decisions on the words that were decided on last."""
    return any(one.as_(Decided).tell for one in on_last_words(entries))


def chain(entries: Sequence[Entry]) -> list[Entry]:
    """The last decision and those that it adds to, oldest first; each about people of its own."""
    by_place = {one.place: one for one in on_last_words(entries)}
    one = last_of(entries, Kind.DECIDED)
    found = []
    while one is not None:
        found.append(one)
        one = by_place.get(one.as_(Decided).adds_to or 0)
    return found[::-1]


def unqueued(entries: Sequence[Entry]) -> bool:
    """Whether it was decided that people are told, and their notices are not queued yet."""
    telling = [one for one in chain(entries) if one.as_(Decided).tell]
    if not telling:
        return False
    sha256 = telling[-1].as_(Decided).sha256
    return not any(
        one.place > telling[-1].place and one.as_(NoticesQueuedFor).sha256 == sha256
        for one in of_kind(entries, Kind.QUEUED)
    )


def everybody(entries: Sequence[Entry]) -> bool:
    """Whether all that are affected are known, decided on and, if they are told, queued.

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
    if everybody([one for one in entries if one.recorded_at <= moment]):
        return moment
    for place, one in enumerate(entries, 1):
        if one.kind in _CHANGES and one.recorded_at > moment and everybody(entries[:place]):
            return one.recorded_at
    return None


def _bound(decided: Entry) -> Mapping[str, str]:
    return decided.as_(Decided).bound or {}
