"""Write the questionnaire for partners as an Excel workbook, and read the returned workbook.

The fixed words of the workbook, such as its column titles, are part of the file format. They are
not in the message catalogue, because a changed translation would make issued workbooks unreadable.
If one of these words is changed, `FORMAT` has to be changed, too.
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

from include.approvals.reasons import redact_reason
from include.messages import Message, _
from include.partners.rules import Answer, IssuedQuestion
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
    escape_text,
    in_one_line,
    in_two_lines,
    normalize_text,
)
from include.workbooks.returned import AS_ISSUED, ReturnedBook, ReturnedSheet, ReturnedTable

if TYPE_CHECKING:
    from openpyxl.worksheet.worksheet import Worksheet

FORMAT = "parcelseal.questionnaire/1"
INSTRUCTIONS = "填写说明 Instructions"
QUESTIONS = "问卷 Questionnaire"
SUB_PROCESSORS = "分包方 Sub-processors"
ISSUE = "签发 Issue"
"""The hidden sheet (Excel's state very hidden) that identifies the questionnaire of a workbook."""

NUMBER, ID, QUESTION, SOURCE = "序号 No.", "编号 Id", "问题 Question", "依据 Source"
ANSWER, NOTE = "答案 Answer", "备注 Note"
HEADER_ROW = 4

ANSWERED_BY, ANSWERED_ON = "填写人 Answered by", "填写日期 Answered on"

ANY_SUB_PROCESSORS = "是否有分包方 Are there sub-processors?"
ANY_ROW, SUB_HEADER_ROW = 3, 5
NAME, COUNTRY, WHAT_FOR = "名称 Name", "国家或地区 Country or region", "处理内容 What they process"
MAX_SUB_PROCESSORS = 40

CHOICES = Choices(
    {
        Answer.YES: ("是", "Yes"),
        Answer.NO: ("否", "No"),
        Answer.NOT_APPLICABLE: ("不适用", "N/A"),
    }
)
ANSWER_TEXTS, answer_of = CHOICES.words, CHOICES.meaning

ANY_ANSWER = Choice(CHOICES, required=True)
YES_OR_NO = Choice(
    CHOICES,
    (Answer.YES, Answer.NO),
    required=True,
    not_offered=_("This question applies to every partner."),
)


def _note(max_length: int) -> Note:
    return Note(
        max_length,
        lambda count, most: _(
            "The text has {count} characters. At most {limit} are allowed.",
            count=count,
            limit=most,
        ),
        _("Shorten the text."),
        private=True,
    )


MAX_NOTE_LENGTH = 1_000  # characters
NOTE_ENTRY, NAME_ENTRY = _note(MAX_NOTE_LENGTH), _note(200)
ISSUED_LAST = _("Fill in the questionnaire that was last issued to this partner.")

BY = Field(
    ANSWERED_BY,
    _("The name of the person who answered is missing."),
    _("Enter the name of the person who answered for the partner."),
)
ON = Field(
    ANSWERED_ON,
    _("The date is missing."),
    _("Enter the date of the answers, such as 2026-10-09."),
    early_message=lambda day, issued: _(
        "The date {day} is earlier than the day on which the questionnaire was issued ({issued}).",
        day=day,
        issued=issued,
    ),
)

SUB_PROCESSORS_TABLE = Table(
    SUB_HEADER_ROW,
    (
        # as wide as the text of the question above the column
        Column(NUMBER, 34, returned="ignored"),
        Column(NAME, 40, NAME_ENTRY),
        Column(COUNTRY, 28, NAME_ENTRY),
        Column(WHAT_FOR, 60, NOTE_ENTRY),
    ),
    tuple(Line((number,)) for number in range(1, MAX_SUB_PROCESSORS + 1)),
)

_QUESTION_FAULTS = RowFaults(
    unknown=_(
        "This row is not part of the issued questionnaire: it was added, or its id was changed."
    ),
    restore=_("Remove the row, or restore its original id."),
    duplicate=lambda key: _("The question {id} appears twice.", id=key),
    missing=lambda key: _("The row of the question {id} is missing.", id=key),
    changed=lambda key, _head: _("The question {id} or its source was changed.", id=key),
)


@dataclass(frozen=True)
class IssuedQuestionnaire:
    """A questionnaire as it was issued to a partner.

    If the texts of a returned workbook differ from the issued texts, the workbook is refused.

    Attributes:
        review: number of the review.
        partner: number of the partner.
        name: name of the partner's company.
        tier: tier of the partner.
        pass_mark: lowest score with which the review passes, as exact text such as ``0.85`` or
            ``2/3``.
        issued_at: time of issue.
        timezone: IANA name of the timezone in which times are shown.
        asked: questions, in the order of the questionnaire.
        sub_processors: whether the workbook has a sheet for sub-processors.
    """

    review: int
    partner: str
    name: str
    tier: int
    pass_mark: str
    issued_at: datetime
    timezone: str
    asked: tuple[IssuedQuestion, ...]
    sub_processors: bool

    @property
    def pass_share(self) -> Fraction:
        """Return the lowest score with which the review passes, as a fraction from 0 to 1."""
        return parse_rate(self.pass_mark)

    @property
    def sheets(self) -> tuple[str, ...]:
        """Return the names of the workbook's sheets, first sheet first."""
        more = (SUB_PROCESSORS,) if self.sub_processors else ()
        return (INSTRUCTIONS, QUESTIONS, *more, ISSUE)

    @property
    def sha256(self) -> str:
        """Return the SHA-256 (hex) of the questionnaire with all its texts and weights."""
        content = json.dumps(to_json(self), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def binding(self) -> Binding:
        """Return the content of the hidden sheet, which identifies the questionnaire.

        A returned workbook is refused if its hidden sheet has other content.
        """
        return Binding(
            ISSUE,
            (
                ("format", FORMAT),
                ("partner", escape_text(self.partner)),
                ("review", str(self.review)),
                ("issued_sha256", self.sha256),
            ),
            {
                "partner": lambda actual, expected: _(
                    "The questionnaire belongs to partner {actual}, not to partner {expected}.",
                    actual=actual,
                    expected=expected,
                ),
                "review": lambda actual, expected: _(
                    "The questionnaire belongs to review {actual}, not to review {expected}.",
                    actual=actual,
                    expected=expected,
                ),
                "issued_sha256": lambda actual, expected: _(
                    "The questionnaire differs from the issued questionnaire: its digest is "
                    "{actual}, not {expected}.",
                    actual=actual,
                    expected=expected,
                ),
            },
            ISSUED_LAST,
        )

    @property
    def table(self) -> Table:
        """Return the layout of the sheet with the questions: its columns and rows."""
        return Table(
            HEADER_ROW,
            (
                Column(NUMBER, 7, returned="ignored"),
                Column(ID, 22, returned="normalized"),
                Column(QUESTION, 60, returned="normalized"),
                Column(SOURCE, 42, returned="normalized"),
                Column(ANSWER, 16, ANY_ANSWER),
                Column(NOTE, 46, NOTE_ENTRY),
            ),
            tuple(
                Line((number, *_locked(question)), {ANSWER: answer_choice(question)})
                for number, question in enumerate(self.asked, 1)
            ),
            key=ID,
            faults=_QUESTION_FAULTS,
        )


def _locked(question: IssuedQuestion) -> tuple[str, str, str]:
    return (
        escape_text(question.id),
        escape_text(in_two_lines(question.text)),
        escape_text(in_two_lines(question.basis)),
    )


def answer_choice(question: IssuedQuestion) -> Choice[Answer]:
    """Return the answers that a partner can choose for a question."""
    return ANY_ANSWER if question.may_not_apply else YES_OR_NO


_ISSUED_ADAPTER = TypeAdapter(IssuedQuestionnaire)


def to_json(issued: IssuedQuestionnaire) -> Any:
    """Convert an issued questionnaire to values that can be written as JSON."""
    return _ISSUED_ADAPTER.dump_python(issued, mode="json")


def from_json(content: Any) -> IssuedQuestionnaire:
    """Convert the result of `to_json` back to an issued questionnaire."""
    return _ISSUED_ADAPTER.validate_python(content)


_STEPS = (
    _("Answer every question on the next sheet: choose Yes, No or N/A from the list in the cell."),
    _(
        "Yes means that the statement is true today and that you can prove it. N/A is allowed "
        "only where the list in the cell offers it."
    ),
    _(
        "Every answer other than Yes needs a note: what is missing and by when you will correct "
        "it, or why the question does not apply."
    ),
    _(
        "On the sheet of sub-processors, state whether other companies process our customers' "
        "information for you, and list all of them."
    ),
    _("Do not enter customer information: no names, addresses, telephone numbers or ID numbers."),
    _(
        "Fill in only the yellow cells. Do not add, remove or rename sheets, rows or columns, "
        "and do not insert formulas, links or macros. A file with such changes is refused."
    ),
    _(
        "Save the file as .xlsx without a password, with Excel, WPS or LibreOffice, and return "
        "it to the sender. Any file name is allowed."
    ),
)


def write_workbook(issued: IssuedQuestionnaire) -> bytes:
    """Return the workbook (.xlsx) that a partner fills in."""
    from include.workbooks.drawing import draw, draw_cover, draw_table

    cover = Cover(_("Security review of partners: questionnaire"), _facts(issued), (BY, ON), _STEPS)
    sheets: dict[str, Callable[[Worksheet], None]] = {
        INSTRUCTIONS: lambda sheet: draw_cover(sheet, cover, issued.issued_at),
        QUESTIONS: lambda sheet: draw_table(sheet, issued.table, in_one_line(_("Questions"))),
    }
    if issued.sub_processors:
        sheets[SUB_PROCESSORS] = lambda sheet: _sub_processors(sheet, issued)
    title = f"{escape_text(issued.partner)} · {issued.review}"
    return draw(title, issued.issued_at, sheets, issued.binding)


def _facts(issued: IssuedQuestionnaire) -> list[tuple[Message, str]]:
    name = f"{issued.name} ({issued.partner})" if issued.name else issued.partner
    moment = Translator("en", issued.timezone).datetime(issued.issued_at)
    return [
        (_("Partner"), escape_text(name)),
        (_("Review no."), str(issued.review)),
        (_("Issued"), moment),
        (_("Digest of the questionnaire (SHA-256)"), issued.sha256),
    ]


def _sub_processors(sheet: Worksheet, issued: IssuedQuestionnaire) -> None:
    from include.workbooks.drawing import draw_choice, draw_table

    draw_choice(sheet, ANY_ROW, ANY_SUB_PROCESSORS, YES_OR_NO)
    title = in_one_line(_("Companies that process our customers' information for you"))
    footer = f"{sheet.title} · {issued.partner}"
    draw_table(sheet, SUB_PROCESSORS_TABLE, title, footer)


@dataclass(frozen=True)
class SubmittedAnswer:
    """A partner's answer to a question of the questionnaire.

    Attributes:
        answer: chosen answer.
        note: text that the partner added, in which phone, ID and similar numbers are redacted.
    """

    answer: Answer
    note: str


@dataclass(frozen=True)
class SubProcessor:
    """A company that processes customer information for a partner.

    Attributes:
        name: name of the sub-processor.
        country: country or region of the sub-processor.
        purpose: description of what the sub-processor processes for the partner.
    """

    name: str
    country: str
    purpose: str


@dataclass(frozen=True)
class ReturnedAnswers:
    """The content of a returned questionnaire.

    Attributes:
        answered_on: day on which the partner answered.
        answers: answer to every question, by id of the question.
        sub_processors: sub-processors in the order of the sheet.
    """

    answered_on: date
    answers: Mapping[str, SubmittedAnswer]
    sub_processors: tuple[SubProcessor, ...]


def read_binding(content: bytes, name: str) -> tuple[str, str]:
    """Return the partner number and the review number from the hidden sheet of a workbook.

    Args:
        content: bytes of the returned file.
        name: file name, for error messages.

    Raises:
        WorkbookRefused: the file is not a workbook, or its hidden sheet is missing.
    """
    return returned.read_binding(content, name, ISSUE, ("partner", "review"), ISSUED_LAST)


def read_answers(content: bytes, name: str, issued: IssuedQuestionnaire) -> ReturnedAnswers:
    """Read the answers from a returned questionnaire.

    Args:
        content: bytes of the file.
        name: file name, for error messages.
        issued: the questionnaire as it was issued.

    Raises:
        WorkbookRefused: the workbook has faults. The error lists all of them.
    """
    book = ReturnedBook(content, name, issued.sheets, issued.binding, _clean)
    answered_on = None
    if cover := book.sheets.get(INSTRUCTIONS):
        cover.text(BY)  # must be filled in; the name is not stored
        answered_on = cover.day(ON, issued.issued_at, issued.timezone)
    questions = book.sheets.get(QUESTIONS)
    answers = _answers(questions, issued) if questions else {}
    sub_processor_sheet = book.sheets.get(SUB_PROCESSORS)
    sub_processors = _returned_sub_processors(sub_processor_sheet) if sub_processor_sheet else []
    book.refuse_faults()
    assert answered_on is not None  # a missing day is a fault
    return ReturnedAnswers(answered_on, answers, tuple(sub_processors))


def _clean(text: str) -> str:
    return redact_reason(text, MAX_NOTE_LENGTH)


def _answers(sheet: ReturnedSheet, issued: IssuedQuestionnaire) -> dict[str, SubmittedAnswer]:
    table = ReturnedTable(sheet, issued.table)
    answers = {}
    for question in issued.asked:
        if not (row := table.rows.get(escape_text(question.id), 0)):
            continue
        answer = table.choice(row, ANSWER, answer_choice(question))
        note = table.note(row, NOTE, NOTE_ENTRY)
        is_note_missing = not normalize_text(note) and not table.is_formula(row, NOTE)
        if answer not in (None, Answer.YES) and is_note_missing:
            message = _("The answer is not Yes, but the note is missing.")
            action = _(
                "Enter in the note what is missing and by when it will be corrected, or why "
                "the question does not apply."
            )
            table.fault(row, NOTE, message, action)
        if answer is not None:
            answers[question.id] = SubmittedAnswer(answer, note)
    return answers


def _returned_sub_processors(sheet: ReturnedSheet) -> list[SubProcessor]:
    table = ReturnedTable(sheet, SUB_PROCESSORS_TABLE)
    if not table.columns:
        return []
    if normalize_text(sheet.grid.text(ANY_ROW, 1)) != normalize_text(ANY_SUB_PROCESSORS):
        message = _("The row {label} is missing.", label=ANY_SUB_PROCESSORS)
        sheet.fault(ANY_ROW, 1, message, AS_ISSUED)
        return []
    has_sub_processors = sheet.choice(ANY_ROW, 2, YES_OR_NO)
    sub_processors = [_sub_processor(table, row) for row in table.filled_rows()]
    if has_sub_processors is Answer.YES and not sub_processors:
        message = _("The answer is Yes, but no sub-processor is listed.")
        sheet.fault(
            ANY_ROW, 2, message, _("List all sub-processors in the rows below the question.")
        )
    elif has_sub_processors is Answer.NO and sub_processors:
        message = _("The answer is No, but sub-processors are listed.")
        sheet.fault(
            ANY_ROW,
            2,
            message,
            _(
                "Answer Yes to the question about sub-processors, "
                "or clear the rows that list sub-processors."
            ),
        )
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
        if not normalize_text(texts[-1]) and not table.is_formula(row, head):
            action = _("Fill in the cell, or clear the whole row.")
            table.fault(row, head, _("The cell “{head}” is empty.", head=head), action)
    return SubProcessor(*texts)
