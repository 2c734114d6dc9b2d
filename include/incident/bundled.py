"""What sealed bundles hold of a timeline, against the timeline as it is now.

A chain shows by itself that nothing in it was changed; that its end was cut off only somebody can
show who has a later digest. Every bundle that was sealed while an incident went on has one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from include.evidence import ledger
from include.evidence.checkpoint import checkpoints
from include.evidence.folder import StoreFolder
from include.evidence.ledger import LedgerRow
from include.evidence.model import Outcome, StepRecord
from include.incident.incident_run import IncidentRecord
from include.incident.names import TIMELINE_FILE, UPDATES, WORKFLOW
from include.incident.register import Incident
from include.incident.timeline import Entry, head
from include.services.objectstore.base import ObjectDamaged, ObjectMissing, ObjectStore

STEP_TIMELINE = "timeline"
_RESULT = "result.json"


@dataclass(frozen=True)
class Compared:
    """What came of comparing.

    Attributes:
        bundles: that hold a digest of the timeline.
        contradicting: those of them whose newest entry the timeline does not have at its place.
        unreadable: bundles of the ledger that the store does not have, or that cannot be read.
            Pruned bundles are left out.
    """

    bundles: Sequence[str]
    contradicting: Sequence[str]
    unreadable: Sequence[str]

    @property
    def holds(self) -> bool:
        """Whether no bundle says otherwise, and each could be read."""
        return not self.contradicting and not self.unreadable


def record(record: IncidentRecord) -> StepRecord:
    """The newest entry of a timeline, for a bundle that is sealed now.

    Args:
        record: the incident.
    """
    data = {
        "incident": record.incident.number,
        "entries": len(record.entries),
        "head": head(record.entries),
    }
    return StepRecord(
        step=STEP_TIMELINE, part=record.incident.number, outcome=Outcome.PASS, data=data
    )


def compare(
    conn: Connection, found: Incident, entries: Sequence[Entry], store: Callable[[], ObjectStore]
) -> Compared:
    """Hold a timeline against every sealed bundle of its incident and of additions to it.

    Bundles are taken as they are: ``verify --all`` says whether they are genuine. A bundle that
    an older version sealed without a digest of the timeline is left out.

    Args:
        conn: the state database.
        found: the incident.
        entries: its timeline, oldest entry first.
        store: opens the evidence store; not called where nothing was sealed.
    """
    bundles: list[str] = []
    contradicting: list[str] = []
    unreadable: list[str] = []
    rows = [one for one in ledger.rows(conn) if _may_be_about(one, found)]
    pruned = max((mark.up_to_seq for mark in checkpoints(conn)), default=0)
    opened = store() if rows else None
    for row in rows:
        assert opened is not None
        try:
            kept = _kept(StoreFolder(opened, row.bundle), found.number)
        except (ObjectMissing, ObjectDamaged, ValueError, KeyError, TypeError) as error:
            if not (isinstance(error, ObjectMissing) and row.seq <= pruned):
                unreadable.append(row.bundle)
            continue
        if kept is None:
            continue
        bundles.append(row.bundle)
        count, sha256 = kept
        if head(entries[:count]) != sha256 or len(entries) < count:
            contradicting.append(row.bundle)
    return Compared(bundles, contradicting, unreadable)


def _may_be_about(row: LedgerRow, found: Incident) -> bool:
    mine = row.dag_id == WORKFLOW or row.dag_id.startswith(f"{WORKFLOW}.")
    return (mine and row.run_id == found.run.run_id) or (
        row.dag_id == UPDATES and row.sealed_at >= found.opened_at
    )


def _kept(folder: StoreFolder, number: str) -> tuple[int, str] | None:
    """How many entries a bundle knows of, and the digest of the last; None where it has neither."""
    steps = json.loads(folder.read(_RESULT))["steps"]
    for one in steps:
        if one["step"] == STEP_TIMELINE and one["data"]["incident"] == number:
            return int(one["data"]["entries"]), str(one["data"]["head"])
    if TIMELINE_FILE not in folder.names():
        return None
    last = json.loads(folder.read(TIMELINE_FILE).splitlines()[-1])
    return (int(last["place"]), str(last["sha256"])) if last["incident"] == number else None
