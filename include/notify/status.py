"""What became of all notices whose keys begin alike: of one incident, of one campaign."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

_UNTOLD = ("undeliverable", "in_doubt", "withdrawn")
_LAST = 0x10FFFF
# By code points, as Python compares and the index has them, whatever the database's collation is.
_ALIKE = 'kind = :kind AND key COLLATE "C" >= :first AND (:end = \'\' OR key COLLATE "C" < :end)'
_COUNTS = text(
    f"SELECT state, cause, count(*) FROM notice WHERE {_ALIKE}"  # noqa: S608 - words of our own
    " GROUP BY state, cause ORDER BY state, cause"
)
_PAGE = text(
    f"SELECT key, recipient, state, cause FROM notice WHERE {_ALIKE}"  # noqa: S608 - ours
    ' AND state = ANY(:states) ORDER BY key COLLATE "C" LIMIT :page'
)


@dataclass(frozen=True)
class Untold:
    """A notice that did not reach its recipient, or may not have.

    Attributes:
        state: ``undeliverable``, ``in_doubt``, ``withdrawn``; ``pending`` where that was asked for.
        cause: as `include.notify.names` has them; empty of one that waits.
    """

    key: str
    recipient: str
    state: str
    cause: str


def statuses(conn: Connection, kind: str, prefix: str) -> Mapping[tuple[str, str], int]:
    """How many notices of a kind are in which state, and why.

    Args:
        conn: the state database.
        kind: of the notices.
        prefix: with which their keys begin: ``INC-2026-0001/``.

    Returns:
        By state and cause (``("undeliverable", "refused 550 5.1.1")``, ``("sent", "")``).
    """
    values = {"kind": kind, "first": prefix, "end": after_all(prefix)}
    return {(state, cause): count for state, cause, count in conn.execute(_COUNTS, values)}


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
    values: dict[str, Any] = {"kind": kind, "first": prefix, "end": after_all(prefix)}
    values |= {"states": list(states), "page": page}
    rows = conn.execute(_PAGE, values).all()
    while rows:
        yield from (Untold(*row) for row in rows)
        values["first"] = f"{rows[-1].key}\x01"
        rows = conn.execute(_PAGE, values).all() if len(rows) == page else []


def after_all(prefix: str) -> str:
    """The first text, by code points, behind all that begin so; empty where none is."""
    kept = prefix.rstrip(chr(_LAST))
    if not kept:
        return ""
    code = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if code == 0xD800 else code)  # half characters are none
