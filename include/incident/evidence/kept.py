"""Check secured evidence against the timeline, and the timeline against sealed bundles.

A chain of digests shows that no entry was changed. Only a later digest shows that its end was cut
off: each bundle that was sealed while the incident went on has one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from include.evidence import ledger
from include.evidence.checkpoint import checkpoints
from include.evidence.folder import StoreFolder
from include.evidence.ledger import LedgerRow
from include.evidence.model import Outcome, StepRecord
from include.incident.counting import subjects
from include.incident.entries import NOT_LISTED, KeptExtract, Preserved
from include.incident.incident_run import IncidentRecord, IncidentRun
from include.incident.names import TIMELINE_FILE, UPDATES, WORKFLOW, Kind
from include.incident.register import Incident
from include.incident.timeline import Entry, head, last_of, of_kind
from include.messages import Message, _
from include.services.objectstore.base import (
    ObjectDamaged,
    ObjectMissing,
    ObjectStore,
    read_sha256,
    versions_to_try,
)

LIST = "incident_subject"


@dataclass(frozen=True)
class Kept:
    """One piece of evidence.

    Attributes:
        name: of the table with the list, or the extract's key in the store.
        entry: place of the newest entry of the timeline that names it.
        expected: its SHA-256 by that entry, hex.
        found: as it is now; None where it is gone.
        intact_version: an older version in the store that is as the timeline says, where the
            current one is not; empty for none.
    """

    name: str
    entry: int
    expected: str
    found: str | None
    intact_version: str = ""

    @property
    def holds(self) -> bool:
        """Return whether it is as the timeline says."""
        return self.found == self.expected


def check(conn: Connection, record: IncidentRecord, store: Callable[[], ObjectStore]) -> list[Kept]:
    """Work out the digests of everything that was secured, anew.

    The list is that of the newest entry; while `preserve` runs it may be longer already. Extracts
    are those of every entry, each read as the store gives it to any reader now. Of one that was
    deleted or overwritten, older versions are searched for the one that was secured.

    Args:
        conn: the state database.
        record: the incident.
        store: opens the evidence store; not called where there is no extract.

    Raises:
        ServiceError: the store failed.
    """
    secured = of_kind(record.entries, Kind.PRESERVED)
    if not secured or secured[-1].as_(Preserved).list_sha256 == NOT_LISTED:
        return []
    newest = secured[-1]
    listed = subjects.frozen(conn, record.incident.id).sha256
    found = [Kept(LIST, newest.place, newest.as_(Preserved).list_sha256, listed)]
    named = {
        kept.key: (entry.place, kept.sha256_stored)
        for entry in secured
        for kept in entry.as_(Preserved).extracts.values()
    }
    opened = store() if named else None
    for key, (place, expected) in sorted(named.items()):
        assert opened is not None
        current = _sha256(opened, key)
        intact = "" if current == expected else _intact_version(opened, key, expected)
        found.append(Kept(key, place, expected, current, intact))
    return found


def _intact_version(store: ObjectStore, key: str, expected: str) -> str:
    versions = [version for version in store.list_versions(key) if version.key == key]
    for version in versions_to_try(versions):
        if not version.is_current and _sha256(store, key, version.version_id) == expected:
            return version.version_id
    return ""


def _sha256(store: ObjectStore, key: str, version_id: str = "") -> str | None:
    try:
        return read_sha256(store, key, version_id=version_id)
    except ObjectMissing:
        return None


def faults(found: Sequence[Kept]) -> Iterator[str]:
    """What does not hold, a sentence each."""
    for kept in found:
        if kept.intact_version:
            yield (
                f"{kept.name} was deleted or overwritten in the store; the version that was "
                f"secured is intact: {kept.intact_version} (entry {kept.entry})"
            )
        elif kept.found is None:
            yield f"{kept.name} is gone (entry {kept.entry})"
        elif not kept.holds:
            yield f"{kept.name} is not what was secured (entry {kept.entry})"


def lines(run: IncidentRun, record: IncidentRecord) -> list[Message]:
    """What is kept, a line each; nothing while nothing was secured.

    Args:
        run: the run or command.
        record: the incident.
    """
    found = last_of(record.entries, Kind.PRESERVED)
    if found is None:
        return []
    evidence = found.as_(Preserved)
    said = [
        _(
            "List of {count} affected people, SHA-256 {sha256}",
            count=evidence.people,
            sha256=evidence.list_sha256,
        )
    ]
    said += [_extract(name, one) for name, one in evidence.extracts.items()]
    said.append(_("Legal holds in force: {count}", count=sum(evidence.holds.values())))
    return [*said, _("Timeline of {count} entries, each with the digest of the one before",
                     count=len(record.entries))]  # fmt: skip


def _extract(name: str, known: KeptExtract) -> Message:
    values = {
        "database": known.database or name,
        "rows": known.rows,
        "sha256": known.sha256_clear,
    }
    if known.log == "shares":
        return _(
            "Extract of the log of sharing of {database}: {rows} rows, SHA-256 {sha256}", **values
        )
    return _("Extract of the access log of {database}: {rows} rows, SHA-256 {sha256}", **values)


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
        """Return whether no bundle says otherwise, and each could be read."""
        return not self.contradicting and not self.unreadable


def timeline_record(record: IncidentRecord) -> StepRecord:
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


def compare_bundles(
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
            kept = _recorded_end(StoreFolder(opened, row.bundle), found.number)
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


def _recorded_end(folder: StoreFolder, number: str) -> tuple[int, str] | None:
    """How many entries a bundle knows of, and the digest of the last; None where it has neither."""
    steps = json.loads(folder.read(_RESULT))["steps"]
    for one in steps:
        if one["step"] == STEP_TIMELINE and one["data"]["incident"] == number:
            return int(one["data"]["entries"]), str(one["data"]["head"])
    if TIMELINE_FILE not in folder.names():
        return None
    last = json.loads(folder.read(TIMELINE_FILE).splitlines()[-1])
    return (int(last["place"]), str(last["sha256"])) if last["incident"] == number else None
