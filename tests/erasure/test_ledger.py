"""Tests of the erasure ledger: entries are keyed HMACs and contain no values of records."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select, update

from include.erasure.ledger import (
    DIGESTS_PER_TURN,
    ErasureKeys,
    Origin,
    count_entries,
    count_entries_by_key_types,
    count_erased,
    count_erased_by_class,
    count_missing_entries,
    has_batches,
    open_batch,
    read_open_batches,
    require_complete_ledger,
    settle_batches,
    withdraw_batch,
)
from include.services.errors import ControlFailed, UsageError
from include.state.tables import erasure, erasure_batch
from tests.erasure.support import count, record
from tests.support.registers import unguarded

OLD, NEW = b"o" * 32, b"n" * 40
KEYS = ErasureKeys({"1": OLD}, "1")
ROTATED = ErasureKeys({"1": OLD, "2": NEW}, "2")


def enter(
    conn: Connection,
    keys: ErasureKeys,
    record_keys: Sequence[Sequence[str]],
    *,
    database: str = "courier",
    collection: str = "customer",
    run_id: str = "r1",
) -> None:
    record(
        conn,
        keys,
        database=database,
        collection=collection,
        record_keys=record_keys,
        record_class="customer_file",
        rule="retention",
        dag_id="retain_records",
        run_id=run_id,
        erased_at=datetime(2026, 11, 24, tzinfo=UTC),
    )


def digests(conn: Connection, key_id: str = "1") -> set[bytes]:
    query = select(erasure.c.key_hmac).where(erasure.c.key_id == key_id)
    return {bytes(digest) for digest in conn.scalars(query)}


def test_open_batch_stores_hmac_of_database_collection_and_key(ledger: Connection):
    enter(ledger, KEYS, [["7"], ["8"]])
    enter(ledger, KEYS, [["王", 'x"y']], collection="waybill")
    enter(ledger, KEYS, [["7"]], database="billing")
    assert count_entries(ledger, "courier") == {"customer": {"1": 2}, "waybill": {"1": 1}}
    digest = hmac.new(OLD, b'["courier", "customer", ["7"]]', hashlib.sha256).digest()
    assert digest in digests(ledger)
    assert KEYS.digest("1", "courier", "waybill", ["王", 'x"y']) in digests(ledger)
    assert (count(ledger, "courier"), count(ledger, "billing"), count(ledger, "x")) == (3, 1, 0)
    assert count_entries(ledger, "x") == {}


def test_open_batch_adds_no_entry_for_keys_that_the_ledger_already_has(ledger: Connection):
    """A run that is repeated after a crash adds nothing to the erasure ledger."""
    for run_id in ("r1", "r1", "r2"):
        enter(ledger, KEYS, [["7"], ["8"]], run_id=run_id)
    enter(ledger, KEYS, [])
    assert count(ledger, "courier") == 2
    assert ledger.scalar(select(func.count()).select_from(erasure_batch)) == 1


def test_ledger_entry_contains_neither_primary_key_nor_unkeyed_hash(ledger: Connection):
    """Somebody who steals the ledger learns nothing, even by hashing all phone numbers."""
    phone = "13800138000"
    enter(ledger, KEYS, [[phone]])
    row = str(ledger.execute(select(erasure, erasure_batch).join(erasure_batch)).one())
    assert phone not in row
    named = f'["courier", "customer", ["{phone}"]]'
    for text in (phone, named):
        assert hashlib.sha256(text.encode()).hexdigest() not in row
        assert repr(hashlib.sha256(text.encode()).digest())[2:-1] not in row
    other = ErasureKeys({"1": NEW}, "1")
    assert other.digest("1", "courier", "customer", [phone]) not in digests(ledger)


def test_key_rotation_keeps_ledger_entries_of_old_key(ledger: Connection):
    enter(ledger, KEYS, [["7"]])
    enter(ledger, ROTATED, [["8"]])
    assert count_entries(ledger, "courier") == {"customer": {"1": 1, "2": 1}}
    assert digests(ledger, "1") == {ROTATED.digest("1", "courier", "customer", ["7"])}
    assert digests(ledger, "2") == {ROTATED.digest("2", "courier", "customer", ["8"])}


@pytest.mark.parametrize(
    ("keys", "current"),
    [({}, "1"), ({"1": OLD}, "2"), ({"1": b"short"}, "1"), ({"1": OLD, "2": b"x" * 31}, "1")],
)
def test_erasure_keys_raise_usage_error_if_a_secret_is_too_short_or_current_key_is_missing(
    keys: dict[str, bytes], current: str
):
    with pytest.raises(UsageError, match="32 bytes"):
        ErasureKeys(keys, current)


def test_repr_of_erasure_keys_contains_key_ids_and_no_secret():
    text = repr(ROTATED)
    assert "1" in text
    assert "nnnn" not in text
    assert "oooo" not in text


ORIGIN = Origin("courier", "customer", "delete", "customer_file", "a" * 64, "retain", "r1")
LATER = datetime(2026, 11, 25, tzinfo=UTC)


def enter_open_batch(conn: Connection, record_keys: Sequence[Sequence[str]], **of: str) -> int:
    return open_batch(
        conn,
        KEYS,
        replace(ORIGIN, **of),  # type: ignore[arg-type]  # field names as text
        record_keys,
        transaction="77",
        server="s",
        at=LATER,
    )


def test_count_erased_counts_records_of_settled_batches_only(ledger: Connection):
    """Batches that are still open have entries too, but the figures of a run do not count them."""
    batch = enter_open_batch(ledger, [["1"], ["2"], ["2"]])
    other = enter_open_batch(ledger, [["1"]], action="mask")
    first, second = read_open_batches(ledger, "courier")
    assert (first.id, first.origin, first.transaction, first.server) == (batch, ORIGIN, "77", "s")
    assert (second.id, second.origin.action) == (other, "mask")
    assert (count(ledger, "courier"), count_erased(ledger, "retain", "r1")) == (3, {})
    settle_batches(ledger, [batch, other], LATER)
    settle_batches(ledger, [batch], datetime(2027, 1, 1, tzinfo=UTC))
    settle_batches(ledger, [], LATER)
    assert read_open_batches(ledger, "courier") == []
    assert count_erased(ledger, "retain", "r1") == {
        ("courier", "customer_file", "delete"): 2,
        ("courier", "customer_file", "mask"): 1,
    }
    assert set(ledger.scalars(select(erasure_batch.c.settled_at))) == {LATER}


def test_withdraw_batch_deletes_entries_unless_batch_is_settled(ledger: Connection):
    kept = enter_open_batch(ledger, [["1"]])
    withdrawn = enter_open_batch(ledger, [["1"], ["2"]])
    assert withdrawn != kept
    withdraw_batch(ledger, withdrawn)
    assert count(ledger, "courier") == 0
    assert [batch.id for batch in read_open_batches(ledger, "courier")] == [kept]
    settled = enter_open_batch(ledger, [["3"]])
    settle_batches(ledger, [settled], LATER)
    withdraw_batch(ledger, settled)
    assert count(ledger, "courier") == 1


def test_new_batch_takes_over_entries_of_open_batches_and_not_of_settled_batches(
    ledger: Connection,
):
    """If a record of an open batch still exists, the transaction of that batch did not commit."""
    first = enter_open_batch(ledger, [["1"]])
    settle_batches(ledger, [first], LATER)
    left_open = enter_open_batch(ledger, [["1"], ["2"]])
    last = enter_open_batch(ledger, [["1"], ["2"], ["3"]])
    withdraw_batch(ledger, left_open)
    settle_batches(ledger, [last], LATER)
    rows = ledger.execute(
        select(erasure.c.batch_id, func.count()).group_by(erasure.c.batch_id)
    ).fetchall()
    assert sorted(map(tuple, rows)) == [(first, 1), (last, 2)]


def test_new_batch_stores_all_keys_that_the_ledger_does_not_have_yet(ledger: Connection):
    first = enter_open_batch(ledger, [["150"]])
    settle_batches(ledger, [first], LATER)
    ledger.commit()
    last = enter_open_batch(ledger, [[str(n)] for n in range(200)])
    rows = ledger.execute(
        select(erasure.c.batch_id, func.count()).group_by(erasure.c.batch_id)
    ).fetchall()
    assert sorted(map(tuple, rows)) == [(first, 1), (last, 199)]
    ledger.rollback()
    assert count(ledger, "courier") == 1


NAMES = ("a", "b", "c")
BATCHES = st.tuples(*[st.sampled_from(NAMES)] * 4, st.booleans(), st.integers(1, 3))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(BATCHES, max_size=6))
def test_ledger_queries_count_only_entries_of_the_requested_database_and_run(
    ledger: Connection, batches: list[tuple[str, str, str, str, bool, int]]
) -> None:
    expected: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    of_run: dict[tuple[str, str, str], int] = Counter()
    begun, still_open, entered = set(), defaultdict(list), iter(range(100))
    for database, collection, dag_id, run_id, settled, records in batches:
        names = {"database": database, "collection": collection, "dag_id": dag_id}
        keys = [[str(next(entered))] for _ in range(records)]
        batch = enter_open_batch(ledger, keys, **names, run_id=run_id)
        expected[database, collection]["1"] += records
        begun.add((database, dag_id, run_id))
        if settled:
            settle_batches(ledger, [batch], LATER)
            of_run[database, dag_id, run_id] += records
        else:
            still_open[database].append(batch)
    for database in NAMES:
        of = {name: keys for (where, name), keys in expected.items() if where == database}
        assert count_entries(ledger, database) == of
        assert count(ledger, database) == sum(keys["1"] for keys in of.values())
        assert [open_.id for open_ in read_open_batches(ledger, database)] == still_open[database]
        assert count_missing_entries(ledger, database) == {}
        for collection in NAMES:
            types = count_entries_by_key_types(ledger, database, collection)
            assert types.get(None, 0) == expected[database, collection]["1"]
        for dag_id, run_id in itertools.product(NAMES, NAMES):
            records = of_run.get((database, dag_id, run_id), 0)
            by_class = count_erased_by_class(ledger, database, dag_id, run_id)
            assert by_class == ({"customer_file": records} if records else {})
            assert has_batches(ledger, database, dag_id, run_id) == (
                (database, dag_id, run_id) in begun
            )
    ledger.rollback()


def test_count_missing_entries_returns_one_if_an_entry_was_moved_to_another_batch(
    ledger: Connection,
) -> None:
    """An extra entry of one batch does not compensate for the missing entry of another batch."""
    first, second = enter_open_batch(ledger, [["1"], ["2"]]), enter_open_batch(ledger, [["3"]])
    settle_batches(ledger, [first, second], LATER)
    require_complete_ledger(ledger, "courier")
    entry = select(erasure.c.key_hmac).where(erasure.c.batch_id == first).limit(1)
    with unguarded(ledger, "erasure"):
        ledger.execute(
            update(erasure)
            .where(erasure.c.key_hmac == entry.scalar_subquery())
            .values(batch_id=second)
        )
    assert count_missing_entries(ledger, "courier") == {"customer": 1}
    assert count_missing_entries(ledger, "billing") == {}
    with pytest.raises(ControlFailed, match="lost 1 entries"):
        require_complete_ledger(ledger, "courier")


def test_open_batch_stores_nothing_if_caller_rolls_back(ledger: Connection):
    enter_open_batch(ledger, [["1"]])
    ledger.rollback()
    assert (count(ledger, "courier"), read_open_batches(ledger, "courier")) == (0, [])


PART = st.text(st.characters(blacklist_categories=["Cs"]), max_size=5)


@given(
    names=st.lists(
        st.tuples(PART, PART, st.lists(PART, min_size=1, max_size=3).map(tuple)),
        min_size=2,
        max_size=2,
        unique=True,
    )
)
def test_digests_of_different_records_differ(
    names: list[tuple[str, str, tuple[str, ...]]],
):
    digests = {KEYS.digest("1", *name) for name in names}
    assert len(digests) == 2


def test_composite_keys_with_the_same_concatenated_text_have_different_digests():
    """The keys ("a", "bc") and ("ab", "c") have different digests."""
    parts = [["a", "bc"], ["ab", "c"], ["abc"], ["abc", ""], ["", "abc"], ['a", "bc']]
    digests = [KEYS.digest("1", "d", "c", part) for part in parts]
    assert all(first != second for first, second in itertools.combinations(digests, 2))


def test_computing_many_digests_calls_sched_yield_at_regular_intervals(
    monkeypatch: pytest.MonkeyPatch,
):
    """Computing thousands of digests without a pause would block a core for other processes."""
    turns: list[None] = []
    monkeypatch.setattr(os, "sched_yield", lambda: turns.append(None))
    KEYS.digests(
        "1", "courier", "customer", [(str(number),) for number in range(3 * DIGESTS_PER_TURN + 1)]
    )
    assert len(turns) == 3
