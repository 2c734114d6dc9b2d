"""A server that simulates Airflow's REST API, for tests of its clients."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class AirflowAnswers(BaseHTTPRequestHandler):
    """Accepts each log-in and starts each run. Subclasses answer GET requests."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(201, {"access_token": "t", "dag_run_id": "manual"})

    def answer(self, status: int, content: dict[str, object]) -> None:
        """Send a JSON object with an HTTP status."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""


@contextmanager
def serving(answers: type[AirflowAnswers]) -> Iterator[str]:
    """Serve on a free local port during the block, and yield the server's address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), answers) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
