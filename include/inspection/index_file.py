"""The index of an inspection pack: one workbook per language that lists the bundles."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from datetime import UTC
from typing import Any

from include.evidence.model import Outcome
from include.exports.excel import cell_text
from include.inspection.letter import FINDINGS, REMOVED_CONTROLS, PackFacts, warning_of
from include.inspection.packed_bundle import PackedBundle
from include.messages import Message, _, listed
from include.reports.i18n import LOCALES, Translator, language_tag

_RED = "FFF6C7C7"
_HEAD = "FFE4E9F2"
_WIDTHS = (10, 20, 30, 44, 18, 12, 34, 50, 70)


def render_index(facts: PackFacts, bundles: Sequence[PackedBundle]) -> dict[str, bytes]:
    """Return the content of each index file, by file name.

    A bundle that does not verify has red cells. Texts such as ``=1+1`` stay texts.

    Args:
        facts: content of the pack.
        bundles: the bundles, in the order of the lists.
    """
    return {
        f"index.{language_tag(locale)}.xlsx": _workbook(facts, bundles, locale)
        for locale in LOCALES
    }


def _workbook(facts: PackFacts, bundles: Sequence[PackedBundle], locale: str) -> bytes:
    from openpyxl import Workbook
    from openpyxl.writer.excel import ExcelWriter

    translator = Translator(locale, facts.timezone)
    book = Workbook(write_only=True)  # the rows of thousands of bundles are not in memory
    title = translator.text(_("Index"))
    sheet = book.create_sheet(title)
    sheet.freeze_panes = f"A{len(_head(facts, translator)) + 3}"
    for column, width in zip("ABCDEFGHI", _WIDTHS, strict=True):
        sheet.column_dimensions[column].width = width
    sheet.page_setup.orientation, sheet.page_setup.paperSize = "landscape", 9  # A4
    sheet.page_setup.fitToWidth, sheet.page_setup.fitToHeight = 1, 0
    sheet.sheet_properties.pageSetUpPr.fitToPage = True
    sheet.oddFooter.right.text = "&P / &N"
    for line in _head(facts, translator):
        sheet.append([_cell(sheet, line)])
    sheet.append([])
    sheet.append([_cell(sheet, translator.text(label), fill=_HEAD, bold=True) for label in _LABELS])
    for bundle in bundles:
        fill = _RED if bundle.problem is not None else ""
        sheet.append([_cell(sheet, value, fill=fill) for value in _row(facts, bundle, translator)])
    if not bundles:
        sheet.append([_cell(sheet, translator.text(_NO_BUNDLES))])
    if facts.findings:
        _add_findings(book, facts, translator)
    created = facts.created_at.astimezone(UTC).replace(tzinfo=None, microsecond=0)
    book.properties.creator, book.properties.title = "ParcelSeal", title
    book.properties.created = book.properties.modified = created
    buffer = io.BytesIO()
    archive = zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, allowZip64=True)
    ExcelWriter(book, archive).save()
    return buffer.getvalue()


def _add_findings(book: Any, facts: PackFacts, translator: Translator) -> None:
    """Add a sheet with one row for each report of a finding about the clauses."""
    sheet = book.create_sheet(translator.text(_FINDINGS))
    for column, width in zip("ABCDEFGHI", _FINDING_WIDTHS, strict=True):
        sheet.column_dimensions[column].width = width
    sheet.freeze_panes = "A2"
    sheet.page_setup.orientation, sheet.page_setup.paperSize = "landscape", 9  # A4
    sheet.page_setup.fitToWidth, sheet.page_setup.fitToHeight = 1, 0
    sheet.sheet_properties.pageSetUpPr.fitToPage = True
    labels = [translator.text(label) for label in _FINDING_LABELS]
    sheet.append([_cell(sheet, label, fill=_HEAD, bold=True) for label in labels])
    for finding in facts.findings:
        words = [
            finding.number,
            translator.text(facts.clause_title(finding.clause)) if finding.clause else "",
            translator.text(facts.title_of(finding.workflow)) if finding.workflow else "",
            translator.text(finding.description),
            translator.outcome(finding.severity),
            translator.text(finding.state),
        ]
        for report in finding.reports or (None,):
            cells = [*words, "", "", ""]
            if report is not None:
                is_packed = report.bundle in facts.packed
                cells[6:] = [
                    "" if report.number is None else report.number,
                    report.folder,
                    translator.text(_("yes") if is_packed else _("no")),
                ]
            sheet.append([_cell(sheet, value) for value in cells])


_FINDINGS = _("Findings")
_FINDING_LABELS = (
    _("Number"),
    _("Clause"),
    _("Workflow"),
    _("Finding"),
    _("Severity"),
    _("State"),
    _("Bundle"),
    _("Folder"),
    _("In the pack"),
)
_FINDING_WIDTHS = (10, 40, 30, 70, 16, 28, 10, 70, 12)
_LABELS = (
    _("Number"),
    _("Sealed"),
    _("Workflow"),
    _("Clauses"),
    _("Outcome"),
    _("Findings"),
    _("Verification"),
    _("Problem"),
    _("Folder"),
)
_NO_BUNDLES = _("No bundle was sealed for these clauses in this period.")


def _head(facts: PackFacts, translator: Translator) -> list[str]:
    company = facts.company
    lines = [
        *([company.name_message, company.address_message] if company else []),
        _("Index of the inspection pack"),
        _("Clauses: {clauses}", clauses=listed(facts.clauses)),
        _("Period: {period}", period=facts.period),
        _("All times are in the timezone {zone}.", zone=translator.zone_name()),
    ]
    if facts.removed_controls:
        controls = listed(facts.removed_controls)
        lines.append(
            Message(
                text="{label}: {controls}", values={"label": REMOVED_CONTROLS, "controls": controls}
            )
        )
    values = {"label": FINDINGS, "count": len(facts.findings)}
    lines.append(Message(text="{label}: {count}", values=values))
    if warning := warning_of(facts):
        lines.append(warning)
    return [translator.text(line) for line in lines]


def _row(facts: PackFacts, bundle: PackedBundle, translator: Translator) -> Iterator[Any]:
    row = bundle.row
    clauses = sorted(
        {clause for control in row.controls for clause in facts.clauses_of.get(control, ())}
    )
    yield row.seq
    yield row.sealed_at.astimezone(translator.zone).strftime("%Y-%m-%d %H:%M")
    yield translator.text(facts.title_of(row.dag_id))
    yield translator.text(listed(map(facts.clause_title, clauses)))
    yield translator.outcome(Outcome(row.outcome)) if row.outcome in set(Outcome) else row.outcome
    yield "" if bundle.findings is None else bundle.findings
    yield translator.text(_verification(bundle))
    yield translator.text(bundle.problem) if bundle.problem is not None else ""
    yield "" if bundle.is_removed else bundle.folder


def _verification(bundle: PackedBundle) -> Message:
    if bundle.is_removed:
        return _("files removed at the end of their retention period")
    return _("verifies") if bundle.verified else _("DOES NOT VERIFY")


def _cell(sheet: Any, value: Any, *, fill: str = "", bold: bool = False) -> Any:
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles import Alignment, Font, PatternFill

    if isinstance(value, str):
        text, is_quoted = cell_text(value)
        cell = WriteOnlyCell(sheet, text)
        cell.data_type = "s"  # openpyxl reads a text that starts with "=" as a formula
        cell.quotePrefix = is_quoted
    else:
        cell = WriteOnlyCell(sheet, value)
    if fill:
        cell.fill = PatternFill("solid", fgColor=fill)
    if bold:
        cell.font = Font(name="Calibri", size=11, bold=True)
    if fill or bold:
        cell.alignment = Alignment(vertical="top", wrap_text=True)
    return cell
