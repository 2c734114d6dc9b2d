"""Headers that every answer has, and requests that none of these pages takes."""

from __future__ import annotations

import base64
import time
from hashlib import sha256
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plugins.compliance_ui.rendering import error_script, error_style

SAFE = {"GET", "HEAD"}


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"


# No script, style, frame or form but our own; error pages bring both along, named by digest.
POLICY = (
    "default-src 'none'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    f"frame-ancestors 'self'; script-src 'self' {_digest(error_script())}; "
    f"style-src 'self' {_digest(error_style())}"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


class Guard:
    """Refuses what another site sends to change something, and sets the headers.

    The pages change nothing; a route that would is behind this check from its first day.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                spent = (time.perf_counter() - began) * 1000
                headers["server-timing"] = f"app;dur={spent:.1f}"
            await send(message)

        app = self._app if _comes_from_here(scope) else PlainTextResponse("Refused.", 403)
        await app(scope, receive, with_headers)


def _comes_from_here(scope: Scope) -> bool:
    """Whether a request only reads, or was sent by a page of this server itself.

    A browser names the page's origin with every request that may change something. One that
    names none, as a program does, has no cookie of a browser to misuse.
    """
    if scope["method"] in SAFE:
        return True
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if origin is None:
        return "cookie" not in headers
    try:
        return urlsplit(origin).netloc == headers.get("host")
    except ValueError:
        return False
