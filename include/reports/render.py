"""Every file of one report: two languages, HTML and, where it can be made, PDF."""

from __future__ import annotations

from dataclasses import dataclass, field

from include.reports.html import render_html
from include.reports.i18n import LOCALES, language_tag
from include.reports.model import Report
from include.reports.pdf import pdf_unavailable_reason, render_pdfs


@dataclass(frozen=True)
class Rendered:
    """What `render_all` made.

    Attributes:
        files: file name -> content, ``report.zh-CN.html``.
        not_made: file name -> why it is missing, with what was missing before.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    not_made: dict[str, str] = field(default_factory=dict)


def render_all(report: Report, *, pdf: bool = True) -> Rendered:
    """Render a report in every language; a PDF that cannot be made becomes a reason.

    The HTML files name everything that was not made, the PDF files included.

    Args:
        report: what to say.
        pdf: False leaves the PDF files out; they cost most of the time.

    Raises:
        ValueError: the report holds a time without timezone.
    """
    pages = {f"report.{language_tag(one)}.pdf": render_html(report, one) for one in LOCALES}
    files: dict[str, bytes] = {}
    reasons: dict[str, str] = {}
    if not pdf:
        pages = {}
    elif unavailable := pdf_unavailable_reason():
        reasons = dict.fromkeys(pages, unavailable)
    else:
        files, reasons = render_pdfs(pages)
    not_made = report.not_made | reasons
    complete = report.model_copy(update={"not_made": not_made})
    for locale in LOCALES:
        files[f"report.{language_tag(locale)}.html"] = render_html(complete, locale).encode()
    return Rendered(files, not_made)
