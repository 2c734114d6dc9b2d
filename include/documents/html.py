"""A document as one self-contained page: no script, no request; printed, it is the PDF."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup

from include.documents.model import Document, shares
from include.documents.words import LONG, Words, numbers
from include.reports.html import styles
from include.reports.i18n import language_tag, visible
from include.reports.jinja import environment
from include.reports.model import Table

TEMPLATES = Path(__file__).parent / "templates"
NAME, WARNING = 50.0, 36.0  # em that are shown of name and warning in the margin of a page
# The small print has the font of the text: each font more costs a tenth of a second
_SMALL = 'font: 8pt "Noto Serif", "Liberation Serif", "Noto Serif CJK SC", serif; color: #4d5560;'
_ENDLESS = re.compile(r"[^\s\u2e80-\uffef]{60}(?=[^\s\u2e80-\uffef]{60})")
_LOUD = 'font: bold 11pt "Noto Sans", Arial, "Liberation Sans", "Noto Sans CJK SC", sans-serif;'


def render_html(document: Document, locale: str, timezone: str) -> str:
    """Render a document in one language.

    Args:
        document: what to say.
        locale: ``en`` or ``zh_CN``.
        timezone: IANA name; moments are shown in it.

    Raises:
        ValueError: unknown locale, or a moment without timezone.
    """
    words = Words(locale, timezone)
    templates = environment(TEMPLATES)
    templates.filters["breakable"] = breakable
    grids = {
        f"t{place}-{at}": words.grid(block)
        for place, section in enumerate(document.sections, 1)
        for at, block in enumerate(section.blocks, 1)
        if isinstance(block, Table)
    }
    sheet = (TEMPLATES / "document.css").read_text(encoding="utf-8")
    return templates.get_template("document.html.j2").render(
        document=document,
        words=words,
        numbers=numbers(document),
        name=full_name(document, words),
        language=language_tag(locale),
        grids=grids,
        long=LONG,
        **styles(sheet + _columns(grids) + _margins(document, words)),
    )


def full_name(document: Document, words: Words) -> str:
    """Title and reference in one line, as a program shows it at the top of its window."""
    title = " ".join(words.text(document.title).split())
    reference = visible(document.reference)
    return f"{title} · {reference}" if reference else title


def breakable(text: str) -> Markup:
    """A text, escaped, whose endless words may break where a line ends.

    Without that the time that WeasyPrint takes grows with the square of a word's length.
    """
    pieces, end = [], 0
    for found in _ENDLESS.finditer(text):
        pieces.append(text[end : found.end()])
        end = found.end()
    return Markup("<wbr>").join([*pieces, text[end:]])


def _columns(grids: Mapping[str, list[list[str]]]) -> str:
    return "".join(
        f"#{name} thead th:nth-child({at}) {{ width: {share:.2%}; }}\n"
        for name, rows in grids.items()
        for at, share in enumerate(shares(rows), 1)
    )


def _margins(document: Document, words: Words) -> str:
    """Return the margins of each page: the warning above, name and page number below.

    The first page begins with the warning.

    Texts are written into the style sheet, since browsers know no other way to repeat one.
    """
    name = _quoted(words.margin(full_name(document, words), NAME))
    above = ""
    if document.marked:
        warning = _quoted(words.margin(words.text(document.marked), WARNING))
        above = f"""
  @top-center {{
    content: {warning}; {_LOUD} width: 100%; height: 9mm; margin: 5mm 0 4mm; text-align: center;
    vertical-align: middle; background: #a3161a; color: #ffffff;
  }}"""
    return f"""@page {{
  size: A4; margin: {24 if above else 20}mm 22mm 20mm;{above}
  @bottom-left {{ content: {name}; {_SMALL} width: 80%; }}
  @bottom-right {{ content: counter(page) " / " counter(pages); {_SMALL} }}
}}
@page :first {{ margin-top: 20mm; @top-center {{ content: none; }} }}
"""


def _quoted(text: str) -> str:
    """A text as a string of a style sheet, in which nothing of it can end the string."""
    plain = "".join(
        character if character.isascii() and character.isalnum() else f"\\{ord(character):x} "
        for character in text
    )
    return f'"{plain}"'
