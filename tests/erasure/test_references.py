"""References are compared as their foreign key does, in a restored copy as in the live database."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest
from sqlalchemy import Engine

from include.erasure.ledger import ErasureKeys, Origin, intend
from include.erasure.places import Place
from include.erasure.replay import Replay, Schedule, replay
from include.services.errors import ControlFailed

KEYS = ErasureKeys({"1": b"o" * 32}, "1")
NOW = datetime(2026, 11, 24, tzinfo=UTC)
COLLATED = """
CREATE TABLE t (id text COLLATE "C" PRIMARY KEY);
CREATE TABLE c (id int PRIMARY KEY, t text COLLATE "POSIX" REFERENCES t ON DELETE {action});
INSERT INTO t VALUES ('a'), ('b');
INSERT INTO c VALUES (1, 'a'), (2, 'b');
"""
# An index whose equality is not that of the type, as an operator that no path of a session finds.
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


def again(copy: psycopg.Connection, state: Engine, detach: str = "", **erased: list[str]) -> Replay:
    """Commit the copy, enter what was erased by its keys, and replay that."""
    copy.commit()
    with state.begin() as conn:
        for name, keys in erased.items():
            origin = Origin("courier", name, "delete", "c", "r", "d", "r1")
            intend(conn, KEYS, origin, [[one] for one in keys], transaction="1", server="s", at=NOW)
    detached = {"t": [detach]} if detach else {}
    places = {name: Place("public", name) for name in "tc"}
    return replay(copy, "courier", places, state, KEYS, Schedule(detached=detached), NOW)


def rows(copy: psycopg.Connection, table: str = "c") -> list[tuple[object, ...]]:
    return copy.execute(f"SELECT * FROM {table} ORDER BY 1".encode()).fetchall()


@pytest.mark.parametrize(
    ("tables", "field", "key"), [(COLLATED, "c.t", "a"), (ANY_CASE, "c.t %s", "1")]
)
def test_a_reference_is_detached_as_its_key_compares(
    copy: psycopg.Connection,
    ledger_state: Engine,
    empty_ledger: None,
    tables: str,
    field: str,
    key: str,
) -> None:
    """Between other collations, and by an operator of another schema."""
    copy.execute(tables.format(action="NO ACTION").encode())
    kept = rows(copy)[1]
    assert again(copy, ledger_state, field, t=[key]).remaining == 0
    assert rows(copy) == [(1, None), kept]
    assert len(rows(copy, "t")) == 1


@pytest.mark.parametrize(("tables", "key"), [(COLLATED, "a"), (ANY_CASE, "1")])
def test_a_cascade_is_seen_as_its_key_compares(
    copy: psycopg.Connection, ledger_state: Engine, empty_ledger: None, tables: str, key: str
) -> None:
    """Else the record that was never erased would go with the erased one, or none could go."""
    copy.execute(tables.format(action="CASCADE").encode())
    before = rows(copy)
    with pytest.raises(ControlFailed, match="c still refers to them"):
        again(copy, ledger_state, t=[key])
    assert rows(copy) == before
    assert again(copy, ledger_state, c=["1"]).remaining == 0
    assert (rows(copy), len(rows(copy, "t"))) == (before[1:], 1)


def test_a_reference_to_a_partition_is_not_detached_from_another(
    copy: psycopg.Connection, ledger_state: Engine, empty_ledger: None
) -> None:
    """A record of another partition that has the same number is not what it refers to."""
    copy.execute("""
    CREATE TABLE t (id int, code text PRIMARY KEY) PARTITION BY LIST (code);
    CREATE TABLE t1 PARTITION OF t FOR VALUES IN ('a', 'b');
    CREATE TABLE t2 PARTITION OF t DEFAULT;
    ALTER TABLE t1 ADD UNIQUE (id);
    CREATE TABLE c (id int PRIMARY KEY, t int REFERENCES t1 (id));
    INSERT INTO t VALUES (1, 'a'), (2, 'b'), (2, 'x');
    INSERT INTO c VALUES (1, 1), (2, 2);
    """)
    assert again(copy, ledger_state, "c.t", t=["a", "x"]).remaining == 0
    assert rows(copy) == [(1, None), (2, 2)]
