"""Templates and translators of messages, each made once."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from include.messages import Message
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
