"""Severity and scope on the sample database are those of its answer sheet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from include.incident.assessing import propose
from include.incident.counting.database import count_all
from include.incident.rule_checks import INCIDENT
from include.incident.scope import Scope
from include.incident.selection import Selection, checked
from include.local.postgres import EmbeddedPostgres
from include.policy import SHIPPED
from include.registry import load_pack
from include.sample_company import AnswerSheet, load
from include.sample_company.answers import IncidentAnswer
from include.sample_company.load import statements
from include.services.database import DatabaseAddress
from include.workplace import ROOT
from tests.support.databases import fresh

# Already the next day in Shanghai, as the windows of the sheet say.
AS_OF = datetime(2026, 2, 28, 19, 30, tzinfo=UTC)
PACK = load_pack(SHIPPED)
NAMES = ("account", "partner", "papers", "found_papers", "minors", "everything")

GRANTS = ROOT / "include/incident/sample_grants.sql"


@dataclass(frozen=True)
class Courier:
    """The sample as `courier_incident` sees it."""

    address: DatabaseAddress
    sheet: AnswerSheet
    conninfo: str  # of the owner

    def answer(self, name: str) -> IncidentAnswer:
        """What the sheet says of an incident."""
        return {one.name: one for one in self.sheet.incidents}[name]

    def count(self, selection: dict[str, Any]) -> Scope:
        """What the shipped pack counts."""
        rules = PACK.require(INCIDENT)
        assert rules is not None
        return count_all(
            checked(Selection(**selection), rules), rules, PACK.databases,
            {"courier": self.address}, version=1, moment=AS_OF, zone=PACK.calendar.zone,
        )  # fmt: skip


@pytest.fixture(scope="module")
def courier(postgres: EmbeddedPostgres) -> Iterator[Courier]:
    """The sample, read by the role that has the rights of sample_grants.sql and no others."""
    with (
        fresh(postgres) as name,
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
def test_scope_and_severity_equal_the_answer_sheet(courier: Courier, name: str) -> None:
    """People, records, sensitive information, minors, and the grade that they reach."""
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
    proposed = propose(scope, PACK.require(INCIDENT))
    assert (proposed.grade, proposed.certain) == (answer.grade, True)


def test_the_answers_are_about_something(courier: Courier) -> None:
    """Each incident affects somebody, none but one everybody: an empty sheet would agree too."""
    assert tuple(one.name for one in courier.sheet.incidents) == NAMES
    for one in courier.sheet.incidents:
        assert 0 < one.subjects <= 3000
        assert (one.subjects == 3000) is (one.name == "everything")
    assert courier.answer("account").log_rows > courier.answer("account").subjects // 2
    assert courier.answer("minors").minors == courier.answer("minors").subjects == 18
    assert courier.answer("everything").age_unknown == 6


def test_what_is_kept_is_what_was_counted(courier: Courier) -> None:
    """As JSON without floats."""
    scope = courier.count(courier.answer("account").selection)
    kept = scope.as_json()
    assert Scope.model_validate(kept) == scope
    assert "." not in str(kept["counted"][0]["records"])


def test_no_value_of_a_customer_is_in_a_scope(courier: Courier) -> None:
    """None of the marked values, though everybody is counted."""
    told = str(courier.count({}).as_json())
    for canary in courier.sheet.canaries:
        assert canary.value not in told


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
def test_the_role_does_nothing_else(courier: Courier, statement: str) -> None:
    """It reads what is affected, and changes nothing."""
    refused = pytest.raises(psycopg.errors.InsufficientPrivilege)
    with courier.address.connect() as connection, refused:
        connection.execute(statement.encode())


def test_who_entered_a_record_is_no_information_about_its_customer(courier: Courier) -> None:
    """Columns about staff stay out of the categories, of which the notice to customers tells."""
    scope = courier.count(courier.answer("everything").selection)
    assert "user.unique_id" in scope.categories
    assert "user.workplace" not in scope.categories
