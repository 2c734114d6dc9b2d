"""A person at Airflow's pages: logs in, finds a question, presses an option, starts a workflow."""

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

# Nobody looks at the screen: without a process that imitates a graphics card, pages take 20% less.
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
    """Debian's Chromium, which reaches this machine only.

    Playwright's limits of 5 and 30 s are short on a slow machine.
    """
    expect.set_options(timeout=LONGEST_WAIT)
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                *WITHOUT_GPU,
                "--disable-background-networking",
                "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            ],
        )
        yield made
        made.close()


@contextmanager
def logged_in(browser: Browser, airflow: Standalone, user: str) -> Iterator[Page]:
    """Log in by Airflow's form, in a fresh profile; left open, a page would ask on and on."""
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


def open_question(page: Page, batch: str) -> None:
    """Go to a batch as people do: Required Actions, then the line of the batch."""
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("menuitem", name="Required Actions").click()
    page.get_by_role("link", name=re.compile(batch)).click()
    expect(page.get_by_role("button", name="Approve")).to_be_visible()


def compliance_pages(page: Page, name: str) -> FrameLocator:
    """Go to one of the compliance pages by Airflow's navigation, and theirs inside it."""
    page.get_by_role("link", name="Compliance").first.click()
    pages = page.frame_locator("iframe")
    pages.locator("header nav").get_by_role("link", name=name).click()
    expect(pages.get_by_role("heading", level=1)).to_contain_text(name)
    return pages


def press(page: Page, option: str) -> int:
    """Press an option and return what Airflow answered."""

    def is_answer(got: Response) -> bool:
        return got.request.method == "PATCH" and got.url.endswith("/hitlDetails")

    with page.expect_response(is_answer) as answered:
        page.get_by_role("button", name=option).click()
    return answered.value.status


def open_form(page: Page, name: str) -> Locator:
    """Go to a workflow by its name and open the form that starts it."""
    page.get_by_role("link", name="Dags").first.click()
    page.get_by_role("link", name=name).click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    page.get_by_role("button", name="Trigger Dag").click()
    return page.get_by_role("dialog")


def start(page: Page, form: Locator, path: str) -> dict[str, Any]:
    """Press Trigger and return the run that Airflow made."""
    with page.expect_response(
        lambda got: got.request.method == "POST" and got.url.endswith(path)
    ) as started:
        form.get_by_role("button", name="Trigger").click()
    assert started.value.status == 200
    run = started.value.json()
    assert isinstance(run, dict)
    return run
