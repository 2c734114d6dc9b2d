"""Grants: the life of an approved request from its approval until its extract is deleted.

    approved -> delivering -> delivered -> ending -> ended

Each change of state locks the row of the grant, and a database trigger refuses to move back. A
worker records the key of an object before it writes the object, so `expire_grants` finds each
object. An extract can be opened only in the state ``delivered`` and before the end of the access.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, cast

import psycopg
from sqlalchemy import Connection, delete, func, insert, literal, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or_skip
from sqlalchemy.sql.dml import ReturningInsert

from include.approvals.approvers import same_person
from include.disclosure.requests import UseRequest, delete_keys
from include.disclosure.tables import use_attempt, use_grant, use_opening, use_subject
from include.services.database import LOGIN_PREFIX
from include.services.errors import ControlFailed, UsageError
from include.state.tables import MOMENT


class GrantState(StrEnum):
    """The state of a grant.

    Attributes:
        APPROVED: people approved the request; nothing was delivered yet.
        DELIVERING: a worker writes the extract.
        DELIVERED: the requester may open the extract.
        ENDING: the extract cannot be opened any more, and is being deleted.
        ENDED: extract and keys are deleted, and a query proved it.
    """

    APPROVED = "approved"
    DELIVERING = "delivering"
    DELIVERED = "delivered"
    ENDING = "ending"
    ENDED = "ended"


NOT_DELIVERED = (GrantState.APPROVED, GrantState.DELIVERING)
LONGEST_DELIVERY = timedelta(hours=6)  # after the approval; a delivery takes minutes


class EndReason(StrEnum):
    """Why a grant ended.

    Attributes:
        EXPIRED: the approved time is over.
        CONFIRMED: the requester confirmed that local copies are deleted.
        NOT_ENTITLED: the requester left, is on leave, or lost the training that is required.
        TRANSFERRED: the requester works in another department.
        ERASURE: a data subject in the extract asked for erasure.
        ENDED_BY_PERSON: a person ended the access.
        NOT_DELIVERED: the run that should deliver the extract ended without it.
    """

    EXPIRED = "expired"
    CONFIRMED = "confirmed"
    NOT_ENTITLED = "not_entitled"
    TRANSFERRED = "transferred"
    ERASURE = "erasure"
    ENDED_BY_PERSON = "ended_by_person"
    NOT_DELIVERED = "not_delivered"


@dataclass(frozen=True)
class Grant:
    """An approved request.

    Attributes:
        request_id: number of the request.
        sha256: digest of the approved request.
        approvals: numbers of the approval requests that people decided.
        department: department of the requester at the approval.
        approved_at: when the last required approval was given.
        expires_at: end of the access.
        state: current state.
        attempt: id of the delivery that writes, or wrote, the extract.
        object_key: key of the extract in the extract store, or name of the database login; empty
            before the delivery.
        store: description of the extract store, or of the database of the login; empty before the
            delivery.
        delivered_at: when the extract was stored, or the login was created; None before.
        snapshot_at: time of the snapshot in which the records were selected; None before.
        records: number of records in the extract, or that the login may read.
        size: size in bytes of the encrypted file, or of the text with the address of the login.
        file_sha256: SHA-256 of this file or text, in hex.
        end_reason: why the access ended; None while it lasts.
        ending_at: when the access ended; None while it lasts.
        ended_by: account of the person who ended the access; empty if a run ended it.
        ended_at: when the deletion of the extract was proved; None before.
        confirmed_at: when the requester confirmed that local copies are deleted; None before.
        confirmed_by: account of the person who confirmed it.
    """

    request_id: int
    sha256: str
    approvals: tuple[int, ...]
    department: str
    approved_at: datetime
    expires_at: datetime
    state: GrantState
    attempt: str
    object_key: str
    store: str
    delivered_at: datetime | None
    snapshot_at: datetime | None
    records: int | None
    size: int | None
    file_sha256: str | None
    end_reason: EndReason | None
    ending_at: datetime | None
    ended_by: str
    ended_at: datetime | None
    confirmed_at: datetime | None
    confirmed_by: str | None

    @property
    def is_login(self) -> bool:
        """Return whether the delivery is a database login, not a file."""
        return self.object_key.startswith(LOGIN_PREFIX)

    def is_open(self, now: datetime) -> bool:
        """Return whether the requester may open the extract now."""
        return self.state is GrantState.DELIVERED and now < self.expires_at


_COLUMNS = [use_grant.c[field.name] for field in fields(Grant)]


def _grant(row: dict[str, object]) -> Grant:
    reason = row["end_reason"]
    return Grant(
        **row  # type: ignore[arg-type]  # columns are the fields
        | {
            "approvals": tuple(row["approvals"]),  # type: ignore[arg-type]  # JSON list of numbers
            "state": GrantState(str(row["state"])),
            "end_reason": None if reason is None else EndReason(str(reason)),
        }
    )


def find_grant(conn: Connection, number: int, *, locked: bool = False) -> Grant | None:
    """Return the grant of a request, or None if the request was not approved.

    Args:
        conn: the state database.
        number: number of the request.
        locked: whether the row stays locked until the end of the transaction.
    """
    query = select(*_COLUMNS).where(use_grant.c.request_id == number)
    row = conn.execute(query.with_for_update() if locked else query).mappings().first()
    return None if row is None else _grant(dict(row))


def find_grants(conn: Connection, numbers: Collection[int]) -> dict[int, Grant]:
    """Return the grants of requests, by the number of the request."""
    query = select(*_COLUMNS).where(use_grant.c.request_id.in_(numbers))
    grants = (_grant(dict(row)) for row in conn.execute(query).mappings())
    return {grant.request_id: grant for grant in grants}


def grants_in(conn: Connection, states: Iterable[GrantState]) -> list[Grant]:
    """Return the grants in some states, by the end of their access."""
    query = (
        select(*_COLUMNS)
        .where(use_grant.c.state.in_([str(state) for state in states]))
        .order_by(use_grant.c.expires_at, use_grant.c.request_id)
    )
    return [_grant(dict(row)) for row in conn.execute(query).mappings()]


def unconfirmed_grants(conn: Connection) -> list[Grant]:
    """Return the ended grants with an opened extract and without a confirmation.

    Without an opening, no local copy has to be deleted.
    """
    opened = select(use_opening.c.request_id).where(
        use_opening.c.request_id == use_grant.c.request_id
    )
    query = (
        select(*_COLUMNS)
        .where(
            use_grant.c.state.in_([str(GrantState.ENDING), str(GrantState.ENDED)]),
            use_grant.c.confirmed_at.is_(None),
            opened.exists(),
        )
        .order_by(use_grant.c.ending_at, use_grant.c.request_id)
    )
    return [_grant(dict(row)) for row in conn.execute(query).mappings()]


def grant_request(
    conn: Connection,
    request: UseRequest,
    *,
    approvals: Sequence[int],
    department: str,
    approved_at: datetime,
) -> Grant:
    """Store that people approved a request. A repeated call returns the stored grant.

    The access ends the requested number of days after the approval.

    Args:
        conn: the state database, in a transaction.
        request: the approved request.
        approvals: numbers of the approval requests.
        department: department of the requester now.
        approved_at: when the last required approval was given.

    Raises:
        ControlFailed: the request was approved before by other decisions.
    """
    row = {
        "request_id": request.id,
        "sha256": request.sha256,
        "approvals": list(approvals),
        "department": department,
        "approved_at": approved_at,
        "expires_at": approved_at + timedelta(days=request.content.days),
        "state": str(GrantState.APPROVED),
    }
    conn.execute(insert_or_skip(use_grant).values(row).on_conflict_do_nothing())
    grant = find_grant(conn, request.id, locked=True)
    assert grant is not None
    if (grant.sha256, grant.approvals) != (request.sha256, tuple(approvals)):
        raise ControlFailed(
            f"Request {request.id} was approved before by other decisions.", "Make a new request."
        )
    return grant


def begin_delivery(
    conn: Connection, number: int, *, attempt: str, object_key: str, store: str, now: datetime
) -> Grant:
    """Record the object that a worker is going to write.

    An extract that is delivered already stays the extract of the grant.

    Args:
        conn: the state database, in a transaction.
        number: number of the request.
        attempt: id of this attempt to deliver.
        object_key: key of the object in the extract store.
        store: description of the extract store.
        now: current time.

    Raises:
        ControlFailed: the access has ended, or the request was not approved.
    """
    grant = find_grant(conn, number, locked=True)
    if grant is None:
        raise ControlFailed(f"Request {number} was not approved.", "Request the approval again.")
    if grant.state is GrantState.DELIVERED and now < grant.expires_at:
        return grant
    is_late = now > grant.approved_at + LONGEST_DELIVERY
    if is_late or now >= grant.expires_at or grant.state not in NOT_DELIVERED:
        raise ControlFailed(
            f"The access of request {number} has ended, or its approval is older than "
            f"{LONGEST_DELIVERY.total_seconds() / 3600:.0f} hours, so nothing is delivered.",
            "Make a new request if the information is still needed.",
        )
    conn.execute(
        update(use_grant)
        .where(use_grant.c.request_id == number)
        .values(
            state=str(GrantState.DELIVERING), attempt=attempt, object_key=object_key, store=store
        )
    )
    row = {"object_key": object_key, "request_id": number, "begun_at": now}
    conn.execute(insert(use_attempt).values(row))
    changed = find_grant(conn, number)
    assert changed is not None
    return changed


def record_delivery(
    conn: Connection,
    number: int,
    *,
    attempt: str,
    delivered_at: datetime,
    snapshot_at: datetime,
    records: int,
    size: int,
    file_sha256: str,
) -> bool:
    """Record a stored extract, and return whether the requester may open it.

    The result is False if the access ended meanwhile, or if another attempt delivers. The caller
    then deletes its object.

    Args:
        conn: the state database, in a transaction.
        number: number of the request.
        attempt: id of the attempt, as in `begin_delivery`.
        delivered_at: current time.
        snapshot_at: time of the snapshot.
        records: number of records in the extract.
        size: size of the encrypted file in bytes.
        file_sha256: SHA-256 of the encrypted file, in hex.
    """
    grant = find_grant(conn, number, locked=True)
    if grant is None or (grant.state, grant.attempt) != (GrantState.DELIVERING, attempt):
        return False
    if delivered_at >= grant.expires_at:
        return False
    conn.execute(
        update(use_grant)
        .where(use_grant.c.request_id == number)
        .values(
            state=str(GrantState.DELIVERED),
            delivered_at=delivered_at,
            snapshot_at=snapshot_at,
            records=records,
            size=size,
            file_sha256=file_sha256,
        )
    )
    return True


def store_subjects(conn: Connection, number: int, attempt: str, subjects: Iterable[bytes]) -> None:
    """Store the keyed HMAC of data subjects in an extract, before the extract is recorded.

    Args:
        conn: the state database, in a transaction that locks no grant.
        number: number of the request.
        attempt: id of the attempt, as in `begin_delivery`.
        subjects: keyed HMAC of data subjects that are not stored yet.
    """
    connection = cast("psycopg.Connection[object]", conn.connection.driver_connection)
    statement = "COPY use_subject (request_id, attempt, key_hmac) FROM STDIN"
    with connection.cursor().copy(statement) as copy:
        for key_hmac in subjects:
            copy.write_row((number, attempt, key_hmac))


def known_objects(conn: Connection) -> set[str]:
    """Return the keys of all objects that deliveries were going to write."""
    return set(conn.scalars(select(use_attempt.c.object_key)))


def end_access(
    conn: Connection, number: int, reason: EndReason, now: datetime, *, by: str = ""
) -> bool:
    """End the access of a grant, and return whether this call ended it.

    From the commit on, the extract cannot be opened. `expire_grants` deletes the extract.

    Args:
        conn: the state database, in a transaction.
        number: number of the request.
        reason: why the access ends.
        now: current time.
        by: account of the person who ends it; empty if a run ends it.
    """
    grant = find_grant(conn, number, locked=True)
    if grant is None or grant.state in (GrantState.ENDING, GrantState.ENDED):
        return False
    conn.execute(
        update(use_grant)
        .where(use_grant.c.request_id == number)
        .values(state=str(GrantState.ENDING), end_reason=str(reason), ending_at=now, ended_by=by)
    )
    return True


def record_end(conn: Connection, number: int, now: datetime) -> None:
    """Record that the extract of a grant is proved to be deleted, and delete its keys.

    Args:
        conn: the state database, in a transaction.
        number: number of the request.
        now: current time.
    """
    grant = find_grant(conn, number, locked=True)
    if grant is None or grant.state is not GrantState.ENDING:
        return
    delete_keys(conn, [number])
    conn.execute(delete(use_subject).where(use_subject.c.request_id == number))
    conn.execute(
        update(use_grant)
        .where(use_grant.c.request_id == number)
        .values(state=str(GrantState.ENDED), ended_at=now)
    )


def confirm_deletion(conn: Connection, request: UseRequest, person: str, now: datetime) -> Grant:
    """Record that the requester deleted all local copies. The access ends if it has not yet.

    Args:
        conn: the state database, in a transaction.
        request: the request.
        person: account of the person who confirms.
        now: current time.

    Raises:
        UsageError: the person is not the requester, or the request has no grant.
    """
    if not same_person(person, request.requester):
        raise UsageError(
            f"Request {request.id} belongs to another employee.",
            "Only the requester can confirm that local copies are deleted.",
        )
    if find_grant(conn, request.id, locked=True) is None:
        raise UsageError(
            f"Request {request.id} was not approved, so there is nothing to confirm.",
            "List the requests: ./parcelseal access list.",
        )
    end_access(conn, request.id, EndReason.CONFIRMED, now, by=person)
    conn.execute(
        update(use_grant)
        .where(use_grant.c.request_id == request.id, use_grant.c.confirmed_at.is_(None))
        .values(confirmed_at=now, confirmed_by=person)
    )
    grant = find_grant(conn, request.id)
    assert grant is not None
    return grant


def record_opening(
    conn: Connection, request: UseRequest, *, person: str, channel: str, now: datetime
) -> Grant:
    """Record that a person opens an extract, and return the grant. Commit before the first byte.

    One statement checks the grant and inserts the record, so a login that may only read grants and
    insert openings can execute it. The foreign key of the record locks the grant against
    `end_access` until the commit. If an end was committed while the statement waited for this lock,
    the second look at the grant detects it.

    Args:
        conn: the state database, in a transaction, which an error rolls back.
        request: the request.
        person: account of the person.
        channel: ``page`` or ``command``.
        now: current time.

    Raises:
        UsageError: the person is not the requester, or the extract cannot be opened now.
    """
    is_requester = same_person(person, request.requester)
    recorded = conn.scalar(_opening(request.id, person, channel, now)) if is_requester else None
    grant = find_grant(conn, request.id)
    if not is_requester or grant is None:
        raise UsageError(
            f"There is no extract of request {request.id} for you.",
            "Only the requester can open an extract, after its approval.",
        )
    if recorded is None or not grant.is_open(now):
        raise UsageError(
            f"The extract of request {request.id} cannot be opened.",
            "It is not delivered yet, or the access has ended. Make a new request if you still "
            "need the information.",
        )
    return grant


def _opening(number: int, person: str, channel: str, now: datetime) -> ReturningInsert[Any]:
    """Return the statement that inserts an opening if the extract can be opened now."""
    open_grant = select(
        use_grant.c.request_id, literal(person), literal(now, MOMENT), literal(channel)
    ).where(
        use_grant.c.request_id == number,
        use_grant.c.state == str(GrantState.DELIVERED),
        use_grant.c.expires_at > now,
    )
    columns = ["request_id", "opened_by", "opened_at", "channel"]
    return insert(use_opening).from_select(columns, open_grant).returning(use_opening.c.id)


def openings(conn: Connection, number: int) -> list[tuple[str, datetime, str]]:
    """Return (person, time, channel) for each opening of an extract, oldest first."""
    table = use_opening.c
    query = select(table.opened_by, table.opened_at, table.channel).order_by(table.id)
    rows = conn.execute(query.where(table.request_id == number))
    return [(row.opened_by, row.opened_at, row.channel) for row in rows]


def count_openings(conn: Connection) -> dict[int, int]:
    """Return how often each extract was opened: number of the request -> openings."""
    table = use_opening.c
    query = select(table.request_id, func.count()).group_by(table.request_id)
    return {row[0]: row[1] for row in conn.execute(query)}


def grants_with_subject(conn: Connection, digests: Sequence[bytes]) -> set[int]:
    """Return the numbers of the requests whose extract contains one of the data subjects.

    Args:
        conn: the state database.
        digests: keyed HMAC of the data subjects.
    """
    query = (
        "SELECT DISTINCT g.request_id FROM use_subject s "
        "JOIN use_grant g USING (request_id, attempt) WHERE s.key_hmac = ANY(%s)"
    )
    return {row[0] for row in conn.exec_driver_sql(query, (list(digests),))}
