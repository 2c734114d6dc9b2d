"""What a document lacks is named, and nothing that says nothing passes for an answer."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from include.documents.model import Document, Entry, Form, Section
from include.documents.words import missing
from include.messages import Message, _, listed, verbatim
from tests.documents import sample

NOTHING = [
    None,
    "",
    " \n\t\u3000\u00a0",
    "\u200b\u202e\x00",
    "-",
    "…",
    "？！",
    float("nan"),
    [],
    [verbatim(""), verbatim(" - ")],
    verbatim("\u2060"),
    verbatim("\ud800"),
    _("{cause}", cause=verbatim("  ")),
]
SOMETHING = [
    "x",
    "无",
    "7",
    "٣",
    0,
    0.0,
    False,
    date(2026, 11, 24),
    datetime(2026, 11, 24, tzinfo=UTC),
    verbatim("原因"),
    [verbatim(""), verbatim("电话号码")],
    listed([verbatim("a")]),
]


def labels(value: object, **more: object) -> list[str]:
    form = Form(entries=(sample.entry("Cause", "原因", value, **more),))
    document = Document(title=_("Report"), dated=sample.AWARE, sections=(Section(blocks=(form,)),))
    return [one.text for one in missing(document)]


@pytest.mark.parametrize("value", NOTHING, ids=ascii)
def test_a_value_that_says_nothing_is_named_by_its_label(value: object):
    """None, white space, what nobody sees, punctuation, and lists of these."""
    assert labels(value) == ["Cause"]
    assert labels(value, required=False) == []


@pytest.mark.parametrize("value", SOMETHING, ids=ascii)
def test_a_letter_or_a_digit_is_an_answer(value: object):
    """Also zero and no, and one item of a list."""
    assert labels(value) == []


@given(st.text(st.characters(categories=["Z", "C", "P", "S"])))
def test_no_mixture_of_signs_is_an_answer(text: str):
    """However it is wrapped."""
    assert labels(text) == labels(verbatim(text)) == labels([verbatim(text)]) == ["Cause"]


def test_labels_come_in_reading_order_from_every_section():
    """All at once: nobody wants to be sent back twice."""
    report = sample.report()
    assert missing(report) == []
    first = report.sections[0].blocks[0]
    assert isinstance(first, Form)
    blanked = tuple(
        one.model_copy(update={"value": None}) if one.label.text in ("Type", "System") else one
        for one in first.entries
    )
    last = Section(blocks=(Form(entries=(sample.entry("Contact", "联系方式", " "),)),))
    sections = (Section(blocks=(Form(entries=blanked),)), *report.sections[1:], last)
    found = missing(report.model_copy(update={"sections": sections}))
    assert [one.text for one in found] == ["System", "Type", "Contact"]
    assert all(isinstance(one, Message) for one in found)


def test_a_moment_without_timezone_is_refused_where_it_is_stated():
    """A clock is counted from it."""
    naive = datetime(2026, 11, 24)  # noqa: DTZ001 - that is the point
    with pytest.raises(ValidationError, match="beside 'Aware' has no timezone"):
        Entry(label=_("Aware"), value=naive)
    with pytest.raises(ValidationError, match="timezone"):
        Document(title=_("Report"), dated=naive)
