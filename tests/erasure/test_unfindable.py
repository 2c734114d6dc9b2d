"""Entries that a replay cannot look for: it says so, and proves nothing."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import Engine

from include.erasure.ledger import ErasureKeys, settle, unsettled
from include.erasure.matching import require_same_secrets
from include.erasure.places import Place
from include.erasure.replay import Replay, Schedule, replay
from include.services.errors import ControlFailed, UsageError
from tests.erasure.test_replay import KEYS, NOW, entered, left
from tests.support.registers import unguarded


def replayed(copy: psycopg.Connection, state: Engine) -> Replay:
    places = {name: Place("public", name) for name in ("t", "later")}
    return replay(copy, "courier", places, state, KEYS, Schedule(), NOW)


def test_a_table_that_an_older_copy_lacks_is_said(
    copy: psycopg.Connection, ledger_state: Engine, empty_ledger: None
):
    """Nobody can tell here whether the table is younger or had another name: it is counted."""
    copy.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    entered(ledger_state, {"t": [["1"]], "later": [["1"], ["2"]]})
    done = replayed(copy, ledger_state)
    assert done == Replay(entries=3, replayed=1, remaining=0, skipped=("later",), not_looked_for=2)


@pytest.mark.parametrize(
    ("key", "types", "unfit"),
    [
        ("id", "whole number", 0),
        ("id", None, 0),  # entered before that was recorded
        ("id, at", "whole number", 1),
        ("id", "whole number, date", 1),
        ("at", "timestamp with time zone", 1),
    ],
)
def test_a_key_that_is_another_since_is_no_proof(
    copy: psycopg.Connection,
    ledger_state: Engine,
    empty_ledger: None,
    key: str,
    types: str | None,
    unfit: int,
):
    """No record of the copy has the name of such an entry, whether it is there or not."""
    copy.execute(f"CREATE TABLE t (id bigint, at date, PRIMARY KEY ({key}))")
    entered(ledger_state, {"t": [["1"]]}, key_types=types)
    done = replayed(copy, ledger_state)
    assert (done.entries, done.not_looked_for, done.other_keys) == (1, unfit, ("t",) * unfit)


def test_a_ledger_that_lost_entries_is_refused(
    copy: psycopg.Connection, ledger_state: Engine, empty_ledger: None
):
    """A restore would bring back the records that they name."""
    copy.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    copy.commit()
    entered(ledger_state, {"t": [["1"], ["2"]]})
    with ledger_state.begin() as conn:
        settle(conn, [one.id for one in unsettled(conn, "courier")], NOW)
        with unguarded(conn, "erasure"):
            conn.exec_driver_sql("DELETE FROM erasure WHERE ctid = (SELECT min(ctid) FROM erasure)")
    with pytest.raises(ControlFailed, match=r"lacks 1 entries that it had \(t\)"):
        replayed(copy, ledger_state)
    assert left(copy) == [1, 2]


def test_another_secret_under_the_same_id_is_refused(
    copy: psycopg.Connection, ledger_state: Engine, empty_ledger: None
):
    """No digest of it is in the ledger: a replay would find nobody, and call that proof."""
    copy.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    copy.commit()
    entered(ledger_state, {"t": [["1"]]})
    place = {"t": Place("public", "t")}
    other = ErasureKeys({**KEYS.keys, KEYS.current: b"z" * 32}, KEYS.current)
    require_same_secrets(ledger_state, KEYS, NOW)
    with pytest.raises(UsageError, match="secret"):
        replay(copy, "courier", place, ledger_state, other, Schedule(), NOW)
    assert left(copy) == [1]
