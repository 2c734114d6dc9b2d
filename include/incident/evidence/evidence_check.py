"""Check preserved evidence against the timeline, and the timeline against sealed bundles.

Each timeline entry contains the digest of the previous entry, so a changed entry is detected. To
detect the removal of the newest entries, each bundle that is sealed during the incident contains
the digest of the newest entry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from include.evidence import ledger
from include.evidence.checkpoint import checkpoints
from include.evidence.folder import StoreFolder
from include.evidence.ledger import LedgerRow
from include.evidence.model import Outcome, StepRecord
from include.incident.counting import subject_list
from include.incident.entries import NOT_LISTED, KeptExtract, Preserved
from include.incident.incident_ids import TIMELINE_FILE, UPDATES, WORKFLOW, Kind
from include.incident.incident_run import IncidentRecord, IncidentRun
from include.incident.register import Incident
from include.incident.timeline import Entry, last_digest, last_of, of_kind
from include.messages import Message, _
from include.policy.datamap import MappedDatabase
from include.services.objectstore.base import (
    ObjectDamaged,
    ObjectMissing,
    ObjectStore,
    read_sha256,
    versions_to_try,
)

LIST_NAME = "incident_subject"


@dataclass(frozen=True)
class EvidenceItem:
    """An item of preserved evidence: the list of affected people, or a log extract.

    Attributes:
        name: name of the list's table, or key of the extract in the evidence store.
        entry: position of the newest timeline entry that names the item.
        expected: SHA-256 (hex) of the item according to that entry.
        current_sha256: SHA-256 (hex) that the item has now; None if the item is missing.
        intact_version: id of an older version in the store that matches the timeline, if the
            current version does not match; otherwise empty.
    """

    name: str
    entry: int
    expected: str
    current_sha256: str | None
    intact_version: str = ""

    @property
    def is_intact(self) -> bool:
        """Whether the digest of the item matches the timeline."""
        return self.current_sha256 == self.expected


def check_evidence(
    conn: Connection, record: IncidentRecord, store: Callable[[], ObjectStore]
) -> list[EvidenceItem]:
    """Compare the digests of all preserved evidence with the timeline.

    The list of people is compared with the newest entry about evidence. While the step that
    preserves evidence is running, people may be added to the list, so its digest may differ from
    that entry. The extracts of all entries are read from the store. If the current version of an
    extract was deleted or overwritten, the store is searched for an older version that matches the
    timeline.

    Args:
        conn: connection to the state database.
        record: incident with its timeline.
        store: callback that opens the evidence store; not called if there are no extracts.

    Returns:
        One item for the list and one for each extract; empty if no evidence was preserved, or in a
        drill.

    Raises:
        ServiceError: the store failed.
    """
    preserved_entries = of_kind(record.entries, Kind.PRESERVED)
    if not preserved_entries or preserved_entries[-1].as_(Preserved).list_sha256 == NOT_LISTED:
        return []
    newest = preserved_entries[-1]
    list_sha256 = subject_list.frozen_list(conn, record.incident.id).sha256
    items = [EvidenceItem(LIST_NAME, newest.place, newest.as_(Preserved).list_sha256, list_sha256)]
    expected_extracts = {
        kept.key: (entry.place, kept.sha256_stored)
        for entry in preserved_entries
        for kept in entry.as_(Preserved).extracts.values()
    }
    opened_store = store() if expected_extracts else None
    for key, (position, expected) in sorted(expected_extracts.items()):
        assert opened_store is not None
        current = _sha256(opened_store, key)
        intact = "" if current == expected else _intact_version(opened_store, key, expected)
        items.append(EvidenceItem(key, position, expected, current, intact))
    return items


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


def describe_faults(items: Sequence[EvidenceItem]) -> Iterator[str]:
    """Yield a sentence for each item of evidence whose digest does not match the timeline."""
    for item in items:
        if item.intact_version:
            yield (
                f"{item.name} was deleted or overwritten in the store; the version that was "
                f"secured is intact: {item.intact_version} (entry {item.entry})"
            )
        elif item.current_sha256 is None:
            yield f"{item.name} is missing (entry {item.entry})"
        elif not item.is_intact:
            yield f"{item.name} differs from the secured version (entry {item.entry})"


def evidence_lines(run: IncidentRun, record: IncidentRecord) -> list[Message]:
    """Return display texts about the list of people, each log extract, the holds and the timeline.

    Return an empty list if no evidence was preserved yet.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
    """
    entry = last_of(record.entries, Kind.PRESERVED)
    if entry is None:
        return []
    evidence = entry.as_(Preserved)
    lines = [
        _(
            "List of {count} affected people, SHA-256 {sha256}",
            count=evidence.people,
            sha256=evidence.list_sha256,
        )
    ]
    lines += [
        _extract_line(run.pack.databases.get(extract.database or name), name, extract)
        for name, extract in evidence.extracts.items()
    ]
    lines.append(_("Legal holds in force: {count}", count=sum(evidence.holds.values())))
    return [*lines, _("Timeline of {count} entries, each with the digest of the previous entry",
                     count=len(record.entries))]  # fmt: skip


def _extract_line(database: MappedDatabase | None, name: str, extract: KeptExtract) -> Message:
    values: dict[str, Any] = {
        "database": database.title if database else extract.database or name,
        "rows": extract.rows,
        "sha256": extract.sha256_clear,
    }
    if extract.log == "shares":
        return _(
            "Extract of the sharing log of {database}: {rows} rows, SHA-256 {sha256}", **values
        )
    return _("Extract of the access log of {database}: {rows} rows, SHA-256 {sha256}", **values)


STEP_TIMELINE = "timeline"
_RESULT = "result.json"


@dataclass(frozen=True)
class BundleComparison:
    """The result of comparing a timeline with sealed evidence bundles.

    Attributes:
        bundles: names of bundles that contain a digest of the timeline.
        contradicting: names of bundles whose digest differs from the timeline.
        unreadable: names of bundles in the evidence ledger that are missing in the store or cannot
            be read. Pruned bundles are left out.
    """

    bundles: Sequence[str]
    contradicting: Sequence[str]
    unreadable: Sequence[str]

    @property
    def is_intact(self) -> bool:
        """Whether all bundles could be read, and no bundle contradicts the timeline."""
        return not self.contradicting and not self.unreadable


def timeline_record(record: IncidentRecord) -> StepRecord:
    """Return a step record with the newest digest of the timeline, for a new evidence bundle.

    Args:
        record: incident with its timeline.
    """
    data = {
        "incident": record.incident.number,
        "entries": len(record.entries),
        "head": last_digest(record.entries),
    }
    return StepRecord(
        step=STEP_TIMELINE, part=record.incident.number, outcome=Outcome.PASS, data=data
    )


def compare_bundles(
    conn: Connection, incident: Incident, entries: Sequence[Entry], store: Callable[[], ObjectStore]
) -> BundleComparison:
    """Compare a timeline with every evidence bundle that was sealed about the incident.

    This includes the bundles of updates. Signatures are not verified here, because ``verify --all``
    verifies them. Bundles of older versions without a digest of the timeline are left out.

    Args:
        conn: connection to the state database.
        incident: incident to check.
        entries: entries of the incident's timeline, oldest first.
        store: callback that opens the evidence store; not called if no bundle was sealed.
    """
    bundles: list[str] = []
    contradicting: list[str] = []
    unreadable: list[str] = []
    rows = [row for row in ledger.rows(conn) if _may_be_about(row, incident)]
    pruned = max((checkpoint.up_to_seq for checkpoint in checkpoints(conn)), default=0)
    opened_store = store() if rows else None
    for row in rows:
        assert opened_store is not None
        try:
            recorded_end = _recorded_end(StoreFolder(opened_store, row.bundle), incident.number)
        except (ObjectMissing, ObjectDamaged, ValueError, KeyError, TypeError) as error:
            if not (isinstance(error, ObjectMissing) and row.seq <= pruned):
                unreadable.append(row.bundle)
            continue
        if recorded_end is None:
            continue
        bundles.append(row.bundle)
        count, sha256 = recorded_end
        if last_digest(entries[:count]) != sha256 or len(entries) < count:
            contradicting.append(row.bundle)
    return BundleComparison(bundles, contradicting, unreadable)


def _may_be_about(row: LedgerRow, incident: Incident) -> bool:
    is_of_workflow = row.dag_id == WORKFLOW or row.dag_id.startswith(f"{WORKFLOW}.")
    return (is_of_workflow and row.run_id == incident.run.run_id) or (
        row.dag_id == UPDATES and row.sealed_at >= incident.opened_at
    )


def _recorded_end(folder: StoreFolder, number: str) -> tuple[int, str] | None:
    """Return the length of an incident's timeline and its newest digest as stored in a bundle.

    Return None if the bundle has no such data about the incident.

    Args:
        folder: folder of the bundle.
        number: number of the incident.
    """
    steps = json.loads(folder.read(_RESULT))["steps"]
    for step in steps:
        if step["step"] == STEP_TIMELINE and step["data"]["incident"] == number:
            return int(step["data"]["entries"]), str(step["data"]["head"])
    if TIMELINE_FILE not in folder.names():
        return None
    last = json.loads(folder.read(TIMELINE_FILE).splitlines()[-1])
    return (int(last["place"]), str(last["sha256"])) if last["incident"] == number else None
