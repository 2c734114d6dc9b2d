"""Send mails over SMTP in a session, and report the fate of each.

A mail is *in doubt* when the connection is lost after its last byte was handed over and before the
server's answer: it may have been taken. smtplib alone raises the same error for that as for a line
that was cut before, so the phases are driven here one by one.
"""

from __future__ import annotations

import re
import smtplib
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Literal

from include.services.connections import ConnectionSpec
from include.services.errors import ServiceError, UsageError
from include.services.fate import Fate, Reply
from include.services.transport import Transport, of_host

_TYPES = {"smtp", "email"}
_ENHANCED = re.compile(rb"[245]\.\d{1,3}\.\d{1,3}(?!\S)")
_LEADING_DOT = re.compile(rb"(?m)^\.")
_ADDRESS = re.compile(r"[^@\s\x00-\x1f\x7f<>]+@[^@\s\x00-\x1f\x7f<>]+")
_NAMED = re.compile(r'"?([^"<>\x00-\x1f\x7f]*?)"? *<([^<>]+)>')
_NOT_THE_RECIPIENT = {500, 502, 503, 530, 534, 535, 538}  # our commands or our login
_MAILBOX_FULL = 552  # RFC 5321, 4.5.3.1.10: to be taken as 452
_FULL_AFTER_ALL = "552 5.2.2"  # without the second code it is the size of the mail
_TOO_MANY = 421  # the server ends the session


@dataclass(frozen=True)
class MailServer:
    """A mail server and who sends through it.

    Attributes:
        security: ``tls`` from the first byte, ``starttls``, or ``none`` on this machine only.
        sender: address that mail comes from.
        sender_name: shown beside it; may be empty.
        reply_to: address for answers; empty where they go to the sender.
        unsubscribe_to: address that a refusal of further mail goes to; may be empty.
        timeout: seconds that the server has for each answer but the last.
        answer_timeout: seconds that it has for its word on a whole mail (RFC 5321, 4.5.3.2.6): it
            may look at it for long, and a mail that is not waited for is sent twice.
    """

    host: str
    port: int
    security: Literal["tls", "starttls", "none"]
    sender: str
    sender_name: str = ""
    login: str = ""
    password: str = field(default="", repr=False)
    reply_to: str = ""
    unsubscribe_to: str = ""
    timeout: float = 30
    answer_timeout: float = 300
    verify: bool | str = True

    @classmethod
    def from_connection(cls, spec: ConnectionSpec) -> MailServer:
        """Read Airflow's SMTP connection.

        Host, port, login and password; in the extra ``disable_ssl``, ``disable_tls``,
        ``from_email``, ``timeout`` and ``ssl_context`` as Airflow has them, and
        ``answer_timeout``, ``reply_to``, ``unsubscribe_to`` and ``verify`` (file of the authority
        that signed the server's certificate).

        Raises:
            UsageError: another type, no host or sender, an address that is none, or mail would go
                over the network unencrypted or to a server that nobody verified.
        """
        if spec.conn_type not in _TYPES:
            raise UsageError(
                f"Connection {spec.conn_id} is of type {spec.conn_type}, which sends no mail.",
                "Use type smtp.",
            )
        if not spec.host:
            raise UsageError(f"Connection {spec.conn_id} names no host.")
        named = _NAMED.fullmatch(spec.text("from_email"))  # parseaddr makes something of anything
        name, sender = named.groups("") if named else ("", spec.text("from_email"))
        addresses = {"from_email": sender}
        addresses |= {key: spec.text(key) for key in ("reply_to", "unsubscribe_to")}
        for key, address in addresses.items():
            if (address or key == "from_email") and not _ADDRESS.fullmatch(address):
                raise UsageError(
                    f"Connection {spec.conn_id}: {key} is no mail address.",
                    'Set its extra: {"from_email": "compliance@courier.example"}.',
                )
        security = _security(spec)
        default = 465 if security == "tls" else 587 if security == "starttls" else 25
        return cls(
            host=spec.host,
            port=spec.port or default,
            security=security,
            sender=sender,
            sender_name=name,
            login=spec.login,
            password=spec.password,
            reply_to=addresses["reply_to"],
            unsubscribe_to=addresses["unsubscribe_to"],
            timeout=_seconds(spec, "timeout", cls.timeout),
            answer_timeout=_seconds(spec, "answer_timeout", cls.answer_timeout),
            verify=spec.verify,
        )

    @property
    def domain(self) -> str:
        """The sender's domain."""
        return self.sender.rpartition("@")[2]

    def open(self) -> MailSession:
        """Return a session; it connects when the first mail is sent."""
        return MailSession(self)


def _on(spec: ConnectionSpec, key: str) -> bool:
    return spec.text(key).lower() in {"true", "1", "yes"}


def _security(spec: ConnectionSpec) -> Literal["tls", "starttls", "none"]:
    """Return the security that Airflow's two switches ask for; none only on this machine."""
    unverified = spec.text("ssl_context").lower() == "none" or spec.verify is False
    verify = False if unverified else spec.verify
    if of_host(spec.host, tls=True, verify=verify) is Transport.UNVERIFIED:
        raise UsageError(
            f"Connection {spec.conn_id}: the certificate of {spec.host} would not be verified.",
            "Name the file of its authority in the extra: verify.",
        )
    if not _on(spec, "disable_ssl"):
        return "tls"
    if not _on(spec, "disable_tls"):
        return "starttls"
    if not of_host(spec.host, tls=False, verify=verify).is_safe:
        raise UsageError(
            f"Connection {spec.conn_id}: mail would go to {spec.host} unencrypted.",
            "Leave out disable_tls: only a server on this machine is spoken to without TLS.",
        )
    return "none"


def _seconds(spec: ConnectionSpec, key: str, usual: float) -> float:
    try:
        seconds = float(spec.text(key) or usual)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= 600:
        raise UsageError(
            f"Connection {spec.conn_id}: {key} is no number of seconds up to 600.",
            f"Write it as {usual:.0f}.",
        )
    return seconds


class _Lost(Exception):
    """The session ended, or could not be had, and that has nothing to do with one mail."""

    def __init__(self, code: str = "") -> None:
        super().__init__(code)
        self.code = code


@dataclass
class MailSession:
    """A session with a mail server, opened when it is needed and again when it was lost."""

    server: MailServer
    _smtp: smtplib.SMTP | None = None

    def ready(self) -> Reply:
        """Connect, where that is not done: ``accepted`` or ``unavailable``."""
        try:
            self._smtp = self._smtp or self._connect()
        except _Lost as lost:
            return Reply(Fate.UNAVAILABLE, lost.code)
        return Reply(Fate.ACCEPTED)

    def send(self, recipient: str, content: bytes) -> Reply:
        """Send one mail to one recipient.

        Args:
            recipient: an address.
            content: the mail with its headers, lines ended by CRLF.

        Returns:
            What became of it. ``unavailable`` says that the server could not be used at all: this
            mail was not sent, and the next one would fare the same.
        """
        fresh = self._smtp is None
        try:
            return self._sent(recipient, content)
        except _Lost as lost:
            self.close()
            if fresh:
                return Reply(Fate.UNAVAILABLE, lost.code)
        try:  # a server may end a session that was idle, or had its share of mails
            return self._sent(recipient, content)
        except _Lost as lost:
            self.close()
            return Reply(Fate.UNAVAILABLE, lost.code)

    def close(self) -> None:
        """End the session, also a broken one."""
        smtp, self._smtp = self._smtp, None
        if smtp is None:
            return
        try:
            smtp.quit()
        except (smtplib.SMTPException, OSError):
            smtp.close()

    def _sent(self, recipient: str, content: bytes) -> Reply:
        smtp = self._smtp = self._smtp or self._connect()
        options: list[str] = []
        if not recipient.isascii():
            if not smtp.has_extn("smtputf8"):
                return Reply(Fate.REFUSED, "smtputf8")
            options = ["SMTPUTF8", "BODY=8BITMIME"]
        code, words = _asked(lambda: smtp.mail(self.server.sender, options))
        if code != 250:
            raise _Lost(_code(code, words))
        for command, expected in ((lambda: smtp.rcpt(recipient), (250, 251)),
                                (lambda: smtp.docmd("data"), (354,))):  # fmt: skip
            try:
                code, words = _asked(command)
            except _Lost:  # this mail's own doing, for all we know: the others go on
                self._drop()
                return Reply(Fate.DEFERRED)
            if code not in expected:
                return self._not_taken(smtp, code, words)
        return self._handed_over(smtp, content)

    def _handed_over(self, smtp: smtplib.SMTP, content: bytes) -> Reply:
        body = _LEADING_DOT.sub(b"..", content)
        if not body.endswith(b"\r\n"):
            body += b"\r\n"
        try:
            smtp.send(body + b".\r\n")
        except (smtplib.SMTPException, OSError):
            self._drop()  # the last bytes never left: no server can have taken it
            return Reply(Fate.DEFERRED)
        try:
            code, words = self._last_answer(smtp)
        except (smtplib.SMTPException, OSError):
            self._drop()
            return Reply(Fate.IN_DOUBT)
        if code == 250:
            return Reply(Fate.ACCEPTED, _code(code, words))
        if not 400 <= code < 600:
            self._drop()
            return Reply(Fate.IN_DOUBT, _code(code, words))
        if code == _TOO_MANY:
            self._drop()
        codes = _code(code, words)
        later = code < 500 or codes == _FULL_AFTER_ALL or _is_of_the_sender(codes)
        return Reply(Fate.DEFERRED if later else Fate.REFUSED, codes)

    def _last_answer(self, smtp: smtplib.SMTP) -> tuple[int, bytes]:
        assert smtp.sock is not None
        smtp.sock.settimeout(self.server.answer_timeout)
        try:
            return smtp.getreply()
        finally:
            if smtp.sock is not None:  # it is gone where nothing came
                smtp.sock.settimeout(self.server.timeout)

    def _not_taken(self, smtp: smtplib.SMTP, code: int, words: bytes) -> Reply:
        """Judge a refusal before the mail was sent; the session goes on for the others."""
        if code in _NOT_THE_RECIPIENT:
            raise _Lost(_code(code, words))
        permanent = 500 <= code < 600 and code != _MAILBOX_FULL
        try:
            reset = _asked(smtp.rset)[0] == 250
        except _Lost:
            reset = False
        if not reset or code == _TOO_MANY:
            self._drop()
        codes = _code(code, words)
        permanent = permanent and not _is_of_the_sender(codes)
        return Reply(Fate.REFUSED if permanent else Fate.DEFERRED, codes)

    def _drop(self) -> None:
        if self._smtp is not None:
            self._smtp.close()
        self._smtp = None

    def _connect(self) -> smtplib.SMTP:
        server = self.server
        context = _context(server) if server.security != "none" else None
        with _losing(), ExitStack() as stack:
            if server.security == "tls":
                smtp: smtplib.SMTP = smtplib.SMTP_SSL(
                    server.host, server.port, timeout=server.timeout, context=context
                )
            else:
                smtp = smtplib.SMTP(server.host, server.port, timeout=server.timeout)
            stack.callback(smtp.close)
            if server.security == "starttls":
                smtp.starttls(context=context)  # fails also for a certificate that does not fit
            smtp.ehlo_or_helo_if_needed()
            if server.login:
                smtp.login(server.login, server.password)
            stack.pop_all()
        return smtp


@contextmanager
def _losing() -> Iterator[None]:
    """Raise _Lost, with the server's code if it answered, for an error of SMTP in the block."""
    try:
        yield
    except smtplib.SMTPResponseException as error:
        raise _Lost(_code(error.smtp_code, error.smtp_error)) from None
    except (smtplib.SMTPException, OSError):
        raise _Lost from None


def _is_of_the_sender(codes: str) -> bool:
    """Return whether policy is the reason (RFC 3463, 5.7.X): relaying, DMARC, a blocked sender.

    The recipient's address is right then: the deferred mail is sent once the server accepts it.
    """
    return codes.partition(" ")[2].startswith("5.7.")


def _context(server: MailServer) -> ssl.SSLContext:
    authority = server.verify if isinstance(server.verify, str) else None
    try:
        context = ssl.create_default_context(cafile=authority)
    except OSError:
        raise ServiceError(
            "The authority's file of the mail server cannot be read.",
            "See `verify` in the extra of its connection.",
        ) from None
    if server.verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _asked(command: Callable[[], tuple[int, bytes]]) -> tuple[int, bytes]:
    """Return the answer to a command; raises _Lost without an answer."""
    try:
        return command()
    except (smtplib.SMTPException, OSError):
        raise _Lost from None


def _code(code: int, words: bytes | str) -> str:
    """Return the codes of an answer, ``451 4.7.1``, without its words, which quote addresses."""
    text = words if isinstance(words, bytes) else words.encode(errors="replace")
    enhanced = _ENHANCED.match(text)
    return f"{code} {enhanced.group().decode()}" if enhanced else str(code)
