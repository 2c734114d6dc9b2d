"""The schedule of a database nobody here designed says what its author meant."""

from __future__ import annotations

from pathlib import Path

import psycopg

from include.policy.retention import SqlClock
from include.registry import load_pack
from tests.retention.chinook import AS_OF, DATABASE, chinook_pack


def test_the_pack_loads_without_remark(tmp_path: Path) -> None:
    """Clocks of other tables, a class that is kept, approvers by account."""
    pack = load_pack(chinook_pack(tmp_path))
    assert pack.remarks == ()
    assert [one.record_class for one in pack.retention] == [
        "invoice_record", "invoice_item", "buyer", "staff",
    ]  # fmt: skip
    assert [one.record_class for one in pack.retention if one.deletes][-1] == "buyer"
    assert pack.disposition.approval.approvers.accounts == ("bo", "chen")


def test_at_the_moment_some_of_each_class_are_expired(tmp_path: Path, database: str) -> None:
    """Invoices up to three years old and their lines stay; customers go by their last invoice."""
    rules = {one.record_class: one for one in load_pack(chinook_pack(tmp_path)).retention}
    with psycopg.connect(database) as connection:
        connection.execute(DATABASE.read_bytes())
        connection.execute("SET TimeZone = 'UTC'")

        def expired(name: str) -> set[int]:
            rule = rules[name]
            clock = rule.clock.sql if isinstance(rule.clock, SqlClock) else f"t.{rule.clock[0]}"
            query = (
                f"SELECT {rule.collection}_id FROM {rule.collection} t "
                f"WHERE ({clock}) + interval '{rule.period.text}' < %s"
            )
            return {row[0] for row in connection.execute(query.encode(), [AS_OF])}

        def found(query: str) -> set[int]:
            return {row[0] for row in connection.execute(query.encode())}

        old = found("SELECT invoice_id FROM invoice WHERE invoice_date < '2021-04-01'")
        assert expired("invoice_record") == old
        lines = found("SELECT invoice_line_id FROM invoice_line")
        kept = found(
            "SELECT invoice_line_id FROM invoice_line JOIN invoice USING (invoice_id) "
            "WHERE invoice_date >= '2021-04-01'"
        )
        assert expired("invoice_item") == lines - kept
        everyone = found("SELECT customer_id FROM customer")
        buying = found("SELECT customer_id FROM invoice WHERE invoice_date >= '2021-04-01'")
        never = everyone - found("SELECT customer_id FROM invoice")
        assert expired("buyer") == everyone - buying
        assert never < expired("buyer")
        for some, whole in ((old, 120), (expired("buyer"), len(everyone)), (kept, len(lines))):
            assert 0 < len(some) < whole
