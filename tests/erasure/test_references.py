"""Tests that a replay compares references as their foreign keys do in the live database."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest
from sqlalchemy import Engine

from include.erasure.ledger import ErasureKeys, Origin, open_batch
from include.erasure.replay import ReplayResult, ReplayRules, replay
from include.erasure.tables import TableName
from include.services.errors import ControlFailed

KEYS = ErasureKeys({"1": b"o" * 32}, "1")
NOW = datetime(2026, 11, 24, tzinfo=UTC)
COLLATED = """
CREATE TABLE t (id text COLLATE "C" PRIMARY KEY);
CREATE TABLE c (id int PRIMARY KEY, t text COLLATE "POSIX" REFERENCES t ON DELETE {action});
INSERT INTO t VALUES ('a'), ('b');
INSERT INTO c VALUES (1, 'a'), (2, 'b');
"""
# An index with another equality than the type's, by an operator outside of every search path.
ANY_CASE = """
CREATE SCHEMA own;
CREATE FUNCTION own.same(text, text) RETURNS bool IMMUTABLE STRICT LANGUAGE sql
  AS $$ SELECT lower($1) OPERATOR(pg_catalog.=) lower($2) $$;
CREATE FUNCTION own.cmp(text, text) RETURNS int IMMUTABLE STRICT LANGUAGE sql
  AS $$ SELECT bttextcmp(lower($1), lower($2)) $$;
CREATE OPERATOR own.= (LEFTARG = text, RIGHTARG = text, FUNCTION = own.same);
CREATE OPERATOR CLASS own.anycase FOR TYPE text USING btree AS
  OPERATOR 3 own.=, FUNCTION 1 own.cmp(text, text);
CREATE TABLE t (id int PRIMARY KEY, "no %" text);
CREATE UNIQUE INDEX ON t ("no %" own.anycase);
CREATE TABLE c (id int PRIMARY KEY, "t %s" text REFERENCES t ("no %") ON DELETE {action});
INSERT INTO t VALUES (1, 'a'), (2, 'b');
INSERT INTO c VALUES (1, 'A'), (2, 'B');
"""


def commit_and_replay(
    copy: psycopg.Connection, state: Engine, detach: str = "", **erased: list[str]
) -> ReplayResult:
    """Commit the copy, write erasures to the ledger, and replay them."""
    copy.commit()
    with state.begin() as conn:
        for name, keys in erased.items():
            origin = Origin("courier", name, "delete", "c", "r", "d", "r1")
            open_batch(
                conn, KEYS, origin, [[key] for key in keys], transaction="1", server="s", at=NOW
            )
    detached = {"t": [detach]} if detach else {}
    places = {name: TableName("public", name) for name in "tc"}
    return replay(copy, "courier", places, state, KEYS, ReplayRules(detached=detached), NOW)


def rows(copy: psycopg.Connection, table: str = "c") -> list[tuple[object, ...]]:
    return copy.execute(f"SELECT * FROM {table} ORDER BY 1".encode()).fetchall()


@pytest.mark.parametrize(
    ("tables", "field", "key"), [(COLLATED, "c.t", "a"), (ANY_CASE, "c.t %s", "1")]
)
def test_replay_compares_references_with_operator_and_collation_of_the_foreign_key(
    copy: psycopg.Connection,
    ledger_state: Engine,
    empty_ledger: None,
    tables: str,
    field: str,
    key: str,
) -> None:
    copy.execute(tables.format(action="NO ACTION").encode())
    kept = rows(copy)[1]
    assert commit_and_replay(copy, ledger_state, field, t=[key]).remaining == 0
    assert rows(copy) == [(1, None), kept]
    assert len(rows(copy, "t")) == 1


@pytest.mark.parametrize(("tables", "key"), [(COLLATED, "a"), (ANY_CASE, "1")])
def test_replay_fails_if_delete_would_cascade_over_foreign_key_with_unusual_operator_or_collation(
    copy: psycopg.Connection, ledger_state: Engine, empty_ledger: None, tables: str, key: str
) -> None:
    """An undetected cascade would delete a record that was never erased."""
    copy.execute(tables.format(action="CASCADE").encode())
    before = rows(copy)
    with pytest.raises(ControlFailed, match="c still refers to them"):
        commit_and_replay(copy, ledger_state, t=[key])
    assert rows(copy) == before
    assert commit_and_replay(copy, ledger_state, c=["1"]).remaining == 0
    assert (rows(copy), len(rows(copy, "t"))) == (before[1:], 1)


def test_replay_keeps_reference_to_a_partition_if_the_erased_record_is_in_another_partition(
    copy: psycopg.Connection, ledger_state: Engine, empty_ledger: None
) -> None:
    copy.execute("""
    CREATE TABLE t (id int, code text PRIMARY KEY) PARTITION BY LIST (code);
    CREATE TABLE t1 PARTITION OF t FOR VALUES IN ('a', 'b');
    CREATE TABLE t2 PARTITION OF t DEFAULT;
    ALTER TABLE t1 ADD UNIQUE (id);
    CREATE TABLE c (id int PRIMARY KEY, t int REFERENCES t1 (id));
    INSERT INTO t VALUES (1, 'a'), (2, 'b'), (2, 'x');
    INSERT INTO c VALUES (1, 1), (2, 2);
    """)
    assert commit_and_replay(copy, ledger_state, "c.t", t=["a", "x"]).remaining == 0
    assert rows(copy) == [(1, None), (2, 2)]
