"""Deletions and masks are rolled back if triggers or rules change other mapped records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from include.retention.execution import batches, cycles
from include.services.errors import UsageError
from tests.retention.yard import OVER, YOUNG, Yard, rule, yard

TABLES = f"""
CREATE TABLE a (id int PRIMARY KEY, at date, who text, name text);
INSERT INTO a SELECT n, '{OVER}', 'p' || n, 'Wang' FROM generate_series(1, 6) AS n;
CREATE TABLE b (id int PRIMARY KEY, at date, who text, n int NOT NULL DEFAULT 0);
INSERT INTO b SELECT n, '{YOUNG}', 'p' || n FROM generate_series(1, 6) AS n;
CREATE TABLE log (id int, at timestamptz DEFAULT now());
"""
# Statements of a trigger on `a` that fires when record 3 is deleted.
DOES = {
    "deletes": "DELETE FROM b WHERE id = OLD.id",
    "updates": "UPDATE b SET n = n + 1 WHERE id = OLD.id",
    "empties": "TRUNCATE b",
    "drops": "ALTER TABLE b ALTER n TYPE bigint",
}
TRIGGER = """
CREATE FUNCTION react() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN {does}; RETURN {returns}; END$$;
CREATE {kind} TRIGGER react {when} ON a {deferred} FOR EACH ROW WHEN (OLD.id = 3)
    EXECUTE FUNCTION react();
"""


def trigger(does: str, event: str = "DELETE", timing: str = "AFTER", deferred: str = "") -> str:
    returns = "OLD" if event == "DELETE" else "NEW"
    kind = "CONSTRAINT" if deferred else ""
    when = f"{timing} {event}"
    return TRIGGER.format(does=does, returns=returns, kind=kind, when=when, deferred=deferred)


@pytest.fixture
def place(postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    for module in (batches, cycles):
        monkeypatch.setattr(module, "PAUSE", 0)
    with yard(postgres, TABLES) as made:
        made.mapped = {"a": "a", "b": "b"}
        made.rules = [rule("a", keys={"subject": "t.who"}), rule("b", keys={"subject": "t.who"})]
        yield made


def state_of_b(place: Yard) -> list[tuple[object, ...]]:
    return place.run("SELECT id, n FROM b ORDER BY id")


@pytest.mark.parametrize("timing", ["BEFORE", "AFTER", "deferred"])
@pytest.mark.parametrize("does", list(DOES))
def test_deletion_is_rolled_back_where_a_trigger_changes_another_mapped_table(
    place: Yard, does: str, timing: str
) -> None:
    """Also if the trigger fires at the commit. Records without that effect are deleted."""
    place.hold(HoldKind.SUBJECT, "p3")
    place.run("UPDATE a SET who = 'other' WHERE id = 3")
    deferred = "DEFERRABLE INITIALLY DEFERRED" if timing == "deferred" else ""
    place.run(trigger(DOES[does], timing="AFTER" if deferred else timing, deferred=deferred))
    before = state_of_b(place)
    counts = place.execute(place.plan())
    assert state_of_b(place) == before
    assert place.keys("a") == {3}
    assert (counts.done, counts.refused) == ({"a": 5}, {("a", "changed"): 1})
    (effect,) = counts.side_effects["a"].values()
    table = f"{place.name}.b"
    expected = {
        "deletes": (table, 1, 0, False),
        "updates": (table, 0, 1, False),
        "empties": (table, 0, 0, True),
        "drops": (table, 0, 0, True),
    }
    assert (effect.table, effect.deleted, effect.updated, effect.rewritten) == expected[does]
    assert place.done() == {"a": 5}


def test_deletion_is_rolled_back_where_a_trigger_deletes_more_of_the_same_table(
    place: Yard,
) -> None:
    """The trigger deletes records outside of the plan: a young record, and one on hold."""
    place.run(f"INSERT INTO a VALUES (7, '{YOUNG}', 'p7'), (8, '{OVER}', 'p8')")
    place.hold(HoldKind.SUBJECT, "p8")
    place.run(trigger("DELETE FROM a WHERE id > 6"))
    assert place.execute(place.plan()).done == {"a": 5}
    assert place.keys("a") == {3, 7, 8}


def test_deletion_is_rolled_back_where_a_rule_deletes_elsewhere(place: Yard) -> None:
    """A rule with DO ALSO has no trigger."""
    place.run("CREATE RULE also AS ON DELETE TO a DO ALSO DELETE FROM b WHERE id = OLD.id")
    counts = place.execute(place.plan())
    assert counts.done == {}
    assert len(state_of_b(place)) == 6


def test_masks_are_rolled_back_where_a_trigger_changes_another_mapped_table(place: Yard) -> None:
    place.rules = [rule("a", "mask", mask={"name": "name"})]
    place.run(trigger(DOES["updates"], event="UPDATE"))
    counts = place.execute(place.plan())
    assert (counts.done, counts.refused) == ({"a": 5}, {("a", "changed"): 1})
    assert state_of_b(place) == [(n, 0) for n in range(1, 7)]


def test_history_that_a_trigger_writes_is_allowed_and_counted(place: Yard) -> None:
    """Rows in a mapped table are counted; tables outside of the data map are not checked."""
    place.run(trigger(f"INSERT INTO log VALUES (OLD.id); INSERT INTO b VALUES (9, '{YOUNG}', 'x')"))
    counts = place.execute(place.plan())
    assert (counts.done, counts.refused) == ({"a": 6}, {})
    assert counts.inserted == {f"{place.name}.b": 1}


@pytest.mark.parametrize("timing", ["BEFORE", "AFTER"])
def test_updates_of_triggers_are_allowed_and_counted_where_the_schedule_names_the_collection(
    place: Yard, timing: str
) -> None:
    place.rules = [rule("a", triggers_update=["b"]), rule("b")]
    place.run(trigger(DOES["updates"], timing=timing))
    counts = place.execute(place.plan())
    assert (counts.done, counts.refused) == ({"a": 6}, {})
    assert counts.updated == {f"{place.name}.b": 1}
    assert (3, 1) in state_of_b(place)


@pytest.mark.parametrize("does", ["deletes", "empties", "drops"])
def test_deletion_is_rolled_back_where_a_trigger_does_more_than_the_allowed_update(
    place: Yard, does: str
) -> None:
    """It may update `b`; it deletes, empties or alters the table as well."""
    place.rules = [rule("a", triggers_update=["b"]), rule("b")]
    place.run(trigger(f"{DOES['updates']}; {DOES[does]}"))
    before = state_of_b(place)
    assert place.execute(place.plan()).done == {"a": 5}
    assert state_of_b(place) == before


def test_updates_of_triggers_in_a_table_that_the_database_lacks_are_nothing(place: Yard) -> None:
    """The data map may be ahead of the database; its drift is told elsewhere."""
    place.mapped |= {"ghost": "ghost"}
    place.rules = [rule("a", triggers_update=["ghost"])]
    assert place.execute(place.plan()).done == {"a": 6}


def test_updates_of_triggers_are_rolled_back_where_another_class_allows_them(place: Yard) -> None:
    place.rules = [rule("a"), rule("b", triggers_update=["a"])]
    place.run(trigger(DOES["updates"]))
    assert place.execute(place.plan()).done == {"a": 5}
    assert state_of_b(place) == [(n, 0) for n in range(1, 7)]


def test_updates_of_triggers_in_a_circle_are_allowed_by_its_classes(place: Yard) -> None:
    place.run(
        """
        ALTER TABLE a ADD up int REFERENCES a;
        UPDATE a SET up = 7 - id;
        """
    )
    place.rules = [rule("a", triggers_update=["b"]), rule("b")]
    place.run(trigger(DOES["updates"]))
    counts = place.execute(place.plan())
    assert (counts.done, counts.updated) == ({"a": 6}, {f"{place.name}.b": 1})


def test_keys_that_the_database_sets_to_null_are_expected_changes(place: Yard) -> None:
    """Keys of another table and of the same table, in one statement and in several."""
    place.run(
        f"""
        CREATE TABLE c (id int PRIMARY KEY, a int REFERENCES a ON DELETE SET NULL, at date);
        INSERT INTO c SELECT n, 1 + n % 6, '{YOUNG}' FROM generate_series(1, 20) n;
        CREATE TABLE d (id int PRIMARY KEY, up int REFERENCES d ON DELETE SET NULL, at date);
        INSERT INTO d SELECT n, n / 2 + 1, '{OVER}' FROM generate_series(1, 200) n;
        INSERT INTO d VALUES (201, 7, '{YOUNG}');
        """
    )
    place.mapped |= {"c": "c", "d": "d"}
    place.rules = [rule("a"), rule("c"), rule("d")]
    counts = place.execute(place.plan())
    assert (counts.done, counts.refused) == ({"a": 6, "d": 200}, {})
    assert place.run("SELECT count(*) FROM c WHERE a IS NULL") == [(20,)]


@pytest.mark.parametrize("heir", ["without the key", "with its own key", "made before"])
def test_keys_that_the_database_sets_to_null_are_not_those_of_inheriting_tables(
    place: Yard, heir: str
) -> None:
    """A foreign key is about the rows of its own table alone (INHERITS)."""
    key = "FOREIGN KEY (a) REFERENCES a ON DELETE SET NULL"
    columns = "(id int PRIMARY KEY, a int, at date"
    place.run(
        {
            "without the key": f"CREATE TABLE c {columns}, {key}); CREATE TABLE d () INHERITS (c);",
            "with its own key": f"CREATE TABLE c {columns}, {key});"
            f"CREATE TABLE d ({key}) INHERITS (c);",
            "made before": f"CREATE TABLE d {columns}, {key}); CREATE TABLE c {columns});"
            "ALTER TABLE d INHERIT c;",
        }[heir]
    )
    place.run("INSERT INTO c VALUES (1, 1), (2, 2); INSERT INTO d VALUES (1, 1), (3, 3)")
    place.mapped |= {"c": "c", "d": "d"}
    place.rules = [rule("a")]
    counts = place.execute(place.plan())
    assert (counts.done, counts.refused) == ({"a": 6}, {})
    assert place.run("SELECT count(*) FROM ONLY d WHERE a IS NULL") == [
        (0 if heir == "without the key" else 2,)
    ]


def test_records_that_move_to_another_partition_are_expected_changes(place: Yard) -> None:
    """PostgreSQL counts such an update as a deletion and an insertion."""
    place.run(
        f"""
        CREATE TABLE c (id int, a int REFERENCES a ON DELETE SET NULL, at date)
            PARTITION BY LIST (a);
        CREATE TABLE c_null PARTITION OF c FOR VALUES IN (NULL);
        CREATE TABLE c_rest PARTITION OF c DEFAULT;
        INSERT INTO c SELECT n, 1 + n % 6, '{YOUNG}' FROM generate_series(1, 20) n;
        """
    )
    place.mapped |= {"c": "c"}
    place.rules = [rule("a")]
    counts = place.execute(place.plan())
    assert (counts.done, counts.refused, counts.inserted) == ({"a": 6}, {}, {})


def test_partition_is_kept_where_an_event_trigger_of_its_drop_deletes_elsewhere(
    place: Yard,
) -> None:
    """Triggers of the child whose key is set to null count too."""
    place.run(
        f"""
        CREATE TABLE e (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE e_old PARTITION OF e FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
        INSERT INTO e VALUES (1, '{OVER}'), (2, '{OVER}');
        CREATE TABLE f (id int PRIMARY KEY, e int, e_at date, at date,
            FOREIGN KEY (e, e_at) REFERENCES e);
        INSERT INTO f VALUES (1, 1, '{OVER}', '{YOUNG}');
        CREATE FUNCTION react() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN DELETE FROM b WHERE id = 1; RETURN NEW; END$$;
        CREATE TRIGGER react AFTER UPDATE ON f FOR EACH ROW EXECUTE FUNCTION react();
        """
    )
    place.mapped |= {"e": "e", "f": "f"}
    place.rules = [rule("e", "drop_partition", detach=["f.e", "f.e_at"])]
    counts = place.execute(place.plan())
    assert counts.done == {"e": 1}  # row by row: record 2, to which no record refers
    assert counts.partitions == {}
    assert len(state_of_b(place)) == 6
    place.run("DROP TRIGGER react ON f")
    assert place.execute(place.plan(), run="2").done == {"e": 1}


def test_circle_stays_where_a_trigger_deletes_elsewhere(place: Yard) -> None:
    place.run(
        f"""
        CREATE TABLE c (id int PRIMARY KEY, next int REFERENCES c, at date);
        INSERT INTO c VALUES (1, NULL, '{OVER}'), (2, 1, '{OVER}');
        UPDATE c SET next = 2 WHERE id = 1;
        CREATE FUNCTION react() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN DELETE FROM b WHERE id = OLD.id; RETURN OLD; END$$;
        CREATE TRIGGER react AFTER DELETE ON c FOR EACH ROW EXECUTE FUNCTION react();
        """
    )
    place.mapped |= {"c": "c"}
    place.rules = [rule("c")]
    counts = place.execute(place.plan())
    assert (counts.done, counts.refused) == ({}, {("c", "changed"): 2})
    assert len(state_of_b(place)) == 6
    place.run("DROP TRIGGER react ON c")
    assert place.execute(place.plan(), run="2").done == {"c": 2}


def test_trigger_that_changes_the_key_of_a_masked_record_keeps_it(place: Yard) -> None:
    """The ledger would name a record that is not there."""
    place.rules = [rule("a", "mask", mask={"name": "name"})]
    place.run(trigger("NEW.id := 33", event="UPDATE", timing="BEFORE"))
    counts = place.execute(place.plan())
    assert (counts.done, counts.refused) == ({"a": 5}, {("a", "kept"): 1})


def test_plan_and_execution_refuse_a_server_that_counts_no_changes(place: Yard) -> None:
    """Without counters a trigger's changes would be unseen."""
    uncounted = replace(place, conninfo=f"{place.conninfo} options='-c track_counts=off'")
    with pytest.raises(UsageError, match="track_counts"):
        uncounted.plan()
    with pytest.raises(UsageError, match="track_counts"):
        uncounted.execute(place.plan())
    assert len(place.keys("a")) == 6


def test_plan_names_the_triggers_rules_and_publications_that_react(place: Yard) -> None:
    """For tables whose records are deleted or lose a key; not if disabled or only for INSERT."""
    place.run(
        f"""
        CREATE TABLE c (id int PRIMARY KEY, a int REFERENCES a ON DELETE SET NULL, at date);
        CREATE FUNCTION react() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
        CREATE TRIGGER gone AFTER DELETE ON a FOR EACH ROW EXECUTE FUNCTION react();
        CREATE TRIGGER off AFTER DELETE ON a FOR EACH ROW EXECUTE FUNCTION react();
        ALTER TABLE a DISABLE TRIGGER off;
        ALTER TABLE a ENABLE ALWAYS TRIGGER gone;
        CREATE TRIGGER new AFTER INSERT ON a FOR EACH ROW EXECUTE FUNCTION react();
        CREATE TRIGGER changed AFTER UPDATE OR DELETE ON c FOR EACH ROW EXECUTE FUNCTION react();
        CREATE RULE also AS ON DELETE TO a DO ALSO NOTIFY gone;
        CREATE PUBLICATION "{place.name}" FOR TABLE a, c;
        """
    )
    place.mapped |= {"c": "c"}
    place.rules = [rule("a")]
    try:
        reactions = place.plan().reactions
    finally:
        place.run(f'DROP PUBLICATION "{place.name}"')
    function = f"{place.name}.react"
    assert [
        (reaction.collection, reaction.kind, reaction.name, reaction.events, reaction.function)
        for reaction in reactions
    ] == [
        ("a", "trigger", "gone", ("DELETE",), function),
        ("c", "trigger", "changed", ("UPDATE",), function),
        ("a", "rule", "also", ("DELETE",), None),
        ("a", "publication", place.name, ("DELETE",), None),
        ("c", "publication", place.name, ("UPDATE",), None),
    ]


def test_plan_refuses_a_rule_that_replaces_the_deletion(place: Yard) -> None:
    """Such a rule may return the key of one record and delete another."""
    place.run(
        "CREATE RULE other AS ON DELETE TO a DO INSTEAD DELETE FROM a WHERE id = OLD.id + 1 "
        "RETURNING OLD.*"
    )
    with pytest.raises(UsageError, match=r"rule other of \w+\.a replaces DELETE"):
        place.plan()
    place.rules = [rule("b")]
    assert place.planned() == {"b": 0}


@pytest.mark.parametrize("publish", ["delete", "insert"])
def test_plan_refuses_a_publication_of_a_table_without_replica_identity(
    place: Yard, publish: str
) -> None:
    """PostgreSQL would refuse each deletion, unless the publication leaves out deletions."""
    place.run(
        f"""
        CREATE TABLE e (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE e_old PARTITION OF e FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
        INSERT INTO e VALUES (1, '{OVER}');
        ALTER TABLE e_old REPLICA IDENTITY NOTHING;
        CREATE PUBLICATION "{place.name}" FOR TABLE e
            WITH (publish = '{publish}', publish_via_partition_root = true);
        """
    )
    place.mapped |= {"e": "e"}
    place.rules = [rule("e")]
    try:
        if publish == "delete":
            with pytest.raises(UsageError, match=r"e_old, which has no replica identity"):
                place.plan()
        else:
            assert place.execute(place.plan()).done == {"e": 1}
    finally:
        place.run(f'DROP PUBLICATION "{place.name}"')


def test_plan_refuses_a_session_that_fires_no_triggers(place: Yard) -> None:
    """Foreign keys are triggers too."""
    replica = replace(
        place, conninfo=f"{place.conninfo} options='-c session_replication_role=replica'"
    )
    with pytest.raises(UsageError, match="session_replication_role"):
        replica.plan()
