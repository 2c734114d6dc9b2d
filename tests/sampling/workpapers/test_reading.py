"""Workpapers that come back: answers as they were given, and every fault of a changed workbook."""

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

from include.approvals.reasons import value_free_reason
from include.reports.i18n import Translator
from include.sampling.workpapers import form
from include.sampling.workpapers.form import Answer
from include.sampling.workpapers.reading import read
from include.sampling.workpapers.writing import write
from tests.sampling.workpapers.support import (
    HOSTILE,
    LIBREOFFICE,
    NOTES,
    PEOPLE,
    SAID,
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
def test_what_is_filled_in_comes_back(data: st.DataObject, keys: list[str]):
    """Whatever the keys, the answers and the notes are, and in whatever order the rows stand."""
    issued = workpapers(paper(tuple(keys)))
    items = issued.papers[0].items
    places = [("accesses", one.number, name) for one in items for name in ("needed", "reason")]
    words = {"": Answer.MISSING} | {word: answer for answer, word in form.WORDS.items()}
    said = {one: data.draw(st.sampled_from(sorted(words))) for one in places}
    notes = {("accesses", one.number): data.draw(WRITTEN) for one in items}
    order = data.draw(st.permutations(range(len(items))))

    def work(book: Workbook) -> None:
        fill(book, issued, said, notes)
        rows = rows_of(book, "accesses")
        put_rows(book, "accesses", [rows[one] for one in order])

    back = read_back(edited(write(issued), work), issued)
    assert set(back.answers) == set(notes)
    for (population, number), one in back.answers.items():
        assert one.note == notes[population, number].strip()
        assert one.answers == {
            name: words[said[population, number, name]] for name in ("needed", "reason")
        }


def test_who_when_and_every_answer_come_back():
    """One answer for every attribute of every item, and what there is to remark."""
    issued = workpapers()
    back = read_back(edited(write(issued), lambda book: fill(book, issued, SAID, NOTES)))
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
    assert [(one.sheet, one.cells, english.text(one.message)) for one in back.remarks] == [
        ("accesses", "G8", "Sheet accesses: 1 answers are blank and count as deviations: G8"),
        (
            "accesses",
            "H7",
            "Sheet accesses: 1 items with another answer than Yes have no note: H7",
        ),
    ]


def test_a_workbook_that_libreoffice_saved_is_read_the_same():
    """Every key as it was, `=1+1` a text: `make_saved_by_libreoffice.py` made the file."""
    issued = workpapers()
    theirs = read_back(LIBREOFFICE.read_bytes())
    ours = read_back(edited(write(issued), lambda book: fill(book, issued, SAID, NOTES)))
    assert theirs == ours


def test_a_workbook_that_nobody_filled_in_is_refused_for_its_people_alone():
    """Blank answers are told, not refused."""
    assert sorted(faults(write(workpapers()))) == sorted(
        [
            (form.INSTRUCTIONS, PERFORMED, "Nobody is named who did the work."),
            (form.INSTRUCTIONS, REVIEWED, "Nobody is named who reviewed the work."),
            (form.INSTRUCTIONS, DAY, "The day is not given."),
        ]
    )
    people = ((PERFORMED, "陈晓"), (REVIEWED, "周宁"), (DAY, date(2026, 10, 5)))

    def signed(book: Workbook) -> None:
        for cell, said in people:
            person(cell, said)(book)

    back = read_back(edited(write(workpapers()), signed))
    assert {a for one in back.answers.values() for a in one.answers.values()} == {Answer.MISSING}
    assert [one.cells for one in back.remarks] == ["F6:F25, G6:G25", "F6:F8, G6:G8"]


def test_a_number_of_a_person_is_no_name_of_one():
    """Names are kept as they are written; such a number is nobody's name."""
    content = filled(workpapers(), person(REVIEWED, "13812345678"))
    assert faults(content) == [(form.INSTRUCTIONS, REVIEWED, "This holds a mobile or ID number.")]


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("符合", Answer.MET), (" yes ", Answer.MET), ("ＹＥＳ", Answer.MET),
        ("符合\u3000Yes", Answer.MET), ("不符合\n", Answer.DEVIATES), ("NO", Answer.DEVIATES),
        ("n / a", Answer.NOT_APPLICABLE), ("不适用", Answer.NOT_APPLICABLE),
        ("找不到not  found", Answer.NOT_FOUND),
        ("\u200b", Answer.MISSING), ("\u3000", Answer.MISSING),
        ("Yes No", None), ("maybe", None), ("合", None), ("1", None), ("TRUE", None),
    ],
)  # fmt: skip
def test_an_answer_may_be_typed(said: str, answer: Answer | None):
    """Case, blanks, full width do not count; one half is enough; anything else is no answer."""
    assert form.answer_of(said) is answer


def test_the_auditors_own_arrangement_is_no_fault():
    """Sorted rows, moved and hidden columns, widths, colours, comments, blank rows between."""

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
            one, other = sheet.cell(row, 6), sheet.cell(row, 7)
            one.value, other.value = other.value, one.value
            sheet.cell(row, 3).number_format = "yyyy-mm-dd"

    assert read_back(filled(workpapers(), work)) == read_back(filled(workpapers()))


@pytest.mark.parametrize(
    "written",
    ["2026-10-09", "2026/10/9", "2026年10月9日", "2026.10.09", 46304, datetime(2026, 10, 9, 17, 0)],  # noqa: DTZ001
)
def test_a_day_may_be_written_in_several_ways(written: object):
    """As a date, its number, or the usual texts."""
    assert read_back(filled(workpapers(), person(DAY, written))).performed_on == date(2026, 10, 9)


@pytest.mark.parametrize(
    ("change", "cell", "said"),
    [
        (person(PERFORMED, None), PERFORMED, "Nobody is named who did the work."),
        (person(PERFORMED, " \u3000"), PERFORMED, "Nobody is named who did the work."),
        (person(REVIEWED, "陈 晓 "), REVIEWED, "The reviewer is the person who did the work."),
        (person(REVIEWED, "x" * 101), REVIEWED, "A name has 100 characters at most."),
        (person(DAY, "yesterday"), DAY, "This is no day."),
        (person(DAY, "2026-13-40"), DAY, "This is no day."),
        (person(DAY, date(2026, 10, 4)), DAY,
         "2026-10-04 is before the workpapers were issued (2026-10-05)."),
        (person("A9", "who"), "", "The row 执行人 Performed by is missing."),
    ],
)  # fmt: skip
def test_two_different_people_and_a_day_are_needed(change: Change, cell: str, said: str):
    """Who did the work, when, and that nobody reviewed the own work."""
    assert faults(filled(workpapers(), change)) == [(form.INSTRUCTIONS, cell, said)]


def twice(book: Workbook) -> None:
    rows = rows_of(book, "accesses")
    put_rows(book, "accesses", [*rows, rows[0]])


def with_another_row(book: Workbook) -> None:
    put_rows(book, "accesses", [*rows_of(book, "accesses"), [99, 1, 1, "k", "s", "Yes", "Yes", ""]])


NOT_OURS = "The row is of no item of this draw: added, or its number was changed."
CHANGES: list[tuple[Change, list[tuple[str, str]]]] = [
    (lambda book: book["accesses"].delete_rows(7), [("", "The row of item number 2 is missing.")]),
    (twice, [("A26", "Item number 1 is there twice.")]),
    (with_another_row, [("A26", NOT_OURS)]),
    (put("accesses", "A6", 77), [("A6", NOT_OURS), ("", "The row of item number 1 is missing.")]),
    (put("accesses", "B6", 9), [("B6", "阶段 Stage of item number 1 was changed.")]),
    (put("accesses", "C6", "x"),
     [("C6", "抽样框序位 Place in frame of item number 1 was changed.")]),
    (put("accesses", "D6", "2"), [("D6", "样本项 Item of item number 1 was changed.")]),
    (put("accesses", "D16", "\\u0041"), [("D16", "样本项 Item of item number 11 was changed.")]),
    (put("accesses", "E7", "day"), [("E7", "层 Stratum of item number 2 was changed.")]),
    (lambda book: book["accesses"].delete_cols(7),
     [("", "The column reason is missing in row 5.")]),
    (put("accesses", "G5", "cause"),
     [("G5", "This column was not issued: added or renamed."),
      ("", "The column reason is missing in row 5.")]),
    (put("accesses", "I5", "mine"), [("I5", "This column was not issued: added or renamed.")]),
    (put("accesses", "I5", "needed"), [("I5", "The column needed is there twice.")]),
    (put("accesses", "I9", "why?"), [("I9", "There is something beside the table.")]),
    (put("accesses", "G4", "Is it nice?"),
     [("G4", "Question or source of reason were changed.")]),
    (put("accesses", "F6", "perhaps"), [("F6", "“perhaps” is none of the answers.")]),
    (put("accesses", "F6", True), [("F6", "“True” is none of the answers.")]),
    (put("accesses", "H6", "n" * 2001),
     [("H6", "The note has 2,001 characters; 2,000 are taken.")]),
    (put("accesses", "H6", "==1"), [("H6", "There is a formula.")]),
    (put("accesses", "D7", "==1"), [("D7", "There is a formula.")]),
    (put("accesses", "A6", "==1"),
     [("A6", "There is a formula."), ("", "The row of item number 1 is missing.")]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_a_changed_sheet_is_refused(change: Change, expected: list[tuple[str, str]]):
    """Rows, columns and cells have to be those of the draw; the fault names the cell."""
    found = faults(filled(workpapers(), change))
    assert found == [("accesses", *one) for one in expected]


def test_every_fault_is_told_at_once():
    """What is refused is mended in one go."""

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

    found = faults(filled(workpapers(), work))
    assert {(sheet, cell) for sheet, cell, _ in found} == {
        ("accesses", "F6"), ("accesses", "D9"), ("del_etions_", "H6"), ("del_etions_", "G7"),
        (form.INSTRUCTIONS, REVIEWED), ("mine", ""),
    }  # fmt: skip
    assert len(found) == 6


def renamed(book: Workbook) -> None:
    book["accesses"].title = "Accesses 2"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda book: book.remove(book["accesses"]), [("accesses", "missing")]),
        (lambda book: book.remove(book[form.DRAW]), [(form.DRAW, "missing")]),
        (lambda book: book.remove(book[form.INSTRUCTIONS]), [(form.INSTRUCTIONS, "missing")]),
        (lambda book: book.create_sheet("more"), [("more", "not issued")]),
        (
            lambda book: book.create_chartsheet("chart").add_chart(BarChart()),
            [("chart", "not issued")],
        ),
        (renamed, [("accesses", "missing"), ("Accesses 2", "not issued")]),
    ],
)
def test_other_sheets_than_were_issued_are_refused(change: Change, expected: list[tuple[str, str]]):
    """Removed, added, renamed."""
    found = faults(filled(workpapers(), change))
    assert [
        (sheet, said in message)
        for (sheet, _, message), (_, said) in zip(found, expected, strict=True)
    ] == [(sheet, True) for sheet, _ in expected]


def test_two_audits_whose_files_were_swapped_are_both_refused():
    """Each is told which audit and draw the file is of, and nothing that only comes from it."""
    third = workpapers(paper(("a", "b")))
    fourth = workpapers(paper(("c", "d")), audit="2026Q4", digest="ef" * 32)
    for given_, wanted in ((third, fourth), (fourth, third)):
        found = faults(filled(given_), wanted)
        assert [(sheet, cell) for sheet, cell, _ in found] == [(form.DRAW, "B2"), (form.DRAW, "B4")]
        assert found[0][2] == f"The workbook is of the audit {given_.audit}, not of {wanted.audit}."
        assert given_.draw_sha256 in found[1][2]


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        (replace(workpapers(), stage=2), "The workbook is of stage 2, not of 1."),
        (workpapers(digest="00" * 32), "The workbook is of another draw: digest 0000"),
    ],
)
def test_another_stage_or_draw_is_refused(given_, said: str):
    """The same items would not make it the same draw."""
    [(sheet, _, message)] = faults(filled(given_))
    assert sheet == form.DRAW
    assert message.startswith(said)


def test_a_form_of_another_version_is_refused():
    """Who changes the form changes its version, and an old file is not misread."""
    [(_, cell, message)] = faults(
        filled(workpapers(), put(form.DRAW, "B1", "parcelseal.workpapers/9"))
    )
    assert (cell, "/9; parcelseal.workpapers/2 is read" in message) == ("B1", True)


def test_customers_numbers_do_not_come_through():
    """Neither in a note nor in what is told of an answer that is none."""
    issued = workpapers()

    def clean(words: str) -> str:
        return value_free_reason(words, form.LONGEST_NOTE)

    note = "called 138 0013 8000 about it; " + "because " * 200
    content = filled(issued, put("accesses", "H6", note))
    back = read(content, "x.xlsx", issued, clean=clean)
    assert back.answers["accesses", 1].note == clean(note)
    assert len(back.answers["accesses", 1].note) > 1_000
    assert not re.search("0013|8000", back.answers["accesses", 1].note)
    bad = filled(issued, put("accesses", "F6", "13800138000"))
    with pytest.raises(Exception, match="“…” is none of the answers") as refused:
        read(bad, "x.xlsx", issued, clean=clean)
    assert "8000" not in str(refused.value)
