"""What the pages say, and what they say when something is wrong."""

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
from tests.plugins.company import HOSTILE_FILE, NOW, SEALED, XSS
from tests.plugins.shown import Shown
from tests.support.fab import ADMIN

pytestmark = pytest.mark.airflow
OFFICER = "Compliance Officer"
PAGES = ("/", "/evidence", "/waiting", "/clocks", "/holds", "/findings", "/restore-points")


class Seen(HTMLParser):
    """Tags and text of a page, as a browser would have them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        # What services and their commands say is English, and marked as such.
        self.feed(re.sub(r'<(p|span) lang="en">.*?</\1>', "", page))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def every_page(shown: Shown) -> list[str]:
    bundles = [f"/evidence/{one.seq}" for one in shown.company.rows()[:-1]]
    return [*PAGES, *bundles]


def test_nothing_of_what_people_wrote_becomes_a_part_of_a_page(shown: Shown) -> None:
    """Names, words and file names of bundles, holds, findings, incidents, points are text."""
    said = 0
    for path in every_page(shown):
        got = shown.get(OFFICER, path)
        assert got.status_code == 200, path
        page = Seen(got.text)
        own = [attrs for tag, attrs in page.tags if tag == "script"]
        assert [one.get("src", "").partition("?")[0] for one in own] == [
            "/compliance/assets/pages.js"
        ], path
        assert not [tag for tag, _attrs in page.tags if tag in ("img", "iframe", "object")], path
        assert not [a for _tag, attrs in page.tags for a in attrs if a.startswith("on")], path
        assert "\u202e" not in got.text, path
        said += "<script>document.title" in page.text
    assert said >= 8, "the hostile words should have been on many pages"


def test_every_answer_has_the_headers_that_keep_a_page_apart(shown: Shown) -> None:
    """Pages, errors and refusals alike; what is stored is inert."""
    row = shown.company.newest("backup_offsite")
    for role, path in (
        *((OFFICER, one) for one in every_page(shown)),
        (None, "/"),
        (OFFICER, "/nowhere"),
        ("Supervisor", "/clocks"),
    ):
        headers = shown.get(role, path).headers
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "dur=" in headers["server-timing"]
    for name in ("report.en.html", "result.json", "plan.csv", HOSTILE_FILE):
        got = shown.get(OFFICER, f"/evidence/{row.seq}/files/{quote(name, safe='')}")
        assert got.status_code == 200, name
        assert got.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
        assert got.headers["x-content-type-options"] == "nosniff"


def test_a_file_is_named_as_it_is_whatever_it_is_called(shown: Shown) -> None:
    """One value of one header; no name ends it."""
    row = shown.company.newest("backup_offsite")
    got = shown.get(OFFICER, f"/evidence/{row.seq}/files/{quote(HOSTILE_FILE, safe='')}?download=1")
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
def test_no_name_leads_out_of_a_bundle(shown: Shown, name: str) -> None:
    """Only what SHA256SUMS names is there."""
    row = shown.company.newest("backup_offsite")
    assert shown.get(OFFICER, f"/evidence/{row.seq}/files/{name}").status_code == 404


@pytest.mark.parametrize("number", ["0", "-1", "99999", str(2**63), "1e3", "x", "1%20OR%201=1"])
def test_a_bundle_that_is_not_there_is_a_clear_page(shown: Shown, number: str) -> None:
    """No traceback, no hint; an address that makes no sense is said to make none."""
    got = shown.get(OFFICER, f"/evidence/{number}")
    assert got.status_code in (400, 404)
    assert "Traceback" not in got.text
    assert "To the first page" in got.text


def test_the_report_is_shown_in_the_language_of_the_reader(shown: Shown) -> None:
    """And both can be opened by name, byte for byte as they were sealed."""
    row = shown.company.newest("backup_offsite")
    folder = shown.company.root / "evidence" / row.bundle
    for language, tag in (("en", "en"), ("zh-TW,zh;q=0.9", "zh-CN"), ("fr", "en")):
        got = shown.get(OFFICER, f"/evidence/{row.seq}/report", language)
        assert got.content == (folder / f"report.{tag}.html").read_bytes()
    pdf = shown.get(OFFICER, f"/evidence/{row.seq}/files/report.zh-CN.pdf")
    assert pdf.headers["content-type"] == "application/pdf"
    assert pdf.content.startswith(b"%PDF")


def test_the_packed_bundle_is_checked_by_the_lines_on_its_page(
    shown: Shown, tmp_path: Path
) -> None:
    """With sha256sum and openssl alone, where there is no ParcelSeal."""
    row = shown.company.newest("check_quality")
    got = shown.get(OFFICER, f"/evidence/{row.seq}/bundle.zip")
    zipfile.ZipFile(io.BytesIO(got.content)).extractall(tmp_path)
    page = shown.get(OFFICER, f"/evidence/{row.seq}").text
    block = re.search(r"<pre[^>]*><code>(.*?)</code></pre>", page, re.DOTALL)
    assert block is not None
    unpack, *lines = unescape(block[1]).splitlines()
    assert shlex.split(unpack) == ["unzip", f"{PurePosixPath(row.bundle).name}.zip"]
    assert shlex.split(unpack)[1] in got.headers["content-disposition"]
    done = subprocess.run(
        ["bash", "-ec", "\n".join(lines)], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, (done.stdout, done.stderr)


def test_pages_are_in_one_language(shown: Shown) -> None:
    """Apart from what people wrote: no sentence of the other language is left on a page."""
    chinese = re.compile(r"[\u4e00-\u9fff]")
    for path in every_page(shown):
        english = Seen(shown.get(OFFICER, path, "en").text).text
        assert set(chinese.findall(english)) <= set("中文"), path
        page = Seen(shown.get(OFFICER, path, "zh-CN").text).text
        for word in ("the ", "Outcome", "Sealed", "Workflow", "Findings", "As of", "held"):
            assert word not in page.replace(XSS, ""), (path, word)


def test_the_language_can_be_switched_and_stays(shown: Shown) -> None:
    """By a link that works without a script; the choice is kept in a cookie of these pages."""
    session = shown.airflow.session(OFFICER)
    session.headers["Accept-Language"] = "en"
    got = session.get(f"{shown.url}/evidence?outcome=fail&lang=zh-CN", timeout=120)
    assert '<html lang="zh-CN">' in got.text
    assert '<option value="fail" selected>' in got.text
    assert '<html lang="zh-CN">' in session.get(f"{shown.url}/", timeout=120).text
    cookie = next(one for one in session.cookies if one.name == "parcelseal_language")
    assert cookie.path == "/compliance"


def test_filters_find_what_they_say(shown: Shown) -> None:
    """Workflow, clause, outcome and days, and all of them at once."""
    rows = shown.company.rows()
    visible = [one for one in rows if one.dag_id != "a_workflow_of_yesterday"]

    def numbers(query: str) -> set[int]:
        page = shown.get(OFFICER, f"/evidence?{query}").text
        return {int(one) for one in re.findall(r'<a href="/compliance/evidence/(\d+)">', page)}

    assert numbers("") == {one.seq for one in visible}
    failed = {one.seq for one in visible if one.outcome == Outcome.FAIL}
    assert numbers("outcome=fail") == failed
    backups = {one.seq for one in visible if one.dag_id == "backup_offsite"}
    assert numbers("workflow=backup_offsite") == backups
    assert numbers("workflow=backup_offsite&outcome=fail") == backups & failed
    drills = {one.seq for one in visible if one.dag_id == "drill_restore"}
    assert numbers("clause=4.2") == backups | drills
    assert numbers("clause=9.9") == set()
    tomorrow = (NOW + timedelta(days=2)).date()
    assert numbers(f"since={tomorrow}") == set()
    assert numbers(f"until={tomorrow}") == {one.seq for one in visible}
    page = shown.get(OFFICER, "/evidence?since=yesterday").text
    assert "yesterday is no day" in page


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
def test_an_address_that_makes_no_sense_is_said_to_make_none(shown: Shown, query: str) -> None:
    """Somebody edited it, or a link was cut."""
    got = shown.get(OFFICER, f"/evidence?{query}")
    assert got.status_code == 400
    assert "The address is not right" in got.text


def test_the_overview_says_how_each_control_stands(shown: Shown) -> None:
    """Held, not held, and no evidence at all; with the age of the proof."""
    page = Seen(shown.get(OFFICER, "/").text).text
    assert "of 22 controls are shown to hold" in page
    assert "did not hold" in page
    assert "no evidence yet" in page
    assert "Open findings of audits and incidents: 2; overdue: 1." in page


def test_clocks_holds_and_findings_tell_what_is_due(shown: Shown) -> None:
    """Incidents that run, holds to be reviewed, findings that are overdue."""
    clocks = Seen(shown.get(OFFICER, "/clocks").text).text
    assert f"INC-{NOW.year}-0001" in clocks
    assert "left" in clocks
    holds = Seen(shown.get(OFFICER, "/holds").text).text
    assert "Holds that keep records or restore points: 2; to be reviewed now: 1." in holds
    found = Seen(shown.get(OFFICER, "/findings").text).text
    assert "Open findings: 2; overdue: 1." in found


def test_old_pages_lead_back_and_forth(shown: Shown) -> None:
    """Next and back are where they say; the last page ends with the first bundle."""
    page = shown.get(ADMIN, "/evidence?order=oldest").text
    first = re.search(r'<a href="/compliance/evidence/(\d+)">', page)
    assert first is not None
    assert first[1] == "1"
    last = shown.get(ADMIN, "/evidence?order=oldest&last=true").text
    assert len(re.findall(r'<a href="/compliance/evidence/(\d+)">', last)) >= len(SEALED) - 1
