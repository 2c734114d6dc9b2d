"""Tests that compare scope and grade of sample incidents with the expected results.

The answer sheet of the sample company contains the expected results.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from include.incident.counting.database import count_all
from include.incident.rule_checks import INCIDENT
from include.incident.scope import Scope
from include.incident.scope_assessment import propose_grade
from include.incident.selection import Selection, check_selection
from include.local.postgres import EmbeddedPostgres
from include.policy import SHIPPED
from include.registry import load_pack
from include.sample_company import AnswerSheet, load
from include.sample_company.answers import IncidentAnswer
from include.sample_company.load import statements
from include.service_container import ROOT
from include.services.database import DatabaseAddress
from tests.support.databases import temporary_database

# In Shanghai this is the next day, as in the time windows of the answer sheet.
AS_OF = datetime(2026, 2, 28, 19, 30, tzinfo=UTC)
PACK = load_pack(SHIPPED)
NAMES = ("account", "partner", "papers", "found_papers", "minors", "everything")

GRANTS = ROOT / "include/incident/sample_grants.sql"


@dataclass(frozen=True)
class Courier:
    """The sample database, read with the login `courier_incident`."""

    address: DatabaseAddress
    sheet: AnswerSheet
    conninfo: str  # connection string of the owner

    def answer(self, name: str) -> IncidentAnswer:
        """Return the expected scope and grade of a sample incident."""
        return {incident.name: incident for incident in self.sheet.incidents}[name]

    def count(self, selection: dict[str, Any]) -> Scope:
        """Count the affected records with the rules of the shipped policy pack.

        Args:
            selection: fields of the `Selection` that defines which records are affected.
        """
        rules = PACK.require(INCIDENT)
        assert rules is not None
        return count_all(
            check_selection(Selection(**selection), rules), rules, PACK.databases,
            {"courier": self.address}, version=1, moment=AS_OF, zone=PACK.calendar.zone,
        )  # fmt: skip


@pytest.fixture(scope="module")
def courier(postgres: EmbeddedPostgres) -> Iterator[Courier]:
    """Provide the sample database, read by a role that has only the rights in sample_grants.sql."""
    with (
        temporary_database(postgres) as name,
        psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin,
    ):
        admin.execute("CREATE ROLE courier_incident LOGIN PASSWORD 'x'")
        with psycopg.connect(postgres.conninfo(name)) as connection:
            sheet = load(connection, customers=3000, as_of=AS_OF)
            for statement in statements(GRANTS):
                connection.execute(statement)
        conninfo = postgres.conninfo(name, "courier_incident", "x")
        yield Courier(DatabaseAddress.from_conninfo(conninfo), sheet, postgres.conninfo(name))
        with psycopg.connect(postgres.conninfo(name), autocommit=True) as connection:
            connection.execute("DROP OWNED BY courier_incident")
        admin.execute("DROP ROLE courier_incident")


@pytest.mark.parametrize("name", NAMES)
def test_counts_and_proposed_grade_equal_answer_sheet_of_sample_company(
    courier: Courier, name: str
) -> None:
    answer = courier.answer(name)
    scope = courier.count(answer.selection)
    assert not scope.unknown
    (counted,) = scope.counted
    expected = {name: count for name, count in answer.records.items() if name in counted.records}
    assert (counted.subjects, counted.records) == (answer.subjects, expected)
    assert sum(answer.records.values()) == sum(expected.values())
    assert (counted.sensitive, counted.minors, counted.age_unknown) == (
        answer.sensitive, answer.minors, answer.age_unknown,
    )  # fmt: skip
    assert (counted.log_rows, counted.not_found) == (answer.log_rows, answer.not_found)
    assert sum(counted.departments.values()) == (0 if name == "everything" else counted.subjects)
    assert counted.everything is (name == "everything")
    proposed = propose_grade(scope, PACK.require(INCIDENT))
    assert (proposed.grade, proposed.certain) == (answer.grade, True)


def test_each_incident_on_answer_sheet_of_sample_company_affects_people(courier: Courier) -> None:
    assert tuple(incident.name for incident in courier.sheet.incidents) == NAMES
    for incident in courier.sheet.incidents:
        assert 0 < incident.subjects <= 3000
        assert (incident.subjects == 3000) is (incident.name == "everything")
    assert courier.answer("account").log_rows > courier.answer("account").subjects // 2
    assert courier.answer("minors").minors == courier.answer("minors").subjects == 18
    assert courier.answer("everything").age_unknown == 6


def test_scope_is_unchanged_after_json_round_trip(courier: Courier) -> None:
    scope = courier.count(courier.answer("account").selection)
    stored = scope.as_json()
    assert Scope.model_validate(stored) == scope
    assert "." not in str(stored["counted"][0]["records"])


def test_scope_as_json_contains_no_customer_data(courier: Courier) -> None:
    text = str(courier.count({}).as_json())
    for canary in courier.sheet.canaries:
        assert canary.value not in text


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT raw FROM intake_record",
        "SELECT signature FROM delivery_proof",
        "SELECT phone FROM employee",
        "SELECT name FROM employee",
        "SELECT contact FROM partner",
        "UPDATE customer SET email = ''",
        "DELETE FROM access_log",
        "CREATE TABLE public.mine ()",
    ],
)
def test_login_for_incidents_gets_permission_error_for_unneeded_columns_and_data_changes(
    courier: Courier, statement: str
) -> None:
    refused = pytest.raises(psycopg.errors.InsufficientPrivilege)
    with courier.address.connect() as connection, refused:
        connection.execute(statement.encode())


def test_data_categories_of_scope_do_not_include_columns_about_staff(courier: Courier) -> None:
    scope = courier.count(courier.answer("everything").selection)
    assert "user.unique_id" in scope.categories
    assert "user.workplace" not in scope.categories
