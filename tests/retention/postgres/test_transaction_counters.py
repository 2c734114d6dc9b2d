"""Tests that a deletion is rolled back if the counts of PostgreSQL and of the run differ."""

from __future__ import annotations

import psycopg
import pytest

from include.retention.postgres.transaction_counters import TransactionCounters, TriggerChanges
from tests.retention.execution.test_side_effects import schema as schema
from tests.retention.retention_schema import YOUNG, RetentionSchema, rule

CHILD = """
CREATE TABLE c (id int, a int REFERENCES a ON DELETE SET NULL) {partitions};
{parts}
INSERT INTO c VALUES (1, 3), (2, 4);
CREATE FUNCTION react() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {does}; RETURN NULL; END$$;
CREATE TRIGGER react BEFORE UPDATE ON c FOR EACH ROW WHEN (OLD.id = 1) EXECUTE FUNCTION react();
"""
PARTITIONED = ("PARTITION BY LIST (id)", "CREATE TABLE c_all PARTITION OF c DEFAULT;")
DELETES = "DELETE FROM c WHERE id = OLD.id"


@pytest.mark.parametrize(
    ("child", "does", "allowed"),
    [
        (("", ""), f"{DELETES}; INSERT INTO c VALUES (9)", []),
        (PARTITIONED, DELETES, []),
        (("", ""), "NULL", ["c"]),
        (PARTITIONED, "NULL", ["c"]),
    ],
    ids=["replaced", "deleted from a partition", "kept", "kept in a partition"],
)
def test_deletion_is_rolled_back_if_trigger_of_referring_table_prevents_on_delete_set_null(
    schema: RetentionSchema, child: tuple[str, str], does: str, allowed: list[str]
) -> None:
    schema.run(CHILD.format(partitions=child[0], parts=child[1], does=does))
    schema.mapped |= {"c": "c"}
    schema.rules = [rule("a", triggers_update=allowed)]
    counts = schema.execute(schema.plan())
    assert (counts.done, counts.refused) == ({"a": 5}, {("a", "changed"): 1})
    assert schema.run("SELECT id, a FROM c ORDER BY id") == [(1, 3), (2, None)]


def test_deletion_succeeds_if_another_session_runs_vacuum_full_on_a_table_meanwhile(
    schema: RetentionSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_recorded = TransactionCounters.require_recorded

    def rewritten(counters: TransactionCounters) -> TriggerChanges:
        with psycopg.connect(schema.conninfo, autocommit=True) as other:
            other.execute(f"VACUUM FULL {schema.name}.b".encode())
        return require_recorded(counters)

    monkeypatch.setattr(TransactionCounters, "require_recorded", rewritten)
    counts = schema.execute(schema.plan())
    assert (counts.done, counts.refused) == ({"a": 6}, {})
    assert schema.run(f"SELECT count(*) FROM b WHERE at = '{YOUNG}'") == [(6,)]
