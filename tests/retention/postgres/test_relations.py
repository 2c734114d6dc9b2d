"""Tables as the catalogue has them, and those whose records cannot be disposed of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.local.postgres import EmbeddedPostgres
from include.retention.postgres.relations import Relations, read_relations
from include.services.errors import UsageError
from tests.retention.yard import Yard, rule, yard

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
def place(postgres: EmbeddedPostgres) -> Iterator[Yard]:
    with yard(postgres, SCHEMA) as made:
        yield made
        made.run("SET client_min_messages = warning; DROP FOREIGN DATA WRAPPER nothing CASCADE")


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
def test_what_cannot_be_disposed_of_is_refused_by_what_it_is(
    place: Yard, table: str, why: str
) -> None:
    """With the name of the collection, and of the table."""
    place.mapped = {"thing": table}
    place.rules = [rule("thing")]
    with pytest.raises(UsageError, match=why) as caught:
        place.plan()
    assert "thing" in str(caught.value)


def test_they_may_be_in_the_data_map_where_no_class_is_about_them(place: Yard) -> None:
    """A view of customers is personal data too."""
    place.mapped = {one: one for one in ("whole", "seen", "far", "bare", "mixed")}
    place.rules = [rule("whole")]
    assert place.planned() == {"whole": 0}


def test_a_table_of_two_collections_is_refused(place: Yard) -> None:
    """A class of the one would not know what a class of the other keeps."""
    place.mapped = {"one": "whole", "two": "whole"}
    place.rules = [rule("one"), rule("two", "keep")]
    with pytest.raises(UsageError, match="are the same table"):
        place.plan()


def _read(place: Yard, schema: str, mapped: dict[str, str]) -> Relations:
    place.run(schema)
    place.mapped = mapped
    with place.session() as connection:
        return read_relations(connection, place.database)


def test_every_key_is_found_once_with_where_it_leads(postgres: EmbeddedPostgres) -> None:
    """Of partitions, to partitions, from tables outside of the data map, in the key's order."""
    with yard(postgres) as place:
        found = _read(
            place,
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
        keys = {one.name: one for one in found.keys}
        assert set(keys) == {"to_a", "to_z", "to_b", "to_b2"}
        assert len(found.keys) == 4
        assert {name: one.on_delete for name, one in keys.items()} == {
            "to_a": "cascade", "to_z": "set_null", "to_b": "set_default", "to_b2": "restrict",
        }  # fmt: skip
        assert (keys["to_a"].columns, keys["to_a"].targets) == (("ax", "ay"), ("x", "y"))
        a, b = found.by_collection["a"], found.by_collection["b"]
        assert a.key == ("y", "x")
        assert [one.name for one in b.leaves] == ["b1a", "b2"]
        assert [one.name for one in found.keys_to(b)] == ["to_b", "to_b2"]
        assert keys["to_b"].partitions == ()
        assert keys["to_b2"].partitions == (b.leaves[1].oid,)
        assert found.collection_of(keys["to_a"].child_root) == "b"
        assert found.collection_of(keys["to_z"].child_root) is None


def test_a_key_that_the_database_does_not_enforce_counts_too(postgres: EmbeddedPostgres) -> None:
    """NOT VALID or NOT ENFORCED: it says what refers to what all the same."""
    with yard(postgres, PARENT) as place:
        place.run("""
        CREATE TABLE child (id int PRIMARY KEY, at date, a int, b int);
        INSERT INTO parent VALUES (1, '2020-01-01'), (2, '2020-01-01'), (3, '2020-01-01');
        INSERT INTO child VALUES (1, '2026-01-01', 1, 2);
        ALTER TABLE child ADD FOREIGN KEY (a) REFERENCES parent NOT VALID;
        ALTER TABLE child ADD FOREIGN KEY (b) REFERENCES parent ON DELETE CASCADE NOT ENFORCED;
        """)
        place.rules = [rule("parent")]
        assert place.enforced() == {"parent": 1}
        assert place.keys("parent") == {1, 2}
