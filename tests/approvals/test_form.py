"""What people enter is read against the form that they were asked with; anything may come."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.approvals.form import MOST_LINES, Field, Kind, read_form, refilled
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
    return next(one for one in FORM if one.name == name)


def problems(entered: dict[str, Any], *form: Field, zone: ZoneInfo | None = None) -> list[str]:
    found = read_form(form or FORM, entered, zone).problems
    return [str(one.values["problem"].text) for one in found]  # type: ignore[union-attr]


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
def test_each_kind_is_read_as_what_it_is(name: str, entered: Any, read: Any) -> None:
    """As the page sends it, as a script may, and without what could be a customer's."""
    found = read_form(FORM, {name: entered}, SHANGHAI)
    assert (found.values, found.problems) == ({name: read}, [])


@pytest.mark.parametrize(
    ("name", "entered", "problem"),
    [
        ("words", 5, "is not a text"),
        ("words", {"a": 1}, "is not a text"),
        ("words", "x" * 501, "has more than {most} characters"),
        ("story", "x\n" * 251, "has more than {most} characters"),
        ("grade", "worse", "is none of the choices"),
        ("grade", ["low"], "is none of the choices"),
        ("told", "maybe", "is neither yes nor no"),
        ("since", "yesterday", "is not a date and time"),
        ("since", 5, "is not a date and time"),
        ("since", "2026-03-02T08:00", "has no time zone"),
        ("people", -1, "is not a whole number"),
        ("people", 1.5, "is not a whole number"),
        ("people", True, "is not a whole number"),
        ("people", "٣", "is not a whole number"),
        ("people", float("inf"), "is not a whole number"),
        ("done", ["low", "worse"], "is none of the choices"),
        ("done", [["low"]], "is not a list"),
        ("lines", {"a": "b"}, "is not a list"),
        ("lines", ["a"] * (MOST_LINES + 1), "has more than {most} lines"),
        ("lines", ["x" * 501], "has more than {most} characters"),
    ],
)
def test_what_does_not_fit_is_said_by_field(name: str, entered: Any, problem: str) -> None:
    """Nothing is bent until it fits."""
    assert problems({name: entered}) == [problem]


def test_what_is_too_long_is_kept_cut_so_that_nobody_types_it_again() -> None:
    """And shown again in the form."""
    entered = {"story": "y" * 501, "lines": ["a", "x" * 501], "people": 3}
    found = read_form(FORM, entered)
    assert found.values == {"story": "y" * 500, "lines": ("a", "x" * 500), "people": 3}
    shown = {one.name: one.value for one in refilled(FORM, found.values)}
    assert (shown["story"], shown["people"], shown["grade"]) == ("y" * 500, 3, None)


@pytest.mark.parametrize("empty", [None, "", [], "  \n "])
def test_what_is_empty_is_missing_where_it_is_required(empty: Any) -> None:
    """White space is nothing; elsewhere it is simply not there."""
    for name in ("words", "story", "lines"):
        if isinstance(empty, list) and name != "lines":
            continue
        plain, required = field(name), Field(name, verbatim(name), KINDS[name], required=True)
        assert problems({name: empty}, plain) == []
        assert read_form([plain], {name: empty}).values == {}
        assert problems({name: empty}, required) == ["is missing"]
    assert problems({}, Field("told", verbatim("told"), "yes_no", required=True)) == ["is missing"]


def test_a_text_may_be_wanted_as_it_was_typed() -> None:
    """The company's own hotline is nobody's secret; white space is tidied nevertheless."""
    hotline = Field("hotline", verbatim("Hotline"), exact=True)
    assert read_form([hotline], {"hotline": " 400  820 1234 "}).values == {
        "hotline": "400 820 1234"
    }


def test_only_fields_of_the_form_are_read() -> None:
    """Whoever answers may send anything beside them."""
    assert read_form([field("people")], {"people": 1, "admin": True}).values == {"people": 1}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(sorted(KINDS)), ANYTHING))
def test_nothing_that_comes_breaks_the_reading(entered: dict[str, Any]) -> None:
    """Each field is read, empty, or has a problem; and what was read is read the same again."""
    found = read_form(FORM, entered, SHANGHAI)
    assert set(found.values) <= set(entered)
    again = {
        name: value.isoformat()
        if isinstance(value, datetime)
        else list(value)
        if isinstance(value, tuple)
        else value
        for name, value in found.values.items()
    }
    assert read_form(FORM, again, SHANGHAI).values == found.values
