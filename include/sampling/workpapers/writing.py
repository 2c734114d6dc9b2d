"""Audit sampling's workpapers as an Excel workbook: one sheet per population, to be filled in.

The sheets are protected without a password. That guards against slips and nothing else: a returned
workbook is held against the draw cell by cell (`reading`), and the draw's digest stands in it.

The same workpapers always give the same bytes, because their SHA-256 is sealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from openpyxl import Workbook
from openpyxl.utils import get_column_letter
from openpyxl.workbook.protection import WorkbookProtection
from openpyxl.worksheet.datavalidation import DataValidation
from openpyxl.worksheet.worksheet import Worksheet

from include.messages import Message, _
from include.reports.i18n import Translator
from include.sampling.workpapers import form
from include.sampling.workpapers.form import FIXED, HEADER_ROW, QUESTION_ROW
from include.sampling.workpapers.instructions import write_instructions
from include.services.errors import UsageError
from include.workbooks import style, words
from include.workbooks.saving import saved

_WIDTHS = (7, 8, 13, 38, 16)  # of the locked columns
_NOTE_WIDTH = 46


@dataclass(frozen=True)
class Attribute:
    """What every item of a population is tested for.

    A workbook comes back to the same words or is refused: they should be texts of the policy pack,
    with their translations, not of the catalogue.

    Attributes:
        id: heads the attribute's column.
        question: what is asked of an item.
        criterion: the source of what is asked.
    """

    id: str
    question: Message
    criterion: Message

    @property
    def text(self) -> str:
        """Question and source in both languages, as they stand over the column."""
        question, criterion = (
            words.plain(style.both(one)) for one in (self.question, self.criterion)
        )
        return f"{question}\n\n{form.CRITERION}\n{criterion}"


@dataclass(frozen=True)
class Item:
    """One item that was drawn.

    Attributes:
        number: 1-based place in the order of the draw; names the item within its population.
        stage: of sampling in which it was drawn.
        ordinal: place in the sampling frame.
        key: the item's id, any characters; never a customer's value.
        stratum: it was drawn from.
    """

    number: int
    stage: int
    ordinal: int
    key: str
    stratum: str


@dataclass(frozen=True)
class Paper:
    """The items of one population and what they are tested for.

    Attributes:
        population: id.
        title: for people.
        attributes: in the order of the columns.
        items: in the order of the rows.
        frame_sha256: of the sampling frame.
        population_size: items in the frame.

    Raises:
        ValueError: two attributes or two items would be taken for one.
    """

    population: str
    title: Message
    attributes: tuple[Attribute, ...]
    items: tuple[Item, ...]
    frame_sha256: str
    population_size: int

    def __post_init__(self) -> None:
        heads = [words.same(words.plain(one)) for one in self.headers]
        if len(set(heads)) < len(heads) or "" in heads:
            raise ValueError(f"attributes of {self.population!r} cannot be told apart: {heads}")
        if len({one.number for one in self.items}) < len(self.items):
            raise ValueError(f"two items of {self.population!r} have one number")

    @property
    def headers(self) -> tuple[str, ...]:
        """The heads of all columns, from left to right."""
        return (*FIXED, *(one.id for one in self.attributes), form.NOTE)


@dataclass(frozen=True)
class Workpapers:
    """What one stage of one audit asks auditors to test.

    Attributes:
        audit: id, ``2026Q3``.
        stage: of sampling.
        draw_sha256: digest that binds the workbook to exactly this draw.
        issued_at: moment of issue.
        timezone: IANA name in which moments are shown.
        papers: one per population.

    Raises:
        ValueError: two papers are of one population, or the moment has no timezone.
    """

    audit: str
    stage: int
    draw_sha256: str
    issued_at: datetime
    timezone: str
    papers: tuple[Paper, ...]

    def __post_init__(self) -> None:
        if len({one.population for one in self.papers}) < len(self.papers):
            raise ValueError("two papers are of one population")
        if self.issued_at.tzinfo is None:
            raise ValueError("the moment of issue has no timezone")

    @property
    def sheets(self) -> dict[str, str]:
        """The names of the sheets by population."""
        return form.sheet_names(one.population for one in self.papers)

    @property
    def draw(self) -> tuple[tuple[str, str], ...]:
        """What the hidden sheet says of the draw, by name."""
        return (
            ("format", form.FORMAT),
            ("audit", words.plain(self.audit)),
            ("stage", str(self.stage)),
            ("draw_sha256", words.plain(self.draw_sha256)),
        )


def write(workpapers: Workpapers) -> bytes:
    """Write the workbook to be filled in (.xlsx): no formulas, macros or links.

    Raises:
        UsageError: there are more items or attributes than one workbook is made for.
    """
    _check_size(workpapers.papers)
    book = Workbook()
    first = book.active
    assert isinstance(first, Worksheet)
    first.title = form.INSTRUCTIONS
    write_instructions(first, _facts(workpapers), workpapers.issued_at)
    for paper in workpapers.papers:
        sheet = book.create_sheet(workpapers.sheets[paper.population])
        _write_paper(sheet, paper, workpapers)
    _write_draw(book.create_sheet(form.DRAW), workpapers)
    # Sheets are not removed or renamed by a slip either
    book.security = WorkbookProtection(lockStructure=True)
    title = f"{words.plain(workpapers.audit)} · {workpapers.stage}"
    return saved(book, title, workpapers.issued_at)


def _check_size(papers: Sequence[Paper]) -> None:
    drawn = sum(len(one.items) for one in papers)
    if drawn > form.MOST_ITEMS:
        raise UsageError(
            f"{drawn} items were drawn; a workbook holds {form.MOST_ITEMS} at most.",
            "Draw fewer, or make workpapers for some of the populations at a time.",
        )
    for paper in papers:
        if len(paper.attributes) > form.MOST_ATTRIBUTES:
            raise UsageError(
                f"The population {paper.population} has {len(paper.attributes)} attributes; "
                f"a sheet holds {form.MOST_ATTRIBUTES} at most.",
                "Test fewer attributes in the policy pack.",
            )


def _facts(workpapers: Workpapers) -> list[tuple[Message, str]]:
    both = Translator("zh_CN"), Translator("en")
    papers = [
        f"{workpapers.sheets[one.population]}: "
        + " / ".join(
            f"{words.plain(each.text(one.title))}, {each.text(_drawn(one))}" for each in both
        )
        for one in workpapers.papers
    ]
    issued = Translator("en", workpapers.timezone).datetime(workpapers.issued_at)
    return [
        (_("Audit"), words.plain(workpapers.audit)),
        (_("Stage of sampling"), str(workpapers.stage)),
        (_("Draw digest (SHA-256)"), words.plain(workpapers.draw_sha256)),
        (_("Issued"), issued),
        (_("Populations"), "\n".join(papers)),
    ]


def _drawn(paper: Paper) -> Message:
    return _(
        "{count} items drawn from a population of {size}",
        count=len(paper.items),
        size=paper.population_size,
    )


def _write_paper(sheet: Worksheet, paper: Paper, workpapers: Workpapers) -> None:
    style.text(sheet, 1, 1, words.plain(" / ".join(style.each(paper.title))), font=style.TITLE)
    for row, language in ((2, "zh_CN"), (3, "en")):
        said = _(
            "Audit {audit}, stage {stage}: {drawn}; SHA-256 of the sampling frame {digest}",
            audit=workpapers.audit,
            stage=workpapers.stage,
            drawn=_drawn(paper),
            digest=paper.frame_sha256,
        )
        style.text(sheet, row, 1, words.plain(Translator(language).text(said)), font=style.SMALL)
    last = HEADER_ROW + len(paper.items)
    _write_heads(sheet, paper)
    for row, item in enumerate(paper.items, HEADER_ROW + 1):
        _write_item(sheet, row, item, len(paper.attributes))
    _restrict(sheet, paper, last)
    sheet.freeze_panes = f"{get_column_letter(FIXED.index(form.STRATUM) + 1)}{HEADER_ROW + 1}"
    sheet.auto_filter.ref = (
        f"A{HEADER_ROW}:{get_column_letter(len(paper.headers))}{max(last, HEADER_ROW + 1)}"
    )
    sheet.print_title_rows = f"{QUESTION_ROW}:{HEADER_ROW}"
    style.protect(sheet)
    style.print_on_a4(sheet, f"{workpapers.audit} · {sheet.title}", landscape=True)


def _write_heads(sheet: Worksheet, paper: Paper) -> None:
    texts = [one.text for one in paper.attributes]
    widths = [*_WIDTHS, *(style.width_for(one) for one in texts), _NOTE_WIDTH]
    for column, (head, width) in enumerate(zip(paper.headers, widths, strict=True), 1):
        style.text(sheet, HEADER_ROW, column, words.plain(head), head=True)
        sheet.column_dimensions[get_column_letter(column)].width = width
    sheet.row_dimensions[HEADER_ROW].height = max(
        style.height(words.plain(one), width)
        for one, width in zip(paper.headers, widths, strict=True)
    )
    for column, text in enumerate(texts, len(FIXED) + 1):
        style.text(sheet, QUESTION_ROW, column, text, wrap=True)
    sheet.row_dimensions[QUESTION_ROW].height = max(
        (style.height(one, width) for one, width in zip(texts, widths[len(FIXED) :], strict=False)),
        default=style.LINE,
    )


def _write_item(sheet: Worksheet, row: int, item: Item, attributes: int) -> None:
    for column, figure in enumerate((item.number, item.stage, item.ordinal), 1):
        style.number(sheet, row, column, figure)
    key = form.shown(item.key)
    style.text(sheet, row, 4, key, wrap=True, framed=True)
    style.text(sheet, row, 5, form.shown(item.stratum), wrap=True, framed=True)
    for column in range(len(FIXED) + 1, len(FIXED) + 2 + attributes):
        style.open_cell(sheet, row, column)
    high = max(style.height(key, _WIDTHS[3]), style.height(form.shown(item.stratum), _WIDTHS[4]))
    if high > style.LINE:  # else the row grows with its note
        sheet.row_dimensions[row].height = high


def _restrict(sheet: Worksheet, paper: Paper, last: int) -> None:
    """Drop-down lists for the answers, a longest note."""
    if not paper.items:
        return
    answers = DataValidation("list", f'"{",".join(form.WORDS.values())}"', allow_blank=True)
    answers.errorTitle = "答案 Answer"
    answers.error = style.both(_("Choose one of the answers of the list."))
    notes = DataValidation(
        "textLength", str(form.LONGEST_NOTE), operator="lessThanOrEqual", allow_blank=True
    )
    notes.errorTitle = form.NOTE
    notes.error = style.both(_("A note has {most} characters at most.", most=form.LONGEST_NOTE))
    for rule in (answers, notes):
        rule.showErrorMessage = True
        sheet.add_data_validation(rule)
    end = len(paper.headers)
    if paper.attributes:
        first, final = get_column_letter(len(FIXED) + 1), get_column_letter(end - 1)
        answers.add(f"{first}{HEADER_ROW + 1}:{final}{last}")
    note = get_column_letter(end)
    notes.add(f"{note}{HEADER_ROW + 1}:{note}{last}")


def _write_draw(sheet: Worksheet, workpapers: Workpapers) -> None:
    rows = [*workpapers.draw]
    for paper in workpapers.papers:
        population = words.plain(paper.population)
        rows.append((f"sheet of {population}", workpapers.sheets[paper.population]))
        rows.append((f"frame_sha256 of {population}", words.plain(paper.frame_sha256)))
    for row, (name, value) in enumerate(rows, 1):
        style.text(sheet, row, 1, name)
        style.text(sheet, row, 2, value)
    sheet.sheet_state = "veryHidden"
    style.protect(sheet)
