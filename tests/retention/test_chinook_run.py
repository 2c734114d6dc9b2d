"""A whole run on a database nobody here designed: what went, what stayed, and who let it go."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest

from include.evidence.model import Outcome, StepRecord
from include.local.postgres import EmbeddedPostgres
from include.retention.database import RetentionDatabase
from include.retention.planning.planner import plan_of
from include.services.errors import UsageError
from include.workplace import Workplace
from tests.retention import step_records as steps
from tests.retention.chinook import AS_OF
from tests.retention.place import chinook_in_run, chinook_place
from tests.support.registers import content_of

TABLES = ("invoice", "invoice_line", "customer", "employee")
# Written without ParcelSeal's help. A customer goes whose last invoice is over, or who has none.
OVER = {
    "invoice": "SELECT invoice_id FROM invoice WHERE invoice_date < '2021-04-01'",
    "invoice_line": "SELECT invoice_line_id FROM invoice_line JOIN invoice USING (invoice_id) "
    "WHERE invoice_date < '2021-04-01'",
    "customer": "SELECT customer_id FROM customer EXCEPT "
    "SELECT customer_id FROM invoice WHERE invoice_date >= '2021-04-01'",
    "employee": "SELECT employee_id FROM employee WHERE false",
}
# Of the customers, one buys no longer and one never did.
SCRIPT = """
DELETE FROM invoice_line WHERE invoice_id IN
    (SELECT invoice_id FROM invoice WHERE customer_id = 2 AND invoice_date >= '2021-04-01');
DELETE FROM invoice WHERE customer_id = 2 AND invoice_date >= '2021-04-01';
INSERT INTO customer (customer_id, first_name, last_name, email, support_rep_id)
    VALUES (900, 'Nobody', 'Else', 'n@example.org', 3);
"""
LIMIT = "limit: {records: 1}\n"
APPROVER, OTHER, OWNER = "bo", "chen", "ana"


def ids(place: Workplace, query: str) -> set[int]:
    with place.database("customer_db").connect() as connection:
        return {row[0] for row in connection.execute(query.encode())}


def every(table: str) -> str:
    return f"SELECT {table}_id FROM {table}"


@pytest.fixture(scope="module")
def place(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Chinook, an empty state database, and the pack."""
    names = [f"t_{uuid.uuid4().hex[:12]}" for _ in range(2)]
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        for name in names:
            admin.execute(f"CREATE DATABASE {name}".encode())
    conninfos = [postgres.conninfo(name) for name in names]
    return chinook_place(tmp_path_factory.mktemp("chinook"), *conninfos, SCRIPT, LIMIT)


def planned(one: RetentionDatabase) -> StepRecord:
    made = steps.plan(one, AS_OF.isoformat())
    assert made.data["request"], "the plan should be larger than usual"
    return made


def answered(
    one: RetentionDatabase, made: StepRecord, option: str, user: str | None, reason: str = ""
) -> Any:
    at, content = one.run.clock.now(), content_of(one.run.state, made)
    return steps.take(one, made, option=option, reason=reason, user=user, at=at, content=content)


@pytest.fixture(scope="module")
def left(place: Workplace) -> dict[str, set[int]]:
    """What is there before anything was approved."""
    return {table: ids(place, every(table)) for table in TABLES}


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
def test_what_no_entitled_person_approved_stays(
    place: Workplace,
    left: dict[str, set[int]],
    option: str,
    user: str | None,
    reason: str,
    code: str,
) -> None:
    """Silence, a rejection, the owner's own approval and a stranger's are all no approval."""
    one = chinook_in_run(place, f"refused {option} {user} {reason}")
    made = planned(one)
    found = answered(one, made, option, user, reason)
    assert {finding.code for finding in found.findings} == {code}
    waiting = [tripped["name"] for tripped in made.data["tripped"]]
    executed = steps.execute(one, made)
    assert executed.data["not_approved"] == waiting
    assert executed.data["done"] == {}
    assert {table: ids(place, every(table)) for table in TABLES} == left
    seen = steps.verify(one, made, executed, [])
    assert seen.outcome is Outcome.FAIL
    lines = next(one for one in made.data["tripped"] if one["name"] == "invoice_item")
    assert seen.data["unexplained"] >= lines["planned"]  # the others wait behind them


def test_who_started_the_run_may_not_approve_it(place: Workplace) -> None:
    """Although the pack names them; the other approver may."""
    one = chinook_in_run(place, "started by an approver", starter=APPROVER)
    made = planned(one)
    question = steps.ask(one, made)
    assert question is not None
    assert question.assigned == [OTHER]
    assert made.data["sha256"] in question.body
    found = answered(one, made, "Approve", APPROVER)
    assert [finding.code for finding in found.findings] == ["retention.own_request"]
    assert steps.execute(one, made).data["not_approved"]


def test_who_started_the_run_is_known_by_name_too(place: Workplace) -> None:
    """Where Airflow's auth manager has ids beside names, it tells who started a run by name."""
    one = chinook_in_run(place, "started by name", starter="ana.li")
    made = planned(one)
    found = steps.take(
        one,
        made,
        option="Approve",
        reason="",
        user=APPROVER,
        name="ana.li",
        at=one.run.clock.now(),
        content=content_of(one.run.state, made),
    )
    assert [finding.code for finding in found.findings] == ["retention.own_request"]
    assert steps.execute(one, made).data["not_approved"]


@pytest.fixture(scope="module")
def run(place: Workplace) -> dict[str, Any]:
    """One approved run, with what was there before and what PostgreSQL says is over."""
    one = chinook_in_run(place)
    before = {table: ids(place, every(table)) for table in TABLES}
    over = {table: ids(place, query) for table, query in OVER.items()}
    made = planned(one)
    answered(one, made, "Approve", APPROVER)
    executed = steps.execute(one, made)
    return {
        "before": before,
        "over": over,
        "plan": {
            found["collection"]: found["to_delete"] + found["to_mask"]
            for found in made.data["classes"]
        },
        "after": {table: ids(place, every(table)) for table in TABLES},
        "verified": steps.verify(one, made, executed, []),
    }


def test_the_plan_is_what_an_independent_query_counts(run: dict[str, Any]) -> None:
    """Of every table; customers whose invoices go in the same run count already."""
    assert run["plan"] == {table: len(over) for table, over in run["over"].items()}
    assert all(run["over"][table] for table in ("invoice", "invoice_line", "customer"))


def test_invoices_go_with_their_lines_and_customers_in_the_same_run(run: dict[str, Any]) -> None:
    """Lines first, then invoices, then customers: those who bought long ago and who never did."""
    for table in TABLES:
        assert run["after"][table] == run["before"][table] - run["over"][table]
    assert {2, 900} <= run["over"]["customer"]
    assert run["after"]["employee"] == run["before"]["employee"]


def test_nothing_is_left_and_no_reference_leads_nowhere(run: dict[str, Any]) -> None:
    """By the count afterwards."""
    assert run["verified"].outcome is Outcome.PASS
    assert run["verified"].data["unexplained"] == 0
    assert run["verified"].data["orphans"] == []


def test_a_second_run_has_nothing_to_do(place: Workplace, run: dict[str, Any]) -> None:
    """And asks nobody."""
    one = chinook_in_run(place, "run 2")
    made = steps.plan(one, AS_OF.isoformat())
    assert made.data["request"] is None
    assert steps.ask(one, made) is None
    assert {one["to_delete"] for one in made.data["classes"]} == {0}


def test_a_run_may_not_look_ahead_and_a_preview_may(place: Workplace, run: dict[str, Any]) -> None:
    """What would go in ten years is looked at only; the run names the command for it."""
    one = chinook_in_run(place, "ahead")
    moment = "2036-01-01"
    with pytest.raises(UsageError, match="in the future") as refused:
        steps.plan(one, moment)
    assert "retention plan --as-of" in refused.value.action
    seen = plan_of(one, moment, is_preview=True)
    assert seen.of("invoice_record").to_delete == len(run["after"]["invoice"])
    assert ids(place, every("invoice")) == run["after"]["invoice"]


@pytest.mark.parametrize("moment", ["0001-01-01", "9999-12-31", "9999-12-31T23:59:59-23:59"])
def test_a_moment_at_the_end_of_all_dates_is_refused(place: Workplace, moment: str) -> None:
    """No period could be added to it; nobody means it."""
    with pytest.raises(UsageError, match="too far away"):
        plan_of(chinook_in_run(place), moment, is_preview=True)
