"""Visits of the compliance pages in Chromium, which collect every error of the browser."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Error,
    Page,
    Request,
    Response,
    expect,
)

from include.orchestration.access import permissions
from include.orchestration.access.roles import all_roles
from tests.e2e.browsing import LONGEST_WAIT
from tests.plugins.company import NOW, PACK, XSS
from tests.plugins.pages_server import PagesServer
from tests.plugins.use_data import ENDED, LIVE
from tests.support.fab import ADMIN, account_of

PATHS: Mapping[permissions.Page, tuple[str, str, str]] = {
    permissions.Page.OVERVIEW: ("/", "Overview", "总览"),
    permissions.Page.EVIDENCE: ("/evidence", "Evidence", "证据"),
    permissions.Page.WAITING: ("/waiting", "Your required actions", "您的待办事项"),
    permissions.Page.CLOCKS: ("/clocks", "Time limits", "安全事件时限"),
    permissions.Page.HOLDS: ("/holds", "Legal holds", "法律保全"),
    permissions.Page.FINDINGS: ("/findings", "Findings and actions", "发现事项与整改"),
    permissions.Page.USE: ("/use", "Use of information", "信息使用"),
    permissions.Page.RESTORE_POINTS: ("/restore-points", "Restore points", "恢复点"),
}
"""Address and heading of each page, in English and in Chinese."""
CONTROL_PAGE = "/controls/collect.accuracy"
PAST_DAY = (NOW - timedelta(weeks=8)).date()
EVERY_PAGE = (
    *(path for path, _en, _zh in PATHS.values()),
    f"/?asof={PAST_DAY}",
    CONTROL_PAGE,
    "/evidence/2",
    "/inspection-pack",
    "/findings/1",
    "/findings/3",
    f"/use/{LIVE}",
    f"/use/{ENDED}",
    "/nowhere",
)
"""Paths of all pages, of one bundle and of an error page, for tests of the appearance."""
DESK, PHONE = {"width": 1400, "height": 1000}, {"width": 360, "height": 740}
OFFICER = "Compliance Officer"  # sees every page
# Chromium logs this warning whenever Airflow shows the compliance pages in its frame.
AIRFLOWS = "An iframe which has both allow-scripts and allow-same-origin"
ASK = """
    WITH task AS (
        UPDATE task_instance SET state = 'awaiting_input'
        WHERE dag_id = 'respond_to_incident' AND run_id = %s AND task_id = 'grade' RETURNING id
    )
    INSERT INTO hitl_detail
        (ti_id, options, subject, multiple, params, assignees, created_at, params_input)
    SELECT id, '["general", "serious"]', %s, false, '{}',
        jsonb_build_array(jsonb_build_object('id', %s::text, 'name', %s::text)), now(), '{}'
    FROM task
"""


def may_open(role: str) -> frozenset[permissions.Page]:
    """Return the pages that a role may open according to the declared permissions of the roles."""
    if role == ADMIN:
        return frozenset(permissions.Page)
    return next(all_role.pages for all_role in all_roles(PACK) if all_role.name == role)


@dataclass
class Visit:
    """A browser tab and the errors that the browser reported in it.

    Attributes:
        page: the tab.
        url: URL of the compliance pages, without a trailing slash.
        complaints: console errors, violations of the content security policy, failed or refused
            requests, script errors and dialogs.
        expected: HTTP status that is not counted as an error, such as 403 for pages that must
            refuse the visitor; 0 if every error status counts.
    """

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    expected: int = 0

    def open(self, path: str) -> Response:
        """Open a compliance page and return the response."""
        got = self.page.goto(self.url + path)
        assert got is not None
        return got

    def see(self, heading: str, language: str) -> None:
        """Wait until the page with a heading is loaded, and assert its language.

        Args:
            heading: part of the main heading.
            language: value of the page's ``lang`` attribute.
        """
        expect(self.page.get_by_role("heading", level=1)).to_contain_text(heading)
        assert self.page.locator("html").get_attribute("lang") == language
        assert "taken" not in self.page.title()

    def watch(self, page: Page) -> None:
        """Collect the errors of a tab.

        From Airflow's own pages around the compliance pages, only script errors are collected.
        """
        page.on("dialog", self._dialog)
        page.on(
            "pageerror", lambda error: "/auth/static/" in error.stack or self._add("", str(error))
        )
        page.on("requestfailed", self._failed)
        page.on("response", self._response)
        page.on("console", self._console)

    def _dialog(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _failed(self, request: Request) -> None:
        became_a_download = request.is_navigation_request() and "ABORTED" in (request.failure or "")
        if not became_a_download:
            self._add(request.url, f"failed: {request.failure}")

    def _response(self, got: Response) -> None:
        if got.status >= 400 and got.status != self.expected:
            self._add(got.url, str(got.status))

    def _console(self, said: ConsoleMessage) -> None:
        if said.type not in ("error", "warning") or said.text.startswith(AIRFLOWS):
            return
        if f"status of {self.expected}" not in said.text:
            self._add(said.location["url"], f"{said.type}: {said.text}")

    def _add(self, url: str, complaint: str) -> None:
        airflow = self.url.rsplit("/", 1)[0]
        if url.startswith(self.url) or not url.removeprefix("blob:").startswith(airflow):
            self.complaints.append(f"{complaint} at {url}")


class People:
    """Users of all roles.

    Each user logs in once, with the login form of Airflow's FAB auth manager.
    """

    def __init__(self, browser: Browser, pages_server: PagesServer) -> None:
        self.pages_server = pages_server
        self.browser = browser
        self._door = browser.new_page()  # shared, since FAB's page loads a megabyte of scripts
        self._states: dict[str, Any] = {}

    def state(self, role: str) -> Any:
        """Return the cookies with which the user of a role is logged in."""
        if role not in self._states:
            account, airflow, page = account_of(role), self.pages_server.airflow, self._door
            page.context.clear_cookies()
            page.goto(f"{airflow.url}/auth/login/?next=%2Fcompliance%2Fassets%2Fpages.css")
            page.locator("input[name=username]").fill(account)
            page.locator("input[name=password]").fill(airflow.passwords[account])
            page.get_by_role("button", name="Sign In").click()
            page.wait_for_url(
                f"{self.pages_server.url}/assets/*"
            )  # a small file that all roles may load
            self._states[role] = page.context.storage_state()
        return self._states[role]

    @contextmanager
    def visit(
        self, role: str, language: str = "en", expected: int = 0, **settings: Any
    ) -> Iterator[Visit]:
        """Open a tab as the user of a role, and assert at the end that no error occurred.

        Args:
            role: role of the user.
            language: language of the browser.
            expected: HTTP status that is not counted as an error; 0 if every error status counts.
            settings: further settings of Playwright's browser context.
        """
        context = self.browser.new_context(
            **{"viewport": DESK, "color_scheme": "light", **settings},
            storage_state=self.state(role), locale=language,
        )  # fmt: skip
        context.set_default_timeout(LONGEST_WAIT)
        tab = Visit(context.new_page(), self.pages_server.url, expected=expected)
        try:
            context.on("page", tab.watch)
            tab.watch(tab.page)
            yield tab
            assert tab.complaints == []
        except (AssertionError, Error) as failed:
            text = " ".join(tab.page.locator("body").inner_text().split())[:300]
            failed.add_note(f"{role} at {tab.page.url}: {text}; complaints: {tab.complaints}")
            raise
        finally:
            context.close()


def picture(page: Page, name: str) -> None:
    """Save a screenshot of the whole page in the folder TEST_SCREENSHOTS, if that variable is set.

    A screenshot takes half a second of CPU time.
    """
    if folder := os.environ.get("TEST_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{name}.png"), full_page=True)


def named(path: str) -> str:
    """Return the path of a page as text that can be part of a file name."""
    return path.strip("/").replace("/", "-").replace("?", "") or "overview"


def ask(pages_server: PagesServer, role: str, run: str) -> str:
    """Create a required action for the user of a role, in the same way as a worker of Airflow.

    Return the subject of the required action, which contains a script.

    Args:
        pages_server: API server of the test.
        role: role of the user who is asked.
        run: id of the run that asks.
    """
    airflow, account, subject = pages_server.airflow, account_of(role), f"Grade of {run}? {XSS}"
    response = airflow.session(ADMIN).post(
        f"{airflow.url}/api/v2/dags/respond_to_incident/dagRuns",
        json={
            "dag_run_id": run,
            "logical_date": None,
            "conf": {"type": "lost_device", "what": "A scanner is gone."},
        },
        timeout=120,
    )
    assert response.ok, response.text
    with psycopg.connect(airflow.database) as connection:
        update = connection.execute(ASK, [run, subject, account, account])
        assert update.rowcount == 1
    return subject
