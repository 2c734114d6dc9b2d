"""The page of required actions: what assigned people and other readers see."""

from __future__ import annotations

import json
from collections.abc import Sequence

import psycopg
import pytest

from tests.plugins.pages_server import PagesServer
from tests.support.fab import ADMIN, account_of

pytestmark = pytest.mark.airflow
DAG, STEP = "enforce_retention", "approve"
SUBJECT = "May these records go? <script>alert(1)</script>"
OFFICER, REVIEWER, MANAGEMENT = (
    "Compliance Officer",  # answers this workflow
    "Information Management Reviewer",  # reads this workflow, and answers other workflows
    "Management",  # reads this workflow, and answers other workflows
)
ASK = """
    WITH task AS (
        UPDATE task_instance SET state = 'awaiting_input'
        WHERE dag_id = %s AND run_id = %s AND task_id LIKE %s RETURNING id
    )
    INSERT INTO hitl_detail
        (ti_id, options, subject, multiple, params, assignees, created_at, params_input)
    SELECT id, '["Approve", "Reject"]', %s, false, '{}', %s, now(), '{}' FROM task LIMIT 1
"""
RUN = "manual__for.the+list"


@pytest.fixture(scope="module", autouse=True)
def run(pages_server: PagesServer) -> None:
    """Create a queued run that is never executed."""
    answer = pages_server.airflow.session(ADMIN).post(
        f"{pages_server.airflow.url}/api/v2/dags/{DAG}/dagRuns",
        json={"dag_run_id": RUN, "logical_date": None, "conf": {}},
        timeout=120,
    )
    assert answer.ok, answer.text


def ask(pages_server: PagesServer, people: Sequence[str]) -> None:
    """Replace the required action of the task by a new one that is assigned to the given people."""
    assigned = json.dumps([{"id": person, "name": person} for person in people])
    with psycopg.connect(pages_server.airflow.database) as connection:
        connection.execute("DELETE FROM hitl_detail WHERE subject = %s", [SUBJECT])
        response = connection.execute(ASK, [DAG, RUN, f"%{STEP}%", SUBJECT, assigned or None])
        assert response.rowcount == 1


def listed_as(pages_server: PagesServer, role: str) -> tuple[bool, bool]:
    """Return how the page lists the required action for the user of a role.

    Returns:
        Two values: whether it is listed as the user's own action, and whether it is listed as an
        action of other people.
    """
    page = pages_server.get(role, "/waiting").text
    assert "<script>alert" not in page
    own_actions, _heading, other_actions = page.partition(
        "<h2>Required actions of other people</h2>"
    )
    text = "May these records go?"
    return text in own_actions, text in other_actions


def test_assigned_required_action_is_listed_as_own_task_only_for_assigned_users(
    pages_server: PagesServer,
) -> None:
    """Other users who may read the workflow see the required action and the assigned people."""
    ask(pages_server, [account_of(OFFICER)])
    assert listed_as(pages_server, OFFICER) == (True, False)
    assert listed_as(pages_server, REVIEWER) == (False, True)
    assert listed_as(pages_server, MANAGEMENT) == (False, True)
    link = f'href="/dags/{DAG}/runs/manual__for.the%2Blist/tasks/'
    assert link in pages_server.get(OFFICER, "/waiting").text


def test_required_action_is_hidden_without_permission_to_read_the_workflow(
    pages_server: PagesServer,
) -> None:
    """The required action is hidden even if the user is assigned."""
    ask(pages_server, [account_of("On Call")])
    assert listed_as(pages_server, "On Call") == (False, False)


def test_required_action_is_hidden_without_permission_to_read_required_actions(
    pages_server: PagesServer,
) -> None:
    ask(pages_server, [account_of("Audit Seed")])
    assert listed_as(pages_server, "Audit Seed") == (False, False)


def test_unassigned_required_action_is_listed_as_own_task_for_all_who_may_answer(
    pages_server: PagesServer,
) -> None:
    ask(pages_server, [])
    assert listed_as(pages_server, OFFICER) == (True, False)
    assert listed_as(pages_server, REVIEWER) == (False, True)
    ask(pages_server, [account_of(MANAGEMENT)])
    assert listed_as(pages_server, MANAGEMENT) == (False, True)
