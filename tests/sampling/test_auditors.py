"""Tests of the auditors who may enter a seed: accounts of the policy pack, never everybody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from include.local.postgres import EmbeddedPostgres
from include.sampling.rules import AuditRules
from include.sampling.seed_entry import auditors_of
from include.services.errors import UsageError
from tests.sampling.company import Company, new_company, rules_of

STAFF = {"collection": "staff", "account": "login"}


@pytest.fixture(scope="module")
def company(
    postgres: EmbeddedPostgres, migrated_once: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Company]:
    """Provide a company with a staff table, in which one of the auditors has left."""
    with new_company(postgres, migrated_once, tmp_path_factory.mktemp("staff")) as company:
        company.sql(
            "CREATE TABLE staff (id int PRIMARY KEY, login text, audits bool, left_on date)"
        )
        company.sql(
            "INSERT INTO staff VALUES (1, 'E1', true, NULL), (2, 'E2', true, '2026-01-01'), "
            "(3, 'E3', false, NULL), (4, 'E4', true, NULL), (5, NULL, true, NULL)"
        )
        yield company


def auditors(company: Company, **more: Any) -> list[str]:
    rules = AuditRules.model_validate(rules_of(**more))
    return list(auditors_of(replace(company.context(), rules=rules)))


def test_auditors_are_only_the_accounts_of_audit_yaml_if_it_has_no_staff_table(
    company: Company,
) -> None:
    """The policy pack has no staff table, so only the listed accounts are auditors."""
    assert auditors(company, auditors={"accounts": ["E9", "E8"]}) == ["E9", "E8"]


def test_auditors_are_accounts_of_audit_yaml_and_staff_that_meet_the_condition(
    company: Company,
) -> None:
    """Staff who left and staff without an account are not auditors."""
    where = "p.audits AND p.left_on IS NULL"
    accounts = auditors(company, staff=STAFF, auditors={"accounts": ["E9", "E1"], "where": where})
    assert accounts == ["E9", "E1", "E4"]


def test_empty_list_of_auditors_raises_usage_error(company: Company) -> None:
    """Airflow would take an empty list as permission for everybody."""
    with pytest.raises(UsageError, match="No auditor may enter the seed") as caught:
        auditors(company, staff=STAFF, auditors={"where": "false"})
    assert "audit.yaml" in caught.value.action
