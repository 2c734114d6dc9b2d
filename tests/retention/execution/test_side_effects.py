"""Tests that deletions and masks are rolled back if triggers or rules change other records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from include.retention.execution import batches, cycles
from include.services.errors import UsageError
from tests.retention.retention_schema import OVER, YOUNG, RetentionSchema, retention_schema, rule

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
def schema(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RetentionSchema]:
    for module in (batches, cycles):
        monkeypatch.setattr(module, "PAUSE", 0)
    with retention_schema(postgres, TABLES) as created:
        created.mapped = {"a": "a", "b": "b"}
        created.rules = [rule("a", keys={"subject": "t.who"}), rule("b", keys={"subject": "t.who"})]
        yield created


def state_of_b(schema: RetentionSchema) -> list[tuple[object, ...]]:
    return schema.run("SELECT id, n FROM b ORDER BY id")


@pytest.mark.parametrize("timing", ["BEFORE", "AFTER", "deferred"])
@pytest.mark.parametrize("does", list(DOES))
def test_deletion_is_rolled_back_if_trigger_changes_other_mapped_table(
    schema: RetentionSchema, does: str, timing: str
) -> None:
    """The trigger may also fire at the commit. Records without that side effect are deleted."""
    schema.hold(HoldKind.SUBJECT, "p3")
    schema.run("UPDATE a SET who = 'other' WHERE id = 3")
    deferred = "DEFERRABLE INITIALLY DEFERRED" if timing == "deferred" else ""
    schema.run(trigger(DOES[does], timing="AFTER" if deferred else timing, deferred=deferred))
    before = state_of_b(schema)
    counts = schema.execute(schema.plan())
    assert state_of_b(schema) == before
    assert schema.keys("a") == {3}
    assert (counts.done, counts.refused) == ({"a": 5}, {("a", "changed"): 1})
    (effect,) = counts.side_effects["a"].values()
    table = f"{schema.name}.b"
    expected = {
        "deletes": (table, 1, 0, False),
        "updates": (table, 0, 1, False),
        "empties": (table, 0, 0, True),
        "drops": (table, 0, 0, True),
    }
    assert (effect.table, effect.deleted, effect.updated, effect.rewritten) == expected[does]
    assert schema.erased() == {"a": 5}


def test_deletion_is_rolled_back_if_trigger_deletes_more_records_of_same_table(
    schema: RetentionSchema,
) -> None:
    schema.run(f"INSERT INTO a VALUES (7, '{YOUNG}', 'p7'), (8, '{OVER}', 'p8')")
    schema.hold(HoldKind.SUBJECT, "p8")
    schema.run(trigger("DELETE FROM a WHERE id > 6"))
    assert schema.execute(schema.plan()).done == {"a": 5}
    assert schema.keys("a") == {3, 7, 8}


def test_deletion_is_rolled_back_if_rewrite_rule_of_database_deletes_from_other_mapped_table(
    schema: RetentionSchema,
) -> None:
    schema.run("CREATE RULE also AS ON DELETE TO a DO ALSO DELETE FROM b WHERE id = OLD.id")
    counts = schema.execute(schema.plan())
    assert counts.done == {}
    assert len(state_of_b(schema)) == 6


def test_mask_is_rolled_back_if_trigger_changes_other_mapped_table(
    schema: RetentionSchema,
) -> None:
    schema.rules = [rule("a", "mask", mask={"name": "name"})]
    schema.run(trigger(DOES["updates"], event="UPDATE"))
    counts = schema.execute(schema.plan())
    assert (counts.done, counts.refused) == ({"a": 5}, {("a", "changed"): 1})
    assert state_of_b(schema) == [(n, 0) for n in range(1, 7)]


def test_rows_that_trigger_inserts_are_allowed_and_counted(schema: RetentionSchema) -> None:
    """Inserted rows of a mapped table are counted.

    Tables outside of the data map are not checked.
    """
    schema.run(
        trigger(f"INSERT INTO log VALUES (OLD.id); INSERT INTO b VALUES (9, '{YOUNG}', 'x')")
    )
    counts = schema.execute(schema.plan())
    assert (counts.done, counts.refused) == ({"a": 6}, {})
    assert counts.inserted == {f"{schema.name}.b": 1}


@pytest.mark.parametrize("timing", ["BEFORE", "AFTER"])
def test_updates_by_trigger_are_accepted_and_counted_if_policy_pack_allows_them(
    schema: RetentionSchema, timing: str
) -> None:
    schema.rules = [rule("a", triggers_update=["b"]), rule("b")]
    schema.run(trigger(DOES["updates"], timing=timing))
    counts = schema.execute(schema.plan())
    assert (counts.done, counts.refused) == ({"a": 6}, {})
    assert counts.updated == {f"{schema.name}.b": 1}
    assert (3, 1) in state_of_b(schema)


@pytest.mark.parametrize("does", ["deletes", "empties", "drops"])
def test_deletion_is_rolled_back_if_trigger_does_more_than_allowed_updates(
    schema: RetentionSchema, does: str
) -> None:
    schema.rules = [rule("a", triggers_update=["b"]), rule("b")]
    schema.run(trigger(f"{DOES['updates']}; {DOES[does]}"))
    before = state_of_b(schema)
    assert schema.execute(schema.plan()).done == {"a": 5}
    assert state_of_b(schema) == before


def test_execution_ignores_missing_table_in_the_retention_rule_key_named_triggers_update(
    schema: RetentionSchema,
) -> None:
    schema.mapped |= {"ghost": "ghost"}
    schema.rules = [rule("a", triggers_update=["ghost"])]
    assert schema.execute(schema.plan()).done == {"a": 6}


def test_deletion_is_rolled_back_if_only_other_record_class_allows_trigger_updates(
    schema: RetentionSchema,
) -> None:
    schema.rules = [rule("a"), rule("b", triggers_update=["a"])]
    schema.run(trigger(DOES["updates"]))
    assert schema.execute(schema.plan()).done == {"a": 5}
    assert state_of_b(schema) == [(n, 0) for n in range(1, 7)]


def test_updates_by_trigger_in_foreign_key_cycle_are_accepted_if_one_record_class_allows_them(
    schema: RetentionSchema,
) -> None:
    schema.run(
        """
        ALTER TABLE a ADD up int REFERENCES a;
        UPDATE a SET up = 7 - id;
        """
    )
    schema.rules = [rule("a", triggers_update=["b"]), rule("b")]
    schema.run(trigger(DOES["updates"]))
    counts = schema.execute(schema.plan())
    assert (counts.done, counts.updated) == ({"a": 6}, {f"{schema.name}.b": 1})


def test_deletion_is_not_rolled_back_if_database_sets_foreign_keys_to_null(
    schema: RetentionSchema,
) -> None:
    """One foreign key is in another table, and one is in the table of the deleted records."""
    schema.run(
        f"""
        CREATE TABLE c (id int PRIMARY KEY, a int REFERENCES a ON DELETE SET NULL, at date);
        INSERT INTO c SELECT n, 1 + n % 6, '{YOUNG}' FROM generate_series(1, 20) n;
        CREATE TABLE d (id int PRIMARY KEY, up int REFERENCES d ON DELETE SET NULL, at date);
        INSERT INTO d SELECT n, n / 2 + 1, '{OVER}' FROM generate_series(1, 200) n;
        INSERT INTO d VALUES (201, 7, '{YOUNG}');
        """
    )
    schema.mapped |= {"c": "c", "d": "d"}
    schema.rules = [rule("a"), rule("c"), rule("d")]
    counts = schema.execute(schema.plan())
    assert (counts.done, counts.refused) == ({"a": 6, "d": 200}, {})
    assert schema.run("SELECT count(*) FROM c WHERE a IS NULL") == [(20,)]


@pytest.mark.parametrize("heir", ["without the key", "with its own key", "made before"])
def test_foreign_key_sets_null_in_inheriting_table_only_if_that_table_has_its_own_foreign_key(
    schema: RetentionSchema, heir: str
) -> None:
    """A foreign key does not apply to tables that inherit from its table (INHERITS)."""
    key = "FOREIGN KEY (a) REFERENCES a ON DELETE SET NULL"
    columns = "(id int PRIMARY KEY, a int, at date"
    schema.run(
        {
            "without the key": f"CREATE TABLE c {columns}, {key}); CREATE TABLE d () INHERITS (c);",
            "with its own key": f"CREATE TABLE c {columns}, {key});"
            f"CREATE TABLE d ({key}) INHERITS (c);",
            "made before": f"CREATE TABLE d {columns}, {key}); CREATE TABLE c {columns});"
            "ALTER TABLE d INHERIT c;",
        }[heir]
    )
    schema.run("INSERT INTO c VALUES (1, 1), (2, 2); INSERT INTO d VALUES (1, 1), (3, 3)")
    schema.mapped |= {"c": "c", "d": "d"}
    schema.rules = [rule("a")]
    counts = schema.execute(schema.plan())
    assert (counts.done, counts.refused) == ({"a": 6}, {})
    assert schema.run("SELECT count(*) FROM ONLY d WHERE a IS NULL") == [
        (0 if heir == "without the key" else 2,)
    ]


def test_deletion_is_not_rolled_back_if_it_moves_referring_records_to_other_partition(
    schema: RetentionSchema,
) -> None:
    """PostgreSQL counts an update that moves a row as a deletion and an insertion."""
    schema.run(
        f"""
        CREATE TABLE c (id int, a int REFERENCES a ON DELETE SET NULL, at date)
            PARTITION BY LIST (a);
        CREATE TABLE c_null PARTITION OF c FOR VALUES IN (NULL);
        CREATE TABLE c_rest PARTITION OF c DEFAULT;
        INSERT INTO c SELECT n, 1 + n % 6, '{YOUNG}' FROM generate_series(1, 20) n;
        """
    )
    schema.mapped |= {"c": "c"}
    schema.rules = [rule("a")]
    counts = schema.execute(schema.plan())
    assert (counts.done, counts.refused, counts.inserted) == ({"a": 6}, {}, {})


def test_partition_is_not_dropped_if_trigger_deletes_from_other_mapped_table(
    schema: RetentionSchema,
) -> None:
    schema.run(
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
    schema.mapped |= {"e": "e", "f": "f"}
    schema.rules = [rule("e", "drop_partition", detach=["f.e", "f.e_at"])]
    counts = schema.execute(schema.plan())
    assert counts.done == {"e": 1}  # row by row: record 2, to which no record refers
    assert counts.partitions == {}
    assert len(state_of_b(schema)) == 6
    schema.run("DROP TRIGGER react ON f")
    assert schema.execute(schema.plan(), run="2").done == {"e": 1}


def test_foreign_key_cycle_is_kept_if_trigger_deletes_from_other_mapped_table(
    schema: RetentionSchema,
) -> None:
    schema.run(
        f"""
        CREATE TABLE c (id int PRIMARY KEY, next int REFERENCES c, at date);
        INSERT INTO c VALUES (1, NULL, '{OVER}'), (2, 1, '{OVER}');
        UPDATE c SET next = 2 WHERE id = 1;
        CREATE FUNCTION react() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN DELETE FROM b WHERE id = OLD.id; RETURN OLD; END$$;
        CREATE TRIGGER react AFTER DELETE ON c FOR EACH ROW EXECUTE FUNCTION react();
        """
    )
    schema.mapped |= {"c": "c"}
    schema.rules = [rule("c")]
    counts = schema.execute(schema.plan())
    assert (counts.done, counts.refused) == ({}, {("c", "changed"): 2})
    assert len(state_of_b(schema)) == 6
    schema.run("DROP TRIGGER react ON c")
    assert schema.execute(schema.plan(), run="2").done == {"c": 2}


def test_mask_is_rolled_back_if_trigger_changes_primary_key(schema: RetentionSchema) -> None:
    """Otherwise the ledger would contain the key of a record that does not exist."""
    schema.rules = [rule("a", "mask", mask={"name": "name"})]
    schema.run(trigger("NEW.id := 33", event="UPDATE", timing="BEFORE"))
    counts = schema.execute(schema.plan())
    assert (counts.done, counts.refused) == ({"a": 5}, {("a", "kept"): 1})


def test_plan_and_execution_raise_usage_error_if_postgresql_setting_track_counts_is_off(
    schema: RetentionSchema,
) -> None:
    uncounted = replace(schema, conninfo=f"{schema.conninfo} options='-c track_counts=off'")
    with pytest.raises(UsageError, match="track_counts"):
        uncounted.plan()
    with pytest.raises(UsageError, match="track_counts"):
        uncounted.execute(schema.plan())
    assert len(schema.keys("a")) == 6


def test_plan_lists_triggers_rewrite_rules_and_publications_that_its_deletions_and_updates_activate(
    schema: RetentionSchema,
) -> None:
    """Only tables whose records are deleted or lose a foreign key are considered.

    Objects that are disabled, or that act only on INSERT, are not listed.
    """
    schema.run(
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
        CREATE PUBLICATION "{schema.name}" FOR TABLE a, c;
        """
    )
    schema.mapped |= {"c": "c"}
    schema.rules = [rule("a")]
    try:
        reactions = schema.plan().reactions
    finally:
        schema.run(f'DROP PUBLICATION "{schema.name}"')
    function = f"{schema.name}.react"
    assert [
        (reaction.collection, reaction.kind, reaction.name, reaction.events, reaction.function)
        for reaction in reactions
    ] == [
        ("a", "trigger", "gone", ("DELETE",), function),
        ("c", "trigger", "changed", ("UPDATE",), function),
        ("a", "rule", "also", ("DELETE",), None),
        ("a", "publication", schema.name, ("DELETE",), None),
        ("c", "publication", schema.name, ("UPDATE",), None),
    ]


def test_plan_fails_if_a_rewrite_rule_of_the_database_replaces_the_delete_statement(
    schema: RetentionSchema,
) -> None:
    """Such a rule may return the key of one record and delete another record.

    The ledger would then contain the wrong key.
    """
    schema.run(
        "CREATE RULE other AS ON DELETE TO a DO INSTEAD DELETE FROM a WHERE id = OLD.id + 1 "
        "RETURNING OLD.*"
    )
    with pytest.raises(UsageError, match=r"rule other of \w+\.a replaces DELETE"):
        schema.plan()
    schema.rules = [rule("b")]
    assert schema.planned() == {"b": 0}


@pytest.mark.parametrize("publish", ["delete", "insert"])
def test_plan_fails_if_published_table_has_no_replica_identity(
    schema: RetentionSchema, publish: str
) -> None:
    """PostgreSQL would refuse each deletion, unless the publication leaves out deletions."""
    schema.run(
        f"""
        CREATE TABLE e (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE e_old PARTITION OF e FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
        INSERT INTO e VALUES (1, '{OVER}');
        ALTER TABLE e_old REPLICA IDENTITY NOTHING;
        CREATE PUBLICATION "{schema.name}" FOR TABLE e
            WITH (publish = '{publish}', publish_via_partition_root = true);
        """
    )
    schema.mapped |= {"e": "e"}
    schema.rules = [rule("e")]
    try:
        if publish == "delete":
            with pytest.raises(UsageError, match=r"e_old, which has no replica identity"):
                schema.plan()
        else:
            assert schema.execute(schema.plan()).done == {"e": 1}
    finally:
        schema.run(f'DROP PUBLICATION "{schema.name}"')


def test_plan_raises_usage_error_if_session_replication_role_is_replica(
    schema: RetentionSchema,
) -> None:
    """PostgreSQL enforces foreign keys by triggers too."""
    replica = replace(
        schema, conninfo=f"{schema.conninfo} options='-c session_replication_role=replica'"
    )
    with pytest.raises(UsageError, match="session_replication_role"):
        replica.plan()
