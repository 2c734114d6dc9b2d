"""Count and list notifications whose keys begin with a common prefix.

For example, the keys of all notifications about an incident begin with the number of the incident.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, TextClause, text

_UNDELIVERED_STATES = ("undeliverable", "in_doubt", "withdrawn")
_LAST = 0x10FFFF
_COUNTS = (
    "SELECT state, cause, count(*) FROM notification WHERE {} GROUP BY state, cause ORDER BY 1, 2"
)
_MOMENTS = (
    "SELECT min(settled_at) FILTER (WHERE state = 'sent') AS sent, max(settled_at) AS last"
    " FROM notification WHERE {}"
)
_UNREACHED = (
    "SELECT count(*) FROM notification WHERE {} AND state = ANY(:states) AND settled_at > :since"
)
_PAGE = (
    "SELECT key, recipient, state, cause FROM notification WHERE {} AND state = ANY(:states)"
    " ORDER BY key USING ~<~ LIMIT :page"
)


@dataclass(frozen=True)
class UndeliveredNotification:
    """A notification that was not delivered, or for which delivery is in doubt.

    Attributes:
        key: key of the notification, unique within its kind.
        recipient: id of the recipient.
        state: ``undeliverable``, ``in_doubt`` or ``withdrawn``; also ``pending`` if the caller of
            `undelivered` requested pending notifications.
        cause: code of the reason, as defined in `include.notify.notification`; empty for a pending
            notification.
    """

    key: str
    recipient: str
    state: str
    cause: str


def statuses(conn: Connection, kind: str, prefix: str) -> Mapping[tuple[str, str], int]:
    """Count the notifications of a kind by state and reason.

    Args:
        conn: connection to the state database.
        kind: kind of the notifications.
        prefix: text with which their keys begin, such as ``INC-2026-0001/``.

    Returns:
        State and reason -> number of notifications. An example of a state and reason is
        ``("undeliverable", "refused 550 5.1.1")``. The reason of sent notifications is empty.
    """
    query, values = with_key_prefix(_COUNTS, kind, prefix)
    return {(state, cause): count for state, cause, count in conn.execute(query, values)}


def first_sent(conn: Connection, kind: str, prefix: str) -> datetime | None:
    """Return the time at which the first notification of a kind was sent.

    Args:
        conn: connection to the state database.
        kind: kind of the notifications.
        prefix: text with which their keys begin.

    Returns:
        The time, or None if no notification was sent yet.
    """
    query, values = with_key_prefix(_MOMENTS, kind, prefix)
    moment: datetime | None = conn.execute(query, values).one().sent
    return moment


def last_settled(conn: Connection, kind: str, prefix: str) -> datetime | None:
    """Return the newest time at which a notification of a kind left the queue.

    A notification leaves the queue when it is sent, withdrawn, undeliverable or in doubt.

    Args:
        conn: connection to the state database.
        kind: kind of the notifications.
        prefix: text with which their keys begin.

    Returns:
        The time, or None if all these notifications are pending or none exists.
    """
    query, values = with_key_prefix(_MOMENTS, kind, prefix)
    moment: datetime | None = conn.execute(query, values).one().last
    return moment


def unreached_since(conn: Connection, kind: str, prefix: str, since: datetime) -> int:
    """Count notifications that became undeliverable, in doubt or withdrawn after a certain time.

    Args:
        conn: connection to the state database.
        kind: kind of the notifications.
        prefix: text with which their keys begin.
        since: the time after which the notifications are counted.
    """
    query, values = with_key_prefix(_UNREACHED, kind, prefix)
    count = conn.scalar(query, values | {"states": list(_UNDELIVERED_STATES), "since": since})
    return int(count or 0)


def undelivered(
    conn: Connection,
    kind: str,
    prefix: str,
    *,
    states: Sequence[str] = _UNDELIVERED_STATES,
    page: int = 1_000,
) -> Iterator[UndeliveredNotification]:
    """Yield the undelivered notifications of a kind, sorted by key.

    They are read page by page. Memory use therefore does not depend on their number.

    Args:
        conn: connection to the state database.
        kind: kind of the notifications.
        prefix: text with which their keys begin.
        states: states to include. The default is ``undeliverable``, ``in_doubt`` and ``withdrawn``;
            the caller may also request ``pending``.
        page: number of rows that are read at once.
    """
    query, values = with_key_prefix(_PAGE, kind, prefix)
    values |= {"states": list(states), "page": page}
    rows = conn.execute(query, values).all()
    while rows:
        yield from (UndeliveredNotification(*row) for row in rows)
        values["first"] = f"{rows[-1].key}\x01"
        rows = conn.execute(query, values).all() if len(rows) == page else []


def with_key_prefix(query: str, kind: str, prefix: str) -> tuple[TextClause, dict[str, Any]]:
    """Return a query with the condition that the keys of notifications begin with a prefix.

    The condition compares code points, as the index on the keys does. The query can therefore use
    the index.

    Args:
        query: SQL with ``{}`` in place of the condition on kind and key.
        kind: kind of the notifications.
        prefix: text with which their keys begin.

    Returns:
        The query and its parameters.
    """
    end = end_of_prefix(prefix)
    limits = "kind = :kind AND key ~>=~ :first" + (" AND key ~<~ :end" if end else "")
    return text(query.format(limits)), {"kind": kind, "first": prefix, "end": end}


def end_of_prefix(prefix: str) -> str:
    """Return the smallest text that sorts after all texts which begin with a prefix.

    Texts are compared by code points. The result is empty if no such text exists.
    """
    prefix_part = prefix.rstrip(chr(_LAST))
    if not prefix_part:
        return ""
    code = ord(prefix_part[-1]) + 1
    return prefix_part[:-1] + chr(0xE000 if code == 0xD800 else code)  # surrogates are skipped
