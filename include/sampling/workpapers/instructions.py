"""The first sheet of workpapers: the draw, the people, and how to fill the workbook in."""

from __future__ import annotations

from datetime import datetime

from openpyxl.worksheet.worksheet import Worksheet

from include.messages import Message, _
from include.reports.i18n import Translator
from include.sampling.workpapers import form
from include.sampling.workpapers.form import Answer
from include.workbooks import style

_MEANINGS = {
    Answer.MET: _("The item meets the criterion, and the record shows it."),
    Answer.DEVIATES: _(
        "The item does not meet the criterion: a deviation. The note says what was seen."
    ),
    Answer.NOT_APPLICABLE: _("The attribute does not apply to this item. The note says why."),
    Answer.NOT_FOUND: _(
        "The record or its proof was not found; the note says where it was looked for. An item "
        "that cannot be tested is treated as a deviation (ISA 530, paragraph 11)."
    ),
}
_STEPS = (
    _("Test every item against every attribute of its sheet: look at the record itself, then "
      "choose an answer from the list in the cell. Question and source stand over the column."),
    _("A blank answer counts as a deviation."),
    _("Every answer but Yes needs a note. A note has {most} characters at most.",
      most=form.LONGEST_NOTE),
    _("Notes tell about the item, not about the customer: no names, addresses, telephone or ID "
      "numbers."),
    _("Who performed the work writes the name and the day above; who reviewed it writes the own "
      "name. They are two different people."),
    _("Only the yellow cells are filled in. Rows may be filtered and, once the sheet's protection "
      "is lifted, sorted; columns may be widened and hidden. Sheets, rows and columns are not "
      "added, removed or renamed, and no formulas, links or macros put in: the file would be "
      "refused."),
    _("The sheets are protected without a password. That guards against slips only; integrity "
      "comes from the draw digest, and from comparing every cell with the draw when the file "
      "returns."),
    _("Save as .xlsx without a password, with Excel, WPS or LibreOffice. The file's name does not "
      "matter."),
)  # fmt: skip


def write_instructions(
    sheet: Worksheet, facts: list[tuple[Message, str]], issued_at: datetime
) -> None:
    """Write the sheet with the draw, the people and how to fill the workbook in.

    Args:
        sheet: empty.
        facts: of the draw, with their names.
        issued_at: nobody performs the work before that day.
    """
    sheet.column_dimensions["A"].width, sheet.column_dimensions["B"].width = style.LEFT, style.RIGHT
    style.text(
        sheet, 1, 1, " / ".join(style.each(_("Workpapers of audit sampling"))), font=style.TITLE
    )
    row = 3
    for name, value in facts:
        style.pair(sheet, row, " ".join(style.each(name)), value)
        row += 1
    row = _people(sheet, row + 1, issued_at)
    row = style.heading(sheet, row + 1, _("How to fill the workbook in"))
    for place, step in enumerate(_STEPS, 1):
        chinese, english = (f"{place}. {Translator(one).text(step)}" for one in ("zh_CN", "en"))
        style.pair(sheet, row, chinese, english, bold=False)
        row += 1
    row = style.heading(sheet, row + 1, _("What the answers mean"))
    for answer, meaning in _MEANINGS.items():
        style.pair(sheet, row, form.WORDS[answer], style.both(meaning))
        row += 1
    style.protect(sheet)
    style.print_on_a4(sheet, sheet.title, landscape=False)


def _people(sheet: Worksheet, row: int, issued_at: datetime) -> int:
    for label in (form.PERFORMED_BY, form.PERFORMED_ON, form.REVIEWED_BY):
        style.text(sheet, row, 1, label, head=True)
        if label == form.PERFORMED_ON:
            style.day_cell(sheet, row, 2, label, issued_at.date())
        else:
            style.open_cell(sheet, row, 2)
        sheet.row_dimensions[row].height = 20
        row += 1
    return row
