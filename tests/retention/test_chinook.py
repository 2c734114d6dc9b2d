"""Tests of the retention schedule of the sample database Chinook."""

from __future__ import annotations

from pathlib import Path

import psycopg

from include.policy.retention import SqlClock
from include.registry import load_pack
from tests.retention.chinook_pack import AS_OF, DATABASE, chinook_pack


def test_policy_pack_for_chinook_sample_database_loads_without_problems(tmp_path: Path) -> None:
    pack = load_pack(chinook_pack(tmp_path))
    assert pack.remarks == ()
    assert [each.record_class for each in pack.retention] == [
        "invoice_record", "invoice_item", "buyer", "staff",
    ]  # fmt: skip
    assert [each.record_class for each in pack.retention if each.deletes][-1] == "buyer"
    assert pack.disposition.approval.approvers.accounts == ("bo", "chen")


def test_chinook_sample_database_has_expired_records_of_each_record_class(
    tmp_path: Path, database: str
) -> None:
    rules = {each.record_class: each for each in load_pack(chinook_pack(tmp_path)).retention}
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
