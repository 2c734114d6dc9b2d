"""Tests that no owner of the schedule and no person who started a run may approve its plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from include.local.postgres import EmbeddedPostgres
from include.policy.retention import Approval
from include.retention.planning.approval import PlanPeople, read_people
from tests.retention.retention_schema import RetentionSchema, retention_schema

STAFF = """
CREATE TABLE "staff %" (number text, "duty %" text, away boolean);
INSERT INTO "staff %" VALUES ('ana', 'owner', false), ('bo', 'checker', false),
  ('chen', 'checker', true), ('dai', 'checker', NULL), (NULL, 'checker', false),
  ('eva', 'checker', false), ('eva', 'clerk', false),
  ('fu', 'checker', false), ('fu', 'checker', false);
"""


@pytest.fixture(scope="module")
def schema(postgres: EmbeddedPostgres) -> Iterator[RetentionSchema]:
    with retention_schema(postgres, STAFF, mapped={"employee": "staff %"}) as approval:
        yield approval


def asked(schema: RetentionSchema, starter: str | None = None, **rule: Any) -> PlanPeople:
    approval = Approval.model_validate(
        {"staff": {"collection": "employee", "account": "number"}, **rule}
    )
    return read_people(schema.connection, schema.database, approval, [starter] if starter else [])


CHECKERS = {"where": """p."duty %" = 'checker' AND NOT p.away"""}
OWNERS = {"where": """p."duty %" LIKE 'own%'"""}


def test_read_people_returns_owners_and_approvers_who_meet_sql_conditions_in_staff_table(
    schema: RetentionSchema,
) -> None:
    people = asked(schema, owners=OWNERS, approvers=CHECKERS)
    assert people == PlanPeople(("ana",), ("bo",))


def test_read_people_returns_listed_approvers_and_staff_who_meet_the_condition(
    schema: RetentionSchema,
) -> None:
    people = asked(schema, owners=OWNERS, approvers={**CHECKERS, "accounts": ["zoe", "bo"]})
    assert people.approvers == ("zoe", "bo")


def test_owner_is_not_approver_if_account_differs_only_in_case_or_character_width(
    schema: RetentionSchema,
) -> None:
    accounts = {"accounts": ["ANA", "bo", "Ｃho"]}
    people = asked(schema, "cho", owners={"accounts": ["ana"]}, approvers=accounts)
    assert people.approvers == ("bo",)
    schema.connection.execute("""INSERT INTO "staff %" VALUES ('BO', 'clerk', false)""")
    try:
        assert asked(schema, owners=OWNERS, approvers=CHECKERS).approvers == ()
    finally:
        schema.connection.execute("""DELETE FROM "staff %" WHERE number = 'BO'""")


def test_owner_or_person_who_started_run_is_not_approver(schema: RetentionSchema) -> None:
    accounts = {"accounts": ["ana", "bo", "cho"]}
    people = asked(schema, "cho", owners={"accounts": ["ana"]}, approvers=accounts)
    assert people == PlanPeople(("ana", "cho"), ("bo",))
    assert asked(schema, "ana", owners={}, approvers={"accounts": ["ana"]}) == PlanPeople(
        ("ana",), ()
    )


def test_owner_who_is_away_is_not_approver(schema: RetentionSchema) -> None:
    schema.run("UPDATE \"staff %\" SET away = true WHERE number = 'ana'")
    people = asked(schema, owners=OWNERS, approvers={"accounts": ["ana", "bo"]})
    assert people == PlanPeople(("ana",), ("bo",))


def test_owner_with_two_rows_in_staff_table_is_not_approver(schema: RetentionSchema) -> None:
    schema.run("""
    INSERT INTO "staff %" VALUES ('gao', 'owner', false), ('gao', 'checker', false),
        ('hu', 'owner', false), ('hu', 'owner', false);
    """)
    people = asked(schema, owners=OWNERS, approvers={"accounts": ["gao", "hu", "bo"]})
    assert people == PlanPeople(("ana", "gao", "hu"), ("bo",))


def test_read_people_without_staff_table_returns_listed_accounts() -> None:
    rule = Approval.model_validate({"owners": {"accounts": "ana"}, "approvers": {"accounts": "bo"}})
    assert read_people(None, None, rule, ()) == PlanPeople(("ana",), ("bo",))
    assert read_people(None, None, Approval(), ["ana"]) == PlanPeople(("ana",), ())
