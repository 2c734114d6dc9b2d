"""Write digests, urgent messages and notices in every language of the policy pack.

A notice goes to data subjects. Its text is the same for all recipients, and its greeting contains
no name. All other messages go to staff, and each of their lines is a notification.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from include.messages import Message, _
from include.notify.texts import NoticeText
from include.reports.i18n import Translator

TEMPLATES = Path(__file__).parent / "templates"


def render_template(template: str, **values: Any) -> str:
    """Render a template of this package.

    In HTML templates, special characters in values are escaped.

    Args:
        template: file name of the template.
        values: values of the variables in the template.
    """
    return _environment().get_template(template).render(values)


def translator(language: str, timezone: str) -> Translator:
    """Return the translator of messages into a language.

    Args:
        language: language tag, such as ``zh-CN``.
        timezone: IANA name of the timezone in which times are shown.
    """
    return _cached_translator(language.replace("-", "_"), timezone)


@lru_cache(maxsize=4096)  # thousands of reminders name the same course
def translate_message(language: str, timezone: str, message: str) -> str:
    """Return the translation of a message.

    Args:
        language: language tag, such as ``zh-CN``.
        timezone: IANA name of the timezone in which times are shown.
        message: JSON form of a translatable message.
    """
    return translator(language, timezone).text(Message.model_validate(json.loads(message)))


def one_line(text: str) -> str:
    """Return a text in which line breaks are replaced by spaces.

    A text with line breaks could otherwise add headers to a mail.
    """
    return " ".join(text.split())


@lru_cache
def _cached_translator(locale: str, timezone: str) -> Translator:
    return Translator(locale, timezone)


@lru_cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


_BLANK_LINE = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")

Paragraphs = Sequence[Sequence[str]]
"""Lines of each paragraph."""


@dataclass(frozen=True)
class RenderedNotice:
    """A notice to data subjects that is written in all languages and ready to be sent.

    Attributes:
        subject: subject in the first language.
        plain: notice in all languages as plain text.
        html: notice in all languages as an HTML page.
    """

    subject: str
    plain: str
    html: str


@dataclass(frozen=True)
class NoticeInLanguage:
    """The texts of a notice to data subjects in one language.

    Attributes:
        language: language tag, such as ``zh-CN``.
        heading: heading of the notice.
        greeting: greeting without a name.
        opening: paragraphs after the greeting.
        parts: title and paragraphs of each section of the notice.
        closing: paragraphs after the sections.
        foot: sender and contact, at the end of the notice.
    """

    language: str
    heading: str
    greeting: str
    opening: Paragraphs
    parts: Sequence[tuple[str, Paragraphs]]
    closing: Paragraphs
    foot: Paragraphs


@lru_cache(maxsize=64)
def render_notice(
    content: str, languages: tuple[str, ...], timezone: str, sender: str
) -> RenderedNotice:
    """Write a notice to data subjects in all languages.

    Args:
        content: text of the notice, as `include.notify.texts.canonical_text` returns it.
        languages: language tags in their order in the notice.
        timezone: IANA name of the timezone in which times are shown.
        sender: name or address of the sender.
    """
    text = NoticeText.model_validate_json(content)
    notices = [
        _notice_in_language(text, language, timezone, one_line(sender)) for language in languages
    ]
    values = {"sides": notices, "subject": notices[0].heading, "main": languages[0]}
    return RenderedNotice(
        subject=notices[0].heading,
        plain=render_template("notice.txt.j2", **values),
        html=render_template("notice.html.j2", **values),
    )


def _notice_in_language(
    text: NoticeText, language: str, timezone: str, sender: str
) -> NoticeInLanguage:
    translate = translator(language, timezone).text

    def paragraphs(message: Message | None) -> Paragraphs:
        return _paragraphs(translate(message)) if message else []

    contact = _paragraphs(translate(text.contact))
    sent = translate(_("{sender} sent this notice. Contact for questions:", sender=sender))
    return NoticeInLanguage(
        language=language,
        heading=one_line(translate(text.heading)),
        greeting=translate(_("Dear customer,")),
        opening=paragraphs(text.opening),
        parts=[(one_line(translate(part.title)), paragraphs(part.words)) for part in text.parts],
        closing=paragraphs(text.closing),
        foot=[[sent], *contact],
    )


def _paragraphs(text: str) -> Paragraphs:
    paragraphs = [
        [line for raw_line in part.split("\n") if (line := one_line(raw_line))]
        for part in _BLANK_LINE.split(text)
    ]
    return [paragraph for paragraph in paragraphs if paragraph]


MAX_NAME_LENGTH = 80  # characters of a name in a greeting
_NO_DUE_DATE = date.max


@dataclass(frozen=True)
class NotificationLine:
    """A notification that is a line of a message.

    Attributes:
        id: id of the notification in the state database.
        kind: kind of the notification.
        key: key of the notification, unique within its kind.
        heading: text of the heading above the line, as the JSON form of a translatable message.
        line: text of the line, as the JSON form of a translatable message.
        due_on: due date, or None. It is shown before the line, and lines are sorted by it.
        secret: text after the line that is never stored, such as the password of a file. The
            workflow of the kind returns it for each attempt to send.
    """

    id: int
    kind: str
    key: str
    heading: str
    line: str
    due_on: date | None
    secret: str = field(default="", repr=False)


@dataclass(frozen=True)
class OutgoingMessage:
    """A message to one recipient before its translation: a digest, an urgent message or a notice.

    Attributes:
        message_id: unique id. A message that is sent again keeps its id.
        recipient: id of the recipient, such as a staff number or ``role:compliance``.
        name: name for the greeting; may be empty.
        address: mail address, or id of the Airflow connection of a chat robot.
        urgent: whether the message is sent apart from the digest of the day.
        at: time of sending, in the policy pack's timezone.
        items: notifications in the message, at least one.
        refusable: whether the recipient may opt out of all kinds of notification in the message.
        more: number of notifications that did not fit and follow in another message.
        text: text of a notice to data subjects, as `include.notify.texts.canonical_text` returns
            it; empty for other messages.
    """

    message_id: str
    recipient: str
    name: str
    address: str = field(repr=False)
    urgent: bool
    at: datetime
    items: Sequence[NotificationLine]
    refusable: bool = False
    more: int = 0
    text: str = field(default="", repr=False)


@dataclass(frozen=True)
class LinesUnderHeading:
    """A heading in one language, and the lines below it.

    Attributes:
        heading: translated heading.
        lines: due date and text of each line. The due date is empty if the line has none.
    """

    heading: str
    lines: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class MessageInLanguage:
    """The content of a message in one language.

    Attributes:
        language: language tag, such as ``zh-CN``.
        translate: callback that translates a text of the templates.
        greeting: translated greeting.
        blocks: headings with their lines.
    """

    language: str
    translate: Callable[..., str]
    greeting: str
    blocks: Sequence[LinesUnderHeading]


@dataclass(frozen=True)
class Writer:
    """Writes messages in the languages of a policy pack.

    Args:
        languages: language tags in the order in which the languages follow in a message, such as
            ``zh-CN`` and ``en``.
        timezone: IANA name of the timezone in which times are shown.
    """

    languages: Sequence[str]
    timezone: str

    def parts(self, message: OutgoingMessage) -> list[MessageInLanguage]:
        """Return the translated content of a message, once for every language."""
        return [self._in_language(message, language) for language in self.languages]

    def subject(self, message: OutgoingMessage) -> str:
        """Return the subject of a message in the first language.

        The subject of a notice is its heading. The subject of any other message consists of the
        first heading in the message and the number of notifications.
        """
        if message.text:
            return self._render_notice(message).subject
        language = self.languages[0]
        headings = _group_by_heading(message.items)
        first = translate_message(language, self.timezone, next(iter(headings)))
        count = len(message.items)
        if len(headings) == 1:
            subject = _("{heading} ({count})", heading=first, count=count)
        else:
            subject = _("{heading}, and more ({count})", heading=first, count=count)
        if message.urgent:
            subject = _("Urgent: {subject}", subject=subject)
        return one_line(translator(language, self.timezone).text(subject))

    def html(self, message: OutgoingMessage, sender: str, contact: str) -> str:
        """Return the message as an HTML page.

        Args:
            message: message to write.
            sender: name or address of the sender.
            contact: address for questions.
        """
        if message.text:
            return self._render_notice(message, sender).html
        return self._rendered("mail.html.j2", message, sender, contact)

    def text(self, message: OutgoingMessage, sender: str, contact: str) -> str:
        """Return the message as plain text.

        Args:
            message: message to write.
            sender: name or address of the sender.
            contact: address for questions.
        """
        if message.text:
            return self._render_notice(message, sender).plain
        return self._rendered("mail.txt.j2", message, sender, contact)

    def chat(self, message: OutgoingMessage, max_bytes: int) -> str:
        """Return the message for a group chat.

        If the message is too long, it is written in the first language only. Lines that still do
        not fit are omitted, and their number is stated. They are not sent in a second message. If
        only one of two messages arrived, nobody could tell whether the notifications were
        delivered.

        Args:
            message: message to write.
            max_bytes: largest size that the robot of the chat accepts, in bytes of UTF-8.
        """

        def follow(part: MessageInLanguage) -> list[str]:
            text_translator = part.translate(
                "{count} more items follow in another message.", count=message.more
            )
            return [text_translator] if message.more else []

        parts = self.parts(message)
        for chosen in (parts, parts[:1]):
            text = "\n\n".join(
                "\n".join(
                    [language_part.greeting, *_chat_lines(language_part), *follow(language_part)]
                )
                for language_part in chosen
            )
            if len(text.encode()) <= max_bytes:
                return text
        (part,) = parts[:1]
        lines = [part.greeting, *_chat_lines(part)]
        text_translator, total = (
            translator(part.language, self.timezone),
            len(message.items) + message.more,
        )
        for count in range(len(lines), 0, -1):
            remaining = total - sum(line.startswith("- ") for line in lines[:count])
            more = text_translator.text(
                _("… and {count} more: see the report of the run.", count=remaining)
            )
            text = "\n".join([*lines[:count], more])
            if len(text.encode()) <= max_bytes:
                return text
        return more

    def _render_notice(self, message: OutgoingMessage, sender: str = "") -> RenderedNotice:
        return render_notice(message.text, tuple(self.languages), self.timezone, sender)

    def _rendered(self, template: str, message: OutgoingMessage, sender: str, contact: str) -> str:
        return render_template(
            template,
            parts=self.parts(message),
            subject=self.subject(message),
            sender=one_line(sender),
            ask=contact,
            more=message.more,
            refusable=message.refusable,
            main=self.languages[0],
        )

    def _in_language(self, message: OutgoingMessage, language: str) -> MessageInLanguage:
        language_translator = translator(language, self.timezone)

        def translate(text: str, **values: Any) -> str:
            return language_translator.text(Message(text=text, values=values))

        name = one_line(message.name)[:MAX_NAME_LENGTH]
        blocks = [
            LinesUnderHeading(
                one_line(translate_message(language, self.timezone, heading)),
                [
                    _line(
                        item,
                        one_line(translate_message(language, self.timezone, item.line)),
                        language_translator,
                    )
                    for item in items
                ],
            )
            for heading, items in _group_by_heading(message.items).items()
        ]
        greeting = language_translator.text(_("Dear {name},", name=name) if name else _("Hello,"))
        return MessageInLanguage(language, translate, greeting, blocks)


def _line(item: NotificationLine, text: str, language_translator: Translator) -> tuple[str, str]:
    """Return the due date and the text of a line for display.

    The due date is empty if the line has no due date, or if the text already contains it.

    Args:
        item: notification that the line shows.
        text: translated text of the line.
        language_translator: translator into the language of the line.
    """
    if item.secret:
        text = f"{text} {item.secret}"
    if item.due_on is None or item.due_on.isoformat() in text:
        return "", text
    return language_translator.text(_("due {day}", day=item.due_on)), text


def _chat_lines(part: MessageInLanguage) -> list[str]:
    lines = []
    for block in part.blocks:
        lines += [block.heading, *(f"- {_dated_line(day, text)}" for day, text in block.lines)]
    return lines


def _dated_line(day: str, text: str) -> str:
    return f"[{day}] {text}" if day else text


def _group_by_heading(items: Sequence[NotificationLine]) -> dict[str, list[NotificationLine]]:
    """Return the notifications under each heading, sorted by due date."""
    groups: dict[str, list[NotificationLine]] = {}
    for item in sorted(items, key=lambda item: (item.due_on or _NO_DUE_DATE, item.id)):
        groups.setdefault(item.heading, []).append(item)
    return groups
