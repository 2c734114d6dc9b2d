"""The page of requests for customer information, and the download of an extract."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import requests
from fastapi.testclient import TestClient

from include.composition import build_services
from include.disclosure.extract_store import FOLDER
from include.orchestration.access.permissions import Page, PageScope
from include.policy import SHIPPED
from include.services.clock import FixedClock
from include.services.connections import configured
from plugins.compliance_ui import rendering, use
from plugins.compliance_ui.access import Visitor, current_visitor
from plugins.compliance_ui.app import compliance_pages
from plugins.compliance_ui.page_services import PageServices, SharedCache
from tests.plugins.company import NOW, XSS, Company
from tests.plugins.pages_server import PagesServer
from tests.plugins.use_data import (
    ENDED,
    EXPIRED,
    LIVE,
    LOGIN,
    OTHER,
    PREPARED,
    REJECTED,
    SERVER,
    WAITING,
    extract_of,
)

pytestmark = pytest.mark.airflow
OFFICER, EMPLOYEE, SUPERVISOR = "Compliance Officer", "Employee", "Supervisor"


def post(
    pages_server: PagesServer, role: str, number: int, origin: str | None, *, stream: bool = False
) -> requests.Response:
    """Send the form of a request's page, as a browser of a role's user does."""
    headers = {} if origin is None else {"Origin": origin}
    return pages_server.airflow.session(None).post(
        f"{pages_server.url}/use/{number}", cookies=pages_server.airflow.cookies(role),
        headers={"Accept-Language": "en", **headers}, timeout=120, stream=stream,
    )  # fmt: skip


def row_of(page: str, number: int) -> str:
    """Return the text of a request's row in the list."""
    row = re.search(rf'<tr><th scope="row"><a href="[^"]*/use/{number}">.*?</tr>', page, re.DOTALL)
    assert row is not None, number
    return " ".join(re.sub(r"<[^>]+>", " ", row[0]).split())


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (LIVE, "can be opened until"),
        (EXPIRED, "expired"),
        (WAITING, "waits for approval"),
        (REJECTED, "rejected"),
        (ENDED, "ended: a person ended the access"),
        (PREPARED, "prepared; nobody was asked yet"),
    ],
)
def test_list_shows_the_state_of_each_request_in_words(
    pages_server: PagesServer, number: int, words: str
) -> None:
    row = row_of(pages_server.get(OFFICER, "/use").text, number)
    assert words in row
    assert "Delivery of parcels" in row
    assert ("deletion not confirmed yet" in row) is (number == ENDED)


def test_list_shows_the_newest_request_first(pages_server: PagesServer) -> None:
    page = pages_server.get(OFFICER, "/use").text
    numbers = [int(number) for number in re.findall(r'href="/compliance/use/(\d+)"', page)]
    assert numbers == sorted(numbers, reverse=True)
    assert {LIVE, OTHER, PREPARED} <= set(numbers)


def test_people_without_the_right_to_see_all_requests_see_only_their_own(
    pages_server: PagesServer,
) -> None:
    page = pages_server.get(SUPERVISOR, "/use").text
    assert re.findall(r'href="/compliance/use/(\d+)"', page) == [str(OTHER)]
    assert pages_server.get(SUPERVISOR, f"/use/{OTHER}").status_code == 200
    for number in (LIVE, WAITING, 99_999):
        assert pages_server.get(SUPERVISOR, f"/use/{number}").status_code == 404
        assert post(pages_server, SUPERVISOR, number, pages_server.airflow.url).status_code == 404


def test_page_of_a_request_shows_decisions_openings_and_end(pages_server: PagesServer) -> None:
    page = pages_server.get(OFFICER, f"/use/{ENDED}").text
    for words in (
        "Management (management)",
        "command",
        "a person ended the access",
        "A downloaded file cannot be recalled.",
        "proved by a listing of the store",
        f"/compliance/runs/use_information/manual__use%20{ENDED}",
    ):
        assert words in page, words
    assert "too many fields" in pages_server.get(OFFICER, f"/use/{REJECTED}").text
    assert XSS not in page


def test_page_of_a_login_names_its_user_and_its_file_has_the_server_but_no_password(
    pages_server: PagesServer,
) -> None:
    page = pages_server.get(EMPLOYEE, f"/use/{LOGIN}").text
    for words in (
        "Database login",
        f"parcelseal_use_{LOGIN}_a1",
        SERVER,
        f"Download login-{LOGIN}.txt",
        "When the approved time is over, the view shows no record",
    ):
        assert words in page, words
    assert "A downloaded file cannot be recalled." not in page
    answer = post(pages_server, EMPLOYEE, LOGIN, pages_server.airflow.url)
    assert answer.status_code == 200
    assert f"login-{LOGIN}.txt" in answer.headers["Content-Disposition"]
    text = answer.content.decode()
    for words in (
        f"User: parcelseal_use_{LOGIN}_a1",
        f"数据库和服务器：{SERVER}",
        "Table: waybill",
    ):
        assert words in text, text


def test_only_the_requester_sees_the_download_and_the_confirmation(
    pages_server: PagesServer,
) -> None:
    own = pages_server.get(EMPLOYEE, f"/use/{LIVE}").text
    assert f'<form class="pack" method="post" action="/compliance/use/{LIVE}"' in own
    assert "The password was sent to you by mail." in own
    assert 'href="/dags/use_information"' in own
    assert "/compliance/runs/" not in own, "employees may not open the page of evidence"
    other = pages_server.get(OFFICER, f"/use/{LIVE}").text
    assert "<form" not in other
    assert "Confirm that all local copies" not in other
    assert "<form" not in pages_server.get(EMPLOYEE, f"/use/{EXPIRED}").text


def test_approvers_see_the_link_to_required_actions(pages_server: PagesServer) -> None:
    link = "/required_actions?response_received=false"
    assert link in pages_server.get(OFFICER, f"/use/{WAITING}").text
    assert link in pages_server.get(SUPERVISOR, "/use").text
    assert link not in pages_server.get(EMPLOYEE, "/use").text


def test_download_returns_exactly_the_stored_bytes_and_records_the_opening(
    pages_server: PagesServer,
) -> None:
    before = pages_server.company.openings(LIVE)
    got = post(pages_server, EMPLOYEE, LIVE, pages_server.airflow.url)
    assert got.status_code == 200, got.text[:300]
    assert got.content == extract_of(LIVE)
    disposition = got.headers["content-disposition"]
    assert disposition == f"attachment; filename*=UTF-8''extract-{LIVE}.zip"
    assert got.headers["cache-control"] == "no-store"
    assert got.headers["content-length"] == str(len(extract_of(LIVE)))
    assert got.headers["content-type"] == "application/octet-stream"
    assert pages_server.company.openings(LIVE) == [*before, ("employee", "page")]
    assert "Employee (employee)" in pages_server.get(OFFICER, f"/use/{LIVE}").text


@pytest.mark.parametrize(
    ("role", "number", "origin", "status"),
    [
        (EMPLOYEE, LIVE, "https://evil.example", 403),
        (EMPLOYEE, LIVE, "null", 403),
        (EMPLOYEE, LIVE, None, 403),
        (OFFICER, LIVE, "", 403),
        ("Data Engineer", LIVE, "", 403),
        (SUPERVISOR, LIVE, "", 404),
        (EMPLOYEE, EXPIRED, "", 409),
        (EMPLOYEE, ENDED, "", 409),
        (EMPLOYEE, REJECTED, "", 409),
        (EMPLOYEE, 99_999, "", 404),
    ],
)
def test_refused_download_sends_no_byte_and_records_nothing(
    pages_server: PagesServer, role: str, number: int, origin: str | None, status: int
) -> None:
    """The empty origin stands for the server's own origin."""
    before = pages_server.company.openings(number)
    own = pages_server.airflow.url
    got = post(pages_server, role, number, own if origin == "" else origin)
    assert got.status_code == status
    assert b"extract of request" not in got.content
    assert pages_server.company.openings(number) == before
    if status == 409:
        assert "nothing was downloaded" in got.text


def test_opening_is_recorded_even_if_the_store_then_fails(pages_server: PagesServer) -> None:
    """The record comes first, so no download is without a record."""
    folder = pages_server.company.root / "extracts"
    before = pages_server.company.openings(LIVE)
    away = folder.rename(folder.with_name("away"))
    try:
        got = post(pages_server, EMPLOYEE, LIVE, pages_server.airflow.url)
    finally:
        away.rename(folder)
    assert got.status_code == 503
    assert str(folder) not in got.text
    assert len(pages_server.company.openings(LIVE)) == len(before) + 1


def test_cancelled_downloads_release_their_turns(pages_server: PagesServer) -> None:
    """At most two extracts are downloaded at the same time. A third visitor waits, then gets 503.

    The visitor whose turn does not come opened nothing, so nothing is recorded.
    """
    company, own = pages_server.company, pages_server.airflow.url
    large = company.use.deliver("employee", NOW - timedelta(hours=1), os.urandom(1 << 26)).id
    begun = [post(pages_server, EMPLOYEE, large, own, stream=True) for _turn in range(2)]
    assert [got.status_code for got in begun] == [200, 200]
    third = post(pages_server, EMPLOYEE, LIVE, own)
    assert third.status_code == 503
    assert "Too many downloads" in third.text
    assert len(company.openings(large)) == 2
    for got in begun:
        got.close()
    assert post(pages_server, EMPLOYEE, LIVE, own).status_code == 200
    [stored] = (company.root / "extracts" / FOLDER / str(large)).iterdir()
    stored.unlink()


@dataclass(frozen=True)
class ModelledVisitor(Visitor):
    """A visitor with rights that the test states, without Airflow's auth manager."""

    account: str
    scopes: frozenset[PageScope] = frozenset()

    @property
    def name(self) -> str:
        """The account."""
        return self.account

    def reads(self, dag_id: str) -> bool:
        """Return True: the visitor may read every DAG."""
        return True

    def triggers(self, dag_id: str) -> bool:
        """Return True: the visitor may trigger every DAG."""
        return True

    def answers(self, dag_id: str) -> bool:
        """Return False: the visitor decides nothing."""
        return False

    def has_scope(self, scope: PageScope) -> bool:
        """Return whether the test gave the scope to the visitor."""
        return scope in self.scopes


Client = Callable[..., TestClient]


@pytest.fixture
def client(
    pages_company: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    """Provide a function that returns a client of the pages, at a time and with connections."""
    caches: list[SharedCache] = []

    def make(
        account: str = "employee", at: timedelta = timedelta(), without: str = ""
    ) -> TestClient:
        environment = {
            name: value for name, value in pages_company.environment.items() if name != without
        }
        core = build_services(
            tmp_path / "home", SHIPPED, lambda conn_id: configured(conn_id, environment),
            FixedClock(NOW + at), use_local_profile=False,
        )  # fmt: skip
        caches.append(SharedCache())
        services = PageServices(core, caches[-1])
        monkeypatch.setattr(use, "page_services", lambda: services)
        monkeypatch.setattr(use, "name_of", lambda name: name)
        monkeypatch.setattr(rendering, "badge", lambda *_: 0)
        app = compliance_pages()
        visitor = ModelledVisitor(None, frozenset({Page.USE}), account)  # type: ignore[arg-type] # no user
        app.dependency_overrides[current_visitor] = lambda: visitor
        return TestClient(app)

    yield make
    for cache in caches:
        for name in ("reader", "recorder"):
            if (entry := cache._values.get(name)) is not None:
                entry[2].dispose()  # type: ignore[attr-defined] # an engine


def test_page_states_that_extracts_are_not_configured(client: Client) -> None:
    without = client(without="AIRFLOW_CONN_EXTRACT_STORE")
    for path in ("/use", f"/use/{LIVE}"):
        got = without.get(path)
        assert got.status_code == 200
        assert "Extracts are not configured here" in got.text
        assert "<form" not in got.text
    assert without.post(f"/use/{LIVE}").status_code == 409
    assert "Extracts are not configured" not in client().get("/use").text


@pytest.mark.parametrize(
    ("seconds", "status"), [(-1, 200), (0, 409)], ids=["before the end", "at the end"]
)
def test_download_is_refused_from_the_moment_of_expiry(
    client: Client, pages_company: Company, seconds: int, status: int
) -> None:
    """The time is that of the application, not that of the database."""
    before = pages_company.openings(LIVE)
    end = timedelta(days=3, hours=-1, seconds=seconds)
    assert client(at=end).post(f"/use/{LIVE}").status_code == status
    assert len(pages_company.openings(LIVE)) == len(before) + (status == 200)


def test_access_that_ended_after_the_first_check_is_refused(
    client: Client, pages_company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement that records the opening checks the grant again."""
    visitor = client(at=timedelta(days=9))
    monkeypatch.setattr("include.disclosure.grants.Grant.is_open", lambda *_: True)
    before = pages_company.openings(LIVE)
    got = visitor.post(f"/use/{LIVE}")
    assert got.status_code == 409
    assert pages_company.openings(LIVE) == before


def test_account_of_the_requester_is_compared_in_any_spelling(client: Client) -> None:
    assert client("EMPLOYEE ").get(f"/use/{LIVE}").status_code == 200
    assert client("employee2").get(f"/use/{LIVE}").status_code == 404
