"""Every file of one report: two languages, HTML and, where it can be made, PDF."""

from __future__ import annotations

from dataclasses import dataclass, field

from include.reports.html import render_html
from include.reports.i18n import LOCALES, language_tag
from include.reports.model import Report
from include.reports.pdf import PdfNotMade, pdf_unavailable_reason, render_pdf


@dataclass(frozen=True)
class Rendered:
    """What `render_all` made.

    Attributes:
        files: file name -> content, ``report.zh-CN.html``.
        not_made: file name -> why it is missing, with what was missing before.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    not_made: dict[str, str] = field(default_factory=dict)


def render_all(report: Report) -> Rendered:
    """Render a report in every language; a PDF that cannot be made becomes a reason.

    The HTML files name everything that was not made, the PDF files included.

    Raises:
        ValueError: the report holds a time without timezone.
    """
    files: dict[str, bytes] = {}
    not_made = dict(report.not_made)
    unavailable = pdf_unavailable_reason()
    for locale in LOCALES:
        name = f"report.{language_tag(locale)}.pdf"
        if unavailable:
            not_made[name] = unavailable
            continue
        try:
            files[name] = render_pdf(render_html(report, locale))
        except PdfNotMade as error:
            not_made[name] = error.message
    complete = report.model_copy(update={"not_made": not_made})
    for locale in LOCALES:
        files[f"report.{language_tag(locale)}.html"] = render_html(complete, locale).encode()
    return Rendered(files, not_made)
