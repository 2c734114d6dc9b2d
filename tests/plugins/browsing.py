"""A person of a role at the compliance pages in Chromium, and all that the browser complains of."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from tests.plugins.company import PACK, XSS
from tests.plugins.shown import Shown
from tests.support.fab import ADMIN, account_of

PATHS: Mapping[permissions.Page, tuple[str, str, str]] = {
    permissions.Page.OVERVIEW: ("/", "Overview", "总览"),
    permissions.Page.EVIDENCE: ("/evidence", "Evidence", "证据"),
    permissions.Page.WAITING: ("/waiting", "Waiting for you", "待您处理"),
    permissions.Page.CLOCKS: ("/clocks", "Clocks", "时限"),
    permissions.Page.HOLDS: ("/holds", "Holds", "法律保全"),
    permissions.Page.FINDINGS: ("/findings", "Findings and actions", "发现事项与整改"),
    permissions.Page.RESTORE_POINTS: ("/restore-points", "Restore points", "恢复点"),
}
"""Address and heading of each page, in English and in Chinese."""
EVERY_PAGE = (*(path for path, _en, _zh in PATHS.values()), "/evidence/2", "/nowhere")
"""The pages, one bundle, and an error: what a test of looks goes over."""
DESK, PHONE = {"width": 1400, "height": 1000}, {"width": 360, "height": 740}
OFFICER = "Compliance Officer"  # sees every page
# Airflow frames our pages so, and Chromium notes it each time.
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
    """Return the pages of a role, by the table."""
    if role == ADMIN:
        return frozenset(permissions.Page)
    return next(one.pages for one in all_roles(PACK) if one.name == role)


@dataclass
class Visit:
    """A tab with what went wrong in it.

    Attributes:
        page: the tab.
        url: of the compliance pages, without a slash at its end.
        complaints: console errors, refusals of the content security policy, requests that failed
            or were refused, errors of scripts, dialogs.
        expected: a status that is no complaint: of pages that have to say no.
    """

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    expected: int = 0

    def open(self, path: str) -> Response:
        """Go to a page of ours."""
        got = self.page.goto(self.url + path)
        assert got is not None
        return got

    def see(self, heading: str, language: str) -> None:
        """Wait until a page of ours is there."""
        expect(self.page.get_by_role("heading", level=1)).to_contain_text(heading)
        assert self.page.locator("html").get_attribute("lang") == language
        assert "taken" not in self.page.title()

    def watch(self, page: Page) -> None:
        """Listen to a tab; of Airflow's own pages around ours, to what they run alone."""
        page.on("dialog", self._dialog)
        page.on("pageerror", lambda one: "/auth/static/" in one.stack or self._add("", str(one)))
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

    def _add(self, url: str, what: str) -> None:
        airflow = self.url.rsplit("/", 1)[0]
        if url.startswith(self.url) or not url.removeprefix("blob:").startswith(airflow):
            self.complaints.append(f"{what} at {url}")


class People:
    """Who looks; each logs in once, by FAB's own form."""

    def __init__(self, browser: Browser, shown: Shown) -> None:
        self.shown = shown
        self._browser = browser
        self._door = browser.new_page()  # one for all: FAB's page brings a megabyte of scripts
        self._states: dict[str, Any] = {}

    def state(self, role: str) -> Any:
        """Return the cookies of a role's user."""
        if role not in self._states:
            account, airflow, page = account_of(role), self.shown.airflow, self._door
            page.context.clear_cookies()
            page.goto(f"{airflow.url}/auth/login/?next=%2Fcompliance%2Fassets%2Fpages.css")
            page.locator("input[name=username]").fill(account)
            page.locator("input[name=password]").fill(airflow.passwords[account])
            page.get_by_role("button", name="Sign In").click()
            page.wait_for_url(f"{self.shown.url}/assets/*")  # something light that all roles get
            self._states[role] = page.context.storage_state()
        return self._states[role]

    @contextmanager
    def visit(
        self, role: str, language: str = "en", expected: int = 0, **settings: Any
    ) -> Iterator[Visit]:
        """Open a tab as somebody; at the end nothing was complained of.

        Args:
            role: of whom.
            language: of the browser.
            expected: a status that is no complaint.
            settings: of Playwright's context.
        """
        context = self._browser.new_context(
            **{"viewport": DESK, "color_scheme": "light", **settings},
            storage_state=self.state(role), locale=language,
        )  # fmt: skip
        context.set_default_timeout(LONGEST_WAIT)
        made = Visit(context.new_page(), self.shown.url, expected=expected)
        try:
            context.on("page", made.watch)
            made.watch(made.page)
            yield made
            assert made.complaints == []
        except (AssertionError, Error) as failed:
            shown = " ".join(made.page.locator("body").inner_text().split())[:300]
            failed.add_note(f"{role} at {made.page.url}: {shown}; complaints: {made.complaints}")
            raise
        finally:
            context.close()


def picture(page: Page, name: str) -> None:
    """Save a screenshot of the whole page in the folder TEST_SCREENSHOTS, if it is set.

    A picture takes half a second of CPU.
    """
    if folder := os.environ.get("TEST_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{name}.png"), full_page=True)


def named(path: str) -> str:
    """Turn the address of a page into a part of a file's name."""
    return path.strip("/").replace("/", "-") or "overview"


def ask(shown: Shown, role: str, run: str) -> str:
    """Put a question before the user of a role, as the worker's request to Airflow does.

    Returns what it says: words of somebody who means no good.
    """
    airflow, account, subject = shown.airflow, account_of(role), f"Grade of {run}? {XSS}"
    given = airflow.session(ADMIN).post(
        f"{airflow.url}/api/v2/dags/respond_to_incident/dagRuns",
        json={
            "dag_run_id": run,
            "logical_date": None,
            "conf": {"type": "lost_device", "what": "A scanner is gone."},
        },
        timeout=120,
    )
    assert given.ok, given.text
    with psycopg.connect(airflow.database) as connection:
        done = connection.execute(ASK, [run, subject, account, account])
        assert done.rowcount == 1
    return subject
