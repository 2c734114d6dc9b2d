"""Write messages in every language of the policy pack: digests, and letters with their own text.

A letter with its own text is written once for all recipients: nothing in it is about one of them
alone, not even a name in the greeting.
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
from include.notify.texts import LetterText
from include.reports.i18n import Translator

TEMPLATES = Path(__file__).parent / "templates"


def rendered(template: str, **values: Any) -> str:
    """Render a template; values are text, and in HTML never markup."""
    return _environment().get_template(template).render(values)


def translator(language: str, timezone: str) -> Translator:
    """The translator of a language, as HTML names it, and a timezone."""
    return _made(language.replace("-", "_"), timezone)


@lru_cache(maxsize=4096)  # the same course is told to thousands
def translated(language: str, timezone: str, message: str) -> str:
    """A message of the catalogue, as JSON, in a language."""
    return translator(language, timezone).text(Message.model_validate(json.loads(message)))


def one_line(text: str) -> str:
    """A text whose line breaks are blanks: it can neither begin a header nor a second line."""
    return " ".join(text.split())


@lru_cache
def _made(locale: str, timezone: str) -> Translator:
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
class Page:
    """A letter as it is sent.

    Attributes:
        subject: one line in the first language.
        plain: the letter in every language, as plain text.
        html: the same as a page of its own.
    """

    subject: str
    plain: str
    html: str


@dataclass(frozen=True)
class Side:
    """A letter in one language.

    Attributes:
        language: as HTML and mail name it, ``zh-CN``.
        parts: title and paragraphs of each.
        foot: who sends it, and whom to ask.
    """

    language: str
    heading: str
    greeting: str
    opening: Paragraphs
    parts: Sequence[tuple[str, Paragraphs]]
    closing: Paragraphs
    foot: Paragraphs


@lru_cache(maxsize=64)
def page(content: str, languages: tuple[str, ...], timezone: str, sender: str) -> Page:
    """Write a letter.

    Args:
        content: its `LetterText`, as `include.notify.texts.content` writes it.
        languages: in their order.
        timezone: IANA name; times are shown in it.
        sender: who sends it: name or address, as the mail's head has it.
    """
    words = LetterText.model_validate_json(content)
    sides = [_side(words, language, timezone, one_line(sender)) for language in languages]
    values = {"sides": sides, "subject": sides[0].heading, "main": languages[0]}
    return Page(
        subject=sides[0].heading,
        plain=rendered("letter.txt.j2", **values),
        html=rendered("letter.html.j2", **values),
    )


def _side(words: LetterText, language: str, timezone: str, sender: str) -> Side:
    said = translator(language, timezone).text

    def paragraphs(message: Message | None) -> Paragraphs:
        return _paragraphs(said(message)) if message else []

    contact = _paragraphs(said(words.contact))
    sent = said(_("This letter was sent by {sender}. If you have questions:", sender=sender))
    return Side(
        language=language,
        heading=one_line(said(words.heading)),
        greeting=said(_("Dear customer,")),
        opening=paragraphs(words.opening),
        parts=[(one_line(said(part.title)), paragraphs(part.words)) for part in words.parts],
        closing=paragraphs(words.closing),
        foot=[[sent], *contact],
    )


def _paragraphs(text: str) -> Paragraphs:
    found = [
        [line for one in part.split("\n") if (line := one_line(one))]
        for part in _BLANK_LINE.split(text)
    ]
    return [paragraph for paragraph in found if paragraph]


LONGEST_NAME = 80  # characters of a name that a greeting shows
_FAR = date.max


@dataclass(frozen=True)
class Item:
    """One notice of a message.

    Attributes:
        heading: a message of the catalogue as JSON, as the state database has it.
        line: likewise.
        due_on: by which lines are sorted and which stands before them.
    """

    id: int
    kind: str
    key: str
    heading: str
    line: str
    due_on: date | None


@dataclass(frozen=True)
class Letter:
    """One message to one recipient, in no language yet.

    Attributes:
        message_id: that names it for ever; the same again is the same message.
        recipient: staff number, ``role:compliance``.
        name: for the greeting; may be empty.
        address: by which the channel reaches the recipient.
        urgent: whether it stands beside the digest of the day.
        at: when it is sent, in the company's timezone.
        items: what it says, at least one.
        refusable: whether the recipient may refuse every kind that is in it.
        more: how many lines did not fit and follow.
        text: what it says instead, to somebody outside of the company: a `LetterText` as
            `include.notify.texts.content` writes it; empty for a digest.
    """

    message_id: str
    recipient: str
    name: str
    address: str = field(repr=False)
    urgent: bool
    at: datetime
    items: Sequence[Item]
    refusable: bool = False
    more: int = 0
    text: str = field(default="", repr=False)


@dataclass(frozen=True)
class Block:
    """The lines under one heading: day and words, both in one language."""

    heading: str
    lines: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Part:
    """A message in one language.

    Attributes:
        language: as HTML and mail name it, ``zh-CN``.
        words: translates a sentence of the templates.
    """

    language: str
    words: Callable[..., str]
    greeting: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Writer:
    """Writes letters in the languages of a policy pack.

    Args:
        languages: in their order, ``zh-CN`` and ``en``.
        timezone: IANA name; times are shown in it.
    """

    languages: Sequence[str]
    timezone: str

    def parts(self, letter: Letter) -> list[Part]:
        """The letter in every language."""
        return [self._part(letter, language) for language in self.languages]

    def subject(self, letter: Letter) -> str:
        """Return the subject in the first language: the heading, and the number of lines."""
        if letter.text:
            return self._page(letter).subject
        language = self.languages[0]
        headings = _grouped(letter.items)
        first = translated(language, self.timezone, next(iter(headings)))
        count = len(letter.items)
        if len(headings) == 1:
            said = _("{heading} ({count})", heading=first, count=count)
        else:
            said = _("{heading}, and more ({count})", heading=first, count=count)
        if letter.urgent:
            said = _("Urgent: {subject}", subject=said)
        return one_line(translator(language, self.timezone).text(said))

    def html(self, letter: Letter, sender: str, ask: str) -> str:
        """Return the letter as an HTML page.

        Args:
            letter: what to say.
            sender: who sends it, as the mail's head has it.
            ask: address for questions.
        """
        if letter.text:
            return self._page(letter, sender).html
        return self._rendered("mail.html.j2", letter, sender, ask)

    def text(self, letter: Letter, sender: str, ask: str) -> str:
        """The letter as plain text."""
        if letter.text:
            return self._page(letter, sender).plain
        return self._rendered("mail.txt.j2", letter, sender, ask)

    def chat(self, letter: Letter, longest: int) -> str:
        """The letter for a group chat, in as many bytes as its robot takes.

        What does not fit is left out and counted: a second message would break what holds for the
        first, that it is known to be sent or not.
        """

        def follow(part: Part) -> list[str]:
            said = part.words("And {count} more: they follow.", count=letter.more)
            return [said] if letter.more else []

        parts = self.parts(letter)
        for shown in (parts, parts[:1]):
            text = "\n\n".join(
                "\n".join([one.greeting, *_chat_lines(one), *follow(one)]) for one in shown
            )
            if len(text.encode()) <= longest:
                return text
        (part,) = parts[:1]
        lines = [part.greeting, *_chat_lines(part)]
        said, total = translator(part.language, self.timezone), len(letter.items) + letter.more
        for kept in range(len(lines), 0, -1):
            left = total - sum(line.startswith("- ") for line in lines[:kept])
            more = said.text(_("… and {count} more: see the report of the run.", count=left))
            text = "\n".join([*lines[:kept], more])
            if len(text.encode()) <= longest:
                return text
        return more

    def _page(self, letter: Letter, sender: str = "") -> Page:
        return page(letter.text, tuple(self.languages), self.timezone, sender)

    def _rendered(self, template: str, letter: Letter, sender: str, ask: str) -> str:
        return rendered(
            template,
            parts=self.parts(letter),
            subject=self.subject(letter),
            sender=one_line(sender),
            ask=ask,
            more=letter.more,
            refusable=letter.refusable,
            main=self.languages[0],
        )

    def _part(self, letter: Letter, language: str) -> Part:
        mine = translator(language, self.timezone)

        def words(text: str, **values: Any) -> str:
            return mine.text(Message(text=text, values=values))

        name = one_line(letter.name)[:LONGEST_NAME]
        blocks = [
            Block(
                one_line(translated(language, self.timezone, heading)),
                [
                    _line(item, one_line(translated(language, self.timezone, item.line)), mine)
                    for item in items
                ],
            )
            for heading, items in _grouped(letter.items).items()
        ]
        greeting = mine.text(_("Dear {name},", name=name) if name else _("Hello,"))
        return Part(language, words, greeting, blocks)


def _line(one: Item, said: str, mine: Translator) -> tuple[str, str]:
    """A line and, where it does not say so itself, the day by which it is due."""
    if one.due_on is None or one.due_on.isoformat() in said:
        return "", said
    return mine.text(_("due {day}", day=one.due_on)), said


def _chat_lines(part: Part) -> list[str]:
    lines = []
    for block in part.blocks:
        lines += [block.heading, *(f"- {_dated(day, said)}" for day, said in block.lines)]
    return lines


def _dated(day: str, said: str) -> str:
    return f"[{day}] {said}" if day else said


def _grouped(items: Sequence[Item]) -> dict[str, list[Item]]:
    """Items by heading; the one that is due first at the head, with its heading."""
    found: dict[str, list[Item]] = {}
    for one in sorted(items, key=lambda one: (one.due_on or _FAR, one.id)):
        found.setdefault(one.heading, []).append(one)
    return found
