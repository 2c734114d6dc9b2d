"""Refuse log-ins after too many failed ones: an ASGI middleware of the auth manager's app.

It covers `/auth/token`, `/auth/token/cli` and the form of `/auth/login`. FAB limits only the form,
and only by address.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import math
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

WINDOW = 300.0  # seconds that a failed log-in counts
PER_ACCOUNT = 10  # failed log-ins within the window, from any addresses
PER_ADDRESS = 30  # for any accounts: several people may share an address
CAPACITY = 20_000  # accounts and addresses that are remembered; the least recent one goes first


@dataclass
class FailedLogins:
    """The failed log-ins of the last minutes.

    A log-in counts from its beginning, so that guesses made at the same time count as well.

    Attributes:
        clock: returns seconds that only increase.
        capacity: most accounts and addresses that are remembered.
    """

    clock: Callable[[], float] = time.monotonic
    capacity: int = CAPACITY
    _times: OrderedDict[bytes, deque[float]] = field(default_factory=OrderedDict)

    def begin(self, account: str, address: str) -> Attempt | float:
        """Count a log-in from its beginning.

        Args:
            account: as it was typed.
            address: of the client.

        Returns:
            The log-in, or the seconds after which another one is accepted.
        """
        now = self.clock()
        keys = [(_account_key(account), PER_ACCOUNT), (_address_key(address), PER_ADDRESS)]
        waits = [self._wait(key, limit, now) for key, limit in keys]
        if max(waits) > 0:
            return max(waits)
        for key, limit in keys:
            self._times.setdefault(key, deque(maxlen=limit)).append(now)
            self._times.move_to_end(key)
        while len(self._times) > self.capacity:
            self._times.popitem(last=False)
        return Attempt(self, [key for key, _ in keys], now)

    def forget(self, keys: Sequence[bytes], moment: float) -> None:
        """Stop counting a log-in that did not fail."""
        for key in keys:
            times = self._times.get(key)
            if times is not None and moment in times:
                times.remove(moment)
                if not times:
                    del self._times[key]

    def _wait(self, key: bytes, limit: int, now: float) -> float:
        times = self._times.get(key)
        while times and times[0] <= now - WINDOW:
            times.popleft()
        return times[0] + WINDOW - now if times and len(times) >= limit else 0.0


@dataclass(frozen=True)
class Attempt:
    """A log-in that began and counts as failed until it is forgiven."""

    counts: FailedLogins
    keys: Sequence[bytes]
    moment: float

    def forgive(self) -> None:
        """Stop counting it: it succeeded, or no password was compared."""
        self.counts.forget(self.keys, self.moment)


def _account_key(account: str) -> bytes:
    """Return a key of fixed size; FAB compares names without regard to case."""
    return b"account " + sha256(account.strip().lower().encode(errors="replace")).digest()


def _address_key(address: str) -> bytes:
    """Return the key of an address; one customer of a provider has a whole /64 of IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return b"address " + sha256(address.encode(errors="replace")).digest()
    if isinstance(parsed, ipaddress.IPv6Address):
        parsed = parsed.ipv4_mapped or ipaddress.IPv6Network((int(parsed), 64), False)[0]
    return b"address " + parsed.packed


log = logging.getLogger(__name__)

TOKEN_PATHS = ("/token", "/token/cli")
FORM_PATH = "/login"
MOST_BYTES = 65_536  # of the body of a log-in
SHOWN_NAME = 64  # characters of an account in a line of the log

Read = Callable[[], Awaitable[bytes]]


class LoginThrottle:
    """Answers 429 with `Retry-After` once an account or an address had too many failed log-ins.

    Each process of the API server counts on its own, in bounded memory.

    Args:
        app: of the auth manager.
        counts: the failed log-ins.
    """

    def __init__(self, app: ASGIApp, counts: FailedLogins | None = None) -> None:
        self._app = app
        self._counts = counts or FailedLogins()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        path = "/" + scope["path"].removeprefix(scope.get("root_path", "")).strip("/")
        if path not in (*TOKEN_PATHS, FORM_PATH):
            await self._app(scope, receive, send)
            return
        body = await _read(receive)
        if body is None:
            await Response("The log-in is too large.", 413)(scope, receive, send)
            return
        is_form = path == FORM_PATH
        accounts = await _accounts(scope, body, is_form)
        if len(accounts) > 1:  # FAB may read another one of them than this count
            await Response("A log-in names one account.", 400)(scope, receive, send)
            return
        account = "".join(accounts)
        address = scope["client"][0] if scope.get("client") else ""
        attempt = self._counts.begin(account, address)
        if isinstance(attempt, float):
            seconds = max(1, math.ceil(attempt))
            log.warning(
                "Log-in of %r from %s refused: too many failed log-ins, next one in %d s.",
                account[:SHOWN_NAME],
                address,
                seconds,
            )
            await _refusal(seconds, is_form)(scope, receive, send)
            return
        failed = False

        async def watch(message: Message) -> None:
            nonlocal failed
            if message["type"] == "http.response.start":
                failed = _failed(message, is_form)
            await send(message)

        try:
            await self._app(scope, _replay(body, receive), watch)
        finally:
            if not failed:
                attempt.forgive()


async def _read(receive: Receive) -> bytes | None:
    """Return the body of a request; None if it is too large."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += bytes(message.get("body", b""))
        if len(body) > MOST_BYTES:
            return None
        if not message.get("more_body", False):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a receiver of a body that was read already."""
    handed_out = False

    async def again() -> Message:
        nonlocal handed_out
        if handed_out:
            return await receive()
        handed_out = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _accounts(scope: Scope, body: bytes, is_form: bool) -> list[str]:
    """Return the accounts that a request names: of a form, each value of the field."""
    names: list[Any]
    try:
        if is_form:
            # A copy: the request of the app parses the body itself.
            async with Request(dict(scope), _replay(body, _nothing)).form() as form:
                names = form.getlist("username")
        else:
            fields: Any = json.loads(body)
            names = [fields.get("username")] if isinstance(fields, dict) else []
    except (ValueError, RecursionError, MultiPartException):
        return []
    return [name for name in names if isinstance(name, str)]


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


def _failed(response: Message, is_form: bool) -> bool:
    """Return whether a response says that the password was wrong."""
    if not is_form:
        return bool(response["status"] == 401)
    cookie = f"{COOKIE_NAME_JWT_TOKEN}=".encode()
    logged_in = any(
        name.lower() == b"set-cookie" and value.startswith(cookie)
        for name, value in response["headers"]
    )
    return response["status"] < 400 and not logged_in


def _refusal(seconds: int, is_form: bool) -> Response:
    text = f"Too many failed log-ins. Try again in {seconds} seconds."
    headers = {"Retry-After": str(seconds)}
    if is_form:
        return Response(text, 429, headers, media_type="text/plain")
    return JSONResponse({"detail": text}, 429, headers)
