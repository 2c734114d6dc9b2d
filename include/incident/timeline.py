"""The append-only timeline of an incident, whose entries form a chain of digests.

The digest of an entry is the SHA-256 of its canonical JSON, which contains the digest of the
previous entry; the first entry contains zeros instead. Every evidence bundle of the incident
contains the digest of the newest entry. With this digest,
`include.incident.evidence.evidence_check` proves that no earlier entry was changed, removed or
inserted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel
from sqlalchemy import Connection, select, text

from include.incident.incident_ids import Kind
from include.incident.tables import incident, incident_entry
from include.messages import Message, _
from include.reports.i18n import visible
from include.services.clock import Clock
from include.services.errors import UsageError

FIRST_PREVIOUS = "0" * 64
Data = TypeVar("Data", bound=BaseModel)


@dataclass(frozen=True)
class Entry:
    """An entry of a timeline.

    Attributes:
        place: position in the timeline, from 1, without gaps.
        kind: kind of event that the entry records.
        recorded_at: time at which the entry was written.
        happened_at: time of the event, as the author of the entry stated it.
        by: user id of a person, or the name of a step.
        words: display text, without customer data.
        data: JSON values that the kind of entry defines, without customer data and floats.
        previous: digest (hex) of the previous entry.
        sha256: digest (hex) of this entry.
    """

    place: int
    kind: Kind
    recorded_at: datetime
    happened_at: datetime
    by: str
    words: Message
    data: Mapping[str, Any]
    previous: str
    sha256: str

    def as_(self, model: type[Data]) -> Data:
        """Parse the data of the entry with one of the models of `include.incident.entries`."""
        return model.model_validate(self.data)


@dataclass(frozen=True)
class BrokenEntry:
    """The first entry of a timeline whose digest or position is wrong.

    Attributes:
        place: position of the entry in the timeline.
        reason: display text that describes the fault.
    """

    place: int
    reason: Message


def append(
    conn: Connection,
    incident_id: int,
    kind: Kind,
    words: Message,
    *,
    by: str,
    clock: Clock,
    happened_at: datetime | None = None,
    data: Mapping[str, Any] | None = None,
    once: str | None = None,
) -> Entry:
    """Append an entry to a timeline. Other writers wait until this transaction ends.

    Args:
        conn: connection to the state database, in a transaction.
        incident_id: id of the incident.
        kind: kind of event that the entry records.
        words: display text, without customer data.
        by: user id of a person, or the name of a step.
        clock: source of the current time.
        happened_at: time of the event, timezone-aware; default: now.
        data: JSON values that the kind of entry defines, without floats.
        once: key that identifies the entry if a task is repeated. If the timeline already has an
            entry with this key, that entry is returned and nothing is written.

    Raises:
        UsageError: the incident does not exist, or the event is in the future.
    """
    now = clock.now().astimezone(UTC)
    moment = (happened_at or now).astimezone(UTC)
    if moment > now:
        raise UsageError(f"{moment.isoformat()} is in the future.", "Enter the time of the event.")
    number = lock_incident(conn, incident_id)
    if once is not None and (existing := find_entry(conn, incident_id, once)) is not None:
        return existing
    last = conn.execute(
        select(incident_entry.c.place, incident_entry.c.sha256)
        .where(incident_entry.c.incident_id == incident_id)
        .order_by(incident_entry.c.place.desc())
        .limit(1)
    ).first()
    row: dict[str, Any] = {
        "place": last.place + 1 if last else 1,
        "kind": str(kind),
        "recorded_at": now,
        "happened_at": moment,
        "by": visible(by),
        "words": to_jsonb(words.model_dump(mode="json")),
        "data": to_jsonb(dict(data or {})),
        "previous": last.sha256 if last else FIRST_PREVIOUS,
    }
    row["sha256"] = digest(number, row)
    written = incident_entry.insert().values(row | {"incident_id": incident_id, "once": once})
    conn.execute(written)
    return _entry(row)


def lock_incident(conn: Connection, incident_id: int) -> str:
    """Lock an incident's timeline against other writers until this transaction ends.

    Returns:
        The number of the incident.

    Raises:
        UsageError: the incident does not exist.
    """
    query = select(incident.c.number).where(incident.c.id == incident_id).with_for_update()
    number: str | None = conn.scalar(query)
    if number is None:
        raise UsageError(f"The incident {incident_id} does not exist.")
    return number


def find_entry(conn: Connection, incident_id: int, once: str) -> Entry | None:
    """Return the timeline entry that was appended with the key `once`, or None."""
    query = select(incident_entry).filter_by(incident_id=incident_id, once=once)
    row = conn.execute(query).mappings().first()
    return _entry(row) if row is not None else None


def entries(conn: Connection, incident_id: int) -> list[Entry]:
    """Return the timeline of an incident, oldest entry first."""
    query = (
        select(incident_entry)
        .where(incident_entry.c.incident_id == incident_id)
        .order_by(incident_entry.c.place)
    )
    return [_entry(row) for row in conn.execute(query).mappings()]


def of_kind(entries: Sequence[Entry], *kinds: Kind) -> list[Entry]:
    """Return the timeline entries whose kind is one of `kinds`, in the order of `entries`."""
    return [entry for entry in entries if entry.kind in kinds]


def last_of(entries: Sequence[Entry], *kinds: Kind) -> Entry | None:
    """Return the newest entry whose kind is one of `kinds`, or None if there is no such entry.

    Args:
        entries: timeline entries, oldest first.
        kinds: kinds of events that the entry may record.
    """
    return next((entry for entry in reversed(entries) if entry.kind in kinds), None)


def verify_timeline(number: str, entries: Sequence[Entry]) -> BrokenEntry | None:
    """Return the first entry with a wrong digest or position, or None if the timeline is intact.

    Args:
        number: number of the incident.
        entries: entries of the timeline, oldest first.
    """
    previous = FIRST_PREVIOUS
    for position, entry in enumerate(entries, 1):
        if entry.place != position:
            return BrokenEntry(position, _("an earlier entry of the timeline is missing"))
        if entry.previous != previous:
            return BrokenEntry(
                position, _("the entry does not contain the digest of the previous entry")
            )
        if entry.sha256 != digest(number, as_row(entry)):
            return BrokenEntry(position, _("the content of the entry was changed"))
        previous = entry.sha256
    return None


def last_digest(entries: Sequence[Entry]) -> str:
    """Return the digest of the newest timeline entry; zeros if the timeline is empty."""
    return entries[-1].sha256 if entries else FIRST_PREVIOUS


def as_row(entry: Entry) -> dict[str, Any]:
    """Return the fields of an entry without its digest, as JSON values.

    The digest and the timeline file are computed from these fields.
    """
    row = {field.name: getattr(entry, field.name) for field in dataclasses.fields(Entry)}
    del row["sha256"]
    words = entry.words.model_dump(mode="json")
    return row | {"kind": str(entry.kind), "words": words, "data": dict(entry.data)}


def digest(number: str, row: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of an entry's canonical JSON.

    Times in the JSON are in UTC with microseconds.

    Args:
        number: number of the incident.
        row: fields of the entry that `as_row` returned.
    """
    content = {"incident": number} | {
        key: in_utc(value) if isinstance(value, datetime) else value for key, value in row.items()
    }
    return hashlib.sha256(canonical(content)).hexdigest()


def canonical(content: Mapping[str, Any]) -> bytes:
    """Return a value as canonical JSON: sorted keys, no spaces, UTF-8.

    Raises:
        TypeError: the value contains a float.
    """
    _refuse_floats(content)
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def lock_register(conn: Connection) -> None:
    """Lock the register of incidents, so that other runs wait until this transaction ends."""
    conn.execute(text("LOCK TABLE incident IN SHARE ROW EXCLUSIVE MODE"))


def in_utc(moment: datetime) -> str:
    """Return a time as ISO 8601 text in UTC with microseconds, as digests of entries use it."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def to_jsonb(value: Any) -> Any:
    """Return a JSON value in which characters that JSONB cannot store are replaced by escapes.

    These are control, surrogate and text direction characters.
    """
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(str(key)): to_jsonb(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_jsonb(item) for item in value]
    return value


def _refuse_floats(value: Any) -> None:
    if isinstance(value, float):
        raise TypeError("JSON does not represent a float in the same way everywhere")
    if isinstance(value, Mapping):
        for item in value.values():
            _refuse_floats(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_floats(item)


def _entry(row: Mapping[Any, Any]) -> Entry:
    fields = {field.name: row[field.name] for field in dataclasses.fields(Entry)}
    words = Message.model_validate(row["words"])
    return Entry(**fields | {"kind": Kind(row["kind"]), "words": words})
