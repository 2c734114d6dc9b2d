"""The timeline of an incident: entries are appended, never changed; each seals the one before.

An entry's digest is SHA-256 over its canonical JSON, which holds the digest of the entry before;
the first one holds zeros. With the last digest, which every bundle of the incident holds, anybody
can show that no entry was changed, left out or put in between (`include.incident.evidence.kept`).
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

from include.incident.names import Kind
from include.incident.tables import incident, incident_entry
from include.messages import Message, _
from include.reports.i18n import visible
from include.services.clock import Clock
from include.services.errors import UsageError

FIRST = "0" * 64
Data = TypeVar("Data", bound=BaseModel)


@dataclass(frozen=True)
class Entry:
    """An entry.

    Attributes:
        place: from 1, without gaps.
        kind: what it is about.
        recorded_at: when it was written.
        happened_at: when it happened, by who says so.
        by: user id of a person, or the name of a step.
        words: for readers; no customer's value.
        data: what the kind says of it (`Kind`); no customer's value, no floats.
        previous: digest of the entry before.
        sha256: digest of this one.
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
        """Return the data as the model of its kind; see `include.incident.entries`."""
        return model.model_validate(self.data)


@dataclass(frozen=True)
class Broken:
    """The first entry at which a timeline does not hold.

    Attributes:
        place: of the entry.
        reason: what is wrong with it.
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
    """Append an entry; whoever else does so waits until this transaction ends.

    Args:
        conn: the state database, in a transaction.
        incident_id: of the incident.
        kind: what it is about.
        words: for readers; no customer's value.
        by: user id of a person, or the name of a step.
        clock: when it is written.
        happened_at: when it happened, timezone-aware; now where nothing is said.
        data: JSON without floats.
        once: what makes it the same entry when a task is repeated; then the one that is there comes
            back as it is.

    Raises:
        UsageError: there is no such incident, or it happened later than now.
    """
    now = clock.now().astimezone(UTC)
    moment = (happened_at or now).astimezone(UTC)
    if moment > now:
        raise UsageError(f"{moment.isoformat()} is yet to come.", "Enter when it happened.")
    number = lock_incident(conn, incident_id)
    if once is not None and (found := entered(conn, incident_id, once)) is not None:
        return found
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
        "words": stored(words.model_dump(mode="json")),
        "data": stored(dict(data or {})),
        "previous": last.sha256 if last else FIRST,
    }
    row["sha256"] = digest(number, row)
    written = incident_entry.insert().values(row | {"incident_id": incident_id, "once": once})
    conn.execute(written)
    return _entry(row)


def lock_incident(conn: Connection, incident_id: int) -> str:
    """Let nobody else append to a timeline until this transaction ends; the incident's number.

    Raises:
        UsageError: there is no such incident.
    """
    locked = select(incident.c.number).where(incident.c.id == incident_id).with_for_update()
    number: str | None = conn.scalar(locked)
    if number is None:
        raise UsageError(f"There is no incident {incident_id}.")
    return number


def entered(conn: Connection, incident_id: int, once: str) -> Entry | None:
    """The entry that was made once under that name; None where there is none yet."""
    query = select(incident_entry).filter_by(incident_id=incident_id, once=once)
    found = conn.execute(query).mappings().first()
    return _entry(found) if found is not None else None


def entries(conn: Connection, incident_id: int) -> list[Entry]:
    """The timeline of an incident, oldest entry first."""
    query = (
        select(incident_entry)
        .where(incident_entry.c.incident_id == incident_id)
        .order_by(incident_entry.c.place)
    )
    return [_entry(row) for row in conn.execute(query).mappings()]


def of_kind(found: Sequence[Entry], *kinds: Kind) -> list[Entry]:
    """Entries of some kinds, oldest first."""
    return [entry for entry in found if entry.kind in kinds]


def last_of(found: Sequence[Entry], *kinds: Kind) -> Entry | None:
    """The newest entry of some kinds."""
    return next((entry for entry in reversed(found) if entry.kind in kinds), None)


def verify(number: str, found: Sequence[Entry]) -> Broken | None:
    """Say at which entry a timeline does not hold, None where all of it does.

    Args:
        number: of the incident.
        found: its entries, oldest first.
    """
    previous = FIRST
    for place, one in enumerate(found, 1):
        if one.place != place:
            return Broken(place, _("an entry is missing"))
        if one.previous != previous:
            return Broken(place, _("it does not follow the entry before"))
        if one.sha256 != digest(number, as_row(one)):
            return Broken(place, _("it was changed"))
        previous = one.sha256
    return None


def head(found: Sequence[Entry]) -> str:
    """Digest of the newest entry, zeros where there is none: what a bundle keeps."""
    return found[-1].sha256 if found else FIRST


def as_row(entry: Entry) -> dict[str, Any]:
    """Return an entry's fields as they are digested and written to a file."""
    row = {field.name: getattr(entry, field.name) for field in dataclasses.fields(Entry)}
    del row["sha256"]
    words = entry.words.model_dump(mode="json")
    return row | {"kind": str(entry.kind), "words": words, "data": dict(entry.data)}


def digest(number: str, row: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of an entry's canonical JSON.

    Keys sorted, no blanks between, UTF-8, moments in UTC with microseconds.
    """
    content = {"incident": number} | {
        key: in_utc(value) if isinstance(value, datetime) else value for key, value in row.items()
    }
    return hashlib.sha256(canonical(content)).hexdigest()


def canonical(content: Mapping[str, Any]) -> bytes:
    """JSON that is the same wherever it is made: keys sorted, no blanks, UTF-8, no floats."""
    _refuse_floats(content)
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def lock(conn: Connection) -> None:
    """Let nobody else open an incident until this transaction ends."""
    conn.execute(text("LOCK TABLE incident IN SHARE ROW EXCLUSIVE MODE"))


def in_utc(moment: datetime) -> str:
    """A moment as entries are digested with: UTC, with microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def stored(value: Any) -> Any:
    """What JSONB takes and gives back unchanged."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(str(key)): stored(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [stored(one) for one in value]
    return value


def _refuse_floats(value: Any) -> None:
    if isinstance(value, float):
        raise TypeError("a float is not the same in every JSON")
    if isinstance(value, Mapping):
        for one in value.values():
            _refuse_floats(one)
    elif isinstance(value, list | tuple):
        for one in value:
            _refuse_floats(one)


def _entry(row: Mapping[Any, Any]) -> Entry:
    fields = {field.name: row[field.name] for field in dataclasses.fields(Entry)}
    words = Message.model_validate(row["words"])
    return Entry(**fields | {"kind": Kind(row["kind"]), "words": words})
