"""The content and the HTTP headers of the compliance pages."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import zipfile
from datetime import timedelta
from html import unescape
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import pytest

from include.evidence.model import Outcome
from tests.plugins.browsing import CONTROL_PAGE, PAST_DAY
from tests.plugins.company import HOSTILE_FILE, NOW, PACK, SEALED, XSS
from tests.plugins.pages_server import PagesServer
from tests.plugins.use_data import ENDED, EXPIRED, LIVE, PREPARED, REJECTED, WAITING
from tests.support.fab import ADMIN

pytestmark = pytest.mark.airflow
OFFICER = "Compliance Officer"
PAGES = (
    "/",
    f"/?asof={PAST_DAY}",
    CONTROL_PAGE,
    "/evidence",
    "/waiting",
    "/clocks",
    "/holds",
    "/findings",
    "/use",
    *(f"/use/{number}" for number in (LIVE, EXPIRED, WAITING, REJECTED, ENDED, PREPARED)),
    "/restore-points",
)


class ParsedPage(HTMLParser):
    """The tags and the text of an HTML page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        # Messages of services and commands are English, and marked as such.
        self.feed(re.sub(r'<(p|span) lang="en">.*?</\1>', "", page))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def every_page(pages_server: PagesServer) -> list[str]:
    bundles = [f"/evidence/{row.seq}" for row in pages_server.company.rows()[:-1]]
    return [*PAGES, *bundles]


def test_html_in_names_and_reasons_is_escaped_on_every_page(pages_server: PagesServer) -> None:
    """The names and reasons of bundles, holds, findings and incidents contain scripts."""
    texts = 0
    for path in every_page(pages_server):
        got = pages_server.get(OFFICER, path)
        assert got.status_code == 200, path
        page = ParsedPage(got.text)
        scripts = [attrs for tag, attrs in page.tags if tag == "script"]
        assert [script.get("src", "").partition("?")[0] for script in scripts] == [
            "/compliance/assets/pages.js"
        ], path
        assert not [tag for tag, _attrs in page.tags if tag in ("img", "iframe", "object")], path
        assert not [a for _tag, attrs in page.tags for a in attrs if a.startswith("on")], path
        assert "\u202e" not in got.text, path
        texts += "<script>document.title" in page.text
    assert texts >= 8, "the hostile words should have been on many pages"


def test_every_response_has_the_security_headers(pages_server: PagesServer) -> None:
    row = pages_server.company.newest("backup_offsite")
    for role, path in (
        *((OFFICER, page) for page in every_page(pages_server)),
        (None, "/"),
        (OFFICER, "/nowhere"),
        ("Supervisor", "/clocks"),
    ):
        headers = pages_server.get(role, path).headers
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "dur=" in headers["server-timing"]
    for name in ("report.en.html", "result.json", "plan.csv", HOSTILE_FILE):
        got = pages_server.get(OFFICER, f"/evidence/{row.seq}/files/{quote(name, safe='')}")
        assert got.status_code == 200, name
        assert got.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
        assert got.headers["x-content-type-options"] == "nosniff"


def test_content_disposition_header_contains_percent_encoded_file_name(
    pages_server: PagesServer,
) -> None:
    row = pages_server.company.newest("backup_offsite")
    got = pages_server.get(
        OFFICER, f"/evidence/{row.seq}/files/{quote(HOSTILE_FILE, safe='')}?download=1"
    )
    assert got.content == b"<script>alert(1)</script>"
    disposition = got.headers["content-disposition"]
    assert disposition == f"attachment; filename*=UTF-8''{quote(HOSTILE_FILE, safe='')}"


@pytest.mark.parametrize(
    "name",
    [
        "..%2f..%2f..%2f..%2fevidence.pub",
        "..%2fmanual/result.json",
        "%2fetc%2fpasswd",
        "report.en.html%2f..%2fresult.json",
        "%00",
        "report.en.html%00",
        "..%5c..%5cevidence.pub",
    ],
)
def test_file_name_with_nul_byte_or_path_outside_of_the_bundle_gets_status_404(
    pages_server: PagesServer, name: str
) -> None:
    row = pages_server.company.newest("backup_offsite")
    assert pages_server.get(OFFICER, f"/evidence/{row.seq}/files/{name}").status_code == 404


@pytest.mark.parametrize("number", ["0", "-1", "99999", str(2**63), "1e3", "x", "1%20OR%201=1"])
def test_request_for_an_unknown_bundle_gets_an_error_page(
    pages_server: PagesServer, number: str
) -> None:
    got = pages_server.get(OFFICER, f"/evidence/{number}")
    assert got.status_code in (400, 404)
    assert "Traceback" not in got.text
    assert "To the first page" in got.text


def test_bundle_page_shows_the_number_of_the_report(pages_server: PagesServer) -> None:
    row = pages_server.company.newest("backup_offsite")
    page = ParsedPage(pages_server.get(OFFICER, f"/evidence/{row.seq}").text)
    assert re.search(r"Number of the report BACKUP-OFFSITE-\d{8}-[0-9A-F]{8} ", page.text)


def test_report_is_shown_in_the_language_of_the_visitor(pages_server: PagesServer) -> None:
    row = pages_server.company.newest("backup_offsite")
    folder = pages_server.company.root / "evidence" / row.bundle
    for language, tag in (("en", "en"), ("zh-TW,zh;q=0.9", "zh-CN"), ("fr", "en")):
        got = pages_server.get(OFFICER, f"/evidence/{row.seq}/report", language)
        assert got.content == (folder / f"report.{tag}.html").read_bytes()
    pdf = pages_server.get(OFFICER, f"/evidence/{row.seq}/files/report.zh-CN.pdf")
    assert pdf.headers["content-type"] == "application/pdf"
    assert pdf.content.startswith(b"%PDF")


def test_verification_commands_on_the_bundle_page_succeed_for_the_downloaded_zip(
    pages_server: PagesServer, tmp_path: Path
) -> None:
    """The commands need only the programs sha256sum and openssl."""
    row = pages_server.company.newest("check_quality")
    got = pages_server.get(OFFICER, f"/evidence/{row.seq}/bundle.zip")
    zipfile.ZipFile(io.BytesIO(got.content)).extractall(tmp_path)
    page = pages_server.get(OFFICER, f"/evidence/{row.seq}").text
    block = re.search(r"<pre[^>]*><code>(.*?)</code></pre>", page, re.DOTALL)
    assert block is not None
    unpack, *lines = unescape(block[1]).splitlines()
    assert shlex.split(unpack) == ["unzip", f"{PurePosixPath(row.bundle).name}.zip"]
    assert shlex.split(unpack)[1] in got.headers["content-disposition"]
    process = subprocess.run(
        ["bash", "-ec", "\n".join(lines)], cwd=tmp_path, capture_output=True, check=False
    )
    assert process.returncode == 0, (process.stdout, process.stderr)


def test_every_page_is_completely_in_the_language_of_the_visitor(pages_server: PagesServer) -> None:
    chinese = re.compile(r"[\u4e00-\u9fff]")
    for path in every_page(pages_server):
        english = ParsedPage(pages_server.get(OFFICER, path, "en").text).text
        assert set(chinese.findall(english)) <= set("中文"), path
        page = ParsedPage(pages_server.get(OFFICER, path, "zh-CN").text).text
        for word in ("the ", "Outcome", "Sealed", "Workflow", "Findings", "As of", "held"):
            assert word not in page.replace(XSS, ""), (path, word)


def test_language_chosen_in_the_url_is_kept_in_a_cookie_for_later_pages(
    pages_server: PagesServer,
) -> None:
    session = pages_server.airflow.session(OFFICER)
    session.headers["Accept-Language"] = "en"
    got = session.get(f"{pages_server.url}/evidence?outcome=fail&lang=zh-CN", timeout=120)
    assert '<html lang="zh-CN">' in got.text
    assert '<option value="fail" selected>' in got.text
    assert '<html lang="zh-CN">' in session.get(f"{pages_server.url}/", timeout=120).text
    cookie = next(cookie for cookie in session.cookies if cookie.name == "parcelseal_language")
    assert cookie.path == "/compliance"


def test_evidence_page_shows_only_the_bundles_that_match_its_filters(
    pages_server: PagesServer,
) -> None:
    rows = pages_server.company.rows()
    visible = [row for row in rows if row.dag_id != "a_workflow_of_yesterday"]

    def bundle_numbers(query: str) -> set[int]:
        page = pages_server.get(OFFICER, f"/evidence?{query}").text
        return {int(row) for row in re.findall(r'<a href="/compliance/evidence/(\d+)">', page)}

    assert bundle_numbers("") == {bundle.seq for bundle in visible}
    failed = {bundle.seq for bundle in visible if bundle.outcome == Outcome.FAIL}
    assert bundle_numbers("outcome=fail") == failed
    backups = {bundle.seq for bundle in visible if bundle.dag_id == "backup_offsite"}
    assert bundle_numbers("workflow=backup_offsite") == backups
    assert bundle_numbers("workflow=backup_offsite&outcome=fail") == backups & failed
    drills = {bundle.seq for bundle in visible if bundle.dag_id == "drill_restore"}
    assert bundle_numbers("clause=4.2") == backups | drills
    assert bundle_numbers("clause=9.9") == set()
    tomorrow = (NOW + timedelta(days=2)).date()
    assert bundle_numbers(f"since={tomorrow}") == set()
    assert bundle_numbers(f"until={tomorrow}") == {bundle.seq for bundle in visible}
    page = pages_server.get(OFFICER, "/evidence?since=yesterday").text
    assert "yesterday is not a date" in page


@pytest.mark.parametrize(
    "query",
    [
        "outcome=good",
        "order=best",
        "after=x",
        "before=1e9",
        f"workflow={'w' * 300}",
        "last=perhaps",
    ],
)
def test_evidence_page_with_invalid_filter_gets_an_error_page(
    pages_server: PagesServer, query: str
) -> None:
    got = pages_server.get(OFFICER, f"/evidence?{query}")
    assert got.status_code == 400
    assert "The address is not valid" in got.text


def test_overview_shows_outcomes_of_controls_and_number_of_findings(
    pages_server: PagesServer,
) -> None:
    page = ParsedPage(pages_server.get(OFFICER, "/").text).text
    assert f"of {len(PACK.controls)} controls passed" in page
    assert "failed" in page
    assert "no evidence yet" in page
    findings = pages_server.company.findings().values()
    overdue = sum(
        finding.overdue(NOW.astimezone(PACK.calendar.zone).date()) for finding in findings
    )
    assert f"Open findings: {len(findings)}; overdue: {overdue}." in page


def test_pages_show_time_left_for_incidents_and_numbers_of_due_legal_holds_and_overdue_findings(
    pages_server: PagesServer,
) -> None:
    clocks = ParsedPage(pages_server.get(OFFICER, "/clocks").text).text
    assert f"INC-{NOW.year}-0001" in clocks
    assert "left" in clocks
    holds = ParsedPage(pages_server.get(OFFICER, "/holds").text).text
    assert "Legal holds on records or restore points: 2; due for review: 1." in holds
    text = ParsedPage(pages_server.get(OFFICER, "/findings").text).text
    totals = re.search(r"Open items: (\d+); overdue: (\d+).", text)
    assert totals is not None
    assert int(totals[1]) >= len(pages_server.company.findings())
    assert int(totals[2]) >= 1


def test_evidence_page_sorted_by_oldest_begins_with_first_bundle_and_can_open_its_last_page(
    pages_server: PagesServer,
) -> None:
    page = pages_server.get(ADMIN, "/evidence?order=oldest").text
    first = re.search(r'<a href="/compliance/evidence/(\d+)">', page)
    assert first is not None
    assert first[1] == "1"
    last = pages_server.get(ADMIN, "/evidence?order=oldest&last=true").text
    assert len(re.findall(r'<a href="/compliance/evidence/(\d+)">', last)) >= len(SEALED) - 1
