"""`detach` sets only the named columns to null, or the plan is refused with a reason."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.local.postgres import EmbeddedPostgres
from include.services.errors import UsageError
from tests.retention.yard import OVER, Yard, rule, yard


@pytest.fixture
def place(postgres: EmbeddedPostgres) -> Iterator[Yard]:
    with yard(postgres) as made:
        yield made


def test_detach_sets_only_the_named_columns_to_null(place: Yard) -> None:
    """Row by row, in a cycle and with a whole partition; a kept record keeps its tenant."""
    place.run(f"""
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
    place.rules = [
        rule("parent", detach="child.parent"),
        rule("ring", detach="fan.ring"),
        rule("part", "drop_partition", detach="leg.part"),
    ]
    assert "part_1" in str(place.plan().table("part").partitions)
    assert place.enforced() == {"parent": 1, "ring": 2, "part": 1}
    assert place.keys("child", "id, tenant, parent") == {(1, 7, None)}
    assert place.keys("fan", "id, tenant, ring") == {(1, 7, None)}
    assert place.run("SELECT tenant, part, part_at IS NULL FROM leg") == [(7, None, False)]
    assert place.run("SELECT to_regclass('part_1') IS NULL") == [(True,)]


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
def test_plan_refuses_a_detach_that_the_table_refuses(
    place: Yard, column: str, key: str, reason: str
) -> None:
    """The message has the reason, and nothing is deleted."""
    place.run(f"""
    CREATE DOMAIN must AS int NOT NULL;
    CREATE TABLE parent (tenant int, id int, at date, PRIMARY KEY (tenant, id));
    INSERT INTO parent VALUES (7, 1, '{OVER}');
    CREATE TABLE child (id int PRIMARY KEY, tenant int, {column},
      FOREIGN KEY (tenant, parent) REFERENCES parent {key});
    INSERT INTO child (id, tenant{"" if "GENERATED" in column else ", parent"})
      VALUES (1, 7{"" if "GENERATED" in column else ", 1"});
    """)
    place.rules = [rule("parent", detach="child.parent")]
    with pytest.raises(UsageError, match=f"parent cannot be set to null.*{reason}"):
        place.plan()


def test_plan_refuses_a_key_that_the_database_cannot_set_to_null(place: Yard) -> None:
    """ON DELETE SET NULL concerns all columns; a list of columns, or `detach`, limits it."""
    tables = """
    CREATE TABLE parent (tenant int, id int, at date, PRIMARY KEY (tenant, id));
    CREATE TABLE child (id int PRIMARY KEY, tenant int NOT NULL, parent int,
      FOREIGN KEY (tenant, parent) REFERENCES parent ON DELETE SET NULL {columns});
    """
    place.run(tables.format(columns=""))
    place.rules = [rule("parent")]
    with pytest.raises(UsageError, match=r"child\.tenant, parent cannot be set to null, as ON DEL"):
        place.plan()
    place.rules = [rule("parent", detach="child.parent")]
    assert place.planned() == {"parent": 0}
    place.run("DROP TABLE child, parent;" + tables.format(columns="(parent)"))
    place.rules = [rule("parent")]
    assert place.planned() == {"parent": 0}
