"""Tests that answers are validated against the form, whatever a browser or client sends."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.approvals.form import MAX_LIST_LINES, Field, Kind, prefill_form, read_form
from include.messages import verbatim

SHANGHAI = ZoneInfo("Asia/Shanghai")
OPTIONS = {"low": verbatim("Low"), "high": verbatim("High")}
KINDS: dict[str, Kind] = {
    "words": "text",
    "story": "long_text",
    "grade": "choice",
    "told": "yes_no",
    "since": "moment",
    "people": "number",
    "done": "list",
    "lines": "list",
}
FORM = tuple(
    Field(name, verbatim(name), kind, options=OPTIONS if name in {"grade", "done"} else {})
    for name, kind in KINDS.items()
)


def field(name: str) -> Field:
    return next(item for item in FORM if item.name == name)


def problems(entered: dict[str, Any], *form: Field, zone: ZoneInfo | None = None) -> list[str]:
    entries = read_form(form or FORM, entered, zone).problems
    return [str(item.values["problem"].text) for item in entries]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "entered", "read"),
    [
        ("words", "  a \t b  ", "a b"),
        ("words", "call 138 0013 8000", "call …"),
        ("words", "a\x00b\ud800c", "abc"),
        ("story", "one  line\r\n\r\nmail a@b.cn\n", "one line\n\nmail …"),
        ("grade", "high", "high"),
        ("told", True, True),
        ("told", False, False),
        ("told", "Yes", True),
        ("told", "否", False),
        ("since", "2026-03-02T08:00:00Z", datetime(2026, 3, 2, 8, tzinfo=UTC)),
        ("since", "2026-03-02T08:00:00+08:00", datetime(2026, 3, 2, tzinfo=UTC)),
        ("since", "2026-03-02T08:00", datetime(2026, 3, 2, tzinfo=UTC)),
        ("people", 12, 12),
        ("people", 12.0, 12),
        ("people", " 0012 ", 12),
        ("done", ["high", "low", "high"], ("low", "high")),
        ("lines", [" a ", "", "b"], ("a", "b")),
        ("lines", "a\nb", ("a", "b")),
    ],
)
def test_read_form_converts_the_entered_value_of_each_field_type(
    name: str, entered: Any, read: Any
) -> None:
    form = read_form(FORM, {name: entered}, SHANGHAI)
    assert (form.values, form.problems) == ({name: read}, [])


@pytest.mark.parametrize(
    ("name", "entered", "problem"),
    [
        ("words", 5, "the value is not a text"),
        ("words", {"a": 1}, "the value is not a text"),
        ("words", "x" * 501, "the value has more than {limit} characters"),
        ("story", "x\n" * 251, "the value has more than {limit} characters"),
        ("grade", "worse", "the value is not one of the options of this field"),
        ("grade", ["low"], "the value is not one of the options of this field"),
        ("told", "maybe", "the value is not yes or no"),
        ("since", "yesterday", "the value is not a date and time"),
        ("since", 5, "the value is not a date and time"),
        ("since", "2026-03-02T08:00", "the time has no time zone"),
        ("people", -1, "the value must be a whole number that is zero or greater"),
        ("people", 1.5, "the value must be a whole number that is zero or greater"),
        ("people", True, "the value must be a whole number that is zero or greater"),
        ("people", "٣", "the value must be a whole number that is zero or greater"),
        ("people", float("inf"), "the value must be a whole number that is zero or greater"),
        ("done", ["low", "worse"], "the value is not one of the options of this field"),
        (
            "done",
            [["low"]],
            "the value is not a list with one item in each line",
        ),
        (
            "lines",
            {"a": "b"},
            "the value is not a list with one item in each line",
        ),
        ("lines", ["a"] * (MAX_LIST_LINES + 1), "the list has more than {limit} lines"),
        ("lines", ["x" * 501], "the value has more than {limit} characters"),
    ],
)
def test_read_form_reports_a_problem_for_each_invalid_field(
    name: str, entered: Any, problem: str
) -> None:
    assert problems({name: entered}) == [problem]


def test_too_long_form_entry_is_shortened_to_500_characters_and_shown_again() -> None:
    entered = {"story": "y" * 501, "lines": ["a", "x" * 501], "people": 3}
    form = read_form(FORM, entered)
    assert form.values == {"story": "y" * 500, "lines": ("a", "x" * 500), "people": 3}
    shown = {item.name: item.value for item in prefill_form(FORM, form.values)}
    assert (shown["story"], shown["people"], shown["grade"]) == ("y" * 500, 3, None)


@pytest.mark.parametrize("empty", [None, "", [], "  \n "])
def test_read_form_reports_empty_required_field(empty: Any) -> None:
    for name in ("words", "story", "lines"):
        if isinstance(empty, list) and name != "lines":
            continue
        plain, required = field(name), Field(name, verbatim(name), KINDS[name], required=True)
        assert problems({name: empty}, plain) == []
        assert read_form([plain], {name: empty}).values == {}
        assert problems({name: empty}, required) == ["a value is required"]
    assert problems({}, Field("told", verbatim("told"), "yes_no", required=True)) == [
        "a value is required"
    ]


def test_read_form_does_not_redact_phone_number_in_field_that_is_stored_as_typed() -> None:
    hotline = Field("hotline", verbatim("Hotline"), stored_as_typed=True)
    assert read_form([hotline], {"hotline": " 400  820 1234 "}).values == {
        "hotline": "400 820 1234"
    }


def test_read_form_ignores_unknown_fields() -> None:
    assert read_form([field("people")], {"people": 1, "admin": True}).values == {"people": 1}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(sorted(KINDS)), ANYTHING))
def test_read_form_raises_no_error_for_any_input(entered: dict[str, Any]) -> None:
    form = read_form(FORM, entered, SHANGHAI)
    assert set(form.values) <= set(entered)
    again = {
        name: value.isoformat()
        if isinstance(value, datetime)
        else list(value)
        if isinstance(value, tuple)
        else value
        for name, value in form.values.items()
    }
    assert read_form(FORM, again, SHANGHAI).values == form.values
