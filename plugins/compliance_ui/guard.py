"""Set security headers on every response, and refuse cross-site requests that change data."""

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


# Allow only our own scripts, styles, frames and forms. Error pages inline a script and a style,
# which the policy names by digest.
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
    """A middleware that sets security headers and refuses cross-site requests that change data.

    The download of an extract is the only route that changes data: it records the opening.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a safe request to the app, or refuse an unsafe request with status 403.

        The function `_is_safe` decides which requests are safe.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at = time.perf_counter()

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                milliseconds = (time.perf_counter() - started_at) * 1000
                headers["server-timing"] = f"app;dur={milliseconds:.1f}"
            await send(message)

        app = self._app if _is_safe(scope) else PlainTextResponse("Refused.", 403)
        await app(scope, receive, with_headers)


def _is_safe(scope: Scope) -> bool:
    """Return whether a request only reads data, or cannot misuse the session of a browser.

    A request cannot misuse a session if it comes from a page of this server. A browser sends the
    Origin header with every request that may change data. Therefore a request without this header
    comes from a program that is not a browser. Such a request is safe if it has no cookie, because
    only a cookie could identify a session.
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
