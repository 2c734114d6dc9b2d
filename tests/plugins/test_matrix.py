"""Permissions of each role for each route of the pages. Only a download records anything."""

from __future__ import annotations

import io

import pytest
from openpyxl import load_workbook

from include.evidence.ledger import LedgerRow
from include.orchestration.access.permissions import Page
from include.orchestration.access.roles import USE_OF_ALL, Role, all_roles
from include.orchestration.addresses import PAGES, run_path
from include.registry import WORKFLOWS
from plugins.compliance_ui.work_list import dag_of_finding
from tests.plugins.company import DAG_OF, PACK, REGISTERS
from tests.plugins.pages_server import PagesServer
from tests.support.fab import ADMIN, account_of

pytestmark = pytest.mark.airflow

# The page and the DAG that a visitor must be permitted to read, by route. The DAG is None if the
# page filters its own rows. The test fails if a route is missing here.
NEEDS: dict[str, tuple[Page | None, str | None]] = {
    "/": (Page.OVERVIEW, None),
    "/controls/{control}": (Page.OVERVIEW, "its control's workflow"),
    "/evidence": (Page.EVIDENCE, None),
    "/evidence/{number}": (Page.EVIDENCE, "its workflow"),
    "/evidence/{number}/report": (Page.EVIDENCE, "its workflow"),
    "/evidence/{number}/files/{name:path}": (Page.EVIDENCE, "its workflow"),
    "/evidence/{number}/bundle.zip": (Page.EVIDENCE, "its workflow"),
    "/runs/{dag_id}/{run_id:path}": (Page.EVIDENCE, "its workflow"),
    "/inspection-pack": (Page.EVIDENCE, None),
    "/inspection-pack/pack.zip": (Page.EVIDENCE, None),
    "/waiting": (Page.WAITING, None),
    "/clocks": (Page.CLOCKS, "respond_to_incident"),
    "/holds": (Page.HOLDS, "enforce_retention"),
    "/findings": (Page.FINDINGS, None),
    "/findings/{number}": (Page.FINDINGS, "its source"),
    "/use": (Page.USE, "use_information"),
    "/use/{number}": (Page.USE, "its requester"),
    "/restore-points": (Page.RESTORE_POINTS, "backup_offsite"),
    "/exports/overview.{suffix}": (Page.OVERVIEW, None),
    "/exports/evidence.{suffix}": (Page.EVIDENCE, None),
    "/exports/findings.{suffix}": (Page.FINDINGS, None),
    "/exports/control.{suffix}": (Page.EVIDENCE, "its workflow"),
    "/assets/{name}": (None, None),
}
REDIRECT = "/runs/{dag_id}/{run_id:path}"  # redirects to the bundle of the run
USE = "/use/{number}"  # POST downloads the extract of the request
QUERIES = {
    "/inspection-pack/pack.zip": "?clause=5.3&first_day=2020-01-01&last_day=2020-01-31",
}
"""Query parameters without which a route shows an error."""
CHANGING = ("POST", "PUT", "PATCH", "DELETE")
ROLES: list[Role] = all_roles(PACK)


def test_permission_table_contains_every_route_and_only_a_download_accepts_post(
    pages_server: PagesServer,
) -> None:
    assert {path for path, _methods in pages_server.routes} == set(NEEDS)
    changing = [
        (path, method)
        for path, methods in pages_server.routes
        for method in methods
        if method not in ("GET", "HEAD")
    ]
    assert changing == [(USE, "POST")]


def addresses(pages_server: PagesServer, path: str) -> list[tuple[str, str | None]]:
    """Return URLs of a route, each with the DAG that the visitor must be able to read.

    The DAG is None if the route needs no permission for a DAG.
    """
    _page, dag = NEEDS[path]
    path = path.replace("{suffix}", "xlsx")
    if path == "/exports/control.xlsx":
        return [(f"{path}?control={control.id}", control.workflow) for control in PACK.controls]
    if path == REDIRECT:
        rows = [row for row in pages_server.company.rows() if row.dag_id in WORKFLOWS]
        return [(addresses_of_run(row), row.dag_id) for row in rows if row.dag_id in known()]
    if dag == "its workflow":
        rows = [row for row in pages_server.company.rows() if DAG_OF[row.dag_id] in known()]
        return [
            (
                path.replace("{number}", str(row.seq)).replace("{name:path}", "report.en.html"),
                DAG_OF[row.dag_id],
            )
            for row in rows
        ]
    if dag == "its source":
        return [
            (path.replace("{number}", str(number)), dag_of_finding(finding))
            for number, finding in pages_server.company.findings().items()
            if dag_of_finding(finding) in known()
        ]
    if dag == "its requester":
        requesters = pages_server.company.requesters()
        return [(f"/use/{number}", requester) for number, requester in requesters.items()]
    if dag == "its control's workflow":
        return [(f"/controls/{control.id}", control.workflow) for control in PACK.controls]
    return [(path.replace("{name}", "pages.css") + QUERIES.get(path, ""), dag)]


def addresses_of_run(row: LedgerRow) -> str:
    """Return the path below the compliance pages that leads to the bundle of a run."""
    return run_path(row.dag_id, row.run_id).removeprefix(PAGES)


def known() -> set[str]:
    """Return the ids of the DAGs in Airflow. The pages hide bundles of all other DAGs."""
    return set(DAG_OF.values()) & {dag for role in ROLES for dag in role.reads}


def refused(page: Page | None, dag: str | None, role: Role, path: str) -> int | None:
    """Return the HTTP status with which a page is refused to a role; None if the page is shown."""
    if page is not None and page not in role.pages:
        return 303 if path == "/" else 403  # Airflow's navigation links to "/", which redirects
    if path == USE:
        sees = role.views >= USE_OF_ALL or account_of(role.name) == dag
        return None if sees else 404
    if dag is not None and dag not in role.reads:
        # A role that may not read a bundle, finding or control must not learn that it exists.
        names = ("{number}", "{control}", "/control.")
        is_hidden = path == REDIRECT or any(name in path for name in names)
        return 404 if is_hidden else 403
    return None


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_user_of_each_role_opens_exactly_the_pages_of_the_permission_table(
    pages_server: PagesServer, role: Role
) -> None:
    for path in NEEDS:
        page, _dag = NEEDS[path]
        for address, dag in addresses(pages_server, path):
            expected = refused(page, dag, role, path) or (303 if path == REDIRECT else 200)
            got = pages_server.get(role.name, address)
            assert got.status_code == expected, (role.name, address)


def test_every_route_returns_status_401_without_a_login(pages_server: PagesServer) -> None:
    for path in NEEDS:
        for address, _dag in addresses(pages_server, path):
            got = pages_server.get(None, address)
            assert got.status_code == 401, address
            # The links to other languages repeat the address that the visitor requested.
            assert path == REDIRECT or "manual__" not in got.text
            assert "ParcelSeal" in got.text


@pytest.mark.parametrize("method", CHANGING)
def test_every_route_answers_post_put_patch_and_delete_with_status_405_or_403(
    pages_server: PagesServer, method: str
) -> None:
    """Only the requester may send POST for a download, and Admin is not the requester."""
    own = {"Origin": pages_server.airflow.url}
    foreign = {"Origin": "https://evil.example"}
    for path in NEEDS:
        address = pages_server.url + addresses(pages_server, path)[0][0]
        session = pages_server.airflow.session(ADMIN)
        refusal = 403 if (path, method) == (USE, "POST") else 405
        assert session.request(method, address, timeout=120).status_code == refusal, path
        browser = pages_server.airflow.cookies(ADMIN)
        for headers, expected in ((own, refusal), (foreign, 403), ({}, 403)):
            got = pages_server.airflow.session(None).request(
                method, address, cookies=browser, headers=headers, timeout=120
            )
            assert got.status_code == expected, (path, headers)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_pages_show_only_bundles_findings_and_controls_that_the_role_of_the_visitor_may_read(
    pages_server: PagesServer, role: Role
) -> None:
    if Page.EVIDENCE in role.pages:
        page = pages_server.get(role.name, "/evidence").text
        for row in pages_server.company.rows():
            link = f'href="/compliance/evidence/{row.seq}"'
            assert (link in page) is (DAG_OF[row.dag_id] in role.reads), row.dag_id
    if Page.FINDINGS in role.pages:
        page = pages_server.get(role.name, "/findings").text
        for kind, dag in REGISTERS.items():
            assert (f"{kind} &lt;script" in page) is (dag in role.reads), kind
        for number, finding in pages_server.company.findings().items():
            link = f'href="/compliance/findings/{number}"'
            assert (link in page) is (dag_of_finding(finding) in role.reads), number
    if Page.USE in role.pages:
        page = pages_server.get(role.name, "/use").text
        for number, requester in pages_server.company.requesters().items():
            link = f'href="/compliance/use/{number}"'
            is_own = requester == account_of(role.name)
            assert (link in page) is (is_own or role.views >= USE_OF_ALL), number
    if Page.OVERVIEW in role.pages:
        page = pages_server.get(role.name, "/").text
        for control in PACK.controls:
            title = control.title["en"].replace("'", "&#39;")
            assert (title in page) is (control.workflow in role.reads), control.id


def exported(pages_server: PagesServer, role: Role, address: str) -> list[list[object]]:
    """Return the rows of an exported list, by the column headings."""
    got = pages_server.get(role.name, address)
    assert got.status_code == 200, address
    sheet = load_workbook(io.BytesIO(got.content)).worksheets[0]
    assert sheet.auto_filter.ref
    first = int(sheet.freeze_panes.removeprefix("A"))
    return [list(row) for row in sheet.iter_rows(first, values_only=True)]


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_exports_contain_only_bundles_findings_and_controls_that_the_role_may_read(
    pages_server: PagesServer, role: Role
) -> None:
    if Page.EVIDENCE in role.pages:
        rows = exported(pages_server, role, "/exports/evidence.xlsx")
        readable = [row for row in pages_server.company.rows() if DAG_OF[row.dag_id] in role.reads]
        assert [row[0] for row in rows] == [row.seq for row in reversed(readable)]
        assert [row[6] for row in rows] == [row.bundle for row in reversed(readable)]
    if Page.FINDINGS in role.pages:
        rows = exported(pages_server, role, "/exports/findings.xlsx")
        findings = pages_server.company.findings()
        assert {row[0] for row in rows} == {
            number for number, finding in findings.items() if dag_of_finding(finding) in role.reads
        }
    if Page.OVERVIEW in role.pages:
        rows = exported(pages_server, role, "/exports/overview.xlsx")
        titles = {
            control.title["en"] for control in PACK.controls if control.workflow in role.reads
        }
        assert {row[2] for row in rows if row[2]} == titles


def test_history_of_a_control_contains_exactly_its_bundles(pages_server: PagesServer) -> None:
    officer = next(role for role in ROLES if role.name == "Compliance Officer")
    for control in PACK.controls:
        address = f"/exports/control.xlsx?control={control.id}"
        rows = exported(pages_server, officer, address)
        expected = [
            row.seq for row in reversed(pages_server.company.rows()) if control.id in row.controls
        ]
        assert [row[0] for row in rows] == expected, control.id
    assert (
        pages_server.get(officer.name, "/exports/control.xlsx?control=unknown").status_code == 404
    )


def test_navigation_shows_only_pages_that_the_role_of_the_visitor_may_open(
    pages_server: PagesServer,
) -> None:
    places = {"/": Page.OVERVIEW} | {
        f"/{target.value.removeprefix('Compliance ').lower().replace(' ', '-')}": target
        for target in Page
        if target is not Page.OVERVIEW
    }
    for role in ROLES:
        begin = next((path for path, page in places.items() if page in role.pages), None)
        if begin in (None, "/clocks", "/holds", "/restore-points"):
            continue
        page = pages_server.get(role.name, begin).text
        for path, target in places.items():
            offered = f'<li><a href="/compliance{path}"' in page
            assert offered is (target in role.pages), (role.name, path)
