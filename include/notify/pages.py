"""A letter with a text of its own: its subject, and its pages in every language.

It is written once for all who get it: nothing in it is about one of them alone, not even a name in
the greeting.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from include.messages import Message, _
from include.notify.texts import LetterText
from include.reports.i18n import Translator

TEMPLATES = Path(__file__).parent / "templates"


def rendered(template: str, **values: Any) -> str:
    """A template with its values; what they hold is text, and in HTML never markup."""
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
    sides = [_side(words, one, timezone, one_line(sender)) for one in languages]
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
        parts=[(one_line(said(one.title)), paragraphs(one.words)) for one in words.parts],
        closing=paragraphs(words.closing),
        foot=[[sent], *contact],
    )


def _paragraphs(text: str) -> Paragraphs:
    found = [
        [line for one in part.split("\n") if (line := one_line(one))]
        for part in _BLANK_LINE.split(text)
    ]
    return [one for one in found if one]
