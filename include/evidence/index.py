"""The ledger as people look through it: by workflow, control, outcome and time, page by page.

Every page costs the same, however far back it lies: each workflow is walked along one index from
where the page begins, never counted off from the start.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, text

from include.evidence.ledger import LedgerRow
from include.evidence.model import Outcome

PAGE_SIZE = 50


class Order(StrEnum):
    """The order of bundles: that of the chain, which depends on no clock."""

    NEWEST = "newest"
    OLDEST = "oldest"
    WORKFLOW = "workflow"  # by name, the newest first within one


class Way(StrEnum):
    """Which side of a bundle a page lies on, as the reader sees the list."""

    AFTER = "after"
    BEFORE = "before"


@dataclass(frozen=True)
class Wanted:
    """A filter of bundles.

    Attributes:
        workflows: names as the ledger has them (`dag_id`); no others are found.
        controls: any of these ids; None where every bundle is wanted.
        outcome: only of this outcome; None for all.
        since: sealed at this moment or later.
        until: sealed before this moment.
    """

    workflows: frozenset[str]
    controls: frozenset[str] | None = None
    outcome: Outcome | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Page:
    """Some bundles in their order, and whether there are others on either side."""

    rows: Sequence[LedgerRow]
    before: bool
    after: bool


# A recursive walk from name to name: an index is asked once per workflow, not once per bundle.
_WORKFLOWS = text("""
WITH RECURSIVE known (dag_id) AS (
    SELECT min(dag_id) FROM evidence_ledger
    UNION ALL
    SELECT (SELECT min(dag_id) FROM evidence_ledger AS next WHERE next.dag_id > known.dag_id)
    FROM known WHERE known.dag_id IS NOT NULL
)
SELECT dag_id FROM known WHERE dag_id IS NOT NULL
""")

_CONDITIONS = """
    l.dag_id = w.dag_id
    AND (CAST(:outcome AS text) IS NULL OR l.outcome = :outcome)
    AND (CAST(:since AS timestamptz) IS NULL OR l.sealed_at >= :since)
    AND (CAST(:until AS timestamptz) IS NULL OR l.sealed_at < :until)
"""
# Only where it is asked for: with it every candidate's row is read, without it the index is enough.
# The concatenation keeps the index of controls out, which would find all bundles before sorting a
# page's worth of them.
_OF_CONTROLS = " AND (l.controls || '{}') && CAST(:controls AS text[])"


def workflows(conn: Connection) -> list[str]:
    """Return every name under which a bundle was sealed, sorted by the database's collation."""
    return list(conn.scalars(_WORKFLOWS))


def controls_of(conn: Connection) -> dict[str, frozenset[str]]:
    """Return of which controls the bundles of each workflow ever were evidence; reads all rows."""
    query = text("SELECT dag_id, controls FROM evidence_ledger GROUP BY dag_id, controls")
    found: dict[str, frozenset[str]] = {}
    for dag_id, controls in conn.execute(query):
        found[dag_id] = found.get(dag_id, frozenset()) | frozenset(controls)
    return found


def end(conn: Connection) -> tuple[int, str]:
    """Return number and digest of the bundle that was sealed last; what comes before it stays."""
    query = text("SELECT seq, sums_sha256 FROM evidence_ledger ORDER BY seq DESC LIMIT 1")
    row = conn.execute(query).one_or_none()
    return (row[0], row[1]) if row else (0, "")


def lost(conn: Connection, pruned: int) -> int:
    """Return how many bundles are missing between the first and the last that the ledger has.

    A row that was lost at the end leaves no gap: only the bundles themselves tell of it.

    Args:
        conn: the state database.
        pruned: number of the last bundle whose files were removed by rule; its row may be gone.
    """
    query = text("SELECT coalesce(max(seq), 0), count(*) FROM evidence_ledger WHERE seq > :pruned")
    last, there = conn.execute(query, {"pruned": pruned}).one()
    return int(max(0, last - pruned - there))


def count(conn: Connection, wanted: Wanted) -> int:
    """Return how many bundles there are of that kind."""
    query = f"""
SELECT count(*) FROM unnest(CAST(:workflows AS text[])) AS w (dag_id)
JOIN evidence_ledger AS l ON {_conditions(wanted)}
"""  # noqa: S608 - only text of this module
    return int(conn.execute(text(query), _values(wanted)).scalar_one())


def page(
    conn: Connection,
    wanted: Wanted,
    order: Order = Order.NEWEST,
    way: Way = Way.AFTER,
    from_seq: int | None = None,
    size: int = PAGE_SIZE,
) -> Page:
    """Return the bundles next to one of them.

    Args:
        conn: the state database.
        wanted: which ones.
        order: how they are sorted.
        way: on which side of it.
        from_seq: the bundle's number in the ledger. None begins at the first one, for `AFTER`, or
            ends with the last one. A number that no bundle has does the same.
        size: how many at most.
    """
    place = _place(conn, wanted, from_seq)
    found = _read(conn, wanted, order, way, place, size + 1)
    more, found = len(found) > size, found[:size]
    if way is Way.BEFORE:
        found.reverse()
    before, after = (more, place is not None) if way is Way.BEFORE else (place is not None, more)
    return Page(found, before, after)


def newest_of(
    conn: Connection, of: Collection[str], each: int, controls: Collection[str] | None = None
) -> dict[str, list[LedgerRow]]:
    """Return the newest bundles of some workflows, the newest of each first.

    Args:
        conn: the state database.
        of: names as the ledger has them.
        each: how many of each at most.
        controls: only evidence for one of these; None for any.
    """
    wanted = Wanted(frozenset(of), None if controls is None else frozenset(controls))
    query = f"""
SELECT l.* FROM unnest(CAST(:workflows AS text[])) AS w (dag_id)
CROSS JOIN LATERAL (
    SELECT l.* FROM evidence_ledger AS l WHERE {_conditions(wanted)}
    ORDER BY l.seq DESC LIMIT :size
) AS l
ORDER BY l.seq DESC
"""  # noqa: S608 - only text of this module
    found: dict[str, list[LedgerRow]] = {}
    for row in _rows(conn, query, _values(wanted) | {"size": each}):
        found.setdefault(row.dag_id, []).append(row)
    return found


@dataclass(frozen=True)
class _Place:
    dag_id: str
    seq: int


def _place(conn: Connection, wanted: Wanted, seq: int | None) -> _Place | None:
    """Where a page begins; a bundle of other workflows is as one that is not there."""
    if seq is None or not 0 < seq < 2**63:
        return None
    query = text("SELECT dag_id, seq FROM evidence_ledger WHERE seq = :seq")
    row = conn.execute(query, {"seq": seq}).one_or_none()
    return _Place(*row) if row and row.dag_id in wanted.workflows else None


def _read(
    conn: Connection,
    wanted: Wanted,
    order: Order,
    way: Way,
    place: _Place | None,
    size: int,
) -> list[LedgerRow]:
    """Bundles on one side, the nearest first."""
    # Within one workflow, and between them where the order is by time alone.
    downwards = (order is Order.OLDEST) is (way is Way.BEFORE)
    sign, direction = ("<", "DESC") if downwards else (">", "ASC")
    beyond = f"l.seq {sign} :place_seq"
    outer = f"f.seq {direction}"
    where = ""
    if place is not None and order is Order.WORKFLOW:
        side, names = (">", "ASC") if way is Way.AFTER else ("<", "DESC")
        where = f" AND (l.dag_id {side} :place_dag OR (l.dag_id = :place_dag AND {beyond}))"
        outer = f"w.dag_id {names}, {outer}"
    elif order is Order.WORKFLOW:
        outer = f"w.dag_id {'ASC' if way is Way.AFTER else 'DESC'}, {outer}"
    elif place is not None:
        where = f" AND {beyond}"
    query = f"""
SELECT l.* FROM (
    SELECT f.seq, row_number() OVER (ORDER BY {outer}) AS place
    FROM unnest(CAST(:workflows AS text[])) AS w (dag_id)
    CROSS JOIN LATERAL (
        SELECT l.seq FROM evidence_ledger AS l
        WHERE {_conditions(wanted)}{where}
        ORDER BY l.seq {direction} LIMIT :size
    ) AS f
    ORDER BY {outer} LIMIT :size
) AS chosen
JOIN evidence_ledger AS l USING (seq)
ORDER BY chosen.place
"""  # noqa: S608 - only text of this module
    values = _values(wanted) | {"size": size}
    if place is not None:
        values |= {"place_seq": place.seq, "place_dag": place.dag_id}
    return _rows(conn, query, values)


def _conditions(wanted: Wanted) -> str:
    return _CONDITIONS + (_OF_CONTROLS if wanted.controls is not None else "")


def _values(wanted: Wanted) -> dict[str, Any]:
    return {
        "workflows": sorted(wanted.workflows),
        "controls": sorted(wanted.controls or ()),
        "outcome": None if wanted.outcome is None else str(wanted.outcome),
        "since": wanted.since,
        "until": wanted.until,
    }


def _rows(conn: Connection, query: str, values: Mapping[str, Any]) -> list[LedgerRow]:
    statement = text(query)
    known = {name: value for name, value in values.items() if f":{name}" in query}
    return [LedgerRow.of(row) for row in conn.execute(statement, known).mappings()]
