"""Queue notifications, each once per kind and key however often a step is repeated.

All functions take a connection of the state database inside a transaction, so that what is queued
stands or falls with what the caller keeps beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, or_, select, text
from sqlalchemy.dialects.postgresql import insert

from include.messages import Message
from include.notify.notice import GAVE_UP, OPTED_OUT, Notice, fault
from include.notify.status import Untold, alike, statuses, undelivered
from include.notify.tables import notice, notice_optout
from include.notify.texts import keep_text, stored
from include.policy.rules import NoticeRules
from include.reports.i18n import visible
from include.services.errors import UsageError
from include.state.connect import StateLock, lock_for_transaction

__all__ = [
    "Queued", "Run", "Untold", "keep_text", "listed", "opt_in", "opt_out", "pending", "queue",
    "retry", "retry_all", "statuses", "undelivered", "untold", "withdraw",
    "withdraw_alike",
]  # fmt: skip
_MANY = 1000
_COLUMNS = (
    "at", "kind", "key", "recipient", "name", "address", "looked_up", "channel", "urgent",
    "heading", "line", "text", "due_on", "cause",
)  # fmt: skip
# One that could not be delivered is tried again with another address, or where only its time
# had run out: nothing is wrong with that address. What is looked up may be another address now. One
# that was taken back, and is wanted again, is told after all: a completion was entered by mistake,
# somebody came back from leave.
_QUEUE = text(
    f"""
    WITH given AS (
        SELECT DISTINCT ON (kind, key) q.*, (o.recipient IS NOT NULL AND q.kind = ANY(:optional))
            AS refused
        FROM queued_notice q LEFT JOIN notice_optout o USING (recipient, kind)
        ORDER BY kind, key, at
    ), kept AS (
        INSERT INTO notice AS n (kind, key, recipient, name, address, looked_up, channel, urgent,
            heading, line, text, due_on, dag_id, run_id, queued_at, state, cause, settled_at)
        SELECT kind, key, recipient, name, address, looked_up, channel, urgent, heading, line,
            text, due_on, :dag_id, :run_id, :at,
            CASE WHEN refused THEN 'withdrawn' WHEN cause <> '' THEN 'undeliverable'
                ELSE 'pending' END,
            CASE WHEN refused THEN '{OPTED_OUT}' ELSE cause END,
            CASE WHEN refused OR cause <> '' THEN cast(:at AS timestamptz) END
        FROM given ORDER BY at
        ON CONFLICT (kind, key) DO UPDATE SET (recipient, name, address, looked_up, channel,
            urgent, heading, line, text, due_on, dag_id, run_id, queued_at, state, cause,
            settled_at, message, first_deferred_at) =
            (excluded.recipient, excluded.name, excluded.address, excluded.looked_up,
            excluded.channel, excluded.urgent, excluded.heading, excluded.line, excluded.text,
            excluded.due_on, excluded.dag_id, excluded.run_id, excluded.queued_at, excluded.state,
            excluded.cause, excluded.settled_at, NULL, NULL)
        WHERE n.state = 'undeliverable' AND ((n.address, n.channel) IS DISTINCT FROM
            (excluded.address, excluded.channel) OR n.cause = '{GAVE_UP}' OR excluded.looked_up)
            OR n.state = 'withdrawn' AND n.cause <> '{OPTED_OUT}'
        RETURNING state, xmax = 0 AS made
    )
    SELECT count(*) FILTER (WHERE made), count(*) FILTER (WHERE NOT made),
        count(*) FILTER (WHERE state = 'undeliverable') FROM kept
    """  # noqa: S608 - two words of our own
).bindparams(bindparam("optional"))


# A message that waits for its next try lets go of them; one that is on its way does not.
_WITHDRAWN = text(
    """
    SELECT id FROM notice n WHERE kind = :kind AND key = ANY(:keys) AND state = 'pending'
        AND NOT EXISTS (SELECT FROM notice_message m WHERE m.id = n.message
            AND m.state = 'sending')
    ORDER BY id FOR UPDATE
    """
)
_WITHDRAWN_ALIKE = """
    SELECT id FROM notice n WHERE {} AND state = 'pending' AND text IS DISTINCT FROM :but
        AND NOT EXISTS (SELECT FROM notice_message m WHERE m.id = n.message
            AND m.state = 'sending')
    ORDER BY id FOR UPDATE
    """
_WITHDRAW = text(
    "UPDATE notice SET state = 'withdrawn', cause = :cause, settled_at = :at, message = NULL"
    " WHERE id = ANY(:ids)"
)


@dataclass(frozen=True)
class Run:
    """Who queues something.

    Attributes:
        dag_id: the workflow.
        run_id: its run.
    """

    dag_id: str
    run_id: str


@dataclass(frozen=True)
class Queued:
    """The numbers of queued notices.

    Attributes:
        new: that were not there.
        again: that were taken back, or could not be delivered and have another address now.
        undeliverable: of both, those whose address cannot be used.
    """

    new: int = 0
    again: int = 0
    undeliverable: int = 0


def untold(conn: Connection, kind: str, keys: Iterable[str]) -> set[str]:
    """Of these keys, those that were never queued, were taken back, or could not be delivered.

    The last may have another address now: `queue` looks at it.
    """
    wanted = list(dict.fromkeys(keys))
    if not wanted:
        return set()
    conn.execute(text("CREATE TEMP TABLE IF NOT EXISTS asked_notice (key text) ON COMMIT DROP"))
    conn.execute(text("TRUNCATE asked_notice"))
    with _cursor(conn).copy("COPY asked_notice FROM STDIN") as into:
        for key in wanted:
            into.write_row((key,))
    query = text(
        "SELECT a.key FROM asked_notice a WHERE NOT EXISTS (SELECT FROM notice n"
        " WHERE n.kind = :kind AND n.key = a.key AND n.state <> 'undeliverable'"
        " AND NOT (n.state = 'withdrawn' AND n.cause <> :refused))"
    )
    return set(conn.scalars(query, {"kind": kind, "refused": OPTED_OUT}))


def queue(
    conn: Connection,
    notices: Iterable[Notice],
    run: Run,
    at: datetime,
    rules: NoticeRules | None = None,
) -> Queued:
    """Queue notices; a notice that exists already is not changed.

    Args:
        conn: the state database, in a transaction.
        notices: any number; of those with the same kind and key the first counts.
        run: who queues them.
        at: the moment.
        rules: of notices.yaml, to tell at once to which domains nothing goes and what people may
            refuse; without them that is told when they would be sent.
    """
    conn.execute(
        text(
            "CREATE TEMP TABLE IF NOT EXISTS queued_notice (at bigint, kind text, key text,"
            " recipient text, name text, address text, looked_up boolean, channel text,"
            " urgent boolean, heading jsonb, line jsonb, text text, due_on date, cause text)"
            " ON COMMIT DROP"
        )
    )
    conn.execute(text("TRUNCATE queued_notice"))
    domains = rules.domains if rules else ()
    given = 0
    with _cursor(conn).copy(f"COPY queued_notice ({', '.join(_COLUMNS)}) FROM STDIN") as into:
        for given, one in enumerate(notices, 1):
            into.write_row(
                (
                    given,
                    *(visible(part) for part in (one.kind, one.key, one.recipient, one.name)),
                    visible(one.address),
                    one.looked_up,
                    one.channel,
                    one.urgent,
                    stored(one.heading),
                    stored(one.line),
                    one.text or None,
                    one.due_on,
                    "" if one.looked_up else fault(one.channel, one.address, domains),
                )
            )
    if not given:
        return Queued()
    lock_for_transaction(conn, StateLock.NOTICES)
    optional = list(rules.may_opt_out) if rules else []
    values = {"dag_id": run.dag_id, "run_id": run.run_id, "at": at, "optional": optional}
    made, again, undeliverable = conn.execute(_QUEUE, values).one()
    if made > _MANY:  # or the next delivery would be planned for an empty table
        conn.execute(text("ANALYZE notice"))
    return Queued(made, again, undeliverable)


def pending(conn: Connection, kind: str) -> list[str]:
    """Keys that are queued and not sent."""
    query = select(notice.c.key).where(notice.c.kind == kind, notice.c.state == "pending")
    return list(conn.scalars(query.order_by(notice.c.id)))


def withdraw(conn: Connection, kind: str, keys: Iterable[str], cause: str, at: datetime) -> int:
    """Withdraw unsent notices; a notice that is being sent is sent.

    Args:
        conn: the state database, in a transaction.
        kind: of the notices.
        keys: those that nobody wants any more.
        cause: why, in a word or two; no customer's value.
        at: the moment.

    Returns:
        How many were taken back.
    """
    waiting = conn.scalars(_WITHDRAWN, {"kind": kind, "keys": list(keys)})
    return _withdraw(conn, list(waiting), cause, at)


def withdraw_alike(
    conn: Connection, kind: str, prefix: str, cause: str, at: datetime, *, but: str | None = None
) -> int:
    """As `withdraw`, all whose keys begin alike.

    Args:
        conn: the state database, in a transaction.
        kind: of the notices.
        prefix: with which their keys begin.
        cause: why, in a word or two; no customer's value.
        at: the moment.
        but: digest of the letter text whose notices stay.
    """
    query, values = alike(_WITHDRAWN_ALIKE, kind, prefix)
    return _withdraw(conn, list(conn.scalars(query, values | {"but": but})), cause, at)


def _withdraw(conn: Connection, ids: list[int], cause: str, at: datetime) -> int:
    if ids:
        conn.execute(_WITHDRAW, {"ids": ids, "cause": visible(cause), "at": at})
    return len(ids)


def opt_out(
    conn: Connection, recipient: str, kind: str, *, rules: NoticeRules, by: str, at: datetime
) -> None:
    """Record that a recipient does not want a kind of notice, and withdraw the waiting ones.

    Raises:
        UsageError: the policy makes that kind a duty, or nobody is named.
    """
    if kind not in rules.may_opt_out:
        optional = ", ".join(rules.may_opt_out) or "none"
        raise UsageError(
            f"{visible(kind)} cannot be refused: the policy makes it a duty.",
            f"Kinds that notices.yaml lets people refuse: {optional}.",
        )
    if not by.strip() or not recipient.strip():
        raise UsageError("Nobody is named.", "Name the recipient, and with --by who enters it.")
    row = {"recipient": recipient.strip(), "kind": kind, "at": at, "entered_by": by.strip()}
    conn.execute(insert(notice_optout).values(row).on_conflict_do_nothing())
    query = select(notice.c.key).where(
        notice.c.kind == kind, notice.c.recipient == recipient.strip(), notice.c.state == "pending"
    )
    withdraw(conn, kind, conn.scalars(query).all(), OPTED_OUT, at)


def opt_in(conn: Connection, recipient: str, kind: str) -> None:
    """Forget that a recipient did not want a kind of notice."""
    conn.execute(
        delete(notice_optout).where(
            notice_optout.c.recipient == recipient, notice_optout.c.kind == kind
        )
    )


def retry(conn: Connection, number: int) -> str:
    """Queue one again that could not be delivered, or may have arrived; its kind.

    Raises:
        UsageError: there is no such notice, or nothing is to be tried again.
    """
    possible = 0 < number < 2**63
    query = select(notice.c.kind, notice.c.state).where(notice.c.id == number).with_for_update()
    row = conn.execute(query).first() if possible else None
    if row is None:
        raise UsageError(f"There is no notice {number}.", "See ./parcelseal notices list.")
    if row.state not in ("undeliverable", "in_doubt"):
        raise UsageError(
            f"Notice {number} is {row.state}: there is nothing to try again.",
            "Only undeliverable and in_doubt ones are tried again.",
        )
    conn.execute(notice.update().where(notice.c.id == number).values(_AFRESH))
    return str(row.kind)


_AFRESH = {"state": "pending", "cause": "", "settled_at": None, "message": None}


def retry_all(conn: Connection, recipient: str = "", cause: str = "") -> int:
    """Queue all again that could not be delivered, or may have arrived; how many.

    Args:
        conn: the state database, in a transaction.
        recipient: only this one's.
        cause: only those, as the list shows it: ``refused`` or ``refused 552 5.3.4``.

    Raises:
        UsageError: neither is named, or there are none.
    """
    if not (recipient or cause):
        raise UsageError("Nothing is named.", "Name a number, --recipient or --cause.")
    wanted: list[ColumnElement[bool]] = [notice.c.state.in_(("undeliverable", "in_doubt"))]
    if recipient:
        wanted.append(notice.c.recipient == visible(recipient))
    if cause:
        word = func.split_part(notice.c.cause, " ", 1)
        wanted.append(or_(notice.c.cause == visible(cause), word == visible(cause)))
    done = conn.execute(notice.update().where(*wanted).values(_AFRESH)).rowcount
    if not done:
        raise UsageError("There is no such notice to try again.", "See ./parcelseal notices list.")
    return done


def listed(conn: Connection, states: Sequence[str], limit: int) -> list[dict[str, Any]]:
    """Notices in any of these states, the newest first; without their addresses."""
    columns = (
        "id", "kind", "key", "recipient", "channel", "urgent", "heading", "line", "due_on",
        "queued_at", "state", "cause", "settled_at", "dag_id", "run_id",
    )  # fmt: skip
    query = select(*(notice.c[name] for name in columns)).where(notice.c.state.in_(states))
    rows = conn.execute(query.order_by(notice.c.id.desc()).limit(limit)).mappings()
    return [
        dict(row) | {name: Message.model_validate(row[name]) for name in ("heading", "line")}
        for row in rows
    ]


def _cursor(conn: Connection) -> psycopg.Cursor[Any]:
    driver = conn.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver.cursor()
