"""An SMTP server that does as it is told: takes mail, puts it off, refuses, is cut off.

    with Smtp() as server:
        server.rule = lambda phase, address: "451 4.7.1 greylisted" if phase == "RCPT" else None

A rule gets each command (``MAIL``, ``RCPT``, ``DATA``; the last when the whole mail was read) with
the address it is about, and returns the answer, ``DROP`` to cut the line, or None to go on.
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
    """A mail that the server read to its end, whether it answered or not."""

    recipient: str
    content: bytes

    @cached_property
    def mail(self) -> EmailMessage:
        return cast("EmailMessage", email.message_from_bytes(self.content, policy=default))

    @property
    def message_id(self) -> str:
        return str(self.mail["Message-ID"]).strip("<>")

    def text(self, kind: str) -> str:
        """The text of one of its parts."""
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
    """A server on a free port of this machine.

    Attributes:
        read: mails that were read to their end.
        taken: those of them that it answered for.
        rule: what goes wrong; nothing, at first.
        slow: seconds that it takes over each mail.
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
        self.sessions = 0  # it looks by itself whether it answers
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
        """How often each message was read."""
        return Counter(one.message_id for one in self.read)

    def _known(self, *words: Any) -> AuthResult:
        given = words[-1]
        known = (given.login.decode(), given.password.decode()) == self.login
        return AuthResult(success=known, handled=False)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
