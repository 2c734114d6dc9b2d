"""The registry of legal holds: scope, reason, owner and release.

A hold never ends by itself; its review date only asks whether it is still needed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection, Select, and_, func, or_, select, text, update

from include.holds.keys import refuse_empty, refuse_personal, refuse_personal_key
from include.services.clock import Clock
from include.services.errors import ServiceError, UsageError
from include.state.connect import StateLock, lock_for_transaction
from include.state.locks import lock_timeout, lock_timeout_as
from include.state.tables import legal_hold

PATIENCE = timedelta(minutes=10)  # a deletion ends long before, unless its session hangs


class HoldKind(StrEnum):
    """The kind of a hold's value."""

    SUBJECT = "subject"
    WAYBILL = "waybill"
    CLASS = "class"
    CASE = "case"
    RESTORE_POINT = "restore_point"
    DATABASE = "database"


RECORD_KINDS = (HoldKind.SUBJECT, HoldKind.WAYBILL, HoldKind.CASE)  # their value is a record's key


@dataclass(frozen=True)
class Hold:
    """A legal hold.

    Attributes:
        id: number in the registry.
        kind: of the value.
        value: a key, a record class, a case number, a restore point's id; as
            ``<database>/<value>`` in that database, alone in every database. The name of a
            database for the kind of that name. Never a name, phone number or other customer value.
        reason: for the reader of a certificate.
        owner: the responsible person.
        case_ref: the case, claim or order behind it.
        review_on: date on which its owner reviews it.
    """

    id: int
    kind: HoldKind
    value: str
    reason: str
    owner: str
    case_ref: str
    placed_at: datetime
    review_on: date
    released_at: datetime | None = None
    released_by: str | None = None
    release_reason: str | None = None


def add(
    conn: Connection,
    clock: Clock,
    *,
    kind: HoldKind,
    value: str,
    reason: str,
    owner: str,
    case_ref: str,
    review_on: date,
    patience: timedelta = PATIENCE,
) -> Hold:
    """Place a hold; it counts from the commit on.

    Waits for deletions in progress and blocks new deletions until the commit, so that no deletion
    that did not know the hold commits after it. Sets the transaction's time limits.

    Args:
        conn: the state database, in a transaction.
        clock: when it is placed.
        kind: of the value.
        value: see `Hold`.
        reason: for it.
        owner: the responsible person.
        case_ref: the case, claim or order behind it.
        review_on: date on which its owner reviews it.
        patience: how long to wait for deletions in progress.

    Raises:
        UsageError: something was left empty or looks like a phone or ID number, or the review date
            has passed.
        ServiceError: a deletion did not end; nothing was placed, the transaction is lost.
    """
    texts = {"value": value, "reason": reason, "owner": owner, "case_ref": case_ref}
    refuse_empty("A hold", texts)
    _refuse_customers(kind, texts)
    if review_on < clock.now().date():
        raise UsageError(f"A hold's review date cannot be in the past: {review_on}.")
    stripped = {name: text.strip() for name, text in texts.items()}
    placed = {"kind": str(kind), "placed_at": clock.now(), "review_on": review_on}
    wait_for_deletions(conn, "The hold was not placed", patience)
    row = conn.execute(legal_hold.insert().values(placed | stripped).returning(legal_hold))
    return _hold(dict(row.mappings().one()))


def release(conn: Connection, clock: Clock, hold_id: int, *, released_by: str, reason: str) -> Hold:
    """End a hold; the registry keeps it.

    Raises:
        UsageError: no such hold, released already, or something was left empty or looks like a
            phone or ID number.
    """
    texts = {"released_by": released_by, "reason": reason}
    refuse_empty("A hold", texts)
    _refuse_customers(None, texts)
    row = conn.execute(
        update(legal_hold)
        .where(legal_hold.c.id == hold_id, legal_hold.c.released_at.is_(None))
        .values(
            released_at=clock.now(), released_by=released_by.strip(), release_reason=reason.strip()
        )
        .returning(legal_hold)
    )
    released = row.mappings().first()
    if released is None:
        raise UsageError(f"There is no active hold {hold_id}.", "See `./parcelseal hold list`.")
    return _hold(dict(released))


def active(conn: Connection) -> list[Hold]:
    """Return the active holds, oldest first."""
    return _holds(conn, _active())


def with_released(conn: Connection, ids: Collection[int]) -> list[Hold]:
    """Return the active holds, and some others by their ids."""
    return _holds(
        conn,
        select(legal_hold).where(or_(legal_hold.c.released_at.is_(None), legal_hold.c.id.in_(ids))),
    )


def version(conn: Connection) -> tuple[object, ...]:
    """Return a value that changes whenever a hold is placed or released.

    Holds change in no other way.
    """
    released = func.count(legal_hold.c.released_at)
    row = conn.execute(select(func.count(), func.max(legal_hold.c.id), released)).one()
    return tuple(row)


def every(conn: Connection) -> list[Hold]:
    """Return all holds, released ones too, oldest first."""
    return _holds(conn, select(legal_hold))


def due_for_review(conn: Connection, on: date) -> list[Hold]:
    """Return active holds whose review date has come."""
    return _holds(conn, _active().where(legal_hold.c.review_on <= on))


def restore_points_held(conn: Connection, database: str, points: Iterable[str]) -> set[str]:
    """Return which restore points of a database may not be deleted.

    Args:
        conn: the state database.
        database: name of the database in the data map.
        points: ids of its restore points.

    Returns:
        Those with a hold on them; all of them when the database is held.
    """
    rows = conn.execute(
        select(legal_hold.c.kind, legal_hold.c.value).where(
            legal_hold.c.released_at.is_(None),
            or_(
                and_(legal_hold.c.kind == HoldKind.DATABASE, legal_hold.c.value == database),
                legal_hold.c.kind == HoldKind.RESTORE_POINT,
            ),
        )
    ).all()
    if any(row.kind == HoldKind.DATABASE for row in rows):
        return set(points)
    held = {row.value for row in rows}
    return {point for point in points if point in held or f"{database}/{point}" in held}


def _active() -> Select[tuple[object, ...]]:
    return select(legal_hold).where(legal_hold.c.released_at.is_(None))


def _holds(conn: Connection, query: Select[tuple[object, ...]]) -> list[Hold]:
    rows = conn.execute(query.order_by(legal_hold.c.id)).mappings()
    return [_hold(dict(row)) for row in rows]


def _hold(row: dict[str, object]) -> Hold:
    return Hold(**row | {"kind": HoldKind(str(row["kind"]))})  # type: ignore[arg-type]  # columns are the fields


def _refuse_customers(kind: HoldKind | None, texts: dict[str, str]) -> None:
    for name, typed in texts.items():
        what = f"A hold's {name.replace('_', ' ')}"
        if name == "value" and kind in RECORD_KINDS:
            refuse_personal_key(what, typed.strip())
        else:
            refuse_personal(what, typed)


def wait_for_deletions(conn: Connection, what: str, patience: timedelta = PATIENCE) -> None:
    """Block deletions until this transaction ends, so that each later deletion sees its rows.

    Args:
        conn: the state database, in a transaction; its time limits are set.
        what: for the refusal, "The hold was not placed".
        patience: how long to wait for deletions in progress.

    Raises:
        ServiceError: a deletion did not end; the transaction is lost.
    """
    limits = text(
        "SELECT set_config('lock_timeout', :limit, true),"
        " set_config('statement_timeout', '0', true)"
    )
    conn.execute(limits, {"limit": lock_timeout(patience)})
    refusal = ServiceError(
        f"{what}: a deletion in progress did not end.",
        "Stop the run of enforce_retention or backup_offsite that hangs, then try again.",
    )
    with lock_timeout_as(refusal):
        lock_for_transaction(conn, StateLock.HOLDS)
