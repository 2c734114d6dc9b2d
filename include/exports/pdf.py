"""Render an exported list as a self-contained HTML page, from which a PDF file is made."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from include.evidence.model import Outcome
from include.exports.model import PDF_ROWS, ExportTable
from include.reports.html import page_counter, styles, translator_function
from include.reports.i18n import Translator, language_tag, visible
from include.reports.jinja import environment
from include.reports.model import Cell
from include.reports.render import pdf_unavailable_reason, render_pdf
from include.services.errors import UsageError

MEDIA_TYPE = "application/pdf"
_TEMPLATES = Path(__file__).parent / "templates"


def render_list_pdf(table: ExportTable, locale: str, timezone: str, limit: int = PDF_ROWS) -> bytes:
    """Render a list as a PDF file in landscape format, with the letterhead on the first page.

    Args:
        table: the list.
        locale: ``en`` or ``zh_CN``.
        timezone: IANA name of the timezone of all times.
        limit: largest number of rows. Further rows are omitted, and a warning reports this.

    Raises:
        UsageError: this machine cannot make PDF files; the error names the missing library.
        PdfNotCreated: the PDF library failed or took too long.
    """
    if reason := pdf_unavailable_reason():
        raise UsageError("This server cannot make PDF files.", reason)
    return render_pdf(render_list_html(table, locale, timezone, limit))


def render_list_html(table: ExportTable, locale: str, timezone: str, limit: int = PDF_ROWS) -> str:
    """Render a list as an HTML page for paper.

    Args:
        table: the list.
        locale: ``en`` or ``zh_CN``.
        timezone: IANA name of the timezone of all times.
        limit: largest number of rows. Further rows are omitted, and a warning reports this.
    """
    translator = Translator(locale, timezone)
    sheet = (_TEMPLATES / "list.css").read_text(encoding="utf-8")
    total_width = sum(table.widths)
    widths = "".join(
        f"thead th:nth-child({number}) {{ width: {width / total_width:.2%}; }}\n"
        for number, width in enumerate(table.widths, 1)
    )
    counter = f"@page {{ @bottom-right {{ content: {page_counter(translator)}; }} }}\n"

    def shown(value: Cell) -> str:
        if isinstance(value, datetime):  # the head of the list states the timezone
            return value.astimezone(translator.zone).strftime("%Y-%m-%d %H:%M")
        return "" if value is None else visible(translator.value(value))

    def class_of(value: Cell) -> str:
        if isinstance(value, Outcome):
            return value.value
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return "num" if is_number else ""

    return (
        environment(_TEMPLATES)
        .get_template("list.html.j2")
        .render(
            table=table,
            rows=table.first_rows(limit),
            notes=table.notes(limit),
            language=language_tag(locale),
            shown=shown,
            class_of=class_of,
            t=translator,
            _=translator_function(translator),
            **styles(sheet + widths + counter),
        )
    )
