"""What the pages say when something is wrong: altered files, gone services, old sessions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jwt
import psycopg
import pytest

from include.state.migrate import newest_revision
from tests.plugins.shown import Shown

pytestmark = pytest.mark.airflow
OFFICER = "Compliance Officer"


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
