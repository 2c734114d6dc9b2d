"""Files that are no plain workbook: refused before their cells are read, with what to do."""

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
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in parts.items():
            archive.writestr(name, body)
    return made.getvalue()


def one_fault(content: bytes) -> str:
    [(sheet, cell, message)] = faults(content)
    assert (sheet, cell) == ("", "")
    return message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "The file is no Excel workbook (.xlsx)."),
        (b"number,answer\n1,Yes\n", "The file is no Excel workbook (.xlsx)."),
        (b"<html><table></table></html>", "The file is no Excel workbook (.xlsx)."),
        (OLE2, "The file is an Excel 97-2003 workbook (.xls)."),
        (OLE2 + "EncryptedPackage".encode("utf-16-le"), "The file is protected with a password."),
        (zipped(a=b"b"), "The file is an archive, but no Excel workbook."),
        (
            zipped(mimetype=b"application/vnd.oasis.opendocument.spreadsheet"),
            "The file is an OpenDocument spreadsheet (.ods).",
        ),
        (b"PK\x03\x04" + b"\x00" * 90, "The file is damaged: its archive cannot be unpacked."),
    ],
)
def test_what_is_no_xlsx_is_refused_by_its_kind(content: bytes, said: str):
    """The action says how it becomes one."""
    assert one_fault(content) == said


def test_half_a_file_is_damaged(good: bytes):
    """A download that broke off."""
    assert "cannot be unpacked" in one_fault(good[: len(good) // 2])


def test_a_binary_or_strict_workbook_has_to_be_saved_as_xlsx(good: bytes):
    """Excel writes both with other contents than .xlsx."""
    binary = {"[Content_Types].xml": ("spreadsheetml.sheet.main", "sheet.binary.macroEnabled.main")}
    assert one_fault(repacked(good, binary)) == "The file is a binary workbook (.xlsb)."
    strict = {
        "xl/workbook.xml": (
            "http://schemas.openxmlformats.org/spreadsheetml/2006/main",
            "http://purl.oclc.org/ooxml/spreadsheetml/main",
        )
    }
    assert one_fault(repacked(good, strict)) == "The file is a Strict Open XML workbook."


def test_an_entry_with_a_zip_password_is_refused(good: bytes):
    """The flag of an encrypted entry, in both of its headers."""
    changed = bytearray(good)
    name = b"xl/workbook.xml"
    local = good.index(b"PK\x03\x04", good.index(name) - 30)
    central = good.rindex(b"PK\x01\x02", 0, good.rindex(name))
    changed[local + 6] |= 1
    changed[central + 8] |= 1
    assert one_fault(bytes(changed)) == "The file is protected with a password."


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(zipped(**{"xl/workbook.xml": b"0" * (64 * 1024**2 + 1)}), id="bomb"),
        pytest.param(zipped(**{f"p{one}.xml": b"<a/>" for one in range(501)}), id="parts"),
        pytest.param(b"PK\x03\x04" + b"\x00" * 32 * 1024**2, id="file"),
    ],
)
def test_what_is_too_large_is_not_unpacked(content: bytes):
    """The limits are told: 32 MiB, 64 MiB unpacked, 500 parts, 1,000,000 cells."""
    started = time.monotonic()
    said = one_fault(content)
    assert "32 MiB at most, 64 MiB when unpacked, 500 parts and 1,000,000 cells" in said
    assert time.monotonic() - started < 2


def test_a_bomb_that_lies_about_its_size_is_damaged():
    """The header says 100 bytes, the data hold 200 MiB: no more is unpacked than it says."""
    content = bytearray(zipped(**{"xl/workbook.xml": b"0" * (200 * 1024**2)}))
    central = content.rindex(b"PK\x01\x02")
    content[central + 24 : central + 28] = struct.pack("<I", 100)
    content[22:26] = struct.pack("<I", 100)
    assert one_fault(bytes(content)) == "The file is damaged: its archive cannot be unpacked."


def test_more_cells_than_workpapers_have_are_not_read(good: bytes):
    """A million and one in one row after the other."""
    cells = "<c/>" * 1_000
    rows = f"<row>{cells}</row>" * 1_001
    content = repacked(
        good, {SHEET: (r"<sheetData>.*</sheetData>", f"<sheetData>{rows}</sheetData>")}
    )
    assert "1,000,000 cells" in one_fault(content)


def test_entities_are_not_expanded(good: bytes):
    """A document type is refused: OPC has none, and entities make bombs and read files."""
    bomb = '<!DOCTYPE a [<!ENTITY b "ha">]><worksheet '
    assert one_fault(repacked(good, {SHEET: ("<worksheet ", bomb)})) == (
        f"The file is damaged, in its part {SHEET}."
    )


def test_a_deep_document_is_refused(good: bytes):
    """Depth costs a parser its stack."""
    deep = "<a>" * 200 + "</a>" * 200
    assert "larger than" in one_fault(repacked(good, add={"customXml/item1.xml": deep.encode()}))


def test_rows_out_of_order_or_twice_are_damage(good: bytes):
    """No program writes them, and readers disagree on what they say."""
    for was, now in (
        ('<row r="7"', '<row r="5"'),
        ('<c r="B7"', '<c r="A7"'),
        ('r="A7"', 'r="A8"'),
    ):
        assert one_fault(repacked(good, {SHEET: (was, now)})) == (
            f"The file is damaged, in its part {SHEET}."
        )


def test_two_parts_of_one_name_are_refused(good: bytes):
    """One program would read the first, another the second."""
    made = io.BytesIO(good)
    with zipfile.ZipFile(made, "a") as archive:
        archive.writestr("XL/workbook.xml", b"<a/>")
    assert one_fault(made.getvalue()) == "The file has two parts with one name."


@pytest.mark.parametrize(
    "name", ["xl/vbaProject.bin", "xl/macrosheets/sheet1.xml", "xl/activeX/activeX1.xml"]
)
def test_macros_are_refused(good: bytes, name: str):
    """Under whatever name the file comes."""
    content = repacked(good, add={name: b"<a/>"})
    assert one_fault(content) == "The file contains macros or controls."


def test_a_macro_workbook_is_refused_by_its_type(good: bytes):
    """.xlsm, renamed to .xlsx."""
    types = {
        "[Content_Types].xml": (
            r"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main\+xml",
            "application/vnd.ms-excel.sheet.macroEnabled.main+xml",
        )
    }
    assert one_fault(repacked(good, types)) == "The file contains macros or controls."


@pytest.mark.parametrize(
    "name",
    ["xl/externalLinks/externalLink1.xml", "xl/connections.xml", "xl/embeddings/oleObject1.bin"],
)
def test_links_to_other_files_are_refused(good: bytes, name: str):
    """Other workbooks, data connections, embedded files."""
    content = repacked(good, add={name: b"<a/>"})
    assert "links to other files, data connections" in one_fault(content)


def test_a_link_of_another_workbook_is_told_once(good: bytes):
    """The link's own relations are no second fault."""
    rels = LINK.format(kind="externalLinkPath", target="file:///C:/other.xlsx").encode()
    folder = "xl/externalLinks"
    content = repacked(
        good,
        add={
            f"{folder}/externalLink1.xml": b"<a/>",
            f"{folder}/_rels/externalLink1.xml.rels": rels,
        },
    )
    assert "links to other files" in one_fault(content)


def test_what_excel_writes_beside_the_cells_is_passed_over(good: bytes):
    """The old drawing of comments, which need not be well-formed; a printer; pictures."""
    beside = {
        "xl/drawings/vmlDrawing1.vml": b"<xml><br></xml>",
        "xl/printerSettings/printerSettings1.bin": b"\x00\x01",
        "xl/media/image1.png": b"\x89PNG",
        "docProps/custom.xml": b"<Properties/>",
    }
    assert read_back(repacked(good, add=beside)) == read_back(good)


def test_a_hyperlink_is_refused_with_its_sheet(good: bytes):
    """It would be clicked by whoever reads the evidence."""
    rels = LINK.format(kind="hyperlink", target="http://evil.example").encode()
    content = repacked(good, add={"xl/worksheets/_rels/sheet2.xml.rels": rels})
    [(sheet, _, message)] = faults(content)
    assert (sheet, message) == ("accesses", "There is a link to something outside of the workbook.")


def test_every_formula_is_told_with_its_cell(good: bytes):
    """Of every sheet, the added and hidden ones too, in whatever form."""
    formulas = (
        '<row r="900"><c r="A900"><f>1+1</f><v>2</v></c><c r="C900"><f t="array" ref="C900">1</f>'
        '</c><c r="E900"><f t="shared" si="0"/><v>2</v></c></row></sheetData>'
    )
    content = repacked(
        good, {"xl/worksheets/sheet1.xml": ("</sheetData>", formulas),
               "xl/worksheets/sheet4.xml": ("</sheetData>", formulas)}
    )  # fmt: skip
    found = faults(content)
    assert found == [
        (sheet, cell, "There is a formula.")
        for sheet in (form.INSTRUCTIONS, form.DRAW)
        for cell in ("A900", "C900", "E900")
    ]


def test_what_stands_far_outside_is_not_lost(good: bytes):
    """Beyond the rows and columns that are read, a cell with something in it is a fault."""
    far = '<row r="1048576"><c r="XFD1048576" t="str"><v>hidden</v></c></row></sheetData>'
    started = time.monotonic()
    assert faults(repacked(good, {SHEET: ("</sheetData>", far)})) == [
        ("accesses", "XFD1048576", "There is something far outside of the table.")
    ]
    assert time.monotonic() - started < 5


def test_huge_ranges_cost_nothing(good: bytes):
    """Merged cells, hyperlinks and validations over the whole sheet are not spread out."""
    everything = "A1:XFD1048576"
    ranges = (
        f'<mergeCells count="1"><mergeCell ref="{everything}"/></mergeCells>'
        f'<hyperlinks><hyperlink ref="{everything}" location="A1"/></hyperlinks>'
    )
    content = repacked(good, {SHEET: ("<pageMargins", f"{ranges}<pageMargins")})
    started = time.monotonic()
    assert read_back(content) == read_back(good)
    assert time.monotonic() - started < 5


def test_the_largest_workbook_is_within_the_limits():
    """What is issued can come back: all items with notes as long as they may be."""
    issued = workpapers(paper(tuple(f"键{one}" * 20 for one in range(form.MOST_ITEMS))))
    generator = random.Random(1)  # words that compress as badly as none that people write
    notes = {
        ("accesses", one): "".join(map(chr, generator.choices(range(0x4E00, 0x9FA5), k=2_000)))
        for one in range(1, form.MOST_ITEMS + 1)
    }
    content = edited(write(issued), lambda book: fill(book, issued, notes=notes))
    assert len(content) < file.MOST_BYTES
    assert len(read_back(content, issued).answers) == form.MOST_ITEMS


ARCHIVE = "the archive's directory"
PARTS = [ARCHIVE, *sorted(zipfile.ZipFile(LIBREOFFICE).namelist())]


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(PARTS), st.integers(0, 2**32), st.integers(1, 4))
def test_a_damaged_file_is_refused_and_never_breaks_the_reader(part: str, seed: int, many: int):
    """Bytes of a part, or of the archive itself, changed at random: answers or a refusal."""
    parts = {one: zipfile.ZipFile(LIBREOFFICE).read(one) for one in PARTS if one != ARCHIVE}
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
