"""Every route that Airflow's REST API has, asked by a stranger and by the auditor."""

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
# They read by POST, or mark what one likes for oneself.
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
# These look at the body before they know what one wants to change.
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
def places(airflow: FabAirflow) -> dict[str, str]:
    """What the routes are asked about: it is there, so that none says only that it is not."""
    with psycopg.connect(airflow.database) as connection:
        connection.execute(BACKFILL, [DAG])
    found = airflow.session(ADMIN).get(f"{airflow.url}/api/v2/dags/{DAG}", timeout=120).json()
    return {
        "dag_id": DAG,
        "dag_run_id": RUN,
        "task_id": "seal",
        "map_index": "-1",
        "try_number": "1",
        "file_token": found["file_token"],
    }


@pytest.fixture(scope="module")
def routes(airflow: FabAirflow) -> list[Route]:
    """Every route of Airflow's REST API, from the server itself."""
    paths = airflow.session(ADMIN).get(f"{airflow.url}/openapi.json", timeout=120).json()["paths"]
    found = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    assert len(found) > 100
    return found


def status(
    session: requests.Session, airflow: FabAirflow, places: dict[str, str], route: Route
) -> int:
    """Ask a route."""
    method, path = route
    for name in [part.partition("}")[0] for part in path.split("{")[1:]]:
        path = path.replace(f"{{{name}}}", places.get(name, "1"))
    answer = session.request(
        method,
        f"{airflow.url}{path}",
        json=None if method == "GET" else BODIES.get(route, {"unfit": True}),
        timeout=120,
        allow_redirects=False,
    )
    return answer.status_code


def test_a_stranger_gets_nothing_of_any_route(
    airflow: FabAirflow, places: dict[str, str], routes: list[Route]
) -> None:
    """But health, version, and the way to the log-in."""
    session = airflow.session(None)
    found = {one for one in routes if status(session, airflow, places, one) != 401}
    assert found == OPEN_TO_ALL


def test_an_auditor_changes_nothing_by_any_route(
    airflow: FabAirflow, places: dict[str, str], routes: list[Route]
) -> None:
    """Read-only is said of every route that the server has, also those of versions to come."""
    session = airflow.session("Auditor")
    writing = [one for one in routes if one[0] != "GET" and one not in CHANGES_NOTHING]
    found = {one: status(session, airflow, places, one) for one in writing}
    assert found == dict.fromkeys(writing, 403)


def test_the_auditor_sees_who_did_what(airflow: FabAirflow) -> None:
    """Triggers, pauses, clearings and answers stand in Airflow's own log of events."""
    answer = airflow.session("Auditor").get(f"{airflow.url}/api/v2/eventLogs", timeout=120)
    events = {(one["event"], one["owner"]) for one in answer.json()["event_logs"]}
    assert ("trigger_dag_run", "admin") in events
