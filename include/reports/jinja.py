"""Create the Jinja2 environments for the templates of pages, reports and charts."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from include.reports.i18n import visible

TEMPLATES = Path(__file__).parent / "templates"


@lru_cache
def environment(folder: Path) -> Environment:
    """Return the Jinja2 environment of a template folder.

    The environment escapes all values, and refuses a template that uses an undefined name.
    """
    templates = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["visible"] = visible
    templates.filters["code_spans"] = code_spans
    return templates


def code_spans(sentence: str) -> Markup:
    """Escape a sentence, and mark up the text between backticks as ``<code>``."""
    parts = enumerate(sentence.split("`"))
    return Markup("").join(  # every part is escaped
        Markup("<code>{}</code>").format(part) if position % 2 else escape(part)
        for position, part in parts
    )
