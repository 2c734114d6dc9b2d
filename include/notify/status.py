"""The status of all notices whose keys have a common prefix, such as those of an incident."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, TextClause, text

_UNTOLD = ("undeliverable", "in_doubt", "withdrawn")
_LAST = 0x10FFFF
_COUNTS = "SELECT state, cause, count(*) FROM notice WHERE {} GROUP BY state, cause ORDER BY 1, 2"
_MOMENTS = (
    "SELECT min(settled_at) FILTER (WHERE state = 'sent') AS sent, max(settled_at) AS last"
    " FROM notice WHERE {}"
)
_UNREACHED = "SELECT count(*) FROM notice WHERE {} AND state = ANY(:states) AND settled_at > :since"
_PAGE = (
    "SELECT key, recipient, state, cause FROM notice WHERE {} AND state = ANY(:states)"
    " ORDER BY key USING ~<~ LIMIT :page"
)


@dataclass(frozen=True)
class Untold:
    """A notice that did not reach its recipient, or may not have.

    Attributes:
        state: ``undeliverable``, ``in_doubt``, ``withdrawn``; ``pending`` where that was asked for.
        cause: as `include.notify.notice` has them; empty of one that waits.
    """

    key: str
    recipient: str
    state: str
    cause: str


def statuses(conn: Connection, kind: str, prefix: str) -> Mapping[tuple[str, str], int]:
    """Return how many notices of a kind are in which state, and why.

    Args:
        conn: the state database.
        kind: of the notices.
        prefix: with which their keys begin: ``INC-2026-0001/``.

    Returns:
        By state and cause (``("undeliverable", "refused 550 5.1.1")``, ``("sent", "")``).
    """
    query, values = alike(_COUNTS, kind, prefix)
    return {(state, cause): count for state, cause, count in conn.execute(query, values)}


def first_sent(conn: Connection, kind: str, prefix: str) -> datetime | None:
    """Return when the first notice of a kind left, whenever anybody looks; None where none did.

    Args:
        conn: the state database.
        kind: of the notices.
        prefix: with which their keys begin.
    """
    query, values = alike(_MOMENTS, kind, prefix)
    moment: datetime | None = conn.execute(query, values).one().sent
    return moment


def last_settled(conn: Connection, kind: str, prefix: str) -> datetime | None:
    """Return when the last notice of a kind that does not wait any more left, or was given up.

    Args:
        conn: the state database.
        kind: of the notices.
        prefix: with which their keys begin.

    Returns:
        None where there is none, or all of them wait.
    """
    query, values = alike(_MOMENTS, kind, prefix)
    moment: datetime | None = conn.execute(query, values).one().last
    return moment


def unreached_since(conn: Connection, kind: str, prefix: str, since: datetime) -> int:
    """Return how many notices of a kind did not reach anybody, as became known after a moment.

    Args:
        conn: the state database.
        kind: of the notices.
        prefix: with which their keys begin.
        since: the moment.
    """
    query, values = alike(_UNREACHED, kind, prefix)
    found = conn.scalar(query, values | {"states": list(_UNTOLD), "since": since})
    return int(found or 0)


def undelivered(
    conn: Connection,
    kind: str,
    prefix: str,
    *,
    states: Sequence[str] = _UNTOLD,
    page: int = 1_000,
) -> Iterator[Untold]:
    """Notices of a kind that were not delivered, ordered by key; of any number, in flat memory.

    Args:
        conn: the state database.
        kind: of the notices.
        prefix: with which their keys begin.
        states: those that are wanted; ``pending`` too where one that waits counts as not told.
        page: how many are read at once.
    """
    query, values = alike(_PAGE, kind, prefix)
    values |= {"states": list(states), "page": page}
    rows = conn.execute(query, values).all()
    while rows:
        yield from (Untold(*row) for row in rows)
        values["first"] = f"{rows[-1].key}\x01"
        rows = conn.execute(query, values).all() if len(rows) == page else []


def alike(query: str, kind: str, prefix: str) -> tuple[TextClause, dict[str, Any]]:
    """A query about keys that begin so: by code points, as the index has them.

    Args:
        query: with ``{}`` where the kind and the keys are limited.
        kind: of the notices.
        prefix: with which their keys begin.

    Returns:
        The query, and the values of its limits.
    """
    end = after_all(prefix)
    limits = "kind = :kind AND key ~>=~ :first" + (" AND key ~<~ :end" if end else "")
    return text(query.format(limits)), {"kind": kind, "first": prefix, "end": end}


def after_all(prefix: str) -> str:
    """The first text, by code points, behind all that begin so; empty where none is."""
    kept = prefix.rstrip(chr(_LAST))
    if not kept:
        return ""
    code = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if code == 0xD800 else code)  # half characters are none
