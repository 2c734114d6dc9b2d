"""Individual notices: planned, decided on by hash, queued once for each person, and their delivery.

The plan is what a person decides on: the words of the letter and the list of people, by their
digests, and how many of them can be reached. Whoever is found later is told by a plan of its own;
whoever was told before is not told again, since the notice's key names incident and person. A
letter that waits leaves with the words that were decided on last, or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, text

from include.approvals import registry
from include.approvals.registry import Request
from include.evidence.step_findings import StepFindings
from include.incident import incident_run, timeline
from include.incident.clocks.milestones import (
    INDIVIDUALS_TOLD,
    chain,
    everybody_since,
    list_of,
    milestones,
    on_last_words,
    tells,
    unqueued,
    words_of,
)
from include.incident.counting import subjects
from include.incident.entries import Decided, NoticesQueued, NoticesQueuedFor, Preserved, Told
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    incident_of,
    record_in,
    scenario_of,
)
from include.incident.names import INDIVIDUAL, STEP_NOTIFY, Kind, State
from include.incident.telling import letter
from include.incident.timeline import Entry, canonical, last_of, of_kind
from include.messages import Message, _
from include.notify import outbox
from include.notify.notice import NOT_WANTED, Notice
from include.notify.outbox import Queued
from include.notify.status import last_settled, statuses, unreached_since
from include.notify.texts import LetterText, digest, keep_text
from include.services.errors import ControlFailed
from include.state.connect import StateLock, lock_for_transaction

APPROVAL = "incident.notices"
"""Kind of the request for approval."""


@dataclass(frozen=True)
class NoticePlan:
    """Whom an incident's letter goes to, and what it says.

    Attributes:
        number: of the incident.
        version: of the scope that found the last of them.
        people: affected people, all of them.
        new: those of them to whom nothing was queued before.
        list_sha256: digest of the list of their keys.
        text_sha256: digest of the letter; of nothing where nobody is affected.
        words_sha256: digest of the timeline's entry that has the words of the letter; words that
            were changed and changed back are not those that were decided on.
        adds_to: place of the decision on the same words to which one on this plan adds; None where
            it is about everybody to whom nothing was sent.
        covers: how many people a decision would be about.
        again: digest of the decision not to tell just these people, where it is asked for anew.
    """

    number: str
    version: int
    people: int
    new: int
    list_sha256: str
    text_sha256: str
    words_sha256: str
    adds_to: int | None = None
    covers: int = 0
    again: str = ""

    @property
    def bound(self) -> dict[str, str]:
        """What a decision is bound to, by name: letter and list of that incident."""
        bound = {"number": self.number, "list": self.list_sha256, "text": self.text_sha256}
        bound["words"] = self.words_sha256
        return bound | ({"again": self.again} if self.again else {})

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the canonical JSON of `bound`; the timeline has both."""
        return hashlib.sha256(canonical(self.bound)).hexdigest()


def text_of(run: IncidentRun, record: IncidentRecord) -> LetterText:
    """The letter as it would be sent.

    Raises:
        ControlFailed: a part is missing; it is named.
    """
    categories = incident_run.require_scope(run, record.incident.id).categories
    if lacking := letter.missing(record.entries, categories):
        raise ControlFailed(
            f"The letter to people lacks {', '.join(field.text for field in lacking)}.",
            "Clear the task `impact`, and write what is missing."
            if categories
            else "Make the databases reachable and clear the task `assess`: types are counted.",
        )
    return letter.letter_text(run.rules, record.entries, categories)


def plan(run: IncidentRun, record: IncidentRecord) -> NoticePlan:
    """Work out whom the letter would go to; nothing is queued, nobody is told.

    Raises:
        ControlFailed: a part of the letter is missing; it is named.
    """
    scope = incident_run.require_scope(run, record.incident.id)
    if (scenario := scenario_of(run)) is not None:
        people = new = scope.subjects
        list_sha256 = hashlib.sha256(scenario.id.encode()).hexdigest()
    else:
        with run.state.connect() as conn:
            frozen = subjects.frozen(conn, record.incident.id)
            queued = sum(statuses(conn, INDIVIDUAL, f"{record.incident.number}/").values())
        people, list_sha256 = frozen.people, frozen.sha256
        new = people - queued
    made = NoticePlan(
        number=record.incident.number,
        version=scope.version,
        people=people,
        new=new,
        list_sha256=list_sha256,
        text_sha256=digest(text_of(run, record)) if people else hashlib.sha256().hexdigest(),
        words_sha256=_words(record),
    )
    adds_to = _adds_to(run, record, made)
    before = adds_to.as_(Decided).people if adds_to else 0
    return replace(made, adds_to=adds_to.place if adds_to else None, covers=people - before)


def stands(record: IncidentRecord, made: NoticePlan) -> Entry | None:
    """The decision that stands for just these words and people; None where there is none."""
    found = last_of(record.entries, Kind.DECIDED)
    if found is None or words_of(found) != (made.text_sha256, made.words_sha256):
        return None
    return found if list_of(found) == made.list_sha256 else None


def reconsidered(record: IncidentRecord, made: NoticePlan) -> NoticePlan:
    """The plan, asked for anew where it was decided that just these people are not told."""
    found = stands(record, made)
    if found is None or found.as_(Decided).tell:
        return made
    return replace(made, again=found.sha256)


def _words(record: IncidentRecord) -> str:
    written = last_of(record.entries, Kind.IMPACT)
    return written.sha256 if written else timeline.FIRST


def _adds_to(run: IncidentRun, record: IncidentRecord, made: NoticePlan) -> Entry | None:
    """The decision to which one on this plan adds: on the same words, about fewer people.

    None where nobody can say any more whom that was about: people were put on the list since among
    those that were found before.
    """
    before = chain(record.entries)
    if not before or words_of(before[-1]) != (made.text_sha256, made.words_sha256):
        return None
    if list_of(before[-1]) == made.list_sha256:  # decided anew: in the place of that one
        return before[-2] if len(before) > 1 else None
    sha256 = hashlib.sha256()
    with closing(subjects.of_versions(run.state, record.incident.id)) as rows:
        for database, key, version in rows:
            if version <= before[-1].as_(Decided).version:
                sha256.update(f"{database}/{key}\n".encode())
    return before[-1] if sha256.hexdigest() == list_of(before[-1]) else None


def not_listed(run: IncidentRun, record: IncidentRecord) -> list[str]:
    """Databases of which there is no list of affected people: not counted in, or not secured.

    Args:
        run: the run or command.
        record: the incident.
    """
    scope = incident_run.require_scope(run, record.incident.id)
    secured = last_of(record.entries, Kind.PRESERVED)
    if secured is None or secured.as_(Preserved).version < scope.version:
        return list(scope.affected())
    return [
        *dict.fromkeys(
            [*(unknown.database for unknown in scope.unknown), *secured.as_(Preserved).not_listed]
        )
    ]


def nobody(run: IncidentRun, record: IncidentRecord, made: NoticePlan) -> None:
    """Enter that nobody is affected, so that nobody is to be told; whoever is found later is.

    Args:
        run: the run or command.
        record: the incident.
        made: the plan, of nobody.
    """
    words = _("Nobody is affected by what was counted: nobody has to be told.")
    with run.state.begin() as conn:
        timeline.append(
            conn, record.incident.id, Kind.DECIDED, words, by=STEP_NOTIFY, clock=run.clock,
            data={"tell": False, "sha256": made.sha256, "bound": made.bound, "request": None,
                  "people": 0, "version": made.version, "adds_to": None},
            once=f"nobody:{made.sha256}",
        )  # fmt: skip


def request(
    conn: Connection, run: IncidentRun, made: NoticePlan, writers: Sequence[str]
) -> Request:
    """Enter that a decision on a plan is asked for; the same plan is the same request.

    Args:
        conn: the state database, in a transaction.
        run: the run or command.
        made: the plan.
        writers: user ids of those who wrote the impact; none of them may decide.
    """
    return registry.ask(
        conn,
        run.clock,
        kind=APPROVAL,
        subject=made.number,
        sha256=made.sha256,
        requested_by=writers,
        dag_id=run.run.dag_id,
        run_id=run.run.run_id,
    )


def queue(run: IncidentRun, record: IncidentRecord) -> Queued | None:
    """Queue the notices that were decided on, each once; None where people are not told.

    Those who came to the list since the decision are left out: it is not about them.

    Raises:
        ControlFailed: nobody decided on what would be sent now; nothing was queued.
    """
    if not tells(record.entries):
        return None
    with run.state.begin() as conn:
        # before the incident, as who wakes people takes them
        lock_for_transaction(conn, StateLock.NOTICES)
        timeline.lock_incident(conn, record.incident.id)
        record = record_in(conn, record.incident.number)
        before = chain(record.entries)
        telling = [one for one in before if one.as_(Decided).tell]
        if not telling:
            return None
        text_sha256, now = keep_text(conn, text_of(run, record)), run.clock.now()
        for one in telling:
            decided = one.as_(Decided)
            bound = dict(decided.bound or {}) | {"text": text_sha256, "words": _words(record)}
            sha256 = hashlib.sha256(canonical(bound)).hexdigest()
            assert decided.request is not None
            registry.require(conn, decided.request, sha256)
        if scenario_of(run) is not None:
            _enter(conn, run, record, telling[-1], _drilled(telling[-1].as_(Decided).people))
            return Queued()
        prefix = f"{record.incident.number}/"
        outbox.withdraw_alike(conn, INDIVIDUAL, prefix, NOT_WANTED, now, but=text_sha256)
        with closing(_decided_on(run, record, before)) as rows:
            notices = _notices(record.incident.number, rows, text_sha256)
            found = outbox.queue(conn, notices, run.run, now, run.notices)
        said = _("Notices queued for {count} people.", count=found.new)
        _enter(conn, run, record, telling[-1], said)
    return found


def _decided_on(
    run: IncidentRun, record: IncidentRecord, before: Sequence[Entry]
) -> Generator[tuple[str, str]]:
    """The people of whom it was decided that they are told, by database and key.

    Raises:
        ControlFailed: a list is not the one that was decided on; after the last of them.
    """
    digests = [hashlib.sha256() for _one in before]
    with closing(subjects.of_versions(run.state, record.incident.id)) as rows:
        for database, key, version in rows:
            mine: Entry | None = None
            for one, sha256 in zip(before, digests, strict=True):
                if version <= one.as_(Decided).version:
                    sha256.update(f"{database}/{key}\n".encode())
                    mine = mine or one
            if mine is not None and mine.as_(Decided).tell:
                yield database, key
    for one, sha256 in zip(before, digests, strict=True):
        if sha256.hexdigest() != list_of(one):
            raise ControlFailed(
                f"The list of people of {record.incident.number} is not what was approved: people "
                "were put on it since, among those that were found before.",
                "Clear the task `decide`: the decision is asked for anew, about all of them.",
            )


def notify(run: IncidentRun, findings: StepFindings) -> NoticesQueued:
    """Queue the notices that were decided on, each once."""
    del findings
    record = incident_of(run)
    number, queued = record.incident.number, queue(run, record)
    if queued is None:
        return NoticesQueued(number=number, told=False)
    return NoticesQueued(
        number=number,
        told=True,
        new=queued.new,
        again=queued.again,
        undeliverable=queued.undeliverable,
    )


def wanted(
    run: IncidentRun, records: Mapping[str, IncidentRecord], keys: Sequence[str]
) -> set[str]:
    """Of these keys of notices, those that may leave with the words that they have.

    That is, by a decision that stands on the words of now; an incident that was cancelled, or of
    which it was decided otherwise, has none.

    Args:
        run: the run or command.
        records: incidents by number.
        keys: ``INC-2026-0001/courier/123``.
    """
    texts = {
        number: sha256
        for number, record in records.items()
        if record.incident.state is not State.CANCELLED and (sha256 := text_that_goes(run, record))
    }
    query = text("SELECT key, text FROM notice WHERE kind = :kind AND key = ANY(:keys)")
    with run.state.connect() as conn:
        rows = conn.execute(query, {"kind": INDIVIDUAL, "keys": list(keys)}).all()
    return {row.key for row in rows if row.text and row.text == texts.get(_number(row.key))}


def _number(key: str) -> str:
    return key.partition("/")[0]


def text_that_goes(run: IncidentRun, record: IncidentRecord) -> str | None:
    """Digest of the letter that goes to people, where it was decided that its words of now do.

    Args:
        run: the run or command.
        record: the incident.
    """
    decided = on_last_words(record.entries)
    if not any(entry.as_(Decided).tell for entry in decided):
        return None
    try:
        sha256 = digest(text_of(run, record))
    except ControlFailed:
        return None
    return sha256 if words_of(decided[-1]) == (sha256, _words(record)) else None


def _notices(number: str, rows: Iterable[tuple[str, str]], sha256: str) -> Iterator[Notice]:
    heading = _("Incident {number}", number=number)
    line = _("Notice to an affected person")
    for database, key in rows:
        yield Notice(
            kind=INDIVIDUAL,
            key=f"{number}/{database}/{key}",
            recipient=f"subject:{database}/{key}",
            heading=heading,
            line=line,
            urgent=True,
            text=sha256,
            looked_up=True,
        )


def _drilled(people: int) -> Message:
    return _("DRILL: {count} people would be told; nobody is.", count=people)


def _enter(
    conn: Connection, run: IncidentRun, record: IncidentRecord, decided: Entry, words: Message
) -> None:
    data = decided.as_(Decided).model_dump(include={"version", "people", "sha256"})
    timeline.append(
        conn, record.incident.id, Kind.QUEUED, words, by=STEP_NOTIFY, clock=run.clock, data=data,
        once=f"{Kind.QUEUED}:{decided.place}",
    )  # fmt: skip


def told(conn: Connection, run: IncidentRun, record: IncidentRecord) -> bool:
    """Enter what became of the notices, once nothing waits any more; whether that is so.

    Entered again where that changes: one is sent after all, others are told too. Everybody was told
    once all that are affected are known and decided on, and each notice was sent, or somebody
    entered that the others were told otherwise. It happened when the last of them left or was given
    up, whoever looks however late; where nothing was to be sent, when that was entered.

    Args:
        conn: the state database, in a transaction.
        run: the run or command.
        record: the incident.
    """
    queued = last_of(record.entries, Kind.QUEUED)
    if queued is None:
        return False
    number, now = record.incident.number, run.clock.now()
    found = delivery(conn, number)
    if found.get("pending"):
        return False
    left = sum(found.values()) - found.get("sent", 0)
    if left and (unqueued(record.entries) or not text_that_goes(run, record)):
        return False  # decided anew, or about to be: some are queued again, or not told at all
    settled = last_settled(conn, INDIVIDUAL, f"{number}/") or queued.happened_at
    open_ones = unreached(conn, record)
    base = settled
    if left and not open_ones and (otherwise := last_of(record.valid, Kind.TOLD_OTHERWISE)):
        base = max(settled, otherwise.happened_at)
    done_at = everybody_since(record.entries, base)
    complete = done_at is not None and not open_ones
    data: dict[str, Any] = {"version": queued.as_(NoticesQueuedFor).version, "complete": complete}
    data |= {"everybody": done_at is not None, "states": found}
    data["settled"] = timeline.in_utc(settled)
    before = last_of(record.valid, Kind.TOLD)
    if before is not None and _same(record, before, data):
        return True
    # who sent it may have a clock that is ahead of this machine's
    at = min(done_at if complete and done_at else settled, now)
    once = hashlib.sha256(canonical(data)).hexdigest()
    corrections = len(of_kind(record.entries, Kind.CORRECTED))  # after one it is found anew
    timeline.append(
        conn, record.incident.id, Kind.TOLD, _said(run, found, left, everybody=data["everybody"]),
        by=STEP_NOTIFY, clock=run.clock, data=data, happened_at=at,
        once=f"told:{before.place if before else 0}:{corrections}:{once}",
    )  # fmt: skip
    return True


def unreached(conn: Connection, record: IncidentRecord) -> int:
    """How many people no notice reached, of whom nobody entered that they were told otherwise.

    Args:
        conn: the state database.
        record: the incident.
    """
    found = delivery(conn, record.incident.number)
    left = sum(found.values()) - found.get("sent", 0) - found.get("pending", 0)
    otherwise = last_of(record.valid, Kind.TOLD_OTHERWISE)
    if not left or otherwise is None:
        return left
    noted = last_of(record.entries[: otherwise.place - 1], Kind.TOLD)
    since = noted.as_(Told).settled if noted else None
    if since is None:  # nobody could know yet who would be left
        return left
    return unreached_since(conn, INDIVIDUAL, f"{record.incident.number}/", since)


def delivery(conn: Connection, number: str) -> dict[str, int]:
    """Return how many notices of an incident are in which state.

    Args:
        conn: the state database.
        number: of the incident.
    """
    found: dict[str, int] = {}
    for (state, _cause), count in statuses(conn, INDIVIDUAL, f"{number}/").items():
        found[state] = found.get(state, 0) + count
    return found


def _same(record: IncidentRecord, before: Entry, data: Mapping[str, Any]) -> bool:
    """Whether an entry says that already; that it is complete may be said by other entries."""
    if dict(before.data) == dict(data):
        return True
    said = dict(before.data) | {"complete": data["complete"]}
    return said == dict(data) and INDIVIDUALS_TOLD in milestones(record.entries)


def _said(run: IncidentRun, found: Mapping[str, int], left: int, *, everybody: bool) -> Message:
    if scenario_of(run) is not None:
        return _("DRILL: nobody was told.")
    words = _(
        "Notices: {sent} sent, {left} not; who got none is told otherwise.",
        sent=found.get("sent", 0),
        left=left,
    )
    if everybody:
        return words
    return _("{words} Not all who are affected are known and decided on yet.", words=words)
