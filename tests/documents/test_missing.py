"""Tests that blank required entries are listed.

Entries with only white space or punctuation are blank.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from include.documents.document_texts import missing_entries
from include.documents.model import Document, Entry, Form, Section
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
    return [label.text for label in missing_entries(document)]


@pytest.mark.parametrize("value", NOTHING, ids=ascii)
def test_labels_of_blank_required_entries_are_returned(value: object):
    assert labels(value) == ["Cause"]
    assert labels(value, required=False) == []


@pytest.mark.parametrize("value", SOMETHING, ids=ascii)
def test_entry_value_with_letter_or_digit_is_not_blank(value: object):
    assert labels(value) == []


@given(st.text(st.characters(categories=["Z", "C", "P", "S"])))
def test_entry_value_with_only_punctuation_is_blank(text: str):
    assert labels(text) == labels(verbatim(text)) == labels([verbatim(text)]) == ["Cause"]


def test_labels_of_blank_entries_are_in_reading_order():
    report = sample.report()
    assert missing_entries(report) == []
    first = report.sections[0].blocks[0]
    assert isinstance(first, Form)
    blanked = tuple(
        entry.model_copy(update={"value": None})
        if entry.label.text in ("Type", "System")
        else entry
        for entry in first.entries
    )
    last = Section(blocks=(Form(entries=(sample.entry("Contact", "联系方式", " "),)),))
    sections = (Section(blocks=(Form(entries=blanked),)), *report.sections[1:], last)
    missing = missing_entries(report.model_copy(update={"sections": sections}))
    assert [label.text for label in missing] == ["System", "Type", "Contact"]
    assert all(isinstance(label, Message) for label in missing)


def test_form_entry_raises_validation_error_if_its_time_has_no_timezone():
    naive = datetime(2026, 11, 24)  # noqa: DTZ001 - that is the point
    with pytest.raises(ValidationError, match="beside 'Aware' has no timezone"):
        Entry(label=_("Aware"), value=naive)
    with pytest.raises(ValidationError, match="timezone"):
        Document(title=_("Report"), dated=naive)
