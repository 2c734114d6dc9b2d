"""What of a channel is due, what is left, and what has waited for too long."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import Connection, text

from include.notify.claims import Unsent
from include.notify.names import GAVE_UP
from include.notify.notice import ChannelKind

_DUE_NOW = text(
    """
    SELECT EXISTS (
        SELECT FROM notice_message WHERE channel = :channel AND (urgent OR :telling OR :report)
        AND (state = 'deferred' AND next_try_at <= :now OR state = 'sending'
            AND claimed_until <= :now)
    ) OR EXISTS (
        SELECT FROM notice n WHERE state = 'pending' AND message IS NULL AND channel = :channel
        AND (urgent OR :telling AND NOT EXISTS (
            SELECT FROM notice_message m WHERE m.recipient = n.recipient
            AND m.channel = n.channel AND m.day = :day AND NOT m.urgent
            AND m.state <> 'dissolved'))
    )
    """
)
# What has a moment for its next try waits for that; what has none is being sent.
_HELD = "b.state = 'sending' AND b.next_try_at IS NULL AND b.claimed_until > :now"
_LEFT = text(
    f"""
    SELECT count(*) FILTER (WHERE n.urgent OR :telling AND (n.message IS NOT NULL OR NOT EXISTS (
            SELECT FROM notice_message m WHERE m.recipient = n.recipient
            AND m.channel = n.channel AND m.day = :day AND NOT m.urgent
            AND m.state <> 'dissolved'))),
        count(*)
    FROM notice n LEFT JOIN notice_message b ON b.id = n.message
    WHERE n.state = 'pending' AND n.channel = :channel AND NOT coalesce({_HELD}, false)
    """  # noqa: S608 - words of our own
)
_IN_HAND = text(
    f"SELECT count(*), max(claimed_until) FROM notice_message b WHERE {_HELD}"  # noqa: S608 - ours
    " AND channel = :channel"
)
_TOO_OLD = text(
    """
    UPDATE notice n SET state = 'undeliverable', cause = :cause, settled_at = :now
    WHERE state = 'pending' AND message IS NULL AND channel = :channel AND queued_at <= :limit
        AND (urgent OR :telling AND NOT EXISTS (
            SELECT FROM notice_message m WHERE m.recipient = n.recipient
            AND m.channel = n.channel AND m.day = :day AND NOT m.urgent
            AND m.state <> 'dissolved'))
    RETURNING kind, recipient, cause
    """
)


def anything(
    conn: Connection, kind: ChannelKind, *, day: date, now: datetime, telling: bool, report: bool
) -> bool:
    """Whether anything of a channel is to be done now.

    Args:
        conn: the state database.
        kind: of the channel.
        day: the day it is in the company.
        now: the moment.
        telling: whether what can wait may be sent.
        report: whether messages in doubt are reported, at any hour.
    """
    values = {"channel": kind, "day": day, "now": now, "telling": telling, "report": report}
    return bool(conn.scalar(_DUE_NOW, values))


def left(
    conn: Connection, kind: ChannelKind, *, day: date, now: datetime, telling: bool
) -> tuple[int, int]:
    """How many notices are due and not sent, and how many wait for their time.

    Those of a message that another process is sending are neither: `in_hand` counts it.
    """
    values = {"channel": kind, "day": day, "now": now, "telling": telling}
    due, pending = conn.execute(_LEFT, values).one()
    return due, pending - due


def in_hand(conn: Connection, kind: ChannelKind, now: datetime) -> tuple[int, datetime | None]:
    """How many messages another process is sending, and until when they count as that.

    One that was killed a moment ago is not known from one that is at work.
    """
    count, until = conn.execute(_IN_HAND, {"channel": kind, "now": now}).one()
    return int(count), until


def give_up(
    conn: Connection,
    kind: ChannelKind,
    *,
    day: date,
    now: datetime,
    telling: bool,
    limit: datetime,
) -> list[Unsent]:
    """Give up what is due, was queued before a moment and cannot be sent now."""
    values = {"channel": kind, "day": day, "now": now, "telling": telling, "limit": limit}
    return [Unsent(*row) for row in conn.execute(_TOO_OLD, values | {"cause": GAVE_UP})]
