"""Each combination of role, workflow and action in Airflow's REST API, also without a login."""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg
import pytest
import requests

from include.orchestration.access.roles import all_roles, table
from include.policy import SHIPPED
from include.registry import load_pack
from tests.orchestration.access.conftest import RUN
from tests.support.fab import ADMIN, FabAirflow, role_names

pytestmark = pytest.mark.airflow
ROLES = table(all_roles(load_pack(SHIPPED)))
# A workflow of each access group, including an approval and an incident.
SAMPLE_DAGS = ("enforce_retention", "backup_offsite", "remind_training", "respond_to_incident")
STRANGER = "a stranger"
NOBODY = ""
TASK = f"dags/{{dag}}/dagRuns/{RUN}/taskInstances/seal"


class Asked(NamedTuple):
    """A request, and the attribute of a role that allows the request.

    The body of each request is invalid, so an allowed request changes nothing.
    """

    allowed_by: str
    method: str
    path: str


UNFIT: dict[str, Any] = {"unfit": True}
ON_A_DAG = {
    "see it": Asked("reads", "GET", "dags/{dag}"),
    "see its run": Asked("reads", "GET", f"dags/{{dag}}/dagRuns/{RUN}"),
    "see its tasks": Asked("reads", "GET", f"dags/{{dag}}/dagRuns/{RUN}/taskInstances"),
    "see its requests": Asked("reads", "GET", f"dags/{{dag}}/dagRuns/{RUN}/hitlDetails"),
    "trigger": Asked("triggers", "POST", "dags/{dag}/dagRuns"),
    "answer": Asked("answers", "PATCH", f"{TASK}/-1/hitlDetails"),
    "clear a task": Asked("clears", "POST", "dags/{dag}/clearTaskInstances"),
    "clear a run": Asked("clears", "POST", f"dags/{{dag}}/dagRuns/{RUN}/clear"),
    "mark a task": Asked("clears", "PATCH", TASK),
    "mark a run": Asked("clears", "PATCH", f"dags/{{dag}}/dagRuns/{RUN}"),
    "pause": Asked("pauses", "PATCH", "dags/{dag}"),
    "read a log": Asked("logs", "GET", f"{TASK}/logs/1"),
    "read XCom": Asked("xcoms", "GET", f"{TASK}/xcomEntries"),
    "read the code": Asked("code", "GET", "dagSources/{dag}"),
    "write XCom": Asked(NOBODY, "POST", f"{TASK}/xcomEntries"),
}
OF_ADMIN = {
    "read connections": ("GET", "connections"),
    "write a connection": ("POST", "connections"),
    "test a connection": ("POST", "connections/test"),
    "read variables": ("GET", "variables"),
    "write a variable": ("POST", "variables"),
    "write a pool": ("POST", "pools"),
    "read users": ("GET", "../../auth/fab/v1/users"),
    "read roles": ("GET", "../../auth/fab/v1/roles"),
}


def is_allowed(session: requests.Session, airflow: FabAirflow, method: str, path: str) -> bool:
    """Send a request; return whether the server allows it."""
    url = requests.compat.urljoin(f"{airflow.url}/api/v2/", path)
    answer = session.request(method, url, json=None if method == "GET" else UNFIT, timeout=120)
    assert answer.status_code in {200, 401, 403, 404, 422}, (path, answer.text)
    return answer.status_code not in {401, 403}


@pytest.mark.parametrize("role", [*role_names(), STRANGER])
def test_role_has_exactly_the_rights_of_the_roles_table(airflow: FabAirflow, role: str) -> None:
    session = airflow.session(None if role == STRANGER else role)
    allowed = {
        (name, dag): is_allowed(session, airflow, request.method, request.path.format(dag=dag))
        for dag in SAMPLE_DAGS
        for name, request in ON_A_DAG.items()
    }
    assert allowed == {
        (name, dag): is_expected(role, request.allowed_by, dag)
        for dag in SAMPLE_DAGS
        for name, request in ON_A_DAG.items()
    }
    only_admin = {
        name: is_allowed(session, airflow, *request) for name, request in OF_ADMIN.items()
    }
    assert only_admin == dict.fromkeys(OF_ADMIN, role == ADMIN)


def is_expected(role: str, act: str, dag_id: str) -> bool:
    """Return whether a role should have a right.

    Roles of the table have the rights of the table, Admin has all rights, and a request without
    login has none.

    Args:
        role: name of the role; `STRANGER` for a request without login.
        act: attribute of a role that gives the right, such as ``triggers``; empty if only Admin has
            the right.
        dag_id: DAG id of the workflow.
    """
    if role in ROLES:
        return act != NOBODY and dag_id in ROLES[role].dags(act)
    return role == ADMIN


@pytest.mark.parametrize("role", [*ROLES])
def test_dag_run_and_task_lists_omit_workflows_that_a_role_may_not_read(
    airflow: FabAirflow, role: str
) -> None:
    session = airflow.session(role)
    lists = {
        "dags": "dags",
        "dags/~/dagRuns": "dag_runs",
        "dags/~/dagRuns/~/taskInstances": "task_instances",
    }
    for path, key in lists.items():
        dag_ids: set[str] = set()
        for offset in range(0, 2000, 100):
            address = f"{airflow.url}/api/v2/{path}?limit=100&offset={offset}"
            page = session.get(address, timeout=120).json()[key]
            dag_ids |= {row["dag_id"] for row in page}
            if len(page) < 100:
                break
        assert dag_ids == ROLES[role].reads, path
    path = "dags/~/dagRuns/~/taskInstances/~/xcomEntries"
    assert session.get(f"{airflow.url}/api/v2/{path}", timeout=120).status_code == 403


@pytest.fixture(scope="module")
def incident_asset(airflow: FabAirflow) -> str:
    """Create an asset for the bundle of an incident, with an event; return the asset's name."""
    name = "x-parcelseal://sealed-bundle/respond_to_incident"
    with psycopg.connect(airflow.database) as connection:
        connection.execute(
            """
            WITH made AS (
                INSERT INTO asset (name, uri, "group", extra, created_at, updated_at)
                VALUES (%(name)s, %(name)s, 'asset', '{}', now(), now()) RETURNING id
            )
            INSERT INTO asset_event
                (asset_id, extra, source_task_id, source_dag_id, source_run_id, source_map_index,
                 timestamp)
            SELECT id, '{}', 'seal', 'respond_to_incident', %(run)s, -1, now() FROM made
            """,
            {"name": name, "run": RUN},
        )
    return name


@pytest.mark.parametrize("role", [*role_names(), STRANGER])
def test_only_admin_data_engineer_and_auditor_see_assets(
    airflow: FabAirflow, role: str, incident_asset: str
) -> None:
    """Only Admin can create events by hand.

    Events of workflows that a role cannot read are hidden.
    """
    session = airflow.session(None if role == STRANGER else role)
    may_see = role in {ADMIN, "Data Engineer", "Auditor"}
    for path in ("assets", "assets/aliases", "assets/events"):
        assert is_allowed(session, airflow, "GET", path) == may_see, path
    assert is_allowed(session, airflow, "POST", "assets/events") == (role == ADMIN)
    if may_see:
        url = f"{airflow.url}/api/v2/assets/events"
        events = session.get(url, timeout=120).json()["asset_events"]
        assets = {event["name"] for event in events}
        assert (incident_asset in assets) == (role != "Data Engineer")
