"""Tests that archives of Office files are deterministic and contain UTF-8 characters."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from include.sampling.workpapers.writing import write
from include.workbooks.saving import decode_character_references, pack_archive, unpack_archive
from tests.sampling.workpapers.support import workpapers

LETTERS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="\ufffe\uffff")
)


def test_pack_archive_preserves_order_of_parts_and_returns_the_same_bytes_each_time():
    parts = {"b.xml": b"<b/>", "a.xml": "<a>键</a>".encode()}
    assert list(unpack_archive(pack_archive(parts)).items()) == list(parts.items())
    assert pack_archive(parts) == pack_archive(dict(parts))


@given(LETTERS, LETTERS)
def test_numeric_xml_character_references_are_decoded_to_utf8_characters(inside: str, around: str):
    element = ET.Element("a", {"b": f"{around}&#38190;\n"})
    element.text = f"{inside}&#38190;{around}"
    ascii_only = ET.tostring(element, "us-ascii").partition(b"\n")[2] or ET.tostring(element)
    written = decode_character_references(ascii_only)
    assert ET.canonicalize(written.decode()) == ET.canonicalize(ascii_only.decode())
    assert b"&#38190;" not in written.replace(b"&amp;#38190;", b"")
    assert inside.isascii() or not written.isascii()


def test_xml_character_references_are_not_decoded_if_part_declares_encoding_iso_8859_1():
    part = b'<?xml version="1.0" encoding="ISO-8859-1"?><a>&#38190;</a>'
    assert decode_character_references(part) == part


def test_chinese_workbook_has_no_character_references_if_lxml_is_installed():
    sheets = [part for name, part in unpack_archive(write(workpapers())).items() if "sheet" in name]
    assert any("键" in part.decode() for part in sheets)
    assert not any(b"&#38190;" in part for part in sheets)
