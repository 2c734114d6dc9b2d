"""Pages of the ledger are compared with a list that plain Python code sorts and slices."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection

from include.evidence import index
from include.evidence.index import BundleFilter, Direction, Order
from include.evidence.ledger import LedgerRow
from include.evidence.model import Outcome
from include.local.postgres import EmbeddedPostgres
from include.state.connect import engine
from include.state.tables import evidence_ledger
from tests.support.databases import temporary_database
from tests.support.registers import UNGUARDED

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
WORKFLOWS = ("backup_offsite", "check_quality", "respond_to_incident.report-1", "审计")
CONTROLS = ("backup.offsite", "quality.held", "quality.minimal")
ROWS = 120


def row(seq: int, chance: random.Random) -> LedgerRow:
    """Return a random ledger row.

    Several rows have the same time, and the order of times may differ from that of sequence
    numbers.

    Args:
        seq: sequence number of the row.
        chance: random number generator.
    """
    sealed_at = BEGIN + timedelta(hours=chance.randrange(60))
    return LedgerRow(
        seq=seq,
        bundle=f"w/2026/01/{seq}",
        dag_id=chance.choice(WORKFLOWS),
        run_id=f"run {seq}",
        outcome=chance.choice(list(Outcome)),
        controls=chance.sample(CONTROLS, chance.randrange(3)),
        started_at=sealed_at,
        sealed_at=sealed_at,
        sums_sha256="0" * 64,
        previous_sums_sha256="",
        key_fingerprint="1" * 64,
        row_signature=b"2",
    )


@pytest.fixture(scope="module")
def rows() -> list[LedgerRow]:
    chance = random.Random(8)
    return [row(seq, chance) for seq in range(1, ROWS + 1)]


@pytest.fixture(scope="module")
def conn(
    postgres: EmbeddedPostgres, migrated_once: str, rows: list[LedgerRow]
) -> Iterator[Connection]:
    """Yield a connection to a separate database whose ledger contains the rows."""
    with (
        temporary_database(postgres, migrated_once) as name,
        engine(postgres.conninfo(name)).connect() as connection,
    ):
        connection.execute(evidence_ledger.insert().values([vars(row) for row in rows]))
        yield connection
        connection.rollback()


def fits(row: LedgerRow, bundle_filter: BundleFilter) -> bool:
    return (
        row.dag_id in bundle_filter.workflows
        and (bundle_filter.controls is None or bool(bundle_filter.controls & set(row.controls)))
        and bundle_filter.outcome in (None, row.outcome)
        and (bundle_filter.since is None or row.sealed_at >= bundle_filter.since)
        and (bundle_filter.until is None or row.sealed_at < bundle_filter.until)
    )


def listed(rows: Sequence[LedgerRow], bundle_filter: BundleFilter, order: Order) -> list[int]:
    """Return the sequence numbers of all matching rows, in the order of the pages."""
    matching = [row for row in rows if fits(row, bundle_filter)]
    matching.sort(key=lambda row: row.seq, reverse=order is not Order.OLDEST)
    if order is Order.WORKFLOW:
        matching.sort(key=lambda row: row.dag_id.encode())
    return [row.seq for row in matching]


moments = st.none() | st.integers(0, 60).map(lambda hour: BEGIN + timedelta(hours=hour))
wishes = st.builds(
    BundleFilter,
    workflows=st.frozensets(st.sampled_from([*WORKFLOWS, "unknown"])),
    controls=st.none() | st.frozensets(st.sampled_from(CONTROLS)),
    outcome=st.none() | st.sampled_from(list(Outcome)),
    since=moments,
    until=moments,
)


@given(bundle_filter=wishes, order=st.sampled_from(Order), size=st.integers(1, 50))
def test_paging_forth_and_back_shows_each_bundle_once_in_order(
    conn: Connection, rows: list[LedgerRow], bundle_filter: BundleFilter, order: Order, size: int
) -> None:
    """This holds for any filter, sort order and page size."""
    expected = listed(rows, bundle_filter, order)
    for direction in Direction:
        numbers: list[int] = []
        begin = None
        for number in range(ROWS + 1):
            result = index.page(conn, bundle_filter, order, direction, begin, size)
            page = [row.seq for row in result.rows]
            assert len(page) <= size
            numbers = [*numbers, *page] if direction is Direction.AFTER else [*page, *numbers]
            ahead, behind = (
                (result.after, result.before)
                if direction is Direction.AFTER
                else (result.before, result.after)
            )
            assert behind is (number > 0)
            if not ahead:
                break
            begin = page[-1] if direction is Direction.AFTER else page[0]
        assert numbers == expected
    assert index.count(conn, bundle_filter) == len(expected)


def test_page_from_unknown_sequence_number_is_the_first_page(conn: Connection) -> None:
    """The address of the page was edited, or is older than a restored ledger."""
    everything = BundleFilter(frozenset(WORKFLOWS))
    begin = index.page(conn, everything, size=5)
    for number in (0, -1, ROWS + 1, 2**63):
        assert index.page(conn, everything, from_seq=number, size=5) == begin


@given(gone=st.sets(st.integers(1, ROWS), max_size=9), pruned=st.integers(0, ROWS + 3))
def test_missing_row_count_returns_number_of_ledger_rows_missing_after_the_last_pruned_bundle(
    conn: Connection, gone: set[int], pruned: int
) -> None:
    """A row that is missing at the end is not counted, and neither is a pruned row."""
    savepoint = conn.begin_nested()
    try:
        conn.exec_driver_sql(UNGUARDED)
        conn.execute(evidence_ledger.delete().where(evidence_ledger.c.seq.in_(gone)))
        last = max(set(range(1, ROWS + 1)) - gone)
        assert index.missing_row_count(conn, pruned) == len(
            {seq for seq in gone if pruned < seq < last}
        )
    finally:
        savepoint.rollback()


def test_time_of_the_first_seal_is_unknown_after_the_first_ledger_row_was_pruned(
    conn: Connection, rows: list[LedgerRow]
) -> None:
    assert index.first_sealed(conn) == rows[0].sealed_at
    savepoint = conn.begin_nested()
    try:
        conn.exec_driver_sql(UNGUARDED)
        conn.execute(evidence_ledger.delete().where(evidence_ledger.c.seq == 1))
        assert index.first_sealed(conn) is None
    finally:
        savepoint.rollback()


def test_function_workflows_returns_every_workflow_name_of_the_ledger(conn: Connection) -> None:
    """The SQL query is recursive. It must not skip a name."""
    assert sorted(index.workflows(conn)) == sorted(WORKFLOWS)


def test_function_controls_of_returns_the_controls_of_all_bundles_of_each_workflow(
    conn: Connection, rows: list[LedgerRow]
) -> None:
    expected: dict[str, set[str]] = {}
    for row in rows:
        expected.setdefault(row.dag_id, set()).update(row.controls)
    assert index.controls_of(conn) == expected


@given(each=st.integers(1, 12), control=st.none() | st.sampled_from(CONTROLS))
def test_newest_bundles_of_each_workflow_are_returned(
    conn: Connection, rows: list[LedgerRow], each: int, control: str | None
) -> None:
    """The newest bundle comes first. Only bundles of the requested control are returned."""
    controls = None if control is None else {control}
    result = index.newest_of(conn, WORKFLOWS, each, controls)
    for name in WORKFLOWS:
        bundle_filter = BundleFilter(
            frozenset({name}), None if controls is None else frozenset(controls)
        )
        expected = listed(rows, bundle_filter, Order.NEWEST)[:each]
        assert [row.seq for row in result.get(name, [])] == expected


def test_page_of_empty_ledger_has_no_bundles(migrated_database: str) -> None:
    with engine(migrated_database).connect() as conn:
        assert index.workflows(conn) == []
        result = index.page(conn, BundleFilter(frozenset(WORKFLOWS)))
        assert (list(result.rows), result.before, result.after) == ([], False, False)
