"""PDF reports: archival format, text layer, fonts, and the reasons for missing files."""

from __future__ import annotations

import io
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pypdf import PdfReader

from include.messages import _, verbatim
from include.reports import render
from include.reports.html import render_html
from include.reports.model import Column, Section, Table
from include.reports.render import (
    PdfNotCreated,
    pdf_unavailable_reason,
    render_all,
    render_pdf,
    render_pdfs,
)
from tests.reports import sample


@pytest.fixture(scope="module")
def chinese() -> bytes:
    return render_pdf(render_html(sample.failed(), "zh_CN"))


@pytest.mark.pdf
def test_text_layer_of_the_pdf_has_chinese_and_english_text(chinese: bytes):
    """Search and copy work only if glyphs are mapped to the right characters."""
    text = re.sub(
        r"\s+", "", "".join(page.extract_text() for page in PdfReader(io.BytesIO(chinese)).pages)
    )
    for part in (
        "控制措施未通过",
        "处理措施",
        "如何核验本报告",
        "华东转运中心",
        "public.delivery_proofs",
    ):
        assert part in text
    assert "SHA256SUMS|sha256sum-c-" in text


@pytest.mark.pdf
def test_chinese_pdf_is_tagged_pdf_a_3u(chinese: bytes):
    """An archive requires level, colour profile, structure tree, language and title."""
    reader = PdfReader(io.BytesIO(chinese))
    root = reader.trailer["/Root"]
    metadata = root["/Metadata"].get_data().decode()
    assert re.search(r"part[>=]\"?3", metadata)
    assert re.search(r"conformance[>=]\"?U", metadata)
    assert root["/OutputIntents"][0]["/S"] == "/GTS_PDFA1"
    assert root["/MarkInfo"]["/Marked"]
    assert "/StructTreeRoot" in root
    assert root["/Lang"] == "zh-CN"
    assert reader.metadata
    assert "2026-11-24" in (reader.metadata.title or "")


@pytest.mark.pdf
def test_all_fonts_are_embedded_in_the_pdf(chinese: bytes):
    """A reader of an archived file may not have the fonts."""
    names = set()
    for page in PdfReader(io.BytesIO(chinese)).pages:
        for font in page["/Resources"]["/Font"].values():
            descriptor = font.get_object()["/DescendantFonts"][0].get_object()["/FontDescriptor"]
            assert {"/FontFile", "/FontFile2", "/FontFile3"} & set(descriptor)
            names.add(descriptor["/FontName"])
    assert names


@pytest.mark.pdf
def test_pdf_pages_show_chinese_glyphs(chinese: bytes, tmp_path: Path):
    """The test compares pixels, since boxes for missing glyphs have the same text layer."""
    (tmp_path / "r.pdf").write_bytes(chinese)
    (tmp_path / "t.pdf").write_bytes(render_pdf(_glyphs("控制措施未通过")))
    (tmp_path / "u.pdf").write_bytes(render_pdf(_glyphs("发现事项需关注")))
    for name in "rtu":
        command = ["pdftoppm", "-r", "60", "-gray", f"{name}.pdf", name]
        subprocess.run(command, cwd=tmp_path, check=True)
    pages = sorted(tmp_path.glob("r-*.pgm"))
    assert len(pages) >= 3
    for page in pages:
        pixels = page.read_bytes()[-400_000:]
        assert 0.001 < sum(pixel < 128 for pixel in pixels) / len(pixels) < 0.5
    # With boxes for missing glyphs, two different texts of the same length would look the same.
    assert (tmp_path / "t-1.pgm").read_bytes() != (tmp_path / "u-1.pgm").read_bytes()


def _glyphs(text: str) -> str:
    return (
        f'<!DOCTYPE html><html lang="zh-CN"><title>x</title><body style="font: 40pt serif">{text}'
    )


@pytest.mark.pdf
def test_id_in_a_table_with_sentences_is_not_broken_across_lines():
    """Engineers copy ids into commands. The sentence beside an id can be wrapped instead."""
    name = "minor_without_guardian_consent"
    heads = ["Expectation", "Rule", "Clause", "Records", "Broken", "Share", "Tolerated"]
    columns = [Column(label=_("{x}", x=head)) for head in heads]
    columns[1] = Column(label=_("Rule"), kind="code")
    sentence = "Whoever is not fourteen years old yet has a guardian, and the guardian consented"
    row = [sentence, name, "4.1", "20,096", "40", "16.67%", "10%"]
    table = Table(caption=_("Rules"), columns=columns, rows=[row])
    section = Section(heading=_("Rules"), blocks=[table])
    report = sample.passed().model_copy(update={"sections": [section]})
    pages = PdfReader(io.BytesIO(render_pdf(render_html(report, "en")))).pages
    assert name in "".join(page.extract_text() for page in pages)


@pytest.mark.pdf
def test_table_with_long_headings_of_number_columns_is_not_cut_at_the_edge_of_the_page(
    tmp_path: Path,
):
    """Text outside of the page is not part of the text layer that pdftotext reads."""
    heads = ("Start date of a statutory period missing", "Referenced by other records", "Planned")
    columns = [Column(label=_("Record class"))]
    columns += [Column(label=verbatim(head), kind="number") for head in (*heads, *heads)]
    table = Table(caption=_("Expired"), columns=columns, rows=[["Waybills", *range(6)]])
    section = Section(heading=_("Records"), blocks=[table])
    report = sample.passed().model_copy(update={"sections": [section]})
    file = tmp_path / "report.pdf"
    file.write_bytes(render_pdf(render_html(report, "en")))
    text = subprocess.run(
        ["pdftotext", str(file), "-"], check=True, capture_output=True, text=True
    ).stdout
    assert text.count("Planned") == 2


@pytest.mark.pdf
def test_pdf_bytes_are_reproducible(chinese: bytes):
    """The evidence bundle seals the digest of the file."""
    assert render_pdf(render_html(sample.failed(), "zh_CN")) == chinese


@pytest.mark.pdf
@pytest.mark.parametrize("form", ['<img src="{}" alt="x">', '<link rel="stylesheet" href="{}">'])
def test_render_pdf_raises_pdf_not_created_for_page_with_external_resources(form: str):
    """The PDF library refuses the page before it opens a network connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        with pytest.raises(PdfNotCreated):
            render_pdf(f"<!DOCTYPE html><title>x</title>{form.format(url)}")
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.pdf
def test_render_pdf_raises_pdf_not_created_for_page_with_local_file_urls(tmp_path: Path):
    """The PDF library refuses ``file:`` URLs."""
    (tmp_path / "x.svg").write_text("<svg/>")
    with pytest.raises(PdfNotCreated):
        render_pdf(
            f'<!DOCTYPE html><title>x</title><img alt="" src="{(tmp_path / "x.svg").as_uri()}">'
        )


@pytest.mark.pdf
def test_render_all_returns_html_and_pdf_in_every_language():
    """The four files are HTML and PDF in English and Chinese."""
    rendered = render_all(sample.passed())
    assert sorted(rendered.files) == [
        "report.en.html",
        "report.en.pdf",
        "report.zh-CN.html",
        "report.zh-CN.pdf",
    ]
    assert rendered.not_made == {}


def test_render_pdf_raises_pdf_not_created_if_the_pdf_process_crashes(
    monkeypatch: pytest.MonkeyPatch,
):
    """The reason of the crash is reported in a single line."""
    monkeypatch.setattr(render.sys, "executable", "/bin/false")
    with pytest.raises(PdfNotCreated, match="stopped with an error"):
        render_pdf("<p>")


def test_render_pdf_raises_pdf_not_created_if_the_pdf_process_exceeds_the_timeout():
    """A run must not wait for its PDF files without a limit."""
    with pytest.raises(PdfNotCreated, match="in time"):
        render_pdf("<p>", timeout_s=0.01)


def test_pdf_unavailable_reason_contains_missing_libraries_and_installation_command(
    monkeypatch: pytest.MonkeyPatch,
):
    """The reason includes the command that installs the libraries."""
    monkeypatch.setattr(render, "_LIBRARIES", ("libpango-nowhere.so.0",))
    reason = pdf_unavailable_reason()
    assert reason
    assert reason.startswith("Pango")
    assert "apt-get install -y libpango-1.0-0" in reason
    assert "\n" not in reason


def test_pdf_unavailable_reason_contains_font_package_if_no_chinese_font_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """The test runs the real font library with a configuration without fonts."""
    (tmp_path / "fonts.conf").write_text(
        '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>'
        f"<dir>{tmp_path}</dir><cachedir>{tmp_path}</cachedir></fontconfig>"
    )
    monkeypatch.setattr(render, "_LIBRARIES", ())
    monkeypatch.setenv("FONTCONFIG_FILE", str(tmp_path / "fonts.conf"))
    reason = pdf_unavailable_reason()
    assert reason
    assert "Chinese" in reason
    assert "fonts-noto-cjk" in reason


def test_html_report_contains_the_reason_why_pdf_files_are_missing(monkeypatch: pytest.MonkeyPatch):
    """The evidence bundle lists the same missing files."""
    monkeypatch.setattr(render, "_LIBRARIES", ("libpango-nowhere.so.0",))
    rendered = render_all(sample.passed())
    assert sorted(rendered.files) == ["report.en.html", "report.zh-CN.html"]
    assert sorted(rendered.not_made) == ["report.en.pdf", "report.zh-CN.pdf"]
    assert "apt-get install" in rendered.files["report.en.html"].decode()
    assert "请由数据工程团队安装" in rendered.files["report.zh-CN.html"].decode()


@pytest.mark.pdf
def test_render_pdfs_returns_the_other_files_if_one_page_cannot_be_converted():
    """The remaining pages are converted again without the page that failed."""
    good, bad = _glyphs("x"), '<!DOCTYPE html><title>x</title><img src="file:///x" alt="x">'
    files, not_made = render_pdfs({"good.pdf": good, "bad.pdf": bad, "good2.pdf": good})
    assert files == dict.fromkeys(["good.pdf", "good2.pdf"], render_pdf(good))
    assert list(not_made) == ["bad.pdf"]
    assert "stopped with an error" in not_made["bad.pdf"]
    assert render_pdfs({}) == ({}, {})


def test_importing_render_does_not_import_weasyprint():
    """Importing WeasyPrint would slow down the start of every command."""
    code = "import sys, include.reports.render; print('weasyprint' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
