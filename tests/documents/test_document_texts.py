"""Tests of the texts of a document in a language, and of the widths of table columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from include.documents.document_texts import DocumentTexts, section_numbers
from include.documents.html import allow_breaks
from include.documents.model import Section, column_shares
from include.messages import _, verbatim
from tests.documents import sample

WORDS = {locale: DocumentTexts(locale, sample.ZONE) for locale in ("en", "zh_CN")}


@pytest.mark.parametrize(
    ("number", "chinese"),
    [(1, "一"), (9, "九"), (10, "十"), (11, "十一"), (20, "二十"), (38, "三十八"), (120, "120")],
)
def test_section_heading_has_chinese_numeral_in_chinese_and_arabic_numeral_in_english(
    number: int, chinese: str
):
    section = Section(heading=sample.bilingual("Cause", "原因"), blocks=())
    assert WORDS["zh_CN"].heading(section, number) == f"{chinese}、原因"
    assert WORDS["en"].heading(section, number) == f"{number}. Cause"


def test_single_heading_of_document_is_not_numbered():
    plain, headed = Section(blocks=()), Section(heading=_("Cause"), blocks=())
    report = sample.report()
    for sections, expected in (
        ([headed], [None]),
        ([headed, plain, headed], [1, None, 2]),
        ([], []),
    ):
        document = report.model_copy(update={"sections": tuple(sections)})
        assert section_numbers(document) == expected


def test_form_entry_shows_time_with_utc_offset_and_number_with_chinese_unit():
    words = WORDS["zh_CN"]
    assert words.lines(sample.entry("a", "a", sample.AWARE)) == ["2026-11-24 03:12 UTC+08:00"]
    assert words.lines(sample.entry("a", "a", 1_204_331, unit="people")) == ["1,204,331 人"]
    assert words.lines(sample.entry("a", "a", [verbatim("x"), verbatim(" ")])) == ["x"]


def test_text_has_normalized_line_ends_and_escaped_control_characters():
    text = WORDS["en"].text(verbatim("one\r\ntwo\rthree\x00\u202e"))
    assert text == "one\ntwo\nthree\\u0000\\u202e"


@given(st.text(max_size=200), st.floats(1, 60))
def test_text_in_page_margin_is_shortened_to_fit_one_line(text: str, width: float):
    line = WORDS["en"].margin(text, width)
    assert "\n" not in line
    assert len(line) <= width / 0.55 + 1
    assert line == " ".join(text.split()) or line.endswith("…")


@given(st.text("Wx<&>\"'-/ \n词。", max_size=2_000))
def test_allow_breaks_escapes_markup_and_adds_only_wbr_tags(text: str):
    page = str(allow_breaks(text))
    assert page.replace("<wbr>", "") == str(escape(text))
    pieces = page.split("<wbr>")
    assert len(pieces) == 1 or all("<" not in piece for piece in pieces)


def test_allow_breaks_adds_line_break_tags_only_in_very_long_latin_words():
    assert str(allow_breaks("a" * 64)) == "a" * 64
    assert max(map(len, str(allow_breaks("W" * 50_000)).split("<wbr>"))) < 121
    assert "<wbr>" not in str(allow_breaks("长" * 500))


@given(st.lists(st.lists(st.text(max_size=60), min_size=4, max_size=4), min_size=1, max_size=5))
def test_relative_column_widths_of_table_sum_to_one(rows: list[list[str]]):
    widths = column_shares(rows)
    assert sum(widths) == pytest.approx(1)
    assert min(widths) > 0.05


def test_table_column_with_short_texts_is_wide_enough_for_its_longest_text():
    sentence = "What was done about it, and by whom, in so many words as it takes to say it. "
    rows = [["Database", "People", "What was done", "And then"]]
    rows += [["courier", "1,204,331", sentence * 3, sentence]]
    database, people, done, then = column_shares(rows)
    assert people * 44 >= 9 * 0.55 + 1.4
    assert database < done == pytest.approx(then)
