"""Every file of one document: two languages in three forms."""

from __future__ import annotations

import re

from include.documents.html import render_html
from include.documents.model import Document
from include.documents.word import render_docx
from include.reports.i18n import LOCALES, language_tag
from include.reports.render import Rendered, pdf_unavailable_reason, render_pdfs

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


def render_forms(document: Document, timezone: str, name: str, *, pdf: bool = True) -> Rendered:
    """Render a document as HTML, PDF and Word file (.docx) in every language.

    The same document gives the same bytes. A PDF that cannot be made becomes a reason: at three in
    the morning a missing font must not keep the other files back.

    Args:
        document: the document. Blank fields are shown as such: see `missing`.
        timezone: IANA name; moments are shown in it.
        name: of the files, ``first-report`` for ``first-report.zh-CN.pdf``.
        pdf: False leaves the PDF files out; they cost most of the time.

    Raises:
        ValueError: a moment without timezone, or a name that is none of a file.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a file: use a-z, 0-9 and - . _")
    rendered, pages = Rendered(), {}
    for locale in LOCALES:
        start = f"{name}.{language_tag(locale)}"
        page = pages[f"{start}.pdf"] = render_html(document, locale, timezone)
        rendered.files[f"{start}.html"] = page.encode()
        rendered.files[f"{start}.docx"] = render_docx(document, locale, timezone)
    if not pdf:
        return rendered
    if unavailable := pdf_unavailable_reason():
        rendered.not_made.update(dict.fromkeys(pages, unavailable))
        return rendered
    files, reasons = render_pdfs(pages)
    return Rendered(rendered.files | files, reasons)
