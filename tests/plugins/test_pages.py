"""What the pages say, and what they say when something is wrong."""

from __future__ import annotations

import io
import json
import re
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import jwt
import psycopg
import pytest

from include.evidence.model import Outcome
from include.state.migrate import newest_revision
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
    packed = shown.get(OFFICER, f"/evidence/{row.seq}/bundle.zip").content
    zipfile.ZipFile(io.BytesIO(packed)).extractall(tmp_path)
    page = shown.get(OFFICER, f"/evidence/{row.seq}").text
    block = re.search(r"<pre[^>]*><code>(.*?)</code></pre>", page, re.DOTALL)
    assert block is not None
    lines = unescape(block[1]).splitlines()
    assert lines[0].startswith("cd ")
    assert lines[1] == "sha256sum -c SHA256SUMS"
    for line in ("grep -v '  \\.\\./' SHA256SUMS | sha256sum -c -", *lines[2:]):
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path / row.bundle, capture_output=True, check=False
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)


@contextmanager
def harmed(file: Path, content: bytes | None) -> Iterator[None]:
    """Change or remove a file for a moment."""
    before = file.read_bytes()
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(before)


@pytest.mark.parametrize("content", [None, b"<h1>All is well</h1>"], ids=["missing", "altered"])
@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_a_report_that_is_missing_or_altered_is_never_shown(
    shown: Shown, content: bytes | None, language: str
) -> None:
    """Its page says so, loudly, and the report's own address too."""
    row = shown.company.newest("enforce_retention")
    file = shown.company.root / "evidence" / row.bundle / f"report.{language}.html"
    loud = {"en": "DO NOT RELY ON THIS BUNDLE", "zh-CN": "请勿采信该证据包"}[language]
    with harmed(file, content):
        page = shown.get(OFFICER, f"/evidence/{row.seq}", language)
        assert page.status_code == 200
        assert loud in page.text
        assert 'role="alert"' in page.text
        report = shown.get(OFFICER, f"/evidence/{row.seq}/report", language)
        assert report.status_code == 409
        assert b"All is well" not in report.content
        assert shown.get(OFFICER, f"/evidence/{row.seq}/bundle.zip").status_code == 409
    assert loud not in shown.get(OFFICER, f"/evidence/{row.seq}", language).text


def test_a_line_of_the_ledger_that_was_edited_is_said_to_be(shown: Shown) -> None:
    """In the list and on its page: its outcome is somebody's wish."""
    row = shown.company.newest("check_quality")
    with psycopg.connect(shown.company.conninfo, autocommit=True) as state:
        change = "UPDATE evidence_ledger SET outcome = %s WHERE seq = %s"
        state.execute(change, ["pass", row.seq])
        try:
            assert "was changed after it was signed" in shown.get(OFFICER, "/evidence").text
            page = shown.get(OFFICER, f"/evidence/{row.seq}").text
            assert "its ledger row was changed" in page
            assert "cannot be believed" in shown.get(OFFICER, "/").text
        finally:
            state.execute(change, [row.outcome, row.seq])


def test_a_file_that_was_added_is_said_to_be(shown: Shown) -> None:
    """It was never sealed, and cannot be opened."""
    row = shown.company.newest("review_partners")
    file = shown.company.root / "evidence" / row.bundle / "added.html"
    file.write_text("<h1>Hello</h1>")
    try:
        page = shown.get(OFFICER, f"/evidence/{row.seq}").text
        assert "It was added after the seal." in page
        assert "DO NOT RELY" in page
        assert shown.get(OFFICER, f"/evidence/{row.seq}/files/added.html").status_code == 404
    finally:
        file.unlink()


def test_a_state_database_of_another_version_is_said_to_be(shown: Shown) -> None:
    """One migration behind: the page names both revisions and what to do."""
    with psycopg.connect(shown.company.conninfo, autocommit=True) as state:
        state.execute("UPDATE parcelseal_version SET version_num = '0020'")
        try:
            got = shown.get(OFFICER, "/evidence")
            assert got.status_code == 503
            assert "0020" in got.text
            assert newest_revision() in got.text
            assert "./parcelseal migrate" in got.text
        finally:
            state.execute("UPDATE parcelseal_version SET version_num = %s", [newest_revision()])
    assert shown.get(OFFICER, "/evidence").status_code == 200


def test_a_session_that_ended_is_said_to_have_ended(shown: Shown) -> None:
    """A token whose time is over, one of another key, and none."""
    token = shown.airflow.token(OFFICER)
    claims = jwt.decode(token, options={"verify_signature": False})
    secret = shown.airflow.environment["AIRFLOW__API_AUTH__JWT_SECRET"]
    over = {**claims, "exp": claims["iat"] - 3600}
    header = {"kid": "not-used"}
    for made in (
        jwt.encode(over, secret, algorithm="HS512", headers=header),
        jwt.encode(claims, "some other key, " * 4, algorithm="HS512", headers=header),
    ):
        for language, word in (("en", "You are not logged in"), ("zh-CN", "尚未登录")):
            got = shown.airflow.session(None).get(
                f"{shown.url}/",
                cookies={"_token": made},
                headers={"Accept-Language": language},
                timeout=30,
            )
            assert got.status_code == 401
            assert word in got.text


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
    got = session.get(f"{shown.url}/evidence?outcome=fail&lang=zh-CN", timeout=30)
    assert '<html lang="zh-CN">' in got.text
    assert '<option value="fail" selected>' in got.text
    assert '<html lang="zh-CN">' in session.get(f"{shown.url}/", timeout=30).text
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
    assert numbers("clause=4.2") == backups
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


def test_restore_points_are_those_of_the_store(shown: Shown) -> None:
    """Two that can be used, and one that must not be."""
    page = Seen(shown.get(OFFICER, "/restore-points").text).text
    assert page.count("at the longest") == 2
    assert "must not be used" in page


def test_a_store_that_is_gone_is_a_clear_page(shown: Shown) -> None:
    """And the list, which needs the ledger alone, goes on."""
    folder = shown.company.root / "evidence"
    row = shown.company.newest("check_quality")
    away = folder.with_name("away")
    folder.rename(away)
    try:
        assert shown.get(OFFICER, "/evidence").status_code == 200
        got = shown.get(OFFICER, f"/evidence/{row.seq}/report")
        assert got.status_code in (409, 503)
        assert "Traceback" not in got.text
    finally:
        away.rename(folder)


def test_old_pages_lead_back_and_forth(shown: Shown) -> None:
    """Next and back are where they say; the last page ends with the first bundle."""
    page = shown.get(ADMIN, "/evidence?order=oldest").text
    first = re.search(r'<a href="/compliance/evidence/(\d+)">', page)
    assert first is not None
    assert first[1] == "1"
    last = shown.get(ADMIN, "/evidence?order=oldest&last=true").text
    assert len(re.findall(r'<a href="/compliance/evidence/(\d+)">', last)) >= len(SEALED) - 1


def test_the_pages_role_reads_what_they_show_and_nothing_else(shown: Shown) -> None:
    """No letter, no list of affected people, no record of steps; and it writes nothing."""
    told = json.loads(shown.company.environment["AIRFLOW_CONN_PAGES_DB"])
    conninfo = psycopg.conninfo.make_conninfo(
        host=told["host"], user=told["login"], password=told["password"], dbname=told["schema"]
    )
    with psycopg.connect(conninfo, autocommit=True) as pages:
        assert pages.execute("SELECT count(*) FROM evidence_ledger").fetchone() is not None
        tables = pages.execute(
            "SELECT tablename, has_table_privilege(quote_ident(tablename), 'SELECT'),"
            " has_table_privilege(quote_ident(tablename), 'INSERT, UPDATE, DELETE, TRUNCATE')"
            " FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
    readable = {name for name, read, _write in tables if read}
    assert readable == {
        "evidence_checkpoint", "evidence_ledger", "finding", "finding_event", "incident",
        "incident_entry", "legal_hold", "parcelseal_version",
    }  # fmt: skip
    assert not [name for name, _read, write in tables if write]
