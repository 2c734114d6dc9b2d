"""Tests of the YAML output of drafts: any name is read back unchanged."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from include.schema.draft_rules import Lines, comment, flow_list, flow_map, scalar

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(NAMES)
def test_yaml_scalar_of_any_name_is_read_back_unchanged(name: str) -> None:
    """The names have quotes, line breaks, control characters, no-break spaces or emoji."""
    assert yaml.safe_load(f"x: {scalar(name)}") == {"x": name}
    assert yaml.safe_load(f"- {{{scalar(name)}: {flow_list([name, name])}}}") == [
        {name: [name, name]}
    ]


@pytest.mark.parametrize("name", ["no", "null", "True", "1e3", "2024", "0x1F", "12:30", "=", "~"])
def test_yaml_scalar_puts_quotes_around_words_such_as_no_and_null(name: str) -> None:
    """A column called ``no`` must not become a boolean."""
    assert scalar(name) == f'"{name}"'


def test_yaml_scalar_leaves_plain_names_unquoted() -> None:
    assert [scalar(name) for name in ("customer_id", "姓名", "a.b-c")] == [
        "customer_id", "姓名", "a.b-c"
    ]  # fmt: skip


@given(NAMES, NAMES)
def test_yaml_comment_with_line_break_stays_on_one_line(name: str, text: str) -> None:
    """A name with a line break must not add a line of YAML."""
    lines = Lines()
    lines.note(0, text)
    lines.add(0, f"x: {scalar(name)}", text)
    lines.add(0, flow_map([("y", "1")])[1:-1])
    assert yaml.safe_load(str(lines)) == {"x": name, "y": 1}
    assert "\n" not in comment(text)
