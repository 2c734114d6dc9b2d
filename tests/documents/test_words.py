"""Texts of a document in a language, and the widths of its columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from include.documents.html import breakable
from include.documents.model import Section, shares
from include.documents.words import Words, numbers
from include.messages import _, verbatim
from tests.documents import sample

WORDS = {one: Words(one, sample.ZONE) for one in ("en", "zh_CN")}


@pytest.mark.parametrize(
    ("number", "chinese"),
    [(1, "一"), (9, "九"), (10, "十"), (11, "十一"), (20, "二十"), (38, "三十八"), (120, "120")],
)
def test_headings_are_numbered_as_the_language_does(number: int, chinese: str):
    """GB/T 9704-2012 7.3.3: 一、 for the first level."""
    section = Section(heading=sample.said("Cause", "原因"), blocks=())
    assert WORDS["zh_CN"].heading(section, number) == f"{chinese}、原因"
    assert WORDS["en"].heading(section, number) == f"{number}. Cause"


def test_only_headings_have_numbers_and_a_single_one_has_none():
    """A letter with one heading is not numbered."""
    plain, headed = Section(blocks=()), Section(heading=_("Cause"), blocks=())
    report = sample.report()
    for sections, expected in (
        ([headed], [None]),
        ([headed, plain, headed], [1, None, 2]),
        ([], []),
    ):
        document = report.model_copy(update={"sections": tuple(sections)})
        assert numbers(document) == expected


def test_moments_numbers_and_lists_are_written_for_the_reader():
    """In the pack's timezone with its offset."""
    words = WORDS["zh_CN"]
    assert words.lines(sample.entry("a", "a", sample.AWARE)) == ["2026-11-24 03:12 UTC+08:00"]
    assert words.lines(sample.entry("a", "a", 1_204_331, unit="people")) == ["1,204,331 人"]
    assert words.lines(sample.entry("a", "a", [verbatim("x"), verbatim(" ")])) == ["x"]


def test_lines_end_in_one_way_and_controls_are_seen():
    """What comes over REST ends its lines as Windows does."""
    text = WORDS["en"].text(verbatim("one\r\ntwo\rthree\x00\u202e"))
    assert text == "one\ntwo\nthree\\u0000\\u202e"


@given(st.text(max_size=200), st.floats(1, 60))
def test_a_text_in_the_margin_is_one_line_that_fits(text: str, width: float):
    """Cut with a sign that says so."""
    line = WORDS["en"].margin(text, width)
    assert "\n" not in line
    assert len(line) <= width / 0.55 + 1
    assert line == " ".join(text.split()) or line.endswith("…")


@given(st.text("Wx<&>\"'-/ \n词。", max_size=2_000))
def test_endless_words_may_break_and_nothing_else_changes(text: str):
    """The square of a word's length is what the PDF library would take."""
    page = str(breakable(text))
    assert page.replace("<wbr>", "") == str(escape(text))
    pieces = page.split("<wbr>")
    assert len(pieces) == 1 or all("<" not in one for one in pieces)


def test_an_endless_word_is_broken_into_short_ones():
    """A hash or an address is not touched."""
    assert str(breakable("a" * 64)) == "a" * 64
    assert max(map(len, str(breakable("W" * 50_000)).split("<wbr>"))) < 121
    assert "<wbr>" not in str(breakable("长" * 500))


@given(st.lists(st.lists(st.text(max_size=60), min_size=4, max_size=4), min_size=1, max_size=5))
def test_columns_fill_the_page(rows: list[list[str]]):
    """All of it, and none is squeezed away."""
    widths = shares(rows)
    assert sum(widths) == pytest.approx(1)
    assert min(widths) > 0.05


def test_a_figure_keeps_its_room_beside_sentences():
    """A number that wraps is misread."""
    sentence = "What was done about it, and by whom, in so many words as it takes to say it. "
    rows = [["Database", "People", "What was done", "And then"]]
    rows += [["courier", "1,204,331", sentence * 3, sentence]]
    database, people, done, then = shares(rows)
    assert people * 44 >= 9 * 0.55 + 1.4
    assert database < done == pytest.approx(then)
