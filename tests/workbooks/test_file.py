"""Tests of the check that refuses returned files that are not normal .xlsx workbooks.

It refuses such files before openpyxl reads their cells.
"""

from __future__ import annotations

import io
import random
import struct
import time
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.sampling.workpapers import form
from include.sampling.workpapers.reading import Returned
from include.sampling.workpapers.writing import write
from include.workbooks import file
from include.workbooks.faults import WorkbookRefused
from tests.sampling.workpapers.support import (
    LIBREOFFICE,
    edited,
    faults,
    fill,
    filled,
    paper,
    read_back,
    repacked,
    workpapers,
)

OLE2 = bytes.fromhex("d0cf11e0a1b11ae1") + b"\x00" * 504
SHEET = "xl/worksheets/sheet2.xml"
LINK = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/'
    'relationships/{kind}" Target="{target}" TargetMode="External"/></Relationships>'
)


@pytest.fixture(scope="module")
def good() -> bytes:
    return filled(workpapers())


def zipped(**parts: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in parts.items():
            archive.writestr(name, body)
    return stream.getvalue()


def fault_message(content: bytes) -> str:
    [(sheet, cell, message)] = faults(content)
    assert (sheet, cell) == ("", "")
    return message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "The file is not an Excel workbook (.xlsx)."),
        (b"number,answer\n1,Yes\n", "The file is not an Excel workbook (.xlsx)."),
        (b"<html><table></table></html>", "The file is not an Excel workbook (.xlsx)."),
        (OLE2, "The file is an Excel 97-2003 workbook (.xls)."),
        (OLE2 + "EncryptedPackage".encode("utf-16-le"), "The file is protected with a password."),
        (zipped(a=b"b"), "The file is an archive, but not an Excel workbook."),
        (
            zipped(mimetype=b"application/vnd.oasis.opendocument.spreadsheet"),
            "The file is an OpenDocument spreadsheet (.ods).",
        ),
        (b"PK\x03\x04" + b"\x00" * 90, "The file is damaged: its archive cannot be unpacked."),
    ],
)
def test_error_for_file_that_is_not_an_xlsx_workbook_contains_the_file_type_if_it_is_known(
    content: bytes, message: str
):
    assert fault_message(content) == message


def test_truncated_file_is_refused_as_damaged(good: bytes):
    assert "cannot be unpacked" in fault_message(good[: len(good) // 2])


def test_error_for_binary_or_strict_open_xml_workbook_contains_this_file_type(good: bytes):
    binary = {"[Content_Types].xml": ("spreadsheetml.sheet.main", "sheet.binary.macroEnabled.main")}
    assert fault_message(repacked(good, binary)) == "The file is a binary workbook (.xlsb)."
    strict = {
        "xl/workbook.xml": (
            "http://schemas.openxmlformats.org/spreadsheetml/2006/main",
            "http://purl.oclc.org/ooxml/spreadsheetml/main",
        )
    }
    assert fault_message(repacked(good, strict)) == "The file is a Strict Open XML workbook."


def test_workbook_archive_with_password_protected_entry_is_refused(good: bytes):
    changed = bytearray(good)
    name = b"xl/workbook.xml"
    local = good.index(b"PK\x03\x04", good.index(name) - 30)
    central = good.rindex(b"PK\x01\x02", 0, good.rindex(name))
    changed[local + 6] |= 1
    changed[central + 8] |= 1
    assert fault_message(bytes(changed)) == "The file is protected with a password."


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(zipped(**{"xl/workbook.xml": b"0" * (64 * 1024**2 + 1)}), id="bomb"),
        pytest.param(zipped(**{f"p{number}.xml": b"<a/>" for number in range(501)}), id="parts"),
        pytest.param(b"PK\x03\x04" + b"\x00" * 32 * 1024**2, id="file"),
    ],
)
def test_too_large_workbook_file_is_refused_within_two_seconds(content: bytes):
    started = time.process_time()
    message = fault_message(content)
    assert (
        "32 MiB for the file, 64 MiB for its unpacked content, 500 parts and 1,000,000 cells"
        in message
    )
    assert time.process_time() - started < 2


def test_zip_bomb_that_states_small_size_is_refused_as_damaged():
    content = bytearray(zipped(**{"xl/workbook.xml": b"0" * (200 * 1024**2)}))
    central = content.rindex(b"PK\x01\x02")
    content[central + 24 : central + 28] = struct.pack("<I", 100)
    content[22:26] = struct.pack("<I", 100)
    assert fault_message(bytes(content)) == "The file is damaged: its archive cannot be unpacked."


def test_file_with_too_many_cells_is_refused(good: bytes):
    cells = "<c/>" * 1_000
    rows = f"<row>{cells}</row>" * 1_001
    content = repacked(
        good, {SHEET: (r"<sheetData>.*</sheetData>", f"<sheetData>{rows}</sheetData>")}
    )
    assert "1,000,000 cells" in fault_message(content)


def test_xml_part_with_entity_declaration_is_refused_as_damaged(good: bytes):
    bomb = '<!DOCTYPE a [<!ENTITY b "ha">]><worksheet '
    assert fault_message(repacked(good, {SHEET: ("<worksheet ", bomb)})) == (
        f"The file is damaged: its part {SHEET} cannot be read."
    )


def test_deeply_nested_xml_is_refused(good: bytes):
    deep = "<a>" * 200 + "</a>" * 200
    assert "exceeds the allowed size of a workbook" in fault_message(
        repacked(good, add={"customXml/item1.xml": deep.encode()})
    )


def test_unordered_or_duplicate_rows_are_refused_as_damaged(good: bytes):
    for was, now in (
        ('<row r="7"', '<row r="5"'),
        ('<c r="B7"', '<c r="A7"'),
        ('r="A7"', 'r="A8"'),
    ):
        assert fault_message(repacked(good, {SHEET: (was, now)})) == (
            f"The file is damaged: its part {SHEET} cannot be read."
        )


def test_archive_with_duplicate_part_names_is_refused(good: bytes):
    stream = io.BytesIO(good)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("XL/workbook.xml", b"<a/>")
    assert fault_message(stream.getvalue()) == "The file has two parts with the same name."


@pytest.mark.parametrize(
    "name", ["xl/vbaProject.bin", "xl/macrosheets/sheet1.xml", "xl/activeX/activeX1.xml"]
)
def test_workbook_with_macros_is_refused(good: bytes, name: str):
    content = repacked(good, add={name: b"<a/>"})
    assert fault_message(content) == "The file contains macros or controls."


def test_workbook_that_declares_a_macro_content_type_is_refused(good: bytes):
    types = {
        "[Content_Types].xml": (
            r"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main\+xml",
            "application/vnd.ms-excel.sheet.macroEnabled.main+xml",
        )
    }
    assert fault_message(repacked(good, types)) == "The file contains macros or controls."


@pytest.mark.parametrize(
    "name",
    ["xl/externalLinks/externalLink1.xml", "xl/connections.xml", "xl/embeddings/oleObject1.bin"],
)
def test_workbook_with_links_to_other_files_is_refused(good: bytes, name: str):
    content = repacked(good, add={name: b"<a/>"})
    assert "data connections or links to other files" in fault_message(content)


def test_link_to_other_workbook_is_reported_in_a_single_fault(good: bytes):
    rels = LINK.format(kind="externalLinkPath", target="file:///C:/other.xlsx").encode()
    folder = "xl/externalLinks"
    content = repacked(
        good,
        add={
            f"{folder}/externalLink1.xml": b"<a/>",
            f"{folder}/_rels/externalLink1.xml.rels": rels,
        },
    )
    assert "links to other files" in fault_message(content)


def test_archive_parts_that_contain_no_cells_are_ignored(good: bytes):
    beside = {
        "xl/drawings/vmlDrawing1.vml": b"<xml><br></xml>",
        "xl/printerSettings/printerSettings1.bin": b"\x00\x01",
        "xl/media/image1.png": b"\x89PNG",
        "docProps/custom.xml": b"<Properties/>",
    }
    assert read_back(repacked(good, add=beside)) == read_back(good)


def test_hyperlink_to_outside_is_reported_with_its_sheet(good: bytes):
    rels = LINK.format(kind="hyperlink", target="http://evil.example").encode()
    content = repacked(good, add={"xl/worksheets/_rels/sheet2.xml.rels": rels})
    [(sheet, _, message)] = faults(content)
    assert (sheet, message) == (
        "accesses",
        "The workbook contains a link to a target outside of the workbook.",
    )


def test_formulas_are_reported_with_their_cells(good: bytes):
    formulas = (
        '<row r="900"><c r="A900"><f>1+1</f><v>2</v></c><c r="C900"><f t="array" ref="C900">1</f>'
        '</c><c r="E900"><f t="shared" si="0"/><v>2</v></c></row></sheetData>'
    )
    content = repacked(
        good, {"xl/worksheets/sheet1.xml": ("</sheetData>", formulas),
               "xl/worksheets/sheet4.xml": ("</sheetData>", formulas)}
    )  # fmt: skip
    faults_found = faults(content)
    assert faults_found == [
        (sheet, cell, "The cell contains a formula.")
        for sheet in (form.INSTRUCTIONS, form.DRAW)
        for cell in ("A900", "C900", "E900")
    ]


def test_cell_far_outside_of_table_is_reported(good: bytes):
    far = '<row r="1048576"><c r="XFD1048576" t="str"><v>hidden</v></c></row></sheetData>'
    started = time.process_time()
    assert faults(repacked(good, {SHEET: ("</sheetData>", far)})) == [
        ("accesses", "XFD1048576", "The cell is far outside of the table and is not empty.")
    ]
    assert time.process_time() - started < 5


def test_merged_cells_and_hyperlinks_over_the_whole_sheet_are_ignored(good: bytes):
    everything = "A1:XFD1048576"
    ranges = (
        f'<mergeCells count="1"><mergeCell ref="{everything}"/></mergeCells>'
        f'<hyperlinks><hyperlink ref="{everything}" location="A1"/></hyperlinks>'
    )
    content = repacked(good, {SHEET: ("<pageMargins", f"{ranges}<pageMargins")})
    started = time.process_time()
    assert read_back(content) == read_back(good)
    assert time.process_time() - started < 5


def test_completed_workbook_of_the_largest_sample_is_within_size_limits():
    issued = workpapers(paper(tuple(f"键{fault}" * 20 for fault in range(form.MOST_ITEMS))))
    generator = random.Random(1)  # random text, which compresses worse than any real text
    notes = {
        ("accesses", fault): "".join(map(chr, generator.choices(range(0x4E00, 0x9FA5), k=2_000)))
        for fault in range(1, form.MOST_ITEMS + 1)
    }
    content = edited(write(issued), lambda book: fill(book, issued, notes=notes))
    assert len(content) < file.MAX_BYTES
    assert len(read_back(content, issued).answers) == form.MOST_ITEMS


ARCHIVE = "the archive's directory"
PARTS = [ARCHIVE, *sorted(zipfile.ZipFile(LIBREOFFICE).namelist())]


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(PARTS), st.integers(0, 2**32), st.integers(1, 4))
def test_reading_randomly_damaged_file_raises_no_error_except_workbook_refused_with_faults(
    part: str, seed: int, many: int
):
    parts = {part: zipfile.ZipFile(LIBREOFFICE).read(part) for part in PARTS if part != ARCHIVE}
    if part != ARCHIVE:
        parts[part] = damaged(parts[part], seed, many)
    content = zipped(**parts)
    if part == ARCHIVE:
        content = damaged(content, seed, many, content.index(b"PK\x01\x02"))
    try:
        assert isinstance(read_back(content), Returned)
    except WorkbookRefused as refused:
        assert refused.faults  # noqa: PT017 - either is right


def damaged(body: bytes, seed: int, many: int, start: int = 0) -> bytes:
    generator = random.Random(seed)
    changed = bytearray(body)
    for _change in range(many):
        changed[generator.randrange(start, len(body))] = generator.randrange(256)
    return bytes(changed)
