"""Plan the notices to affected people, request a decision on the plan, and queue the notices.

A plan contains the digests of the notice text and of the list of people, and the number of people.
If people are found later, a new plan is made for them. No person is notified twice, because the key
of a notice contains the incident and the person. A waiting notice is sent only if the newest
decision is about the text of the notice.
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
from include.incident.communication import notice_text
from include.incident.counting import subject_list
from include.incident.entries import (
    Decided,
    NoticesQueued,
    NoticesQueuedFor,
    NoticesSettled,
    Preserved,
)
from include.incident.incident_ids import INDIVIDUAL, STEP_NOTIFY, Kind, State
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    incident_of,
    record_in,
    scenario_of,
)
from include.incident.time_limits.milestones import (
    INDIVIDUALS_TOLD,
    decision_chain,
    decisions_on_last_notice,
    everybody_handled_at,
    has_unqueued_notices,
    is_notifying_decided,
    list_digest_of,
    milestones,
    notice_digests_of,
)
from include.incident.timeline import Entry, canonical, last_of, of_kind
from include.messages import Message, _, in_english, listed, verbatim
from include.notify import outbox
from include.notify.notification import NO_LONGER_DUE, Notification
from include.notify.outbox import QueueCounts
from include.notify.status import last_settled, statuses, unreached_since
from include.notify.texts import NoticeText, store_text, text_digest
from include.services.errors import ControlFailed
from include.state.connect import StateLock, lock_for_transaction

APPROVAL = "incident.notices"
"""Kind of the request for approval."""


@dataclass(frozen=True)
class NoticePlan:
    """A plan of notices with their recipients and text, on which a person decides.

    Attributes:
        number: number of the incident.
        version: version of the newest scope.
        people: number of people on the list of affected people; in a drill, the number that the
            scenario assumes.
        new: number of people for whom no notice is queued yet.
        list_sha256: digest (hex) of the list of the people's keys.
        text_sha256: digest (hex) of the notice's text; digest of an empty text if no person is
            affected.
        impact_entry_sha256: digest of the timeline entry with the impact texts. Every new entry has
            another digest, even if its texts are the same.
        adds_to: position in the timeline of the earlier decision on the same text that this plan
            extends to more people; None if the plan covers all people to whom no notice was sent.
        covers: number of people that a decision on this plan would cover.
        reconsidered_sha256: digest of the timeline entry of a decision not to notify these people,
            if this plan asks a person to reconsider that decision; otherwise empty.
    """

    number: str
    version: int
    people: int
    new: int
    list_sha256: str
    text_sha256: str
    impact_entry_sha256: str
    adds_to: int | None = None
    covers: int = 0
    reconsidered_sha256: str = ""

    @property
    def bound_data(self) -> dict[str, str]:
        """The data that a decision on the plan is about: the incident number and several digests.

        If the text or the list of people changes, a digest differs, and the decision does not apply
        any more.
        """
        bound = {"number": self.number, "list": self.list_sha256, "text": self.text_sha256}
        bound["words"] = self.impact_entry_sha256
        return bound | ({"again": self.reconsidered_sha256} if self.reconsidered_sha256 else {})

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the canonical JSON of `bound_data`.

        The timeline stores `bound_data` and this digest.
        """
        return hashlib.sha256(canonical(self.bound_data)).hexdigest()


class IncompleteNotice(ControlFailed):
    """An error raised if a required section of the notice to affected people has no text.

    Attributes:
        reason: display text that names the missing sections.
    """

    def __init__(self, missing: Sequence[Message], action: str) -> None:
        names = ", ".join(in_english(part) for part in missing)
        super().__init__(f"The notice to affected people lacks: {names}.", action)
        self.reason = _(
            "parts of the notice to affected people are missing: {parts}", parts=listed(missing)
        )


def reason_text(error: ControlFailed) -> Message:
    """Return a display text for an error that prevents notices from being planned."""
    return error.reason if isinstance(error, IncompleteNotice) else verbatim(error.message)


def current_notice_text(run: IncidentRun, record: IncidentRecord) -> NoticeText:
    """Create the notice to affected people from the current impact texts.

    Raises:
        IncompleteNotice: a required section has no text; the message names the section.
    """
    categories = incident_run.require_scope(run, record.incident.id).categories
    if missing := notice_text.missing_parts(record.entries, categories):
        raise IncompleteNotice(
            missing,
            "Clear the task `impact`, and write the missing texts."
            if categories
            else "Restore the connection to the databases, and clear the task `assess`.",
        )
    return notice_text.create_notice_text(run.rules, record.entries, categories)


def plan_notices(run: IncidentRun, record: IncidentRecord) -> NoticePlan:
    """Plan the notices to affected people. No notice is queued or sent.

    Raises:
        ControlFailed: a required section of the notice has no text; the message names the section.
    """
    scope = incident_run.require_scope(run, record.incident.id)
    if (scenario := scenario_of(run)) is not None:
        people = new = scope.subjects
        list_sha256 = hashlib.sha256(scenario.id.encode()).hexdigest()
    else:
        with run.state.connect() as conn:
            frozen = subject_list.frozen_list(conn, record.incident.id)
            queued = sum(statuses(conn, INDIVIDUAL, f"{record.incident.number}/").values())
        people, list_sha256 = frozen.people, frozen.sha256
        new = people - queued
    notice_plan = NoticePlan(
        number=record.incident.number,
        version=scope.version,
        people=people,
        new=new,
        list_sha256=list_sha256,
        text_sha256=text_digest(current_notice_text(run, record))
        if people
        else hashlib.sha256().hexdigest(),
        impact_entry_sha256=_impact_digest(record),
    )
    adds_to = _extended_decision(run, record, notice_plan)
    covered_before = adds_to.as_(Decided).people if adds_to else 0
    return replace(
        notice_plan, adds_to=adds_to.place if adds_to else None, covers=people - covered_before
    )


def standing_decision(record: IncidentRecord, plan: NoticePlan) -> Entry | None:
    """Return the newest decision if it is about exactly the text and the list of people of a plan.

    Otherwise return None.

    Args:
        record: incident with its timeline.
        plan: current plan of the notices.
    """
    decision = last_of(record.entries, Kind.DECIDED)
    if decision is None or notice_digests_of(decision) != (
        plan.text_sha256,
        plan.impact_entry_sha256,
    ):
        return None
    return decision if list_digest_of(decision) == plan.list_sha256 else None


def plan_reconsideration(record: IncidentRecord, plan: NoticePlan) -> NoticePlan:
    """Return a plan that asks a person to reconsider a decision not to notify people.

    The newest decision must be a decision not to notify people, about the same text and list of
    people as `plan`. Otherwise return `plan` unchanged.

    Args:
        record: incident with its timeline.
        plan: current plan of the notices.
    """
    decision = standing_decision(record, plan)
    if decision is None or decision.as_(Decided).tell:
        return plan
    return replace(plan, reconsidered_sha256=decision.sha256)


def _impact_digest(record: IncidentRecord) -> str:
    written = last_of(record.entries, Kind.IMPACT)
    return written.sha256 if written else timeline.FIRST_PREVIOUS


def _extended_decision(run: IncidentRun, record: IncidentRecord, plan: NoticePlan) -> Entry | None:
    """Return the earlier decision about the same notice text that stays valid beside a plan.

    If people were added to the list of affected people after the newest decision, the plan covers
    only these people, and the newest decision stays valid for the others. If nobody was added, the
    plan decides again and replaces the newest decision, so the decision before it is returned.

    Return None if there is no such decision, or if the stored list no longer shows which people the
    decision was about.
    """
    decisions = decision_chain(record.entries)
    if not decisions or notice_digests_of(decisions[-1]) != (
        plan.text_sha256,
        plan.impact_entry_sha256,
    ):
        return None
    if (
        list_digest_of(decisions[-1]) == plan.list_sha256
    ):  # decided again: replaces the last decision
        return decisions[-2] if len(decisions) > 1 else None
    sha256 = hashlib.sha256()
    with closing(subject_list.stream_with_versions(run.state, record.incident.id)) as rows:
        for database, key, version in rows:
            if version <= decisions[-1].as_(Decided).version:
                sha256.update(f"{database}/{key}\n".encode())
    return decisions[-1] if sha256.hexdigest() == list_digest_of(decisions[-1]) else None


def databases_without_list(run: IncidentRun, record: IncidentRecord) -> list[str]:
    """Return the names of the databases whose affected people were not counted or not listed.

    If no evidence was preserved after the newest count, return all databases of the scope.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
    """
    scope = incident_run.require_scope(run, record.incident.id)
    preserved = last_of(record.entries, Kind.PRESERVED)
    if preserved is None or preserved.as_(Preserved).version < scope.version:
        return list(scope.people_by_database())
    return [
        *dict.fromkeys(
            [*(unknown.database for unknown in scope.unknown), *preserved.as_(Preserved).not_listed]
        )
    ]


def record_nobody_affected(run: IncidentRun, record: IncidentRecord, plan: NoticePlan) -> None:
    """Record on the timeline that no person is affected. No decision is needed in this case.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
        plan: plan without people.
    """
    words = _("The count found no affected people. No notification is required.")
    with run.state.begin() as conn:
        timeline.append(
            conn, record.incident.id, Kind.DECIDED, words, by=STEP_NOTIFY, clock=run.clock,
            data={"tell": False, "sha256": plan.sha256, "bound": plan.bound_data, "request": None,
                  "people": 0, "version": plan.version, "adds_to": None},
            once=f"nobody:{plan.sha256}",
        )  # fmt: skip


def request_decision(
    conn: Connection, run: IncidentRun, plan: NoticePlan, writers: Sequence[str]
) -> Request:
    """Create the approval request for a plan, or return the existing request for the same plan.

    Args:
        conn: connection to the state database, in a transaction.
        run: services and rules of the current run or command.
        plan: plan on which a person decides.
        writers: user ids of the authors of the impact texts. They may not decide.
    """
    return registry.create_request(
        conn,
        run.clock,
        kind=APPROVAL,
        subject=plan.number,
        sha256=plan.sha256,
        requested_by=writers,
        dag_id=run.run.dag_id,
        run_id=run.run.run_id,
    )


def queue_notices(run: IncidentRun, record: IncidentRecord) -> QueueCounts | None:
    """Queue a notice for each person to notify according to the decisions in force.

    Each notice is queued once. People added to the list after the newest decision are left out.
    Return None if no person is to be notified.

    Raises:
        ControlFailed: a decision on the current text is missing, so no notice was queued.
    """
    if not is_notifying_decided(record.entries):
        return None
    with run.state.begin() as conn:
        # Lock in the same order as the watch: first the notices, then the incident.
        lock_for_transaction(conn, StateLock.NOTIFICATIONS)
        timeline.lock_incident(conn, record.incident.id)
        record = record_in(conn, record.incident.number)
        decisions = decision_chain(record.entries)
        notifying = [decision for decision in decisions if decision.as_(Decided).tell]
        if not notifying:
            return None
        text_sha256, now = store_text(conn, current_notice_text(run, record)), run.clock.now()
        for decision in notifying:
            decided = decision.as_(Decided)
            bound = dict(decided.bound or {}) | {
                "text": text_sha256,
                "words": _impact_digest(record),
            }
            sha256 = hashlib.sha256(canonical(bound)).hexdigest()
            assert decided.request is not None
            registry.require_approval(conn, decided.request, sha256)
        if scenario_of(run) is not None:
            _record_queued(
                conn, run, record, notifying[-1], _drill_words(notifying[-1].as_(Decided).people)
            )
            return QueueCounts()
        prefix = f"{record.incident.number}/"
        outbox.withdraw_by_prefix(
            conn, INDIVIDUAL, prefix, NO_LONGER_DUE, now, keep_text_digest=text_sha256
        )
        with closing(_subjects_to_notify(run, record, decisions)) as rows:
            notices = _notices(record.incident.number, rows, text_sha256)
            queued = outbox.queue_notifications(conn, notices, run.run, now, run.notices)
        text = _("Notices to {count} people were queued for sending.", count=queued.new)
        _record_queued(conn, run, record, notifying[-1], text)
    return queued


def _subjects_to_notify(
    run: IncidentRun, record: IncidentRecord, decisions: Sequence[Entry]
) -> Generator[tuple[str, str]]:
    """Yield the database and key of each person to notify according to the decisions.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
        decisions: timeline entries of the decisions in force, oldest first.

    Raises:
        ControlFailed: the list of people was changed after one of the decisions. The error is
            raised after the last person was yielded.
    """
    digests = [hashlib.sha256() for _decision in decisions]
    with closing(subject_list.stream_with_versions(run.state, record.incident.id)) as rows:
        for database, key, version in rows:
            own_decision: Entry | None = None
            for decision, sha256 in zip(decisions, digests, strict=True):
                if version <= decision.as_(Decided).version:
                    sha256.update(f"{database}/{key}\n".encode())
                    own_decision = own_decision or decision
            if own_decision is not None and own_decision.as_(Decided).tell:
                yield database, key
    for decision, sha256 in zip(decisions, digests, strict=True):
        if sha256.hexdigest() != list_digest_of(decision):
            raise ControlFailed(
                f"The list of people of {record.incident.number} differs from the approved list: "
                "people were added to it after the decision.",
                "Clear the task `decide`; it requests a new decision about all people.",
            )


def notify_subjects(run: IncidentRun, findings: StepFindings) -> NoticesQueued:
    """Queue the notices to affected people, if there is a decision to notify them."""
    del findings
    record = incident_of(run)
    number, queued = record.incident.number, queue_notices(run, record)
    if queued is None:
        return NoticesQueued(number=number, told=False)
    return NoticesQueued(
        number=number,
        told=True,
        new=queued.new,
        again=queued.again,
        undeliverable=queued.undeliverable,
    )


def notices_still_due(
    run: IncidentRun, records: Mapping[str, IncidentRecord], keys: Sequence[str]
) -> set[str]:
    """Return the keys of waiting notices that may be sent with their stored text.

    A notice may be sent if its stored text is the current text, a decision approved this text, and
    the incident is not cancelled.

    Args:
        run: services and rules of the current run or command.
        records: incidents with their timelines, by incident number.
        keys: keys of notices, such as ``INC-2026-0001/courier/123``.
    """
    texts = {
        number: sha256
        for number, record in records.items()
        if record.incident.state is not State.CANCELLED
        and (sha256 := approved_text_sha256(run, record))
    }
    query = text("SELECT key, text FROM notification WHERE kind = :kind AND key = ANY(:keys)")
    with run.state.connect() as conn:
        rows = conn.execute(query, {"kind": INDIVIDUAL, "keys": list(keys)}).all()
    return {
        row.key for row in rows if row.text and row.text == texts.get(_incident_number(row.key))
    }


def _incident_number(key: str) -> str:
    return key.partition("/")[0]


def approved_text_sha256(run: IncidentRun, record: IncidentRecord) -> str | None:
    """Return the digest of the current notice text if a person decided to send notices with it.

    Return None if there is no such decision, if the text changed after the newest decision, or if a
    required section has no text.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
    """
    decided = decisions_on_last_notice(record.entries)
    if not any(entry.as_(Decided).tell for entry in decided):
        return None
    try:
        sha256 = text_digest(current_notice_text(run, record))
    except ControlFailed:
        return None
    return sha256 if notice_digests_of(decided[-1]) == (sha256, _impact_digest(record)) else None


def _notices(number: str, rows: Iterable[tuple[str, str]], sha256: str) -> Iterator[Notification]:
    heading = _("Incident {number}", number=number)
    line = _("Notice to a person who is affected by the incident")
    for database, key in rows:
        yield Notification(
            kind=INDIVIDUAL,
            key=f"{number}/{database}/{key}",
            recipient=f"subject:{database}/{key}",
            heading=heading,
            line=line,
            urgent=True,
            text=sha256,
            looked_up=True,
        )


def _drill_words(people: int) -> Message:
    return _("DRILL: {count} people would be notified. No notice is sent.", count=people)


def _record_queued(
    conn: Connection, run: IncidentRun, record: IncidentRecord, decided: Entry, words: Message
) -> None:
    data = decided.as_(Decided).model_dump(include={"version", "people", "sha256"})
    timeline.append(
        conn, record.incident.id, Kind.QUEUED, words, by=STEP_NOTIFY, clock=run.clock, data=data,
        once=f"{Kind.QUEUED}:{decided.place}",
    )  # fmt: skip


def record_delivery(conn: Connection, run: IncidentRun, record: IncidentRecord) -> bool:
    """Record on the timeline how many notices were sent, as soon as no notice waits any more.

    If the numbers change later, for example because another notice is sent, a new entry is written.
    The entry says that the notification is complete if all of these conditions are true:

    - All affected people are known.
    - A decision covers each of them, and the notices of all decisions were queued.
    - Each person to notify received a notice, or was notified in another way.

    The time of the event is the time at which the last notice left the queue, because it was sent
    or given up. If the notification is complete, it is the later of this time and the time at which
    the last condition became true.

    Args:
        conn: connection to the state database, in a transaction.
        run: services and rules of the current run or command.
        record: incident with its timeline.

    Returns:
        Whether the timeline has an entry with the current numbers. The function writes no entry and
        returns False in these cases:

        - No notice was queued yet.
        - A notice still waits to be sent.
        - Some notices could not be sent, and a new decision about them has to be made or carried
          out.
    """
    queued = last_of(record.entries, Kind.QUEUED)
    if queued is None:
        return False
    number, now = record.incident.number, run.clock.now()
    counts = count_by_state(conn, number)
    if counts.get("pending"):
        return False
    left = sum(counts.values()) - counts.get("sent", 0)
    if left and (has_unqueued_notices(record.entries) or not approved_text_sha256(run, record)):
        return False  # a new decision is made or due: notices are queued again, or dropped
    settled = last_settled(conn, INDIVIDUAL, f"{number}/") or queued.happened_at
    unreached_count = count_unreached(conn, record)
    settled_from = settled
    if (
        left
        and not unreached_count
        and (otherwise_entry := last_of(record.valid, Kind.TOLD_OTHERWISE))
    ):
        settled_from = max(settled, otherwise_entry.happened_at)
    done_at = everybody_handled_at(record.entries, settled_from)
    complete = done_at is not None and not unreached_count
    data: dict[str, Any] = {"version": queued.as_(NoticesQueuedFor).version, "complete": complete}
    data |= {"everybody": done_at is not None, "states": counts}
    data["settled"] = timeline.in_utc(settled)
    previous = last_of(record.valid, Kind.TOLD)
    if previous is not None and _is_recorded(record, previous, data):
        return True
    # the clock of the sending machine may be ahead of this machine's
    at = min(done_at if complete and done_at else settled, now)
    once = hashlib.sha256(canonical(data)).hexdigest()
    corrections = len(of_kind(record.entries, Kind.CORRECTED))  # a correction requires a new entry
    timeline.append(
        conn,
        record.incident.id,
        Kind.TOLD,
        _delivery_text(run, counts, left, everybody=data["everybody"]),
        by=STEP_NOTIFY,
        clock=run.clock,
        data=data,
        happened_at=at,
        once=f"told:{previous.place if previous else 0}:{corrections}:{once}",
    )
    return True


def count_unreached(conn: Connection, record: IncidentRecord) -> int:
    """Return the number of people whose notice was given up and who were not notified otherwise.

    People whose notice still waits to be sent are not counted.

    Args:
        conn: connection to the state database.
        record: incident with its timeline.
    """
    counts = count_by_state(conn, record.incident.number)
    left = sum(counts.values()) - counts.get("sent", 0) - counts.get("pending", 0)
    otherwise_entry = last_of(record.valid, Kind.TOLD_OTHERWISE)
    if not left or otherwise_entry is None:
        return left
    settled_entry = last_of(record.entries[: otherwise_entry.place - 1], Kind.TOLD)
    since = settled_entry.as_(NoticesSettled).settled if settled_entry else None
    if since is None:  # the unreached people were not known yet
        return left
    return unreached_since(conn, INDIVIDUAL, f"{record.incident.number}/", since)


def count_by_state(conn: Connection, number: str) -> dict[str, int]:
    """Return the number of an incident's notices by delivery state, such as ``sent``.

    Args:
        conn: connection to the state database.
        number: number of the incident.
    """
    counts: dict[str, int] = {}
    for (state, _cause), count in statuses(conn, INDIVIDUAL, f"{number}/").items():
        counts[state] = counts.get(state, 0) + count
    return counts


def _is_recorded(record: IncidentRecord, entry: Entry, data: Mapping[str, Any]) -> bool:
    """Return whether a timeline entry already records the current delivery of the notices.

    Once the milestone of the notification is reached, a difference in the value ``complete`` does
    not require a new entry.

    Args:
        record: incident with its timeline.
        entry: newest timeline entry about the delivery.
        data: data that a new entry about the delivery would have.
    """
    if dict(entry.data) == dict(data):
        return True
    expected = dict(entry.data) | {"complete": data["complete"]}
    return expected == dict(data) and INDIVIDUALS_TOLD in milestones(record.entries)


def _delivery_text(
    run: IncidentRun, counts: Mapping[str, int], left: int, *, everybody: bool
) -> Message:
    if scenario_of(run) is not None:
        return _("DRILL: no notice was sent.")
    words = _(
        "{sent} notices were sent, {left} could not be sent. The people who received no notice "
        "have to be notified in another way.",
        sent=counts.get("sent", 0),
        left=left,
    )
    if everybody:
        return words
    return _(
        "{message} Further affected people are not identified yet, or it is not decided yet "
        "whether to notify them.",
        message=words,
    )
