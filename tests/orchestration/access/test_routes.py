"""Every route of Airflow's REST API, requested without a login and by the auditor."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
import requests

from tests.orchestration.access.conftest import RUN
from tests.support.fab import ADMIN, FabAirflow

pytestmark = pytest.mark.airflow
DAG = "enforce_retention"
Route = tuple[str, str]
# Routes that read by POST, or set favourites of the user.
CHANGES_NOTHING = {
    ("POST", "/api/v2/dags/{dag_id}/dagRuns/list"),
    ("POST", "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/list"),
    ("POST", "/api/v2/dags/{dag_id}/favorite"),
    ("POST", "/api/v2/dags/{dag_id}/unfavorite"),
}
OPEN_TO_ALL = {
    ("GET", "/api/v2/monitor/health"),
    ("GET", "/api/v2/version"),
    ("GET", "/api/v2/auth/login"),
    ("GET", "/api/v2/auth/logout"),
}
# Routes that validate the body before they check permissions.
DELETING = {"actions": [{"action": "delete", "entities": ["seen"]}]}
BODIES: dict[Route, Any] = {
    ("PATCH", "/api/v2/connections"): DELETING,
    ("PATCH", "/api/v2/pools"): DELETING,
    ("PATCH", "/api/v2/variables"): DELETING,
    ("PATCH", "/api/v2/dags/{dag_id}/dagRuns"): DELETING,
    ("POST", "/api/v2/dags/{dag_id}/clearDagRuns"): {"dag_runs": [{"dag_run_id": RUN}]},
    ("POST", "/api/v2/connections/enqueue-test"): {"connection_id": "c", "conn_type": "http"},
}
BACKFILL = """
    INSERT INTO backfill (id, dag_id, from_date, to_date, dag_run_conf, is_paused,
        reprocess_behavior, max_active_runs, created_at, updated_at)
    VALUES (1, %s, now(), now(), '{}', false, 'none', 1, now(), now())
"""


@pytest.fixture(scope="module")
def path_parameters(airflow: FabAirflow) -> dict[str, str]:
    """Return path parameters that name existing objects. With them, no route answers 404."""
    with psycopg.connect(airflow.database) as connection:
        connection.execute(BACKFILL, [DAG])
    dag = airflow.session(ADMIN).get(f"{airflow.url}/api/v2/dags/{DAG}", timeout=120).json()
    return {
        "dag_id": DAG,
        "dag_run_id": RUN,
        "task_id": "seal",
        "map_index": "-1",
        "try_number": "1",
        "file_token": dag["file_token"],
    }


@pytest.fixture(scope="module")
def routes(airflow: FabAirflow) -> list[Route]:
    """Return every route of Airflow's REST API, from the server's OpenAPI document."""
    paths = airflow.session(ADMIN).get(f"{airflow.url}/openapi.json", timeout=120).json()["paths"]
    operations = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    assert len(operations) > 100
    return operations


def status(
    session: requests.Session, airflow: FabAirflow, path_parameters: dict[str, str], route: Route
) -> int:
    """Request a route; return the HTTP status."""
    method, path = route
    for name in [part.partition("}")[0] for part in path.split("{")[1:]]:
        path = path.replace(f"{{{name}}}", path_parameters.get(name, "1"))
    answer = session.request(
        method,
        f"{airflow.url}{path}",
        json=None if method == "GET" else BODIES.get(route, {"unfit": True}),
        timeout=120,
        allow_redirects=False,
    )
    return answer.status_code


def test_all_routes_except_public_routes_return_status_401_without_login(
    airflow: FabAirflow, path_parameters: dict[str, str], routes: list[Route]
) -> None:
    """The only exceptions are health, version and log-in."""
    session = airflow.session(None)
    answered = {
        route for route in routes if status(session, airflow, path_parameters, route) != 401
    }
    assert answered == OPEN_TO_ALL


def test_routes_that_change_data_return_status_403_for_the_auditor(
    airflow: FabAirflow, path_parameters: dict[str, str], routes: list[Route]
) -> None:
    """The test also covers routes that a future Airflow version adds."""
    session = airflow.session("Auditor")
    writing = [route for route in routes if route[0] != "GET" and route not in CHANGES_NOTHING]
    statuses = {key: status(session, airflow, path_parameters, key) for key in writing}
    assert statuses == dict.fromkeys(writing, 403)


def test_auditor_can_read_the_event_log(airflow: FabAirflow) -> None:
    answer = airflow.session("Auditor").get(f"{airflow.url}/api/v2/eventLogs", timeout=120)
    events = {(log["event"], log["owner"]) for log in answer.json()["event_logs"]}
    assert ("trigger_dag_run", "admin") in events
