"""Create all files of an official document: HTML, PDF and Word, each in English and Chinese."""

from __future__ import annotations

import re

from include.documents.html import render_html
from include.documents.model import Document
from include.documents.word import render_docx
from include.reports.i18n import LOCALES, language_tag
from include.reports.render import Rendered, pdf_unavailable_reason, render_pdfs

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


def render_forms(document: Document, timezone: str, name: str, *, pdf: bool = True) -> Rendered:
    """Create the HTML, PDF and Word (.docx) files of a document in every language.

    The same document always gives the same bytes. If a PDF file cannot be created, for example
    because a font is missing, the result states the reason and contains all other files.

    Args:
        document: the document. Blank entries (see `missing_entries`) are marked in the files.
        timezone: IANA name of the timezone in which times are shown.
        name: start of the file names, such as ``first-report`` in ``first-report.zh-CN.pdf``.
        pdf: whether to create PDF files, which takes most of the time.

    Raises:
        ValueError: a time has no timezone, or the file name is invalid.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a valid file name: use only a-z, 0-9 and - . _")
    rendered, pages = Rendered(), {}
    for locale in LOCALES:
        file_prefix = f"{name}.{language_tag(locale)}"
        page = pages[f"{file_prefix}.pdf"] = render_html(document, locale, timezone)
        rendered.files[f"{file_prefix}.html"] = page.encode()
        rendered.files[f"{file_prefix}.docx"] = render_docx(document, locale, timezone)
    if not pdf:
        return rendered
    if unavailable := pdf_unavailable_reason():
        rendered.not_made.update(dict.fromkeys(pages, unavailable))
        return rendered
    files, reasons = render_pdfs(pages)
    return Rendered(rendered.files | files, reasons)
