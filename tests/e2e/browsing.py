"""Actions of a user in Airflow's web pages: log in, answer required actions, trigger workflows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import (
    Browser,
    FrameLocator,
    Locator,
    Page,
    Response,
    expect,
    sync_playwright,
)

from include.local.airflow import Standalone
from tests.reports.test_browser import CHROMIUM

# Tests need no screen. Without a process that emulates a graphics card, pages are 20% faster.
WITHOUT_GPU = (
    "--disable-gpu",
    "--disable-gpu-compositing",
    "--disable-smooth-scrolling",
    "--disable-software-rasterizer",
    "--in-process-gpu",
)


LONGEST_WAIT = 180_000  # milliseconds, for an expectation or a click


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium, which can connect only to this machine.

    The default time limits of Playwright, 5 and 30 s, are too short for a slow machine.
    """
    expect.set_options(timeout=LONGEST_WAIT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                *WITHOUT_GPU,
                "--disable-background-networking",
                "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            ],
        )
        yield browser
        browser.close()


@contextmanager
def logged_in(browser: Browser, airflow: Standalone, user: str) -> Iterator[Page]:
    """Log in with Airflow's form in a new browser profile, which is closed after the block."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, locale="en")
    with context:
        context.set_default_timeout(LONGEST_WAIT)
        page = context.new_page()
        page.goto(airflow.url)
        page.locator("input[name=username]").fill(user)
        page.locator("input[name=password]").fill(airflow.passwords[user])
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Welcome")).to_be_visible()
        yield page


def open_request(page: Page, batch: str) -> None:
    """Open the required action of a batch through the menu Required Actions."""
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("menuitem", name="Required Actions").click()
    page.get_by_role("link", name=re.compile(batch)).click()
    expect(page.get_by_role("button", name="Approve")).to_be_visible()


def compliance_pages(page: Page, name: str) -> FrameLocator:
    """Open a compliance page through Airflow's navigation, and return the frame of the page."""
    page.get_by_role("link", name="Compliance").first.click()
    pages = page.frame_locator("iframe")
    pages.locator("header nav").get_by_role("link", name=name).click()
    expect(pages.get_by_role("heading", level=1)).to_contain_text(name)
    return pages


def press(page: Page, option: str) -> int:
    """Press the button of an option, and return the HTTP status of Airflow's response."""

    def is_answer(got: Response) -> bool:
        return got.request.method == "PATCH" and got.url.endswith("/hitlDetails")

    with page.expect_response(is_answer) as answered:
        page.get_by_role("button", name=option).click()
    return answered.value.status


def open_form(page: Page, name: str) -> Locator:
    """Go to the page of a workflow, and open the form that triggers it."""
    page.get_by_role("link", name="Dags").first.click()
    page.get_by_role("link", name=name).click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    page.get_by_role("button", name="Trigger Dag").click()
    return page.get_by_role("dialog")


def start(page: Page, form: Locator, path: str) -> dict[str, Any]:
    """Press Trigger, and return the run that Airflow created.

    Args:
        page: page of the browser.
        form: the trigger form.
        path: end of the URL to which the page sends the form.
    """
    with page.expect_response(
        lambda got: got.request.method == "POST" and got.url.endswith(path)
    ) as started:
        form.get_by_role("button", name="Trigger").click()
    assert started.value.status == 200
    run = started.value.json()
    assert isinstance(run, dict)
    return run
