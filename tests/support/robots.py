"""A server with the webhooks of chat robots, which checks requests as the real servers do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

SECRET = "SECsesame"
TOKEN = "token-of-a-robot"


class RobotServer:
    """A server that receives the messages of chat robots.

    Attributes:
        texts: received messages.
        answer: status and body of the response instead of the usual ones; ``drop`` closes the
            connection without a response.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.answer: tuple[int, str] | str | None = None
        self.slow: float = 0
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.robots = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing, because clients of some tests do not wait for the answer."""


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    def do_POST(self) -> None:
        robots: RobotServer = self.server.robots  # type: ignore[attr-defined]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        code, text = _judged(parts.path, query, body)
        if robots.answer != "drop" and robots.answer is not None:
            assert isinstance(robots.answer, tuple)
            return self._say(*robots.answer)
        if code == 0:
            robots.texts.append(text)
        if robots.slow:
            time.sleep(robots.slow)
        if robots.answer == "drop":
            self.connection.close()
            return None
        key = "code" if parts.path.startswith("/open-apis") else "errcode"
        return self._say(200, json.dumps({key: code, "errmsg": f"token {TOKEN}"}))

    def _say(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())


def _judged(path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, str]:
    """Return the status code that the real server would return, and the text of the message."""
    if path == "/cgi-bin/webhook/send":
        is_accepted = query.get("key") == TOKEN and body["msgtype"] == "text"
        return (0 if is_accepted else 93000), body["text"]["content"]
    if path == "/robot/send":
        if query.get("access_token") != TOKEN:
            return 300005, ""
        text = f"{query.get('timestamp')}\n{SECRET}".encode()
        return (0 if query.get("sign") == _signed(SECRET.encode(), text) else 310000), body["text"][
            "content"
        ]
    if path == f"/open-apis/bot/v2/hook/{TOKEN}":
        key = f"{body.get('timestamp')}\n{SECRET}".encode()
        good = body.get("sign") == _signed(key, b"") and body["msg_type"] == "text"
        return (0 if good else 19021), body["content"]["text"]
    return 404, ""


def _signed(key: bytes, text: bytes) -> str:
    return base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
