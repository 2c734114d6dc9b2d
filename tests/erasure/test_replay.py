"""Replaying the ledger on a restored copy: what was erased goes again, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine

from include.erasure import matching
from include.erasure import replay as module
from include.erasure.ledger import Action, ErasureKeys, Origin, intend
from include.erasure.masks import Mask
from include.erasure.places import Place, primary_key
from include.erasure.replay import Replay, Schedule, replay, require_erased
from include.services.errors import ControlFailed, ServiceError, UsageError

KEYS = ErasureKeys({"1": b"o" * 32, "2": b"n" * 32}, "2")
NOW = datetime(2026, 11, 24, tzinfo=UTC)
SECRET = "王小明13800138000"


def entered(
    state: Engine,
    erased: Mapping[str, Sequence[Sequence[str]]],
    keys: ErasureKeys = KEYS,
    action: Action = "delete",
    record_class: str = "c",
    key_types: str | None = None,
) -> None:
    """Enter records in a ledger that has nothing else of them, as an open batch."""
    with state.begin() as conn:
        for name, those in erased.items():
            origin = Origin("courier", name, action, record_class, "r", "d", "r1", key_types)
            intend(conn, keys, origin, those, transaction="1", server="s", at=NOW)


@pytest.fixture
def replayed(
    copy: psycopg.Connection, ledger_state: Engine, empty_ledger: None
) -> Callable[..., Replay]:
    """Replay a ledger of these deletions."""

    def run(
        erased: Mapping[str, Sequence[Sequence[str]]],
        *,
        masks: Mapping[str, Mask] | None = None,
        keys: ErasureKeys = KEYS,
        **places: Place,
    ) -> Replay:
        entered(ledger_state, erased)
        where = {**{name: Place("public", name) for name in (*"tcd", *erased)}, **places}
        return replay(copy, "courier", where, ledger_state, keys, Schedule(masks or {}), NOW)

    return run


def left(copy: psycopg.Connection, table: str = "t") -> list[Any]:
    rows = copy.execute(sql.SQL("SELECT * FROM {} ORDER BY 1").format(sql.Identifier(table)))
    return [row[0] for row in rows]


def test_erased_records_go_and_others_stay(
    copy: psycopg.Connection, replayed: Callable[..., Replay]
):
    """What the copy brought back is counted, what it never had is not; the commit is done."""
    copy.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 9)")
    done = replayed({"t": [["2"], ["5"], ["77"]]})
    assert done == Replay(entries=3, replayed=2, remaining=0)
    copy.rollback()
    assert left(copy) == [1, 3, 4, 6, 7, 8, 9]
    assert replayed({"t": [["2"], ["5"], ["77"]]}) == Replay(3, 0, 0)


def test_an_empty_ledger_does_nothing(replayed: Callable[..., Replay]):
    """And needs no place."""
    assert replayed({}) == Replay(0, 0, 0)


def test_records_that_refer_to_each_other_go_together(
    copy: psycopg.Connection, replayed: Callable[..., Replay]
):
    """Cycles of foreign keys, deferrable or not, and references to oneself."""
    copy.execute(
        """CREATE TABLE a (id int PRIMARY KEY, b int);
        CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a, up int REFERENCES b);
        INSERT INTO a SELECT n, NULL FROM generate_series(1, 5) n;
        INSERT INTO b SELECT n, n, nullif(n - 1, 0) FROM generate_series(1, 5) n;
        UPDATE a SET b = id; ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b;"""
    )
    done = replayed({"a": [["4"], ["5"]], "b": [["4"], ["5"]]})
    assert (done.replayed, done.remaining) == (4, 0)
    assert left(copy, "a") == left(copy, "b") == [1, 2, 3]


@pytest.mark.parametrize(
    "option", ["", "ON DELETE RESTRICT", "DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED"]
)
def test_a_record_that_was_never_erased_stops_it_and_nothing_changes(
    copy: psycopg.Connection, replayed: Callable[..., Replay], option: str
):
    """The table and the constraint are named, no key is; the copy stays whole."""
    copy.execute(
        f"""CREATE TABLE t (id text PRIMARY KEY); INSERT INTO t VALUES ('{SECRET}'), ('x');
        CREATE TABLE c (id int PRIMARY KEY, t text);
        ALTER TABLE c ADD CONSTRAINT belongs FOREIGN KEY (t) REFERENCES t {option};
        INSERT INTO c VALUES (1, '{SECRET}');"""
    )
    copy.commit()
    with pytest.raises(ControlFailed, match=r"c still refers to them \(belongs\)") as error:
        replayed({"t": [[SECRET], ["x"]]})
    assert SECRET not in str(error.value)
    assert len(left(copy)) == 2
    both = {"t": [[SECRET], ["x"]], "c": [["1"]]}
    assert replayed(both).remaining == 0


def test_references_that_are_set_to_null_follow_it(
    copy: psycopg.Connection, replayed: Callable[..., Replay]
):
    """The record stays, as the owner of the schema decided."""
    copy.execute(
        """CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2);
        CREATE TABLE kept (id int, t int REFERENCES t ON DELETE SET NULL);
        INSERT INTO kept VALUES (1, 1), (2, 2);"""
    )
    assert replayed({"t": [["1"]]}).remaining == 0
    assert copy.execute("SELECT * FROM kept ORDER BY id").fetchall() == [(1, None), (2, 2)]


def test_a_cascade_takes_no_record_along_that_was_never_erased(
    copy: psycopg.Connection, replayed: Callable[..., Replay]
):
    """It was moved to another parent since the backup; those that were erased too may go."""
    copy.execute(
        """CREATE TABLE t (id int PRIMARY KEY, up int REFERENCES t ON DELETE CASCADE);
        CREATE TABLE c (id int PRIMARY KEY, t int);
        CREATE TABLE d (id int PRIMARY KEY, c int REFERENCES c ON DELETE CASCADE);
        ALTER TABLE c ADD CONSTRAINT along FOREIGN KEY (t) REFERENCES t ON DELETE CASCADE;
        INSERT INTO t VALUES (1, NULL), (2, 1), (3, NULL), (4, 3);
        INSERT INTO c VALUES (1, 1), (2, 2), (3, 3), (4, NULL); INSERT INTO d VALUES (1, 1);"""
    )
    copy.commit()
    for erased, stopped in (
        ({"c": [["1"]]}, r"d still refers to them \(d_c_fkey\)"),
        ({"d": [["1"]], "t": [["1"]]}, r"t still refers to them \(t_up_fkey\)"),
        ({"t": [["2"]]}, r"c still refers to them \(along\)"),
    ):
        with pytest.raises(ControlFailed, match=stopped):
            replayed(erased)
        assert (left(copy), left(copy, "c"), left(copy, "d")) == ([1, 2, 3, 4], [1, 2, 3, 4], [1])
    assert replayed({"c": [["2"]]}).remaining == 0
    assert (left(copy), left(copy, "c"), left(copy, "d")) == ([3, 4], [3, 4], [])


def test_a_cascade_between_partitions_is_seen(
    copy: psycopg.Connection, replayed: Callable[..., Replay]
):
    """A key of the whole, and one that a single partition has."""
    copy.execute(
        """CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);
        CREATE TABLE t2 PARTITION OF t DEFAULT;
        CREATE TABLE c (id int PRIMARY KEY, t int REFERENCES t ON DELETE CASCADE)
            PARTITION BY RANGE (id);
        CREATE TABLE c1 PARTITION OF c DEFAULT;
        CREATE TABLE s (id int REFERENCES t1 ON DELETE CASCADE, PRIMARY KEY (id));
        INSERT INTO t VALUES (1), (2), (3), (11); INSERT INTO c VALUES (1, 1), (11, 11);
        INSERT INTO s VALUES (2);"""
    )
    copy.commit()
    with pytest.raises(ControlFailed, match="c still refers to them"):
        replayed({"t": [["11"]]})
    with pytest.raises(ControlFailed, match="s still refers to them"):
        replayed({"t": [["2"]], "c": [["11"]]})
    assert replayed({"s": [["2"]]}).remaining == 0
    assert (left(copy), left(copy, "c"), left(copy, "s")) == ([1, 3], [1], [])


def test_composite_quoted_and_reordered_keys(
    copy: psycopg.Connection, replayed: Callable[..., Replay]
):
    """In the order of the primary key, whatever the order of columns; included ones are no key."""
    copy.execute(
        """CREATE SCHEMA "Sch ema";
        CREATE TABLE "Sch ema"."Ta""b 表" ("Ke'y" text, extra text, "N r" int,
            PRIMARY KEY ("N r", "Ke'y") INCLUDE (extra));
        INSERT INTO "Sch ema"."Ta""b 表" VALUES ('a', 'x', 1), ('1', 'y', 2), ('a', 'z', 2),
            (E'q"\\'\\\\\\t\\n', 'w', 3), ('', 'v', 4), ('\\N', 'u', 5);"""
    )
    place = Place("Sch ema", 'Ta"b 表')
    assert primary_key(copy, place) == ["N r", "Ke'y"]
    keys = [["2", "a"], ["3", "q\"'\\\t\n"], ["4", ""], ["5", "\\N"], ["1", "1"]]
    done = replayed({"odd": keys}, odd=place)
    assert (done.entries, done.replayed, done.remaining) == (5, 4, 0)
    rows = copy.execute('SELECT extra FROM "Sch ema"."Ta""b 表" ORDER BY 1').fetchall()
    assert rows == [("x",), ("y",)]


@pytest.mark.parametrize(
    ("kind", "value", "key"),
    [
        ("timestamptz", "2026-11-24 10:00:00.5+08", "2026-11-24 02:00:00.5+00"),
        ("timestamp", "2026-11-24 10:00", "2026-11-24 10:00:00"),
        ("date", "2026-11-02", "2026-11-02"),
        ("interval", "1 day 2 hours", "P1DT2H"),
        ("numeric(10,2)", "7", "7.00"),
        ("double precision", "0.1", "0.1"),
        ("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("text", "it''s \"q\" \\ 王", 'it\'s "q" \\ 王'),
        ("char(5)", "ab", "ab"),
        ("bytea", r"\x00ff", r"\x00ff"),
        ("boolean", "t", "true"),
        ("bigint", "9223372036854775807", "9223372036854775807"),
        ("inet", "10.0.0.1", "10.0.0.1/32"),
    ],
)
def test_keys_of_every_type_are_named_the_same_whatever_the_session(
    copy: psycopg.Connection, replayed: Callable[..., Replay], kind: str, value: str, key: str
):
    """DateStyle, timezone, IntervalStyle and bytea_output of the copy's server do not matter."""
    copy.execute(f"CREATE TABLE t (id {kind} PRIMARY KEY); INSERT INTO t VALUES ('{value}')")
    for setting in (
        "datestyle = 'German, DMY'",
        "timezone = 'Asia/Shanghai'",
        "intervalstyle = 'sql_standard'",
        "bytea_output = 'escape'",
        "extra_float_digits = -15",
    ):
        copy.execute(f"SET {setting}")
    assert replayed({"t": [[key]]}) == Replay(1, 1, 0)
    assert left(copy) == []


def test_partitioned_tables_lose_their_rows_wherever_they_are(
    copy: psycopg.Connection, replayed: Callable[..., Replay]
):
    """The key of the whole finds the row in its partition."""
    copy.execute(
        """CREATE TABLE t (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE t1 PARTITION OF t FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
        CREATE TABLE t2 PARTITION OF t DEFAULT;
        INSERT INTO t VALUES (1, '2026-01-05'), (1, '2026-03-05'), (2, '2026-03-05');"""
    )
    done = replayed({"t": [["1", "2026-01-05"], ["1", "2026-03-05"]]})
    assert (done.replayed, done.remaining, left(copy)) == (2, 0, [2])


def test_entries_of_both_keys_are_replayed_after_a_rotation(
    copy: psycopg.Connection, ledger_state: Engine, replayed: Callable[..., Replay]
):
    """Old entries count as long as their key is kept; a missing key stops before anything."""
    copy.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2), (3)")
    copy.commit()
    entered(ledger_state, {"t": [["1"]]}, ErasureKeys(KEYS.keys, "1"))
    only_new = ErasureKeys({"2": KEYS.keys["2"]}, "2")
    with pytest.raises(UsageError, match="missing here: 1"):
        replayed({"t": [["2"]]}, keys=only_new)
    assert left(copy) == [1, 2, 3]
    entered(ledger_state, {"t": [["2"]]}, ErasureKeys(KEYS.keys, "2"))
    assert replayed({}) == Replay(entries=2, replayed=2, remaining=0)
    assert left(copy) == [3]


def test_what_cannot_be_found_is_refused_not_passed_over(
    copy: psycopg.Connection, ledger_state: Engine, replayed: Callable[..., Replay]
):
    """A collection that the map lost, and a table without a primary key."""
    copy.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
    done = replayed({"t": [["1"]]})
    assert (done.not_looked_for, done.other_keys) == (1, ("t",))
    with pytest.raises(ControlFailed, match="could not be looked for"):
        require_erased(done)
    with pytest.raises(UsageError, match="the collection t, which the data map lacks"):
        replay(copy, "courier", {}, ledger_state, KEYS, Schedule(), NOW)


def test_a_deletion_that_did_nothing_is_noticed(
    copy: psycopg.Connection, replayed: Callable[..., Replay], monkeypatch: pytest.MonkeyPatch
):
    """The proof does not believe the deletion."""
    copy.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    monkeypatch.setattr(module, "erase", lambda *_: None)
    done = replayed({"t": [["1"], ["2"]]})
    assert (done.remaining, done.holding) == (2, {"public.t": 2})


def test_an_error_that_the_copy_raises_is_one_line_without_values(
    copy: psycopg.Connection, ledger_state: Engine, replayed: Callable[..., Replay]
):
    """A constraint that forbids the mask, by a function with the row in its message."""
    copy.execute(
        f"""CREATE FUNCTION forbid(name text) RETURNS bool LANGUAGE plpgsql AS
            'BEGIN IF name LIKE ''%**'' THEN RAISE EXCEPTION ''{SECRET} stays''; END IF;
            RETURN true; END';
        CREATE TABLE t (id int PRIMARY KEY, name text CHECK (forbid(name)));
        INSERT INTO t VALUES (1, '王小明');"""
    )
    copy.commit()
    entered(ledger_state, {"t": [["1"]]}, action="mask")
    with pytest.raises(ServiceError, match="cannot be masked again") as error:
        replayed({}, masks={"c": MASK})
    assert SECRET not in str(error.value)
    assert error.value.__suppress_context__
    assert copy.execute("SELECT name FROM t").fetchall() == [("王小明",)]


def test_rows_hidden_by_row_level_security_are_an_error(
    copy: psycopg.Connection, replayed: Callable[..., Replay], database: str
):
    """A role that sees only some rows would prove nothing."""
    copy.execute(
        """CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);
        ALTER TABLE t ENABLE ROW LEVEL SECURITY; DROP ROLE IF EXISTS blind_of_replay;
        CREATE ROLE blind_of_replay; GRANT ALL ON t TO blind_of_replay;"""
    )
    copy.commit()
    copy.execute("SET ROLE blind_of_replay")
    with pytest.raises(ServiceError, match="cannot be read"):
        replayed({"t": [["1"]]})
    copy.rollback()
    copy.execute("RESET ROLE; DROP OWNED BY blind_of_replay; DROP ROLE blind_of_replay")
    copy.commit()


MASK = Mask({"name": "name", "phone": "phone"}, "masked_at")


def test_masked_records_are_masked_again(
    copy: psycopg.Connection, ledger_state: Engine, replayed: Callable[..., Replay]
):
    """Those of the ledger that the copy holds in clear; who was deleted too is gone."""
    copy.execute(
        """CREATE TABLE t (id int PRIMARY KEY, name text, masked_at timestamptz);
        INSERT INTO t VALUES (1, '王小明', NULL), (2, '李四', NULL), (3, '赵**', '2026-01-01+00'),
            (4, '王五', '2026-01-01+00'), (5, '孙', NULL);"""
    )
    entered(ledger_state, {"t": [["2"], ["3"], ["4"], ["5"], ["77"]]}, action="mask")
    done = replayed({"t": [["5"]]}, masks={"c": MASK})
    assert done == Replay(entries=6, replayed=1, remaining=0, remasked=2)
    rows = copy.execute("SELECT id, name, masked_at IS NULL FROM t ORDER BY id").fetchall()
    assert rows == [(1, "王小明", True), (2, "李**", False), (3, "赵**", False), (4, "王**", False)]


def test_a_masking_that_did_nothing_is_noticed(
    copy: psycopg.Connection,
    ledger_state: Engine,
    replayed: Callable[..., Replay],
    monkeypatch: pytest.MonkeyPatch,
):
    """The proof looks at what is there."""
    copy.execute("CREATE TABLE t (id int PRIMARY KEY, name text); INSERT INTO t VALUES (1, '王五')")
    entered(ledger_state, {"t": [["1"]]}, action="mask")
    monkeypatch.setattr(module, "mask_again", lambda *_: 0)
    assert replayed({}, masks={"c": MASK}) == Replay(1, 0, 1)


def test_records_of_a_class_without_mask_are_refused(
    copy: psycopg.Connection, ledger_state: Engine, replayed: Callable[..., Replay]
):
    """Nobody could say what to hide; a class whose records the copy lacks may be gone."""
    copy.execute("CREATE TABLE t (id int PRIMARY KEY, name text); INSERT INTO t VALUES (1, '王五')")
    copy.commit()
    entered(ledger_state, {"t": [["2"]]}, action="mask", record_class="old")
    assert replayed({}) == Replay(1, 0, 0)
    entered(ledger_state, {"t": [["1"]]}, action="mask", record_class="old")
    with pytest.raises(UsageError, match="class old were masked"):
        replayed({})


def test_many_records_pass_in_chunks(
    copy: psycopg.Connection, replayed: Callable[..., Replay], monkeypatch: pytest.MonkeyPatch
):
    """Every chunk is looked at, the last one too."""
    monkeypatch.setattr(matching, "CHUNK", 7)
    copy.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 50)")
    done = replayed({"t": [[str(n)] for n in range(1, 51, 2)]})
    assert done == Replay(25, 25, 0)
    assert left(copy) == list(range(2, 51, 2))
