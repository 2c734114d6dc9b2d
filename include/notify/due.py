"""Count the notices of a channel that are due or waiting; give up those that waited too long."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, text

from include.notify.claims import Unsent
from include.notify.names import GAVE_UP
from include.notify.notice import ChannelKind

# The digest of today, or the letter of that text, went out: other notices wait for tomorrow.
_TOLD_TODAY = """EXISTS (
        SELECT FROM notice_message m WHERE m.recipient = n.recipient AND m.channel = n.channel
        AND m.day = :day AND m.text = coalesce(n.text, '') AND NOT m.urgent
        AND m.state <> 'dissolved'
    )"""
_FREE = "n.state = 'pending' AND n.message IS NULL AND n.channel = :channel"
# A message with a next try waits for it; a message without one is being sent.
_HELD = "b.state = 'sending' AND b.next_try_at IS NULL AND b.claimed_until > :now"

_DUE_NOW = text(
    f"""
    SELECT EXISTS (
        SELECT FROM notice_message WHERE channel = :channel AND (urgent OR :telling OR :report)
        AND (:letters OR text = '') AND (state = 'deferred' AND next_try_at <= :now
            OR state = 'sending' AND claimed_until <= :now)
    ) OR EXISTS (
        SELECT FROM notice n WHERE {_FREE} AND (:letters OR n.text IS NULL)
        AND (n.urgent OR :telling AND NOT {_TOLD_TODAY})
    )
    """  # noqa: S608 - words of our own, here and below
)
_LEFT = text(
    f"""
    SELECT count(*) FILTER (WHERE n.urgent
            OR :telling AND (n.message IS NOT NULL OR NOT {_TOLD_TODAY})),
        count(*)
    FROM notice n LEFT JOIN notice_message b ON b.id = n.message
    WHERE n.state = 'pending' AND n.channel = :channel AND NOT coalesce({_HELD}, false)
        AND (:letters OR n.text IS NULL)
    """  # noqa: S608
)
_IN_HAND = text(
    f"""
    SELECT count(*), max(claimed_until) FROM notice_message b
    WHERE {_HELD} AND channel = :channel AND (:letters OR text = '')
    """  # noqa: S608
)
_DUE_AND_FREE = f"""{_FREE} AND (:letters OR n.text IS NULL)
        AND (n.urgent OR :telling AND NOT {_TOLD_TODAY})"""
_FIRST_DEFERRED = text(
    f"""
    UPDATE notice n SET first_deferred_at = :now WHERE {_DUE_AND_FREE} AND first_deferred_at IS NULL
    """  # noqa: S608
)
_TOO_OLD = text(
    f"""
    UPDATE notice n SET state = 'undeliverable', cause = :cause, settled_at = :now
    WHERE {_DUE_AND_FREE} AND first_deferred_at <= :limit
    RETURNING kind, recipient, cause
    """  # noqa: S608
)


@dataclass(frozen=True)
class Look:
    """The channel and the moment of a query.

    Attributes:
        kind: of the channel.
        day: the day it is in the company.
        now: the moment.
        telling: whether what can wait may be sent.
        letters: whether letters with a text of their own count too.
    """

    kind: ChannelKind
    day: date
    now: datetime
    telling: bool
    letters: bool

    def values(self, **more: Any) -> dict[str, Any]:
        """Return the parameters of the statements."""
        mine = {"channel": self.kind, "day": self.day, "now": self.now}
        return mine | {"telling": self.telling, "letters": self.letters} | more


def anything(conn: Connection, look: Look, *, report: bool) -> bool:
    """Whether anything is to be done now.

    Args:
        conn: the state database.
        look: at what.
        report: whether messages in doubt are reported, at any hour.
    """
    return bool(conn.scalar(_DUE_NOW, look.values(report=report)))


def left(conn: Connection, look: Look) -> tuple[int, int]:
    """How many notices are due and not sent, and how many wait for their time.

    Those of a message that another process is sending are neither: `in_hand` counts it.
    """
    due, pending = conn.execute(_LEFT, look.values()).one()
    return due, pending - due


def in_hand(conn: Connection, look: Look) -> tuple[int, datetime | None]:
    """How many messages another process is sending, and until when they count as that.

    One that was killed a moment ago is not known from one that is at work.
    """
    count, until = conn.execute(_IN_HAND, look.values()).one()
    return int(count), until


def give_up(conn: Connection, look: Look, limit: datetime) -> list[Unsent]:
    """Give up due notices whose server has been unreachable for too long.

    Args:
        conn: the state database.
        look: the channel whose server is down, and the moment.
        limit: give up notices whose first deferral was at this moment or before.
    """
    conn.execute(_FIRST_DEFERRED, look.values())
    return [Unsent(*row) for row in conn.execute(_TOO_OLD, look.values(limit=limit, cause=GAVE_UP))]
