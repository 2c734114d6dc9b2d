"""Tests of checking a batch: the number of table scans, and which rows break which condition."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from include.intake import batches
from include.intake.checks import ConditionChecks, broken_by_rule
from include.policy.intake import Check
from tests.intake.conftest import NOW, OLDEST, Rig

SCANS = "SELECT seq_scan + coalesce(idx_scan, 0) FROM pg_stat_xact_user_tables WHERE relname = %s"


@contextmanager
def reading(rig: Rig) -> Iterator[psycopg.Connection[Any]]:
    incoming = rig.table.incoming
    with (
        psycopg.connect(rig.conninfo, autocommit=True) as connection,
        batches.unit_of_work(connection, incoming, write=False),
    ):
        connection.execute("SET LOCAL max_parallel_workers_per_gather = 0")
        yield connection


def scans(connection: psycopg.Connection[Any]) -> int:
    """Return how often this transaction has scanned the incoming table."""
    row = connection.execute(SCANS, ["intake_record"]).fetchone()
    assert row is not None
    return int(row[0])


def own(rig: Rig, **conditions: str) -> ConditionChecks:
    """Create a checker with the given conditions instead of those of the shipped intake.yaml.

    Args:
        rig: incoming table and databases of the test.
        conditions: SQL conditions by id.
    """
    title = {"en": "a", "zh-CN": "b"}
    checks = tuple(
        Check(id=name, title=title, condition=condition) for name, condition in conditions.items()
    )
    rule = rig.table.incoming.rule.model_copy(update={"checks": checks})
    return ConditionChecks(replace(rig.table.incoming, rule=rule))


@pytest.mark.parametrize("number", [1, 5])
def test_number_of_table_scans_does_not_depend_on_number_of_conditions(
    rig: Rig, number: int
) -> None:
    checker = own(rig, **{f"c{n}": f"i.intake_id % 7 <> {n}" for n in range(number)})
    with reading(rig) as connection:
        before = scans(connection)
        where = rig.table.incoming.pending(OLDEST)
        verdicts, keys = broken_by_rule([checker], connection, where, NOW)
        assert scans(connection) - before == 2
        assert all(len(keys[verdict.rule]) == verdict.broken for verdict in verdicts)
        assert {key for broken in keys.values() for key in broken} == {
            (str(key),)
            for (key,) in connection.execute(
                "SELECT intake_id FROM intake_record WHERE batch_id = %s AND status = 'pending' "
                "AND intake_id %% 7 < %s",
                [OLDEST, number],
            )
        }


def test_row_counts_as_invalid_if_its_condition_evaluates_to_null(rig: Rig) -> None:
    checker = own(rig, no="NULL", yes="i.email LIKE '%@%'", wrong="i.nothing = 1")
    with reading(rig) as connection:
        where = rig.table.incoming.pending(OLDEST)
        verdicts, keys = broken_by_rule([checker], connection, where, NOW)
    assert [(verdict.rule, verdict.broken) for verdict in verdicts] == [
        ("no", 30),
        ("yes", 0),
        ("wrong", None),
    ]
    assert {rule: len(broken) for rule, broken in keys.items()} == {"no": 30}


def test_all_rows_that_break_either_of_two_conditions_with_the_same_id_are_returned(
    rig: Rig,
) -> None:
    checkers = [own(rig, same=f"i.intake_id % 7 <> {n}") for n in (1, 2)]
    with reading(rig) as connection:
        where = rig.table.incoming.pending(OLDEST)
        verdicts, keys = broken_by_rule(checkers, connection, where, NOW)
    assert len(keys["same"]) == sum(verdict.broken or 0 for verdict in verdicts)


def test_expectations_about_single_rows_share_one_table_scan(rig: Rig) -> None:
    (suite, _) = rig.table.checkers
    alone = [
        expectation
        for expectation in suite.expectations  # type: ignore[attr-defined]
        if not any(word in expectation.type for word in ("distinct", "exist_in", "related"))
        and getattr(expectation.kwargs, "part", "") != "division"
    ]
    counts = []
    core = [rule for rule in alone if rule.type == "expect_column_values_to_not_be_null"]
    for some in ([alone[0], core[0]], alone):
        with reading(rig) as connection:
            before = scans(connection)
            where = rig.table.incoming.pending(OLDEST)
            checker = replace(suite, expectations=some)  # type: ignore[type-var]
            _, keys = broken_by_rule([checker], connection, where, NOW)
            counts.append(scans(connection) - before)
    assert len(keys) > 2
    assert counts[0] == counts[1]
