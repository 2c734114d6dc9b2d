"""Write the workpapers of an audit as a workbook with one sheet for each population."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from include.messages import Message, _
from include.reports.i18n import Translator
from include.sampling.quarter_texts import quarter_text
from include.sampling.workpapers import form
from include.sampling.workpapers.form import FIXED, HEADER_ROW, Answer, cell_text
from include.services.errors import UsageError
from include.workbooks.forms import (
    Binding,
    Column,
    Cover,
    Line,
    Table,
    escape_text,
    in_one_line,
    in_two_lines,
    normalize_text,
)

if TYPE_CHECKING:
    from openpyxl.worksheet.worksheet import Worksheet

_NOTE_WIDTH = 46
_MEANINGS = {
    Answer.MET: _("The item meets the criterion, and the record shows it."),
    Answer.DEVIATES: _(
        "The item does not meet the criterion: a deviation. Describe the observation in the note."
    ),
    Answer.NOT_APPLICABLE: _(
        "The question does not apply to this item. State the reason in the note."
    ),
    Answer.NOT_FOUND: _(
        "The record or its proof was not found. State in the note where you searched. An item "
        "that cannot be tested is treated as a deviation (ISA 530, paragraph 11)."
    ),
}
_STEPS = (
    _("Test every item against every question of its sheet: examine the record itself, then "
        "choose an answer from the list in the cell. Each question and its source are above the "
        "column."),
    _("A blank answer counts as a deviation."),
    _("Every answer other than Yes needs a note of at most {limit} characters.",
      limit=form.LONGEST_NOTE),
    _("Notes describe the item, not the customer: no names, addresses, telephone numbers or ID "
        "numbers."),
    _("The person who performed the work enters name and date above, and the reviewer enters a "
        "name. They have to be two different people."),
    _("Fill in the yellow cells only. You may filter the rows, sort them after removing the "
      "sheet protection, and widen or hide columns. Do not add, remove or rename sheets, rows "
      "or columns, and do not insert formulas, links or macros: a file with such changes is "
      "refused."),
    _("The sheets are protected without a password, against accidental changes only. When the "
        "file is handed in, its draw digest and every cell are compared with the draw."),
    _("Save the file as .xlsx without a password, with Excel, WPS or LibreOffice. The file "
        "name does not matter."),
)  # fmt: skip


@dataclass(frozen=True)
class Attribute:
    """A question that auditors answer for every sample item of a population.

    A returned workbook must contain the same words as the issued workbook. Therefore the texts
    should come from the policy pack, with their translations, and not from the message catalogue,
    whose translations may change between issue and return.

    Attributes:
        id: id of the question, which is the header of its column.
        question: question about an item.
        criterion: law or standard from which the question comes.
    """

    id: str
    question: Message
    criterion: Message

    @property
    def text(self) -> str:
        """The question and its criterion in both languages, for the cell above the column."""
        question, criterion = (
            escape_text(in_two_lines(text)) for text in (self.question, self.criterion)
        )
        return f"{question}\n\n{form.CRITERION}\n{criterion}"


@dataclass(frozen=True)
class Item:
    """A sample item as a row of the workpapers.

    Attributes:
        number: position of the item in the sample of its population, from 1. The count continues
            over all stages.
        stage: stage in which the item is tested; the first stage is 1.
        ordinal: number of the item's line in the sampling frame, from 1.
        key: id of the item; may contain any characters, but no customer data.
        stratum: stratum of the item; empty without strata.
    """

    number: int
    stage: int
    ordinal: int
    key: str
    stratum: str


@dataclass(frozen=True)
class Paper:
    """A sheet of the workpapers: the sample items of a population and the attributes to test.

    Attributes:
        population: id of the population.
        title: title of the population, as the sheet shows it.
        attributes: attributes in the order of the columns.
        items: items in the order of the rows.
        frame_sha256: hex digest of the sampling frame.
        population_size: number of items in the sampling frame.

    Raises:
        ValueError: two attributes have the same header, or two items have the same number.
    """

    population: str
    title: Message
    attributes: tuple[Attribute, ...]
    items: tuple[Item, ...]
    frame_sha256: str
    population_size: int

    def __post_init__(self) -> None:
        heads = [normalize_text(escape_text(header)) for header in self.headers]
        if len(set(heads)) < len(heads) or "" in heads:
            raise ValueError(f"attributes of {self.population!r} cannot be told apart: {heads}")
        if len({item.number for item in self.items}) < len(self.items):
            raise ValueError(f"two items of {self.population!r} have one number")

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers of all columns, from left to right."""
        return (*FIXED, *(attribute.id for attribute in self.attributes), form.NOTE)

    @property
    def table(self) -> Table:
        """The table of the sample items, with a column for each attribute."""
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
                Line(
                    (
                        item.number,
                        item.stage,
                        item.ordinal,
                        cell_text(item.key),
                        cell_text(item.stratum),
                    )
                )
                for item in self.items
            ),
            key=form.NUMBER,
            faults=form.ITEM_FAULTS,
            arranged=True,
            frozen=FIXED.index(form.STRATUM),
        )


@dataclass(frozen=True)
class Workpapers:
    """The workpapers of one stage of an audit.

    Attributes:
        audit: id of the audited quarter, such as ``2026Q3``.
        stage: stage of the workpapers; the first stage is 1.
        draw_sha256: digest that identifies the draw, see `draw_digest`.
        issued_at: time of issue.
        timezone: IANA name of the timezone of the times that the workbook shows.
        papers: one sheet for each population.

    Raises:
        ValueError: two sheets have the same population, or the time of issue has no timezone.
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
        """The names of the sheets: population id -> sheet name."""
        return form.sheet_names(paper.population for paper in self.papers)

    @property
    def binding(self) -> Binding:
        """The hidden sheet that identifies the draw to which a returned workbook belongs."""
        notes = []
        for paper in self.papers:
            population = escape_text(paper.population)
            notes.append((f"sheet of {population}", self.sheets[paper.population]))
            notes.append((f"frame_sha256 of {population}", escape_text(paper.frame_sha256)))
        return Binding(
            form.DRAW,
            (
                ("format", form.FORMAT),
                ("audit", escape_text(self.audit)),
                ("stage", str(self.stage)),
                ("draw_sha256", escape_text(self.draw_sha256)),
            ),
            {
                "audit": lambda here, due: _(
                    "The workbook belongs to the audit of the {actual}, not of the {expected}.",
                    actual=quarter_text(here),
                    expected=quarter_text(due),
                ),
                "stage": lambda here, due: _(
                    "The workbook belongs to stage {actual}, not to stage {expected}.",
                    actual=here,
                    expected=due,
                ),
                "draw_sha256": lambda here, due: _(
                    "The workbook belongs to another draw: its digest is {actual} instead of "
                    "{expected}.",
                    actual=here,
                    expected=due,
                ),
            },
            form.ISSUED,
            tuple(notes),
        )


def write(workpapers: Workpapers) -> bytes:
    """Return the bytes of the .xlsx workbook that auditors complete.

    The same workpapers always give the same bytes.

    Raises:
        UsageError: the items or attributes exceed the limits of a workbook.
    """
    from include.workbooks.drawing import draw, draw_cover

    _check_size(workpapers.papers)
    cover = Cover(
        _("Workpapers for audit sampling"),
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
    title = _(
        "Audit of the {quarter}, stage {stage}",
        quarter=quarter_text(workpapers.audit),
        stage=workpapers.stage,
    )
    return draw(escape_text(in_one_line(title)), workpapers.issued_at, sheets, workpapers.binding)


def _check_size(papers: Sequence[Paper]) -> None:
    drawn = sum(len(paper.items) for paper in papers)
    if drawn > form.MOST_ITEMS:
        raise UsageError(
            f"{drawn} items were drawn; a workbook can have at most {form.MOST_ITEMS}.",
            "Draw fewer items, or issue the workpapers for fewer populations at a time.",
        )
    for paper in papers:
        if len(paper.attributes) > form.MOST_ATTRIBUTES:
            raise UsageError(
                f"The population {paper.population} has {len(paper.attributes)} attributes; "
                f"a sheet can have at most {form.MOST_ATTRIBUTES}.",
                "Test fewer attributes in the policy pack.",
            )


def _facts(workpapers: Workpapers) -> list[tuple[Message, str]]:
    languages = Translator("zh_CN"), Translator("en")
    papers = [
        f"{workpapers.sheets[paper.population]}: "
        + " / ".join(escape_text(language.text(_summary(paper))) for language in languages)
        for paper in workpapers.papers
    ]
    issued = Translator("en", workpapers.timezone).datetime(workpapers.issued_at)
    return [
        (_("Audited quarter"), in_one_line(quarter_text(workpapers.audit))),
        (_("Stage of sampling"), str(workpapers.stage)),
        (_("Draw digest (SHA-256)"), escape_text(workpapers.draw_sha256)),
        (_("Issued"), issued),
        (_("Populations"), "\n".join(papers)),
    ]


def _summary(paper: Paper) -> Message:
    """Return a text with the title of a population and the size of its sample."""
    return Message(
        text="{title}, {drawn}",
        values={"title": paper.title, "drawn": _drawn(paper)},
        translations={"zh-CN": "{title}，{drawn}"},
    )


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
        "Audit of the {quarter}, stage {stage}: {drawn}; SHA-256 of the sampling frame: {digest}",
        quarter=quarter_text(workpapers.audit),
        stage=workpapers.stage,
        drawn=_drawn(paper),
        digest=paper.frame_sha256,
    )
    for row, language in ((2, "zh_CN"), (3, "en")):
        style.text(
            sheet, row, 1, escape_text(Translator(language).text(sentence)), font=style.SMALL
        )
    footer = f"{in_one_line(quarter_text(workpapers.audit))} · {sheet.title}"
    draw_table(sheet, paper.table, escape_text(in_one_line(paper.title)), footer)
