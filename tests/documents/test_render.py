"""All files of a document, and its PDF as people and programs read it."""

from __future__ import annotations

import io
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from pypdf import PdfReader

from include.documents.html import render_html
from include.documents.render import render_forms
from include.reports import render
from include.reports.render import render_pdf
from tests.documents import sample

NAMES = ["en.docx", "en.html", "en.pdf", "zh-CN.docx", "zh-CN.html", "zh-CN.pdf"]


@pytest.fixture(scope="module")
def files() -> Mapping[str, bytes]:
    return render_forms(sample.report(), sample.ZONE, "first-report").files


def pages(content: bytes, folder: Path) -> list[str]:
    """The text of each page, without white space."""
    (folder / "x.pdf").write_bytes(content)
    done = subprocess.run(
        ["pdftotext", "-layout", "x.pdf", "-"], cwd=folder, capture_output=True, check=True
    )
    return [re.sub(r"\s+", "", one) for one in done.stdout.decode().split("\f")[:-1]]


@pytest.mark.pdf
def test_six_files_are_made_and_made_again_as_they_were(files: Mapping[str, bytes]):
    """A retried task seals the same hashes."""
    assert sorted(files) == [f"first-report.{one}" for one in NAMES]
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
                "发现时间2026-11-2403:12UTC+08:00",
                "受影响个人数量1,204,331人",
                "二、原因与可能造成的危害",
                "速递业务库1,204,3313,870,0222026-11-20",
            ],
        ),
    ],
)
def test_each_page_of_the_pdf_is_read_with_its_warning_and_number(
    files: Mapping[str, bytes], tmp_path: Path, language: str, warning: str, said: list[str]
):
    """Text can be searched and copied; the warning and the number are on every page."""
    found = pages(files[f"first-report.{language}.pdf"], tmp_path)
    assert len(found) == 2
    for part in said:
        assert part in "".join(found)
    for number, page in enumerate(found, 1):
        assert warning in page
        assert page.endswith(f"{number}/2")


@pytest.mark.pdf
def test_the_pdf_is_archival_tagged_and_says_its_language(files: Mapping[str, bytes]):
    """As reports are; named by title and number."""
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
def test_hostile_texts_do_not_break_the_pdf(tmp_path: Path):
    """Endless words, a cell over several pages, signs that no page has."""
    html = render_html(sample.hostile(6_000), "zh_CN", sample.ZONE)
    found = "".join(pages(render_pdf(html), tmp_path))
    assert found.count("W") >= 3_000
    assert found.count("alert(1)</script>") > 10
    assert r"\u202eevil" in found


def test_pdf_files_can_be_left_out():
    """They cost most of the time."""
    made = render_forms(sample.report(), sample.ZONE, "x", pdf=False).files
    assert sorted(made) == ["x.en.docx", "x.en.html", "x.zh-CN.docx", "x.zh-CN.html"]


def test_without_pango_the_other_files_are_there_and_the_reason(monkeypatch: pytest.MonkeyPatch):
    """At three in the morning a missing library must not keep the report back."""
    monkeypatch.setattr(render, "_LIBRARIES", ("libpango-nowhere.so.0",))
    rendered = render_forms(sample.report(), sample.ZONE, "x")
    assert sorted(rendered.files) == ["x.en.docx", "x.en.html", "x.zh-CN.docx", "x.zh-CN.html"]
    assert sorted(rendered.not_made) == ["x.en.pdf", "x.zh-CN.pdf"]
    assert all("apt-get install" in reason for reason in rendered.not_made.values())


@pytest.mark.parametrize("name", ["", "../x", "a/b", "A b", "x" * 101, ".x"])
def test_a_name_that_is_none_of_a_file_is_refused(name: str):
    """It becomes a path in a bundle."""
    with pytest.raises(ValueError, match="is no name of a file"):
        render_forms(sample.report(), sample.ZONE, name, pdf=False)
