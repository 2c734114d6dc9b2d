"""Record the outcome of claimed messages, and give up notifications that waited too long.

Outcomes are committed without waiting for the disk (`synchronous_commit = off`). If this process is
killed, every committed outcome is kept. If the database server fails right after a commit, the
outcome may be lost. Then the message keeps the state *sending*, and is treated as a message that
may have arrived.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, text

from include.notify.claims import (
    LEASE,
    MAX_COPIES,
    ClaimedMessage,
    UnsentNotification,
    report_in_doubt,
)
from include.notify.notification import GAVE_UP, TOO_LARGE, ChannelKind
from include.policy.rules import NotificationRules

_SENT = text(
    """
    WITH m AS (
        UPDATE notification_message SET state = 'sent', claimed_until = NULL, next_try_at = NULL,
            reply = :reply, settled_at = :now WHERE id = :id
    )
    UPDATE notification SET state = 'sent', cause = '', settled_at = :now
    WHERE message = :id AND id = ANY(:items)
    """
)
_REFUSED = text(
    """
    WITH m AS (
        UPDATE notification_message SET state = 'refused', claimed_until = NULL, next_try_at = NULL,
            reply = :reply, settled_at = :now WHERE id = :id
    )
    UPDATE notification SET state = 'undeliverable', cause = :cause, settled_at = :now
    WHERE message = :id AND state = 'pending'
    """
)
_DEFERRED = text(
    "UPDATE notification_message SET state = 'deferred', claimed_until = NULL, next_try_at = :next,"
    " reply = :reply WHERE id = :id AND state = 'sending'"
)
_LATER = text(
    "UPDATE notification_message SET claimed_until = :next, next_try_at = :next, reply = :reply,"
    " copies = copies - :unsent WHERE id = :id AND state = 'sending'"
)
_RELEASED = text(
    """
    WITH freed AS (
        UPDATE notification SET message = NULL WHERE message = ANY(:ids) AND state = 'pending'
    )
    UPDATE notification_message SET state = 'dissolved', claimed_until = NULL, next_try_at = NULL,
        reply = :reply, settled_at = :now WHERE id = ANY(:ids) AND state = 'sending'
    """
)
_LEFT_IN_DOUBT = text(
    "UPDATE notification_message SET claimed_until = :now, next_try_at = :now, copies = copies - 1"
    " WHERE id = ANY(:ids) AND state = 'sending'"
)
_FIRST_DEFERRED = text(
    "UPDATE notification SET first_deferred_at = :now"
    " WHERE message = :id AND state = 'pending' AND first_deferred_at IS NULL"
)
_GAVE_UP = text(
    """
    UPDATE notification
    SET state = 'undeliverable', cause = :cause, settled_at = :now, message = NULL
    WHERE message = :id AND state = 'pending' AND first_deferred_at <= :limit
    RETURNING kind, recipient, cause
    """
)
_EXTEND = text(
    "UPDATE notification_message SET claimed_until = :until"
    " WHERE id = ANY(:ids) AND state = 'sending'"
    " AND claimed_until = :held RETURNING id"
)


def open_record_connection(state: Engine) -> Connection:
    """Open a separate connection in autocommit mode, to record which messages were sent."""
    conn = state.connect().execution_options(isolation_level="AUTOCOMMIT")
    conn.execute(text("SET synchronous_commit = off"))
    return conn


def record_sent(conn: Connection, message: ClaimedMessage, reply: str, now: datetime) -> None:
    """Record that a server accepted a message.

    Args:
        conn: connection for recording outcomes.
        message: message that was sent.
        reply: codes of the server's answer.
        now: current time.
    """
    items = [item.id for item in message.items]
    conn.execute(_SENT, {"id": message.id, "items": items, "reply": reply, "now": now})


def record_refused(
    conn: Connection, message: ClaimedMessage, reply: str, cause: str, now: datetime
) -> list[UnsentNotification]:
    """Record that the server refused a message permanently, and return its notifications.

    Args:
        conn: connection for recording outcomes.
        message: message that was refused.
        reply: codes of the server's answer.
        cause: code of the reason, as defined in `include.notify.notification`.
        now: current time.
    """
    values = {"id": message.id, "reply": reply, "cause": cause, "now": now}
    conn.execute(_REFUSED, values)
    return [UnsentNotification(item.kind, message.recipient, cause) for item in message.items]


def split_or_give_up(
    conn: Connection, message: ClaimedMessage, reply: str, now: datetime
) -> list[UnsentNotification]:
    """Handle a message that the server refused as too large.

    The message is dissolved, and its notifications are sent later in several smaller messages. If
    it has only one notification, the notification is given up and returned.

    Args:
        conn: connection for recording outcomes.
        message: message that was refused.
        reply: codes of the server's answer.
        now: current time.
    """
    if len(message.items) == 1:
        return record_refused(conn, message, reply, f"{TOO_LARGE} {reply}", now)
    release(conn, [message], now, reply)
    return []


def schedule_retry(
    conn: Connection, message: ClaimedMessage, reply: str, rules: NotificationRules, now: datetime
) -> list[UnsentNotification]:
    """Schedule the next attempt to send a message that the server deferred.

    A notification is given up when the period ``give_up_after`` of notices.yaml has passed since it
    was first deferred. The time between queueing and the first deferral does not count, because the
    notification may have waited for a workday.

    Args:
        conn: connection for recording outcomes.
        message: message that was deferred.
        reply: codes of the server's answer.
        rules: content of notices.yaml.
        now: current time.

    Returns:
        The notifications that are given up.
    """
    conn.execute(_FIRST_DEFERRED, {"id": message.id, "now": now})
    given_up = _give_up(conn, message, rules, now)
    if len(given_up) == len(message.items):
        release(conn, [message], now, reply)
    else:
        values = {"id": message.id, "reply": reply, "next": now + retry_pause(rules, message.tries)}
        conn.execute(_DEFERRED, values)
    return given_up


def record_in_doubt(
    conn: Connection,
    message: ClaimedMessage,
    reply: str,
    rules: NotificationRules,
    now: datetime,
    *,
    report: bool,
    unsent: bool = False,
) -> list[UnsentNotification]:
    """Schedule another attempt to send a message that may have arrived, or report the message.

    The message is reported if ``report`` is True, if it is older than the period ``give_up_after``
    of notices.yaml, or if `MAX_COPIES` further copies of it were already sent.

    Args:
        conn: connection for recording outcomes.
        message: message that may have arrived.
        reply: codes of the server's answer.
        rules: content of notices.yaml.
        now: current time.
        report: whether the message is reported at once instead of sent again.
        unsent: whether the current attempt ended before the content of the message was sent. Such
            an attempt does not count as a copy of the message.

    Returns:
        The notifications of the message if it is reported, otherwise an empty list.
    """
    if report or message.created_at + rules.give_up_after.span <= now:
        return report_in_doubt(conn, [message.id], now)
    if message.copies >= MAX_COPIES and not unsent:
        return report_in_doubt(conn, [message.id], now)
    values = {"id": message.id, "reply": reply, "next": now + retry_pause(rules, message.tries)}
    values["unsent"] = int(unsent)
    conn.execute(_LATER, values)
    return []


def release(
    conn: Connection, messages: Sequence[ClaimedMessage], now: datetime, reply: str = ""
) -> None:
    """Give up the claim on messages that this process did not send.

    A message that no earlier attempt can have sent is dissolved: any process can then send its
    notifications in new messages. Every other message stays, and any process can claim it again.

    Args:
        conn: connection for recording outcomes.
        messages: claimed messages that this process did not send.
        now: current time.
        reply: codes of the server's answer; empty if there was none.
    """
    ids = [message.id for message in messages if not message.doubtful]
    if ids:
        conn.execute(_RELEASED, {"ids": ids, "reply": reply, "now": now})
    if doubtful := [message.id for message in messages if message.doubtful]:
        conn.execute(_LEFT_IN_DOUBT, {"ids": doubtful, "now": now})


def _give_up(
    conn: Connection, message: ClaimedMessage, rules: NotificationRules, now: datetime
) -> list[UnsentNotification]:
    """Give up those notifications of a message that were first deferred too long ago.

    Returns:
        The notifications that were given up.
    """
    values = {
        "id": message.id,
        "cause": GAVE_UP,
        "now": now,
        "limit": now - rules.give_up_after.span,
    }
    return [UnsentNotification(*row) for row in conn.execute(_GAVE_UP, values)]


def extend_lease(
    conn: Connection, ids: Sequence[int], lease_end: datetime, now: datetime
) -> tuple[set[int], datetime]:
    """Extend this process's claim on messages by `LEASE` from now.

    Args:
        conn: connection for recording outcomes.
        ids: ids of the claimed messages.
        lease_end: time at which the present claim ends. A message whose claim ends at another time
            was claimed by another process, and is left unchanged.
        now: current time.

    Returns:
        The ids of the messages that are still claimed by this process, and the new end of the
        claim.
    """
    until = now + LEASE
    own_ids = conn.scalars(_EXTEND, {"ids": list(ids), "held": lease_end, "until": until})
    return set(own_ids), until


def retry_pause(rules: NotificationRules, tries: int) -> timedelta:
    """Return the pause before the next attempt to send a message.

    Args:
        rules: content of notices.yaml, with the pauses.
        tries: number of attempts so far, at least 1. From a certain number on, the last pause of
            notices.yaml is used.
    """
    return rules.retry_after[min(tries, len(rules.retry_after)) - 1].span


# If today's digest or the notice with the same text was sent, other notifications wait a day
_TOLD_TODAY = """EXISTS (
        SELECT FROM notification_message m WHERE m.recipient = n.recipient AND m.channel = n.channel
        AND m.day = :day AND m.text = coalesce(n.text, '') AND NOT m.urgent
        AND m.state <> 'dissolved'
    )"""
_FREE = "n.state = 'pending' AND n.message IS NULL AND n.channel = :channel"
# A message with `next_try_at` waits for a retry; a message without it is being sent
_HELD = "b.state = 'sending' AND b.next_try_at IS NULL AND b.claimed_until > :now"

_DUE_NOW = text(
    f"""
    SELECT EXISTS (
        SELECT FROM notification_message
        WHERE channel = :channel AND (urgent OR :telling OR :report)
        AND (:notices OR text = '') AND (state = 'deferred' AND next_try_at <= :now
            OR state = 'sending' AND claimed_until <= :now)
    ) OR EXISTS (
        SELECT FROM notification n WHERE {_FREE} AND (:notices OR n.text IS NULL)
        AND (n.urgent OR :telling AND NOT {_TOLD_TODAY})
    )
    """  # noqa: S608 - constants only, here and below
)
_LEFT = text(
    f"""
    SELECT count(*) FILTER (WHERE n.urgent
            OR :telling AND (n.message IS NOT NULL OR NOT {_TOLD_TODAY})),
        count(*)
    FROM notification n LEFT JOIN notification_message b ON b.id = n.message
    WHERE n.state = 'pending' AND n.channel = :channel AND NOT coalesce({_HELD}, false)
        AND (:notices OR n.text IS NULL)
    """  # noqa: S608
)
_IN_HAND = text(
    f"""
    SELECT count(*), max(claimed_until) FROM notification_message b
    WHERE {_HELD} AND channel = :channel AND (:notices OR text = '')
    """  # noqa: S608
)
_DUE_AND_FREE = f"""{_FREE} AND (:notices OR n.text IS NULL)
        AND (n.urgent OR :telling AND NOT {_TOLD_TODAY})"""
_BEGIN_TO_WAIT = text(
    f"""
    UPDATE notification n SET first_deferred_at = :now
    WHERE {_DUE_AND_FREE} AND first_deferred_at IS NULL
    """  # noqa: S608
)
_TOO_OLD = text(
    f"""
    UPDATE notification n SET state = 'undeliverable', cause = :cause, settled_at = :now
    WHERE {_DUE_AND_FREE} AND first_deferred_at <= :limit
    RETURNING kind, recipient, cause
    """  # noqa: S608
)


@dataclass(frozen=True)
class DeliveryQuery:
    """The channel, the time and other conditions of a query for messages.

    Attributes:
        channel: type of the channel.
        day: today's date in the policy pack's timezone.
        now: current time.
        may_send_digests: whether digests may be sent now.
        notices: whether the query includes notices to data subjects.
    """

    channel: ChannelKind
    day: date
    now: datetime
    may_send_digests: bool
    notices: bool

    def values(self, **more: Any) -> dict[str, Any]:
        """Return the attributes as parameters for SQL statements.

        Args:
            more: additional parameters, which the result contains as well.
        """
        parameters = {"channel": self.channel, "day": self.day, "now": self.now}
        return parameters | {"telling": self.may_send_digests, "notices": self.notices} | more


def has_due_messages(conn: Connection, query: DeliveryQuery, *, report: bool) -> bool:
    """Return whether any message is due now, or any notification that still has no message.

    Args:
        conn: connection to the state database.
        query: channel and time.
        report: whether messages that may have arrived are reported instead of sent again. Such
            messages are due at any hour.
    """
    return bool(conn.scalar(_DUE_NOW, query.values(report=report)))


def count_unsent(conn: Connection, query: DeliveryQuery) -> tuple[int, int]:
    """Count the waiting notifications: those that are due, and those that are not due yet.

    A notification that is not due yet waits for the end of quiet hours or for a workday. It may
    also wait for the next day, because today's digest was already sent to its recipient.
    Notifications are not counted while a process is sending their message. `count_sent_by_others`
    returns the number of these messages.
    """
    due, pending = conn.execute(_LEFT, query.values()).one()
    return due, pending - due


def count_sent_by_others(conn: Connection, query: DeliveryQuery) -> tuple[int, datetime | None]:
    """Return the number of messages that other processes have claimed, and when their claims end.

    If a process was killed, its messages are included until its claim ends. Such a process cannot
    be distinguished from a working process.
    """
    count, until = conn.execute(_IN_HAND, query.values()).one()
    return int(count), until


def give_up_notifications(
    conn: Connection, query: DeliveryQuery, limit: datetime
) -> list[UnsentNotification]:
    """Give up due notifications that have waited too long for an unusable server; return them.

    A due notification that waits for the first time is given up later. Its waiting time begins now.

    Args:
        conn: connection to the state database.
        query: channel whose server cannot be used, and the current time.
        limit: notifications that were first deferred at this time or earlier are given up.
    """
    conn.execute(_BEGIN_TO_WAIT, query.values())
    return [
        UnsentNotification(*row)
        for row in conn.execute(_TOO_OLD, query.values(limit=limit, cause=GAVE_UP))
    ]
