"""Tests of cycles of records that other sessions change between the search and the deletion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from include.local.postgres import EmbeddedPostgres
from include.retention.execution import cycles
from include.retention.execution.state import ExecutionState
from tests.retention.retention_schema import OVER, YOUNG, RetentionSchema, retention_schema, rule


@pytest.fixture
def schema(postgres: EmbeddedPostgres) -> Iterator[RetentionSchema]:
    with retention_schema(postgres) as created:
        yield created


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (f"INSERT INTO note VALUES (3, '{YOUNG}', 1)", {1, 2, 3}),
        (f"UPDATE note SET at = '{YOUNG}' WHERE id = 2", {1, 2}),
        (f"INSERT INTO note VALUES (3, '{OVER}', NULL)", set()),
    ],
)
def test_record_inserted_after_search_for_cycle_is_not_deleted_by_cascade(
    schema: RetentionSchema, monkeypatch: pytest.MonkeyPatch, change: str, left: set[int]
) -> None:
    schema.run(f"""
    CREATE TABLE note (id int PRIMARY KEY, at date, parent int REFERENCES note ON DELETE CASCADE);
    INSERT INTO note VALUES (1, '{OVER}', NULL), (2, '{OVER}', 1), (9, '{OVER}', NULL);
    UPDATE note SET parent = 2 WHERE id = 1;
    """)
    schema.rules = [rule("note")]
    plan = schema.plan()
    schema.run("DELETE FROM note WHERE id = 9")  # so that the plan allows one more deletion
    real = cycles._find_cycle
    changes = [change]

    def found(state: ExecutionState, group: Sequence[str]) -> list[cycles._Part]:
        parts = real(state, group)
        if parts and changes:
            schema.run(changes.pop())
        return parts

    monkeypatch.setattr(cycles, "_find_cycle", found)
    monkeypatch.setattr(cycles, "PAUSE", 0)
    counts = schema.execute(plan)
    assert schema.keys("note") == left
    assert counts.busy == {"note": 1}
    assert counts.done == schema.erased() == ({} if left else {"note": 3})


def test_record_of_foreign_key_cycle_that_belongs_to_two_record_classes_is_deleted_once(
    schema: RetentionSchema,
) -> None:
    schema.run(f"""
    CREATE TABLE ring (id int PRIMARY KEY, at date, next int REFERENCES ring DEFERRABLE);
    BEGIN; SET CONSTRAINTS ALL DEFERRED;
    INSERT INTO ring VALUES (1, '{OVER}', 2), (2, '{OVER}', 1); COMMIT;
    """)
    schema.rules = [rule("ring", name="a"), rule("ring", name="b")]
    counts = schema.execute(schema.plan())
    assert (counts.done, counts.refused, schema.keys("ring")) == ({"a": 2}, {}, set())


def test_record_inserted_with_reference_to_cycle_is_not_deleted_by_cascade(
    schema: RetentionSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.run(f"""
    CREATE TABLE note (id int PRIMARY KEY, at date, parent int REFERENCES note);
    CREATE TABLE page (id int PRIMARY KEY, at date, note int REFERENCES note ON DELETE CASCADE);
    INSERT INTO note VALUES (1, '{OVER}', 1), (2, '{OVER}', 1);
    UPDATE note SET parent = 2 WHERE id = 1;
    """)
    schema.rules = [rule("note"), rule("page")]
    plan = schema.plan()
    real = cycles.delete_cycle

    def late(state: ExecutionState, group: Sequence[str]) -> int:
        schema.run(f"INSERT INTO page VALUES (1, '{OVER}', 1) ON CONFLICT DO NOTHING")
        return real(state, group)

    monkeypatch.setattr(cycles, "delete_cycle", late)
    monkeypatch.setattr(cycles, "PAUSE", 0)
    assert schema.execute(plan).done == schema.erased() == {}
    assert schema.keys("note") == {1, 2}
    assert schema.keys("page") == {1}


def test_records_of_foreign_key_cycle_are_all_deleted_if_retention_rule_detaches_one_reference(
    schema: RetentionSchema,
) -> None:
    schema.run(f"""
    CREATE TABLE a (id int PRIMARY KEY, at date, b int);
    CREATE TABLE b (id int PRIMARY KEY, at date, a int REFERENCES a, first int REFERENCES a);
    ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b;
    INSERT INTO a VALUES (1, '{OVER}'); INSERT INTO b VALUES (1, '{OVER}', 1, 1);
    UPDATE a SET b = 1;
    """)
    schema.rules = [rule("a", detach=["b.first"]), rule("b")]
    assert schema.enforced() == {"a": 1, "b": 1}


def test_whole_foreign_key_cycle_is_kept_if_trigger_skips_deletion_of_one_record(
    schema: RetentionSchema,
) -> None:
    schema.run(f"""
    CREATE TABLE note (id int PRIMARY KEY, at date, parent int REFERENCES note ON DELETE CASCADE);
    INSERT INTO note VALUES (1, '{OVER}', NULL), (2, '{OVER}', 1);
    UPDATE note SET parent = 2 WHERE id = 1;
    CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF OLD.id = 1 THEN RETURN NULL; END IF; RETURN OLD; END $$;
    CREATE TRIGGER no BEFORE DELETE ON note FOR EACH ROW EXECUTE FUNCTION no();
    """)
    schema.rules = [rule("note")]
    counts = schema.execute(schema.plan())
    assert counts.done == schema.erased() == {}
    assert counts.refused == {("note", "kept"): 2}
    assert schema.keys("note") == {1, 2}
