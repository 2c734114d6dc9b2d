"""Looking through the ledger: the pages are the list that plain Python makes, cut into pieces."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection

from include.evidence import index
from include.evidence.index import BundleFilter, Order, Way
from include.evidence.ledger import LedgerRow
from include.evidence.model import Outcome
from include.local.postgres import EmbeddedPostgres
from include.state.connect import engine
from include.state.tables import evidence_ledger
from tests.support.databases import fresh
from tests.support.registers import UNGUARDED

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
WORKFLOWS = ("backup_offsite", "check_quality", "respond_to_incident.report-1", "审计")
CONTROLS = ("backup.offsite", "quality.held", "quality.minimal")
ROWS = 120


def row(seq: int, chance: random.Random) -> LedgerRow:
    """One bundle; several share a moment, and a clock went back now and then."""
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
    """A ledger with the rows, in a database of its own."""
    with (
        fresh(postgres, migrated_once) as name,
        engine(postgres.conninfo(name)).connect() as made,
    ):
        made.execute(evidence_ledger.insert().values([vars(one) for one in rows]))
        yield made
        made.rollback()


def fits(one: LedgerRow, wanted: BundleFilter) -> bool:
    return (
        one.dag_id in wanted.workflows
        and (wanted.controls is None or bool(wanted.controls & set(one.controls)))
        and wanted.outcome in (None, one.outcome)
        and (wanted.since is None or one.sealed_at >= wanted.since)
        and (wanted.until is None or one.sealed_at < wanted.until)
    )


def listed(rows: Sequence[LedgerRow], wanted: BundleFilter, order: Order) -> list[int]:
    """The whole list as people should see it."""
    found = [one for one in rows if fits(one, wanted)]
    found.sort(key=lambda one: one.seq, reverse=order is not Order.OLDEST)
    if order is Order.WORKFLOW:
        found.sort(key=lambda one: one.dag_id.encode())
    return [one.seq for one in found]


moments = st.none() | st.integers(0, 60).map(lambda hour: BEGIN + timedelta(hours=hour))
wishes = st.builds(
    BundleFilter,
    workflows=st.frozensets(st.sampled_from([*WORKFLOWS, "unknown"])),
    controls=st.none() | st.frozensets(st.sampled_from(CONTROLS)),
    outcome=st.none() | st.sampled_from(list(Outcome)),
    since=moments,
    until=moments,
)


@given(wanted=wishes, order=st.sampled_from(Order), size=st.integers(1, 50))
def test_walking_forth_and_back_shows_each_bundle_once_and_in_order(
    conn: Connection, rows: list[LedgerRow], wanted: BundleFilter, order: Order, size: int
) -> None:
    """Whatever is looked for, however it is sorted and cut."""
    expected = listed(rows, wanted, order)
    for way in Way:
        seen: list[int] = []
        begin = None
        for number in range(ROWS + 1):
            found = index.page(conn, wanted, order, way, begin, size)
            page = [one.seq for one in found.rows]
            assert len(page) <= size
            seen = [*seen, *page] if way is Way.AFTER else [*page, *seen]
            ahead, behind = (
                (found.after, found.before) if way is Way.AFTER else (found.before, found.after)
            )
            assert behind is (number > 0)
            if not ahead:
                break
            begin = page[-1] if way is Way.AFTER else page[0]
        assert seen == expected
    assert index.count(conn, wanted) == len(expected)


def test_a_number_that_no_bundle_has_shows_the_beginning(conn: Connection) -> None:
    """An address that somebody edited, or that is older than a restored ledger."""
    everything = BundleFilter(frozenset(WORKFLOWS))
    begin = index.page(conn, everything, size=5)
    for number in (0, -1, ROWS + 1, 2**63):
        assert index.page(conn, everything, from_seq=number, size=5) == begin


@given(gone=st.sets(st.integers(1, ROWS), max_size=9), pruned=st.integers(0, ROWS + 3))
def test_gaps_in_the_ledger_are_counted_after_the_pruned_rows(
    conn: Connection, gone: set[int], pruned: int
) -> None:
    """A row that is missing at the end leaves no gap, and neither does one that was pruned."""
    savepoint = conn.begin_nested()
    try:
        conn.exec_driver_sql(UNGUARDED)
        conn.execute(evidence_ledger.delete().where(evidence_ledger.c.seq.in_(gone)))
        last = max(set(range(1, ROWS + 1)) - gone)
        assert index.lost(conn, pruned) == len({seq for seq in gone if pruned < seq < last})
        assert index.end(conn)[0] == last
    finally:
        savepoint.rollback()


def test_every_name_of_the_ledger_is_found(conn: Connection) -> None:
    """The walk from name to name leaves none out."""
    assert sorted(index.workflows(conn)) == sorted(WORKFLOWS)


def test_each_workflow_has_the_controls_that_it_ever_was_evidence_for(
    conn: Connection, rows: list[LedgerRow]
) -> None:
    """Of all its bundles together."""
    expected: dict[str, set[str]] = {}
    for one in rows:
        expected.setdefault(one.dag_id, set()).update(one.controls)
    assert index.controls_of(conn) == expected


@given(each=st.integers(1, 12), control=st.none() | st.sampled_from(CONTROLS))
def test_the_newest_of_each_workflow(
    conn: Connection, rows: list[LedgerRow], each: int, control: str | None
) -> None:
    """As many as asked for, the newest first, of one control where asked."""
    controls = None if control is None else {control}
    found = index.newest_of(conn, WORKFLOWS, each, controls)
    for name in WORKFLOWS:
        wanted = BundleFilter(frozenset({name}), None if controls is None else frozenset(controls))
        expected = listed(rows, wanted, Order.NEWEST)[:each]
        assert [one.seq for one in found.get(name, [])] == expected


def test_an_empty_ledger_has_no_page(migrated_database: str) -> None:
    """Nothing was sealed yet: no name, no row, no other page."""
    with engine(migrated_database).connect() as conn:
        assert index.workflows(conn) == []
        found = index.page(conn, BundleFilter(frozenset(WORKFLOWS)))
        assert (list(found.rows), found.before, found.after) == ([], False, False)
        assert index.end(conn) == (0, "")
