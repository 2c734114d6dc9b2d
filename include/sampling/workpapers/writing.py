"""Audit sampling's workpapers as an Excel workbook: one sheet per population, to be filled in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from include.messages import Message, _
from include.reports.i18n import Translator
from include.sampling.workpapers import form
from include.sampling.workpapers.form import FIXED, HEADER_ROW, Answer, shown
from include.services.errors import UsageError
from include.workbooks.forms import Binding, Column, Cover, Line, Table, beside, both, plain, same

if TYPE_CHECKING:
    from openpyxl.worksheet.worksheet import Worksheet

_NOTE_WIDTH = 46
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


@dataclass(frozen=True)
class Attribute:
    """A question that every item of a population is tested against.

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
        question, criterion = (plain(both(text)) for text in (self.question, self.criterion))
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
    """The items of a population and their attributes.

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
        heads = [same(plain(header)) for header in self.headers]
        if len(set(heads)) < len(heads) or "" in heads:
            raise ValueError(f"attributes of {self.population!r} cannot be told apart: {heads}")
        if len({item.number for item in self.items}) < len(self.items):
            raise ValueError(f"two items of {self.population!r} have one number")

    @property
    def headers(self) -> tuple[str, ...]:
        """The heads of all columns, from left to right."""
        return (*FIXED, *(attribute.id for attribute in self.attributes), form.NOTE)

    @property
    def table(self) -> Table:
        """The items, and a column for each attribute."""
        from include.workbooks import style

        attributes = [
            Column(
                attribute.id,
                style.width_for(attribute.text),
                form.ANSWER_ENTRY,
                question=attribute.text,
            )
            for attribute in self.attributes
        ]
        return Table(
            HEADER_ROW,
            (*form.LOCKED, *attributes, Column(form.NOTE, _NOTE_WIDTH, form.NOTE_ENTRY)),
            tuple(
                Line((item.number, item.stage, item.ordinal, shown(item.key), shown(item.stratum)))
                for item in self.items
            ),
            key=form.NUMBER,
            faults=form.ITEM_FAULTS,
            arranged=True,
            frozen=FIXED.index(form.STRATUM),
        )


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
        if len({paper.population for paper in self.papers}) < len(self.papers):
            raise ValueError("two papers are of one population")
        if self.issued_at.tzinfo is None:
            raise ValueError("the moment of issue has no timezone")

    @property
    def sheets(self) -> dict[str, str]:
        """The names of the sheets by population."""
        return form.sheet_names(paper.population for paper in self.papers)

    @property
    def binding(self) -> Binding:
        """The hidden sheet, to which a workbook comes back."""
        notes = []
        for paper in self.papers:
            population = plain(paper.population)
            notes.append((f"sheet of {population}", self.sheets[paper.population]))
            notes.append((f"frame_sha256 of {population}", plain(paper.frame_sha256)))
        return Binding(
            form.DRAW,
            (
                ("format", form.FORMAT),
                ("audit", plain(self.audit)),
                ("stage", str(self.stage)),
                ("draw_sha256", plain(self.draw_sha256)),
            ),
            {
                "audit": lambda here, due: _(
                    "The workbook is of the audit {here}, not of {due}.", here=here, due=due
                ),
                "stage": lambda here, due: _(
                    "The workbook is of stage {here}, not of {due}.", here=here, due=due
                ),
                "draw_sha256": lambda here, due: _(
                    "The workbook is of another draw: digest {here} instead of {due}.",
                    here=here,
                    due=due,
                ),
            },
            form.ISSUED,
            tuple(notes),
        )


def write(workpapers: Workpapers) -> bytes:
    """Write the workbook to be filled in (.xlsx); the same workpapers always give the same bytes.

    Raises:
        UsageError: there are more items or attributes than one workbook is made for.
    """
    from include.workbooks.drawing import draw, draw_cover

    _check_size(workpapers.papers)
    cover = Cover(
        _("Workpapers of audit sampling"),
        _facts(workpapers),
        (form.PERFORMER, form.DAY, form.REVIEWER),
        _STEPS,
        [(form.WORDS[answer], meaning) for answer, meaning in _MEANINGS.items()],
    )
    sheets: dict[str, Callable[[Worksheet], None]] = {
        form.INSTRUCTIONS: lambda sheet: draw_cover(sheet, cover, workpapers.issued_at)
    }
    for paper in workpapers.papers:
        name = workpapers.sheets[paper.population]
        sheets[name] = partial(_write_paper, paper=paper, workpapers=workpapers)
    title = f"{plain(workpapers.audit)} · {workpapers.stage}"
    return draw(title, workpapers.issued_at, sheets, workpapers.binding)


def _check_size(papers: Sequence[Paper]) -> None:
    drawn = sum(len(paper.items) for paper in papers)
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
    languages = Translator("zh_CN"), Translator("en")
    papers = [
        f"{workpapers.sheets[paper.population]}: "
        + " / ".join(
            f"{plain(each.text(paper.title))}, {each.text(_drawn(paper))}" for each in languages
        )
        for paper in workpapers.papers
    ]
    issued = Translator("en", workpapers.timezone).datetime(workpapers.issued_at)
    return [
        (_("Audit"), plain(workpapers.audit)),
        (_("Stage of sampling"), str(workpapers.stage)),
        (_("Draw digest (SHA-256)"), plain(workpapers.draw_sha256)),
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
    from include.workbooks import style
    from include.workbooks.drawing import draw_table

    sentence = _(
        "Audit {audit}, stage {stage}: {drawn}; SHA-256 of the sampling frame {digest}",
        audit=workpapers.audit,
        stage=workpapers.stage,
        drawn=_drawn(paper),
        digest=paper.frame_sha256,
    )
    for row, language in ((2, "zh_CN"), (3, "en")):
        style.text(sheet, row, 1, plain(Translator(language).text(sentence)), font=style.SMALL)
    footer = f"{workpapers.audit} · {sheet.title}"
    draw_table(sheet, paper.table, plain(beside(paper.title)), footer)
