"""The questionnaire goes out and comes back; whatever was changed is named by sheet and cell."""

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
from include.partners.questionnaire import Issued, Returned, issue_of, read, write
from include.partners.rules import Answer, Asked
from include.reports.i18n import Translator
from include.workbooks.faults import WorkbookRefused
from tests.partners.books import OTHERS, answered

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


def said(english: str, chinese: str) -> Message:
    return Message(text=english, translations={"en": english, "zh-CN": chinese})


def issued(**more: Any) -> Issued:
    """A questionnaire whose questions are as hostile as a pack's can be."""
    asked = tuple(
        Asked(f"q{at}", said(f"{words} - is it so?", f"{words}，是否如此？"),
              said("PIPL (2021-11-01) 21", "《个人信息保护法》(2021-11-01) 21"), 1, False, at == 2)
        for at, words in enumerate(HOSTILE)
    )  # fmt: skip
    at = datetime(2026, 6, 1, 9, 40, tzinfo=ZONE)
    given_ = {
        "review": 7, "partner": "12", "name": "Nord & Süd =Ltd", "tier": 1, "pass_mark": "80%",
        "issued_at": at, "timezone": "Asia/Shanghai", "asked": asked, "sub_processors": True,
    } | more  # fmt: skip
    return Issued(**given_)


ISSUED = issued()


def back(content: bytes, what: Issued = ISSUED) -> Returned:
    return read(content, "back.xlsx", what)


def faults(content: bytes, what: Issued = ISSUED) -> list[tuple[str, str, str]]:
    """Sheet, cell and message of each fault; each is told in Chinese too."""
    with pytest.raises(WorkbookRefused) as refused:
        back(content, what)
    english, chinese = Translator("en"), Translator("zh_CN")
    for one in refused.value.faults:
        assert english.text(one.said) in str(refused.value)
        assert chinese.text(one.message) != english.text(one.message)
        assert chinese.text(one.action) != english.text(one.action)
    return [(one.sheet, one.cell, english.text(one.message)) for one in refused.value.faults]


def cell(sheet: str, place: str, value: object) -> Callable[[Workbook], None]:
    def change(book: Workbook) -> None:
        one = book[sheet][place]
        one.value = value
        if isinstance(value, str) and not value.startswith("="):
            one.data_type = "s"

    return change


def test_what_is_filled_in_comes_back() -> None:
    """Answers, notes, sub-processors and the day; whose name it was stays in the file."""
    answers = {"q1": "否 No", "q2": "n/a", "q3": "是", "q4": " YES "}
    found = back(answered(ISSUED, answers, others=OTHERS))
    assert found.answered_on == date(2026, 6, 1)
    assert {name: one.answer for name, one in found.answers.items()} == {
        one.id: Answer.YES for one in ISSUED.asked
    } | {"q1": Answer.NO, "q2": Answer.NOT_APPLICABLE}
    assert found.answers["q1"].note == "mended by autumn"
    assert [(one.name, one.country, one.what_for) for one in found.sub_processors] == list(OTHERS)
    assert "Li Na" not in repr(found)
    assert issue_of(answered(ISSUED), "back.xlsx") == ("12", "7")


def test_the_same_questionnaire_always_gives_the_same_bytes() -> None:
    """And another weight, mark or word another digest: it is what the answers are held against."""
    assert write(ISSUED) == write(issued())
    others = [issued(pass_mark="81%"), issued(review=8), issued(partner="13"),
              issued(asked=ISSUED.asked[:-1]), issued(sub_processors=False)]  # fmt: skip
    assert len({one.sha256 for one in (ISSUED, *others)}) == 6
    assert questionnaire.from_json(questionnaire.to_json(ISSUED)) == ISSUED


def test_only_what_is_to_be_filled_in_is_open() -> None:
    """No formula, and no text that a program would take for one; answers are chosen from lists."""
    book = load_workbook(io.BytesIO(write(ISSUED)))
    assert book.sheetnames == list(ISSUED.sheets)
    assert book[questionnaire.ISSUE].sheet_state == "veryHidden"
    for sheet in book:
        assert sheet.protection.sheet
        unlocked = {one.coordinate for row in sheet for one in row if not one.protection.locked}
        for row in sheet:
            for one in row:
                assert one.data_type != "f" or one.quotePrefix
                assert one.value is None or one.coordinate not in unlocked
        if sheet.title == questionnaire.QUESTIONS:
            lists = [one for one in sheet.data_validations.dataValidation if one.type == "list"]
            offered = {str(one.sqref): one.formula1 for one in lists}
            assert set(offered) == {f"E{row}" for row in range(5, 5 + len(HOSTILE))}
            assert [place for place, words in offered.items() if "N/A" in words] == ["E7"]
        if sheet.title == questionnaire.SUB_PROCESSORS:
            assert len(unlocked) == 1 + 3 * questionnaire.MOST_SUB_PROCESSORS


FAULTS: dict[str, tuple[Callable[[Workbook], object], tuple[str, str, str]]] = {
    "a missing answer": (
        cell(questionnaire.QUESTIONS, "E5", None),
        (questionnaire.QUESTIONS, "E5", "The answer is missing.")),
    "an answer of no list": (
        cell(questionnaire.QUESTIONS, "E5", "partly"),
        (questionnaire.QUESTIONS, "E5", "“partly” is none of the answers.")),
    "not applicable where it applies": (
        cell(questionnaire.QUESTIONS, "E5", "不适用 N/A"),
        (questionnaire.QUESTIONS, "E5", "This question applies to every partner.")),
    "a no without a word": (
        cell(questionnaire.QUESTIONS, "E5", "No"),
        (questionnaire.QUESTIONS, "F5", "An answer other than Yes has no note.")),
    "a changed question": (
        cell(questionnaire.QUESTIONS, "C5", "May we go on?"),
        (questionnaire.QUESTIONS, "C5", "Question or source of q0 were changed.")),
    "a changed source": (
        cell(questionnaire.QUESTIONS, "D6", "business"),
        (questionnaire.QUESTIONS, "D6", "Question or source of q1 were changed.")),
    "a question that is gone": (
        lambda book: book[questionnaire.QUESTIONS].delete_rows(5),
        (questionnaire.QUESTIONS, "", "The row of the question q0 is missing.")),
    "a formula": (
        cell(questionnaire.QUESTIONS, "E5", '=IF(TRUE,"Yes","No")'),
        (questionnaire.QUESTIONS, "E5", "There is a formula.")),
    "an id number in a note": (
        cell(questionnaire.QUESTIONS, "F5", "seen by 11010519491231002X"),
        (questionnaire.QUESTIONS, "F5", "This holds a mobile or ID number.")),
    "a note without end": (
        cell(questionnaire.QUESTIONS, "F5", "x" * 1001),
        (questionnaire.QUESTIONS, "F5", "This has 1,001 characters; 1,000 are taken.")),
    "something beside the table": (
        cell(questionnaire.QUESTIONS, "H6", "see here"),
        (questionnaire.QUESTIONS, "H6", "There is something beside the table.")),
    "a head that is gone": (
        cell(questionnaire.QUESTIONS, "E4", "Reply"),
        (questionnaire.QUESTIONS, "E4", "The head 答案 Answer is missing here.")),
    "nobody answered": (
        cell(questionnaire.INSTRUCTIONS, "B8", None),
        (questionnaire.INSTRUCTIONS, "B8", "Nobody is named who answered.")),
    "no day": (
        cell(questionnaire.INSTRUCTIONS, "B9", "soon"),
        (questionnaire.INSTRUCTIONS, "B9", "This is no day.")),
    "a day before the issue": (
        cell(questionnaire.INSTRUCTIONS, "B9", "2026-05-31"),
        (questionnaire.INSTRUCTIONS, "B9",
         "2026-05-31 is before the questionnaire was issued (2026-06-01).")),
    "a sheet that is gone": (
        lambda book: book.remove(book[questionnaire.SUB_PROCESSORS]),
        (questionnaire.SUB_PROCESSORS, "", "The sheet is missing: removed or renamed.")),
    "a sheet too many": (
        lambda book: book.create_sheet("Notes"),
        ("Notes", "", "The sheet was not issued: added or renamed.")),
    "sub-processors without a name": (
        cell(questionnaire.SUB_PROCESSORS, "B3", "Yes"),
        (questionnaire.SUB_PROCESSORS, "B3", "There are sub-processors, and none is named.")),
    "no word about sub-processors": (
        cell(questionnaire.SUB_PROCESSORS, "B3", None),
        (questionnaire.SUB_PROCESSORS, "B3", "The answer is missing.")),
}  # fmt: skip


@pytest.mark.parametrize("what", FAULTS)
def test_one_fault_is_named_by_its_place(what: str) -> None:
    """And is the only one that is told."""
    change, fault = FAULTS[what]
    assert faults(answered(ISSUED, change=change)) == [fault]


def test_all_faults_are_told_at_once() -> None:
    """Half a sub-processor, a no where some are named, an answer, a day."""

    def change(book: Workbook) -> None:
        cell(questionnaire.SUB_PROCESSORS, "B8", "Cloud Ltd")(book)
        cell(questionnaire.QUESTIONS, "E9", "maybe 13800138000")(book)
        cell(questionnaire.INSTRUCTIONS, "B9", None)(book)

    found = faults(answered(ISSUED, change=change))
    assert [(sheet, place) for sheet, place, _message in found] == [
        (questionnaire.INSTRUCTIONS, "B9"),
        (questionnaire.QUESTIONS, "E9"),
        (questionnaire.SUB_PROCESSORS, "C8"),
        (questionnaire.SUB_PROCESSORS, "D8"),
        (questionnaire.SUB_PROCESSORS, "B3"),
    ]
    assert "13800138000" not in str(found)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"partner": "13"}, "The questionnaire is that of partner 13, not of 12."),
        ({"review": 6}, "The questionnaire is of review 6, not of 7."),
        ({"pass_mark": "1%"}, "is another than the one issued"),
    ],
)
def test_another_questionnaire_is_refused_for_that_alone(
    other: dict[str, Any], message: str
) -> None:
    """Whatever else differs comes from it."""
    found = faults(answered(issued(**other)))
    assert message in found[0][2]
    assert {sheet for sheet, _cell, _message in found} == {questionnaire.ISSUE}


def test_rows_may_be_sorted() -> None:
    """A question is known by its id, not by its place."""

    def change(book: Workbook) -> None:
        sheet = book[questionnaire.QUESTIONS]
        rows = [[one.value for one in row] for row in sheet.iter_rows(min_row=5, max_col=6)]
        for at, row in enumerate(reversed(rows), 5):
            for column, value in enumerate(row, 1):
                one = sheet.cell(at, column)
                one.value = value
                one.data_type = "s" if isinstance(value, str) else one.data_type

    found = back(answered(ISSUED, {"q1": "No"}, change=change))
    assert found.answers["q1"].answer is Answer.NO


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whatever_is_answered_comes_back_or_is_refused(data: st.DataObject) -> None:
    """Words and notes of any characters; nothing is taken for another answer."""
    words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20)
    said_ = {
        one.id: data.draw(st.sampled_from(list(questionnaire.WORDS.values())))
        for one in ISSUED.asked
    }
    name = data.draw(words)
    content = answered(ISSUED, said_, others=((name, "CN", "hosting"),))
    try:
        found = back(content)
    except WorkbookRefused:
        assert not name.strip() or "不适用 N/A" in said_.values() or any(map(str.isdigit, name))
        return
    assert {key: one.answer for key, one in found.answers.items()} == {
        key: questionnaire.answer_of(one) for key, one in said_.items()
    }
    assert len(found.sub_processors) == 1
