"""Tests that Word files are readable for python-docx, have Chinese fonts and are deterministic."""

from __future__ import annotations

import io
import zipfile
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import docx
import pytest
from docx.document import Document as File
from docx.oxml.ns import qn

from include.documents.model import Section
from include.documents.word import render_docx
from include.messages import verbatim
from include.reports.model import Paragraph, Steps
from tests.documents import sample

SERIF, SANS = ("Times New Roman", "SimSun"), ("Arial", "SimHei")


def opened(content: bytes) -> File:
    return docx.Document(io.BytesIO(content))


def texts(file: File, style: str) -> list[str]:
    return [
        paragraph.text
        for paragraph in file.paragraphs
        if paragraph.style and paragraph.style.name == style
    ]


def rows(file: File) -> list[list[str]]:
    return [[cell.text for cell in row.cells] for table in file.tables for row in table.rows]


@pytest.fixture(scope="module")
def english() -> bytes:
    return render_docx(sample.report(), "en", sample.ZONE)


@pytest.fixture(scope="module")
def chinese() -> bytes:
    return render_docx(sample.report(), "zh_CN", sample.ZONE)


@pytest.fixture(scope="module")
def hostile() -> bytes:
    return render_docx(sample.hostile(), "zh_CN", sample.ZONE)


def test_english_word_file_has_text_of_every_entry(english: bytes):
    file = opened(english)
    assert texts(file, "Title") == ["Report on a Personal Information Security Incident"]
    assert texts(file, "Subtitle") == ["First report"]
    assert texts(file, "Heading 1")[:2] == ["1. The incident", "2. Cause and possible harm"]
    assert texts(file, "List Number")[0] == "The account was locked and its sessions were ended."
    assert texts(file, "Letterhead") == [
        f"Reference: {sample.REFERENCE}",
        "Date of this document: 2026-11-24 05:40 UTC+08:00",
    ]
    assert "To the Cyberspace Administration of Zhejiang:" in texts(file, "Normal")
    cells = rows(file)
    assert ["Became aware", "2026-11-24 03:12 UTC+08:00"] in cells
    assert ["Data subjects affected", "1,204,331 people"] in cells
    categories = "Names of recipients\nTelephone numbers\nDelivery addresses"
    assert ["Categories of information", categories] in cells
    assert ["Trend", "not stated"] in cells
    assert ["Courier database", "1,204,331", "3,870,022", "2026-11-20"] in cells
    assert ["", "Day", "2026-11-24"] in cells


def test_chinese_word_file_has_text_of_every_entry(chinese: bytes):
    file = opened(chinese)
    assert texts(file, "Title") == ["个人信息安全事件报告"]
    assert texts(file, "Heading 1") == [
        "一、事件基本情况",
        "二、原因与可能造成的危害",
        "三、已采取的措施",
        "四、受影响的记录",
    ]
    assert "浙江省互联网信息办公室：" in texts(file, "Normal")
    assert f"文件编号：{sample.REFERENCE}" in texts(file, "Letterhead")
    cells = rows(file)
    assert ["发现时间", "2026-11-24 03:12 UTC+08:00"] in cells
    assert ["受影响个人数量", "1,204,331 人"] in cells
    assert ["事件等级", "较大"] in cells
    (cause,) = [value for label, value, *_ in cells if label == "初步原因"]
    assert cause.endswith("并分批导出收件信息。\n账号已停用，导出接口已关闭。")


def test_warning_in_word_file_is_in_page_header_and_above_text(chinese: bytes):
    file = opened(chinese)
    (section,) = file.sections
    assert not section.different_first_page_header_footer
    assert not file.settings.odd_and_even_pages_header_footer
    (above,) = section.header.paragraphs
    assert above.text == "演练 - 并非真实事件"
    assert above.style
    assert above.style.name == "Marked"
    assert texts(file, "Marked Text") == ["演练 - 并非真实事件"]
    plain = opened(render_docx(sample.report(warning=None), "zh_CN", sample.ZONE))
    assert [paragraph.text for paragraph in plain.sections[0].header.paragraphs] == [""]
    assert texts(plain, "Marked Text") == []


def test_footer_of_word_file_has_page_number_and_number_of_pages(english: bytes):
    below = opened(english).sections[0].footer.paragraphs[0]
    assert sample.REFERENCE in below.text
    fields = [element.get(qn("w:instr")) for element in below._p.iter(qn("w:fldSimple"))]
    assert fields == ["PAGE", "NUMPAGES"]


def test_chinese_word_file_has_chinese_fonts(chinese: bytes):
    file = opened(chinese)
    fonts = list(file.styles.element.iter(qn("w:rFonts")))
    pairs = {(font.get(qn("w:ascii")), font.get(qn("w:eastAsia"))) for font in fonts}
    assert pairs == {SERIF, SANS}
    assert not [name for font in fonts for name in font.attrib if "Theme" in str(name)]
    defaults = file.styles.element.find(qn("w:docDefaults"))
    assert defaults is not None
    (language,) = defaults.iter(qn("w:lang"))
    assert (language.get(qn("w:val")), language.get(qn("w:eastAsia"))) == ("en-US", "zh-CN")
    runs = [run for paragraph in file.paragraphs for run in paragraph.runs]
    assert runs
    for run in runs:  # both scripts use quotation marks and dashes
        (font,) = run._r.iter(qn("w:rFonts"))
        assert font.get(qn("w:hint")) == "eastAsia"


def test_table_in_word_file_has_repeated_header_row_and_caption(english: bytes):
    *_, counts, _signature = opened(english).tables
    assert [len(list(row._tr.iter(qn("w:tblHeader")))) for row in counts.rows] == [1, 0, 0]
    (caption,) = counts._tbl.iter(qn("w:tblCaption"))
    assert caption.get(qn("w:val")) == "Counts by database"
    for table in opened(english).tables:
        assert sum(column.width for column in table.columns) == pytest.approx(9298 * 635, abs=6_000)


def test_each_numbered_list_in_word_file_starts_at_one():
    steps = Steps(items=[verbatim("a"), verbatim("b")])
    section = sample.report().sections[2].model_copy(update={"blocks": (steps, steps)})
    document = sample.report().model_copy(update={"sections": (section,)})
    file = opened(render_docx(document, "en", sample.ZONE))
    items = [
        paragraph
        for paragraph in file.paragraphs
        if paragraph.style and paragraph.style.name == "List Number"
    ]
    used = [item._p.pPr.numPr.numId.val for item in items]
    assert used[0] == used[1] != used[2] == used[3]
    numbering = file.part.numbering_part.element
    for number in set(used):
        (begins,) = [
            element.find(f"{qn('w:lvlOverride')}/{qn('w:startOverride')}")
            for element in numbering.num_lst
            if element.numId == number
        ]
        assert begins.get(qn("w:val")) == "1"


def test_properties_of_word_file_contain_no_name_of_a_person(english: bytes, chinese: bytes):
    for content, language, title in (
        (english, "en", "Report on a Personal Information Security Incident"),
        (chinese, "zh-CN", "个人信息安全事件报告"),
    ):
        about = opened(content).core_properties
        assert about.title == f"{title} · {sample.REFERENCE}"
        assert (about.language, about.identifier) == (language, sample.REFERENCE)
        assert (about.author, about.last_modified_by) == ("ParcelSeal", "ParcelSeal")
        moment = datetime(2026, 11, 23, 21, 40, 12, tzinfo=UTC)
        assert about.created == about.modified == moment
        assert (about.comments, about.keywords, about.category) == ("", "", "")


def test_same_document_gives_same_bytes_of_word_file(english: bytes, chinese: bytes):
    assert render_docx(sample.report(), "en", sample.ZONE) == english != chinese
    with zipfile.ZipFile(io.BytesIO(english)) as archive:
        assert {element.date_time for element in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert len(english) < 60_000


def test_word_file_shows_html_markup_in_texts_as_plain_text(hostile: bytes):
    with zipfile.ZipFile(io.BytesIO(hostile)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for part in parts.values():
        ET.fromstring(part)  # noqa: S314 - made above
    assert not [name for name, part in parts.items() if b"TargetMode" in part]
    file = opened(hostile)
    shown = sample.HOSTILE.replace("\r\n", "\n").replace("\r", "\n")
    for sign in "\u202e\u2066\x00\x01\x1f\ud800\ufffe":
        shown = shown.replace(sign, f"\\u{ord(sign):04x}")
    assert texts(file, "Title") == [shown]
    values = [value for row in rows(file) for value in row]
    assert values.count(shown) > 8
    assert f"{shown}\n{shown}" in values
    assert any(value.startswith("W" * 50_000) for value in values)
    assert any("缺失" in value for value in values)


def test_last_paragraph_signature_lines_and_final_note_stay_on_one_page() -> None:
    """Word keeps a paragraph on the page of the next one if both are marked so."""
    for block in (Paragraph(text=verbatim("LAST")), Steps(items=[verbatim("x"), verbatim("LAST")])):
        document = sample.report().model_copy(update={"sections": (Section(blocks=(block,)),)})
        file = opened(render_docx(document, "en", sample.ZONE))
        last = next(line for line in file.paragraphs if line.text == "LAST")
        *_, signature = file.tables
        rows = [line for row in signature.rows for cell in row.cells for line in cell.paragraphs]
        after = file.paragraphs[[line.text for line in file.paragraphs].index("LAST") + 1]
        assert all(line.paragraph_format.keep_with_next for line in (last, after, *rows))
