"""Tests that a replay erases the records of the ledger again in a restored copy."""

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
from include.erasure.ledger import Action, ErasureKeys, Origin, open_batch
from include.erasure.masks import Mask
from include.erasure.replay import ReplayResult, ReplayRules, replay, require_erased
from include.erasure.tables import TableName, require_primary_key
from include.services.errors import ControlFailed, ServiceError, UsageError

KEYS = ErasureKeys({"1": b"o" * 32, "2": b"n" * 32}, "2")
NOW = datetime(2026, 11, 24, tzinfo=UTC)
SECRET = "王小明13800138000"


def enter_erasures(
    state: Engine,
    erased: Mapping[str, Sequence[Sequence[str]]],
    keys: ErasureKeys = KEYS,
    action: Action = "delete",
    record_class: str = "c",
    key_types: str | None = None,
) -> None:
    """Write erasures to the ledger as an open batch for each collection."""
    with state.begin() as conn:
        for name, record_keys in erased.items():
            origin = Origin("courier", name, action, record_class, "r", "d", "r1", key_types)
            open_batch(conn, keys, origin, record_keys, transaction="1", server="s", at=NOW)


@pytest.fixture
def replayed(
    copy: psycopg.Connection, ledger_state: Engine, empty_ledger: None
) -> Callable[..., ReplayResult]:
    """A function that writes deletions to the ledger and replays the ledger."""

    def run(
        erased: Mapping[str, Sequence[Sequence[str]]],
        *,
        masks: Mapping[str, Mask] | None = None,
        keys: ErasureKeys = KEYS,
        **table_names: TableName,
    ) -> ReplayResult:
        enter_erasures(ledger_state, erased)
        tables = {name: TableName("public", name) for name in (*"tcd", *erased)} | table_names
        return replay(copy, "courier", tables, ledger_state, keys, ReplayRules(masks or {}), NOW)

    return run


def left(copy: psycopg.Connection, table: str = "t") -> list[Any]:
    rows = copy.execute(sql.SQL("SELECT * FROM {} ORDER BY 1").format(sql.Identifier(table)))
    return [row[0] for row in rows]


def test_replay_erases_records_of_the_erasure_ledger_and_commits_the_transaction(
    copy: psycopg.Connection, replayed: Callable[..., ReplayResult]
):
    """Records that do not exist in the copy are not counted as replayed."""
    copy.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 9)")
    result = replayed({"t": [["2"], ["5"], ["77"]]})
    assert result == ReplayResult(entries=3, replayed=2, remaining=0)
    copy.rollback()
    assert left(copy) == [1, 3, 4, 6, 7, 8, 9]
    assert replayed({"t": [["2"], ["5"], ["77"]]}) == ReplayResult(3, 0, 0)


def test_replay_of_empty_ledger_changes_nothing(replayed: Callable[..., ReplayResult]):
    assert replayed({}) == ReplayResult(0, 0, 0)


def test_replay_erases_records_in_foreign_key_cycles(
    copy: psycopg.Connection, replayed: Callable[..., ReplayResult]
):
    copy.execute(
        """CREATE TABLE a (id int PRIMARY KEY, b int);
        CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a, up int REFERENCES b);
        INSERT INTO a SELECT n, NULL FROM generate_series(1, 5) n;
        INSERT INTO b SELECT n, n, nullif(n - 1, 0) FROM generate_series(1, 5) n;
        UPDATE a SET b = id; ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b;"""
    )
    result = replayed({"a": [["4"], ["5"]], "b": [["4"], ["5"]]})
    assert (result.replayed, result.remaining) == (4, 0)
    assert left(copy, "a") == left(copy, "b") == [1, 2, 3]


@pytest.mark.parametrize(
    "option", ["", "ON DELETE RESTRICT", "DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED"]
)
def test_replay_fails_and_changes_nothing_if_unerased_record_refers_to_erased_record(
    copy: psycopg.Connection, replayed: Callable[..., ReplayResult], option: str
):
    """The error names the table and the constraint, but no key of a record."""
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
    with_referring = {"t": [[SECRET], ["x"]], "c": [["1"]]}
    assert replayed(with_referring).remaining == 0


def test_foreign_key_with_on_delete_set_null_is_null_after_replay_erases_the_record(
    copy: psycopg.Connection, replayed: Callable[..., ReplayResult]
):
    copy.execute(
        """CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2);
        CREATE TABLE kept (id int, t int REFERENCES t ON DELETE SET NULL);
        INSERT INTO kept VALUES (1, 1), (2, 2);"""
    )
    assert replayed({"t": [["1"]]}).remaining == 0
    assert copy.execute("SELECT * FROM kept ORDER BY id").fetchall() == [(1, None), (2, 2)]


def test_replay_fails_if_cascade_would_delete_unerased_record(
    copy: psycopg.Connection, replayed: Callable[..., ReplayResult]
):
    """The live database moved the unerased record to another parent after the backup."""
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


def test_replay_fails_if_a_cascade_between_partitions_would_delete_a_record_that_was_not_erased(
    copy: psycopg.Connection, replayed: Callable[..., ReplayResult]
):
    """The foreign key is defined on the partitioned table or on a single partition."""
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


def test_replay_erases_records_by_composite_keys_in_the_column_order_of_the_primary_key(
    copy: psycopg.Connection, replayed: Callable[..., ReplayResult]
):
    """The order of the columns in the table does not matter.

    INCLUDE columns are not part of the key.
    """
    copy.execute(
        """CREATE SCHEMA "Sch ema";
        CREATE TABLE "Sch ema"."Ta""b 表" ("Ke'y" text, extra text, "N r" int,
            PRIMARY KEY ("N r", "Ke'y") INCLUDE (extra));
        INSERT INTO "Sch ema"."Ta""b 表" VALUES ('a', 'x', 1), ('1', 'y', 2), ('a', 'z', 2),
            (E'q"\\'\\\\\\t\\n', 'w', 3), ('', 'v', 4), ('\\N', 'u', 5);"""
    )
    table = TableName("Sch ema", 'Ta"b 表')
    assert require_primary_key(copy, table) == ["N r", "Ke'y"]
    keys = [["2", "a"], ["3", "q\"'\\\t\n"], ["4", ""], ["5", "\\N"], ["1", "1"]]
    result = replayed({"odd": keys}, odd=table)
    assert (result.entries, result.replayed, result.remaining) == (5, 4, 0)
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
def test_replay_erases_records_with_any_primary_key_type_under_any_session_settings(
    copy: psycopg.Connection, replayed: Callable[..., ReplayResult], kind: str, value: str, key: str
):
    copy.execute(f"CREATE TABLE t (id {kind} PRIMARY KEY); INSERT INTO t VALUES ('{value}')")
    for setting in (
        "datestyle = 'German, DMY'",
        "timezone = 'Asia/Shanghai'",
        "intervalstyle = 'sql_standard'",
        "bytea_output = 'escape'",
        "extra_float_digits = -15",
    ):
        copy.execute(f"SET {setting}")
    assert replayed({"t": [[key]]}) == ReplayResult(1, 1, 0)
    assert left(copy) == []


def test_replay_erases_rows_in_all_partitions(
    copy: psycopg.Connection, replayed: Callable[..., ReplayResult]
):
    copy.execute(
        """CREATE TABLE t (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE t1 PARTITION OF t FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
        CREATE TABLE t2 PARTITION OF t DEFAULT;
        INSERT INTO t VALUES (1, '2026-01-05'), (1, '2026-03-05'), (2, '2026-03-05');"""
    )
    result = replayed({"t": [["1", "2026-01-05"], ["1", "2026-03-05"]]})
    assert (result.replayed, result.remaining, left(copy)) == (2, 0, [2])


def test_replay_after_key_rotation_erases_records_of_the_old_and_the_new_hmac_key(
    copy: psycopg.Connection, ledger_state: Engine, replayed: Callable[..., ReplayResult]
):
    """If the old key is missing, the replay raises an error before any change."""
    copy.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2), (3)")
    copy.commit()
    enter_erasures(ledger_state, {"t": [["1"]]}, ErasureKeys(KEYS.keys, "1"))
    only_new = ErasureKeys({"2": KEYS.keys["2"]}, "2")
    with pytest.raises(UsageError, match="missing in the configuration: 1"):
        replayed({"t": [["2"]]}, keys=only_new)
    assert left(copy) == [1, 2, 3]
    enter_erasures(ledger_state, {"t": [["2"]]}, ErasureKeys(KEYS.keys, "2"))
    assert replayed({}) == ReplayResult(entries=2, replayed=2, remaining=0)
    assert left(copy) == [3]


def test_replay_fails_if_a_table_has_no_data_map_or_no_primary_key(
    copy: psycopg.Connection, ledger_state: Engine, replayed: Callable[..., ReplayResult]
):
    copy.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
    result = replayed({"t": [["1"]]})
    assert (result.unsearchable_entries, result.other_keys) == (1, ("t",))
    with pytest.raises(ControlFailed, match="could not be searched"):
        require_erased(result)
    with pytest.raises(UsageError, match="the collection t, which is not in the data map"):
        replay(copy, "courier", {}, ledger_state, KEYS, ReplayRules(), NOW)


def test_replay_reports_records_that_were_not_deleted(
    copy: psycopg.Connection, replayed: Callable[..., ReplayResult], monkeypatch: pytest.MonkeyPatch
):
    copy.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    monkeypatch.setattr(module, "erase_staged", lambda *_: None)
    result = replayed({"t": [["1"], ["2"]]})
    assert (result.remaining, result.rows_with_erased_keys) == (2, {"public.t": 2})


def test_replay_error_contains_no_values_of_copy(
    copy: psycopg.Connection, ledger_state: Engine, replayed: Callable[..., ReplayResult]
):
    """PostgreSQL's message about a violated CHECK constraint contains the values of the row."""
    copy.execute(
        f"""CREATE FUNCTION forbid(name text) RETURNS bool LANGUAGE plpgsql AS
            'BEGIN IF name LIKE ''%**'' THEN RAISE EXCEPTION ''{SECRET} stays''; END IF;
            RETURN true; END';
        CREATE TABLE t (id int PRIMARY KEY, name text CHECK (forbid(name)));
        INSERT INTO t VALUES (1, '王小明');"""
    )
    copy.commit()
    enter_erasures(ledger_state, {"t": [["1"]]}, action="mask")
    with pytest.raises(ServiceError, match="cannot be masked again") as error:
        replayed({}, masks={"c": MASK})
    assert SECRET not in str(error.value)
    assert error.value.__suppress_context__
    assert copy.execute("SELECT name FROM t").fetchall() == [("王小明",)]


def test_replay_fails_if_row_security_hides_rows(
    copy: psycopg.Connection, replayed: Callable[..., ReplayResult], database: str
):
    """A replay by a role that reads only some rows would prove nothing."""
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


def test_replay_masks_records_again_that_are_unmasked_in_the_restored_copy(
    copy: psycopg.Connection, ledger_state: Engine, replayed: Callable[..., ReplayResult]
):
    """A record that was first masked and later deleted is deleted again."""
    copy.execute(
        """CREATE TABLE t (id int PRIMARY KEY, name text, masked_at timestamptz);
        INSERT INTO t VALUES (1, '王小明', NULL), (2, '李四', NULL), (3, '赵**', '2026-01-01+00'),
            (4, '王五', '2026-01-01+00'), (5, '孙', NULL);"""
    )
    enter_erasures(ledger_state, {"t": [["2"], ["3"], ["4"], ["5"], ["77"]]}, action="mask")
    result = replayed({"t": [["5"]]}, masks={"c": MASK})
    assert result == ReplayResult(entries=6, replayed=1, remaining=0, remasked=2)
    rows = copy.execute("SELECT id, name, masked_at IS NULL FROM t ORDER BY id").fetchall()
    assert rows == [(1, "王小明", True), (2, "李**", False), (3, "赵**", False), (4, "王**", False)]


def test_replay_reports_records_that_were_not_masked(
    copy: psycopg.Connection,
    ledger_state: Engine,
    replayed: Callable[..., ReplayResult],
    monkeypatch: pytest.MonkeyPatch,
):
    copy.execute("CREATE TABLE t (id int PRIMARY KEY, name text); INSERT INTO t VALUES (1, '王五')")
    enter_erasures(ledger_state, {"t": [["1"]]}, action="mask")
    monkeypatch.setattr(module, "mask_again", lambda *_: 0)
    assert replayed({}, masks={"c": MASK}) == ReplayResult(1, 0, 1)


def test_replay_fails_if_record_class_of_masked_records_has_no_mask(
    copy: psycopg.Connection, ledger_state: Engine, replayed: Callable[..., ReplayResult]
):
    """If the copy has no record of the record class, the replay does not need the mask."""
    copy.execute("CREATE TABLE t (id int PRIMARY KEY, name text); INSERT INTO t VALUES (1, '王五')")
    copy.commit()
    enter_erasures(ledger_state, {"t": [["2"]]}, action="mask", record_class="old")
    assert replayed({}) == ReplayResult(1, 0, 0)
    enter_erasures(ledger_state, {"t": [["1"]]}, action="mask", record_class="old")
    with pytest.raises(UsageError, match="class old were masked"):
        replayed({})


def test_replay_erases_all_records_if_it_reads_their_keys_in_several_chunks(
    copy: psycopg.Connection, replayed: Callable[..., ReplayResult], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(matching, "CHUNK", 7)
    copy.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 50)")
    result = replayed({"t": [[str(n)] for n in range(1, 51, 2)]})
    assert result == ReplayResult(25, 25, 0)
    assert left(copy) == list(range(2, 51, 2))
