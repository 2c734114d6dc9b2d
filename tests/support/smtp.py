"""An SMTP server for tests that accepts, defers or refuses mails, or drops the connection.

    with Smtp() as server:
        server.rule = lambda phase, address: "451 4.7.1 greylisted" if phase == "RCPT" else None

A rule is a function that receives each command (``MAIL``, ``RCPT`` or ``DATA``) and its address. It
returns the response, ``DROP`` to close the connection, or None to continue. For ``DATA``, it is
called after the whole mail was read.
"""

from __future__ import annotations

import asyncio
import email
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import default
from functools import cached_property
from types import TracebackType
from typing import Any, Self, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

DROP = "drop"
Rule = Callable[[str, str], str | None]


@dataclass(frozen=True)
class Received:
    """A mail that the server read completely, whether it accepted the mail or not."""

    recipient: str
    content: bytes

    @cached_property
    def mail(self) -> EmailMessage:
        return cast("EmailMessage", email.message_from_bytes(self.content, policy=default))

    @property
    def message_id(self) -> str:
        return str(self.mail["Message-ID"]).strip("<>")

    def text(self, kind: str) -> str:
        """Return the body of the mail as text.

        Args:
            kind: ``plain`` or ``html``.
        """
        part = self.mail.get_body((kind,))
        assert part is not None
        return str(part.get_content())


class _Handler:
    def __init__(self, server: Smtp) -> None:
        self.server = server

    def _answer(self, smtp: SMTP, phase: str, address: str) -> str | None:
        answer = self.server.rule(phase, address)
        if answer == DROP:
            assert smtp.transport is not None
            smtp.transport.abort()
        return answer

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, smtp: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = self._answer(smtp, "MAIL", address)
        if answer is None:
            envelope.mail_from = address
            envelope.mail_options.extend(options)
        return answer or "250 OK"

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, smtp: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = self._answer(smtp, "RCPT", address)
        if answer is None:
            envelope.rcpt_tos.append(address)
        return answer or "250 OK"

    async def handle_DATA(self, smtp: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        (address,) = envelope.rcpt_tos
        assert isinstance(envelope.content, bytes)
        if self.server.slow:
            await asyncio.sleep(self.server.slow)
        self.server.read.append(Received(address, envelope.content))
        answer = self._answer(smtp, "DATA", address)
        if answer is None or answer.startswith("250"):
            self.server.taken.append(self.server.read[-1])
        return answer or "250 2.0.0 OK"


@dataclass
class Smtp:
    """An SMTP server on a free local port.

    Attributes:
        read: mails that were read completely.
        taken: mails that the server accepted.
        rule: function that decides the responses; by default all mails are accepted.
        slow: seconds before the response to each mail.
    """

    utf8: bool = False
    certificate: ssl.SSLContext | None = None
    implicit_tls: bool = False
    login: tuple[str, str] | None = None
    port: int = 0
    read: list[Received] = field(default_factory=list, repr=False)
    taken: list[Received] = field(default_factory=list, repr=False)
    slow: float = 0
    sessions: int = 0

    def __post_init__(self) -> None:
        self.rule: Rule = lambda _phase, _address: None
        self.port = self.port or free_port()
        self._controller: Controller | None = None

    def start(self) -> Self:
        outer = self

        class Counted(SMTP):
            def connection_made(self, transport: Any) -> None:
                outer.sessions += 1
                super().connection_made(transport)

        class Own(Controller):
            def factory(self) -> SMTP:
                return Counted(self.handler, **self.SMTP_kwargs)

        settings: dict[str, Any] = {"enable_SMTPUTF8": self.utf8, "ident": "test"}
        if self.login:
            settings |= {"authenticator": self._known, "auth_required": True}
            settings["auth_require_tls"] = self.certificate is not None
        if self.certificate and not self.implicit_tls:
            settings |= {"tls_context": self.certificate, "require_starttls": True}
        if self.certificate and self.implicit_tls:
            settings["ssl_context"] = self.certificate
        self._controller = Own(_Handler(self), hostname="127.0.0.1", port=self.port, **settings)
        self._controller.start()
        self.sessions = 0  # the controller's own test connection does not count
        return self

    def stop(self) -> None:
        if self._controller is not None:
            self._controller.stop(no_assert=True)
        self._controller = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def copies(self) -> Counter[str]:
        """Return how often each mail was read, by Message-ID."""
        return Counter(mail.message_id for mail in self.read)

    def _known(self, *words: Any) -> AuthResult:
        credentials = words[-1]
        is_valid = (credentials.login.decode(), credentials.password.decode()) == self.login
        return AuthResult(success=is_valid, handled=False)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
