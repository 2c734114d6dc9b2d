"""What the customers' server refuses: cancelled queries, locks, sessions that end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.expectations import check as checking
from include.quality import check as checks
from include.quality import collection
from include.registry import load_pack
from include.services.database import DatabaseUnavailable
from tests.policy.packs import write_pack
from tests.quality.support import MAP, Checked, Company, suite


def codes(done: Checked) -> set[str]:
    return {one.code for one in done.record.findings}


def figure(done: Checked, name: str) -> float | None:
    (found,) = [one for one in done.record.metrics if one.name == name]
    return found.value


def test_a_cancelled_query_is_not_asked_again(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's own time limit holds, and every rule says so."""
    with psycopg.connect(company.conninfo, autocommit=True) as admin:
        user, name = admin.info.user, admin.info.dbname
        admin.execute(f'ALTER ROLE "{user}" IN DATABASE "{name}" SET statement_timeout = 1500')
    slow = suite(
        slow="expect_records_to_satisfy, kwargs: {condition: pg_sleep(0.2) IS NOT NULL}",
        filled="expect_column_values_to_not_be_null, kwargs: {column: name}",
    )
    company.pack = load_pack(
        write_pack(
            Path(str(company.pack.folder) + "-slow"), datamap__shop=MAP, quality__person=slow
        )
    )
    alone = []
    monkeypatch.setattr(checking.Check, "_alone", lambda _self, one: alone.append(one))
    done = company.check()
    assert not alone
    assert codes(done) == {"quality.unchecked"}
    assert {"57014" in str(one.message.values["reason"]) for one in done.record.findings} == {True}


def test_a_list_that_somebody_locked_stops_its_own_rule_only(
    database: str, state: str, tmp_path: Path
) -> None:
    """The others are judged, and nobody waits for ever."""
    rules = suite(
        branch="expect_column_values_to_exist_in, "
        "kwargs: {column: branch_id, collection: branch, field: id}",
        filled="expect_column_values_to_not_be_null, kwargs: {column: name}",
    )
    company = Company.make(database, state, tmp_path / "p", quality__person=rules)
    with psycopg.connect(database, autocommit=True) as admin:
        user, name = admin.info.user, admin.info.dbname
        admin.execute(f'ALTER ROLE "{user}" IN DATABASE "{name}" SET lock_timeout = 300'.encode())
    with psycopg.connect(database) as somebody:
        somebody.execute("LOCK branch")
        found = {one["rule"]: one for one in company.collection(company.check())["rules"]}
    assert (found["branch"]["broken"], found["filled"]["broken"]) == (None, 0)


def test_a_lock_that_only_a_condition_meets_stops_no_other_rule(
    database: str, state: str, tmp_path: Path
) -> None:
    """The records themselves can be read."""
    rules = suite(
        asked="expect_records_to_satisfy, "
        "kwargs: {condition: 'branch_id IN (SELECT id FROM branch)'}",
        filled="expect_column_values_to_not_be_null, kwargs: {column: name}",
    )
    company = Company.make(database, state, tmp_path / "p", quality__person=rules)
    company.do("UPDATE person SET name = NULL WHERE id <= 2")
    with psycopg.connect(database, autocommit=True) as admin:
        user, name = admin.info.user, admin.info.dbname
        admin.execute(f'ALTER ROLE "{user}" IN DATABASE "{name}" SET lock_timeout = 300'.encode())
    with psycopg.connect(database) as somebody:
        somebody.execute("LOCK branch")
        found = {one["rule"]: one for one in company.collection(company.check())["rules"]}
    assert (found["asked"]["broken"], found["filled"]["broken"]) == (None, 2)


def test_a_table_that_somebody_locked_is_not_called_unreadable(
    company: Company, database: str
) -> None:
    """Nobody has to look for a missing right."""
    with psycopg.connect(database, autocommit=True) as admin:
        user, name = admin.info.user, admin.info.dbname
        admin.execute(f'ALTER ROLE "{user}" IN DATABASE "{name}" SET lock_timeout = 300'.encode())
    with psycopg.connect(database) as somebody:
        somebody.execute("LOCK person")
        found = company.check().record.findings
    reasons = {str(one.message.values["reason"]) for one in found if one.code.endswith("unchecked")}
    assert len(reasons) == 1
    assert "55P03" in reasons.pop()


def test_a_lock_is_waited_for_once_and_not_for_each_rule(
    database: str, state: str, tmp_path: Path
) -> None:
    """Meanwhile the customers' server keeps a snapshot for us."""
    related = "expect_related_records, kwargs: {collection: consent, field: person_id, key: id}"
    filled = "expect_column_values_to_not_be_null, kwargs: {column: name}"
    rules = suite(filled=filled, **{f"consent_{n}": related for n in range(9)})
    company = Company.make(database, state, tmp_path / "p", quality__person=rules)
    company.check()
    with psycopg.connect(database, autocommit=True) as admin:
        user, name = admin.info.user, admin.info.dbname
        admin.execute(f'ALTER ROLE "{user}" IN DATABASE "{name}" SET lock_timeout = 1000'.encode())
    with psycopg.connect(database) as somebody:
        somebody.execute("LOCK consent")
        begun = time.monotonic()
        found = {one["rule"]: one for one in company.collection(company.check())["rules"]}
    assert time.monotonic() - begun < 6  # it would be more than ten
    assert found["filled"]["broken"] == 0
    assert {one["broken"] for rule, one in found.items() if rule != "filled"} == {None}


@pytest.mark.parametrize("where", ["read_schema", "tracking", "part_of"])
def test_a_session_that_ends_is_told_alike_wherever_it_does(
    company: Company, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """While nothing was asked for, too: the task is repeated."""
    company.check()
    module = checks if where == "read_schema" else collection
    original = getattr(module, where)

    def meanwhile(*given: Any) -> Any:
        with psycopg.connect(company.conninfo, autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        time.sleep(0.2)
        return original(*given)

    monkeypatch.setattr(module, where, meanwhile)
    with pytest.raises(DatabaseUnavailable, match="went away"):
        company.check(sealed=False)
