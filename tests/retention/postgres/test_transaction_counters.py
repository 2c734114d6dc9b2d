"""Which differences between counted and recorded rows roll a deletion back, and which do not."""

from __future__ import annotations

import psycopg
import pytest

from include.retention.postgres.transaction_counters import ByTriggers, TransactionCounters
from tests.retention.execution.test_side_effects import place as place
from tests.retention.yard import YOUNG, Yard, rule

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
def test_deletion_is_rolled_back_where_a_trigger_keeps_a_row_from_losing_its_key(
    place: Yard, child: tuple[str, str], does: str, allowed: list[str]
) -> None:
    """As many rows are deleted as were to lose their key, or fewer do than `triggers_update` has.

    The first looks like a row that moves to another partition, and the others leave a row that
    refers to nothing.
    """
    place.run(CHILD.format(partitions=child[0], parts=child[1], does=does))
    place.mapped |= {"c": "c"}
    place.rules = [rule("a", triggers_update=allowed)]
    counts = place.execute(place.plan())
    assert (counts.done, counts.refused) == ({"a": 5}, {("a", "changed"): 1})
    assert place.run("SELECT id, a FROM c ORDER BY id") == [(1, 3), (2, None)]


def test_deletion_goes_on_where_another_session_rewrites_a_mapped_table(
    place: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new file of a table that this transaction has not locked is none of its changes."""
    require_recorded = TransactionCounters.require_recorded

    def rewritten(counters: TransactionCounters) -> ByTriggers:
        with psycopg.connect(place.conninfo, autocommit=True) as other:
            other.execute(f"VACUUM FULL {place.name}.b".encode())
        return require_recorded(counters)

    monkeypatch.setattr(TransactionCounters, "require_recorded", rewritten)
    counts = place.execute(place.plan())
    assert (counts.done, counts.refused) == ({"a": 6}, {})
    assert place.run(f"SELECT count(*) FROM b WHERE at = '{YOUNG}'") == [(6,)]
