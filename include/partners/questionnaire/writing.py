"""A questionnaire as an Excel workbook, to be filled in by a partner."""

from __future__ import annotations

from collections.abc import Callable

from openpyxl.worksheet.worksheet import Worksheet

from include.messages import Message, _
from include.partners.questionnaire import form
from include.partners.questionnaire.form import Issued
from include.reports.i18n import Translator
from include.workbooks.drawing import draw, draw_choice, draw_cover, draw_table
from include.workbooks.forms import Cover
from include.workbooks.words import beside, plain

_STEPS = (
    _("Answer every question of the next sheet: choose Yes, No or N/A from the list in the cell."),
    _("Yes means that it is so today and that you can show it. N/A is taken only where the list "
      "of the cell offers it."),
    _("Every answer but Yes needs a note: what is missing and by when it will be mended, or why "
      "the question does not apply."),
    _("On the sheet of sub-processors, say whether anybody else processes our customers' "
      "information for you, and name every one of them."),
    _("Write nothing about any customer: no names, addresses, telephone or ID numbers."),
    _("Only the yellow cells are filled in. Sheets, rows and columns are not added, removed or "
      "renamed, and no formulas, links or macros put in: the file would be refused."),
    _("Save as .xlsx without a password, with Excel, WPS or LibreOffice, and send the file back "
      "to whom you have it from. The file's name does not matter."),
)  # fmt: skip


def write(issued: Issued) -> bytes:
    """Write the workbook to be filled in (.xlsx)."""
    cover = Cover(
        _("Security review of partners: questionnaire"), _facts(issued), (form.BY, form.ON), _STEPS
    )
    sheets: dict[str, Callable[[Worksheet], None]] = {
        form.INSTRUCTIONS: lambda sheet: draw_cover(sheet, cover, issued.issued_at),
        form.QUESTIONS: lambda sheet: draw_table(sheet, issued.table, beside(_("Questions"))),
    }
    if issued.sub_processors:
        sheets[form.SUB_PROCESSORS] = lambda sheet: _sub_processors(sheet, issued)
    title = f"{plain(issued.partner)} · {issued.review}"
    return draw(title, issued.issued_at, sheets, issued.binding)


def _facts(issued: Issued) -> list[tuple[Message, str]]:
    name = f"{issued.name} ({issued.partner})" if issued.name else issued.partner
    moment = Translator("en", issued.timezone).datetime(issued.issued_at)
    return [
        (_("Partner"), plain(name)),
        (_("Review no."), str(issued.review)),
        (_("Issued"), moment),
        (_("Digest of the questionnaire (SHA-256)"), issued.sha256),
    ]


def _sub_processors(sheet: Worksheet, issued: Issued) -> None:
    draw_choice(sheet, form.ANY_ROW, form.ANY_SUB_PROCESSORS, form.YES_OR_NO)
    title = beside(_("Who processes our customers' information for you"))
    footer = f"{sheet.title} · {issued.partner}"
    draw_table(sheet, form.SUB_PROCESSORS_TABLE, title, footer)
