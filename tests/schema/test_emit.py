"""YAML with comments: what is written reads back, whatever a name has in it."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from include.schema.draft_rules import Lines, comment, flow_list, flow_map, scalar

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(NAMES)
def test_every_name_reads_back_as_itself(name: str) -> None:
    """Quotes, line breaks, control characters, no-break spaces, emoji."""
    assert yaml.safe_load(f"x: {scalar(name)}") == {"x": name}
    assert yaml.safe_load(f"- {{{scalar(name)}: {flow_list([name, name])}}}") == [
        {name: [name, name]}
    ]


@pytest.mark.parametrize("name", ["no", "null", "True", "1e3", "2024", "0x1F", "12:30", "=", "~"])
def test_what_yaml_would_read_as_something_else_is_quoted(name: str) -> None:
    """A column called ``no`` is no boolean."""
    assert scalar(name) == f'"{name}"'


def test_usual_names_stand_plain() -> None:
    """Chinese ones too."""
    assert [scalar(one) for one in ("customer_id", "姓名", "a.b-c")] == [
        "customer_id", "姓名", "a.b-c"
    ]  # fmt: skip


@given(NAMES, NAMES)
def test_a_comment_ends_with_its_line(name: str, text: str) -> None:
    """A name with a line break cannot add a line of YAML."""
    lines = Lines()
    lines.note(0, text)
    lines.add(0, f"x: {scalar(name)}", text)
    lines.add(0, flow_map([("y", "1")])[1:-1])
    assert yaml.safe_load(str(lines)) == {"x": name, "y": 1}
    assert "\n" not in comment(text)
