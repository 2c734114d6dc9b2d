"""Only the people assigned to a human step can answer it."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterable
from typing import Any

import psycopg
import pytest

from include.orchestration.access.roles import ALL, ROLES
from include.orchestration.human_step import human_steps
from include.service_container import ROOT
from tests.orchestration.access.conftest import RUN
from tests.support.fab import ADMIN, FabAirflow, account_of

pytestmark = pytest.mark.airflow
ASK = """
    WITH task AS (
        UPDATE task_instance SET state = 'awaiting_input'
        WHERE dag_id = %s AND run_id = %s AND task_id = %s RETURNING id
    )
    INSERT INTO hitl_detail
        (ti_id, options, subject, multiple, params, assignees, created_at, params_input)
    SELECT id, '["Approve", "Reject"]', 'May it be?', false, '{}', %s, now(), '{}' FROM task
"""


@pytest.fixture(scope="module")
def dags() -> dict[str, Any]:
    """Return all DAGs, parsed from their files, by DAG id."""
    return {
        path.stem: runpy.run_path(str(path))[path.stem]()
        for path in sorted((ROOT / "dags").glob("*.py"))
    }


@pytest.fixture(scope="module")
def asking(dags: dict[str, Any]) -> dict[str, set[str]]:
    """Return the names of the human steps of each DAG that has human steps."""
    return {name: set(steps) for name, dag in dags.items() if (steps := human_steps(dag))}


def test_every_workflow_can_be_read_by_a_role_of_the_roles_table(dags: dict[str, Any]) -> None:
    assert set(dags) == ALL
    assert {dag for role in ROLES for dag in role.reads} == ALL


def test_no_dag_sets_the_argument_access_control(dags: dict[str, Any]) -> None:
    """On a DAG with ``access_control``, FAB would revoke the permissions of ParcelSeal's roles."""
    assert {name: dag.access_control for name, dag in dags.items()} == dict.fromkeys(dags)


def test_roles_may_answer_exactly_the_workflows_that_have_human_tasks(
    asking: dict[str, set[str]],
) -> None:
    assert len(asking) >= 5
    assert {dag for role in ROLES for dag in role.answers} == set(asking)


def ask(airflow: FabAirflow, dag_id: str, step: str, people: Iterable[str]) -> None:
    """Store a required action that is assigned to people, as a worker's request to Airflow does."""
    assigned = json.dumps([{"id": person, "name": person} for person in people])
    with psycopg.connect(airflow.database) as connection:
        connection.execute("DELETE FROM hitl_detail")
        done = connection.execute(ASK, [dag_id, RUN, step, assigned])
        assert done.rowcount == 1


def answer(airflow: FabAirflow, role: str, dag_id: str, step: str) -> Any:
    return airflow.session(role).patch(
        f"{airflow.url}/api/v2/dags/{dag_id}/dagRuns/{RUN}/taskInstances/{step}/-1/hitlDetails",
        json={"chosen_options": ["Reject"], "params_input": {}},
        timeout=120,
    )


def test_answer_of_assigned_person_is_stored_with_account_of_that_person(
    airflow: FabAirflow, asking: dict[str, set[str]]
) -> None:
    """A person of each role that may answer the workflow gives an answer."""
    for dag_id, steps in asking.items():
        step = min(steps)
        for role in [role.name for role in ROLES if dag_id in role.answers]:
            ask(airflow, dag_id, step, [account_of(role)])
            response = answer(airflow, role, dag_id, step)
            assert response.status_code == 200, (dag_id, role, response.text)
            account = account_of(role)
            assert response.json()["responded_by"] == {"id": account, "name": account}


def test_person_without_assignment_or_without_role_gets_status_403_for_an_answer(
    airflow: FabAirflow,
) -> None:
    """Another person of the role, Admin, and an assigned person without the role are refused."""
    dag_id, step = "respond_to_incident", "grade"
    ask(airflow, dag_id, step, ["somebody_else", account_of("Data Engineer")])
    for role in ("On Call", "Compliance Officer", "Data Engineer", "Auditor", ADMIN):
        assert answer(airflow, role, dag_id, step).status_code == 403, role


def test_user_whose_fab_user_id_equals_an_assigned_staff_number_gets_status_403(
    airflow: FabAirflow,
) -> None:
    """A staff number may equal the user number that FAB gave to another person."""
    dag_id, step = "respond_to_incident", "grade"
    with psycopg.connect(airflow.database) as connection:
        query = "SELECT id::text FROM ab_user WHERE username = 'on_call'"
        (number,) = connection.execute(query).fetchone() or ("",)
    ask(airflow, dag_id, step, [number])
    assert answer(airflow, "On Call", dag_id, step).status_code == 403
