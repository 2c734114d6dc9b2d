"""An ASGI middleware of the auth manager's web app that refuses log-ins after too many failures.

The middleware covers `/auth/token`, `/auth/token/cli` and the form of `/auth/login`. FAB itself
limits only the form, and only by the client's address.
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
CAPACITY = 20_000  # remembered accounts and addresses; the least recent is dropped first


@dataclass
class FailedLogins:
    """Counts the failed log-ins of the last five minutes, by account and by client address.

    A log-in is counted when it begins, so guesses that are sent at the same time are all counted.

    Attributes:
        clock: returns the seconds of a monotonic clock.
        capacity: maximum number of accounts and addresses in memory.
    """

    clock: Callable[[], float] = time.monotonic
    capacity: int = CAPACITY
    _times: OrderedDict[bytes, deque[float]] = field(default_factory=OrderedDict)

    def begin(self, account: str, address: str) -> Attempt | float:
        """Count a log-in when it begins, or refuse it.

        Args:
            account: account as the person typed it.
            address: address of the client.

        Returns:
            The log-in attempt. If the log-in is refused, the number of seconds until another
            attempt is accepted.
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
        """Remove a log-in from the count, because it succeeded or no password was compared.

        Args:
            keys: the keys under which the log-in is counted: one for the account, and one for the
                client's address.
            moment: time at which the log-in began, in seconds of `clock`.
        """
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
    """A log-in attempt, which counts as failed until `forgive` is called.

    Attributes:
        counts: counter that counts the attempt.
        keys: the two keys under which `counts` counts the attempt: one for the account, and one for
            the client's address.
        moment: time at which the attempt began, in seconds of a monotonic clock.
    """

    counts: FailedLogins
    keys: Sequence[bytes]
    moment: float

    def forgive(self) -> None:
        """Remove this attempt from the count, because it succeeded or no password was compared."""
        self.counts.forget(self.keys, self.moment)


def _account_key(account: str) -> bytes:
    """Return the key under which the log-ins of an account are counted.

    All keys have the same size. Two spellings of an account that differ only in upper and lower
    case have the same key, because FAB treats them as one account.
    """
    return b"account " + sha256(account.strip().lower().encode(errors="replace")).digest()


def _address_key(address: str) -> bytes:
    """Return the key under which the log-ins from a client address are counted.

    All addresses of an IPv6 /64 network have the same key, because a single internet user usually
    has all of these addresses.
    """
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
MAX_BODY_BYTES = 65_536
LOGGED_NAME_LENGTH = 64  # characters of an account in a line of the log

Read = Callable[[], Awaitable[bytes]]


class LoginThrottle:
    """ASGI middleware that answers 429 if an account or an address had too many failed log-ins.

    The answer has the header `Retry-After`. Each process of the API server counts separately, in a
    limited amount of memory.

    Args:
        app: web app of the auth manager.
        counts: counter of the failed log-ins; by default a new counter.
    """

    def __init__(self, app: ASGIApp, counts: FailedLogins | None = None) -> None:
        self._app = app
        self._counts = counts or FailedLogins()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request to the web app, unless the request is a log-in that has to be refused.

        A log-in is refused after too many failed log-ins, if the body of its request is too large,
        or if this body contains several account names.
        """
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
        if len(accounts) > 1:  # FAB may use another of the accounts than this check
            await Response("A log-in names one account.", 400)(scope, receive, send)
            return
        account = "".join(accounts)
        address = scope["client"][0] if scope.get("client") else ""
        attempt = self._counts.begin(account, address)
        if isinstance(attempt, float):
            seconds = max(1, math.ceil(attempt))
            log.warning(
                "Log-in of %r from %s refused: too many failed log-ins, next one in %d s.",
                account[:LOGGED_NAME_LENGTH],
                address,
                seconds,
            )
            await _refusal(seconds, is_form)(scope, receive, send)
            return
        has_failed = False

        async def send_and_check(message: Message) -> None:
            nonlocal has_failed
            if message["type"] == "http.response.start":
                has_failed = _is_failed(message, is_form)
            await send(message)

        try:
            await self._app(scope, _replay(body, receive), send_and_check)
        finally:
            if not has_failed:
                attempt.forgive()


async def _read(receive: Receive) -> bytes | None:
    """Return the body of a request; None if the body exceeds `MAX_BODY_BYTES`."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += bytes(message.get("body", b""))
        if len(body) > MAX_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return an ASGI receive function that yields a body that was already read."""
    is_replayed = False

    async def receive_again() -> Message:
        nonlocal is_replayed
        if is_replayed:
            return await receive()
        is_replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


async def _accounts(scope: Scope, body: bytes, is_form: bool) -> list[str]:
    """Return the account names in the body of a log-in request.

    A form may contain several account names. The result is empty if the body cannot be parsed.
    """
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


def _is_failed(response: Message, is_form: bool) -> bool:
    """Return whether a response of the web app means that the password was wrong.

    Args:
        response: ASGI message with the status and the headers of the response.
        is_form: whether FAB's log-in form sent the request.
    """
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
