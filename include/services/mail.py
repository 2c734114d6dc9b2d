"""Send mails over SMTP, and return the delivery status of each mail.

If the connection is lost after the last byte of a mail was sent and before the server replied, the
server may have accepted the mail. The mail is then *in doubt*. smtplib raises the same error if the
connection was lost earlier. Therefore, this module executes the commands of SMTP one by one.
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
from include.services.delivery_status import DeliveryStatus, Reply
from include.services.errors import ServiceError, UsageError
from include.services.transport import Transport, of_host

_TYPES = {"smtp", "email"}
_ENHANCED = re.compile(rb"[245]\.\d{1,3}\.\d{1,3}(?!\S)")
_LEADING_DOT = re.compile(rb"(?m)^\.")
_ADDRESS = re.compile(r"[^@\s\x00-\x1f\x7f<>]+@[^@\s\x00-\x1f\x7f<>]+")
_NAMED = re.compile(r'"?([^"<>\x00-\x1f\x7f]*?)"? *<([^<>]+)>')
_NOT_THE_RECIPIENT = {500, 502, 503, 530, 534, 535, 538}  # the cause is the command or the login
_MAILBOX_FULL = 552  # RFC 5321, 4.5.3.1.10: means the same as 452
_FULL_AFTER_ALL = "552 5.2.2"  # 552 without 5.2.2 means that the mail is too large
_TOO_MANY = 421  # the server ends the session


@dataclass(frozen=True)
class MailServer:
    """A mail server, and the sender of the mails.

    Attributes:
        host: host name or address of the server.
        port: port of the server.
        security: ``tls`` for TLS from the first byte, ``starttls``, or ``none``. The value ``none``
            is allowed only for a server on this machine.
        sender: sender address of the mails.
        sender_name: display name of the sender; may be empty.
        login: user name; empty if the server needs no user name.
        password: password of the user; empty if the server needs no password.
        reply_to: address for replies; empty if replies are sent to the sender.
        unsubscribe_to: address to which recipients write to get no further mails; may be empty.
        timeout: seconds to wait for each reply of the server, except the reply to the complete
            mail.
        answer_timeout: seconds to wait for the reply to the complete mail (RFC 5321, 4.5.3.2.6).
            The server may scan the mail for a long time before it replies. If the time is too
            short, a mail that the server accepted may be sent twice.
        verify: True to verify the server's certificate, False to accept any certificate. A text is
            the name of a file with the certificate authority to trust.
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
        """Return the mail server that an Airflow connection of type smtp describes.

        The connection has host, port, login and password. Airflow defines these keys for the extra
        of such a connection: ``disable_ssl``, ``disable_tls``, ``from_email``, ``timeout`` and
        ``ssl_context``. ParcelSeal adds ``answer_timeout``, ``reply_to``, ``unsubscribe_to``, and
        ``verify`` (file of the certificate authority that signed the server's certificate).

        Raises:
            UsageError: the type is wrong, the host or sender is missing, or an address is invalid.
                Also raised if mail would be sent over the network unencrypted or to an unverified
                server.
        """
        if spec.conn_type not in _TYPES:
            raise UsageError(
                f"Connection {spec.conn_id} is of type {spec.conn_type}, which cannot send mail.",
                "Use type smtp.",
            )
        if not spec.host:
            raise UsageError(f"Connection {spec.conn_id} has no host.")
        named = _NAMED.fullmatch(spec.text("from_email"))  # parseaddr accepts any text
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
        """Return the domain of the sender's address."""
        return self.sender.rpartition("@")[2]

    def open(self) -> MailSession:
        """Return a session with the server. The session connects when the first mail is sent."""
        return MailSession(self)


def _on(spec: ConnectionSpec, key: str) -> bool:
    return spec.text(key).lower() in {"true", "1", "yes"}


def _security(spec: ConnectionSpec) -> Literal["tls", "starttls", "none"]:
    """Return whether mail is sent with TLS, with STARTTLS or without encryption.

    The result depends on the keys ``disable_ssl`` and ``disable_tls`` of the connection's extra.

    Raises:
        UsageError: mail would be sent over the network unencrypted or to an unverified server.
    """
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
    """Raised if a session could not be opened, was lost or was refused, so it can send no mail.

    Attributes:
        code: reply code of the server as text, followed by the enhanced status code if the server
            sent one, such as ``451 4.7.1``; empty if the server did not reply.
    """

    def __init__(self, code: str = "") -> None:
        super().__init__(code)
        self.code = code


@dataclass
class MailSession:
    """A session with a mail server.

    It connects when it is first used, and again after a lost connection.
    """

    server: MailServer
    _smtp: smtplib.SMTP | None = None

    def ready(self) -> Reply:
        """Connect to the server if the session is not connected.

        Returns:
            A reply with the status ``accepted`` if the session is connected afterwards, or else
            ``unavailable``.
        """
        try:
            self._smtp = self._smtp or self._connect()
        except _Lost as lost:
            return Reply(DeliveryStatus.UNAVAILABLE, lost.code)
        return Reply(DeliveryStatus.ACCEPTED)

    def send(self, recipient: str, content: bytes) -> Reply:
        """Send one mail to one recipient, and return the reply of the server.

        Args:
            recipient: mail address of the recipient.
            content: mail with its headers. Its lines end with CRLF.

        Returns:
            The reply with the delivery status. If no session could be opened, the status is
            ``unavailable``. The mail was then not sent, and other mails could not be sent either.
        """
        fresh = self._smtp is None
        try:
            return self._sent(recipient, content)
        except _Lost as lost:
            self.close()
            if fresh:
                return Reply(DeliveryStatus.UNAVAILABLE, lost.code)
        try:  # the server may have ended an idle session, or may limit mails per session
            return self._sent(recipient, content)
        except _Lost as lost:
            self.close()
            return Reply(DeliveryStatus.UNAVAILABLE, lost.code)

    def close(self) -> None:
        """End the session with the server, even if its connection is broken."""
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
                return Reply(DeliveryStatus.REFUSED, "smtputf8")
            options = ["SMTPUTF8", "BODY=8BITMIME"]
        code, words = _reply_to(lambda: smtp.mail(self.server.sender, options))
        if code != 250:
            raise _Lost(_code(code, words))
        for command, expected in ((lambda: smtp.rcpt(recipient), (250, 251)),
                                (lambda: smtp.docmd("data"), (354,))):  # fmt: skip
            try:
                code, words = _reply_to(command)
            except _Lost:  # may concern only this mail: others are sent
                self._drop()
                return Reply(DeliveryStatus.DEFERRED)
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
            self._drop()  # sent incompletely, so the server cannot have accepted it
            return Reply(DeliveryStatus.DEFERRED)
        try:
            code, words = self._last_answer(smtp)
        except (smtplib.SMTPException, OSError):
            self._drop()
            return Reply(DeliveryStatus.IN_DOUBT)
        if code == 250:
            return Reply(DeliveryStatus.ACCEPTED, _code(code, words))
        if not 400 <= code < 600:
            self._drop()
            return Reply(DeliveryStatus.IN_DOUBT, _code(code, words))
        if code == _TOO_MANY:
            self._drop()
        codes = _code(code, words)
        later = code < 500 or codes == _FULL_AFTER_ALL or _is_of_the_sender(codes)
        return Reply(DeliveryStatus.DEFERRED if later else DeliveryStatus.REFUSED, codes)

    def _last_answer(self, smtp: smtplib.SMTP) -> tuple[int, bytes]:
        assert smtp.sock is not None
        smtp.sock.settimeout(self.server.answer_timeout)
        try:
            return smtp.getreply()
        finally:
            if smtp.sock is not None:  # None if the connection was lost
                smtp.sock.settimeout(self.server.timeout)

    def _not_taken(self, smtp: smtplib.SMTP, code: int, words: bytes) -> Reply:
        """Return the reply for a mail that the server refused before its content was sent.

        The session is reset for the next mail. If this is impossible, its connection is closed, and
        a new connection is opened for the next mail.

        Args:
            smtp: connection of the session.
            code: three-digit code of the server's reply.
            words: text of the server's reply.

        Raises:
            _Lost: the server refused the whole session, so it would also refuse other mails.
        """
        if code in _NOT_THE_RECIPIENT:
            raise _Lost(_code(code, words))
        permanent = 500 <= code < 600 and code != _MAILBOX_FULL
        try:
            reset = _reply_to(smtp.rset)[0] == 250
        except _Lost:
            reset = False
        if not reset or code == _TOO_MANY:
            self._drop()
        codes = _code(code, words)
        permanent = permanent and not _is_of_the_sender(codes)
        return Reply(DeliveryStatus.REFUSED if permanent else DeliveryStatus.DEFERRED, codes)

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
                smtp.starttls(context=context)  # also fails if the certificate is invalid
            smtp.ehlo_or_helo_if_needed()
            if server.login:
                smtp.login(server.login, server.password)
            stack.pop_all()
        return smtp


@contextmanager
def _losing() -> Iterator[None]:
    """Convert an SMTP error that the block raises to `_Lost`, with the reply code of the server.

    The code is empty if the server did not reply.
    """
    try:
        yield
    except smtplib.SMTPResponseException as error:
        raise _Lost(_code(error.smtp_code, error.smtp_error)) from None
    except (smtplib.SMTPException, OSError):
        raise _Lost from None


def _is_of_the_sender(codes: str) -> bool:
    """Return whether the server refused a mail because of its sender or a policy of the server.

    Examples are relaying, DMARC and a blocked sender. RFC 3463 assigns the codes 5.7.X to such
    refusals. The recipient's address may be correct in this case. Therefore, the mail counts as
    deferred and not as refused.

    Args:
        codes: reply code and enhanced status code of the server, such as ``550 5.7.1``.
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


def _reply_to(command: Callable[[], tuple[int, bytes]]) -> tuple[int, bytes]:
    """Execute an SMTP command, and return the code and the text of the server's reply.

    Args:
        command: function that executes the command and returns the server's reply.

    Raises:
        _Lost: the server did not reply.
    """
    try:
        return command()
    except (smtplib.SMTPException, OSError):
        raise _Lost from None


def _code(code: int, words: bytes | str) -> str:
    """Return the codes of a server's reply without its text, such as ``451 4.7.1``.

    If the server sent no enhanced status code, return only the reply code. The text is omitted,
    because it may contain mail addresses.

    Args:
        code: three-digit code of the reply.
        words: text of the reply, which may begin with an enhanced status code such as ``4.7.1``.
    """
    text = words if isinstance(words, bytes) else words.encode(errors="replace")
    enhanced = _ENHANCED.match(text)
    return f"{code} {enhanced.group().decode()}" if enhanced else str(code)
