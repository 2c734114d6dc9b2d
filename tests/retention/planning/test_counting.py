"""Tests of the counts of one scan: how many records each legal hold keeps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from include.retention.planning import counting
from include.retention.planning.plan import HeldBy
from tests.retention.retention_schema import OVER, RetentionSchema, retention_schema, rule


@pytest.fixture
def schema(postgres: EmbeddedPostgres) -> Iterator[RetentionSchema]:
    table = f"""
    CREATE TABLE a (id int PRIMARY KEY, at date, who text);
    INSERT INTO a SELECT i, '{OVER}', i % 5 FROM generate_series(1, 20) i;
    """
    with retention_schema(postgres, table) as new_schema:
        new_schema.rules = [rule("a", keys={"subject": "t.who"})]
        yield new_schema


def test_record_under_two_legal_holds_counts_for_both_holds_but_once_in_total_of_plan(
    schema: RetentionSchema,
) -> None:
    first = schema.hold(HoldKind.SUBJECT, "1")
    every = schema.hold(HoldKind.CLASS, "a")
    nobody = schema.hold(HoldKind.SUBJECT, "7")
    last = schema.hold(HoldKind.SUBJECT, "2")
    planned = schema.plan().of("a")
    assert planned.held == 20
    assert planned.held_by == (
        HeldBy(hold=first.id, records=4),
        HeldBy(hold=every.id, records=20),
        HeldBy(hold=last.id, records=4),
    )
    assert nobody.id not in {each.hold for each in planned.held_by}


def test_plan_contains_record_counts_of_only_the_first_legal_holds_if_there_are_too_many(
    schema: RetentionSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "MOST_HOLDS", 3)
    holds = [schema.hold(HoldKind.SUBJECT, str(number)) for number in range(4)]
    planned = schema.plan().of("a")
    assert planned.held == 16
    assert [each.hold for each in planned.held_by] == [each.id for each in holds[:3]]
