"""Logging in as people do, by FAB's form, and what Airflow's own pages then show."""

from __future__ import annotations

import re

import pytest
import requests

from tests.orchestration.access.conftest import RUN
from tests.support.fab import FabAirflow, account_of

pytestmark = pytest.mark.airflow
READER = "Department Reader: human_resources"
DAG = "remind_training"
# What Airflow's pages of a DAG, and its first page, ask the server for.
PAGES = (
    "/ui/config",
    "/ui/auth/menus",
    "/ui/dags",
    f"/ui/grid/runs/{DAG}",
    f"/ui/grid/structure/{DAG}",
    f"/ui/structure/structure_data?dag_id={DAG}",
    f"/ui/gantt/{DAG}/{RUN}",
    "/ui/dashboard/dag_stats",
    "/ui/dependencies",
    f"/api/v2/dags/{DAG}/details",
    f"/api/v2/dags/{DAG}/dagVersions",
    f"/api/v2/dags/{DAG}/tasks",
    "/api/v2/dags/~/dagRuns/~/hitlDetails",
    "/api/v2/plugins",
    "/auth/resetmypassword/form",
)
OF_ADMIN = ("/auth/users/list/", "/auth/roles/list/", "/auth/users/add")


def logged_in(airflow: FabAirflow, role: str) -> requests.Session:
    """A browser's session after the form."""
    session, url = requests.Session(), f"{airflow.url}/auth/login/"
    token = re.search(r'csrf_token"[^>]*value="([^"]+)"', session.get(url, timeout=120).text)
    assert token is not None
    account = account_of(role)
    form = {
        "csrf_token": token[1],
        "username": account,
        "password": airflow.passwords[account],
    }
    session.post(url, data=form, timeout=120, allow_redirects=False)
    return session


def test_the_smallest_role_can_use_airflows_pages(airflow: FabAirflow) -> None:
    """Nothing of a DAG that one may read, nor one's own password, is answered with a refusal."""
    session = logged_in(airflow, READER)
    me = session.get(f"{airflow.url}/ui/auth/me", timeout=120).json()
    assert me == {"id": account_of(READER), "username": account_of(READER)}
    found = {path: session.get(f"{airflow.url}{path}", timeout=120).status_code for path in PAGES}
    assert found == dict.fromkeys(PAGES, 200)


def test_pages_about_users_are_for_admin(airflow: FabAirflow) -> None:
    """FAB sends anybody else to the log-in."""
    for role, status in ((READER, 302), ("Data Engineer", 302), ("Admin", 200)):
        session = logged_in(airflow, role)
        for path in OF_ADMIN:
            url = f"{airflow.url}{path}"
            answer = session.get(url, timeout=120, allow_redirects=False)
            assert answer.status_code == status, (role, path)


def test_who_logs_out_is_a_stranger(airflow: FabAirflow) -> None:
    """The cookie that was used is worth nothing any more."""
    session = logged_in(airflow, READER)
    cookie = {"_token": session.cookies["_token"]}
    session.get(f"{airflow.url}/api/v2/auth/logout", timeout=120)  # where the entry Logout leads
    answer = requests.get(f"{airflow.url}/ui/auth/me", cookies=cookie, timeout=120)
    assert answer.status_code in {401, 403}
