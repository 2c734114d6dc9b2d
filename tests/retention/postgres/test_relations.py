"""Tests of reading tables from the catalogue, and of tables that cannot be disposed of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.local.postgres import EmbeddedPostgres
from include.retention.postgres.relations import Relations, read_relations
from include.services.errors import UsageError
from tests.retention.retention_schema import RetentionSchema, retention_schema, rule

PARENT = "CREATE TABLE parent (id int PRIMARY KEY, at date);"
SCHEMA = f"""
{PARENT}
CREATE TABLE bare (id int, at date);
CREATE VIEW seen AS SELECT * FROM parent;
CREATE MATERIALIZED VIEW stored AS SELECT * FROM parent;
CREATE TABLE old (PRIMARY KEY (id)) INHERITS (parent);
CREATE TABLE whole (id int, at date, part int, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
CREATE TABLE whole1 PARTITION OF whole FOR VALUES IN (1);
CREATE FOREIGN DATA WRAPPER nothing;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;
CREATE FOREIGN TABLE far (id int, at date) SERVER nowhere;
CREATE TABLE mixed (id int, at date, part int) PARTITION BY LIST (part);
CREATE FOREIGN TABLE mixed1 PARTITION OF mixed FOR VALUES IN (1) SERVER nowhere;
CREATE TABLE near (id int PRIMARY KEY, at date);
CREATE FOREIGN TABLE nearer () INHERITS (near) SERVER nowhere;
CREATE SEQUENCE numbers;
"""


@pytest.fixture(scope="module")
def schema(postgres: EmbeddedPostgres) -> Iterator[RetentionSchema]:
    with retention_schema(postgres, SCHEMA) as created:
        yield created
        created.run("SET client_min_messages = warning; DROP FOREIGN DATA WRAPPER nothing CASCADE")


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("bare", "has no primary key"),
        ("seen", "is a view"),
        ("stored", "is a materialized view"),
        ("far", "is a foreign table"),
        ("numbers", "is something else"),
        ("parent", "inherits from another table, or another from it"),
        ("old", "inherits from another table, or another from it"),
        ("near", "inherits from another table, or another from it"),
        ("whole1", "is a partition"),
        ("mixed", "has a partition that is a foreign table"),
        ("nothing", "has no table for the collection"),
    ],
)
def test_plan_error_contains_reason_if_table_is_view_or_partition_or_has_no_primary_key(
    schema: RetentionSchema, table: str, why: str
) -> None:
    schema.mapped = {"thing": table}
    schema.rules = [rule("thing")]
    with pytest.raises(UsageError, match=why) as caught:
        schema.plan()
    assert "thing" in str(caught.value)


def test_require_disposable_raises_no_error_for_unsuitable_table_without_record_class(
    schema: RetentionSchema,
) -> None:
    schema.mapped = {each: each for each in ("whole", "seen", "far", "bare", "mixed")}
    schema.rules = [rule("whole")]
    assert schema.planned() == {"whole": 0}


def test_require_disposable_raises_usage_error_if_two_collections_are_the_same_table(
    schema: RetentionSchema,
) -> None:
    schema.mapped = {"one": "whole", "two": "whole"}
    schema.rules = [rule("one"), rule("two", "keep")]
    with pytest.raises(UsageError, match="are the same table"):
        schema.plan()


def _read(schema: RetentionSchema, statements: str, mapped: dict[str, str]) -> Relations:
    schema.run(statements)
    schema.mapped = mapped
    with schema.session() as connection:
        return read_relations(connection, schema.database)


def test_read_relations_returns_each_foreign_key_once(postgres: EmbeddedPostgres) -> None:
    with retention_schema(postgres) as schema:
        relations = _read(
            schema,
            """
            CREATE TABLE a (x int, y int, z int UNIQUE, part int, PRIMARY KEY (y, x));
            CREATE TABLE b (id int, part int, ay int, ax int, PRIMARY KEY (id, part),
              CONSTRAINT to_a FOREIGN KEY (ax, ay) REFERENCES a (x, y) ON DELETE CASCADE)
              PARTITION BY LIST (part);
            CREATE TABLE b1 PARTITION OF b FOR VALUES IN (1) PARTITION BY LIST (id);
            CREATE TABLE b1a PARTITION OF b1 DEFAULT;
            CREATE TABLE b2 PARTITION OF b FOR VALUES IN (2);
            ALTER TABLE b2 ADD UNIQUE (id);
            CREATE TABLE c (id int PRIMARY KEY, a int, b int, part int, b2 int,
              CONSTRAINT to_z FOREIGN KEY (a) REFERENCES a (z) ON DELETE SET NULL,
              CONSTRAINT to_b FOREIGN KEY (b, part) REFERENCES b ON DELETE SET DEFAULT,
              CONSTRAINT to_b2 FOREIGN KEY (b2) REFERENCES b2 (id) ON DELETE RESTRICT);
            ALTER TABLE b1a ADD CONSTRAINT own FOREIGN KEY (id) REFERENCES c;
            """,
            {"a": "a", "b": "b"},
        )
        keys = {key.name: key for key in relations.keys}
        assert set(keys) == {"to_a", "to_z", "to_b", "to_b2"}
        assert len(relations.keys) == 4
        assert {name: each.on_delete for name, each in keys.items()} == {
            "to_a": "cascade", "to_z": "set_null", "to_b": "set_default", "to_b2": "restrict",
        }  # fmt: skip
        assert (keys["to_a"].columns, keys["to_a"].targets) == (("ax", "ay"), ("x", "y"))
        a, b = relations.by_collection["a"], relations.by_collection["b"]
        assert a.key == ("y", "x")
        assert [leaf.name for leaf in b.leaves] == ["b1a", "b2"]
        assert [each.name for each in relations.keys_to(b)] == ["to_b", "to_b2"]
        assert keys["to_b"].partitions == ()
        assert keys["to_b2"].partitions == (b.leaves[1].oid,)
        assert relations.collection_of(keys["to_a"].child_root) == "b"
        assert relations.collection_of(keys["to_z"].child_root) is None


def test_read_relations_returns_foreign_keys_that_are_not_valid_or_not_enforced(
    postgres: EmbeddedPostgres,
) -> None:
    with retention_schema(postgres, PARENT) as schema:
        schema.run("""
        CREATE TABLE child (id int PRIMARY KEY, at date, a int, b int);
        INSERT INTO parent VALUES (1, '2020-01-01'), (2, '2020-01-01'), (3, '2020-01-01');
        INSERT INTO child VALUES (1, '2026-01-01', 1, 2);
        ALTER TABLE child ADD FOREIGN KEY (a) REFERENCES parent NOT VALID;
        ALTER TABLE child ADD FOREIGN KEY (b) REFERENCES parent ON DELETE CASCADE NOT ENFORCED;
        """)
        schema.rules = [rule("parent")]
        assert schema.enforced() == {"parent": 1}
        assert schema.keys("parent") == {1, 2}
