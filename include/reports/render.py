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
    pages = {f"report.{language_tag(one)}": render_html(report, one) for one in LOCALES}
    files: dict[str, bytes] = {}
    reasons: dict[str, str] = {}
    if not pdf:
        pass
    elif unavailable := pdf_unavailable_reason():
        reasons = {f"{name}.pdf": unavailable for name in pages}
    else:
        files, reasons = render_pdfs({f"{name}.pdf": page for name, page in pages.items()})
    not_made = report.not_made | reasons
    if reasons:
        complete = report.model_copy(update={"not_made": not_made})
        pages = {f"report.{language_tag(one)}": render_html(complete, one) for one in LOCALES}
    files |= {f"{name}.html": page.encode() for name, page in pages.items()}
    return Rendered(files, not_made)
