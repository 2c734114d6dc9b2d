"""The questionnaire for partners as an Excel workbook: its form, written and read back.

The words of the form are part of the file's format and stand in no catalogue: a better translation
must not make a workbook unreadable that was issued before it. A change of a word changes `FORMAT`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from include.approvals.reasons import value_free_reason
from include.messages import Message, _
from include.partners.rules import Answer, Asked
from include.policy.rates import parse_rate
from include.reports.i18n import Translator
from include.workbooks import returned
from include.workbooks.forms import (
    Binding,
    Choice,
    Choices,
    Column,
    Cover,
    Field,
    Line,
    Note,
    RowFaults,
    Table,
    beside,
    both,
    plain,
    same,
)
from include.workbooks.returned import AS_ISSUED, ReturnedBook, ReturnedSheet, ReturnedTable

if TYPE_CHECKING:
    from openpyxl.worksheet.worksheet import Worksheet

FORMAT = "parcelseal.questionnaire/1"
INSTRUCTIONS = "填写说明 Instructions"
QUESTIONS = "问卷 Questionnaire"
SUB_PROCESSORS = "分包方 Sub-processors"
ISSUE = "签发 Issue"
"""The very hidden sheet that says which questionnaire the workbook is."""

NUMBER, ID, QUESTION, SOURCE = "序号 No.", "编号 Id", "问题 Question", "依据 Source"
ANSWER, NOTE = "答案 Answer", "备注 Note"
HEADER_ROW = 4

ANSWERED_BY, ANSWERED_ON = "填写人 Answered by", "填写日期 Answered on"

ANY_SUB_PROCESSORS = "是否有分包方 Are there sub-processors?"
ANY_ROW, SUB_HEADER_ROW = 3, 5
NAME, COUNTRY, WHAT_FOR = "名称 Name", "国家或地区 Country or region", "处理内容 What they process"
MOST_SUB_PROCESSORS = 40

CHOICES = Choices(
    {
        Answer.YES: ("是", "Yes"),
        Answer.NO: ("否", "No"),
        Answer.NOT_APPLICABLE: ("不适用", "N/A"),
    }
)
WORDS, answer_of = CHOICES.words, CHOICES.meaning

ANY_ANSWER = Choice(CHOICES, required=True)
YES_OR_NO = Choice(
    CHOICES,
    (Answer.YES, Answer.NO),
    required=True,
    not_offered=_("This question applies to every partner."),
)


def _note(longest: int) -> Note:
    return Note(
        longest,
        lambda count, most: _(
            "This has {count} characters; {most} are taken.", count=count, most=most
        ),
        _("Shorten it."),
        private=True,
    )


LONGEST_NOTE = 1_000  # characters
NOTE_ENTRY, NAME_ENTRY = _note(LONGEST_NOTE), _note(200)
ISSUED_LAST = _("Fill in the questionnaire that was issued to this partner last.")

BY = Field(
    ANSWERED_BY, _("Nobody is named who answered."), _("Write who answered for the partner.")
)
ON = Field(
    ANSWERED_ON,
    _("The day is not given."),
    _("Write the day on which it was answered, such as 2026-10-09."),
    early=lambda day, issued: _(
        "{day} is before the questionnaire was issued ({issued}).", day=day, issued=issued
    ),
)

SUB_PROCESSORS_TABLE = Table(
    SUB_HEADER_ROW,
    (
        Column(NUMBER, 34, returns="anyhow"),  # as wide as the question over it
        Column(NAME, 40, NAME_ENTRY),
        Column(COUNTRY, 28, NAME_ENTRY),
        Column(WHAT_FOR, 60, NOTE_ENTRY),
    ),
    tuple(Line((number,)) for number in range(1, MOST_SUB_PROCESSORS + 1)),
)

_QUESTION_FAULTS = RowFaults(
    strange=_("The row is of no question that was issued: added, or its id changed."),
    restore=_("Remove it, or give it back the id with which it was issued."),
    twice=lambda key: _("The question {id} is there twice.", id=key),
    missing=lambda key: _("The row of the question {id} is missing.", id=key),
    changed=lambda key, _head: _("Question or source of {head} were changed.", head=key),
)


@dataclass(frozen=True)
class Issued:
    """A questionnaire as it was issued to one partner.

    A workbook comes back to the same words or is refused: they are texts of the policy pack, with
    their translations.

    Attributes:
        review: number of the review that it belongs to.
        partner: number of the partner.
        name: of the company.
        tier: of the partner.
        pass_mark: share of the answered weight from which it passes, exact.
        issued_at: moment of issue.
        timezone: IANA name in which moments are shown.
        asked: the questions.
        sub_processors: whether they are asked for.
    """

    review: int
    partner: str
    name: str
    tier: int
    pass_mark: str
    issued_at: datetime
    timezone: str
    asked: tuple[Asked, ...]
    sub_processors: bool

    @property
    def mark(self) -> Fraction:
        """The pass mark as a fraction."""
        return parse_rate(self.pass_mark)

    @property
    def sheets(self) -> tuple[str, ...]:
        """The names of its sheets, in their order."""
        more = (SUB_PROCESSORS,) if self.sub_processors else ()
        return (INSTRUCTIONS, QUESTIONS, *more, ISSUE)

    @property
    def sha256(self) -> str:
        """Hex digest of every word and weight of the questionnaire."""
        content = json.dumps(to_json(self), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def binding(self) -> Binding:
        """The hidden sheet, to which a workbook comes back."""
        return Binding(
            ISSUE,
            (
                ("format", FORMAT),
                ("partner", plain(self.partner)),
                ("review", str(self.review)),
                ("issued_sha256", self.sha256),
            ),
            {
                "partner": lambda here, due: _(
                    "The questionnaire is that of partner {here}, not of {due}.", here=here, due=due
                ),
                "review": lambda here, due: _(
                    "The questionnaire is of review {here}, not of {due}.", here=here, due=due
                ),
                "issued_sha256": lambda here, due: _(
                    "The questionnaire is another than the one issued: digest {here} instead of "
                    "{due}.",
                    here=here,
                    due=due,
                ),
            },
            ISSUED_LAST,
        )

    @property
    def table(self) -> Table:
        """The questions."""
        return Table(
            HEADER_ROW,
            (
                Column(NUMBER, 7, returns="anyhow"),
                Column(ID, 22, returns="same"),
                Column(QUESTION, 60, returns="same"),
                Column(SOURCE, 42, returns="same"),
                Column(ANSWER, 16, ANY_ANSWER),
                Column(NOTE, 46, NOTE_ENTRY),
            ),
            tuple(
                Line((number, *_locked(asked)), {ANSWER: answers_to(asked)})
                for number, asked in enumerate(self.asked, 1)
            ),
            key=ID,
            faults=_QUESTION_FAULTS,
        )


def _locked(asked: Asked) -> tuple[str, str, str]:
    return plain(asked.id), plain(both(asked.text)), plain(both(asked.basis))


def answers_to(asked: Asked) -> Choice[Answer]:
    """Return the answers from which one is chosen."""
    return ANY_ANSWER if asked.may_not_apply else YES_OR_NO


_ISSUED = TypeAdapter(Issued)


def to_json(issued: Issued) -> Any:
    """Return an issued questionnaire as plain JSON."""
    return _ISSUED.dump_python(issued, mode="json")


def from_json(content: Any) -> Issued:
    """Return an issued questionnaire from its JSON."""
    return _ISSUED.validate_python(content)


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
    """Return the workbook to be filled in (.xlsx)."""
    from include.workbooks.drawing import draw, draw_cover, draw_table

    cover = Cover(_("Security review of partners: questionnaire"), _facts(issued), (BY, ON), _STEPS)
    sheets: dict[str, Callable[[Worksheet], None]] = {
        INSTRUCTIONS: lambda sheet: draw_cover(sheet, cover, issued.issued_at),
        QUESTIONS: lambda sheet: draw_table(sheet, issued.table, beside(_("Questions"))),
    }
    if issued.sub_processors:
        sheets[SUB_PROCESSORS] = lambda sheet: _sub_processors(sheet, issued)
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
    from include.workbooks.drawing import draw_choice, draw_table

    draw_choice(sheet, ANY_ROW, ANY_SUB_PROCESSORS, YES_OR_NO)
    title = beside(_("Who processes our customers' information for you"))
    footer = f"{sheet.title} · {issued.partner}"
    draw_table(sheet, SUB_PROCESSORS_TABLE, title, footer)


@dataclass(frozen=True)
class Given:
    """An answer to a question.

    Attributes:
        answer: yes, no, or that the question does not apply.
        note: the partner's words, without what could be a customer's number.
    """

    answer: Answer
    note: str


@dataclass(frozen=True)
class SubProcessor:
    """Who processes customer information for a partner.

    Attributes:
        name: of the company.
        country: or region where it is.
        what_for: what it processes.
    """

    name: str
    country: str
    what_for: str


@dataclass(frozen=True)
class Returned:
    """The answers of a partner.

    Attributes:
        answered_on: the day.
        answers: by id of the question; there is one for every question.
        sub_processors: in the order of the sheet.
    """

    answered_on: date
    answers: Mapping[str, Given]
    sub_processors: tuple[SubProcessor, ...]


def issue_of(content: bytes, name: str) -> tuple[str, str]:
    """Return partner and review that a workbook says that it belongs to.

    Raises:
        WorkbookRefused: it is no workbook, or does not say it.
    """
    return returned.issue_of(content, name, ISSUE, ("partner", "review"), ISSUED_LAST)


def read(content: bytes, name: str, issued: Issued) -> Returned:
    """Read a filled-in questionnaire back.

    Args:
        content: the file.
        name: its name, for messages.
        issued: as it was issued.

    Raises:
        WorkbookRefused: with every fault.
    """
    book = ReturnedBook(content, name, issued.sheets, issued.binding, _clean)
    answered_on = None
    if cover := book.sheets.get(INSTRUCTIONS):
        cover.text(BY)  # only that it is signed: the name itself stays in the file
        answered_on = cover.day(ON, issued.issued_at, issued.timezone)
    questions = book.sheets.get(QUESTIONS)
    answers = _answers(questions, issued) if questions else {}
    others = book.sheets.get(SUB_PROCESSORS)
    sub_processors = _returned_sub_processors(others) if others else []
    book.refuse_faults()
    assert answered_on is not None  # else it has a fault
    return Returned(answered_on, answers, tuple(sub_processors))


def _clean(text: str) -> str:
    return value_free_reason(text, LONGEST_NOTE)


def _answers(sheet: ReturnedSheet, issued: Issued) -> dict[str, Given]:
    table = ReturnedTable(sheet, issued.table)
    answers = {}
    for asked in issued.asked:
        if not (row := table.rows.get(plain(asked.id), 0)):
            continue
        answer = table.choice(row, ANSWER, answers_to(asked))
        note = table.note(row, NOTE, NOTE_ENTRY)
        unsaid = not same(note) and not table.is_formula(row, NOTE)
        if answer not in (None, Answer.YES) and unsaid:
            message = _("An answer other than Yes has no note.")
            action = _("Write what is missing and by when it is mended, or why it does not apply.")
            table.fault(row, NOTE, message, action)
        if answer is not None:
            answers[asked.id] = Given(answer, note)
    return answers


def _returned_sub_processors(sheet: ReturnedSheet) -> list[SubProcessor]:
    table = ReturnedTable(sheet, SUB_PROCESSORS_TABLE)
    if not table.columns:
        return []
    if same(sheet.grid.text(ANY_ROW, 1)) != same(ANY_SUB_PROCESSORS):
        message = _("The row {label} is missing.", label=ANY_SUB_PROCESSORS)
        sheet.fault(ANY_ROW, 1, message, AS_ISSUED)
        return []
    claimed = sheet.choice(ANY_ROW, 2, YES_OR_NO)
    sub_processors = [_sub_processor(table, row) for row in table.filled_rows()]
    if claimed is Answer.YES and not sub_processors:
        message = _("There are sub-processors, and none is named.")
        sheet.fault(ANY_ROW, 2, message, _("Name every one of them below."))
    elif claimed is Answer.NO and sub_processors:
        message = _("There are no sub-processors, and some are named.")
        sheet.fault(ANY_ROW, 2, message, _("Answer Yes, or clear the rows below."))
    return sub_processors


def _sub_processor(table: ReturnedTable, row: int) -> SubProcessor:
    entries = {
        NAME: NAME_ENTRY,
        COUNTRY: NAME_ENTRY,
        WHAT_FOR: NOTE_ENTRY,
    }
    texts = []
    for head, entry in entries.items():
        texts.append(table.note(row, head, entry))
        if not same(texts[-1]) and not table.is_formula(row, head):
            action = _("Fill it in, or clear the whole row.")
            table.fault(row, head, _("{head} is missing.", head=head), action)
    return SubProcessor(*texts)
