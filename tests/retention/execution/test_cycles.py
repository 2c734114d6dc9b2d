"""Records that refer to each other in a circle, or to themselves: they go together, or stay."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg.conninfo import make_conninfo

from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from tests.retention.yard import OVER, YOUNG, Yard, rule, yard


@pytest.fixture
def place(postgres: EmbeddedPostgres) -> Iterator[Yard]:
    with yard(postgres) as made:
        yield made


def test_a_chain_goes_from_its_end(place: Yard) -> None:
    """A comment goes when all answers to it go, however long the chain is."""
    place.run(f"""
    CREATE TABLE note (id int PRIMARY KEY, at date, parent int REFERENCES note);
    INSERT INTO note SELECT i, '{OVER}', nullif(i - 1, 0) FROM generate_series(1, 40) i;
    INSERT INTO note SELECT i, '{OVER}', nullif(i - 1, 100) FROM generate_series(101, 140) i;
    UPDATE note SET at = '{YOUNG}' WHERE id = 120;
    """)
    place.rules = [rule("note")]
    plan = place.plan()
    assert plan.of("note").to_delete == 40 + 20
    assert plan.of("note").kept_by_reference == 19
    place.enforced()
    assert place.keys("note") == set(range(101, 121))


def test_a_record_may_refer_to_itself(place: Yard) -> None:
    """The manager of oneself keeps nobody; one who is referred to by another that stays does."""
    place.run(f"""
    CREATE TABLE staff (id int PRIMARY KEY, at date, boss int REFERENCES staff);
    INSERT INTO staff VALUES (1, '{OVER}', 1), (2, '{OVER}', 2), (3, '{YOUNG}', 2),
      (4, '{YOUNG}', 4), (5, '{OVER}', 1);
    """)
    place.rules = [rule("staff")]
    assert place.enforced() == {"staff": 2}
    assert place.keys("staff") == {2, 3, 4}


def test_circles_of_two_and_three_tables_go_as_a_whole(place: Yard) -> None:
    """One that a record outside refers to stays as a whole."""
    place.run(f"""
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
    place.rules = [rule("a"), rule("b"), rule("c"), rule("leaf")]
    assert place.plan().order == (("leaf",), ("a", "b", "c"))
    assert place.enforced() == {"a": 3, "b": 3, "c": 3, "leaf": 1}
    assert place.keys("a") == place.keys("b") == place.keys("c") == {1, 3, 4}


def test_keys_with_restrict_are_no_obstacle(place: Yard) -> None:
    """PostgreSQL looks at them when the statement ends, and by then all of the circle is gone."""
    _circle(place, "ON DELETE RESTRICT")
    assert place.enforced() == {"a": 2, "b": 2, "z": 1}


def test_a_circle_that_cascades_goes_into_the_ledger_as_a_whole(place: Yard) -> None:
    """Nothing goes by the database's own doing."""
    _circle(place, "ON DELETE CASCADE")
    assert place.enforced() == {"a": 2, "b": 2, "z": 1}


def test_a_circle_that_the_database_refuses_is_reported_and_the_rest_goes_on(place: Yard) -> None:
    """A trigger forbids one record of it, and so all of it stays."""
    _circle(place, "")
    place.run("""
    CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF OLD.id = 1 THEN RAISE EXCEPTION 'no'; END IF; RETURN OLD; END $$;
    CREATE TRIGGER never BEFORE DELETE ON a FOR EACH ROW EXECUTE FUNCTION never();
    """)
    counts = place.execute(place.plan())
    assert counts.done == place.done() == {"a": 1, "b": 1, "z": 1}
    assert counts.refused == {("a", "P0001"): 1, ("b", "P0001"): 1}
    assert place.keys("a") == place.keys("b") == {1}


def _circle(place: Yard, on_delete: str) -> None:
    """Two tables in a circle, and one after them."""
    place.run(f"""
    CREATE TABLE a (id int PRIMARY KEY, at date, b int);
    CREATE TABLE b (id int PRIMARY KEY, at date, a int REFERENCES a {on_delete});
    ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b {on_delete};
    CREATE TABLE z (id int PRIMARY KEY, at date);
    INSERT INTO a VALUES (1, '{OVER}'), (2, '{OVER}');
    INSERT INTO b VALUES (1, '{OVER}', 1), (2, '{OVER}', NULL);
    UPDATE a SET b = id;
    INSERT INTO z VALUES (1, '{OVER}');
    """)
    place.rules = [rule("a"), rule("b"), rule("z")]


def test_a_long_chain_is_not_walked_link_by_link(place: Yard) -> None:
    """It goes in one statement once a few rounds have shown that it is one, however long."""
    place.run(f"""
    CREATE TABLE note (id int PRIMARY KEY, at date, parent int REFERENCES note);
    CREATE INDEX ON note (parent);
    INSERT INTO note SELECT i, '{OVER}', nullif(i - 1, 0) FROM generate_series(1, 1100) i;
    """)
    place.rules = [rule("note")]
    assert place.enforced() == {"note": 1100}


def test_what_is_refused_in_each_round_is_counted_once(place: Yard) -> None:
    """A chain is walked many times; a record at its end that is refused is passed over."""
    place.run(f"""
    CREATE TABLE note (id int PRIMARY KEY, at date, parent int REFERENCES note);
    INSERT INTO note SELECT i, '{OVER}', nullif(i - 1, 0) FROM generate_series(1, 30) i;
    INSERT INTO note VALUES (100, '{OVER}', NULL), (101, '{OVER}', 101);
    CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF OLD.id >= 100 THEN RAISE EXCEPTION 'no'; END IF; RETURN OLD; END $$;
    CREATE TRIGGER never BEFORE DELETE ON note FOR EACH ROW EXECUTE FUNCTION never();
    """)
    place.rules = [rule("note")]
    counts = place.execute(place.plan())
    assert counts.done == place.done() == {"note": 30}
    assert counts.refused == {("note", "P0001"): 2}


def test_a_record_that_refers_to_itself_explains_nothing(place: Yard) -> None:
    """When the database refuses it, the count afterwards says that it is left."""
    place.run(f"""
    CREATE TABLE staff (id int PRIMARY KEY, at date, boss int REFERENCES staff);
    INSERT INTO staff VALUES (1, '{OVER}', 1);
    CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      RAISE EXCEPTION 'no'; END $$;
    CREATE TRIGGER never BEFORE DELETE ON staff FOR EACH ROW EXECUTE FUNCTION never();
    """)
    place.rules = [rule("staff")]
    place.execute(place.plan())
    (left,), _orphans = place.left()
    assert (left.referred, left.unexplained) == (0, 1)


def test_two_circles_with_long_chinese_names(place: Yard) -> None:
    """Whose names begin alike, and one of which refers to the other."""
    first, second = (f"{'客户信息保护' * 3}之表{one}" for one in ("一", "二"))
    place.run(f"""
    CREATE TABLE "{first}" (id int PRIMARY KEY, at date, up int REFERENCES "{first}");
    CREATE TABLE "{second}" (id int PRIMARY KEY, at date, up int REFERENCES "{second}",
      other int REFERENCES "{first}");
    INSERT INTO "{first}" VALUES (1, '{OVER}', NULL), (2, '{OVER}', 1), (3, '{OVER}', 3);
    INSERT INTO "{second}" VALUES (1, '{OVER}', NULL, 1), (2, '{YOUNG}', 1, NULL),
      (3, '{OVER}', 2, 3);
    """)
    place.rules = [rule(first, name="one"), rule(second, name="two")]
    assert place.enforced() == {"one": 2, "two": 1}
    assert place.keys(f'"{first}"') == {1}


def test_a_circle_that_nobody_approved_is_left_unexplained(place: Yard) -> None:
    """Its records refer to each other alone; what explains them is a young or held one."""
    _three_circles(place)
    place.execute(place.plan(), allowed=["z"])
    assert _left(place) == {"a": (1, 2), "b": (1, 2), "z": (0, 0), "leaf": (0, 0)}
    place.hold(HoldKind.CLASS, "b")
    assert _left(place) == {"a": (3, 0), "b": (0, 0), "z": (0, 0), "leaf": (0, 0)}


def test_a_chain_that_was_not_walked_explains_nothing_but_by_its_young_end(place: Yard) -> None:
    """Comments that answer comments: the young one explains those that it answers."""
    place.run(f"""
    CREATE TABLE note (id int PRIMARY KEY, at date, parent int REFERENCES note);
    CREATE TABLE z (id int PRIMARY KEY, at date);
    INSERT INTO note SELECT i, '{OVER}', nullif(i - 1, 0) FROM generate_series(1, 5) i;
    INSERT INTO note SELECT i, '{OVER}', nullif(i - 1, 10) FROM generate_series(11, 15) i;
    UPDATE note SET at = '{YOUNG}' WHERE id = 13;
    """)
    place.rules = [rule("note"), rule("z")]
    place.execute(place.plan(), allowed=["z"])
    assert _left(place)["note"] == (2, 5 + 2)


def test_the_count_afterwards_follows_a_long_chain_without_an_index(place: Yard) -> None:
    """Its time grows with the records; 20,000 of them, each looked for in all, take minutes."""
    place.run(f"""
    CREATE TABLE note (id int PRIMARY KEY, at date, parent int);
    INSERT INTO note SELECT i, '{OVER}', nullif(i - 1, 0) FROM generate_series(1, 20000) i;
    ALTER TABLE note ADD FOREIGN KEY (parent) REFERENCES note;
    UPDATE note SET at = '{YOUNG}' WHERE id = 10000;
    ANALYZE note;
    """)
    place.rules = [rule("note")]
    with place.inspection() as inspection:
        inspection.connection.execute("SET LOCAL statement_timeout = '20s'")
        (left,) = inspection.left()
    assert (left.referred, left.unexplained) == (9_999, 10_000)


def test_the_count_afterwards_looks_up_references_of_a_large_table_together(place: Yard) -> None:
    """Even where no index is on the foreign key and its values exceed the memory of one join."""
    place.run(f"""
    CREATE TABLE parcel (id int PRIMARY KEY, at date);
    CREATE TABLE scan (id int PRIMARY KEY, at date, parcel int);
    INSERT INTO parcel SELECT i, '{OVER}' FROM generate_series(1, 20000) i;
    INSERT INTO scan SELECT i, '{YOUNG}', 1 + i % 19990 FROM generate_series(1, 40000) i;
    ALTER TABLE scan ADD FOREIGN KEY (parcel) REFERENCES parcel;
    ANALYZE parcel, scan;
    """)
    place.rules = [rule("parcel"), rule("scan")]
    place.conninfo = make_conninfo(place.conninfo, options="-c work_mem=64kB")
    with place.inspection() as inspection:
        inspection.connection.execute("SET LOCAL statement_timeout = '20s'")
        parcels, _scans = inspection.left()
    assert (parcels.referred, parcels.unexplained) == (19_990, 10)


def _left(place: Yard) -> dict[str, tuple[int, int]]:
    """Of each class what is referred to, and what nothing explains."""
    left, _orphans = place.left()
    return {one.name: (one.referred, one.unexplained) for one in left}


def _three_circles(place: Yard) -> None:
    """The third has a record that a young one outside refers to."""
    _circle(place, "")
    place.run(f"""
    INSERT INTO a VALUES (3, '{OVER}');
    INSERT INTO b VALUES (3, '{OVER}', 3);
    UPDATE b SET a = id;
    UPDATE a SET b = id;
    CREATE TABLE leaf (id int PRIMARY KEY, at date, b int REFERENCES b);
    INSERT INTO leaf VALUES (1, '{YOUNG}', 3);
    """)
    place.rules = [rule("a"), rule("b"), rule("z"), rule("leaf")]
