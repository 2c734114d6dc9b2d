"""Log in with FAB's form, and open Airflow's own pages."""

from __future__ import annotations

import re

import pytest
import requests

from tests.orchestration.access.conftest import RUN
from tests.support.fab import FabAirflow, account_of

pytestmark = pytest.mark.airflow
READER = "Department Reader: human_resources"
DAG = "remind_training"
# Requests of Airflow's home page and of the pages of a DAG.
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
    """Log in with FAB's form; return the browser session."""
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


def test_role_with_fewest_rights_can_open_airflow_pages(airflow: FabAirflow) -> None:
    session = logged_in(airflow, READER)
    me = session.get(f"{airflow.url}/ui/auth/me", timeout=120).json()
    assert me == {"id": account_of(READER), "username": account_of(READER)}
    statuses = {
        path: session.get(f"{airflow.url}{path}", timeout=120).status_code for path in PAGES
    }
    assert statuses == dict.fromkeys(PAGES, 200)


def test_pages_for_user_management_redirect_every_role_except_admin_to_login(
    airflow: FabAirflow,
) -> None:
    for role, status in ((READER, 302), ("Data Engineer", 302), ("Admin", 200)):
        session = logged_in(airflow, role)
        for path in OF_ADMIN:
            url = f"{airflow.url}{path}"
            answer = session.get(url, timeout=120, allow_redirects=False)
            assert answer.status_code == status, (role, path)


def test_logout_invalidates_the_cookie(airflow: FabAirflow) -> None:
    session = logged_in(airflow, READER)
    cookie = {"_token": session.cookies["_token"]}
    session.get(
        f"{airflow.url}/api/v2/auth/logout", timeout=120
    )  # the URL of the menu entry Logout
    answer = requests.get(f"{airflow.url}/ui/auth/me", cookies=cookie, timeout=120)
    assert answer.status_code in {401, 403}
