"""Refuses log-ins after too many failed ones: an ASGI middleware of the auth manager's app.

It covers `/auth/token`, `/auth/token/cli` and the form of `/auth/login`. FAB limits only the form,
and only by address.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from include.orchestration.access.failed_logins import FailedLogins

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
        account = await _account(scope, body, is_form)
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


async def _account(scope: Scope, body: bytes, is_form: bool) -> str:
    """Return the account that a request names; empty if it names none."""
    fields: Any
    try:
        if is_form:
            fields = await _form(scope, body)
        else:
            fields = json.loads(body)
    except (ValueError, RecursionError, MultiPartException):
        return ""
    name = fields.get("username", "") if isinstance(fields, (dict, FormData)) else ""
    return name if isinstance(name, str) else ""


async def _form(scope: Scope, body: bytes) -> FormData:
    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    # A copy: the request of the app parses the body itself.
    return await Request(dict(scope), _replay(body, nothing)).form()


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
