"""Queue notifications, each only once per kind and key even if a step is repeated.

All functions take a connection to the state database inside a transaction. The notifications are
therefore committed together with the caller's data, or not at all.
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
from include.notify.notification import GAVE_UP, OPTED_OUT, Notification, address_fault
from include.notify.status import UndeliveredNotification, statuses, undelivered, with_key_prefix
from include.notify.tables import notification, notification_optout
from include.notify.texts import store_text, to_jsonb_text
from include.policy.rules import NotificationRules
from include.reports.i18n import visible
from include.services.errors import UsageError
from include.state.connect import StateLock, lock_for_transaction

__all__ = [
    "QueueCounts", "Run", "UndeliveredNotification", "list_notifications", "opt_in", "opt_out",
    "pending", "queue_notifications", "retry", "retry_all", "statuses", "store_text", "undelivered",
    "unqueued_keys", "withdraw", "withdraw_by_prefix",
]  # fmt: skip
_ANALYZE_FROM = 1000
_COLUMNS = (
    "at", "kind", "key", "recipient", "name", "address", "looked_up", "channel", "urgent",
    "heading", "line", "text", "due_on", "cause",
)  # fmt: skip
# An undeliverable notification is queued again with another address, after it was given up, or if
# its address is looked up. A withdrawn notification is queued again if it is due again, because a
# completion was entered by mistake or a person came back from leave.
_QUEUE = text(
    f"""
    WITH given AS (
        SELECT DISTINCT ON (kind, key) q.*, (o.recipient IS NOT NULL AND q.kind = ANY(:optional))
            AS refused
        FROM queued_notification q LEFT JOIN notification_optout o USING (recipient, kind)
        ORDER BY kind, key, at
    ), kept AS (
        INSERT INTO notification AS n
            (kind, key, recipient, name, address, looked_up, channel, urgent,
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
    """  # noqa: S608 - constants only
).bindparams(bindparam("optional"))


# Notifications of a deferred message can be withdrawn; those of a message being sent cannot
_WITHDRAWN = text(
    """
    SELECT id FROM notification n WHERE kind = :kind AND key = ANY(:keys) AND state = 'pending'
        AND NOT EXISTS (SELECT FROM notification_message m WHERE m.id = n.message
            AND m.state = 'sending')
    ORDER BY id FOR UPDATE
    """
)
_WITHDRAWN_ALIKE = """
    SELECT id FROM notification n WHERE {} AND state = 'pending' AND text IS DISTINCT FROM :but
        AND NOT EXISTS (SELECT FROM notification_message m WHERE m.id = n.message
            AND m.state = 'sending')
    ORDER BY id FOR UPDATE
    """
_WITHDRAW = text(
    "UPDATE notification SET state = 'withdrawn', cause = :cause, settled_at = :at, message = NULL"
    " WHERE id = ANY(:ids)"
)


@dataclass(frozen=True)
class Run:
    """The run that queues notifications.

    Attributes:
        dag_id: DAG id of the workflow.
        run_id: id of the run.
    """

    dag_id: str
    run_id: str


@dataclass(frozen=True)
class QueueCounts:
    """The numbers of notifications that a call queued.

    Attributes:
        new: number of new notifications.
        again: number of withdrawn or undeliverable notifications that were queued again.
        undeliverable: number of notifications in ``new`` and ``again`` whose address cannot be
            used.
    """

    new: int = 0
    again: int = 0
    undeliverable: int = 0


def unqueued_keys(conn: Connection, kind: str, keys: Iterable[str]) -> set[str]:
    """Return those keys whose notification has to be passed to `queue_notifications`.

    A key is returned if its notification was never queued, is undeliverable, or was withdrawn for
    another reason than an opt-out. `queue_notifications` decides whether an undeliverable
    notification is queued again.

    Args:
        conn: connection to the state database, in a transaction.
        kind: kind of the notifications.
        keys: keys to check.
    """
    candidates = list(dict.fromkeys(keys))
    if not candidates:
        return set()
    conn.execute(
        text("CREATE TEMP TABLE IF NOT EXISTS asked_notification (key text) ON COMMIT DROP")
    )
    conn.execute(text("TRUNCATE asked_notification"))
    with _cursor(conn).copy("COPY asked_notification FROM STDIN") as copy:
        for key in candidates:
            copy.write_row((key,))
    query = text(
        "SELECT a.key FROM asked_notification a WHERE NOT EXISTS (SELECT FROM notification n"
        " WHERE n.kind = :kind AND n.key = a.key AND n.state <> 'undeliverable'"
        " AND NOT (n.state = 'withdrawn' AND n.cause <> :refused))"
    )
    return set(conn.scalars(query, {"kind": kind, "refused": OPTED_OUT}))


def queue_notifications(
    conn: Connection,
    notifications: Iterable[Notification],
    run: Run,
    at: datetime,
    rules: NotificationRules | None = None,
) -> QueueCounts:
    """Queue notifications. A notification that is already queued or sent is not changed.

    An undeliverable notification is queued again if its address has changed, if it was given up
    after failed attempts, or if its address is looked up when it is sent. A withdrawn notification
    is queued again if the reason for its withdrawal was not an opt-out.

    Args:
        conn: connection to the state database, in a transaction.
        notifications: notifications. If several have the same kind and key, the first is used.
        run: run that queues the notifications.
        at: time of queueing.
        rules: content of notices.yaml, to check allowed domains and opt-outs now. If it is None,
            they are checked only when the notifications are sent.
    """
    conn.execute(
        text(
            "CREATE TEMP TABLE IF NOT EXISTS queued_notification (at bigint, kind text, key text,"
            " recipient text, name text, address text, looked_up boolean, channel text,"
            " urgent boolean, heading jsonb, line jsonb, text text, due_on date, cause text)"
            " ON COMMIT DROP"
        )
    )
    conn.execute(text("TRUNCATE queued_notification"))
    domains = rules.domains if rules else ()
    count = 0
    with _cursor(conn).copy(f"COPY queued_notification ({', '.join(_COLUMNS)}) FROM STDIN") as copy:
        for count, notification in enumerate(notifications, 1):
            copy.write_row(
                (
                    count,
                    *(
                        visible(part)
                        for part in (
                            notification.kind,
                            notification.key,
                            notification.recipient,
                            notification.name,
                        )
                    ),
                    visible(notification.address),
                    notification.looked_up,
                    notification.channel,
                    notification.urgent,
                    to_jsonb_text(notification.heading),
                    to_jsonb_text(notification.line),
                    notification.text or None,
                    notification.due_on,
                    ""
                    if notification.looked_up
                    else address_fault(notification.channel, notification.address, domains),
                )
            )
    if not count:
        return QueueCounts()
    lock_for_transaction(conn, StateLock.NOTIFICATIONS)
    optional = list(rules.may_opt_out) if rules else []
    values = {"dag_id": run.dag_id, "run_id": run.run_id, "at": at, "optional": optional}
    new, again, undeliverable = conn.execute(_QUEUE, values).one()
    if new > _ANALYZE_FROM:  # for the planner, which would assume an empty table
        conn.execute(text("ANALYZE notification"))
    return QueueCounts(new, again, undeliverable)


def pending(conn: Connection, kind: str) -> list[str]:
    """Return the keys of the pending notifications of a kind, in the order of queueing."""
    query = select(notification.c.key).where(
        notification.c.kind == kind, notification.c.state == "pending"
    )
    return list(conn.scalars(query.order_by(notification.c.id)))


def withdraw(conn: Connection, kind: str, keys: Iterable[str], cause: str, at: datetime) -> int:
    """Withdraw pending notifications. A notification that is being sent is not withdrawn.

    Args:
        conn: connection to the state database, in a transaction.
        kind: kind of the notifications.
        keys: keys of notifications that are no longer due.
        cause: reason in a word or two, without customer data.
        at: current time.

    Returns:
        The number of withdrawn notifications.
    """
    waiting = conn.scalars(_WITHDRAWN, {"kind": kind, "keys": list(keys)})
    return _withdraw(conn, list(waiting), cause, at)


def withdraw_by_prefix(
    conn: Connection,
    kind: str,
    prefix: str,
    cause: str,
    at: datetime,
    *,
    keep_text_digest: str | None = None,
) -> int:
    """Withdraw pending notifications whose keys begin with a prefix, and return their number.

    A notification that is being sent is not withdrawn.

    Args:
        conn: connection to the state database, in a transaction.
        kind: kind of the notifications.
        prefix: text with which the keys begin.
        cause: reason in a word or two, without customer data.
        at: current time.
        keep_text_digest: SHA-256 of the text of a notice to data subjects. Notices with this text
            are not withdrawn. None to withdraw all notifications.
    """
    query, values = with_key_prefix(_WITHDRAWN_ALIKE, kind, prefix)
    return _withdraw(conn, list(conn.scalars(query, values | {"but": keep_text_digest})), cause, at)


def _withdraw(conn: Connection, ids: list[int], cause: str, at: datetime) -> int:
    if ids:
        conn.execute(_WITHDRAW, {"ids": ids, "cause": visible(cause), "at": at})
    return len(ids)


def opt_out(
    conn: Connection, recipient: str, kind: str, *, rules: NotificationRules, by: str, at: datetime
) -> None:
    """Record that a recipient opts out of a kind of notification.

    Pending notifications of this kind to the recipient are withdrawn.

    Args:
        conn: connection to the state database, in a transaction.
        recipient: id of the recipient.
        kind: kind of the notification.
        rules: content of notices.yaml.
        by: user id of the person who records the opt-out.
        at: current time.

    Raises:
        UsageError: the policy does not allow opting out of the kind, or ``recipient`` or ``by`` is
            empty.
    """
    if kind not in rules.may_opt_out:
        optional = ", ".join(rules.may_opt_out) or "none"
        raise UsageError(
            f"{visible(kind)} cannot be refused, since the policy requires it.",
            f"Kinds that may be refused by notices.yaml: {optional}.",
        )
    if not by.strip() or not recipient.strip():
        raise UsageError(
            "The recipient is missing.", "Name the recipient, and your user id with --by."
        )
    row = {"recipient": recipient.strip(), "kind": kind, "at": at, "entered_by": by.strip()}
    conn.execute(insert(notification_optout).values(row).on_conflict_do_nothing())
    query = select(notification.c.key).where(
        notification.c.kind == kind,
        notification.c.recipient == recipient.strip(),
        notification.c.state == "pending",
    )
    withdraw(conn, kind, conn.scalars(query).all(), OPTED_OUT, at)


def opt_in(conn: Connection, recipient: str, kind: str) -> None:
    """Delete the record that a recipient opted out of a kind of notification.

    Args:
        conn: connection to the state database, in a transaction.
        recipient: id of the recipient.
        kind: kind of the notification.
    """
    conn.execute(
        delete(notification_optout).where(
            notification_optout.c.recipient == recipient, notification_optout.c.kind == kind
        )
    )


def retry(conn: Connection, number: int) -> str:
    """Queue a notification again that is undeliverable or in doubt, and return its kind.

    Args:
        conn: connection to the state database, in a transaction.
        number: id of the notification.

    Raises:
        UsageError: the notification does not exist, or is neither undeliverable nor in doubt.
    """
    is_valid_id = 0 < number < 2**63
    query = (
        select(notification.c.kind, notification.c.state)
        .where(notification.c.id == number)
        .with_for_update()
    )
    row = conn.execute(query).first() if is_valid_id else None
    if row is None:
        raise UsageError(
            f"The notification {number} does not exist.",
            "List notifications: ./parcelseal notices list.",
        )
    if row.state not in ("undeliverable", "in_doubt"):
        raise UsageError(
            f"Notification {number} is {row.state} and cannot be sent again.",
            "Only undeliverable and in_doubt notifications can be sent again.",
        )
    conn.execute(notification.update().where(notification.c.id == number).values(_PENDING_AGAIN))
    return str(row.kind)


_PENDING_AGAIN = {"state": "pending", "cause": "", "settled_at": None, "message": None}


def retry_all(conn: Connection, recipient: str = "", cause: str = "") -> int:
    """Queue all undeliverable notifications and all notifications in doubt again.

    The caller has to limit them by recipient, by cause, or by both.

    Args:
        conn: connection to the state database, in a transaction.
        recipient: id of the recipient; empty for all recipients.
        cause: code of the reason why the notifications did not arrive, or the first word of the
            code, such as ``refused 552 5.3.4`` or ``refused``; empty for all reasons.

    Returns:
        The number of notifications that were queued again.

    Raises:
        UsageError: recipient and cause are both empty, or no notification matches.
    """
    if not (recipient or cause):
        raise UsageError(
            "The notifications to send again are missing.", "Name a number, --recipient or --cause."
        )
    conditions: list[ColumnElement[bool]] = [
        notification.c.state.in_(("undeliverable", "in_doubt"))
    ]
    if recipient:
        conditions.append(notification.c.recipient == visible(recipient))
    if cause:
        cause_word = func.split_part(notification.c.cause, " ", 1)
        conditions.append(or_(notification.c.cause == visible(cause), cause_word == visible(cause)))
    count = conn.execute(notification.update().where(*conditions).values(_PENDING_AGAIN)).rowcount
    if not count:
        raise UsageError(
            "No undelivered notification matches.", "List notifications: ./parcelseal notices list."
        )
    return count


def list_notifications(conn: Connection, states: Sequence[str], limit: int) -> list[dict[str, Any]]:
    """Return notifications in some states, newest first, without their addresses.

    Args:
        conn: connection to the state database.
        states: states to include, such as ``pending`` or ``undeliverable``.
        limit: largest number of notifications. If there are more, the oldest are left out.
    """
    columns = (
        "id", "kind", "key", "recipient", "channel", "urgent", "heading", "line", "due_on",
        "queued_at", "state", "cause", "settled_at", "dag_id", "run_id",
    )  # fmt: skip
    query = select(*(notification.c[name] for name in columns)).where(
        notification.c.state.in_(states)
    )
    rows = conn.execute(query.order_by(notification.c.id.desc()).limit(limit)).mappings()
    return [
        dict(row) | {name: Message.model_validate(row[name]) for name in ("heading", "line")}
        for row in rows
    ]


def _cursor(conn: Connection) -> psycopg.Cursor[Any]:
    driver = conn.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver.cursor()
