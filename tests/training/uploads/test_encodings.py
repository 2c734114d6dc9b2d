"""Tests of the detection of encodings: no file is read in a wrong encoding."""

from __future__ import annotations

import codecs
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.training.uploads.cells import UploadRefused
from include.training.uploads.lines import detect_encoding

HEAD = "person,name\r\n"
NAMES = "E1,王芳\r\nE2,李娜\r\nE3,张伟\r\n"


def encoding_of(content: bytes) -> str:
    return detect_encoding(io.BytesIO(content), "file.csv").name


def refusal_of(content: bytes) -> str:
    with pytest.raises(UploadRefused) as error:
        encoding_of(content)
    return error.value.faults[0].text


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
def test_encoding_of_unambiguous_file_is_detected(content: bytes, name: str) -> None:
    assert encoding_of(content) == name


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        # cp1252 and Big5, which are valid GB18030 with other words
        ((HEAD + "E1,José\r\n").encode("cp1252"), "line 2: The line is neither UTF-8 nor GB18030"),
        (
            (HEAD + "E1,Müller\r\n").encode("cp1252"),
            "line 2: The line is not UTF-8, and not plausible",
        ),
        (
            (HEAD + "E1,陳雅婷\r\n").encode("big5"),
            "line 2: The line is not UTF-8, and not plausible",
        ),
        # 通通 in GB18030 is valid UTF-8 of other letters, and José in UTF-8 is valid GB18030
        (
            (HEAD + "E1,通通\r\n").encode("gb18030"),
            "line 2: The line is valid as UTF-8 and as GB18030",
        ),
        ((HEAD + "E1,José\r\n").encode(), "line 2: The line is valid as UTF-8 and as GB18030"),
        # UTF-8 with a lost byte, and two concatenated files
        (
            (HEAD + NAMES).encode().replace("娜".encode(), b"\xe5\xa8"),
            "line 3: The line is not UTF-8, but",
        ),
        (
            (HEAD + NAMES).encode() + NAMES.encode("gb18030"),
            "line 5: The line is not UTF-8, but other lines are",
        ),
        ((HEAD + NAMES).encode()[:-3], "line 4: The line is not UTF-8, but other lines are"),
        (
            codecs.BOM_UTF8 + HEAD.encode() + NAMES.encode("gb18030"),
            "line 2: The line is not UTF-8, unlike the start",
        ),
        (codecs.BOM_UTF16_LE + HEAD.encode("utf-16-le") + b"x", "line 2: The line is not UTF-16"),
        (codecs.BOM_UTF16_LE + b"\x00\xd8" * 4, "line 1: The line is not UTF-16"),
        (HEAD.encode("utf-16-le"), "The file is UTF-16 without a byte order mark"),
        (codecs.BOM_UTF32_LE + HEAD.encode("utf-32-le"), "The file is in UTF-32"),
        (b"PK\x03\x04....", "The file is an Excel workbook, not a CSV file"),
        (b"\xd0\xcf\x11\xe0....", "The file is an Excel workbook of an old version"),
        (b"%PDF-1.7", "The file is a PDF file"),
        (HEAD.encode() + b"E1," + b"\xc3" * 70_000, "line 2: The line is longer than"),
    ],
)
def test_upload_refused_is_raised_if_file_has_ambiguous_or_damaged_encoding(
    content: bytes, expected: str
) -> None:
    message = refusal_of(content)
    assert message.startswith(expected)
    assert "CSV UTF-8" in message or "longer" in message


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("line_number", [1, 7, 60_000, 120_000])
def test_error_for_invalid_encoding_contains_line_number_as_shown_in_text_editors(
    ends: str, line_number: int
) -> None:
    lines = ["E1,王芳芳芳"] * 130_000
    content = codecs.BOM_UTF8 + ends.join([*lines[: line_number - 1], ""]).encode() + b"\xff"
    assert refusal_of(content).startswith(f"line {line_number}: ")


@given(
    text=st.lists(
        st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5), min_size=1), min_size=1
    )
)
def test_chinese_utf8_is_never_read_as_gb18030(text: list[str]) -> None:
    assert encoding_of((HEAD + "\r\n".join(text)).encode()) == "UTF-8"


@given(
    names=st.lists(
        # The more frequent half of GB 2312, in which names and departments are written
        st.builds(bytes, st.tuples(st.integers(0xB0, 0xD6), st.integers(0xA1, 0xFE))),
        min_size=8,
        max_size=200,
    )
)
def test_gb18030_is_never_read_as_utf8(names: list[bytes]) -> None:
    content = HEAD.encode() + b"\r\n".join(names)
    try:
        encoding = encoding_of(content)
    except UploadRefused:
        return
    assert encoding == "GB18030"
