"""Individual notices: planned, decided on by hash, queued once for each affected person.

The plan is what a person decides on: the words of the letter and the list of people, by their
digests, and how many of them can be reached. Whoever is found later is told by a plan of its own;
whoever was told before is not told again, since the notice's key names incident and person.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from include.approvals import registry
from include.approvals.registry import Request
from include.evidence.model import Outcome, StepRecord
from include.incident import scopes, timeline
from include.incident.counting import subjects
from include.incident.desk import Desk, File
from include.incident.names import INDIVIDUAL, STEP_NOTIFY, Kind, State
from include.incident.telling import letter
from include.incident.timeline import canonical, last_of
from include.messages import Message, _
from include.notify import outbox
from include.notify.notice import Notice
from include.notify.outbox import Queued
from include.notify.status import last_settled, statuses
from include.notify.texts import LetterText, digest, keep_text
from include.services.errors import ControlFailed

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
    """

    number: str
    version: int
    people: int
    new: int
    list_sha256: str
    text_sha256: str
    words_sha256: str

    @property
    def bound(self) -> dict[str, str]:
        """What a decision is bound to, by name: letter and list of that incident."""
        bound = {"number": self.number, "list": self.list_sha256, "text": self.text_sha256}
        return bound | {"words": self.words_sha256}

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the canonical JSON of `bound`; the timeline has both."""
        return hashlib.sha256(canonical(self.bound)).hexdigest()


def text_of(desk: Desk, file: File) -> LetterText:
    """The letter as it would be sent.

    Raises:
        ControlFailed: a part is missing; it is named.
    """
    categories = scopes.newest(desk, file.incident.id).categories
    if lacking := letter.missing(file.entries, categories):
        raise ControlFailed(
            f"The letter to people lacks {', '.join(one.text for one in lacking)}.",
            "Clear the task `impact`, and write what is missing."
            if categories
            else "Make the databases reachable and clear the task `assess`: types are counted.",
        )
    return letter.letter_text(desk.rules, file.entries, categories)


def plan(desk: Desk, file: File) -> NoticePlan:
    """Work out whom the letter would go to; nothing is queued, nobody is told.

    Raises:
        ControlFailed: a part of the letter is missing; it is named.
    """
    scope = scopes.newest(desk, file.incident.id)
    if desk.scenario is not None:
        people = new = scope.subjects
        list_sha256 = hashlib.sha256(desk.scenario.id.encode()).hexdigest()
    else:
        with desk.state.connect() as conn:
            frozen = subjects.frozen(conn, file.incident.id)
            queued = sum(statuses(conn, INDIVIDUAL, f"{file.incident.number}/").values())
        people, list_sha256 = frozen.people, frozen.sha256
        new = people - queued
    written = last_of(file.entries, Kind.IMPACT)
    return NoticePlan(
        number=file.incident.number,
        version=scope.version,
        people=people,
        new=new,
        list_sha256=list_sha256,
        text_sha256=digest(text_of(desk, file)) if people else hashlib.sha256().hexdigest(),
        words_sha256=written.sha256 if written else timeline.FIRST,
    )


def not_listed(desk: Desk, file: File) -> list[str]:
    """Databases of which there is no list of affected people: not counted in, or not secured.

    Args:
        desk: of the incident.
        file: the incident.
    """
    scope = scopes.newest(desk, file.incident.id)
    secured = last_of(file.entries, Kind.PRESERVED)
    if secured is None or secured.data["version"] < scope.version:
        return list(scope.affected())
    return [*dict.fromkeys([*(one.database for one in scope.unknown), *secured.data["not_listed"]])]


def nobody(desk: Desk, file: File, made: NoticePlan) -> None:
    """Enter that nobody is affected, so that nobody is to be told; whoever is found later is.

    Args:
        desk: of the incident.
        file: the incident.
        made: the plan, of nobody.
    """
    words = _("Nobody is affected by what was counted: nobody has to be told.")
    with desk.state.begin() as conn:
        timeline.append(
            conn, file.incident.id, Kind.DECIDED, words, by=STEP_NOTIFY, clock=desk.clock,
            data={"tell": False, "sha256": made.sha256, "bound": made.bound, "request": None,
                  "people": 0},
            once=f"nobody:{made.sha256}",
        )  # fmt: skip


def request(conn: Connection, desk: Desk, made: NoticePlan, writers: Sequence[str]) -> Request:
    """Enter that a decision on a plan is asked for; the same plan is the same request.

    Args:
        conn: the state database, in a transaction.
        desk: of the incident.
        made: the plan.
        writers: user ids of those who wrote the impact; none of them may decide.
    """
    return registry.ask(
        conn,
        desk.clock,
        kind=APPROVAL,
        subject=made.number,
        sha256=made.sha256,
        requested_by=writers,
        dag_id=desk.run.dag_id,
        run_id=desk.run.run_id,
    )


def queue(desk: Desk, file: File) -> Queued | None:
    """Queue the notices that were decided on, each once; None where people are not told.

    Raises:
        ControlFailed: nobody decided on what would be sent now.
    """
    decided = last_of(file.entries, Kind.DECIDED)
    if decided is None or not decided.data["tell"]:
        return None
    made = plan(desk, file)
    words = text_of(desk, file)
    with desk.state.begin() as conn:
        registry.require(conn, int(decided.data["request"]), made.sha256)
        if desk.scenario is not None:
            _enter(conn, desk, file, Kind.QUEUED, _drilled(made), made)
            return Queued()
        text_sha256 = keep_text(conn, words)
        rows = subjects.stream(desk.state, file.incident.id)
        found = outbox.queue(
            conn, _notices(made.number, rows, text_sha256), desk.run, desk.clock.now(), desk.notices
        )
        said = _("Notices queued for {count} people.", count=found.new)
        _enter(conn, desk, file, Kind.QUEUED, said, made)
    return found


def queued(number: str, found: Queued | None) -> StepRecord:
    """The record of queueing notices.

    Args:
        number: of the incident.
        found: what was queued; None where people are not told.
    """
    data: dict[str, Any] = {"number": number, "told": found is not None}
    if found is not None:
        data |= {"new": found.new, "again": found.again, "undeliverable": found.undeliverable}
    return StepRecord(step=STEP_NOTIFY, outcome=Outcome.PASS, data=data)


def told(conn: Connection, desk: Desk, file: File) -> bool:
    """Enter what became of the notices, once nothing waits any more; whether that is so.

    Everybody was told where each notice was sent; else once somebody enters that the others were
    told otherwise. It happened when the last of them left or was given up, whoever looks however
    late; where nothing was to be sent, when that was entered.

    Args:
        conn: the state database, in a transaction.
        desk: of the incident.
        file: the incident.
    """
    queued = last_of(file.entries, Kind.QUEUED)
    if queued is None:
        return False
    found = delivery(conn, file.incident.number)
    if found.get("pending"):
        return False
    left = sum(found.values()) - found.get("sent", 0)
    data = {"version": queued.data["version"], "complete": not left, "states": found}
    words = _(
        "Notices: {sent} sent, {left} not; who got none is told otherwise.",
        sent=found.get("sent", 0),
        left=left,
    )
    if desk.scenario is not None:
        words = _("DRILL: nobody was told.")
    settled = last_settled(conn, INDIVIDUAL, f"{file.incident.number}/") or queued.happened_at
    timeline.append(
        conn, file.incident.id, Kind.TOLD, words, by=STEP_NOTIFY, clock=desk.clock, data=data,
        # who sent it may have a clock that is ahead of this machine's
        happened_at=min(settled, desk.clock.now()), once=f"told:{queued.place}",
    )  # fmt: skip
    return True


def delivery(conn: Connection, number: str) -> dict[str, int]:
    """How many notices of an incident are in which state."""
    found: dict[str, int] = {}
    for (state, _cause), count in statuses(conn, INDIVIDUAL, f"{number}/").items():
        found[state] = found.get(state, 0) + count
    return found


def wanted(files: Mapping[str, File], keys: Iterable[str]) -> set[str]:
    """Of these keys of notices, those of incidents that were not cancelled or decided otherwise.

    Args:
        files: incidents by number.
        keys: ``INC-2026-0001/courier/123``.
    """
    tell = {
        number
        for number, file in files.items()
        if file.incident.state is not State.CANCELLED
        and (decided := last_of(file.entries, Kind.DECIDED)) is not None
        and decided.data["tell"]
    }
    return {key for key in keys if key.partition("/")[0] in tell}


def _notices(number: str, rows: Iterable[tuple[str, str]], text: str) -> Iterator[Notice]:
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
            text=text,
            looked_up=True,
        )


def _drilled(made: NoticePlan) -> Message:
    return _("DRILL: {count} people would be told; nobody is.", count=made.people)


def _enter(
    conn: Connection, desk: Desk, file: File, kind: Kind, words: Message, made: NoticePlan
) -> None:
    timeline.append(
        conn, file.incident.id, kind, words, by=STEP_NOTIFY, clock=desk.clock,
        data={"version": made.version, "people": made.people, "sha256": made.sha256},
        once=f"{kind}:{made.sha256}",
    )  # fmt: skip
