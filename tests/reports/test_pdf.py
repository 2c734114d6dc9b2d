"""PDF reports: archival, readable by people and programs, and a reason where there is none."""

from __future__ import annotations

import io
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pypdf import PdfReader

from include.messages import _
from include.reports import render
from include.reports.html import render_html
from include.reports.model import Column, Section, Table
from include.reports.render import (
    PdfNotMade,
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
def test_the_text_layer_holds_chinese_and_english(chinese: bytes):
    """Search and copy work, so the glyphs map to the right characters."""
    text = re.sub(
        r"\s+", "", "".join(page.extract_text() for page in PdfReader(io.BytesIO(chinese)).pages)
    )
    for part in (
        "控制措施未达到要求",
        "处理措施",
        "如何核验本报告",
        "华东转运中心",
        "public.delivery_proofs",
    ):
        assert part in text
    assert "SHA256SUMS|sha256sum-c-" in text


@pytest.mark.pdf
def test_the_file_says_it_is_pdf_a_3u_tagged_and_in_chinese(chinese: bytes):
    """Archival level, colour profile, structure tree, document language, title."""
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
def test_every_font_is_embedded(chinese: bytes):
    """An archive cannot count on the reader's fonts."""
    names = set()
    for page in PdfReader(io.BytesIO(chinese)).pages:
        for font in page["/Resources"]["/Font"].values():
            descriptor = font.get_object()["/DescendantFonts"][0].get_object()["/FontDescriptor"]
            assert {"/FontFile", "/FontFile2", "/FontFile3"} & set(descriptor)
            names.add(descriptor["/FontName"])
    assert names


@pytest.mark.pdf
def test_pages_are_drawn_with_chinese_glyphs(chinese: bytes, tmp_path: Path):
    """A page of empty boxes has a perfect text layer: look at the ink."""
    (tmp_path / "r.pdf").write_bytes(chinese)
    (tmp_path / "t.pdf").write_bytes(render_pdf(_glyphs("控制措施未达到")))
    (tmp_path / "u.pdf").write_bytes(render_pdf(_glyphs("发现事项需关注")))
    for name in "rtu":
        command = ["pdftoppm", "-r", "60", "-gray", f"{name}.pdf", name]
        subprocess.run(command, cwd=tmp_path, check=True)
    pages = sorted(tmp_path.glob("r-*.pgm"))
    assert len(pages) >= 3
    for page in pages:
        pixels = page.read_bytes()[-400_000:]
        assert 0.001 < sum(pixel < 128 for pixel in pixels) / len(pixels) < 0.5
    # Boxes for missing glyphs would make two different texts of one length look the same.
    assert (tmp_path / "t-1.pgm").read_bytes() != (tmp_path / "u-1.pgm").read_bytes()


def _glyphs(text: str) -> str:
    return (
        f'<!DOCTYPE html><html lang="zh-CN"><title>x</title><body style="font: 40pt serif">{text}'
    )


@pytest.mark.pdf
def test_an_id_is_not_broken_beside_sentences():
    """Somebody copies it into a command; the sentence has the room to wrap."""
    name = "minor_without_guardian_consent"
    heads = ["Expectation", "Rule", "Clause", "Records", "Broken", "Share", "Tolerated"]
    columns = [Column(label=_("{x}", x=one)) for one in heads]
    columns[1] = Column(label=_("Rule"), kind="code")
    sentence = "Whoever is not fourteen years old yet has a guardian, and the guardian consented"
    row = [sentence, name, "4.1", "20,096", "40", "16.67%", "10%"]
    table = Table(caption=_("Rules"), columns=columns, rows=[row])
    section = Section(heading=_("Rules"), blocks=[table])
    report = sample.passed().model_copy(update={"sections": [section]})
    pages = PdfReader(io.BytesIO(render_pdf(render_html(report, "en")))).pages
    assert name in "".join(page.extract_text() for page in pages)


@pytest.mark.pdf
def test_the_same_page_gives_the_same_bytes(chinese: bytes):
    """Sealed by hash, comparable after a rerun."""
    assert render_pdf(render_html(sample.failed(), "zh_CN")) == chinese


@pytest.mark.pdf
@pytest.mark.parametrize("form", ['<img src="{}" alt="x">', '<link rel="stylesheet" href="{}">'])
def test_nothing_is_ever_fetched(form: str):
    """A page that asks for more is refused before a connection is made."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        with pytest.raises(PdfNotMade):
            render_pdf(f"<!DOCTYPE html><title>x</title>{form.format(url)}")
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.pdf
def test_files_of_the_machine_are_not_read(tmp_path: Path):
    """``file:`` is a request too."""
    (tmp_path / "x.svg").write_text("<svg/>")
    with pytest.raises(PdfNotMade):
        render_pdf(
            f'<!DOCTYPE html><title>x</title><img alt="" src="{(tmp_path / "x.svg").as_uri()}">'
        )


@pytest.mark.pdf
def test_all_files_of_a_report_are_made():
    """Two languages, two forms, nothing missing."""
    rendered = render_all(sample.passed())
    assert sorted(rendered.files) == [
        "report.en.html",
        "report.en.pdf",
        "report.zh-CN.html",
        "report.zh-CN.pdf",
    ]
    assert rendered.not_made == {}


def test_a_crash_of_the_library_is_a_reason(monkeypatch: pytest.MonkeyPatch):
    """The child dies, the caller lives; no traceback, one line."""
    monkeypatch.setattr(render.sys, "executable", "/bin/false")
    with pytest.raises(PdfNotMade, match="stopped with an error"):
        render_pdf("<p>")


def test_a_child_that_hangs_is_ended_and_is_a_reason():
    """A run must not wait for ever for a picture of itself."""
    with pytest.raises(PdfNotMade, match="in time"):
        render_pdf("<p>", timeout_s=0.01)


def test_missing_libraries_are_found_by_loading_them(monkeypatch: pytest.MonkeyPatch):
    """The reason names the command that helps."""
    monkeypatch.setattr(render, "_LIBRARIES", ("libpango-nowhere.so.0",))
    reason = pdf_unavailable_reason()
    assert reason
    assert reason.startswith("Pango")
    assert "apt-get install -y libpango-1.0-0" in reason
    assert "\n" not in reason


def test_a_machine_without_chinese_font_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The font library is asked for real, here with a configuration that knows no fonts."""
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


def test_without_pdf_the_html_says_why(monkeypatch: pytest.MonkeyPatch):
    """And the bundle gets the same reason."""
    monkeypatch.setattr(render, "_LIBRARIES", ("libpango-nowhere.so.0",))
    rendered = render_all(sample.passed())
    assert sorted(rendered.files) == ["report.en.html", "report.zh-CN.html"]
    assert sorted(rendered.not_made) == ["report.en.pdf", "report.zh-CN.pdf"]
    assert "apt-get install" in rendered.files["report.en.html"].decode()
    assert "安装命令" in rendered.files["report.zh-CN.html"].decode()


@pytest.mark.pdf
def test_one_failed_page_does_not_cost_the_others():
    """Each file stands for itself, also where one child makes them all."""
    good, bad = _glyphs("x"), '<!DOCTYPE html><title>x</title><img src="file:///x" alt="x">'
    files, not_made = render_pdfs({"good.pdf": good, "bad.pdf": bad, "good2.pdf": good})
    assert files == dict.fromkeys(["good.pdf", "good2.pdf"], render_pdf(good))
    assert list(not_made) == ["bad.pdf"]
    assert "stopped with an error" in not_made["bad.pdf"]
    assert render_pdfs({}) == ({}, {})


def test_importing_the_module_does_not_import_weasyprint():
    """The whole command line would pay for it."""
    code = "import sys, include.reports.render; print('weasyprint' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
