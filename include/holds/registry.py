"""The register of legal holds.

Each entry states what the hold applies to, its reason, its owner and its release. A legal hold is
active until a person releases it. The review date does not end it: on this date, the owner gets a
reminder.
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

PATIENCE = timedelta(minutes=10)  # a batch of deletions ends much earlier, unless it hangs


class HoldKind(StrEnum):
    """The type of object that a legal hold names."""

    SUBJECT = "subject"
    WAYBILL = "waybill"
    CLASS = "class"
    CASE = "case"
    RESTORE_POINT = "restore_point"
    DATABASE = "database"


RECORD_KINDS = (HoldKind.SUBJECT, HoldKind.WAYBILL, HoldKind.CASE)  # their value is a record's key


@dataclass(frozen=True)
class Hold:
    """A legal hold in the register.

    Attributes:
        id: number of the hold in the register.
        kind: type of object that the value names.
        value: key of a record, name of a record class, case number, id of a restore point or name
            of a database. With the prefix ``<database>/``, the hold applies only in this database,
            otherwise in every database. The value is never a name, phone number or other customer
            data.
        reason: reason for the hold, which certificates of deletion show.
        owner: person responsible for the hold.
        case_ref: number of the case, claim or order that requires the hold.
        placed_at: time at which the hold was placed.
        review_on: date on which the owner reviews the hold.
        released_at: time at which the hold was released; None for an active hold.
        released_by: person who released the hold; None for an active hold.
        release_reason: reason for the release; None for an active hold.
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
    """Place a legal hold. It takes effect when the caller commits.

    The function waits for deletions in progress, and new deletions wait for the commit. So after
    the commit, no deletion that ignores the hold commits. The function changes the timeouts of the
    transaction.

    Args:
        conn: connection to the state database, with an open transaction.
        clock: source of the current time.
        kind: type of object that the value names.
        value: text that names the object, as described for `Hold.value`.
        reason: reason for the hold, without customer data.
        owner: person responsible for the hold.
        case_ref: number of the case, claim or order that requires the hold.
        review_on: date on which the owner reviews the hold.
        patience: how long to wait for deletions in progress.

    Raises:
        UsageError: a text is empty or looks like a phone or ID number, or the review date is in the
            past.
        ServiceError: a deletion did not end in time. The hold was not placed, and the transaction
            is aborted.
    """
    texts = {"value": value, "reason": reason, "owner": owner, "case_ref": case_ref}
    refuse_empty("A hold", texts)
    _refuse_customers(kind, texts)
    if review_on < clock.now().date():
        raise UsageError(f"The review date of the hold is in the past: {review_on}.")
    stripped = {name: text.strip() for name, text in texts.items()}
    placed = {"kind": str(kind), "placed_at": clock.now(), "review_on": review_on}
    wait_for_deletions(conn, "The hold was not placed", patience)
    row = conn.execute(legal_hold.insert().values(placed | stripped).returning(legal_hold))
    return _hold(dict(row.mappings().one()))


def release(conn: Connection, clock: Clock, hold_id: int, *, released_by: str, reason: str) -> Hold:
    """Release a legal hold. The hold stays in the register.

    Args:
        conn: connection to the state database, with an open transaction.
        clock: source of the current time.
        hold_id: number of the hold in the register.
        released_by: person who releases the hold.
        reason: reason for the release, without customer data.

    Raises:
        UsageError: the hold does not exist or was already released, or a text is empty or looks
            like a phone or ID number.
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
        raise UsageError(
            f"Hold {hold_id} does not exist or was released.", "See `./parcelseal hold list`."
        )
    return _hold(dict(released))


def active_holds(conn: Connection) -> list[Hold]:
    """Return the active legal holds, oldest hold first."""
    return _holds(conn, _active())


def active_and_released_holds(conn: Connection, ids: Collection[int]) -> list[Hold]:
    """Return all active legal holds, and the released holds with certain ids, oldest hold first.

    Args:
        conn: connection to the state database.
        ids: ids of the released holds to return.
    """
    return _holds(
        conn,
        select(legal_hold).where(or_(legal_hold.c.released_at.is_(None), legal_hold.c.id.in_(ids))),
    )


def registry_version(conn: Connection) -> tuple[object, ...]:
    """Return a value that changes whenever a legal hold is placed or released."""
    released = func.count(legal_hold.c.released_at)
    row = conn.execute(select(func.count(), func.max(legal_hold.c.id), released)).one()
    return tuple(row)


def all_holds(conn: Connection) -> list[Hold]:
    """Return the active and the released legal holds, oldest hold first."""
    return _holds(conn, select(legal_hold))


def holds_due_for_review(conn: Connection, on: date) -> list[Hold]:
    """Return the active legal holds whose review date is `on` or an earlier day."""
    return _holds(conn, _active().where(legal_hold.c.review_on <= on))


def restore_points_on_hold(conn: Connection, database: str, points: Iterable[str]) -> set[str]:
    """Return the restore points of a database to which a legal hold applies.

    Args:
        conn: connection to the state database.
        database: name of the database in the data map.
        points: ids of restore points of the database.

    Returns:
        Ids of the restore points on legal hold. If the database is on legal hold, these are all ids
        in `points`.
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
    for name, text_typed in texts.items():
        subject = f"A hold's {name.replace('_', ' ')}"
        if name == "value" and kind in RECORD_KINDS:
            refuse_personal_key(subject, text_typed.strip())
        else:
            refuse_personal(subject, text_typed)


def wait_for_deletions(conn: Connection, failure: str, patience: timedelta = PATIENCE) -> None:
    """Wait for deletions in progress, and block new deletions until the open transaction ends.

    A deletion that begins later therefore sees the rows that this transaction writes, for example a
    new legal hold.

    Args:
        conn: connection to the state database, with an open transaction. The function changes the
            timeouts of this transaction.
        failure: start of the error message, such as "The hold was not placed".
        patience: how long to wait for deletions in progress.

    Raises:
        ServiceError: a deletion did not end in time. The transaction is aborted.
    """
    limits = text(
        "SELECT set_config('lock_timeout', :limit, true),"
        " set_config('statement_timeout', '0', true)"
    )
    conn.execute(limits, {"limit": lock_timeout(patience)})
    refusal = ServiceError(
        f"{failure}: a deletion in progress did not end.",
        "Stop the hanging run of enforce_retention or backup_offsite, then try again.",
    )
    with lock_timeout_as(refusal):
        lock_for_transaction(conn, StateLock.HOLDS)
