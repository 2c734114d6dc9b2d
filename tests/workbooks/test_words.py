"""Texts of cells: what is written comes back, and two texts never become one."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from include.workbooks import forms


@given(st.text(max_size=80), st.text(max_size=80))
def test_two_texts_never_look_the_same(one: str, other: str):
    """What cannot stand in a cell is written as a code point, reversibly."""

    def back(text: str) -> str:
        return re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), text)

    assert back(forms.plain(one)) == one
    assert (forms.plain(one) == forms.plain(other)) == (one == other)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]", forms.plain(one))
