"""The ledger names erased records by a keyed HMAC and holds nothing else of them."""

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
    TURN,
    ErasureKeys,
    Origin,
    counted,
    entries,
    entries_by_key_types,
    erased_by_class,
    has_begun,
    intend,
    missing,
    require_all_there,
    settle,
    unsettled,
    withdraw,
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
    return {bytes(one) for one in conn.scalars(query)}


def test_records_are_found_by_collection_and_key(ledger: Connection):
    """Each entry is HMAC-SHA-256 of database, collection and key; other databases are apart."""
    enter(ledger, KEYS, [["7"], ["8"]])
    enter(ledger, KEYS, [["王", 'x"y']], collection="waybill")
    enter(ledger, KEYS, [["7"]], database="billing")
    assert entries(ledger, "courier") == {"customer": {"1": 2}, "waybill": {"1": 1}}
    digest = hmac.new(OLD, b'["courier", "customer", ["7"]]', hashlib.sha256).digest()
    assert digest in digests(ledger)
    assert KEYS.digest("1", "courier", "waybill", ["王", 'x"y']) in digests(ledger)
    assert (count(ledger, "courier"), count(ledger, "billing"), count(ledger, "x")) == (3, 1, 0)
    assert entries(ledger, "x") == {}


def test_repeating_enters_nothing_twice(ledger: Connection):
    """A run that is repeated after a crash changes nothing, and nothing to enter is fine."""
    for run_id in ("r1", "r1", "r2"):
        enter(ledger, KEYS, [["7"], ["8"]], run_id=run_id)
    enter(ledger, KEYS, [])
    assert count(ledger, "courier") == 2
    assert ledger.scalar(select(func.count()).select_from(erasure_batch)) == 1


def test_no_column_holds_the_key_or_its_plain_hash(ledger: Connection):
    """Whoever steals the ledger learns nothing: also not by hashing all phone numbers."""
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


def test_after_a_rotation_both_keys_count(ledger: Connection):
    """New entries use the current key; old ones stay findable."""
    enter(ledger, KEYS, [["7"]])
    enter(ledger, ROTATED, [["8"]])
    assert entries(ledger, "courier") == {"customer": {"1": 1, "2": 1}}
    assert digests(ledger, "1") == {ROTATED.digest("1", "courier", "customer", ["7"])}
    assert digests(ledger, "2") == {ROTATED.digest("2", "courier", "customer", ["8"])}


@pytest.mark.parametrize(
    ("keys", "current"),
    [({}, "1"), ({"1": OLD}, "2"), ({"1": b"short"}, "1"), ({"1": OLD, "2": b"x" * 31}, "1")],
)
def test_weak_and_missing_keys_are_refused(keys: dict[str, bytes], current: str):
    """A short key could be guessed; without a current one nothing can be entered."""
    with pytest.raises(UsageError, match="32 bytes"):
        ErasureKeys(keys, current)


def test_repr_shows_the_ids_and_no_key():
    """Logs print objects."""
    shown = repr(ROTATED)
    assert "1" in shown
    assert "nnnn" not in shown
    assert "oooo" not in shown


ORIGIN = Origin("courier", "customer", "delete", "customer_file", "a" * 64, "retain", "r1")
LATER = datetime(2026, 11, 25, tzinfo=UTC)


def intended(conn: Connection, record_keys: Sequence[Sequence[str]], **of: str) -> int:
    return intend(
        conn,
        KEYS,
        replace(ORIGIN, **of),  # type: ignore[arg-type]  # the names are given as text
        record_keys,
        transaction="77",
        server="s",
        at=LATER,
    )


def test_a_batch_is_open_until_it_is_settled(ledger: Connection):
    """Its entries count from the beginning; the run's figures only when it is settled."""
    batch = intended(ledger, [["1"], ["2"], ["2"]])
    other = intended(ledger, [["1"]], action="mask")
    (one, two) = unsettled(ledger, "courier")
    assert (one.id, one.origin, one.transaction, one.server) == (batch, ORIGIN, "77", "s")
    assert (two.id, two.origin.action) == (other, "mask")
    assert (count(ledger, "courier"), counted(ledger, "retain", "r1")) == (3, {})
    settle(ledger, [batch, other], LATER)
    settle(ledger, [batch], datetime(2027, 1, 1, tzinfo=UTC))
    settle(ledger, [], LATER)
    assert unsettled(ledger, "courier") == []
    assert counted(ledger, "retain", "r1") == {
        ("courier", "customer_file", "delete"): 2,
        ("courier", "customer_file", "mask"): 1,
    }
    assert set(ledger.scalars(select(erasure_batch.c.settled_at))) == {LATER}


def test_a_withdrawn_batch_leaves_nothing(ledger: Connection):
    """One that is settled cannot be withdrawn any more."""
    kept, gone = intended(ledger, [["1"]]), intended(ledger, [["1"], ["2"]])
    assert gone != kept
    withdraw(ledger, gone)
    assert (count(ledger, "courier"), [one.id for one in unsettled(ledger, "courier")]) == (
        0,
        [kept],
    )
    settled = intended(ledger, [["3"]])
    settle(ledger, [settled], LATER)
    withdraw(ledger, settled)
    assert count(ledger, "courier") == 1


def test_an_entry_stays_with_the_settled_batch_that_was_first(ledger: Connection):
    """One of an open batch moves: if its transaction had committed, the record were not there."""
    first = intended(ledger, [["1"]])
    settle(ledger, [first], LATER)
    left_open = intended(ledger, [["1"], ["2"]])
    last = intended(ledger, [["1"], ["2"], ["3"]])
    withdraw(ledger, left_open)
    settle(ledger, [last], LATER)
    found = ledger.execute(
        select(erasure.c.batch_id, func.count()).group_by(erasure.c.batch_id)
    ).fetchall()
    assert sorted(map(tuple, found)) == [(first, 1), (last, 2)]


def test_one_known_key_among_hundreds_costs_none_of_the_others(ledger: Connection):
    """What is entered without a look is entered again with one, in the same transaction."""
    first = intended(ledger, [["150"]])
    settle(ledger, [first], LATER)
    ledger.commit()
    last = intended(ledger, [[str(n)] for n in range(200)])
    found = ledger.execute(
        select(erasure.c.batch_id, func.count()).group_by(erasure.c.batch_id)
    ).fetchall()
    assert sorted(map(tuple, found)) == [(first, 1), (last, 199)]
    ledger.rollback()
    assert count(ledger, "courier") == 1


NAMES = ("a", "b", "c")
BATCHES = st.tuples(*[st.sampled_from(NAMES)] * 4, st.booleans(), st.integers(1, 3))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(BATCHES, max_size=6))
def test_figures_are_of_one_database_and_run(
    ledger: Connection, batches: list[tuple[str, str, str, str, bool, int]]
) -> None:
    """Names before and after it in the alphabet have figures of their own."""
    expected: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    of_run: dict[tuple[str, str, str], int] = Counter()
    begun, still_open, entered = set(), defaultdict(list), iter(range(100))
    for database, collection, dag_id, run_id, settled, records in batches:
        names = {"database": database, "collection": collection, "dag_id": dag_id}
        keys = [[str(next(entered))] for _ in range(records)]
        batch = intended(ledger, keys, **names, run_id=run_id)
        expected[database, collection]["1"] += records
        begun.add((database, dag_id, run_id))
        if settled:
            settle(ledger, [batch], LATER)
            of_run[database, dag_id, run_id] += records
        else:
            still_open[database].append(batch)
    for database in NAMES:
        of = {name: keys for (where, name), keys in expected.items() if where == database}
        assert entries(ledger, database) == of
        assert count(ledger, database) == sum(keys["1"] for keys in of.values())
        assert [one.id for one in unsettled(ledger, database)] == still_open[database]
        assert missing(ledger, database) == {}
        for collection in NAMES:
            types = entries_by_key_types(ledger, database, collection)
            assert types.get(None, 0) == expected[database, collection]["1"]
        for dag_id, run_id in itertools.product(NAMES, NAMES):
            records = of_run.get((database, dag_id, run_id), 0)
            by_class = erased_by_class(ledger, database, dag_id, run_id)
            assert by_class == ({"customer_file": records} if records else {})
            assert has_begun(ledger, database, dag_id, run_id) == (
                (database, dag_id, run_id) in begun
            )
    ledger.rollback()


def test_entry_that_was_moved_to_another_batch_is_missing_in_its_own(ledger: Connection) -> None:
    """A batch with an entry too many does not make up for the batch that lacks it."""
    first, second = intended(ledger, [["1"], ["2"]]), intended(ledger, [["3"]])
    settle(ledger, [first, second], LATER)
    require_all_there(ledger, "courier")
    entry = select(erasure.c.key_hmac).where(erasure.c.batch_id == first).limit(1)
    with unguarded(ledger, "erasure"):
        ledger.execute(
            update(erasure)
            .where(erasure.c.key_hmac == entry.scalar_subquery())
            .values(batch_id=second)
        )
    assert missing(ledger, "courier") == {"customer": 1}
    assert missing(ledger, "billing") == {}
    with pytest.raises(ControlFailed, match="lacks 1 entries"):
        require_all_there(ledger, "courier")


def test_nothing_is_entered_when_the_caller_rolls_back(ledger: Connection):
    """The ledger's transaction is the caller's, although the entries come by COPY."""
    intended(ledger, [["1"]])
    ledger.rollback()
    assert (count(ledger, "courier"), unsettled(ledger, "courier")) == (0, [])


PART = st.text(st.characters(blacklist_categories=["Cs"]), max_size=5)


@given(
    names=st.lists(
        st.tuples(PART, PART, st.lists(PART, min_size=1, max_size=3).map(tuple)),
        min_size=2,
        max_size=2,
        unique=True,
    )
)
def test_different_records_have_different_names(
    names: list[tuple[str, str, tuple[str, ...]]],
):
    """No way of cutting database, collection and key parts gives the name of another record."""
    digests = {KEYS.digest("1", *name) for name in names}
    assert len(digests) == 2


def test_composite_keys_do_not_run_together():
    """("a", "bc") is not ("ab", "c")."""
    parts = [["a", "bc"], ["ab", "c"], ["abc"], ["abc", ""], ["", "abc"], ['a", "bc']]
    digests = [KEYS.digest("1", "d", "c", one) for one in parts]
    assert all(one != other for one, other in itertools.combinations(digests, 2))


def test_others_get_the_processor_while_many_keys_are_digested(monkeypatch: pytest.MonkeyPatch):
    """A batch of thousands at once would keep a core from whoever wakes up on it."""
    turns: list[None] = []
    monkeypatch.setattr(os, "sched_yield", lambda: turns.append(None))
    KEYS.digests("1", "courier", "customer", [(str(one),) for one in range(3 * TURN + 1)])
    assert len(turns) == 3
