"""Tests that `detach` sets only the named columns of a foreign key to null."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.local.postgres import EmbeddedPostgres
from include.services.errors import UsageError
from tests.retention.retention_schema import OVER, RetentionSchema, retention_schema, rule


@pytest.fixture
def schema(postgres: EmbeddedPostgres) -> Iterator[RetentionSchema]:
    with retention_schema(postgres) as created:
        yield created


def test_deletion_sets_only_columns_listed_under_detach_in_retention_yaml_to_null(
    schema: RetentionSchema,
) -> None:
    """Records are deleted one by one, in a cycle and with a whole partition.

    A kept record keeps its tenant.
    """
    schema.run(f"""
    CREATE TABLE parent (tenant int, id int, at date, PRIMARY KEY (tenant, id));
    CREATE TABLE child (id int PRIMARY KEY, tenant int NOT NULL, parent int,
      FOREIGN KEY (tenant, parent) REFERENCES parent ON DELETE SET NULL);
    CREATE TABLE ring (tenant int, id int, next int, at date, PRIMARY KEY (tenant, id),
      FOREIGN KEY (tenant, next) REFERENCES ring);
    CREATE TABLE fan (id int PRIMARY KEY, tenant int, ring int,
      FOREIGN KEY (tenant, ring) REFERENCES ring);
    CREATE TABLE part (tenant int, id int, at date, PRIMARY KEY (tenant, id, at))
      PARTITION BY RANGE (at);
    CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM ('2019-01-01') TO ('2021-01-01');
    CREATE TABLE leg (id int PRIMARY KEY, tenant int, part int, part_at date,
      FOREIGN KEY (tenant, part, part_at) REFERENCES part);
    INSERT INTO parent VALUES (7, 1, '{OVER}');
    INSERT INTO child VALUES (1, 7, 1);
    INSERT INTO ring VALUES (7, 1, NULL, '{OVER}'), (7, 2, 1, '{OVER}');
    UPDATE ring SET next = 2 WHERE id = 1;
    INSERT INTO fan VALUES (1, 7, 2);
    INSERT INTO part VALUES (7, 1, '{OVER}');
    INSERT INTO leg VALUES (1, 7, 1, '{OVER}');
    """)
    schema.rules = [
        rule("parent", detach="child.parent"),
        rule("ring", detach="fan.ring"),
        rule("part", "drop_partition", detach="leg.part"),
    ]
    assert "part_1" in str(schema.plan().table("part").partitions)
    assert schema.enforced() == {"parent": 1, "ring": 2, "part": 1}
    assert schema.keys("child", "id, tenant, parent") == {(1, 7, None)}
    assert schema.keys("fan", "id, tenant, ring") == {(1, 7, None)}
    assert schema.run("SELECT tenant, part, part_at IS NULL FROM leg") == [(7, None, False)]
    assert schema.run("SELECT to_regclass('part_1') IS NULL") == [(True,)]


@pytest.mark.parametrize(
    ("column", "key", "reason"),
    [
        ("parent int NOT NULL", "", "must not be null"),
        ("parent must", "", "must not be null"),
        ("parent int GENERATED ALWAYS AS (id) STORED", "", "is generated"),
        ("parent int", "MATCH FULL", "MATCH FULL"),
        (
            "parent int CHECK (parent IS NOT NULL)",
            "",
            "the CHECK constraint child_parent_check refuses null",
        ),
        (
            "parent int, CHECK ((parent IS NULL) = (tenant IS NULL))",
            "",
            "CHECK constraint child_check",
        ),
    ],
)
def test_plan_raises_usage_error_if_column_listed_under_detach_cannot_be_null(
    schema: RetentionSchema, column: str, key: str, reason: str
) -> None:
    schema.run(f"""
    CREATE DOMAIN must AS int NOT NULL;
    CREATE TABLE parent (tenant int, id int, at date, PRIMARY KEY (tenant, id));
    INSERT INTO parent VALUES (7, 1, '{OVER}');
    CREATE TABLE child (id int PRIMARY KEY, tenant int, {column},
      FOREIGN KEY (tenant, parent) REFERENCES parent {key});
    INSERT INTO child (id, tenant{"" if "GENERATED" in column else ", parent"})
      VALUES (1, 7{"" if "GENERATED" in column else ", 1"});
    """)
    schema.rules = [rule("parent", detach="child.parent")]
    with pytest.raises(UsageError, match=f"parent cannot be set to null.*{reason}"):
        schema.plan()


def test_plan_raises_usage_error_if_on_delete_set_null_affects_a_not_null_column(
    schema: RetentionSchema,
) -> None:
    """ON DELETE SET NULL changes all columns, unless a list of columns or `detach` limits it."""
    tables = """
    CREATE TABLE parent (tenant int, id int, at date, PRIMARY KEY (tenant, id));
    CREATE TABLE child (id int PRIMARY KEY, tenant int NOT NULL, parent int,
      FOREIGN KEY (tenant, parent) REFERENCES parent ON DELETE SET NULL {columns});
    """
    schema.run(tables.format(columns=""))
    schema.rules = [rule("parent")]
    with pytest.raises(UsageError, match=r"child\.tenant, parent cannot be set to null, as ON DEL"):
        schema.plan()
    schema.rules = [rule("parent", detach="child.parent")]
    assert schema.planned() == {"parent": 0}
    schema.run("DROP TABLE child, parent;" + tables.format(columns="(parent)"))
    schema.rules = [rule("parent")]
    assert schema.planned() == {"parent": 0}
