"""Tests of a whole run on the sample database Chinook."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest

from include.evidence.model import Outcome, StepRecord
from include.local.postgres import EmbeddedPostgres
from include.retention.database import RetentionDatabase
from include.retention.planning.planner import plan_database
from include.service_container import Services
from include.services.errors import UsageError
from tests.retention import step_records as steps
from tests.retention.chinook_pack import AS_OF
from tests.retention.chinook_services import chinook_in_run, chinook_services
from tests.support.registers import content_of

TABLES = ("invoice", "invoice_line", "customer", "employee")
# Independent of ParcelSeal. A customer without unexpired invoices is deleted.
OVER = {
    "invoice": "SELECT invoice_id FROM invoice WHERE invoice_date < '2021-04-01'",
    "invoice_line": "SELECT invoice_line_id FROM invoice_line JOIN invoice USING (invoice_id) "
    "WHERE invoice_date < '2021-04-01'",
    "customer": "SELECT customer_id FROM customer EXCEPT "
    "SELECT customer_id FROM invoice WHERE invoice_date >= '2021-04-01'",
    "employee": "SELECT employee_id FROM employee WHERE false",
}
# One customer no longer buys, and one customer never bought.
SCRIPT = """
DELETE FROM invoice_line WHERE invoice_id IN
    (SELECT invoice_id FROM invoice WHERE customer_id = 2 AND invoice_date >= '2021-04-01');
DELETE FROM invoice WHERE customer_id = 2 AND invoice_date >= '2021-04-01';
INSERT INTO customer (customer_id, first_name, last_name, email, support_rep_id)
    VALUES (900, 'Nobody', 'Else', 'n@example.org', 3);
"""
LIMIT = "limit: {records: 1}\n"
APPROVER, OTHER, OWNER = "bo", "chen", "ana"


def ids(services: Services, query: str) -> set[int]:
    with services.database("customer_db").connect() as connection:
        return {row[0] for row in connection.execute(query.encode())}


def every(table: str) -> str:
    return f"SELECT {table}_id FROM {table}"


@pytest.fixture(scope="module")
def services(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Services:
    """Services with Chinook, an empty state database, and the policy pack of Chinook."""
    names = [f"t_{uuid.uuid4().hex[:12]}" for _ in range(2)]
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        for name in names:
            admin.execute(f"CREATE DATABASE {name}".encode())
    conninfos = [postgres.conninfo(name) for name in names]
    return chinook_services(tmp_path_factory.mktemp("chinook"), *conninfos, SCRIPT, LIMIT)


def planned(database: RetentionDatabase) -> StepRecord:
    plan_record = steps.plan(database, AS_OF.isoformat())
    assert plan_record.data["request"], "the plan should be larger than usual"
    return plan_record


def answered(
    database: RetentionDatabase,
    plan_record: StepRecord,
    option: str,
    user: str | None,
    reason: str = "",
) -> Any:
    at, content = database.run.clock.now(), content_of(database.run.state, plan_record)
    return steps.take(
        database, plan_record, option=option, reason=reason, user=user, at=at, content=content
    )


@pytest.fixture(scope="module")
def left(services: Services) -> dict[str, set[int]]:
    """The ids of all records by table, before any plan was approved."""
    return {table: ids(services, every(table)) for table in TABLES}


@pytest.mark.parametrize(
    ("option", "user", "reason", "code"),
    [
        ("", None, "", "retention.nobody"),
        ("Reject", APPROVER, "the invoices are disputed", "retention.rejected"),
        ("Reject", APPROVER, "", "retention.no_reason"),
        ("Approve", OWNER, "", "retention.own_request"),
        ("Approve", "somebody", "", "retention.not_entitled"),
    ],
)
def test_execution_without_valid_approval_erases_nothing(
    services: Services,
    left: dict[str, set[int]],
    option: str,
    user: str | None,
    reason: str,
    code: str,
) -> None:
    """The cases are: no answer, a rejection, and approvals of an owner and of a stranger."""
    database = chinook_in_run(services, f"refused {option} {user} {reason}")
    plan_record = planned(database)
    approval = answered(database, plan_record, option, user, reason)
    assert {finding.code for finding in approval.findings} == {code}
    waiting = [tripped["name"] for tripped in plan_record.data["tripped"]]
    executed = steps.execute(database, plan_record)
    assert executed.data["not_approved"] == waiting
    assert executed.data["done"] == {}
    assert {table: ids(services, every(table)) for table in TABLES} == left
    verified = steps.verify(database, plan_record, executed, [])
    assert verified.outcome is Outcome.FAIL
    lines = next(each for each in plan_record.data["tripped"] if each["name"] == "invoice_item")
    assert verified.data["unexplained"] >= lines["planned"]  # other records wait for these records


def test_person_who_started_run_may_not_approve_its_plan(services: Services) -> None:
    database = chinook_in_run(services, "started by an approver", starter=APPROVER)
    plan_record = planned(database)
    action = steps.ask(database, plan_record)
    assert action is not None
    assert action.assigned == [OTHER]
    assert plan_record.data["sha256"] in action.body
    approval = answered(database, plan_record, "Approve", APPROVER)
    assert [finding.code for finding in approval.findings] == ["retention.own_request"]
    assert steps.execute(database, plan_record).data["not_approved"]


def test_approval_is_invalid_if_approver_has_same_name_as_person_who_started_run(
    services: Services,
) -> None:
    """The ids and the names of people may differ in an auth manager of Airflow."""
    database = chinook_in_run(services, "started by name", starter="ana.li")
    plan_record = planned(database)
    approval = steps.take(
        database,
        plan_record,
        option="Approve",
        reason="",
        user=APPROVER,
        name="ana.li",
        at=database.run.clock.now(),
        content=content_of(database.run.state, plan_record),
    )
    assert [finding.code for finding in approval.findings] == ["retention.own_request"]
    assert steps.execute(database, plan_record).data["not_approved"]


@pytest.fixture(scope="module")
def run(services: Services) -> dict[str, Any]:
    """The results of one approved run, the records before and after it, and the expired records.

    A query determines the expired records independently of the plan.
    """
    database = chinook_in_run(services)
    before = {table: ids(services, every(table)) for table in TABLES}
    over = {table: ids(services, query) for table, query in OVER.items()}
    plan_record = planned(database)
    answered(database, plan_record, "Approve", APPROVER)
    executed = steps.execute(database, plan_record)
    return {
        "before": before,
        "over": over,
        "plan": {
            approval["collection"]: approval["to_delete"] + approval["to_mask"]
            for approval in plan_record.data["classes"]
        },
        "after": {table: ids(services, every(table)) for table in TABLES},
        "verified": steps.verify(database, plan_record, executed, []),
    }


def test_number_of_planned_records_equals_independent_count_of_expired_records(
    run: dict[str, Any],
) -> None:
    assert run["plan"] == {table: len(over) for table, over in run["over"].items()}
    assert all(run["over"][table] for table in ("invoice", "invoice_line", "customer"))


def test_run_deletes_expired_invoice_lines_invoices_and_customers_only(run: dict[str, Any]) -> None:
    for table in TABLES:
        assert run["after"][table] == run["before"][table] - run["over"][table]
    assert {2, 900} <= run["over"]["customer"]
    assert run["after"]["employee"] == run["before"]["employee"]


def test_verification_of_run_finds_no_record_without_reason_and_no_missing_referenced_record(
    run: dict[str, Any],
) -> None:
    assert run["verified"].outcome is Outcome.PASS
    assert run["verified"].data["unexplained"] == 0
    assert run["verified"].data["orphans"] == []


def test_second_run_plans_no_record_and_needs_no_approval(
    services: Services, run: dict[str, Any]
) -> None:
    database = chinook_in_run(services, "run 2")
    plan_record = steps.plan(database, AS_OF.isoformat())
    assert plan_record.data["request"] is None
    assert steps.ask(database, plan_record) is None
    assert {each["to_delete"] for each in plan_record.data["classes"]} == {0}


def test_plan_for_time_in_future_is_allowed_only_as_preview(
    services: Services, run: dict[str, Any]
) -> None:
    database = chinook_in_run(services, "ahead")
    moment = "2036-01-01"
    with pytest.raises(UsageError, match="in the future") as refused:
        steps.plan(database, moment)
    assert "retention plan --as-of" in refused.value.action
    verified = plan_database(database, moment, is_preview=True)
    assert verified.of("invoice_record").to_delete == len(run["after"]["invoice"])
    assert ids(services, every("invoice")) == run["after"]["invoice"]


@pytest.mark.parametrize("moment", ["0001-01-01", "9999-12-31", "9999-12-31T23:59:59-23:59"])
def test_plan_raises_usage_error_if_its_time_is_in_year_1_or_9999(
    services: Services, moment: str
) -> None:
    with pytest.raises(UsageError, match="is not supported"):
        plan_database(chinook_in_run(services), moment, is_preview=True)
