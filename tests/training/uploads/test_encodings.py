"""An encoding is recognised, or the file is refused: nobody's name comes in as other signs."""

from __future__ import annotations

import codecs
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.training.uploads.cells import UploadRefused
from include.training.uploads.lines import recognise

HEAD = "person,name\r\n"
NAMES = "E1,王芳\r\nE2,李娜\r\nE3,张伟\r\n"


def name_of(content: bytes) -> str:
    return recognise(io.BytesIO(content), "file.csv").name


def refused(content: bytes) -> str:
    with pytest.raises(UploadRefused) as error:
        name_of(content)
    return error.value.faults[0].said


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (HEAD.encode(), "UTF-8"),
        ((HEAD + NAMES).encode(), "UTF-8"),
        (codecs.BOM_UTF8 + (HEAD + NAMES).encode(), "UTF-8"),
        ((HEAD + NAMES).encode("gb18030"), "GB18030"),
        ((HEAD + "E1,联通\r\nE2,王芳\r\n").encode("gb18030"), "GB18030"),
        ((HEAD + NAMES + "E4,刘喆\r\n").encode("gb18030"), "GB18030"),
        ((HEAD + NAMES + "E4,王芳𠮷\r\n").encode("gb18030"), "GB18030"),
        (codecs.BOM_UTF16_LE + (HEAD + NAMES).encode("utf-16-le"), "UTF-16"),
        (codecs.BOM_UTF16_BE + (HEAD + "E1,𠮷田\r\n").encode("utf-16-be"), "UTF-16"),
        ((HEAD + "E1,王芳\r\nE2,José\r\n").encode(), "UTF-8"),
        (codecs.BOM_UTF8 + (HEAD + "E2,José\r\n").encode(), "UTF-8"),
        ((HEAD + "E2,Łukasz\r\n").encode(), "UTF-8"),
        (b"", "UTF-8"),
    ],
)
def test_what_can_be_one_encoding_only_is_recognised(content: bytes, name: str) -> None:
    """With its mark or without."""
    assert name_of(content) == name


@pytest.mark.parametrize(
    ("content", "why"),
    [
        # In the encoding of Western Windows, and of Taiwan: as GB18030 they would be other words
        ((HEAD + "E1,José\r\n").encode("cp1252"), "line 2: It is neither UTF-8 nor GB18030"),
        ((HEAD + "E1,Müller\r\n").encode("cp1252"), "line 2: It is no UTF-8, and read as GB18030"),
        ((HEAD + "E1,陳雅婷\r\n").encode("big5"), "line 2: It is no UTF-8, and read as GB18030"),
        # 通通 in GB18030 is valid UTF-8 of other letters, and José in UTF-8 is valid GB18030
        ((HEAD + "E1,通通\r\n").encode("gb18030"), "line 2: It could be UTF-8 as well as GB18030"),
        ((HEAD + "E1,José\r\n").encode(), "line 2: It could be UTF-8 as well as GB18030"),
        # A byte lost, and two files pasted together
        (
            (HEAD + NAMES).encode().replace("娜".encode(), b"\xe5\xa8"),
            "line 3: It is no UTF-8, but",
        ),
        (
            (HEAD + NAMES).encode() + NAMES.encode("gb18030"),
            "line 5: It is no UTF-8, but other lines are",
        ),
        ((HEAD + NAMES).encode()[:-3], "line 4: It is no UTF-8, but other lines are"),
        (
            codecs.BOM_UTF8 + HEAD.encode() + NAMES.encode("gb18030"),
            "line 2: It is no UTF-8, as the file begins",
        ),
        (codecs.BOM_UTF16_LE + HEAD.encode("utf-16-le") + b"x", "line 2: It is no UTF-16"),
        (codecs.BOM_UTF16_LE + b"\x00\xd8" * 4, "line 1: It is no UTF-16"),
        (HEAD.encode("utf-16-le"), "It is in UTF-16 without its mark"),
        (codecs.BOM_UTF32_LE + HEAD.encode("utf-32-le"), "It is in UTF-32"),
        (b"PK\x03\x04....", "It is an Excel workbook, not a CSV file"),
        (b"\xd0\xcf\x11\xe0....", "It is an Excel workbook of an old version"),
        (b"%PDF-1.7", "It is a PDF file"),
        (HEAD.encode() + b"E1," + b"\xc3" * 70_000, "line 2: It is longer than"),
    ],
)
def test_what_could_be_another_one_is_refused(content: bytes, why: str) -> None:
    """With the line, and what to do."""
    said = refused(content)
    assert said.startswith(why)
    assert "CSV UTF-8" in said or "longer" in said


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("at", [1, 7, 60_000, 120_000])
def test_the_line_is_the_one_an_editor_shows(ends: str, at: int) -> None:
    """Also where a block of what is read ends between the two signs of a line's end."""
    lines = ["E1,王芳芳芳"] * 130_000
    content = codecs.BOM_UTF8 + ends.join([*lines[: at - 1], ""]).encode() + b"\xff"
    assert refused(content).startswith(f"line {at}: ")


@given(
    text=st.lists(
        st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5), min_size=1), min_size=1
    )
)
def test_chinese_in_utf8_is_never_taken_for_gb18030(text: list[str]) -> None:
    """Whatever it says: each character has three bytes."""
    assert name_of((HEAD + "\r\n".join(text)).encode()) == "UTF-8"


@given(
    names=st.lists(
        # The more frequent half of GB 2312, in which names and departments are written
        st.builds(bytes, st.tuples(st.integers(0xB0, 0xD6), st.integers(0xA1, 0xFE))),
        min_size=8,
        max_size=200,
    )
)
def test_a_text_in_gb18030_is_never_taken_for_utf8(names: list[bytes]) -> None:
    """It is recognised, or refused; it does not come in as other signs."""
    content = HEAD.encode() + b"\r\n".join(names)
    try:
        found = name_of(content)
    except UploadRefused:
        return
    assert found == "GB18030"
