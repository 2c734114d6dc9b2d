"""Role x route x action: who gets which page, and that nobody can change anything by one."""

from __future__ import annotations

import pytest

from include.orchestration.access.permissions import Page
from include.orchestration.access.roles import Role, all_roles
from tests.plugins.company import DAG_OF, PACK, REGISTERS
from tests.plugins.shown import Shown
from tests.support.fab import ADMIN

pytestmark = pytest.mark.airflow

# What each route of the app asks of a visitor: a page, and a DAG that they read; None for every
# page's own filter. A route that is not here fails the test.
NEEDS: dict[str, tuple[Page | None, str | None]] = {
    "/": (Page.OVERVIEW, None),
    "/evidence": (Page.EVIDENCE, None),
    "/evidence/{number}": (Page.EVIDENCE, "its workflow"),
    "/evidence/{number}/report": (Page.EVIDENCE, "its workflow"),
    "/evidence/{number}/files/{name:path}": (Page.EVIDENCE, "its workflow"),
    "/evidence/{number}/bundle.zip": (Page.EVIDENCE, "its workflow"),
    "/waiting": (Page.WAITING, None),
    "/clocks": (Page.CLOCKS, "respond_to_incident"),
    "/holds": (Page.HOLDS, "enforce_retention"),
    "/findings": (Page.FINDINGS, None),
    "/restore-points": (Page.RESTORE_POINTS, "backup_offsite"),
    "/assets/{name}": (None, None),
}
CHANGING = ("POST", "PUT", "PATCH", "DELETE")
ROLES: list[Role] = all_roles(PACK)


def test_every_route_of_the_app_is_in_the_matrix(shown: Shown) -> None:
    """And each of them only reads."""
    assert {path for path, _methods in shown.routes} == set(NEEDS)
    assert {method for _path, methods in shown.routes for method in methods} <= {"GET", "HEAD"}


def addresses(shown: Shown, path: str) -> list[tuple[str, str | None]]:
    """Addresses of a route, each with the DAG that it asks to be read."""
    _page, dag = NEEDS[path]
    if dag == "its workflow":
        rows = [one for one in shown.company.rows() if DAG_OF[one.dag_id] in known()]
        return [
            (
                path.replace("{number}", str(row.seq)).replace("{name:path}", "report.en.html"),
                DAG_OF[row.dag_id],
            )
            for row in rows
        ]
    return [(path.replace("{name}", "pages.css"), dag)]


def known() -> set[str]:
    """DAGs that Airflow has; of others nothing is shown to anybody."""
    return set(DAG_OF.values()) & {dag for role in ROLES for dag in role.reads}


def refused(page: Page | None, dag: str | None, role: Role, path: str) -> int | None:
    """Which status says no, by the table of roles; None where the page is shown."""
    if page is not None and page not in role.pages:
        return 303 if path == "/" else 403  # Airflow's entry leads to the first page of a role
    if dag is not None and dag not in role.reads:
        # Whether there is such a bundle is nobody's business who may not read it.
        return 404 if "{number}" in path else 403
    return None


@pytest.mark.parametrize("role", ROLES, ids=lambda one: one.name)
def test_a_role_gets_its_pages_and_no_others(shown: Shown, role: Role) -> None:
    """Every route, for bundles of every workflow, by the table of roles."""
    for path in NEEDS:
        page, _dag = NEEDS[path]
        for address, dag in addresses(shown, path):
            expected = refused(page, dag, role, path) or 200
            got = shown.get(role.name, address)
            assert got.status_code == expected, (role.name, address)


def test_a_stranger_gets_nothing(shown: Shown) -> None:
    """Neither pages nor files nor style, and no hint of what is there."""
    for path in NEEDS:
        for address, _dag in addresses(shown, path):
            got = shown.get(None, address)
            assert got.status_code == 401, address
            assert "manual__" not in got.text
            assert "ParcelSeal" in got.text


@pytest.mark.parametrize("method", CHANGING)
def test_nothing_can_be_changed_by_anybody(shown: Shown, method: str) -> None:
    """Neither by Admin with a token nor by a browser that another site sends."""
    own = {"Origin": shown.airflow.url}
    foreign = {"Origin": "https://evil.example"}
    for path in NEEDS:
        address = shown.url + addresses(shown, path)[0][0]
        session = shown.airflow.session(ADMIN)
        assert session.request(method, address, timeout=120).status_code == 405, path
        browser = shown.airflow.cookies(ADMIN)
        for headers, expected in ((own, 405), (foreign, 403), ({}, 403)):
            got = shown.airflow.session(None).request(
                method, address, cookies=browser, headers=headers, timeout=120
            )
            assert got.status_code == expected, (path, headers)


@pytest.mark.parametrize("role", ROLES, ids=lambda one: one.name)
def test_lists_hold_only_what_a_role_may_read(shown: Shown, role: Role) -> None:
    """The evidence page names no bundle of another workflow, the findings page no such finding."""
    if Page.EVIDENCE in role.pages:
        page = shown.get(role.name, "/evidence").text
        for row in shown.company.rows():
            link = f'href="/compliance/evidence/{row.seq}"'
            assert (link in page) is (DAG_OF[row.dag_id] in role.reads), row.dag_id
    if Page.FINDINGS in role.pages:
        page = shown.get(role.name, "/findings").text
        for kind, dag in REGISTERS.items():
            assert (f"{kind} &lt;script" in page) is (dag in role.reads), kind
    if Page.OVERVIEW in role.pages:
        page = shown.get(role.name, "/").text
        for control in PACK.controls:
            title = control.title["en"].replace("'", "&#39;")
            assert (title in page) is (control.workflow in role.reads), control.id


def test_navigation_leads_only_where_a_role_may_go(shown: Shown) -> None:
    """A page that is refused is not offered."""
    places = {"/": Page.OVERVIEW} | {
        f"/{one.value.removeprefix('Compliance ').lower().replace(' ', '-')}": one
        for one in Page
        if one is not Page.OVERVIEW
    }
    for role in ROLES:
        begin = next((path for path, page in places.items() if page in role.pages), None)
        if begin in (None, "/clocks", "/holds", "/restore-points"):
            continue
        page = shown.get(role.name, begin).text
        for path, one in places.items():
            offered = f'<li><a href="/compliance{path}"' in page
            assert offered is (one in role.pages), (role.name, path)
