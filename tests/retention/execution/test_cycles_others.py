"""Others change a circle of records between the moment that it is found and its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from include.local.postgres import EmbeddedPostgres
from include.retention.execution import cycles
from include.retention.execution.state import ExecutionState
from tests.retention.yard import OVER, YOUNG, Yard, rule, yard


@pytest.fixture
def place(postgres: EmbeddedPostgres) -> Iterator[Yard]:
    with yard(postgres) as made:
        yield made


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (f"INSERT INTO note VALUES (3, '{YOUNG}', 1)", {1, 2, 3}),
        (f"UPDATE note SET at = '{YOUNG}' WHERE id = 2", {1, 2}),
        (f"INSERT INTO note VALUES (3, '{OVER}', NULL)", set()),
    ],
)
def test_what_came_in_between_does_not_go_by_cascade(
    place: Yard, monkeypatch: pytest.MonkeyPatch, change: str, left: set[int]
) -> None:
    """The records are locked and looked for once more; the ledger has what went and no more."""
    place.run(f"""
    CREATE TABLE note (id int PRIMARY KEY, at date, parent int REFERENCES note ON DELETE CASCADE);
    INSERT INTO note VALUES (1, '{OVER}', NULL), (2, '{OVER}', 1), (9, '{OVER}', NULL);
    UPDATE note SET parent = 2 WHERE id = 1;
    """)
    place.rules = [rule("note")]
    plan = place.plan()
    place.run("DELETE FROM note WHERE id = 9")  # so that the plan allows one more
    real = cycles._find
    changes = [change]

    def found(state: ExecutionState, group: Sequence[str]) -> list[cycles._Part]:
        parts = real(state, group)
        if parts and changes:
            place.run(changes.pop())
        return parts

    monkeypatch.setattr(cycles, "_find", found)
    monkeypatch.setattr(cycles, "PAUSE", 0)
    counts = place.execute(plan)
    assert place.keys("note") == left
    assert counts.busy == {"note": 1}
    assert counts.done == place.done() == ({} if left else {"note": 3})


def test_a_circle_whose_records_are_of_two_classes_goes_once(place: Yard) -> None:
    """Each record by the first of them."""
    place.run(f"""
    CREATE TABLE ring (id int PRIMARY KEY, at date, next int REFERENCES ring DEFERRABLE);
    BEGIN; SET CONSTRAINTS ALL DEFERRED;
    INSERT INTO ring VALUES (1, '{OVER}', 2), (2, '{OVER}', 1); COMMIT;
    """)
    place.rules = [rule("ring", name="a"), rule("ring", name="b")]
    counts = place.execute(place.plan())
    assert (counts.done, counts.refused, place.keys("ring")) == ({"a": 2}, {}, set())


def test_a_child_that_was_passed_over_does_not_go_by_cascade(
    place: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is over, but was locked when its turn came, so that the ledger does not know it."""
    place.run(f"""
    CREATE TABLE note (id int PRIMARY KEY, at date, parent int REFERENCES note);
    CREATE TABLE page (id int PRIMARY KEY, at date, note int REFERENCES note ON DELETE CASCADE);
    INSERT INTO note VALUES (1, '{OVER}', 1), (2, '{OVER}', 1);
    UPDATE note SET parent = 2 WHERE id = 1;
    """)
    place.rules = [rule("note"), rule("page")]
    plan = place.plan()
    real = cycles.delete_cycle

    def late(state: ExecutionState, group: Sequence[str]) -> int:
        place.run(f"INSERT INTO page VALUES (1, '{OVER}', 1) ON CONFLICT DO NOTHING")
        return real(state, group)

    monkeypatch.setattr(cycles, "delete_cycle", late)
    monkeypatch.setattr(cycles, "PAUSE", 0)
    assert place.execute(plan).done == place.done() == {}
    assert place.keys("note") == {1, 2}
    assert place.keys("page") == {1}


def test_a_key_of_the_circle_that_is_set_to_null_moves_nothing(place: Yard) -> None:
    """The pack says to detach it; what goes too is left as it is, in whichever table."""
    place.run(f"""
    CREATE TABLE a (id int PRIMARY KEY, at date, b int);
    CREATE TABLE b (id int PRIMARY KEY, at date, a int REFERENCES a, first int REFERENCES a);
    ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b;
    INSERT INTO a VALUES (1, '{OVER}'); INSERT INTO b VALUES (1, '{OVER}', 1, 1);
    UPDATE a SET b = 1;
    """)
    place.rules = [rule("a", detach=["b.first"]), rule("b")]
    assert place.enforced() == {"a": 1, "b": 1}


def test_a_circle_of_which_a_trigger_keeps_one_in_silence_stays(place: Yard) -> None:
    """It would go by cascade nevertheless, or leave half of a circle."""
    place.run(f"""
    CREATE TABLE note (id int PRIMARY KEY, at date, parent int REFERENCES note ON DELETE CASCADE);
    INSERT INTO note VALUES (1, '{OVER}', NULL), (2, '{OVER}', 1);
    UPDATE note SET parent = 2 WHERE id = 1;
    CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF OLD.id = 1 THEN RETURN NULL; END IF; RETURN OLD; END $$;
    CREATE TRIGGER no BEFORE DELETE ON note FOR EACH ROW EXECUTE FUNCTION no();
    """)
    place.rules = [rule("note")]
    counts = place.execute(place.plan())
    assert counts.done == place.done() == {}
    assert counts.refused == {("note", "kept"): 2}
    assert place.keys("note") == {1, 2}
