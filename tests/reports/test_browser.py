"""The HTML report in Chromium sends no requests, logs no errors and is styled."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from html import unescape
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from include.messages import _
from include.reports.html import render_html
from include.reports.model import Column, Section, Table
from tests.reports import sample

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ITS_OWN = (".google.com", ".googleapis.com", ".gvt1.com")  # updates, time, dictionaries
NARROWEST = 500  # pixels of the narrowest window of the browser
MEASURE = """
const caption = document.querySelector('#b1-1').firstElementChild.getBoundingClientRect();
document.body.dataset.measured = JSON.stringify(
    {right: caption.right, height: caption.height, page: innerWidth});
"""
pytestmark = [
    pytest.mark.chromium,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install -y chromium"),
]


def _open(page: Path, tmp_path: Path, *options: str) -> tuple[str, str]:
    """Open a page in Chromium. Return the DOM, and the log with the page's console messages."""
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr",
        "--virtual-time-budget=2000",
        *options,
        "--dump-dom",
        page.as_uri(),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=90)
    return result.stdout, result.stderr


def _requests(netlog: Path) -> set[str]:
    """Return the URLs that the page requested, without requests of the browser's own services.

    Args:
        netlog: Chromium's network log.
    """
    log = json.loads(netlog.read_text(encoding="utf-8"))
    urls = {
        event["params"]["url"] for event in log["events"] if "url" in (event.get("params") or {})
    }
    return {url for url in urls if not (urlsplit(url).hostname or "").endswith(ITS_OWN)}


def _console(log: str) -> list[str]:
    return [line for line in log.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("locale", ["en", "zh_CN"])
def test_report_page_opens_without_network_requests_and_console_messages(
    tmp_path: Path, locale: str
):
    """The console lists every script, style and request that the security policy refuses."""
    page = tmp_path / "report.html"
    page.write_text(render_html(sample.failed(), locale), encoding="utf-8")
    dom, log = _open(page, tmp_path, f"--log-net-log={tmp_path / 'net.json'}")
    assert "public.waybills" in dom
    assert _console(log) == []
    assert _requests(tmp_path / "net.json") == set()


@pytest.mark.parametrize(("width", "wraps"), [(NARROWEST, True), (1280, False)])
def test_caption_of_a_wide_table_is_completely_visible_in_narrow_and_wide_windows(
    tmp_path: Path, width: int, wraps: bool
):
    """On a phone the table scrolls horizontally, and its caption is wrapped and does not scroll."""
    caption = _("All records of the collection customer, because no earlier check was sealed")
    ids = ["consent_not_covering_purpose"] * 4
    wide = Table(
        caption=caption, columns=[Column(label=_("Rule"), kind="code") for _id in ids], rows=[ids]
    )
    report = sample.passed().model_copy(
        update={"sections": [Section(heading=_("Wide"), blocks=[wide])]}
    )
    # The security policy of the page would refuse the script that measures the caption.
    html = re.sub("<meta http-equiv=.*?>", "", render_html(report, "en"))
    page = tmp_path / "wide.html"
    page.write_text(html.replace("</body>", f"<script>{MEASURE}</script></body>"), encoding="utf-8")
    dom, _log = _open(page, tmp_path, f"--window-size={width},900")
    match = re.search('data-measured="([^"]*)"', dom)
    assert match
    measured = json.loads(unescape(match[1]))
    assert measured["page"] == width
    assert measured["right"] <= width
    assert (measured["height"] > 30) == wraps


def test_browser_test_detects_page_with_network_requests_or_security_policy_violations(
    tmp_path: Path,
):
    """The test proves that the other tests of this module can fail."""
    html = render_html(sample.passed(), "en")
    with socket.create_server(("127.0.0.1", 0)) as server:
        picture = f'<img alt="" src="http://127.0.0.1:{server.getsockname()[1]}/x.png">'
        refused = tmp_path / "refused.html"
        refused.write_text(html.replace("<main", f"{picture}<main"), encoding="utf-8")
        _dom, log = _open(refused, tmp_path)
        assert any("Content Security Policy" in line for line in _console(log))
        loading = tmp_path / "loading.html"
        loading.write_text(f"<!DOCTYPE html><title>x</title>{picture}", encoding="utf-8")
        server.listen()
        netlog = tmp_path / "net.json"
        try:
            _open(loading, tmp_path, f"--log-net-log={netlog}", "--timeout=3000")
        finally:
            server.close()
        assert _requests(netlog)
