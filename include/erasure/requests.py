"""The register of erasure requests of data subjects, with their due dates.

A request identifies the data subject by a key in the database, such as a customer number. It never
contains the name of the data subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Column, Connection, Select, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from include.holds.keys import refuse_empty, refuse_personal, refuse_personal_key, split_key
from include.holds.registry import wait_for_deletions
from include.services.clock import Clock
from include.services.errors import ServiceError, UsageError
from include.state.tables import erasure_request, erasure_request_record

DUE_AFTER = timedelta(days=30)  # GB/T 35273-2020, 8.7 a): requests are answered within 30 days
EARLIEST_ZONE = timedelta(hours=14)  # the timezone in which a day begins first (UTC+14)


@dataclass(frozen=True)
class ErasureRequest:
    """A data subject's request to delete personal data.

    Attributes:
        id: number of the request in the register.
        database: database of the data map.
        subject: key of the data subject in the database, never a name or phone number.
        reference: file number of the request.
        received_on: day on which the company received the request.
        due_on: last day on which the erasure is in time.
        entered_by: person who entered the request.
        entered_at: time at which the request was entered in the register.
        closed_at: time at which the request was completed or withdrawn; None for an open request.
        closed_by: run or person that closed the request.
        closed_because: reason for closing the request.
        found_at: time at which a run first found a record of the data subject in a record class
            that is erased on request; None if no run found such a record. In that case the key of
            the data subject may be mistyped.
        restricted_at: time since which all remaining records of the data subject have had to be
            kept, for example by law; None if the last run did not report this.
        oversized_at: time at which a run first found more records for this request than ParcelSeal
            can store keys of. Since then, no run erases records for this request or closes it. None
            if no run found so many records.
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
        """Return whether the request is still open and the day `on` is after its due date."""
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
    """Enter an erasure request.

    If the data subject already has an open request, return it unchanged.

    Args:
        conn: the state database.
        clock: source of the current time.
        database: database of the data map.
        subject: key of the data subject, with or without the prefix ``<database>/``, see
            `include.holds.keys`.
        reference: file number of the request.
        received_on: day on which the company received the request.
        entered_by: person who enters the request.

    Raises:
        UsageError: a text is empty or looks like a phone or ID number, or the day of receipt is in
            the future.
    """
    texts = {"subject": subject, "reference": reference, "entered_by": entered_by}
    refuse_empty("A request", texts)
    refuse_personal_key("The subject of a request", subject.strip())
    refuse_personal("The reference of a request", reference)
    refuse_personal("The person who enters a request", entered_by)
    if received_on > (clock.now() + EARLIEST_ZONE).date():
        raise UsageError(f"The date of receipt is in the future: {received_on}.")
    stripped = {name: text.strip() for name, text in texts.items()}
    stripped["subject"] = subject_key(database, subject)
    refuse_empty("A request", stripped)
    row = {
        "database": database,
        "received_on": received_on,
        "due_on": received_on + DUE_AFTER,
        "entered_at": clock.now(),
    }
    statement = (
        insert(erasure_request)
        .values(row | stripped)
        .on_conflict_do_nothing(
            index_elements=["database", "subject"],
            index_where=erasure_request.c.closed_at.is_(None),
        )
        .returning(erasure_request)
    )
    for _ in range(2):  # the conflicting open request may be closed before it is read
        entered = conn.execute(statement).mappings().first()
        if entered is not None:
            return _request(dict(entered))
        if existing := _requests(conn, _select_open_of(database, stripped["subject"])):
            return existing[0]
    raise ServiceError("The request was closed again while it was entered.", "Enter it again.")


def open_request(conn: Connection, database: str, subject: str) -> ErasureRequest | None:
    """Return the open erasure request of a data subject, or None if no request is open.

    Args:
        conn: the state database.
        database: name of the database in the data map.
        subject: key of the data subject, with or without the prefix ``<database>/``.
    """
    requests = _requests(conn, _select_open_of(database, subject_key(database, subject)))
    return requests[0] if requests else None


def open_requests(conn: Connection, database: str) -> list[ErasureRequest]:
    """Return the open requests of a database, oldest first."""
    return _requests(conn, _select_open(database))


def all_requests(conn: Connection) -> list[ErasureRequest]:
    """Return the open and closed requests of all databases, oldest first."""
    return _requests(conn, select(erasure_request))


def mark_found(conn: Connection, clock: Clock, request_ids: Sequence[int]) -> None:
    """Store the current time as the time at which a run first found records for these requests.

    If a request already has such a time, that time is kept.

    Args:
        conn: the state database.
        clock: source of the current time.
        request_ids: numbers of the requests.
    """
    _set_first_moment(conn, clock, request_ids, erasure_request.c.found_at)


def mark_oversized(conn: Connection, clock: Clock, request_ids: Sequence[int]) -> None:
    """Store the current time as the time at which a run found too many records for these requests.

    The keys of so many records cannot be stored. If a request already has such a time, that time is
    kept.

    Args:
        conn: the state database.
        clock: source of the current time.
        request_ids: numbers of the requests.
    """
    _set_first_moment(conn, clock, request_ids, erasure_request.c.oversized_at)


def _set_first_moment(
    conn: Connection, clock: Clock, request_ids: Sequence[int], column: Column[datetime | None]
) -> None:
    if request_ids:
        conn.execute(
            update(erasure_request)
            .where(erasure_request.c.id.in_(request_ids), column.is_(None))
            .values({column: clock.now()})
        )


def set_restricted(conn: Connection, clock: Clock, request_id: int, *, restricted: bool) -> None:
    """Store whether all remaining records of an open request must be kept, for example by law.

    Args:
        conn: the state database.
        clock: source of the current time.
        request_id: number of the request.
        restricted: True if the last run found, for this request, only records that must be kept.
    """
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
    """Close a completed or withdrawn request. The request stays in the register.

    The function also deletes the primary keys, or their HMACs, of the records that runs found for
    the request; see `include.erasure.request_records`.

    Args:
        conn: the state database.
        clock: source of the current time.
        request_id: number of the request.
        closed_by: run or person that closes the request.
        because: reason for closing the request.

    Raises:
        UsageError: the request does not exist or is already closed, or `closed_by` or `because` is
            empty.
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
            f"Erasure request {request_id} does not exist or is closed.",
            "See `./parcelseal erasure list`.",
        )
    record = erasure_request_record
    conn.execute(delete(record).where(record.c.request_id == request_id))
    return _request(dict(closed))


def withdraw(
    conn: Connection, clock: Clock, request_id: int, *, by: str, because: str
) -> ErasureRequest:
    """Close a request that is withdrawn. Records that were already erased stay erased.

    The function waits until deletions that are in progress have ended.

    Args:
        conn: the state database.
        clock: source of the current time.
        request_id: number of the request.
        by: person who enters the withdrawal.
        because: reason for the withdrawal.

    Raises:
        UsageError: the request does not exist or is already closed, or a text is empty or looks
            like a phone or ID number.
        ServiceError: a deletion did not end in time. The transaction is aborted.
    """
    refuse_personal("The person who withdraws a request", by)
    refuse_personal("The reason of a withdrawal", because)
    wait_for_deletions(conn, "The request was not withdrawn")
    return close(conn, clock, request_id, closed_by=by, because=because)


def subject_key(database: str, subject: str) -> str:
    """Return the key of a data subject without the prefix ``<database>/``.

    Args:
        database: name of the database in the data map.
        subject: the key as a person typed it.
    """
    prefix, key = split_key(subject.strip())
    return key if prefix == database else subject.strip()


def _select_open(database: str) -> Select[tuple[object, ...]]:
    return select(erasure_request).where(
        erasure_request.c.closed_at.is_(None), erasure_request.c.database == database
    )


def _select_open_of(database: str, key: str) -> Select[tuple[object, ...]]:
    return _select_open(database).where(erasure_request.c.subject == key)


def _requests(conn: Connection, query: Select[tuple[object, ...]]) -> list[ErasureRequest]:
    rows = conn.execute(query.order_by(erasure_request.c.id)).mappings()
    return [_request(dict(row)) for row in rows]


def _request(row: dict[str, object]) -> ErasureRequest:
    return ErasureRequest(**row)  # type: ignore[arg-type]  # columns are the fields
