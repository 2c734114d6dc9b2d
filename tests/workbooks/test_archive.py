"""Archives of Office files: by content alone, and letters as themselves."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from include.sampling.workpapers.writing import write
from include.workbooks.saving import archived, parts_of, utf8
from tests.sampling.workpapers.support import workpapers

LETTERS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="\ufffe\uffff")
)


def test_parts_come_back_in_their_order_and_the_bytes_are_always_the_same():
    """No time, no machine: what is retried has the same hash."""
    parts = {"b.xml": b"<b/>", "a.xml": "<a>键</a>".encode()}
    assert list(parts_of(archived(parts)).items()) == list(parts.items())
    assert archived(parts) == archived(dict(parts))


@given(LETTERS, LETTERS)
def test_letters_written_as_numbers_mean_the_same_as_letters(inside: str, around: str):
    """In texts and attributes; a text that only looks like a number stays what it is."""
    element = ET.Element("a", {"b": f"{around}&#38190;\n"})
    element.text = f"{inside}&#38190;{around}"
    ascii_only = ET.tostring(element, "us-ascii").partition(b"\n")[2] or ET.tostring(element)
    written = utf8(ascii_only)
    assert ET.canonicalize(written.decode()) == ET.canonicalize(ascii_only.decode())
    assert b"&#38190;" not in written.replace(b"&amp;#38190;", b"")
    assert inside.isascii() or not written.isascii()


def test_a_part_in_another_encoding_is_left_as_it_is():
    """Its letters would be read as something else."""
    part = b'<?xml version="1.0" encoding="ISO-8859-1"?><a>&#38190;</a>'
    assert utf8(part) == part


def test_a_chinese_workbook_is_not_made_longer_by_a_library_that_happens_to_be_there():
    """With lxml, openpyxl writes eight letters for each Chinese one."""
    sheets = [part for name, part in parts_of(write(workpapers())).items() if "sheet" in name]
    assert any("键" in part.decode() for part in sheets)
    assert not any(b"&#38190;" in part for part in sheets)
