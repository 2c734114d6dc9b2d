"""Tests of partitions that an application detaches while the run is about to drop them."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from include.local.postgres import EmbeddedPostgres
from include.retention.execution import partitions
from tests.retention.retention_schema import OVER, retention_schema, rule

TABLES = f"""
CREATE TABLE e (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE e_years PARTITION OF e FOR VALUES FROM ('2019-01-01') TO ('2022-01-01')
    PARTITION BY RANGE (at);
CREATE TABLE e_2020 PARTITION OF e_years FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
INSERT INTO e VALUES (1, '{OVER}'), (2, '{OVER}');
"""


def test_partition_is_not_dropped_if_application_detaches_its_parent_table(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the detachment, the records of the partition do not belong to the mapped table."""
    try_locks = partitions._try_locks

    with retention_schema(
        postgres, TABLES, rules=[rule("e", "drop_partition")], mapped={"e": "e"}
    ) as schema:

        def detached(*arguments: Any) -> None:
            with psycopg.connect(schema.conninfo, autocommit=True) as other:
                other.execute("SET lock_timeout = '9s'")
                other.execute(f"ALTER TABLE {schema.name}.e DETACH PARTITION {schema.name}.e_years")
            monkeypatch.setattr(partitions, "_try_locks", try_locks)
            try_locks(*arguments)

        plan = schema.plan()
        assert plan.table("e").partitions
        monkeypatch.setattr(partitions, "_try_locks", detached)
        counts = schema.execute(plan)
        assert (counts.done, counts.partitions) == ({}, {})
        assert schema.run("SELECT count(*) FROM e_2020") == [(2,)]
