"""The channels through which messages are sent: mail servers, and robots of group chats."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.headerregistry import Address, BaseHeader, HeaderRegistry
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime
from functools import lru_cache
from threading import Lock
from typing import Protocol
from urllib.parse import quote

from include.notify.notification import NO_ROBOT, NOT_WRITTEN
from include.notify.rendering import (
    MAX_NAME_LENGTH,
    OutgoingMessage,
    RenderedNotice,
    Writer,
    one_line,
    render_notice,
)
from include.reports.i18n import visible
from include.services.delivery_status import DeliveryStatus, Reply
from include.services.errors import UsageError
from include.services.mail import MailServer, MailSession
from include.services.robot import Robots

SENDER = "ParcelSeal"
_MAX_SUBJECT_LENGTH = 150  # characters


class _Headers(HeaderRegistry):
    """A registry of classes for mail headers. It creates each class once and then reuses it.

    Without it, Python's email library would create new classes for the headers of every mail.
    """

    def __init__(self) -> None:
        super().__init__()
        self._classes: dict[str, type[BaseHeader]] = {}

    def __getitem__(self, name: str) -> type[BaseHeader]:
        key = name.lower()
        if key not in self._classes:
            self._classes[key] = super().__getitem__(name)
        return self._classes[key]


_HEADERS = _Headers()
_ASCII, _UTF8 = SMTP.clone(header_factory=_HEADERS), SMTPUTF8.clone(header_factory=_HEADERS)
_SPECIAL = re.compile(r'[()<>\[\]:;@\\,."=?]')


class ChannelConnection(Protocol):
    """A connection that sends messages one after another. Only one thread may use it at a time."""

    def ready(self) -> Reply:
        """Return a reply that states whether the server can be used.

        A delivery calls this method before it reserves messages for sending.
        """
        ...

    def send(self, message: OutgoingMessage) -> Reply:
        """Send a message, and return the server's reply."""
        ...

    def close(self) -> None:
        """Close the connection to the server."""
        ...


class Channel(Protocol):
    """A way to send messages to recipients, such as mail or a chat robot."""

    @property
    def domain(self) -> str:
        """Return the domain for message ids. It is the part of each id after the ``@``.

        Raises:
            UsageError: the channel is not configured.
        """
        ...

    @property
    def connections(self) -> int:
        """Return the number of connections over which a delivery should send at the same time."""
        ...

    def open(self) -> ChannelConnection:
        """Return a connection for sending messages.

        Raises:
            UsageError: the channel is not configured.
        """
        ...


@dataclass(frozen=True)
class MailChannel:
    """The channel that sends messages as mails.

    Args:
        find: callback that returns the mail server. It raises UsageError if no server is
            configured.
        writer: writer of the message texts.
    """

    find: Callable[[], MailServer]
    writer: Writer
    connections: int = 2  # sending and composing overlap

    @property
    def domain(self) -> str:
        """Return the domain of the sender's mail address, for message ids."""
        return self.find().domain

    def open(self) -> ChannelConnection:
        """Return a mail connection. It connects to the server when the first mail is sent."""
        server = self.find()
        return _MailConnection(server, server.open(), self.writer)


@dataclass
class _MailConnection:
    server: MailServer
    session: MailSession
    writer: Writer

    def ready(self) -> Reply:
        return self.session.ready()

    def send(self, message: OutgoingMessage) -> Reply:
        try:
            content = mail_of(message, self.server, self.writer)
        except (ValueError, LookupError):  # an unwritable mail must not stop the others
            return Reply(DeliveryStatus.REFUSED, NOT_WRITTEN)
        return self.session.send(message.address, content)

    def close(self) -> None:
        self.session.close()


@dataclass(frozen=True)
class RobotChannel:
    """The channel that posts messages to group chats through their robots.

    The address of a recipient is the id of the Airflow connection of the chat's robot.

    Args:
        find: callback that returns the robot of an Airflow connection.
        writer: writer of the message texts.
    """

    find: Robots
    writer: Writer
    domain: str = "robot.invalid"  # its message ids are not shown
    connections: int = 1

    def open(self) -> ChannelConnection:
        """Return this channel itself, because robots need no permanent connection."""
        return self

    def ready(self) -> Reply:
        """Return the reply that the channel can be used. No server is asked.

        Each chat has its own robot. Which robot is needed is only known when a message is sent.
        """
        return Reply(DeliveryStatus.ACCEPTED)

    def send(self, message: OutgoingMessage) -> Reply:
        """Post a message to a group chat, through the robot to which it is addressed."""
        try:
            robot = self.find(message.address)
        except UsageError:
            return Reply(DeliveryStatus.REFUSED, NO_ROBOT)
        reply = robot.send(self.writer.chat(message, robot.longest))
        # If a robot is unreachable, the robots of other chats may still be reachable
        return (
            Reply(DeliveryStatus.DEFERRED, reply.code)
            if reply.status is DeliveryStatus.UNAVAILABLE
            else reply
        )

    def close(self) -> None:
        """Do nothing, because this channel keeps no connection open."""


def mail_of(message: OutgoingMessage, server: MailServer, writer: Writer) -> bytes:
    """Return a message as the bytes of a mail with headers.

    Line breaks and control characters are removed from header texts, because Python's email library
    refuses them.

    Args:
        message: message to write.
        server: mail server, which states the sender.
        writer: writer of the message texts.
    """
    mail = EmailMessage(policy=_ASCII if message.address.isascii() else _UTF8)
    mail["To"] = Address(_display_name(message.name), addr_spec=message.address)
    mail["Date"] = format_datetime(message.at)
    mail["Message-ID"] = f"<{message.message_id}>"
    if message.refusable and server.unsubscribe_to:
        subject = quote(f"unsubscribe {message.recipient} {message.items[0].kind}")
        mail["List-Unsubscribe"] = f"<mailto:{server.unsubscribe_to}?subject={subject}>"
    languages = tuple(writer.languages)
    # Customers do not know the name ParcelSeal and would suspect fraud
    name = server.sender_name or ("" if message.text else SENDER)
    sender = Sender(server.sender, name, server.reply_to)
    if message.text:
        with _shared_lock:  # so that parallel connections write a notice only once
            shared = _shared_part(message.text, languages, writer.timezone, sender)
        return mail.as_bytes().removesuffix(b"\r\n") + shared
    contact = server.reply_to or server.sender
    sender_name = name or server.sender
    bodies = writer.text(message, sender_name, contact), writer.html(message, sender_name, contact)
    _write_body(mail, sender, languages, RenderedNotice(writer.subject(message), *bodies))
    return mail.as_bytes()


@dataclass(frozen=True)
class Sender:
    """The sender of a mail, as its headers name it.

    Attributes:
        address: address of the sender.
        name: display name; may be empty.
        reply_to: address for replies; empty if replies go to the sender's address.
    """

    address: str
    name: str
    reply_to: str


_shared_lock = Lock()


@lru_cache(maxsize=16)  # composing a notice for each recipient would take most of the time
def _shared_part(text: str, languages: tuple[str, ...], timezone: str, sender: Sender) -> bytes:
    """Return the headers and body of a notice that are the same in the mail to every recipient.

    A notice goes to data subjects, and its text contains no names.

    Args:
        text: text of the notice, as `include.notify.texts.canonical_text` returns it.
        languages: language tags in their order in the notice.
        timezone: IANA name of the timezone in which times are shown.
        sender: sender of the notice.
    """
    rendered_notice = render_notice(text, languages, timezone, sender.name or sender.address)
    mail = EmailMessage(policy=_ASCII)
    _write_body(mail, sender, languages, rendered_notice)
    return mail.as_bytes()


def _write_body(
    mail: EmailMessage, sender: Sender, languages: Sequence[str], content: RenderedNotice
) -> None:
    mail["From"] = Address(_display_name(sender.name), addr_spec=sender.address)
    if sender.reply_to:
        mail["Reply-To"] = sender.reply_to
    mail["Subject"] = _header_text(content.subject)[:_MAX_SUBJECT_LENGTH]
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(content.plain, cte="base64")
    mail.add_alternative(content.html, subtype="html", cte="base64")
    mail["Content-Language"] = ", ".join(languages)  # set_content would remove it


def _display_name(name: str) -> str:
    """Return a display name without the characters that have a special meaning in mail addresses.

    Quotation marks around the name are not enough, because Python's email library drops them when
    it folds a long line.
    """
    return one_line(_SPECIAL.sub(" ", _header_text(name)))[:MAX_NAME_LENGTH]


def _header_text(text: str) -> str:
    return one_line(visible(text.replace("\r", " ")))
