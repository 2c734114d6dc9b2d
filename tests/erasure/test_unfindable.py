"""Tests of ledger entries whose records a replay cannot search in the copy.

They are reported and never count as proof that the records are absent.
"""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import Engine

from include.erasure.ledger import ErasureKeys, read_open_batches, settle_batches
from include.erasure.matching import require_same_secrets
from include.erasure.replay import ReplayResult, ReplayRules, replay
from include.erasure.tables import TableName
from include.services.errors import ControlFailed, UsageError
from tests.erasure.test_replay import KEYS, NOW, enter_erasures, left
from tests.support.registers import unguarded


def replayed(copy: psycopg.Connection, state: Engine) -> ReplayResult:
    tables = {name: TableName("public", name) for name in ("t", "later")}
    return replay(copy, "courier", tables, state, KEYS, ReplayRules(), NOW)


def test_replay_result_contains_the_table_that_is_missing_in_the_restored_copy(
    copy: psycopg.Connection, ledger_state: Engine, empty_ledger: None
):
    """The table may be newer than the copy, or had another name at the time of the backup."""
    copy.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    enter_erasures(ledger_state, {"t": [["1"]], "later": [["1"], ["2"]]})
    result = replayed(copy, ledger_state)
    assert result == ReplayResult(
        entries=3, replayed=1, remaining=0, skipped=("later",), unsearchable_entries=2
    )


@pytest.mark.parametrize(
    ("key", "types", "unfit"),
    [
        ("id", "whole number", 0),
        ("id", None, 0),  # from before types were recorded
        ("id, at", "whole number", 1),
        ("id", "whole number, date", 1),
        ("at", "timestamp with time zone", 1),
    ],
)
def test_replay_reports_ledger_entries_as_unsearchable_if_primary_key_types_differ(
    copy: psycopg.Connection,
    ledger_state: Engine,
    empty_ledger: None,
    key: str,
    types: str | None,
    unfit: int,
):
    copy.execute(f"CREATE TABLE t (id bigint, at date, PRIMARY KEY ({key}))")
    enter_erasures(ledger_state, {"t": [["1"]]}, key_types=types)
    result = replayed(copy, ledger_state)
    assert (result.entries, result.unsearchable_entries, result.other_keys) == (
        1,
        unfit,
        ("t",) * unfit,
    )


def test_replay_fails_if_ledger_entries_are_missing(
    copy: psycopg.Connection, ledger_state: Engine, empty_ledger: None
):
    copy.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    copy.commit()
    enter_erasures(ledger_state, {"t": [["1"], ["2"]]})
    with ledger_state.begin() as conn:
        settle_batches(conn, [batch.id for batch in read_open_batches(conn, "courier")], NOW)
        with unguarded(conn, "erasure"):
            conn.exec_driver_sql("DELETE FROM erasure WHERE ctid = (SELECT min(ctid) FROM erasure)")
    with pytest.raises(ControlFailed, match=r"lost 1 entries \(t\)"):
        replayed(copy, ledger_state)
    assert left(copy) == [1, 2]


def test_replay_fails_if_secret_of_hmac_key_changed(
    copy: psycopg.Connection, ledger_state: Engine, empty_ledger: None
):
    """With the changed secret no entry would match, so the replay would erase nothing."""
    copy.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    copy.commit()
    enter_erasures(ledger_state, {"t": [["1"]]})
    tables = {"t": TableName("public", "t")}
    other = ErasureKeys({**KEYS.keys, KEYS.current: b"z" * 32}, KEYS.current)
    require_same_secrets(ledger_state, KEYS, NOW)
    with pytest.raises(UsageError, match="secret"):
        replay(copy, "courier", tables, ledger_state, other, ReplayRules(), NOW)
    assert left(copy) == [1]
