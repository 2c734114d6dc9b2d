"""A server that refuses every PostgreSQL connection with the same error.

    with RefusingServer("致命错误", "28P01", "...") as server:
        psycopg.connect(server.conninfo)

The PostgreSQL servers of the tests cannot do this. They have no translations, and they refuse only
connections that are wrong.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import Self

_TLS_REQUESTS = {80877103, 80877104}  # SSLRequest and GSSENCRequest


class RefusingServer:
    """Refuses each connection at its startup message.

    Args:
        severity: severity of the error in the server's language.
        state: SQLSTATE of the error.
        message: message of the error.
    """

    def __init__(self, severity: str, state: str, message: str) -> None:
        fields = {"S": severity, "V": "FATAL", "C": state, "M": message}
        body = b"".join(f"{code}{text}".encode() + b"\0" for code, text in fields.items()) + b"\0"
        self._error = b"E" + struct.pack("!I", len(body) + 4) + body
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def conninfo(self) -> str:
        """The server's address as a libpq connection string."""
        port = self._listener.getsockname()[1]
        return f"host=127.0.0.1 port={port} user=reader password=x dbname=courier"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends the waiting accept()
        self._listener.close()
        self._thread.join(timeout=10)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                self._refuse(client)

    def _refuse(self, client: socket.socket) -> None:
        with client.makefile("rb") as incoming:
            while header := incoming.read(8):
                size, code = struct.unpack("!II", header)
                incoming.read(size - 8)
                if code not in _TLS_REQUESTS:
                    client.sendall(self._error)
                    return
                client.sendall(b"N")
