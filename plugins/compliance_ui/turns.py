"""Let only a few pages be prepared at the same time, so that each of them is ready sooner."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

AT_ONCE = 3  # pages that are prepared at the same time
PATIENCE = 0.5  # seconds after which a page no longer waits for its turn


class Turns:
    """A middleware that makes requests wait for one another.

    Python executes one thread of a process at a time. A page reads the database some twenty times,
    and after each answer its thread waits until other threads hand over. With twenty pages at once,
    these waits last longer than the work. A request therefore waits for its turn, in the order of
    arrival. A slow store cannot stop the pages, because a request waits for at most half a second.

    Args:
        app: the app that prepares the pages.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request to the app when it has its turn, which ends with the first response."""
        if scope["type"] != "http" or not await self._has_turn():
            await self._app(scope, receive, send)
            return
        has_turn = True

        async def send_after_release(message: Message) -> None:
            nonlocal has_turn
            if has_turn and message["type"] == "http.response.start":
                has_turn = False
                self._turns.release()
            await send(message)

        try:
            await self._app(scope, receive, send_after_release)
        finally:
            if has_turn:
                self._turns.release()

    async def _has_turn(self) -> bool:
        """Wait for a turn, and return whether there was one in time."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._turns.acquire()
        except TimeoutError:
            return False
        return True
