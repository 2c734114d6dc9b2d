"""Whoever is asked in a human step can answer it, and nobody else."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterable
from typing import Any

import psycopg
import pytest

from include.orchestration.access.roles import ALL, ROLES
from include.orchestration.human import human_steps
from include.workplace import ROOT
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
    """Every DAG, from its file."""
    return {
        path.stem: runpy.run_path(str(path))[path.stem]()
        for path in sorted((ROOT / "dags").glob("*.py"))
    }


@pytest.fixture(scope="module")
def asking(dags: dict[str, Any]) -> dict[str, set[str]]:
    """The human steps of each DAG that has any."""
    return {name: set(steps) for name, dag in dags.items() if (steps := human_steps(dag))}


def test_the_table_knows_every_workflow(dags: dict[str, Any]) -> None:
    """A new workflow is given to somebody, or nobody but Admin sees it."""
    assert set(dags) == ALL
    assert {dag for role in ROLES for dag in role.reads} == ALL


def test_no_workflow_brings_roles_of_its_own(dags: dict[str, Any]) -> None:
    """FAB would take all that the table gives on a DAG whose file has ``access_control``."""
    assert {name: dag.access_control for name, dag in dags.items()} == dict.fromkeys(dags)


def test_each_workflow_that_asks_has_people_who_may_answer(asking: dict[str, set[str]]) -> None:
    """And nobody may answer where nothing is asked."""
    assert len(asking) >= 5
    assert {dag for role in ROLES for dag in role.answers} == set(asking)


def ask(airflow: FabAirflow, dag_id: str, step: str, people: Iterable[str]) -> None:
    """Put a question before people, as the worker's request to Airflow does."""
    assigned = json.dumps([{"id": one, "name": one} for one in people])
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


def test_who_is_asked_answers_in_the_name_of_their_account(
    airflow: FabAirflow, asking: dict[str, set[str]]
) -> None:
    """By any role that answers this workflow; the answer bears the name that the pack knows."""
    for dag_id, steps in asking.items():
        step = min(steps)
        for role in [one.name for one in ROLES if dag_id in one.answers]:
            ask(airflow, dag_id, step, [account_of(role)])
            given = answer(airflow, role, dag_id, step)
            assert given.status_code == 200, (dag_id, role, given.text)
            account = account_of(role)
            assert given.json()["responded_by"] == {"id": account, "name": account}


def test_nobody_else_answers(airflow: FabAirflow) -> None:
    """Neither another of the same role, nor Admin, nor whoever is asked but has no such role."""
    dag_id, step = "respond_to_incident", "grade"
    ask(airflow, dag_id, step, ["somebody_else", account_of("Data Engineer")])
    for role in ("On Call", "Compliance Officer", "Data Engineer", "Auditor", ADMIN):
        assert answer(airflow, role, dag_id, step).status_code == 403, role


def test_numbers_of_fab_name_nobody(airflow: FabAirflow) -> None:
    """A staff number that happens to be FAB's number of another person lets that one in nowhere."""
    dag_id, step = "respond_to_incident", "grade"
    with psycopg.connect(airflow.database) as connection:
        query = "SELECT id::text FROM ab_user WHERE username = 'on_call'"
        (number,) = connection.execute(query).fetchone() or ("",)
    ask(airflow, dag_id, step, [number])
    assert answer(airflow, "On Call", dag_id, step).status_code == 403
