"""Writing down what became of a message that was claimed.

These marks are not flushed one by one (`synchronous_commit = off`): a killed process loses none of
them, for the server has them. Where the server itself dies within the next moment, a message whose
mark is lost is still *being sent* in the state database, so it is in doubt and treated as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, text

from include.notify.claims import LEASE, MOST_COPIES, Claimed, Unsent, report_in_doubt
from include.notify.names import GAVE_UP, TOO_LARGE
from include.policy.notices import NoticeRules
from include.policy.period import Period

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
_GAVE_UP = text(
    """
    UPDATE notice SET state = 'undeliverable', cause = :cause, settled_at = :now, message = NULL
    WHERE id = ANY(:ids) AND state = 'pending' RETURNING kind, recipient, cause
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


def sent(conn: Connection, one: Claimed, reply: str, now: datetime) -> None:
    """A server answers for it now."""
    items = [item.id for item in one.items]
    conn.execute(_SENT, {"id": one.id, "items": items, "reply": reply, "now": now})


def refused(conn: Connection, one: Claimed, reply: str, cause: str, now: datetime) -> list[Unsent]:
    """No server will take it for this recipient."""
    values = {"id": one.id, "reply": reply, "cause": cause, "now": now}
    conn.execute(_REFUSED, values)
    return [Unsent(item.kind, one.recipient, cause) for item in one.items]


def too_large(conn: Connection, one: Claimed, reply: str, now: datetime) -> list[Unsent]:
    """Its size was refused: its notices go again in smaller messages, one alone not at all."""
    if len(one.items) == 1:
        return refused(conn, one, reply, f"{TOO_LARGE} {reply}", now)
    released(conn, [one], now, reply)
    return []


def deferred(
    conn: Connection, one: Claimed, reply: str, rules: NoticeRules, now: datetime
) -> list[Unsent]:
    """Not now: it is tried again later; what is too old for that is given up and returned."""
    given_up = too_old(conn, one, rules, now)
    if len(given_up) == len(one.items):
        released(conn, [one], now, reply)
    else:
        values = {"id": one.id, "reply": reply, "next": now + pause(rules, one.tries)}
        conn.execute(_DEFERRED, values)
    return given_up


def in_doubt(
    conn: Connection,
    one: Claimed,
    reply: str,
    rules: NoticeRules,
    now: datetime,
    *,
    report: bool,
    unsent: bool = False,
) -> list[Unsent]:
    """Nobody knows whether it went out: sent again later, or reported and returned.

    Args:
        conn: for marks.
        one: the message.
        reply: codes of the answer.
        rules: of the policy.
        now: the moment.
        report: whether it is reported now.
        unsent: whether this copy did not go out; then it does not count as one.
    """
    if report or one.created_at + span(rules.give_up_after) <= now:
        return report_in_doubt(conn, [one.id], now)
    if one.copies >= MOST_COPIES and not unsent:
        return report_in_doubt(conn, [one.id], now)
    values = {"id": one.id, "reply": reply, "next": now + pause(rules, one.tries)}
    values["unsent"] = int(unsent)
    conn.execute(_LATER, values)
    return []


def released(conn: Connection, messages: Sequence[Claimed], now: datetime, reply: str = "") -> None:
    """Let go of messages that were not sent; one that may have been sent before waits as it is."""
    ids = [one.id for one in messages if not one.doubtful]
    if ids:
        conn.execute(_RELEASED, {"ids": ids, "reply": reply, "now": now})
    if doubtful := [one.id for one in messages if one.doubtful]:
        conn.execute(_LEFT_IN_DOUBT, {"ids": doubtful, "now": now})


def too_old(conn: Connection, one: Claimed, rules: NoticeRules, now: datetime) -> list[Unsent]:
    """Give up what was queued too long ago for another try."""
    limit = now - span(rules.give_up_after)
    ids = [item for item, queued in one.queued_at.items() if queued <= limit]
    if not ids:
        return []
    found = conn.execute(_GAVE_UP, {"ids": ids, "cause": GAVE_UP, "now": now})
    return [Unsent(*row) for row in found]


def extended(
    conn: Connection, ids: Sequence[int], held: datetime, now: datetime
) -> tuple[set[int], datetime]:
    """Hold messages for longer; those that are still ours, and until when."""
    until = now + LEASE
    mine = conn.scalars(_EXTEND, {"ids": list(ids), "held": held, "until": until})
    return set(mine), until


def pause(rules: NoticeRules, tries: int) -> timedelta:
    """How long a message waits after so many tries."""
    return span(rules.retry_after[min(tries, len(rules.retry_after)) - 1])


def span(period: Period) -> timedelta:
    """A period as a length of time; a month counts 30 days."""
    return timedelta(days=period.months * 30 + period.days, seconds=period.seconds)
