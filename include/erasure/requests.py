"""The registry of data subjects' requests to be erased, by key, with the day they are due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Column, Connection, Select, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from include.holds.keys import refuse_empty, refuse_personal, refuse_personal_key, split
from include.holds.registry import wait_for_deletions
from include.services.clock import Clock
from include.services.errors import ServiceError, UsageError
from include.state.tables import erasure_request, erasure_request_record

DUE_AFTER = timedelta(days=30)  # GB/T 35273-2020, 8.7 a): requests are answered within 30 days
EARLIEST_ZONE = timedelta(hours=14)  # where a day begins first (UTC+14)


@dataclass(frozen=True)
class ErasureRequest:
    """A request of a data subject to be erased.

    Attributes:
        id: number in the registry.
        database: database of the data map.
        subject: key of the data subject there, never a name or number.
        reference: of the request's file.
        received_on: when the data subject asked.
        due_on: last day on which the erasure is in time.
        entered_by: the person who entered it.
        entered_at: when.
        closed_at: when it was completed or withdrawn.
        found_at: when a run first found a record of the subject in a class that a request erases;
            None for a key that may be mistyped.
        restricted_at: since when each count found only records that must stay; None if the last
            count found others.
        oversized_at: when a run first found more records than it stores keys for; since then no run
            erases records for this request or closes it.
    """

    id: int
    database: str
    subject: str
    reference: str
    received_on: date
    due_on: date
    entered_by: str
    entered_at: datetime
    closed_at: datetime | None = None
    closed_by: str | None = None
    closed_because: str | None = None
    found_at: datetime | None = None
    restricted_at: datetime | None = None
    oversized_at: datetime | None = None

    def is_overdue(self, on: date) -> bool:
        """Whether it is open although its last day has passed."""
        return self.closed_at is None and self.due_on < on


def add(
    conn: Connection,
    clock: Clock,
    *,
    database: str,
    subject: str,
    reference: str,
    received_on: date,
    entered_by: str,
) -> ErasureRequest:
    """Enter a request; the open one, unchanged, where the subject has asked already.

    Args:
        conn: the state database.
        clock: when it is entered.
        database: database of the data map.
        subject: key of the data subject, as `include.holds.keys` says: ``<database>/`` before it is
            not part of it.
        reference: of the request's file.
        received_on: when the data subject asked.
        entered_by: who enters it.

    Raises:
        UsageError: something was left empty or looks like a phone or ID number, or the day of
            receipt has not come.
    """
    texts = {"subject": subject, "reference": reference, "entered_by": entered_by}
    refuse_empty("A request", texts)
    refuse_personal_key("A request's subject", subject.strip())
    refuse_personal("A request's reference", reference)
    refuse_personal("Who enters a request", entered_by)
    if received_on > (clock.now() + EARLIEST_ZONE).date():
        raise UsageError(f"A request cannot have been received in the future: {received_on}.")
    stripped = {name: text.strip() for name, text in texts.items()}
    stripped["subject"] = subject_key(database, subject)
    refuse_empty("A request", stripped)
    row = {
        "database": database,
        "received_on": received_on,
        "due_on": received_on + DUE_AFTER,
        "entered_at": clock.now(),
    }
    entering = (
        insert(erasure_request)
        .values(row | stripped)
        .on_conflict_do_nothing(
            index_elements=["database", "subject"],
            index_where=erasure_request.c.closed_at.is_(None),
        )
        .returning(erasure_request)
    )
    for _ in range(2):  # the open one that was in the way may be closed before it is read
        entered = conn.execute(entering).mappings().first()
        if entered is not None:
            return _request(dict(entered))
        if there := _requests(conn, _open_of(database, stripped["subject"])):
            return there[0]
    raise ServiceError("The request was closed again while it was entered.", "Enter it again.")


def open_request(conn: Connection, database: str, subject: str) -> ErasureRequest | None:
    """Return the open request of a data subject, written as for `add`; None where there is none."""
    requests = _requests(conn, _open_of(database, subject_key(database, subject)))
    return requests[0] if requests else None


def open_requests(conn: Connection, database: str) -> list[ErasureRequest]:
    """Return the open requests of a database, oldest first."""
    return _requests(conn, _open(database))


def every(conn: Connection) -> list[ErasureRequest]:
    """Return all requests of all databases, closed ones too, oldest first."""
    return _requests(conn, select(erasure_request))


def mark_found(conn: Connection, clock: Clock, request_ids: Sequence[int]) -> None:
    """Note that records of the subjects were found; the first moment stays."""
    _mark(conn, clock, request_ids, erasure_request.c.found_at)


def mark_oversized(conn: Connection, clock: Clock, request_ids: Sequence[int]) -> None:
    """Note that requests have more records than a run stores keys for; the first moment stays."""
    _mark(conn, clock, request_ids, erasure_request.c.oversized_at)


def _mark(
    conn: Connection, clock: Clock, request_ids: Sequence[int], column: Column[datetime | None]
) -> None:
    if request_ids:
        conn.execute(
            update(erasure_request)
            .where(erasure_request.c.id.in_(request_ids), column.is_(None))
            .values({column: clock.now()})
        )


def restrict(conn: Connection, clock: Clock, request_id: int, *, restricted: bool) -> None:
    """Note whether all remaining records of an open request must stay."""
    table = erasure_request
    conn.execute(
        update(table)
        .where(table.c.id == request_id, table.c.closed_at.is_(None))
        .values(
            restricted_at=func.coalesce(table.c.restricted_at, clock.now()) if restricted else None
        )
    )


def close(
    conn: Connection, clock: Clock, request_id: int, *, closed_by: str, because: str
) -> ErasureRequest:
    """End a request, since the subject was erased or withdrew it; the registry keeps it.

    The keys of its records (`include.erasure.request_records`) are deleted.

    Raises:
        UsageError: no such open request, or something was left empty.
    """
    refuse_empty("A request", {"closed_by": closed_by, "because": because})
    row = conn.execute(
        update(erasure_request)
        .where(erasure_request.c.id == request_id, erasure_request.c.closed_at.is_(None))
        .values(closed_at=clock.now(), closed_by=closed_by.strip(), closed_because=because.strip())
        .returning(erasure_request)
    )
    closed = row.mappings().first()
    if closed is None:
        raise UsageError(
            f"There is no open request {request_id}.", "See `./parcelseal erasure list`."
        )
    record = erasure_request_record
    conn.execute(delete(record).where(record.c.request_id == request_id))
    return _request(dict(closed))


def withdraw(
    conn: Connection, clock: Clock, request_id: int, *, by: str, because: str
) -> ErasureRequest:
    """Close a request on the word of a person; what was erased by then stays erased.

    Waits for deletions in progress, as placing a hold does.

    Raises:
        UsageError: as of `close`, or something looks like a phone or ID number.
        ServiceError: a deletion did not end; the transaction is lost.
    """
    refuse_personal("Who withdraws a request", by)
    refuse_personal("The reason of a withdrawal", because)
    wait_for_deletions(conn, "The request was not withdrawn")
    return close(conn, clock, request_id, closed_by=by, because=because)


def subject_key(database: str, subject: str) -> str:
    """Return the key of a data subject without ``<database>/`` before it.

    Args:
        database: name of the database in the data map.
        subject: the key as a person typed it.
    """
    where, key = split(subject.strip())
    return key if where == database else subject.strip()


def _open(database: str) -> Select[tuple[object, ...]]:
    return select(erasure_request).where(
        erasure_request.c.closed_at.is_(None), erasure_request.c.database == database
    )


def _open_of(database: str, key: str) -> Select[tuple[object, ...]]:
    return _open(database).where(erasure_request.c.subject == key)


def _requests(conn: Connection, query: Select[tuple[object, ...]]) -> list[ErasureRequest]:
    rows = conn.execute(query.order_by(erasure_request.c.id)).mappings()
    return [_request(dict(row)) for row in rows]


def _request(row: dict[str, object]) -> ErasureRequest:
    return ErasureRequest(**row)  # type: ignore[arg-type]  # columns are the fields
