"""Render a report in both languages: HTML and, where WeasyPrint is installed, PDF."""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from include.messages import _
from include.reports.html import render_html
from include.reports.i18n import LOCALES, language_tag
from include.reports.model import Report
from include.services.errors import ServiceError

log = logging.getLogger(__name__)

# PDF/A-3u (archival, every glyph mapped to Unicode), tagged as well for screen readers. Level
# 3a would claim that the tags are complete, which nothing here can prove.
PDF_VARIANT = "pdf/a-3u"
TIMEOUT_S = 180
_LENGTH = 8  # bytes of a file's length before it, in what the child writes
_LIBRARIES = ("libpango-1.0.so.0", "libpangoft2-1.0.so.0", "libharfbuzz-subset.so.0")
_NO_PANGO = _(
    "Pango, which lays out PDF text, is not installed. Install it: "
    "apt-get install -y libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 fonts-noto-cjk"
)
_NO_FONT = _(
    "No installed font has Chinese characters. Install one: "
    "apt-get install -y libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 fonts-noto-cjk"
)
_FAILED = _("The PDF library stopped with an error; the log of this run has its last line.")
_TOO_LONG = _("The PDF library did not finish in time.")


class PdfNotMade(ServiceError):
    """No PDF came out; the message is the reason, in one line."""


def pdf_unavailable_reason() -> str | None:
    """Why no PDF can be made on this machine, with the command that helps; None if it can."""
    if not _libraries_load(_LIBRARIES):
        return _NO_PANGO.text
    if not _has_chinese_font():
        return _NO_FONT.text
    return None


def render_pdf(html: str, timeout_s: float = TIMEOUT_S) -> bytes:
    """Make a PDF/A-3u file of a self-contained page.

    Raises:
        PdfNotMade: the library failed or took too long, or the page asked for something outside
            itself.
    """
    return _made([html], timeout_s)[0]


def render_pdfs(pages: Mapping[str, str]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Make PDF/A-3u files of self-contained pages; each stands for itself.

    One child makes them all, since its start costs as much as a page.

    Args:
        pages: HTML by name of the file that is made of it.

    Returns:
        What was made, by name, and why the others were not.
    """
    files: dict[str, bytes] = {}
    not_made: dict[str, str] = {}
    if not pages:
        return files, not_made
    try:
        return dict(zip(pages, _made(list(pages.values())), strict=True)), not_made
    except PdfNotMade as error:
        if len(pages) == 1:
            return files, dict.fromkeys(pages, error.message)
    for name, html in pages.items():
        try:
            files[name] = render_pdf(html)
        except PdfNotMade as error:
            not_made[name] = error.message
    return files, not_made


def _made(pages: list[str], timeout_s: float = TIMEOUT_S) -> list[bytes]:
    command = [sys.executable, "-m", "include.reports.render"]
    root = Path(__file__).parents[2]  # the child finds the package from here
    try:
        child = subprocess.run(
            command,
            input=json.dumps(pages).encode(),
            capture_output=True,
            cwd=root,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PdfNotMade(_TOO_LONG.text) from error
    files = [] if child.returncode else _unframed(child.stdout)
    if len(files) != len(pages) or not all(file.startswith(b"%PDF-") for file in files):
        lines = child.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        log.error("PDF child ended with %s: %s", child.returncode, lines[-1])
        raise PdfNotMade(_FAILED.text)
    return files


def _unframed(output: bytes) -> list[bytes]:
    """The files that the child wrote, each after its length."""
    files, at = [], 0
    while at < len(output):
        at += _LENGTH
        size = int.from_bytes(output[at - _LENGTH : at])
        files.append(output[at : at + size])
        at += size
    return files


def _libraries_load(names: tuple[str, ...]) -> bool:
    try:
        for name in names:
            ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _has_chinese_font() -> bool:
    """Ask fontconfig, as Pango will; Debian's Pango package brings ``fc-list``."""
    try:
        found = subprocess.run(
            ["fc-list", "--format=%{file}\n", ":lang=zh-cn:scalable=true"],
            capture_output=True,
            check=False,
            timeout=60,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return bool(found.stdout.strip())


def _convert(html: str) -> bytes:
    """Runs in the child."""
    from weasyprint import HTML
    from weasyprint.urls import FatalURLFetchingError, URLFetcher

    class Refuse(URLFetcher):  # type: ignore[misc] # weasyprint publishes no types
        """A report holds all it needs; whatever asks for more is a defect of the page."""

        def fetch(self, url: str, headers: Any = None) -> Any:
            raise FatalURLFetchingError(f"a report may not load {url[:200]}")

    # The identifier comes from the content: the same report gives the same bytes.
    identifier = hashlib.sha256(html.encode()).digest()[:16]
    page = HTML(string=html, url_fetcher=Refuse(), media_type="print")
    result = page.write_pdf(
        pdf_variant=PDF_VARIANT, pdf_tags=True, pdf_identifier=identifier, custom_metadata=False
    )
    assert isinstance(result, bytes)
    return result


def _main() -> None:
    for html in json.loads(sys.stdin.buffer.read()):
        made = _convert(html)
        sys.stdout.buffer.write(len(made).to_bytes(_LENGTH) + made)


if __name__ == "__main__":
    _main()


@dataclass(frozen=True)
class Rendered:
    """The files of a report.

    Attributes:
        files: file name -> content, ``report.zh-CN.html``.
        not_made: file name -> why it is missing, with what was missing before.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    not_made: dict[str, str] = field(default_factory=dict)


def render_all(report: Report, *, pdf: bool = True) -> Rendered:
    """Render a report in every language; a PDF that cannot be made becomes a reason.

    The HTML files name everything that was not made, the PDF files included.

    Args:
        report: what to say.
        pdf: False leaves the PDF files out; they cost most of the time.

    Raises:
        ValueError: the report holds a time without timezone.
    """
    pages = {f"report.{language_tag(locale)}": render_html(report, locale) for locale in LOCALES}
    files: dict[str, bytes] = {}
    reasons: dict[str, str] = {}
    if not pdf:
        pass
    elif unavailable := pdf_unavailable_reason():
        reasons = {f"{name}.pdf": unavailable for name in pages}
    else:
        files, reasons = render_pdfs({f"{name}.pdf": page for name, page in pages.items()})
    not_made = {**report.not_made, **reasons}
    if reasons:
        complete = report.model_copy(update={"not_made": not_made})
        pages = {
            f"report.{language_tag(locale)}": render_html(complete, locale) for locale in LOCALES
        }
    files |= {f"{name}.html": page.encode() for name, page in pages.items()}
    return Rendered(files, not_made)
