"""Whom the notices reached, and when people were told: what became of what was queued."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from include.incident import decisions, timeline
from include.incident.clocks.milestones import INDIVIDUALS_TOLD, milestones
from include.incident.entries import NoticesQueuedFor, Told
from include.incident.incident_run import IncidentRecord, IncidentRun, scenario_of
from include.incident.names import INDIVIDUAL, STEP_NOTIFY, Kind
from include.incident.telling.notifying import text_that_goes
from include.incident.timeline import Entry, canonical, last_of, of_kind
from include.messages import Message, _
from include.notify.status import last_settled, statuses, unreached_since


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
    if left and (decisions.unqueued(record.entries) or not text_that_goes(run, record)):
        return False  # decided anew, or about to be: some are queued again, or not told at all
    settled = last_settled(conn, INDIVIDUAL, f"{number}/") or queued.happened_at
    open_ones = unreached(conn, record)
    base = settled
    if left and not open_ones and (otherwise := last_of(record.valid, Kind.TOLD_OTHERWISE)):
        base = max(settled, otherwise.happened_at)
    done_at = decisions.everybody_since(record.entries, base)
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
    """How many notices of an incident are in which state.

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
