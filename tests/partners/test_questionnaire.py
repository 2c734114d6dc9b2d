"""Tests of writing questionnaire workbooks, and of reading them with all their faults."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook, load_workbook

from include.messages import Message
from include.partners import questionnaire
from include.partners.questionnaire import (
    IssuedQuestionnaire,
    ReturnedAnswers,
    read_answers,
    read_binding,
    write_workbook,
)
from include.partners.rules import Answer, IssuedQuestion
from include.reports.i18n import Translator
from include.workbooks.faults import WorkbookRefused
from tests.partners.questionnaire_workbooks import SUB_PROCESSORS, answered_workbook

ZONE = ZoneInfo("Asia/Shanghai")
HOSTILE = (
    "=1+1",
    "+SUM(A1)",
    "@x",
    "a\x00b\r\n",
    "_x0041_",
    "‮gnp",
    "<b>&amp;</b>",
    "第一行\n第二行",
)


def bilingual(english: str, chinese: str) -> Message:
    return Message(text=english, translations={"en": english, "zh-CN": chinese})


def questionnaire_issued(**more: Any) -> IssuedQuestionnaire:
    """Create an issued questionnaire whose texts look like formulas or markup."""
    questions = tuple(
        IssuedQuestion(
            f"q{index}",
            bilingual(f"{text} - is it so?", f"{text}，是否如此？"),
            bilingual(
                "PIPL (2021-11-01), article 21",
                "《个人信息保护法》（2021年11月1日起施行）第二十一条",
            ),
            1,
            False,
            index == 2,
        )
        for index, text in enumerate(HOSTILE)
    )
    at = datetime(2026, 6, 1, 9, 40, tzinfo=ZONE)
    fields = {
        "review": 7, "partner": "12", "name": "Nord & Süd =Ltd", "tier": 1, "pass_mark": "80%",
        "issued_at": at, "timezone": "Asia/Shanghai", "asked": questions, "sub_processors": True,
    } | more  # fmt: skip
    return IssuedQuestionnaire(**fields)


ISSUED = questionnaire_issued()


def read_back(content: bytes, issued: IssuedQuestionnaire = ISSUED) -> ReturnedAnswers:
    return read_answers(content, "back.xlsx", issued)


def faults(content: bytes, issued: IssuedQuestionnaire = ISSUED) -> list[tuple[str, str, str]]:
    """Return sheet, cell and message of each fault in a workbook; each must have a Chinese text."""
    with pytest.raises(WorkbookRefused) as error:
        read_back(content, issued)
    english, chinese = Translator("en"), Translator("zh_CN")
    for fault in error.value.faults:
        assert english.text(fault.as_message) in str(error.value)
        assert chinese.text(fault.message) != english.text(fault.message)
        assert chinese.text(fault.action) != english.text(fault.action)
    return [(fault.sheet, fault.cell, english.text(fault.message)) for fault in error.value.faults]


def change_cell(sheet: str, coordinate: str, value: object) -> Callable[[Workbook], None]:
    def change(book: Workbook) -> None:
        target = book[sheet][coordinate]
        target.value = value
        if isinstance(value, str) and not value.startswith("="):
            target.data_type = "s"

    return change


def test_read_answers_returns_values_of_filled_in_workbook() -> None:
    answers = {"q1": "否 No", "q2": "n/a", "q3": "是", "q4": " YES "}
    returned = read_back(answered_workbook(ISSUED, answers, sub_processors=SUB_PROCESSORS))
    assert returned.answered_on == date(2026, 6, 1)
    assert {name: item.answer for name, item in returned.answers.items()} == {
        item.id: Answer.YES for item in ISSUED.asked
    } | {"q1": Answer.NO, "q2": Answer.NOT_APPLICABLE}
    assert returned.answers["q1"].note == "corrected by autumn"
    assert [
        (processor.name, processor.country, processor.purpose)
        for processor in returned.sub_processors
    ] == list(SUB_PROCESSORS)
    assert "Li Na" not in repr(returned)
    assert read_binding(answered_workbook(ISSUED), "back.xlsx") == ("12", "7")


def test_same_questionnaire_gives_identical_workbook_and_a_change_gives_another_digest() -> None:
    assert write_workbook(ISSUED) == write_workbook(questionnaire_issued())
    changes: list[dict[str, Any]] = [
        {"pass_mark": "81%"}, {"review": 8}, {"partner": "13"}, {"asked": ISSUED.asked[:-1]},
        {"sub_processors": False},
    ]  # fmt: skip
    changed = [questionnaire_issued(**change) for change in changes]
    assert len({issued.sha256 for issued in (ISSUED, *changed)}) == 6
    assert questionnaire.from_json(questionnaire.to_json(ISSUED)) == ISSUED


def test_only_answer_cells_of_the_questionnaire_workbook_are_unlocked() -> None:
    book = load_workbook(io.BytesIO(write_workbook(ISSUED)))
    assert book.sheetnames == list(ISSUED.sheets)
    assert book[questionnaire.ISSUE].sheet_state == "veryHidden"
    for sheet in book:
        assert sheet.protection.sheet
        unlocked = {item.coordinate for row in sheet for item in row if not item.protection.locked}
        for row in sheet:
            for item in row:
                assert item.data_type != "f" or item.quotePrefix
                assert item.value is None or item.coordinate not in unlocked
        if sheet.title == questionnaire.QUESTIONS:
            lists = [item for item in sheet.data_validations.dataValidation if item.type == "list"]
            offered = {str(item.sqref): item.formula1 for item in lists}
            assert set(offered) == {f"E{row}" for row in range(5, 5 + len(HOSTILE))}
            assert [coordinate for coordinate, words in offered.items() if "N/A" in words] == ["E7"]
        if sheet.title == questionnaire.SUB_PROCESSORS:
            assert len(unlocked) == 1 + 3 * questionnaire.MAX_SUB_PROCESSORS


FAULTS: dict[str, tuple[Callable[[Workbook], object], tuple[str, str, str]]] = {
    "a missing answer": (
        change_cell(questionnaire.QUESTIONS, "E5", None),
        (questionnaire.QUESTIONS, "E5", "The answer is missing.")),
    "an answer of no list": (
        change_cell(questionnaire.QUESTIONS, "E5", "partly"),
        (questionnaire.QUESTIONS, "E5", "“partly” is not one of the answers.")),
    "not applicable where it applies": (
        change_cell(questionnaire.QUESTIONS, "E5", "不适用 N/A"),
        (questionnaire.QUESTIONS, "E5", "This question applies to every partner.")),
    "a no without a note": (
        change_cell(questionnaire.QUESTIONS, "E5", "No"),
        (questionnaire.QUESTIONS, "F5", "The answer is not Yes, but the note is missing.")),
    "a changed question": (
        change_cell(questionnaire.QUESTIONS, "C5", "May we go on?"),
        (questionnaire.QUESTIONS, "C5", "The question q0 or its source was changed.")),
    "a changed source": (
        change_cell(questionnaire.QUESTIONS, "D6", "business"),
        (questionnaire.QUESTIONS, "D6", "The question q1 or its source was changed.")),
    "a deleted question": (
        lambda book: book[questionnaire.QUESTIONS].delete_rows(5),
        (questionnaire.QUESTIONS, "", "The row of the question q0 is missing.")),
    "a formula": (
        change_cell(questionnaire.QUESTIONS, "E5", '=IF(TRUE,"Yes","No")'),
        (questionnaire.QUESTIONS, "E5", "The cell contains a formula.")),
    "an id number in a note": (
        change_cell(questionnaire.QUESTIONS, "F5", "seen by 11010519491231002X"),
        (questionnaire.QUESTIONS, "F5", "The cell contains a mobile number or an ID number.")),
    "a note that is too long": (
        change_cell(questionnaire.QUESTIONS, "F5", "x" * 1001),
        (questionnaire.QUESTIONS, "F5",
         "The text has 1,001 characters. At most 1,000 are allowed.")),
    "something beside the table": (
        change_cell(questionnaire.QUESTIONS, "H6", "see here"),
        (questionnaire.QUESTIONS, "H6", "The cell is outside of the table and is not empty.")),
    "a renamed column": (
        change_cell(questionnaire.QUESTIONS, "E4", "Reply"),
        (questionnaire.QUESTIONS, "E4", "The heading 答案 Answer is missing in this cell.")),
    "no name of a person": (
        change_cell(questionnaire.INSTRUCTIONS, "B8", None),
        (questionnaire.INSTRUCTIONS, "B8", "The name of the person who answered is missing.")),
    "no day": (
        change_cell(questionnaire.INSTRUCTIONS, "B9", "soon"),
        (questionnaire.INSTRUCTIONS, "B9", "The cell contains no date.")),
    "a day before the issue": (
        change_cell(questionnaire.INSTRUCTIONS, "B9", "2026-05-31"),
        (questionnaire.INSTRUCTIONS, "B9",
         "The date 2026-05-31 is earlier than the day on which the questionnaire was issued "
         "(2026-06-01).")),
    "a deleted sheet": (
        lambda book: book.remove(book[questionnaire.SUB_PROCESSORS]),
        (questionnaire.SUB_PROCESSORS, "", "The sheet is missing: it was removed or renamed.")),
    "an added sheet": (
        lambda book: book.create_sheet("Notes"),
        ("Notes", "", "The sheet is not part of the issued workbook: it was added or renamed.")),
    "sub-processors without a name": (
        change_cell(questionnaire.SUB_PROCESSORS, "B3", "Yes"),
        (questionnaire.SUB_PROCESSORS, "B3", "The answer is Yes, but no sub-processor is listed.")),
    "no answer about sub-processors": (
        change_cell(questionnaire.SUB_PROCESSORS, "B3", None),
        (questionnaire.SUB_PROCESSORS, "B3", "The answer is missing.")),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_fault_in_workbook_is_reported_with_sheet_and_cell(case: str) -> None:
    change, fault = FAULTS[case]
    assert faults(answered_workbook(ISSUED, change=change)) == [fault]


def test_read_answers_reports_all_faults() -> None:

    def change(book: Workbook) -> None:
        change_cell(questionnaire.SUB_PROCESSORS, "B8", "Cloud Ltd")(book)
        change_cell(questionnaire.QUESTIONS, "E9", "maybe 13800138000")(book)
        change_cell(questionnaire.INSTRUCTIONS, "B9", None)(book)

    faults_found = faults(answered_workbook(ISSUED, change=change))
    assert [(sheet, coordinate) for sheet, coordinate, _message in faults_found] == [
        (questionnaire.INSTRUCTIONS, "B9"),
        (questionnaire.QUESTIONS, "E9"),
        (questionnaire.SUB_PROCESSORS, "C8"),
        (questionnaire.SUB_PROCESSORS, "D8"),
        (questionnaire.SUB_PROCESSORS, "B3"),
    ]
    assert "13800138000" not in str(faults_found)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"partner": "13"}, "The questionnaire belongs to partner 13, not to partner 12."),
        ({"review": 6}, "The questionnaire belongs to review 6, not to review 7."),
        ({"pass_mark": "1%"}, "differs from the issued questionnaire"),
    ],
)
def test_only_the_mismatch_is_reported_if_workbook_belongs_to_another_questionnaire(
    other: dict[str, Any], message: str
) -> None:
    faults_found = faults(answered_workbook(questionnaire_issued(**other)))
    assert message in faults_found[0][2]
    assert {sheet for sheet, _cell, _message in faults_found} == {questionnaire.ISSUE}


def test_read_answers_accepts_rows_in_another_order() -> None:

    def change(book: Workbook) -> None:
        sheet = book[questionnaire.QUESTIONS]
        rows = [[target.value for target in row] for row in sheet.iter_rows(min_row=5, max_col=6)]
        for at, row in enumerate(reversed(rows), 5):
            for column, value in enumerate(row, 1):
                target = sheet.cell(at, column)
                target.value = value
                target.data_type = "s" if isinstance(value, str) else target.data_type

    returned = read_back(answered_workbook(ISSUED, {"q1": "No"}, change=change))
    assert returned.answers["q1"].answer is Answer.NO


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_read_answers_returns_exactly_the_entered_answers_of_every_workbook_that_it_accepts(
    data: st.DataObject,
) -> None:
    words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20)
    answers = {
        item.id: data.draw(st.sampled_from(list(questionnaire.ANSWER_TEXTS.values())))
        for item in ISSUED.asked
    }
    name = data.draw(words)
    content = answered_workbook(ISSUED, answers, sub_processors=((name, "CN", "hosting"),))
    try:
        returned = read_back(content)
    except WorkbookRefused:
        assert not name.strip() or "不适用 N/A" in answers.values() or any(map(str.isdigit, name))
        return
    assert {key: item.answer for key, item in returned.answers.items()} == {
        key: questionnaire.answer_of(item) for key, item in answers.items()
    }
    assert len(returned.sub_processors) == 1
