"""What the pages say when something is wrong: altered files, gone services, old sessions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jwt
import psycopg
import pytest

from include.evidence.folder import SIGNATURE
from include.state.migrate import newest_revision
from tests.plugins.shown import Shown
from tests.support.registers import unguarded

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


@contextmanager
def killed_before_the_signature(shown: Shown, bundle: str) -> Iterator[None]:
    """Leave a bundle for a moment as a seal that was killed after its ledger row."""
    file = shown.company.root / "evidence" / bundle / SIGNATURE
    intent = "INSERT INTO evidence_intent (bundle, begun_at, signature) VALUES (%s, now(), %s)"
    with psycopg.connect(shown.company.conninfo, autocommit=True) as state:
        state.execute(intent, [bundle, file.read_bytes()])
        try:
            with harmed(file, None):
                yield
        finally:
            state.execute("DELETE FROM evidence_intent WHERE bundle = %s", [bundle])


def test_bundle_that_waits_for_its_signature_is_shown_as_sealed(shown: Shown) -> None:
    """Pages read the signature from the state database until the next seal has stored it."""
    row = shown.company.newest("enforce_retention")
    overview = shown.get(OFFICER, "/").text.count("cannot be believed")
    with killed_before_the_signature(shown, row.bundle):
        page = shown.get(OFFICER, f"/evidence/{row.seq}").text
        assert "DO NOT RELY ON THIS BUNDLE" not in page
        assert "Verified just now" in page
        assert "Its signature is not in the evidence store yet." in page
        assert shown.get(OFFICER, f"/evidence/{row.seq}/bundle.zip").status_code == 200
        assert shown.get(OFFICER, f"/evidence/{row.seq}/files/{SIGNATURE}").status_code == 200
        assert shown.get(OFFICER, "/").text.count("cannot be believed") == overview
    assert "not in the evidence store yet" not in shown.get(OFFICER, f"/evidence/{row.seq}").text


def test_a_line_of_the_ledger_that_was_edited_is_said_to_be(shown: Shown) -> None:
    """In the list and on its page: its outcome is somebody's wish."""
    row = shown.company.newest("check_quality")
    with psycopg.connect(shown.company.conninfo, autocommit=True) as state:
        change = "UPDATE evidence_ledger SET outcome = %s WHERE seq = %s"
        with unguarded(state, "evidence_ledger"):
            state.execute(change, ["pass", row.seq])
        try:
            assert "was changed after it was signed" in shown.get(OFFICER, "/evidence").text
            page = shown.get(OFFICER, f"/evidence/{row.seq}").text
            assert "its ledger row was changed" in page
            assert "cannot be believed" in shown.get(OFFICER, "/").text
        finally:
            with unguarded(state, "evidence_ledger"):
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
    """Without the migration: the page names both revisions and what to do."""
    with psycopg.connect(shown.company.conninfo, autocommit=True) as state:
        state.execute("DELETE FROM parcelseal_version")
        try:
            got = shown.get(OFFICER, "/evidence")
            assert got.status_code == 503
            assert "at revision none" in got.text
            assert newest_revision() in got.text
            assert "./parcelseal migrate" in got.text
        finally:
            state.execute("INSERT INTO parcelseal_version VALUES (%s)", [newest_revision()])
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
                timeout=120,
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
        "incident_entry", "legal_hold", "parcelseal_version", "restore_point_begun",
    }  # fmt: skip
    assert not [name for name, _read, write in tables if write]


def test_a_checkpoint_that_nobody_signed_excuses_nothing(shown: Shown) -> None:
    """Whoever can write into the database could else explain away what they removed."""
    row = shown.company.newest("enforce_retention")
    file = shown.company.root / "evidence" / row.bundle / "report.en.html"
    forge = (
        "INSERT INTO evidence_checkpoint (up_to_seq, bundle, sums_sha256, signed_at,"
        " key_fingerprint, signature) VALUES (%s, %s, %s, now(), %s, 'forged')"
    )
    with psycopg.connect(shown.company.conninfo, autocommit=True) as state:
        values = [row.seq, row.bundle, row.sums_sha256, row.key_fingerprint]
        state.execute(forge, values)
        try:
            with harmed(file, b"<h1>All is well</h1>"):
                page = shown.get(OFFICER, f"/evidence/{row.seq}").text
                assert "DO NOT RELY ON THIS BUNDLE" in page
            assert "not kept any more" not in shown.get(OFFICER, "/evidence").text
        finally:
            state.execute("DELETE FROM evidence_checkpoint")


def test_lines_that_are_missing_from_the_ledger_are_missed(shown: Shown) -> None:
    """A gap is said on the first page."""
    row, last = shown.company.newest("check_quality"), shown.company.rows()[-1]
    columns = list(vars(row))
    with psycopg.connect(shown.company.conninfo, autocommit=True) as state:
        with unguarded(state, "evidence_ledger"):
            state.execute("DELETE FROM evidence_ledger WHERE seq = %s", [row.seq])
            # Whether any is missing is looked at once a minute, and when the ledger ends otherwise.
            state.execute(
                "UPDATE evidence_ledger SET sums_sha256 = reverse(sums_sha256)"
                " WHERE seq = (SELECT max(seq) FROM evidence_ledger)"
            )
        try:
            page = shown.get(OFFICER, "/").text
            assert "1 bundles are missing from the ledger." in page
        finally:
            with unguarded(state, "evidence_ledger"):
                state.execute(
                    "UPDATE evidence_ledger SET sums_sha256 = %s WHERE seq = %s",
                    [last.sums_sha256, last.seq],
                )
            marks = ", ".join(["%s"] * len(columns))
            names = ", ".join(columns)
            state.execute(
                f"INSERT INTO evidence_ledger ({names}) VALUES ({marks})",
                [getattr(row, one) for one in columns],
            )


@pytest.mark.parametrize("query", ["path=x", "self=1", "w=1", "request=1", "title=x"])
@pytest.mark.parametrize("role", [None, OFFICER, "On Call"])
def test_no_parameter_of_an_address_breaks_a_page(
    shown: Shown, role: str | None, query: str
) -> None:
    """A stranger's neither; each is answered by a page with all headers."""
    for path in ("/", "/evidence", "/nowhere"):
        got = shown.get(role, f"{path}?{query}")
        assert got.status_code < 500, (path, query)
        assert "default-src 'none'" in got.headers["content-security-policy"]


@pytest.mark.parametrize("origin", ["http://[", "null", "https://evil.example", "file://", "x"])
def test_an_origin_that_is_none_is_refused(shown: Shown, origin: str) -> None:
    """Whatever a browser, or somebody who plays one, names."""
    got = shown.airflow.session(None).post(
        f"{shown.url}/", cookies=shown.airflow.cookies(OFFICER), headers={"Origin": origin}
    )
    assert got.status_code == 403


def test_a_page_tells_nobody_how_services_are_reached(shown: Shown) -> None:
    """Names of hosts, roles and folders are for the log."""
    store = shown.company.root / "evidence"
    away = store.with_name("gone")
    store.rename(away)
    try:
        row = shown.company.newest("check_quality")
        page = shown.get(OFFICER, f"/evidence/{row.seq}/report")
        assert str(shown.company.root) not in page.text
    finally:
        away.rename(store)


def test_an_older_list_of_files_is_not_the_bundles(shown: Shown) -> None:
    """One that a trusted key signed too, of another bundle, put in its place."""
    row, other = shown.company.newest("check_quality"), shown.company.newest("remind_training")
    folder = shown.company.root / "evidence"
    sums, signature = ("SHA256SUMS", "SHA256SUMS.sig")
    with (
        harmed(folder / row.bundle / sums, (folder / other.bundle / sums).read_bytes()),
        harmed(folder / row.bundle / signature, (folder / other.bundle / signature).read_bytes()),
    ):
        got = shown.get(OFFICER, f"/evidence/{row.seq}/files/signer.pem")
        assert got.status_code == 409
        assert "SHA256SUMS is not the one that the ledger has" in got.text
        assert "Do not rely on this bundle" in got.text


def test_what_does_not_fit_is_refused_before_it_is_read() -> None:
    """By its size, and by the room that there is for all who ask at once."""
    from fastapi import HTTPException

    from plugins.compliance_ui.files import LARGEST, require_room

    require_room(LARGEST, LARGEST)
    for size, largest in ((LARGEST + 1, LARGEST), (2**60, None)):
        with pytest.raises(HTTPException) as refused:
            require_room(size, largest)
        assert refused.value.status_code == 413
