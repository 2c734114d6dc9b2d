"""Errors of the customer database: cancelled queries, locks and terminated sessions."""

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


def codes(checked: Checked) -> set[str]:
    return {finding.code for finding in checked.record.findings}


def figure(checked: Checked, name: str) -> float | None:
    (metric,) = [metric for metric in checked.record.metrics if metric.name == name]
    return metric.value


def test_query_cancelled_by_timeout_is_not_repeated_for_each_expectation(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's statement timeout cancels the query.

    The results of all expectations state the timeout as the reason.
    """
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
    monkeypatch.setattr(checking.Check, "_alone", lambda _self, rule: alone.append(rule))
    checked = company.check()
    assert not alone
    assert codes(checked) == {"quality.unchecked"}
    assert {"57014" in str(finding.for_engineers) for finding in checked.record.findings} == {True}


def test_only_the_expectation_that_refers_to_a_locked_table_has_no_result(
    database: str, state: str, tmp_path: Path
) -> None:
    rules = suite(
        branch="expect_column_values_to_exist_in, "
        "kwargs: {column: branch_id, collection: branch, field: id}",
        filled="expect_column_values_to_not_be_null, kwargs: {column: name}",
    )
    company = Company.make(database, state, tmp_path / "p", quality__person=rules)
    with psycopg.connect(database, autocommit=True) as admin:
        user, name = admin.info.user, admin.info.dbname
        admin.execute(f'ALTER ROLE "{user}" IN DATABASE "{name}" SET lock_timeout = 300'.encode())
    with psycopg.connect(database) as other_session:
        other_session.execute("LOCK branch")
        results = {rule["rule"]: rule for rule in company.collection(company.check())["rules"]}
    assert (results["branch"]["broken"], results["filled"]["broken"]) == (None, 0)


def test_only_the_expectation_whose_sql_condition_reads_a_locked_table_has_no_result(
    database: str, state: str, tmp_path: Path
) -> None:
    """The table that the SQL condition reads is locked, but the checked records are not."""
    rules = suite(
        looked_up="expect_records_to_satisfy, "
        "kwargs: {condition: 'branch_id IN (SELECT id FROM branch)'}",
        filled="expect_column_values_to_not_be_null, kwargs: {column: name}",
    )
    company = Company.make(database, state, tmp_path / "p", quality__person=rules)
    company.do("UPDATE person SET name = NULL WHERE id <= 2")
    with psycopg.connect(database, autocommit=True) as admin:
        user, name = admin.info.user, admin.info.dbname
        admin.execute(f'ALTER ROLE "{user}" IN DATABASE "{name}" SET lock_timeout = 300'.encode())
    with psycopg.connect(database) as other_session:
        other_session.execute("LOCK branch")
        results = {rule["rule"]: rule for rule in company.collection(company.check())["rules"]}
    assert (results["looked_up"]["broken"], results["filled"]["broken"]) == (None, 2)


def test_finding_contains_lock_of_another_session_as_reason_if_checked_table_is_locked(
    company: Company, database: str
) -> None:
    """The finding must not suggest a missing privilege."""
    with psycopg.connect(database, autocommit=True) as admin:
        user, name = admin.info.user, admin.info.dbname
        admin.execute(f'ALTER ROLE "{user}" IN DATABASE "{name}" SET lock_timeout = 300'.encode())
    with psycopg.connect(database) as other_session:
        other_session.execute("LOCK person")
        findings = company.check().record.findings
    reasons = {
        (str(finding.message.values["reason"]), "55P03" in str(finding.for_engineers))
        for finding in findings
        if finding.code.endswith("unchecked")
    }
    ((reason, has_code),) = reasons
    assert "another session locks the records" in reason
    assert has_code


def test_check_waits_only_once_for_a_locked_table_that_several_expectations_read(
    database: str, state: str, tmp_path: Path
) -> None:
    """While the check waits, its open snapshot delays the server's vacuum."""
    related = "expect_related_records, kwargs: {collection: consent, field: person_id, key: id}"
    filled = "expect_column_values_to_not_be_null, kwargs: {column: name}"
    rules = suite(filled=filled, **{f"consent_{n}": related for n in range(9)})
    company = Company.make(database, state, tmp_path / "p", quality__person=rules)
    company.check()
    with psycopg.connect(database, autocommit=True) as admin:
        user, name = admin.info.user, admin.info.dbname
        admin.execute(f'ALTER ROLE "{user}" IN DATABASE "{name}" SET lock_timeout = 1000'.encode())
    with psycopg.connect(database) as other_session:
        other_session.execute("LOCK consent")
        started = time.monotonic()
        results = {rule["rule"]: rule for rule in company.collection(company.check())["rules"]}
    assert time.monotonic() - started < 6  # waiting for each rule would take more than 10 s
    assert results["filled"]["broken"] == 0
    assert {result["broken"] for rule, result in results.items() if rule != "filled"} == {None}


@pytest.mark.parametrize("where", ["read_schema", "tracking", "department_expression"])
def test_check_raises_database_unavailable_if_its_database_session_is_terminated(
    company: Company, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The session may also end between two queries. After the error, the task is retried."""
    company.check()
    module = checks if where == "read_schema" else collection
    original = getattr(module, where)

    def terminate_first(*arguments: Any) -> Any:
        with psycopg.connect(company.conninfo, autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        time.sleep(0.2)
        return original(*arguments)

    monkeypatch.setattr(module, where, terminate_first)
    with pytest.raises(DatabaseUnavailable, match="was lost while its records"):
        company.check(sealed=False)
