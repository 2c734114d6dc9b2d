"""Tests of records that refer to each other in a cycle: all or none of them are deleted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg.conninfo import make_conninfo

from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from tests.retention.retention_schema import OVER, YOUNG, RetentionSchema, retention_schema, rule


@pytest.fixture
def schema(postgres: EmbeddedPostgres) -> Iterator[RetentionSchema]:
    with retention_schema(postgres) as created:
        yield created


def test_records_in_a_chain_of_references_are_deleted_up_to_the_first_unexpired_record(
    schema: RetentionSchema,
) -> None:
    schema.run(f"""
    CREATE TABLE note (id int PRIMARY KEY, at date, parent int REFERENCES note);
    INSERT INTO note SELECT i, '{OVER}', nullif(i - 1, 0) FROM generate_series(1, 40) i;
    INSERT INTO note SELECT i, '{OVER}', nullif(i - 1, 100) FROM generate_series(101, 140) i;
    UPDATE note SET at = '{YOUNG}' WHERE id = 120;
    """)
    schema.rules = [rule("note")]
    plan = schema.plan()
    assert plan.of("note").to_delete == 40 + 20
    assert plan.of("note").kept_by_reference == 19
    schema.enforced()
    assert schema.keys("note") == set(range(101, 121))


def test_record_that_refers_to_itself_is_deleted(schema: RetentionSchema) -> None:
    schema.run(f"""
    CREATE TABLE staff (id int PRIMARY KEY, at date, boss int REFERENCES staff);
    INSERT INTO staff VALUES (1, '{OVER}', 1), (2, '{OVER}', 2), (3, '{YOUNG}', 2),
      (4, '{YOUNG}', 4), (5, '{OVER}', 1);
    """)
    schema.rules = [rule("staff")]
    assert schema.enforced() == {"staff": 2}
    assert schema.keys("staff") == {2, 3, 4}


def test_records_in_foreign_key_cycle_of_two_or_three_tables_are_all_deleted(
    schema: RetentionSchema,
) -> None:
    """If a record outside of the cycle refers to it, no record of the cycle is deleted."""
    schema.run(f"""
    CREATE TABLE a (id int PRIMARY KEY, at date, c int);
    CREATE TABLE b (id int PRIMARY KEY, at date, a int REFERENCES a);
    CREATE TABLE c (id int PRIMARY KEY, at date, b int REFERENCES b, a int REFERENCES a);
    ALTER TABLE a ADD FOREIGN KEY (c) REFERENCES c;
    CREATE TABLE leaf (id int PRIMARY KEY, at date, b int REFERENCES b);
    INSERT INTO a SELECT i, '{OVER}' FROM generate_series(1, 6) i;
    INSERT INTO b SELECT i, '{OVER}', i FROM generate_series(1, 6) i;
    INSERT INTO c SELECT i, '{OVER}', i, i FROM generate_series(1, 6) i;
    UPDATE a SET c = id;
    INSERT INTO leaf VALUES (1, '{YOUNG}', 1), (2, '{OVER}', 2);
    UPDATE b SET at = '{YOUNG}' WHERE id = 3;
    UPDATE c SET at = NULL WHERE id = 4;
    """)
    schema.rules = [rule("a"), rule("b"), rule("c"), rule("leaf")]
    assert schema.plan().order == (("leaf",), ("a", "b", "c"))
    assert schema.enforced() == {"a": 3, "b": 3, "c": 3, "leaf": 1}
    assert schema.keys("a") == schema.keys("b") == schema.keys("c") == {1, 3, 4}


def test_foreign_key_cycle_with_on_delete_restrict_is_deleted(schema: RetentionSchema) -> None:
    """PostgreSQL checks the foreign keys at the end of the statement."""
    _create_cycle(schema, "ON DELETE RESTRICT")
    assert schema.enforced() == {"a": 2, "b": 2, "z": 1}


def test_all_records_of_foreign_key_cycle_with_cascade_are_written_to_ledger(
    schema: RetentionSchema,
) -> None:
    _create_cycle(schema, "ON DELETE CASCADE")
    assert schema.enforced() == {"a": 2, "b": 2, "z": 1}


def test_records_in_foreign_key_cycle_are_counted_as_refused_if_trigger_refuses_deletion(
    schema: RetentionSchema,
) -> None:
    _create_cycle(schema, "")
    schema.run("""
    CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF OLD.id = 1 THEN RAISE EXCEPTION 'no'; END IF; RETURN OLD; END $$;
    CREATE TRIGGER never BEFORE DELETE ON a FOR EACH ROW EXECUTE FUNCTION never();
    """)
    counts = schema.execute(schema.plan())
    assert counts.done == schema.erased() == {"a": 1, "b": 1, "z": 1}
    assert counts.refused == {("a", "P0001"): 1, ("b", "P0001"): 1}
    assert schema.keys("a") == schema.keys("b") == {1}


def _create_cycle(schema: RetentionSchema, on_delete: str) -> None:
    """Create two tables that refer to each other, and a third table without references."""
    schema.run(f"""
    CREATE TABLE a (id int PRIMARY KEY, at date, b int);
    CREATE TABLE b (id int PRIMARY KEY, at date, a int REFERENCES a {on_delete});
    ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b {on_delete};
    CREATE TABLE z (id int PRIMARY KEY, at date);
    INSERT INTO a VALUES (1, '{OVER}'), (2, '{OVER}');
    INSERT INTO b VALUES (1, '{OVER}', 1), (2, '{OVER}', NULL);
    UPDATE a SET b = id;
    INSERT INTO z VALUES (1, '{OVER}');
    """)
    schema.rules = [rule("a"), rule("b"), rule("z")]


def test_long_chain_of_references_in_a_table_is_deleted_completely(
    schema: RetentionSchema,
) -> None:
    schema.run(f"""
    CREATE TABLE note (id int PRIMARY KEY, at date, parent int REFERENCES note);
    CREATE INDEX ON note (parent);
    INSERT INTO note SELECT i, '{OVER}', nullif(i - 1, 0) FROM generate_series(1, 1100) i;
    """)
    schema.rules = [rule("note")]
    assert schema.enforced() == {"note": 1100}


def test_record_that_database_refuses_to_delete_in_each_pass_over_cycle_is_counted_once(
    schema: RetentionSchema,
) -> None:
    schema.run(f"""
    CREATE TABLE note (id int PRIMARY KEY, at date, parent int REFERENCES note);
    INSERT INTO note SELECT i, '{OVER}', nullif(i - 1, 0) FROM generate_series(1, 30) i;
    INSERT INTO note VALUES (100, '{OVER}', NULL), (101, '{OVER}', 101);
    CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF OLD.id >= 100 THEN RAISE EXCEPTION 'no'; END IF; RETURN OLD; END $$;
    CREATE TRIGGER never BEFORE DELETE ON note FOR EACH ROW EXECUTE FUNCTION never();
    """)
    schema.rules = [rule("note")]
    counts = schema.execute(schema.plan())
    assert counts.done == schema.erased() == {"note": 30}
    assert counts.refused == {("note", "P0001"): 2}


def test_record_that_is_referenced_only_by_itself_counts_as_remaining_without_reason(
    schema: RetentionSchema,
) -> None:
    schema.run(f"""
    CREATE TABLE staff (id int PRIMARY KEY, at date, boss int REFERENCES staff);
    INSERT INTO staff VALUES (1, '{OVER}', 1);
    CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      RAISE EXCEPTION 'no'; END $$;
    CREATE TRIGGER never BEFORE DELETE ON staff FOR EACH ROW EXECUTE FUNCTION never();
    """)
    schema.rules = [rule("staff")]
    schema.execute(schema.plan())
    (left,), _orphans = schema.left()
    assert (left.referred, left.unexplained) == (0, 1)


def test_foreign_key_cycles_of_tables_with_long_chinese_names_are_deleted(
    schema: RetentionSchema,
) -> None:
    first, second = (f"{'客户信息保护' * 3}之表{each}" for each in ("一", "二"))
    schema.run(f"""
    CREATE TABLE "{first}" (id int PRIMARY KEY, at date, up int REFERENCES "{first}");
    CREATE TABLE "{second}" (id int PRIMARY KEY, at date, up int REFERENCES "{second}",
      other int REFERENCES "{first}");
    INSERT INTO "{first}" VALUES (1, '{OVER}', NULL), (2, '{OVER}', 1), (3, '{OVER}', 3);
    INSERT INTO "{second}" VALUES (1, '{OVER}', NULL, 1), (2, '{YOUNG}', 1, NULL),
      (3, '{OVER}', 2, 3);
    """)
    schema.rules = [rule(first, name="one"), rule(second, name="two")]
    assert schema.enforced() == {"one": 2, "two": 1}
    assert schema.keys(f'"{first}"') == {1}


def test_unapproved_expired_records_in_foreign_key_cycle_count_as_remaining_without_reason(
    schema: RetentionSchema,
) -> None:
    _create_three_cycles(schema)
    schema.execute(schema.plan(), allowed=["z"])
    assert _left(schema) == {"a": (1, 2), "b": (1, 2), "z": (0, 0), "leaf": (0, 0)}
    schema.hold(HoldKind.CLASS, "b")
    assert _left(schema) == {"a": (3, 0), "b": (0, 0), "z": (0, 0), "leaf": (0, 0)}


def test_remaining_record_has_a_reason_only_if_references_of_an_unexpired_record_lead_to_it(
    schema: RetentionSchema,
) -> None:
    schema.run(f"""
    CREATE TABLE note (id int PRIMARY KEY, at date, parent int REFERENCES note);
    CREATE TABLE z (id int PRIMARY KEY, at date);
    INSERT INTO note SELECT i, '{OVER}', nullif(i - 1, 0) FROM generate_series(1, 5) i;
    INSERT INTO note SELECT i, '{OVER}', nullif(i - 1, 10) FROM generate_series(11, 15) i;
    UPDATE note SET at = '{YOUNG}' WHERE id = 13;
    """)
    schema.rules = [rule("note"), rule("z")]
    schema.execute(schema.plan(), allowed=["z"])
    assert _left(schema)["note"] == (2, 5 + 2)


def test_counting_remaining_records_of_long_reference_chain_without_index_causes_no_timeout(
    schema: RetentionSchema,
) -> None:
    """The duration must grow with the number of records, not with its square."""
    schema.run(f"""
    CREATE TABLE note (id int PRIMARY KEY, at date, parent int);
    INSERT INTO note SELECT i, '{OVER}', nullif(i - 1, 0) FROM generate_series(1, 20000) i;
    ALTER TABLE note ADD FOREIGN KEY (parent) REFERENCES note;
    UPDATE note SET at = '{YOUNG}' WHERE id = 10000;
    ANALYZE note;
    """)
    schema.rules = [rule("note")]
    with schema.inspection() as inspection:
        inspection.connection.execute("SET LOCAL statement_timeout = '20s'")
        (left,) = inspection.count_remaining_expired()
    assert (left.referred, left.unexplained) == (9_999, 10_000)


def test_counting_referenced_records_of_large_table_with_small_work_mem_causes_no_timeout(
    schema: RetentionSchema,
) -> None:
    """The foreign key has no index, and its values exceed the memory of one join."""
    schema.run(f"""
    CREATE TABLE parcel (id int PRIMARY KEY, at date);
    CREATE TABLE scan (id int PRIMARY KEY, at date, parcel int);
    INSERT INTO parcel SELECT i, '{OVER}' FROM generate_series(1, 20000) i;
    INSERT INTO scan SELECT i, '{YOUNG}', 1 + i % 19990 FROM generate_series(1, 40000) i;
    ALTER TABLE scan ADD FOREIGN KEY (parcel) REFERENCES parcel;
    ANALYZE parcel, scan;
    """)
    schema.rules = [rule("parcel"), rule("scan")]
    schema.conninfo = make_conninfo(schema.conninfo, options="-c work_mem=64kB")
    with schema.inspection() as inspection:
        inspection.connection.execute("SET LOCAL statement_timeout = '20s'")
        parcels, _scans = inspection.count_remaining_expired()
    assert (parcels.referred, parcels.unexplained) == (19_990, 10)


def _left(schema: RetentionSchema) -> dict[str, tuple[int, int]]:
    """Return, by record class, the numbers of remaining referenced and unexplained records."""
    left, _orphans = schema.left()
    return {each.name: (each.referred, each.unexplained) for each in left}


def _create_three_cycles(schema: RetentionSchema) -> None:
    """Create three cycles of records. An unexpired record outside refers to the third cycle."""
    _create_cycle(schema, "")
    schema.run(f"""
    INSERT INTO a VALUES (3, '{OVER}');
    INSERT INTO b VALUES (3, '{OVER}', 3);
    UPDATE b SET a = id;
    UPDATE a SET b = id;
    CREATE TABLE leaf (id int PRIMARY KEY, at date, b int REFERENCES b);
    INSERT INTO leaf VALUES (1, '{YOUNG}', 3);
    """)
    schema.rules = [rule("a"), rule("b"), rule("z"), rule("leaf")]
