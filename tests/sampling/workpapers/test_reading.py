"""Tests of returned workpapers: answers are read unchanged, and changed workbooks are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook
from openpyxl.chart import BarChart
from openpyxl.comments import Comment
from openpyxl.styles import PatternFill

from include.approvals.reasons import redact_reason
from include.reports.i18n import Translator
from include.sampling.workpapers import form
from include.sampling.workpapers.form import Answer
from include.sampling.workpapers.reading import read
from include.sampling.workpapers.writing import write
from tests.sampling.workpapers.support import (
    HOSTILE,
    LIBREOFFICE,
    NOTES,
    OTHER_ANSWERS,
    PEOPLE,
    edited,
    faults,
    fill,
    filled,
    paper,
    read_back,
    workpapers,
)

Change = Callable[[Workbook], object]
FIRST = form.HEADER_ROW + 1
PERFORMED, DAY, REVIEWED = "B9", "B10", "B11"


def put(sheet: str, cell: str, value: object) -> Change:
    def change(book: Workbook) -> None:
        book[sheet][cell].value = value
        if isinstance(value, str) and not value.startswith("=="):
            book[sheet][cell].data_type = "s"

    return change


def person(cell: str, value: object) -> Change:
    return put(form.INSTRUCTIONS, cell, value)


def rows_of(book: Workbook, name: str) -> list[list[object]]:
    return [[cell.value for cell in row] for row in book[name].iter_rows(min_row=FIRST)]


def put_rows(book: Workbook, name: str, rows: list[list[object]]) -> None:
    sheet = book[name]
    sheet.delete_rows(FIRST, sheet.max_row)
    for at, row in enumerate(rows, FIRST):
        for column, value in enumerate(row, 1):
            cell = sheet.cell(at, column)
            cell.value = value
            if isinstance(value, str):
                cell.data_type = "s"


ANY = st.text(st.characters(exclude_categories=()), max_size=40)
WRITTEN = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn")), max_size=60)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.lists(ANY, min_size=1, max_size=6))
def test_read_returns_answers_and_notes_for_any_order_of_rows(data: st.DataObject, keys: list[str]):
    """The test tries random keys, answers and notes, and random orders of the rows."""
    issued = workpapers(paper(tuple(keys)))
    items = issued.papers[0].items
    questions = [("accesses", item.number, name) for item in items for name in ("needed", "reason")]
    words = {"": Answer.MISSING} | {word: answer for answer, word in form.WORDS.items()}
    answers = {question: data.draw(st.sampled_from(sorted(words))) for question in questions}
    notes = {("accesses", item.number): data.draw(WRITTEN) for item in items}
    order = data.draw(st.permutations(range(len(items))))

    def work(book: Workbook) -> None:
        fill(book, issued, answers, notes)
        rows = rows_of(book, "accesses")
        put_rows(book, "accesses", [rows[at] for at in order])

    back = read_back(edited(write(issued), work), issued)
    assert set(back.answers) == set(notes)
    for (population, number), item in back.answers.items():
        assert item.note == notes[population, number].strip()
        assert item.answers == {
            name: words[answers[population, number, name]] for name in ("needed", "reason")
        }


NO_PERFORMER = "The name of the person who did the work is missing."


def test_read_returns_names_date_answers_and_remarks():
    issued = workpapers()
    back = read_back(edited(write(issued), lambda book: fill(book, issued, OTHER_ANSWERS, NOTES)))
    assert (back.audit, back.stage) == ("2026Q3", 1)
    assert (back.performed_by, back.performed_on, back.reviewed_by) == tuple(PEOPLE.values())
    assert len(back.answers) == len(HOSTILE) + 3
    assert back.answers["accesses", 1].answers == {"needed": Answer.DEVIATES, "reason": Answer.MET}
    assert back.answers["accesses", 1].note == "=1+1 was\nwhat it said"
    reasons = [
        item.answers["reason"]
        for (population, _number), item in back.answers.items()
        if population == "accesses"
    ]
    assert reasons.count(Answer.NOT_FOUND) == 1
    assert reasons.count(Answer.MET) == len(HOSTILE) - 2
    english = Translator("en")
    assert [
        (remark.sheet, remark.cells, english.text(remark.message)) for remark in back.remarks
    ] == [
        ("accesses", "G8", "Sheet accesses: 1 answers are blank and count as deviations: G8"),
        (
            "accesses",
            "H7",
            "Sheet accesses: 1 items with an answer other than Yes have no note: H7",
        ),
    ]


def test_read_accepts_workbook_saved_by_libreoffice():
    """The script `make_saved_by_libreoffice.py` generated the workbook."""
    issued = workpapers()
    saved_by_libreoffice = read_back(LIBREOFFICE.read_bytes())
    saved_by_openpyxl = read_back(
        edited(write(issued), lambda book: fill(book, issued, OTHER_ANSWERS, NOTES))
    )
    assert saved_by_libreoffice == saved_by_openpyxl


def test_read_of_blank_workbook_reports_only_missing_names_and_date_as_faults():
    """The missing date is a fault too. Blank answers are remarks and not faults."""
    assert sorted(faults(write(workpapers()))) == sorted(
        [
            (form.INSTRUCTIONS, PERFORMED, NO_PERFORMER),
            (form.INSTRUCTIONS, REVIEWED, "The name of the reviewer is missing."),
            (form.INSTRUCTIONS, DAY, "The date is missing."),
        ]
    )
    people = ((PERFORMED, "陈晓"), (REVIEWED, "周宁"), (DAY, date(2026, 10, 5)))

    def signed(book: Workbook) -> None:
        for cell, value in people:
            person(cell, value)(book)

    back = read_back(edited(write(workpapers()), signed))
    assert {a for answer in back.answers.values() for a in answer.answers.values()} == {
        Answer.MISSING
    }
    assert [remark.cells for remark in back.remarks] == ["F6:F25, G6:G25", "F6:F8, G6:G8"]


def test_mobile_number_in_cell_for_name_is_reported_as_fault():
    """Names are stored without redaction, so they must not contain personal numbers."""
    content = filled(workpapers(), person(REVIEWED, "13812345678"))
    assert faults(content) == [
        (form.INSTRUCTIONS, REVIEWED, "The cell contains a mobile number or an ID number.")
    ]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("符合", Answer.MET), (" yes ", Answer.MET), ("ＹＥＳ", Answer.MET),
        ("符合\u3000Yes", Answer.MET), ("不符合\n", Answer.DEVIATES), ("NO", Answer.DEVIATES),
        ("n / a", Answer.NOT_APPLICABLE), ("不适用", Answer.NOT_APPLICABLE),
        ("找不到not  found", Answer.NOT_FOUND),
        ("\u200b", Answer.MISSING), ("\u3000", Answer.MISSING),
        ("Yes No", None), ("maybe", None), ("合", None), ("1", None), ("TRUE", None),
    ],
)  # fmt: skip
def test_answer_text_is_recognised_regardless_of_case_spaces_and_full_width_characters(
    text: str, answer: Answer | None
):
    """Case, spaces and full width are ignored. The word in one of the two languages is enough."""
    assert form.answer_of(text) is answer


def test_sheet_with_rearranged_rows_or_columns_is_accepted():
    """Rows are sorted, columns moved and hidden, and comments, colours and blank rows added."""

    def work(book: Workbook) -> None:
        rows = rows_of(book, "accesses")
        put_rows(book, "accesses", [*rows[:4:-1], [None] * 8, *rows[:5]])
        sheet = book["accesses"]
        sheet["F7"].comment = Comment("asked the station", "陈晓")
        sheet["F7"].fill = PatternFill("solid", fgColor="FFFF0000")
        sheet.column_dimensions["B"].hidden = True
        sheet.column_dimensions["F"].width = 90
        sheet.row_dimensions[9].hidden = True
        for row in range(form.QUESTION_ROW, sheet.max_row + 1):
            left, right = sheet.cell(row, 6), sheet.cell(row, 7)
            left.value, right.value = right.value, left.value
            sheet.cell(row, 3).number_format = "yyyy-mm-dd"

    assert read_back(filled(workpapers(), work)) == read_back(filled(workpapers()))


@pytest.mark.parametrize(
    "written",
    ["2026-10-09", "2026/10/9", "2026年10月9日", "2026.10.09", 46304, datetime(2026, 10, 9, 17, 0)],  # noqa: DTZ001
)
def test_date_of_work_may_be_a_date_cell_or_a_number_or_a_text(written: object):
    assert read_back(filled(workpapers(), person(DAY, written))).performed_on == date(2026, 10, 9)


@pytest.mark.parametrize(
    ("change", "cell", "message"),
    [
        (person(PERFORMED, None), PERFORMED, NO_PERFORMER),
        (person(PERFORMED, " \u3000"), PERFORMED, NO_PERFORMER),
        (person(REVIEWED, "陈 晓 "), REVIEWED, "The reviewer is the person who did the work."),
        (person(REVIEWED, "x" * 101), REVIEWED, "The name is longer than 100 characters."),
        (person(DAY, "yesterday"), DAY, "The cell contains no date."),
        (person(DAY, "2026-13-40"), DAY, "The cell contains no date."),
        (person(DAY, date(2026, 10, 4)), DAY,
         "The date 2026-10-04 is earlier than the issue date of the workpapers, 2026-10-05."),
        (person("A9", "who"), "", "The row 执行人 Performed by is missing."),
    ],
)  # fmt: skip
def test_missing_or_invalid_name_or_date_is_reported_as_fault_with_its_cell(
    change: Change, cell: str, message: str
):
    """The reviewer must not be the person who tested the items."""
    assert faults(filled(workpapers(), change)) == [(form.INSTRUCTIONS, cell, message)]


def twice(book: Workbook) -> None:
    rows = rows_of(book, "accesses")
    put_rows(book, "accesses", [*rows, rows[0]])


def with_another_row(book: Workbook) -> None:
    put_rows(book, "accesses", [*rows_of(book, "accesses"), [99, 1, 1, "k", "s", "Yes", "Yes", ""]])


ADDED = "The column is not part of the issued workbook: it was added or renamed."
NOT_OURS = "The row belongs to no item of this draw: it was added, or its number was changed."
CHANGES: list[tuple[Change, list[tuple[str, str]]]] = [
    (lambda book: book["accesses"].delete_rows(7), [("", "The row of item number 2 is missing.")]),
    (twice, [("A26", "Item number 1 occurs twice.")]),
    (with_another_row, [("A26", NOT_OURS)]),
    (put("accesses", "A6", 77), [("A6", NOT_OURS), ("", "The row of item number 1 is missing.")]),
    (put("accesses", "B6", 9), [("B6", "The cell “阶段 Stage” of item number 1 was changed.")]),
    (put("accesses", "C6", "x"),
     [("C6", "The cell “抽样框序位 Place in frame” of item number 1 was changed.")]),
    (put("accesses", "D6", "2"), [("D6", "The cell “样本项 Item” of item number 1 was changed.")]),
    (put("accesses", "D16", "\\u0041"),
     [("D16", "The cell “样本项 Item” of item number 11 was changed.")]),
    (put("accesses", "E7", "day"), [("E7", "The cell “层 Stratum” of item number 2 was changed.")]),
    (lambda book: book["accesses"].delete_cols(7),
     [("", "The column reason is missing in row 5.")]),
    (put("accesses", "G5", "cause"),
     [("G5", ADDED),
      ("", "The column reason is missing in row 5.")]),
    (put("accesses", "I5", "mine"), [("I5", ADDED)]),
    (put("accesses", "I5", "needed"), [("I5", "The column needed occurs twice.")]),
    (put("accesses", "I9", "why?"), [("I9", "The cell is outside of the table and is not empty.")]),
    (put("accesses", "G4", "Is it nice?"),
     [("G4", "The question or the source of the column reason was changed.")]),
    (put("accesses", "F6", "perhaps"), [("F6", "“perhaps” is not one of the answers.")]),
    (put("accesses", "F6", True), [("F6", "“True” is not one of the answers.")]),
    (put("accesses", "H6", "n" * 2001),
     [("H6", "The note has 2,001 characters; the limit is 2,000.")]),
    (put("accesses", "H6", "==1"), [("H6", "The cell contains a formula.")]),
    (put("accesses", "D7", "==1"), [("D7", "The cell contains a formula.")]),
    (put("accesses", "A6", "==1"),
     [("A6", "The cell contains a formula."), ("", "The row of item number 1 is missing.")]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_workbook_with_changed_cells_is_refused_with_addresses_of_the_cells(
    change: Change, expected: list[tuple[str, str]]
):
    """Rows, columns and locked cells must be those of the issued workbook."""
    assert faults(filled(workpapers(), change)) == [("accesses", *fault) for fault in expected]


def test_faults_of_all_sheets_are_reported_together():
    """An auditor can therefore correct all faults at once."""

    def work(book: Workbook) -> None:
        for change in (
            put("accesses", "F6", "perhaps"),
            put("accesses", "D9", "other"),
            put("del_etions_", "H6", "==A1"),
            put("del_etions_", "G7", "?"),
            person(REVIEWED, "陈晓"),
        ):
            change(book)
        book.create_sheet("mine")

    all_faults = faults(filled(workpapers(), work))
    assert {(sheet, cell) for sheet, cell, _ in all_faults} == {
        ("accesses", "F6"), ("accesses", "D9"), ("del_etions_", "H6"), ("del_etions_", "G7"),
        (form.INSTRUCTIONS, REVIEWED), ("mine", ""),
    }  # fmt: skip
    assert len(all_faults) == 6


def renamed(book: Workbook) -> None:
    book["accesses"].title = "Accesses 2"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda book: book.remove(book["accesses"]), [("accesses", "missing")]),
        (lambda book: book.remove(book[form.DRAW]), [(form.DRAW, "missing")]),
        (lambda book: book.remove(book[form.INSTRUCTIONS]), [(form.INSTRUCTIONS, "missing")]),
        (lambda book: book.create_sheet("more"), [("more", "not part of the issued")]),
        (
            lambda book: book.create_chartsheet("chart").add_chart(BarChart()),
            [("chart", "not part of the issued")],
        ),
        (renamed, [("accesses", "missing"), ("Accesses 2", "not part of the issued")]),
    ],
)
def test_workbook_with_removed_added_or_renamed_sheets_is_refused(
    change: Change, expected: list[tuple[str, str]]
):
    all_faults = faults(filled(workpapers(), change))
    assert [
        (sheet, words in message)
        for (sheet, _, message), (_, words) in zip(all_faults, expected, strict=True)
    ] == [(sheet, True) for sheet, _ in expected]


NAMES = {"2026Q3": "third quarter of 2026", "2026Q4": "fourth quarter of 2026"}


def test_swapped_files_of_two_audits_are_refused():
    """The faults name audit and draw, but no other differences that follow from the swap."""
    third = workpapers(paper(("a", "b")))
    fourth = workpapers(paper(("c", "d")), audit="2026Q4", digest="ef" * 32)
    for returned, issued in ((third, fourth), (fourth, third)):
        all_faults = faults(filled(returned), issued)
        assert [(sheet, cell) for sheet, cell, _ in all_faults] == [
            (form.DRAW, "B2"),
            (form.DRAW, "B4"),
        ]
        assert all_faults[0][2] == (
            f"The workbook belongs to the audit of the {NAMES[returned.audit]}, not of the "
            f"{NAMES[issued.audit]}."
        )
        assert returned.draw_sha256 in all_faults[1][2]


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (replace(workpapers(), stage=2), "The workbook belongs to stage 2, not to stage 1."),
        (workpapers(digest="00" * 32), "The workbook belongs to another draw: its digest is 0000"),
    ],
)
def test_workbook_of_another_stage_or_draw_is_refused(returned, words: str):
    """The workbook is refused even if its items are the same."""
    [(sheet, _, message)] = faults(filled(returned))
    assert sheet == form.DRAW
    assert message.startswith(words)


def test_workbook_of_another_format_version_is_refused():
    """A changed form has another format version, so an old file is not misread."""
    [(_, cell, message)] = faults(
        filled(workpapers(), put(form.DRAW, "B1", "parcelseal.workpapers/9"))
    )
    assert (cell, "/9; the format parcelseal.workpapers/2 is required" in message) == ("B1", True)


def test_mobile_numbers_are_redacted_in_notes_and_error_messages():
    """Notes are redacted, and so are messages about invalid answers."""
    issued = workpapers()

    def clean(words: str) -> str:
        return redact_reason(words, form.LONGEST_NOTE)

    note = "called 138 0013 8000 about it; " + "because " * 200
    content = filled(issued, put("accesses", "H6", note))
    back = read(content, "x.xlsx", issued, clean=clean)
    assert back.answers["accesses", 1].note == clean(note)
    assert len(back.answers["accesses", 1].note) > 1_000
    assert not re.search("0013|8000", back.answers["accesses", 1].note)
    bad = filled(issued, put("accesses", "F6", "13800138000"))
    with pytest.raises(Exception, match="“…” is not one of the answers") as refused:
        read(bad, "x.xlsx", issued, clean=clean)
    assert "8000" not in str(refused.value)
