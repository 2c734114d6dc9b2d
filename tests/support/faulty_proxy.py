"""An HTTP proxy for tests that returns errors, hangs and resets connections.

    proxy = FaultyProxy(server.endpoint, every(10, answer(503, "SlowDown")))

A rule is a function that receives each request and returns a fault, or None to forward the request.
"""

from __future__ import annotations

import http.client
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

_PIECE = 64 * 1024


@dataclass(frozen=True)
class ProxiedRequest:
    """A request to the proxy.

    Attributes:
        number: sequence number of the request since the proxy started, from 1.
        method: HTTP method, such as ``GET`` or ``PUT``.
        path: path with the query string.
        size: size of the request's body in bytes.
    """

    number: int
    method: str
    path: str
    size: int


@dataclass(frozen=True)
class Fault:
    """A fault of the proxy. Exactly one attribute except ``code`` is set.

    Attributes:
        status: HTTP status that the proxy returns without asking the server.
        code: S3 error code in that response.
        hang_seconds: seconds without a response, after which the proxy drops the connection.
        reset_upload_after: number of bytes of the request's body after which the proxy resets the
            connection.
        reset_download_after: number of bytes of the response's body after which the proxy resets
            the connection.
        slow_upload_seconds: seconds that the proxy takes to read the request's body before it
            forwards the request.
        lose_answer: whether the proxy forwards the request and resets the connection before the
            response.
    """

    status: int = 0
    code: str = ""
    hang_seconds: float = 0
    reset_upload_after: int | None = None
    reset_download_after: int | None = None
    slow_upload_seconds: float = 0
    lose_answer: bool = False


Rule = Callable[[ProxiedRequest], Fault | None]


def every(nth: int, fault: Fault) -> Rule:
    """Return a rule that applies a fault to every n-th request."""
    return lambda request: fault if request.number % nth == 0 else None


def first(times: int, matches: Callable[[ProxiedRequest], bool], fault: Fault) -> Rule:
    """Return a rule that applies a fault to the first ``times`` matching requests."""
    lock = threading.Lock()
    left = times

    def rule(request: ProxiedRequest) -> Fault | None:
        nonlocal left
        with lock:
            if left and matches(request):
                left -= 1
                return fault
        return None

    return rule


class FaultyProxy:
    """A threaded proxy in front of an HTTP server; ``faults`` is the number of applied faults."""

    def __init__(self, target: str, rule: Rule | None = None) -> None:
        address = urlsplit(target)
        self.target = (address.hostname or "", address.port or 80)
        self.rule: Rule = rule or (lambda _: None)
        self.requests: list[ProxiedRequest] = []
        self.faults = 0
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    def judge(self, method: str, path: str, size: int) -> Fault | None:
        with self._lock:
            request = ProxiedRequest(len(self.requests) + 1, method, path, size)
            self.requests.append(request)
        fault = self.rule(request)
        if fault:
            with self._lock:
                self.faults += 1
        return fault

    def stop(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    proxy: FaultyProxy
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        """Limit the receive buffer, so that a slow reader slows the sender down."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PIECE)
        super().server_bind()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing, because this server breaks connections on purpose."""


class _Reset(Exception):
    """The connection was reset on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    def do_GET(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        fault = self.server.proxy.judge(self.command, self.path, size) or Fault()
        if fault.hang_seconds:
            self.server.proxy.stopping.wait(fault.hang_seconds)
            self._reset()
        if fault.reset_upload_after is not None:
            self._read_body(min(size, fault.reset_upload_after))
            self._reset()
        body = self._read_slowly(size, fault.slow_upload_seconds)
        if fault.status:
            self._answer_error(fault)
            return
        upstream = http.client.HTTPConnection(*self.server.proxy.target, timeout=120)
        try:
            upstream.request(self.command, self.path, body, dict(self.headers))
            self._pass_on(upstream.getresponse(), fault)
        finally:
            upstream.close()

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815 - http.server's names

    def _read_body(self, size: int) -> bytes:
        body = self.rfile.read(size) if size else b""
        if len(body) < size:
            raise _Reset
        return body

    def _read_slowly(self, size: int, seconds: float) -> bytes:
        if not seconds:
            return self._read_body(size)
        pieces = []
        for start in range(0, size, _PIECE):
            self.server.proxy.stopping.wait(seconds * _PIECE / size)
            pieces.append(self._read_body(min(_PIECE, size - start)))
        return b"".join(pieces)

    def _answer_error(self, fault: Fault) -> None:
        text = f"<Error><Code>{fault.code}</Code><Message>on purpose</Message></Error>".encode()
        self.send_response(fault.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _pass_on(self, answer: http.client.HTTPResponse, fault: Fault) -> None:
        if fault.lose_answer:
            answer.read()
            self._reset()
        self.send_response_only(answer.status, answer.reason)
        named = {name.lower() for name, _ in answer.getheaders()}
        for name, value in answer.getheaders():
            if name.lower() not in {"transfer-encoding", "connection"}:
                self.send_header(name, value)
        if "content-length" not in named:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        sent = 0
        while piece := answer.read(_PIECE):
            if fault.reset_download_after is not None:
                piece = piece[: fault.reset_download_after - sent]
            self.wfile.write(piece)
            sent += len(piece)
            if sent == fault.reset_download_after:
                # A reset discards data that a busy peer has not read yet.
                time.sleep(0.5)
                self._reset()

    def _reset(self) -> None:
        """Close the connection with RST, so that the client sees a connection reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
        raise _Reset
