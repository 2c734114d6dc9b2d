"""Tests that escaped texts of cells keep their characters and stay distinct."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from include.workbooks import forms


@given(st.text(max_size=80), st.text(max_size=80))
def test_escaped_text_can_be_unescaped_and_differs_for_different_texts(first: str, second: str):
    def back(text: str) -> str:
        return re.sub(r"\\u([0-9a-f]{4})", lambda match: chr(int(match[1], 16)), text)

    assert back(forms.escape_text(first)) == first
    assert (forms.escape_text(first) == forms.escape_text(second)) == (first == second)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]", forms.escape_text(first))
