"""Pages of the evidence ledger, filtered by workflow, control, outcome and time.

Each page costs the same, also an old one: for each workflow an index is read from the page's
beginning, never from the first row.
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
    """The side of a bundle from which a page is read, in the order of the list."""

    AFTER = "after"
    BEFORE = "before"


@dataclass(frozen=True)
class BundleFilter:
    """A filter of bundles.

    Attributes:
        workflows: names as the ledger has them (`dag_id`); no others are found.
        controls: any of these ids; None where every bundle is bundles.
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
    """A page of bundles in their order, and whether there are others before and after it."""

    rows: Sequence[LedgerRow]
    before: bool
    after: bool


# A recursive walk from name to name reads an index once per workflow, not once per bundle.
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
# With it every candidate's row is read; without it the index is enough. The concatenation excludes
# the index of controls, which would find all bundles before sorting those of a page.
_OF_CONTROLS = " AND (l.controls || '{}') && CAST(:controls AS text[])"


def workflows(conn: Connection) -> list[str]:
    """Return every name under which a bundle was sealed, sorted by the database's collation."""
    return list(conn.scalars(_WORKFLOWS))


def controls_of(conn: Connection) -> dict[str, frozenset[str]]:
    """Return the controls for which bundles of each workflow were evidence; reads all rows."""
    query = text("SELECT dag_id, controls FROM evidence_ledger GROUP BY dag_id, controls")
    by_workflow: dict[str, frozenset[str]] = {}
    for dag_id, controls in conn.execute(query):
        by_workflow[dag_id] = by_workflow.get(dag_id, frozenset()) | frozenset(controls)
    return by_workflow


def end(conn: Connection) -> tuple[int, str]:
    """Return number and digest of the last bundle of the ledger; (0, "") without one."""
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


def count(conn: Connection, bundles: BundleFilter) -> int:
    """Return how many bundles there are of that kind."""
    query = f"""
SELECT count(*) FROM unnest(CAST(:workflows AS text[])) AS w (dag_id)
JOIN evidence_ledger AS l ON {_conditions(bundles)}
"""  # noqa: S608 - only text of this module
    return int(conn.execute(text(query), _values(bundles)).scalar_one())


def page(
    conn: Connection,
    bundles: BundleFilter,
    order: Order = Order.NEWEST,
    way: Way = Way.AFTER,
    from_seq: int | None = None,
    size: int = PAGE_SIZE,
) -> Page:
    """Return the bundles before or after another bundle.

    Args:
        conn: the state database.
        bundles: the filter.
        order: how they are sorted.
        way: on which side of it.
        from_seq: the bundle's number in the ledger. None begins at the first one, for `AFTER`, or
            ends with the last one. A number that no bundle has does the same.
        size: how many at most.
    """
    start = _start(conn, bundles, from_seq)
    rows = _read(conn, bundles, order, way, start, size + 1)
    more, rows = len(rows) > size, rows[:size]
    if way is Way.BEFORE:
        rows.reverse()
        return Page(rows, before=more, after=start is not None)
    return Page(rows, before=start is not None, after=more)


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
    bundles = BundleFilter(frozenset(of), None if controls is None else frozenset(controls))
    query = f"""
SELECT l.* FROM unnest(CAST(:workflows AS text[])) AS w (dag_id)
CROSS JOIN LATERAL (
    SELECT l.* FROM evidence_ledger AS l WHERE {_conditions(bundles)}
    ORDER BY l.seq DESC LIMIT :size
) AS l
ORDER BY l.seq DESC
"""  # noqa: S608 - only text of this module
    newest: dict[str, list[LedgerRow]] = {}
    for row in _rows(conn, query, _values(bundles) | {"size": each}):
        newest.setdefault(row.dag_id, []).append(row)
    return newest


@dataclass(frozen=True)
class _Start:
    dag_id: str
    seq: int


def _start(conn: Connection, bundles: BundleFilter, seq: int | None) -> _Start | None:
    """Return where a page begins; None if no bundle of the workflows has the number."""
    if seq is None or not 0 < seq < 2**63:
        return None
    query = text("SELECT dag_id, seq FROM evidence_ledger WHERE seq = :seq")
    row = conn.execute(query, {"seq": seq}).one_or_none()
    return _Start(*row) if row and row.dag_id in bundles.workflows else None


def _read(
    conn: Connection,
    bundles: BundleFilter,
    order: Order,
    way: Way,
    start: _Start | None,
    size: int,
) -> list[LedgerRow]:
    """Return the bundles on a side of another bundle, the nearest first."""
    # Within one workflow, and between them where the order is by time alone.
    downwards = (order is Order.OLDEST) is (way is Way.BEFORE)
    sign, direction = ("<", "DESC") if downwards else (">", "ASC")
    beyond = f"l.seq {sign} :place_seq"
    outer = f"f.seq {direction}"
    where = ""
    if start is not None and order is Order.WORKFLOW:
        side, names = (">", "ASC") if way is Way.AFTER else ("<", "DESC")
        where = f" AND (l.dag_id {side} :place_dag OR (l.dag_id = :place_dag AND {beyond}))"
        outer = f"w.dag_id {names}, {outer}"
    elif order is Order.WORKFLOW:
        outer = f"w.dag_id {'ASC' if way is Way.AFTER else 'DESC'}, {outer}"
    elif start is not None:
        where = f" AND {beyond}"
    query = f"""
SELECT l.* FROM (
    SELECT f.seq, row_number() OVER (ORDER BY {outer}) AS place
    FROM unnest(CAST(:workflows AS text[])) AS w (dag_id)
    CROSS JOIN LATERAL (
        SELECT l.seq FROM evidence_ledger AS l
        WHERE {_conditions(bundles)}{where}
        ORDER BY l.seq {direction} LIMIT :size
    ) AS f
    ORDER BY {outer} LIMIT :size
) AS chosen
JOIN evidence_ledger AS l USING (seq)
ORDER BY chosen.place
"""  # noqa: S608 - only text of this module
    values = _values(bundles) | {"size": size}
    if start is not None:
        values |= {"place_seq": start.seq, "place_dag": start.dag_id}
    return _rows(conn, query, values)


def _conditions(bundles: BundleFilter) -> str:
    return _CONDITIONS + (_OF_CONTROLS if bundles.controls is not None else "")


def _values(bundles: BundleFilter) -> dict[str, Any]:
    return {
        "workflows": sorted(bundles.workflows),
        "controls": sorted(bundles.controls or ()),
        "outcome": None if bundles.outcome is None else str(bundles.outcome),
        "since": bundles.since,
        "until": bundles.until,
    }


def _rows(conn: Connection, query: str, values: Mapping[str, Any]) -> list[LedgerRow]:
    statement = text(query)
    used = {name: value for name, value in values.items() if f":{name}" in query}
    return [LedgerRow.of(row) for row in conn.execute(statement, used).mappings()]
