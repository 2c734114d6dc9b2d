"""Render an official document as an HTML page without scripts and external files.

The PDF file of the document is made from the same page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup

from include.documents.document_texts import MAX_UNBROKEN, DocumentTexts, section_numbers
from include.documents.model import Document, column_shares
from include.reports.html import css_string, page_counter, styles
from include.reports.i18n import language_tag, visible
from include.reports.jinja import environment
from include.reports.model import Table

TEMPLATES = Path(__file__).parent / "templates"
NAME_WIDTH_EM, WARNING_WIDTH_EM = 50.0, 36.0  # maximum widths (em) in page margins
# The font of the text, because each additional font takes a tenth of a second
_SMALL = 'font: 8pt "Noto Serif", "Liberation Serif", "Noto Serif CJK SC", serif; color: #4d5560;'
_LONG_WORD = re.compile(r"[^\s\u2e80-\uffef]{60}(?=[^\s\u2e80-\uffef]{60})")
_WARNING_FONT = (
    'font: bold 11pt "Noto Sans", Arial, "Liberation Sans", "Noto Sans CJK SC", sans-serif;'
)


def render_html(document: Document, locale: str, timezone: str) -> str:
    """Render a document in one language as an HTML page.

    Args:
        document: the document.
        locale: ``en`` or ``zh_CN``.
        timezone: IANA name of the timezone in which times are shown.

    Raises:
        ValueError: the locale is unknown, or a time has no timezone.
    """
    words = DocumentTexts(locale, timezone)
    templates = environment(TEMPLATES)
    templates.filters["breakable"] = allow_breaks
    grids = {
        f"t{section_number}-{block_number}": words.grid(block)
        for section_number, section in enumerate(document.sections, 1)
        for block_number, block in enumerate(section.blocks, 1)
        if isinstance(block, Table)
    }
    style_sheet = (TEMPLATES / "document.css").read_text(encoding="utf-8")
    return templates.get_template("document.html.j2").render(
        document=document,
        words=words,
        numbers=section_numbers(document),
        name=full_name(document, words),
        language=language_tag(locale),
        grids=grids,
        long=MAX_UNBROKEN,
        **styles(style_sheet + _columns(grids) + _margins(document, words)),
    )


def full_name(document: Document, words: DocumentTexts) -> str:
    """Return the title and the reference number of a document in one line.

    Args:
        document: the document.
        words: converter to the language of the line.
    """
    title = " ".join(words.text(document.title).split())
    reference = visible(document.reference)
    return f"{title} · {reference}" if reference else title


def allow_breaks(text: str) -> Markup:
    """Return a text as HTML, with points inside very long words at which a line may break.

    Without these points, the time that WeasyPrint needs for a word grows with the square of its
    length.
    """
    pieces, end = [], 0
    for match in _LONG_WORD.finditer(text):
        pieces.append(text[end : match.end()])
        end = match.end()
    return Markup("<wbr>").join([*pieces, text[end:]])


def _columns(grids: Mapping[str, list[list[str]]]) -> str:
    return "".join(
        f"#{name} thead th:nth-child({at}) {{ width: {share:.2%}; }}\n"
        for name, rows in grids.items()
        for at, share in enumerate(column_shares(rows), 1)
    )


def _margins(document: Document, words: DocumentTexts) -> str:
    """Return the CSS for the page margins.

    The margins contain a warning at the top, and the document name and page number at the bottom.
    The first page has no warning in its margin, because its text begins with the warning. These
    texts are in the style sheet, because a browser repeats only such texts on every page.

    Args:
        document: the document.
        words: converter to the language of the page.
    """
    name = css_string(words.margin(full_name(document, words), NAME_WIDTH_EM))
    above = ""
    if document.warning:
        warning = css_string(words.margin(words.text(document.warning), WARNING_WIDTH_EM))
        above = f"""
  @top-center {{
    content: {warning}; {_WARNING_FONT} width: 100%; height: 9mm; margin: 5mm 0 4mm; text-align:
        center;
    vertical-align: middle; background: #a3161a; color: #ffffff;
  }}"""
    return f"""@page {{
  size: A4; margin: {24 if above else 20}mm 22mm 20mm;{above}
  @bottom-left {{ content: {name}; {_SMALL} width: 80%; }}
  @bottom-right {{ content: {page_counter(words.translator)}; white-space: nowrap; {_SMALL} }}
}}
@page :first {{ margin-top: 20mm; @top-center {{ content: none; }} }}
"""
