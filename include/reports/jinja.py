"""Jinja2 environments of template folders, the same for pages, reports and charts."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from include.reports.i18n import visible

TEMPLATES = Path(__file__).parent / "templates"


@lru_cache
def environment(folder: Path) -> Environment:
    """The templates of a folder: escaped, and strict about names that they do not know."""
    made = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["visible"] = visible
    return made
