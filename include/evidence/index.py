"""Queries for pages of evidence bundles, filtered by workflow, control, outcome and time.

A page of old bundles is read as fast as a page of new bundles. For each workflow, the database
finds the first bundle of the page with a database index, and does not read the ledger from its
first row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, text

from include.evidence.ledger import LedgerRow
from include.evidence.model import Outcome

PAGE_SIZE = 50
_SMALLEST = timedelta(microseconds=1)  # difference between two times in the ledger


class Order(StrEnum):
    """The order in which bundles are listed.

    Attributes:
        NEWEST: the bundle with the highest sequence number first. The times of the bundles do not
            matter, because a system clock may have been wrong.
        OLDEST: the bundle with the lowest sequence number first.
        WORKFLOW: by workflow name, and the newest bundle of each workflow first.
    """

    NEWEST = "newest"
    OLDEST = "oldest"
    WORKFLOW = "workflow"  # by workflow name, then the newest first


class Direction(StrEnum):
    """Whether a page contains the bundles after or before a given bundle of the sorted list."""

    AFTER = "after"
    BEFORE = "before"


@dataclass(frozen=True)
class BundleFilter:
    """A filter for bundles in the evidence ledger. A bundle has to meet all conditions.

    Attributes:
        workflows: workflow names as in the column `dag_id` of the ledger; the bundle belongs to one
            of these workflows.
        controls: control ids; the bundle is evidence for at least one of them. None for all
            bundles.
        outcome: outcome of the bundle; None for all bundles.
        since: the bundle was sealed at this time or later; None for all bundles.
        until: the bundle was sealed before this time; None for all bundles.
    """

    workflows: frozenset[str]
    controls: frozenset[str] | None = None
    outcome: Outcome | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Page:
    """A page of a sorted list of bundles.

    Attributes:
        rows: ledger rows of the bundles on the page, in the order of the list.
        before: whether the list has bundles before this page.
        after: whether the list has bundles after this page.
    """

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
# With this condition, PostgreSQL reads the table rows of all candidates; without it, the index on
# workflow and number is enough. The concatenation keeps PostgreSQL from using the index on
# controls, which would find all bundles before it sorts those of a page.
_OF_CONTROLS = " AND (l.controls || '{}') && CAST(:controls AS text[])"


def workflows(conn: Connection) -> list[str]:
    """Return the name of every workflow that has a bundle in the ledger, without duplicates."""
    return list(conn.scalars(_WORKFLOWS))


def controls_of(conn: Connection) -> dict[str, frozenset[str]]:
    """Return the control ids in the ledger rows of each workflow, by workflow name.

    The bundles of the workflow are evidence for these controls. All rows of the ledger are read.
    """
    query = text("SELECT dag_id, controls FROM evidence_ledger GROUP BY dag_id, controls")
    by_workflow: dict[str, frozenset[str]] = {}
    for dag_id, controls in conn.execute(query):
        by_workflow[dag_id] = by_workflow.get(dag_id, frozenset()) | frozenset(controls)
    return by_workflow


def first_sealed(conn: Connection) -> datetime | None:
    """Return when bundle 1 was sealed; None if the ledger has no row for it.

    The row is missing if no bundle was sealed yet, or if the row was deleted with the files of old
    bundles. In the second case, nothing states when the first bundle was sealed.
    """
    query = text("SELECT sealed_at FROM evidence_ledger WHERE seq = 1")
    moment: datetime | None = conn.scalar(query)
    return moment


def missing_row_count(conn: Connection, pruned: int) -> int:
    """Return how many rows are missing in the ledger after the row of the last pruned bundle.

    If the last rows of the ledger were deleted, they are not counted. Such a loss shows only in the
    evidence store, which still has the bundles of these rows.

    Args:
        conn: connection to the state database.
        pruned: sequence number of the last bundle whose files were pruned. Rows up to this number
            may be missing.
    """
    query = text("SELECT coalesce(max(seq), 0), count(*) FROM evidence_ledger WHERE seq > :pruned")
    last, there = conn.execute(query, {"pruned": pruned}).one()
    return int(max(0, last - pruned - there))


def count(conn: Connection, bundles: BundleFilter) -> int:
    """Return the number of bundles that match a filter."""
    query = f"""
SELECT count(*) FROM unnest(CAST(:workflows AS text[])) AS w (dag_id)
JOIN evidence_ledger AS l ON {_conditions(bundles)}
"""  # noqa: S608 - only text of this module
    return int(conn.execute(text(query), _values(bundles)).scalar_one())


def page(
    conn: Connection,
    bundles: BundleFilter,
    order: Order = Order.NEWEST,
    direction: Direction = Direction.AFTER,
    from_seq: int | None = None,
    size: int = PAGE_SIZE,
) -> Page:
    """Return a page of the bundles that match a filter, before or after a given bundle.

    Args:
        conn: connection to the state database.
        bundles: the filter.
        order: how the bundles are sorted.
        direction: whether the page contains the bundles before or after the given bundle.
        from_seq: sequence number of the given bundle. If it is None or no bundle has it, the page
            begins at the first bundle (`AFTER`) or ends with the last bundle (`BEFORE`).
        size: maximum number of bundles on the page.
    """
    start = _start(conn, bundles, from_seq)
    rows = _read(conn, bundles, order, direction, start, size + 1)
    more, rows = len(rows) > size, rows[:size]
    if direction is Direction.BEFORE:
        rows.reverse()
        return Page(rows, before=more, after=start is not None)
    return Page(rows, before=start is not None, after=more)


def newest_of(
    conn: Connection,
    of: Collection[str],
    page_size: int,
    controls: Collection[str] | None = None,
    sealed_by: datetime | None = None,
) -> dict[str, list[LedgerRow]]:
    """Return the ledger rows of the newest bundles of several workflows, by workflow name.

    The rows of a workflow are ordered from the newest to the oldest bundle.

    Args:
        conn: connection to the state database.
        of: workflow names as in the ledger.
        page_size: maximum number of bundles per workflow.
        controls: control ids; only bundles that are evidence for at least one of them are returned.
            None for all bundles.
        sealed_by: only bundles that were sealed at this time or before are returned; None for all
            bundles.
    """
    bundles = BundleFilter(
        frozenset(of),
        None if controls is None else frozenset(controls),
        until=None if sealed_by is None else sealed_by + _SMALLEST,
    )
    query = f"""
SELECT l.* FROM (
    SELECT f.seq FROM unnest(CAST(:workflows AS text[])) AS w (dag_id)
    CROSS JOIN LATERAL (
        SELECT l.seq FROM evidence_ledger AS l WHERE {_conditions(bundles)}
        ORDER BY l.seq DESC LIMIT :size
    ) AS f
) AS chosen
JOIN evidence_ledger AS l USING (seq)
ORDER BY l.seq DESC
"""  # noqa: S608 - only text of this module
    newest: dict[str, list[LedgerRow]] = {}
    for row in _rows(conn, query, _values(bundles) | {"size": page_size}):
        newest.setdefault(row.dag_id, []).append(row)
    return newest


@dataclass(frozen=True)
class _Start:
    dag_id: str
    seq: int


def _start(conn: Connection, bundles: BundleFilter, seq: int | None) -> _Start | None:
    """Return the sort keys of the bundle after or before which a page is read.

    Return None if the ledger has no such bundle or if the filter excludes its workflow.

    Args:
        conn: connection to the state database.
        bundles: the filter.
        seq: sequence number of the bundle; None for a page that begins at an end of the list.
    """
    if seq is None or not 0 < seq < 2**63:
        return None
    query = text("SELECT dag_id, seq FROM evidence_ledger WHERE seq = :seq")
    row = conn.execute(query, {"seq": seq}).one_or_none()
    return _Start(*row) if row and row.dag_id in bundles.workflows else None


def _read(
    conn: Connection,
    bundles: BundleFilter,
    order: Order,
    direction: Direction,
    start: _Start | None,
    size: int,
) -> list[LedgerRow]:
    """Return up to `size` bundles before or after a given bundle, the nearest bundle first.

    Args:
        conn: connection to the state database.
        bundles: the filter.
        order: how the bundles are sorted.
        direction: whether to return bundles before or after the given bundle.
        start: the given bundle. If it is None, begin at the first (`AFTER`) or the last bundle
            (`BEFORE`) of the sorted list.
        size: maximum number of bundles.
    """
    # Direction of the sequence numbers: within a workflow, and across workflows unless the list is
    # sorted by workflow.
    downwards = (order is Order.OLDEST) is (direction is Direction.BEFORE)
    sign, sql_order = ("<", "DESC") if downwards else (">", "ASC")
    beyond = f"l.seq {sign} :place_seq"
    outer = f"f.seq {sql_order}"
    where = ""
    if start is not None and order is Order.WORKFLOW:
        side, names = (">", "ASC") if direction is Direction.AFTER else ("<", "DESC")
        where = f" AND (l.dag_id {side} :place_dag OR (l.dag_id = :place_dag AND {beyond}))"
        outer = f"w.dag_id {names}, {outer}"
    elif order is Order.WORKFLOW:
        outer = f"w.dag_id {'ASC' if direction is Direction.AFTER else 'DESC'}, {outer}"
    elif start is not None:
        where = f" AND {beyond}"
    query = f"""
SELECT l.* FROM (
    SELECT f.seq, row_number() OVER (ORDER BY {outer}) AS place
    FROM unnest(CAST(:workflows AS text[])) AS w (dag_id)
    CROSS JOIN LATERAL (
        SELECT l.seq FROM evidence_ledger AS l
        WHERE {_conditions(bundles)}{where}
        ORDER BY l.seq {sql_order} LIMIT :size
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
