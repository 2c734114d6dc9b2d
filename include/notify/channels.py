"""The ways by which messages go, behind one interface: mail, and robots of group chats."""

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

from include.notify.letters import LONGEST_NAME, Letter, Page, Writer, one_line, page
from include.notify.notice import NO_ROBOT, NOT_WRITTEN
from include.reports.i18n import visible
from include.services.errors import UsageError
from include.services.fate import Fate, Reply
from include.services.mail import MailServer, MailSession
from include.services.robot import Robots

SENDER = "ParcelSeal"
_LONGEST_SUBJECT = 150  # characters


class _Headers(HeaderRegistry):
    """Makes a class for each name of a header; the library makes one for each header of a mail."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[str, type[BaseHeader]] = {}

    def __getitem__(self, name: str) -> type[BaseHeader]:
        key = name.lower()
        if key not in self._made:
            self._made[key] = super().__getitem__(name)
        return self._made[key]


_HEADERS = _Headers()
_ASCII, _UTF8 = SMTP.clone(header_factory=_HEADERS), SMTPUTF8.clone(header_factory=_HEADERS)
_SPECIAL = re.compile(r'[()<>\[\]:;@\\,."=?]')


class Line(Protocol):
    """One way to send one message after the other; used by one thread at a time."""

    def ready(self) -> Reply:
        """Return whether anything can be sent at all, before anything is taken in hand."""
        ...

    def send(self, letter: Letter) -> Reply:
        """Send a message and say what became of it."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class Channel(Protocol):
    """A kind of way to people."""

    @property
    def domain(self) -> str:
        """What stands behind the @ of its messages' ids; raises UsageError as `open` does."""
        ...

    @property
    def lines(self) -> int:
        """How many lines are worth having at once."""
        ...

    def open(self) -> Line:
        """Return a line; raises UsageError where the channel is not configured."""
        ...


@dataclass(frozen=True)
class MailChannel:
    """Mail.

    Args:
        find: returns the server; raises UsageError where none is configured.
        writer: writes the letters.
    """

    find: Callable[[], MailServer]
    writer: Writer
    lines: int = 2  # one waits for the server while the other composes

    @property
    def domain(self) -> str:
        """The sender's domain."""
        return self.find().domain

    def open(self) -> Line:
        """Return a line; it connects with its first mail."""
        server = self.find()
        return _MailLine(server, server.open(), self.writer)


@dataclass
class _MailLine:
    server: MailServer
    session: MailSession
    writer: Writer

    def ready(self) -> Reply:
        return self.session.ready()

    def send(self, letter: Letter) -> Reply:
        try:
            content = mail_of(letter, self.server, self.writer)
        except (ValueError, LookupError):  # one that cannot be written must not stop the others
            return Reply(Fate.REFUSED, NOT_WRITTEN)
        return self.session.send(letter.address, content)

    def close(self) -> None:
        self.session.close()


@dataclass(frozen=True)
class RobotChannel:
    """Robots of group chats; a recipient's address is the id of the robot's connection.

    Args:
        find: returns the robot of a connection.
        writer: writes the letters.
    """

    find: Robots
    writer: Writer
    domain: str = "robot.invalid"  # nobody sees the ids of its messages
    lines: int = 1

    def open(self) -> Line:
        """Return a line."""
        return self

    def ready(self) -> Reply:
        """Each chat has a robot of its own: nothing is known before one is asked."""
        return Reply(Fate.ACCEPTED)

    def send(self, letter: Letter) -> Reply:
        """Send a message to the chat that its address names."""
        try:
            robot = self.find(letter.address)
        except UsageError:
            return Reply(Fate.REFUSED, NO_ROBOT)
        reply = robot.send(self.writer.chat(letter, robot.longest))
        # that one robot cannot be reached says nothing of the others
        return Reply(Fate.DEFERRED, reply.code) if reply.fate is Fate.UNAVAILABLE else reply

    def close(self) -> None:
        """Nothing is kept open."""


def mail_of(letter: Letter, server: MailServer, writer: Writer) -> bytes:
    """The whole mail, with its headers.

    Every text that stands in a header is one line without control characters before it gets there;
    the library would refuse another one.
    """
    mail = EmailMessage(policy=_ASCII if letter.address.isascii() else _UTF8)
    mail["To"] = Address(_display(letter.name), addr_spec=letter.address)
    mail["Date"] = format_datetime(letter.at)
    mail["Message-ID"] = f"<{letter.message_id}>"
    if letter.refusable and server.unsubscribe_to:
        about = quote(f"unsubscribe {letter.recipient} {letter.items[0].kind}")
        mail["List-Unsubscribe"] = f"<mailto:{server.unsubscribe_to}?subject={about}>"
    languages = tuple(writer.languages)
    # Whoever is no user of it takes a name that says nothing to them for a fraud's.
    name = server.sender_name or ("" if letter.text else SENDER)
    sender = Sender(server.sender, name, server.reply_to)
    if letter.text:
        with _writing_shared:  # else two lines write a letter at the same time, each its own
            shared = _shared(letter.text, languages, writer.timezone, sender)
        return mail.as_bytes().removesuffix(b"\r\n") + shared
    ask = server.reply_to or server.sender
    by = name or server.sender
    said = writer.text(letter, by, ask), writer.html(letter, by, ask)
    _write(mail, sender, languages, Page(writer.subject(letter), *said))
    return mail.as_bytes()


@dataclass(frozen=True)
class Sender:
    """Who sends a mail.

    Attributes:
        address: that it comes from.
        name: beside it; may be empty.
        reply_to: address for answers; empty where they go to the sender.
    """

    address: str
    name: str
    reply_to: str


_writing_shared = Lock()


@lru_cache(maxsize=16)  # of a letter to many: writing it anew for each would take most of the time
def _shared(text: str, languages: tuple[str, ...], timezone: str, sender: Sender) -> bytes:
    """What all mails with one text have in common: all but the headers that name a recipient."""
    found = page(text, languages, timezone, sender.name or sender.address)
    mail = EmailMessage(policy=_ASCII)
    _write(mail, sender, languages, found)
    return mail.as_bytes()


def _write(mail: EmailMessage, sender: Sender, languages: Sequence[str], words: Page) -> None:
    mail["From"] = Address(_display(sender.name), addr_spec=sender.address)
    if sender.reply_to:
        mail["Reply-To"] = sender.reply_to
    mail["Subject"] = _header(words.subject)[:_LONGEST_SUBJECT]
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(words.plain, cte="base64")
    mail.add_alternative(words.html, subtype="html", cte="base64")
    mail["Content-Language"] = ", ".join(languages)  # set_content would take it away


def _display(name: str) -> str:
    """A name beside an address, without the characters that mean something there.

    Quoting them would do, if the library did not lose the quotes where it folds a long line.
    """
    return one_line(_SPECIAL.sub(" ", _header(name)))[:LONGEST_NAME]


def _header(text: str) -> str:
    return one_line(visible(text.replace("\r", " ")))
