"""Check that secured evidence is still as the timeline says, and describe it in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from include.incident.counting import subjects
from include.incident.entries import NOT_LISTED, KeptExtract, Preserved
from include.incident.incident_run import IncidentRecord, IncidentRun
from include.incident.names import Kind
from include.incident.timeline import last_of, of_kind
from include.messages import Message, _
from include.services.objectstore.base import (
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
        """Whether it is as the timeline says."""
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
    for one in found:
        if one.intact_version:
            yield (
                f"{one.name} was deleted or overwritten in the store; the version that was secured "
                f"is intact: {one.intact_version} (entry {one.entry})"
            )
        elif one.found is None:
            yield f"{one.name} is gone (entry {one.entry})"
        elif not one.holds:
            yield f"{one.name} is not what was secured (entry {one.entry})"


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
