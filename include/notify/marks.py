"""Record the outcome of claimed messages, and give up notices that waited too long.

These outcomes are committed without a flush (`synchronous_commit = off`). A killed process loses
none of them. If the server itself fails within the next moment, a message whose outcome is lost is
still *being sent* in the state database, and is treated as in doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, text

from include.notify.claims import LEASE, MOST_COPIES, Claimed, Unsent, report_in_doubt
from include.notify.notice import GAVE_UP, TOO_LARGE, ChannelKind
from include.policy.rules import NoticeRules

_SENT = text(
    """
    WITH m AS (
        UPDATE notice_message SET state = 'sent', claimed_until = NULL, next_try_at = NULL,
            reply = :reply, settled_at = :now WHERE id = :id
    )
    UPDATE notice SET state = 'sent', cause = '', settled_at = :now
    WHERE message = :id AND id = ANY(:items)
    """
)
_REFUSED = text(
    """
    WITH m AS (
        UPDATE notice_message SET state = 'refused', claimed_until = NULL, next_try_at = NULL,
            reply = :reply, settled_at = :now WHERE id = :id
    )
    UPDATE notice SET state = 'undeliverable', cause = :cause, settled_at = :now
    WHERE message = :id AND state = 'pending'
    """
)
_DEFERRED = text(
    "UPDATE notice_message SET state = 'deferred', claimed_until = NULL, next_try_at = :next,"
    " reply = :reply WHERE id = :id AND state = 'sending'"
)
_LATER = text(
    "UPDATE notice_message SET claimed_until = :next, next_try_at = :next, reply = :reply,"
    " copies = copies - :unsent WHERE id = :id AND state = 'sending'"
)
_RELEASED = text(
    """
    WITH freed AS (
        UPDATE notice SET message = NULL WHERE message = ANY(:ids) AND state = 'pending'
    )
    UPDATE notice_message SET state = 'dissolved', claimed_until = NULL, next_try_at = NULL,
        reply = :reply, settled_at = :now WHERE id = ANY(:ids) AND state = 'sending'
    """
)
_LEFT_IN_DOUBT = text(
    "UPDATE notice_message SET claimed_until = :now, next_try_at = :now, copies = copies - 1"
    " WHERE id = ANY(:ids) AND state = 'sending'"
)
_FIRST_DEFERRED = text(
    "UPDATE notice SET first_deferred_at = :now"
    " WHERE message = :id AND state = 'pending' AND first_deferred_at IS NULL"
)
_GAVE_UP = text(
    """
    UPDATE notice SET state = 'undeliverable', cause = :cause, settled_at = :now, message = NULL
    WHERE message = :id AND state = 'pending' AND first_deferred_at <= :limit
    RETURNING kind, recipient, cause
    """
)
_EXTEND = text(
    "UPDATE notice_message SET claimed_until = :until WHERE id = ANY(:ids) AND state = 'sending'"
    " AND claimed_until = :held RETURNING id"
)


def open_marks(state: Engine) -> Connection:
    """Return a connection of its own for marks; each is a transaction by itself."""
    conn = state.connect().execution_options(isolation_level="AUTOCOMMIT")
    conn.execute(text("SET synchronous_commit = off"))
    return conn


def sent(conn: Connection, message: Claimed, reply: str, now: datetime) -> None:
    """Record that a server accepted the message."""
    items = [item.id for item in message.items]
    conn.execute(_SENT, {"id": message.id, "items": items, "reply": reply, "now": now})


def refused(
    conn: Connection, message: Claimed, reply: str, cause: str, now: datetime
) -> list[Unsent]:
    """Record that servers refuse the message for this recipient for good."""
    values = {"id": message.id, "reply": reply, "cause": cause, "now": now}
    conn.execute(_REFUSED, values)
    return [Unsent(item.kind, message.recipient, cause) for item in message.items]


def too_large(conn: Connection, message: Claimed, reply: str, now: datetime) -> list[Unsent]:
    """Split a message that is too large; give up a notice that is too large by itself."""
    if len(message.items) == 1:
        return refused(conn, message, reply, f"{TOO_LARGE} {reply}", now)
    released(conn, [message], now, reply)
    return []


def deferred(
    conn: Connection, message: Claimed, reply: str, rules: NoticeRules, now: datetime
) -> list[Unsent]:
    """Schedule the next try of a deferred message; return the notices that are given up.

    A notice is given up `give_up_after` after its first deferral, not after it was queued: it may
    have waited for a workday before.
    """
    conn.execute(_FIRST_DEFERRED, {"id": message.id, "now": now})
    given_up = _give_up(conn, message, rules, now)
    if len(given_up) == len(message.items):
        released(conn, [message], now, reply)
    else:
        values = {"id": message.id, "reply": reply, "next": now + pause(rules, message.tries)}
        conn.execute(_DEFERRED, values)
    return given_up


def in_doubt(
    conn: Connection,
    message: Claimed,
    reply: str,
    rules: NoticeRules,
    now: datetime,
    *,
    report: bool,
    unsent: bool = False,
) -> list[Unsent]:
    """Schedule a message whose delivery is in doubt, or report and return its notices.

    Args:
        conn: for marks.
        message: the message.
        reply: codes of the answer.
        rules: of the policy.
        now: the moment.
        report: whether it is reported now.
        unsent: whether this copy did not go out; then it is not counted as a copy.
    """
    if report or message.created_at + rules.give_up_after.span <= now:
        return report_in_doubt(conn, [message.id], now)
    if message.copies >= MOST_COPIES and not unsent:
        return report_in_doubt(conn, [message.id], now)
    values = {"id": message.id, "reply": reply, "next": now + pause(rules, message.tries)}
    values["unsent"] = int(unsent)
    conn.execute(_LATER, values)
    return []


def released(conn: Connection, messages: Sequence[Claimed], now: datetime, reply: str = "") -> None:
    """Release messages that were not sent; those in doubt keep their notices."""
    ids = [message.id for message in messages if not message.doubtful]
    if ids:
        conn.execute(_RELEASED, {"ids": ids, "reply": reply, "now": now})
    if doubtful := [message.id for message in messages if message.doubtful]:
        conn.execute(_LEFT_IN_DOUBT, {"ids": doubtful, "now": now})


def _give_up(conn: Connection, message: Claimed, rules: NoticeRules, now: datetime) -> list[Unsent]:
    """Give up the notices of a message that were deferred for the first time too long ago."""
    values = {
        "id": message.id,
        "cause": GAVE_UP,
        "now": now,
        "limit": now - rules.give_up_after.span,
    }
    return [Unsent(*row) for row in conn.execute(_GAVE_UP, values)]


def extended(
    conn: Connection, ids: Sequence[int], held: datetime, now: datetime
) -> tuple[set[int], datetime]:
    """Extend the lease of messages; return those that are still ours and the new end."""
    until = now + LEASE
    mine = conn.scalars(_EXTEND, {"ids": list(ids), "held": held, "until": until})
    return set(mine), until


def pause(rules: NoticeRules, tries: int) -> timedelta:
    """Return the pause after a number of tries."""
    return rules.retry_after[min(tries, len(rules.retry_after)) - 1].span


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
_BEGIN_TO_WAIT = text(
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
    """Return whether anything is to be done now.

    Args:
        conn: the state database.
        look: at what.
        report: whether messages in doubt are reported, at any hour.
    """
    return bool(conn.scalar(_DUE_NOW, look.values(report=report)))


def left(conn: Connection, look: Look) -> tuple[int, int]:
    """Return how many notices are due and not sent, and how many wait for their time.

    Those of a message that another process is sending are neither: `in_hand` counts it.
    """
    due, pending = conn.execute(_LEFT, look.values()).one()
    return due, pending - due


def in_hand(conn: Connection, look: Look) -> tuple[int, datetime | None]:
    """Return how many messages another process is sending, and until when they count as that.

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
    conn.execute(_BEGIN_TO_WAIT, look.values())
    return [Unsent(*row) for row in conn.execute(_TOO_OLD, look.values(limit=limit, cause=GAVE_UP))]
