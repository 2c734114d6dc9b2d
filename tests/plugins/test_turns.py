"""Few pages are prepared at the same time, and a slow page stops no other page."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from plugins.compliance_ui import turns
from plugins.compliance_ui.turns import AT_ONCE, Turns

REQUESTS = 12


class App:
    """An app whose requests last until `finish` is set. It counts requests that run at once."""

    def __init__(self) -> None:
        self.running = self.most = self.answered = 0
        self.finish = asyncio.Event()
        self.fails = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.wait_for(self.finish.wait(), 30)
            if self.fails:
                raise ValueError("broken page")
        finally:
            self.running -= 1
        await send({"type": "http.response.start"})
        await send({"type": "http.response.body"})
        self.answered += 1


async def ask(app: Turns) -> None:
    async def nothing(*_: Any) -> None: ...

    await app({"type": "http"}, nothing, nothing)


async def ask_often(app: App, at_once: int) -> None:
    """Send 12 requests at once, and let them finish when `at_once` of them run."""
    guarded = Turns(app)
    tasks = [asyncio.create_task(ask(guarded)) for _number in range(REQUESTS)]
    async with asyncio.timeout(10):
        while app.running < at_once:
            await asyncio.sleep(0.001)
    app.finish.set()
    await asyncio.gather(*tasks, return_exceptions=True)


def in_a_thread(coroutine: Coroutine[Any, Any, None]) -> None:
    """Execute a coroutine in a thread of its own, because Playwright has a loop in this thread."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, coroutine).result(60)


@pytest.fixture
def app() -> App:
    return App()


@pytest.mark.parametrize(
    ("patience", "at_once"),
    [
        pytest.param(30.0, AT_ONCE, id="few-at-once"),
        pytest.param(0.01, REQUESTS, id="all-at-once-if-patience-ends"),
    ],
)
def test_requests_wait_for_their_turn_until_their_patience_ends(
    app: App, monkeypatch: pytest.MonkeyPatch, patience: float, at_once: int
) -> None:
    monkeypatch.setattr(turns, "PATIENCE", patience)
    in_a_thread(ask_often(app, at_once))
    assert (app.most, app.answered) == (at_once, REQUESTS)


def test_failed_request_gives_its_turn_to_the_next_request(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 30.0)
    app.fails = True
    in_a_thread(ask_often(app, at_once=AT_ONCE))
    assert (app.most, app.running) == (AT_ONCE, 0)
