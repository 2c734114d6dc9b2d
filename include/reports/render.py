"""Render a report in both languages as HTML and, where WeasyPrint can run, as PDF."""

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
_LENGTH = 8  # bytes that state the length of a file, before the file in the output
_LIBRARIES = ("libpango-1.0.so.0", "libpangoft2-1.0.so.0", "libharfbuzz-subset.so.0")
_NO_PANGO = _(
    "Pango, which lays out PDF text, is not installed. Install it: "
    "apt-get install -y libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 fonts-noto-cjk"
)
_NO_FONT = _(
    "No installed font has Chinese characters. Install a font and the libraries for PDF files: "
    "apt-get install -y libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 fonts-noto-cjk"
)
_FAILED = _(
    "The PDF library stopped with an error. The log of this run contains the last line "
    "of the error message."
)
_TOO_LONG = _("The PDF library did not finish in time.")


class PdfNotCreated(ServiceError):
    """Raised if a PDF file could not be created. The message states the reason in a single line."""


def pdf_unavailable_reason() -> str | None:
    """Return the reason why this machine cannot make PDF files, or None if it can.

    The reason includes a command that installs the missing library or font.
    """
    if not _libraries_load(_LIBRARIES):
        return _NO_PANGO.text
    if not _has_chinese_font():
        return _NO_FONT.text
    return None


def render_pdf(html: str, timeout_s: float = TIMEOUT_S) -> bytes:
    """Convert a self-contained HTML page to a PDF/A-3u file.

    Args:
        html: content of the page.
        timeout_s: longest duration of the conversion, in seconds.

    Raises:
        PdfNotCreated: the PDF library failed or took too long, or the page loads an external
            resource.
    """
    return _run_child([html], timeout_s)[0]


def render_pdfs(pages: Mapping[str, str]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Convert self-contained HTML pages to PDF/A-3u files.

    If one page cannot be converted, all other pages are still converted. One child process converts
    all pages, because starting a process takes as long as converting a page.

    Args:
        pages: HTML of each page, by the name of its PDF file.

    Returns:
        The content of the created PDF files, and the reasons why the other files are missing; both
        by the name of the PDF file.
    """
    files: dict[str, bytes] = {}
    not_made: dict[str, str] = {}
    if not pages:
        return files, not_made
    try:
        return dict(zip(pages, _run_child(list(pages.values())), strict=True)), not_made
    except PdfNotCreated as error:
        if len(pages) == 1:
            return files, dict.fromkeys(pages, error.message)
    for name, html in pages.items():
        try:
            files[name] = render_pdf(html)
        except PdfNotCreated as error:
            not_made[name] = error.message
    return files, not_made


def _run_child(pages: list[str], timeout_s: float = TIMEOUT_S) -> list[bytes]:
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
        raise PdfNotCreated(_TOO_LONG.text) from error
    files = [] if child.returncode else _split_files(child.stdout)
    if len(files) != len(pages) or not all(file.startswith(b"%PDF-") for file in files):
        lines = child.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        log.error("PDF child ended with %s: %s", child.returncode, lines[-1])
        raise PdfNotCreated(_FAILED.text)
    return files


def _split_files(output: bytes) -> list[bytes]:
    """Return the PDF files that the child process wrote to its output.

    In the output, each file is preceded by its length, which is a number of 8 bytes.
    """
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
    """Return whether fontconfig, which Pango uses, finds a font with Chinese characters."""
    try:
        listing = subprocess.run(  # Debian's Pango package includes fc-list
            ["fc-list", "--format=%{file}\n", ":lang=zh-cn:scalable=true"],
            capture_output=True,
            check=False,
            timeout=60,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return bool(listing.stdout.strip())


def _convert(html: str) -> bytes:
    """Convert an HTML page to PDF. Only the child process calls this function."""
    from weasyprint import HTML
    from weasyprint.urls import FatalURLFetchingError, URLFetcher

    class Refuse(URLFetcher):  # type: ignore[misc] # weasyprint publishes no types
        """Refuses every request for an external resource. A report must be self-contained."""

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
        pdf = _convert(html)
        sys.stdout.buffer.write(len(pdf).to_bytes(_LENGTH) + pdf)


if __name__ == "__main__":
    _main()


@dataclass(frozen=True)
class Rendered:
    """The files of a rendered report.

    Attributes:
        files: content by file name, such as ``report.zh-CN.html``.
        not_made: files and parts of the report that could not be created: name -> reason in
            English.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    not_made: dict[str, str] = field(default_factory=dict)


def render_all(report: Report, *, pdf: bool = True) -> Rendered:
    """Render a report in every language.

    If files could not be created, the HTML files list them with the reasons.

    Args:
        report: content of the report.
        pdf: whether to create PDF files, which takes most of the time.

    Raises:
        ValueError: the report has a time without a timezone.
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
