"""Rules held against a batch: how often its rows are read, and which rows break which rule."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from include.intake import batches
from include.intake.checks import OwnChecks, broken_by_rule
from include.policy.intake import Check
from tests.intake.conftest import NOW, OLDEST, Rig

SCANS = "SELECT seq_scan + coalesce(idx_scan, 0) FROM pg_stat_xact_user_tables WHERE relname = %s"


@contextmanager
def looking(rig: Rig) -> Iterator[psycopg.Connection[Any]]:
    incoming = rig.table.incoming
    with (
        psycopg.connect(rig.conninfo, autocommit=True) as connection,
        batches.unit_of_work(connection, incoming, write=False),
    ):
        connection.execute("SET LOCAL max_parallel_workers_per_gather = 0")
        yield connection


def scans(connection: psycopg.Connection[Any]) -> int:
    """How often the incoming table was read in this transaction."""
    row = connection.execute(SCANS, ["intake_record"]).fetchone()
    assert row is not None
    return int(row[0])


def own(rig: Rig, **conditions: str) -> OwnChecks:
    """Conditions of the company's own."""
    title = {"en": "a", "zh-CN": "b"}
    checks = tuple(Check(id=name, title=title, condition=one) for name, one in conditions.items())
    rule = rig.table.incoming.rule.model_copy(update={"checks": checks})
    return OwnChecks(replace(rig.table.incoming, rule=rule))


@pytest.mark.parametrize("number", [1, 5])
def test_conditions_of_the_company_need_two_scans_however_many_are_broken(
    rig: Rig, number: int
) -> None:
    """One counts, one names the rows of all."""
    checker = own(rig, **{f"c{n}": f"i.intake_id % 7 <> {n}" for n in range(number)})
    with looking(rig) as connection:
        before = scans(connection)
        where = rig.table.incoming.pending(OLDEST)
        verdicts, keys = broken_by_rule([checker], connection, where, NOW)
        assert scans(connection) - before == 2
        assert all(len(keys[one.rule]) == one.broken for one in verdicts)
        assert {key for found in keys.values() for key in found} == {
            (str(key),)
            for (key,) in connection.execute(
                "SELECT intake_id FROM intake_record WHERE batch_id = %s AND status = 'pending' "
                "AND intake_id %% 7 < %s",
                [OLDEST, number],
            )
        }


def test_a_condition_that_is_unknown_is_broken(rig: Rig) -> None:
    """Null is not true; a percent sign is no parameter; one wrong condition stops only itself."""
    checker = own(rig, no="NULL", yes="i.email LIKE '%@%'", wrong="i.nothing = 1")
    with looking(rig) as connection:
        where = rig.table.incoming.pending(OLDEST)
        verdicts, keys = broken_by_rule([checker], connection, where, NOW)
    assert [(one.rule, one.broken) for one in verdicts] == [("no", 30), ("yes", 0), ("wrong", None)]
    assert {rule: len(found) for rule, found in keys.items()} == {"no": 30}


def test_rules_of_one_id_hide_no_broken_row(rig: Rig) -> None:
    """Packs may not have it; were it so, the rows of both would be kept out."""
    checkers = [own(rig, same=f"i.intake_id % 7 <> {n}") for n in (1, 2)]
    with looking(rig) as connection:
        where = rig.table.incoming.pending(OLDEST)
        verdicts, keys = broken_by_rule(checkers, connection, where, NOW)
    assert len(keys["same"]) == sum(one.broken or 0 for one in verdicts)


def test_rules_that_a_record_tells_by_itself_need_one_scan(rig: Rig) -> None:
    """However many of the suite's are broken; the names of broken rows are kept from it.

    Great Expectations counts rows, and what its own expectations are about, in a scan each.
    """
    (suite, _) = rig.table.checkers
    alone = [
        one
        for one in suite.expectations  # type: ignore[attr-defined]
        if not any(word in one.type for word in ("distinct", "exist_in", "related"))
        and getattr(one.kwargs, "part", "") != "division"
    ]
    counts = []
    core = [one for one in alone if one.type == "expect_column_values_to_not_be_null"]
    for some in ([alone[0], core[0]], alone):
        with looking(rig) as connection:
            before = scans(connection)
            where = rig.table.incoming.pending(OLDEST)
            checker = replace(suite, expectations=some)  # type: ignore[type-var]
            _, keys = broken_by_rule([checker], connection, where, NOW)
            counts.append(scans(connection) - before)
    assert len(keys) > 2
    assert counts[0] == counts[1]
