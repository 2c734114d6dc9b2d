"""Tests of the files that are created for a document, and of the content of its PDF files."""

from __future__ import annotations

import io
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from pypdf import PdfReader

from include.documents.html import render_html
from include.documents.model import Document, Entry, Section
from include.documents.render import render_forms
from include.messages import verbatim
from include.reports import render
from include.reports.model import Paragraph, Steps
from include.reports.render import render_pdf, render_pdfs
from tests.documents import sample

NAMES = ["en.docx", "en.html", "en.pdf", "zh-CN.docx", "zh-CN.html", "zh-CN.pdf"]


@pytest.fixture(scope="module")
def files() -> Mapping[str, bytes]:
    return render_forms(sample.report(), sample.ZONE, "first-report").files


def pages(content: bytes, folder: Path) -> list[str]:
    """Return the text of each page of a PDF, without white space."""
    (folder / "x.pdf").write_bytes(content)
    done = subprocess.run(
        ["pdftotext", "-layout", "x.pdf", "-"], cwd=folder, capture_output=True, check=True
    )
    return [re.sub(r"\s+", "", part) for part in done.stdout.decode().split("\f")[:-1]]


@pytest.mark.pdf
def test_render_forms_returns_six_files_with_the_same_bytes_at_each_call(
    files: Mapping[str, bytes],
):
    assert sorted(files) == [f"first-report.{name}" for name in NAMES]
    assert render_forms(sample.report(), sample.ZONE, "first-report").files == files


@pytest.mark.pdf
@pytest.mark.parametrize(
    ("language", "warning", "said"),
    [
        (
            "en",
            "DRILL-notarealincident",
            [
                "ReportonaPersonalInformationSecurityIncident",
                "Reference:INC-2026-0007/CAC/1",
                "Becameaware2026-11-2403:12UTC+08:00",
                "Datasubjectsaffected1,204,331people",
                "2.Causeandpossibleharm",
                "Courierdatabase1,204,3313,870,0222026-11-20",
            ],
        ),
        (
            "zh-CN",
            "演练-并非真实事件",
            [
                "个人信息安全事件报告",
                "文件编号：INC-2026-0007/CAC/1",
                "浙江省互联网信息办公室：",
                "示例速递有限公司",
                "杭州市示例街2号",
                "发现时间2026-11-2403:12UTC+08:00",
                "受影响个人数量1,204,331人",
                "二、原因与可能造成的危害",
                "速递业务库1,204,3313,870,0222026-11-20",
            ],
        ),
    ],
)
def test_pdf_pages_have_warning_and_number(
    files: Mapping[str, bytes], tmp_path: Path, language: str, warning: str, said: list[str]
):
    number_text = {"en": "Page{}of2", "zh-CN": "第{}页，共2页"}[language]
    text = pages(files[f"first-report.{language}.pdf"], tmp_path)
    assert len(text) == 2
    for part in said:
        assert part in "".join(text)
    for number, page in enumerate(text, 1):
        assert warning in page
        assert page.endswith(number_text.format(number))


@pytest.mark.pdf
def test_pdf_file_has_pdf_a_metadata_and_tags_for_screen_readers(files: Mapping[str, bytes]):
    reader = PdfReader(io.BytesIO(files["first-report.zh-CN.pdf"]))
    root = reader.trailer["/Root"]
    assert root["/Lang"] == "zh-CN"
    assert root["/MarkInfo"]["/Marked"]
    assert "/StructTreeRoot" in root
    assert b"pdfaid" in root["/Metadata"].get_data()
    assert reader.metadata
    assert reader.metadata.title == f"个人信息安全事件报告 · {sample.REFERENCE}"
    assert not reader.metadata.author


@pytest.mark.pdf
def test_pdf_shows_html_markup_in_texts_as_plain_text(tmp_path: Path):
    html = render_html(sample.hostile(6_000), "zh_CN", sample.ZONE)
    text = "".join(pages(render_pdf(html), tmp_path))
    assert text.count("W") >= 3_000
    assert text.count("alert(1)</script>") > 10
    assert r"\u202eevil" in text


def letter(lines: int, *, steps: bool) -> Document:
    """Return a letter of some lines, with signature lines and a final note."""
    *words, last = [verbatim(f"line {number}") for number in range(1, lines)] + [verbatim("LAST")]
    blocks = (
        (Steps(items=[*words, last]),)
        if steps
        else tuple(Paragraph(text=text) for text in [*words, last])
    )
    return Document(
        title=verbatim("Letter"),
        dated=sample.AWARE,
        sections=(Section(heading=verbatim("Content"), blocks=blocks),),
        signature=(
            Entry(label=verbatim("NAME"), required=False),
            Entry(label=verbatim("SEAL"), required=False),
        ),
        footer=verbatim("NOTE"),
    )


@pytest.mark.pdf
@pytest.mark.parametrize("steps", [True, False], ids=["steps", "paragraphs"])
def test_signature_lines_and_final_note_are_on_the_page_of_the_last_paragraph(
    tmp_path: Path, steps: bool
) -> None:
    """For every length of the letter, wherever its page ends."""
    html = {
        f"{lines}.pdf": render_html(letter(lines, steps=steps), "en", sample.ZONE)
        for lines in range(14, 50)
    }
    files, not_made = render_pdfs(html)
    assert not_made == {}
    counts = set()
    for content in files.values():
        texts = [page for page in pages(content, tmp_path) if page.strip()]
        counts.add(len(texts))
        for words in ("LAST", "NAME", "SEAL", "NOTE"):
            assert words in texts[-1]
    assert counts == {1, 2}


def test_render_forms_without_pdf_creates_html_and_word_files():
    files = render_forms(sample.report(), sample.ZONE, "x", pdf=False).files
    assert sorted(files) == ["x.en.docx", "x.en.html", "x.zh-CN.docx", "x.zh-CN.html"]


def test_render_forms_returns_a_reason_instead_of_each_pdf_if_pango_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(render, "_LIBRARIES", ("libpango-nowhere.so.0",))
    rendered = render_forms(sample.report(), sample.ZONE, "x")
    assert sorted(rendered.files) == ["x.en.docx", "x.en.html", "x.zh-CN.docx", "x.zh-CN.html"]
    assert sorted(rendered.not_made) == ["x.en.pdf", "x.zh-CN.pdf"]
    assert all("apt-get install" in reason for reason in rendered.not_made.values())


@pytest.mark.parametrize("name", ["", "../x", "a/b", "A b", "x" * 101, ".x"])
def test_render_forms_raises_value_error_if_the_file_name_is_invalid(name: str):
    with pytest.raises(ValueError, match="is not a valid file name"):
        render_forms(sample.report(), sample.ZONE, name, pdf=False)
