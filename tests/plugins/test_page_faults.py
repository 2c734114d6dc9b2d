"""Behaviour of the pages with changed files, unavailable services and expired sessions."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jwt
import psycopg
import pytest
from openpyxl import load_workbook

from include.evidence.folder import SIGNATURE
from include.state.migrate import newest_revision
from tests.plugins.pages_server import PagesServer
from tests.support.registers import unguarded

pytestmark = pytest.mark.airflow
OFFICER = "Compliance Officer"


@contextmanager
def damaged_file(file: Path, content: bytes | None) -> Iterator[None]:
    """Change or delete a file within the ``with`` block, and restore it afterwards.

    Args:
        file: path of the file.
        content: new content; None to delete the file.
    """
    original = file.read_bytes()
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(original)


@pytest.mark.parametrize("content", [None, b"<h1>All is well</h1>"], ids=["missing", "altered"])
@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_changed_or_deleted_report_gets_status_409_and_its_bundle_page_shows_a_warning(
    pages_server: PagesServer, content: bytes | None, language: str
) -> None:
    """The page of the bundle and the URL of the report do not show the changed content."""
    row = pages_server.company.newest("enforce_retention")
    file = pages_server.company.root / "evidence" / row.bundle / f"report.{language}.html"
    loud = {"en": "DO NOT RELY ON THIS BUNDLE", "zh-CN": "请勿采信该证据包"}[language]
    with damaged_file(file, content):
        page = pages_server.get(OFFICER, f"/evidence/{row.seq}", language)
        assert page.status_code == 200
        assert loud in page.text
        assert 'role="alert"' in page.text
        report = pages_server.get(OFFICER, f"/evidence/{row.seq}/report", language)
        assert report.status_code == 409
        assert b"All is well" not in report.content
        assert pages_server.get(OFFICER, f"/evidence/{row.seq}/bundle.zip").status_code == 409
    assert loud not in pages_server.get(OFFICER, f"/evidence/{row.seq}", language).text


@contextmanager
def killed_before_the_signature(pages_server: PagesServer, bundle: str) -> Iterator[None]:
    """Change a bundle as if its seal had been killed before the upload of the signature.

    The ledger row exists, and the state database holds the signature. The original state is
    restored after the ``with`` block.
    """
    file = pages_server.company.root / "evidence" / bundle / SIGNATURE
    intent = "INSERT INTO evidence_intent (bundle, started_at, signature) VALUES (%s, now(), %s)"
    with psycopg.connect(pages_server.company.conninfo, autocommit=True) as state:
        state.execute(intent, [bundle, file.read_bytes()])
        try:
            with damaged_file(file, None):
                yield
        finally:
            state.execute("DELETE FROM evidence_intent WHERE bundle = %s", [bundle])


def test_bundle_is_shown_as_valid_if_its_signature_is_only_in_the_state_database(
    pages_server: PagesServer,
) -> None:
    """The state database holds the signature until the next seal uploads it."""
    row = pages_server.company.newest("enforce_retention")
    overview = pages_server.get(OFFICER, "/").text.count("the evidence is not valid")
    with killed_before_the_signature(pages_server, row.bundle):
        page = pages_server.get(OFFICER, f"/evidence/{row.seq}").text
        assert "DO NOT RELY ON THIS BUNDLE" not in page
        assert "Verified just now" in page
        assert "The signature of the bundle is not in the evidence store yet." in page
        assert pages_server.get(OFFICER, f"/evidence/{row.seq}/bundle.zip").status_code == 200
        assert (
            pages_server.get(OFFICER, f"/evidence/{row.seq}/files/{SIGNATURE}").status_code == 200
        )
        assert pages_server.get(OFFICER, "/").text.count("the evidence is not valid") == overview
    assert (
        "not in the evidence store yet"
        not in pages_server.get(OFFICER, f"/evidence/{row.seq}").text
    )


def test_changed_evidence_ledger_row_is_reported_in_the_list_of_bundles_and_on_the_bundle_page(
    pages_server: PagesServer,
) -> None:
    row = pages_server.company.newest("check_quality")
    with psycopg.connect(pages_server.company.conninfo, autocommit=True) as state:
        change = "UPDATE evidence_ledger SET outcome = %s WHERE seq = %s"
        with unguarded(state, "evidence_ledger"):
            state.execute(change, ["pass", row.seq])
        try:
            assert "was changed after it was signed" in pages_server.get(OFFICER, "/evidence").text
            page = pages_server.get(OFFICER, f"/evidence/{row.seq}").text
            assert "the row of this bundle in the evidence ledger was changed" in page
            assert "the evidence is not valid" in pages_server.get(OFFICER, "/").text
            for name in ("evidence", "overview", "control"):
                address = f"/exports/{name}.xlsx?control={row.controls[0]}"
                content = pages_server.get(OFFICER, address).content
                sheet = load_workbook(io.BytesIO(content)).worksheets[0]
                assert "were changed after they were signed" in str(sheet["A3"].value), name
        finally:
            with unguarded(state, "evidence_ledger"):
                state.execute(change, [row.outcome, row.seq])
            pages_server.get(OFFICER, f"/evidence/{row.seq}")  # forgets that the row was invalid


def test_file_added_to_a_sealed_bundle_is_reported_and_cannot_be_opened(
    pages_server: PagesServer,
) -> None:
    row = pages_server.company.newest("review_partners")
    file = pages_server.company.root / "evidence" / row.bundle / "added.html"
    file.write_text("<h1>Hello</h1>")
    try:
        page = pages_server.get(OFFICER, f"/evidence/{row.seq}").text
        assert "This file was added after the seal." in page
        assert "DO NOT RELY" in page
        assert pages_server.get(OFFICER, f"/evidence/{row.seq}/files/added.html").status_code == 404
    finally:
        file.unlink()
        pages_server.get(OFFICER, f"/evidence/{row.seq}")  # forgets that the bundle was invalid


def test_page_shows_present_and_required_revision_if_the_state_database_is_not_migrated(
    pages_server: PagesServer,
) -> None:
    with psycopg.connect(pages_server.company.conninfo, autocommit=True) as state:
        state.execute("DELETE FROM parcelseal_version")
        try:
            got = pages_server.get(OFFICER, "/evidence")
            assert got.status_code == 503
            assert "at revision none" in got.text
            assert newest_revision() in got.text
            assert "./parcelseal migrate" in got.text
        finally:
            state.execute("INSERT INTO parcelseal_version VALUES (%s)", [newest_revision()])
    assert pages_server.get(OFFICER, "/evidence").status_code == 200


def test_request_with_invalid_session_token_gets_an_error_page(pages_server: PagesServer) -> None:
    """The tokens are an expired token and a token that was signed with another key."""
    token = pages_server.airflow.token(OFFICER)
    claims = jwt.decode(token, options={"verify_signature": False})
    secret = pages_server.airflow.environment["AIRFLOW__API_AUTH__JWT_SECRET"]
    over = {**claims, "exp": claims["iat"] - 3600}
    header = {"kid": "not-used"}
    for token_value in (
        jwt.encode(over, secret, algorithm="HS512", headers=header),
        jwt.encode(claims, "some other key, " * 4, algorithm="HS512", headers=header),
    ):
        for language, word in (("en", "You are not logged in"), ("zh-CN", "尚未登录")):
            got = pages_server.airflow.session(None).get(
                f"{pages_server.url}/",
                cookies={"_token": token_value},
                headers={"Accept-Language": language},
                timeout=120,
            )
            assert got.status_code == 401
            assert word in got.text


def test_url_of_a_report_returns_an_error_page_if_the_evidence_store_is_unavailable(
    pages_server: PagesServer,
) -> None:
    """The list of bundles still works, since it needs only the evidence ledger."""
    folder = pages_server.company.root / "evidence"
    row = pages_server.company.newest("check_quality")
    away = folder.with_name("away")
    folder.rename(away)
    try:
        assert pages_server.get(OFFICER, "/evidence").status_code == 200
        got = pages_server.get(OFFICER, f"/evidence/{row.seq}/report")
        assert got.status_code in (409, 503)
        assert "Traceback" not in got.text
    finally:
        away.rename(folder)


def test_database_login_of_the_compliance_pages_can_only_read_its_tables_and_insert_openings(
    pages_server: PagesServer,
) -> None:
    """The login may not read supervisory reports, lists of affected people or step records."""
    connection = json.loads(pages_server.company.environment["AIRFLOW_CONN_PAGES_DB"])
    conninfo = psycopg.conninfo.make_conninfo(
        host=connection["host"],
        user=connection["login"],
        password=connection["password"],
        dbname=connection["schema"],
    )
    with psycopg.connect(conninfo, autocommit=True) as pages:
        assert pages.execute("SELECT count(*) FROM evidence_ledger").fetchone() is not None
        tables = pages.execute(
            "SELECT tablename, has_table_privilege(quote_ident(tablename), 'SELECT'),"
            " has_table_privilege(quote_ident(tablename), 'INSERT'),"
            " has_table_privilege(quote_ident(tablename), 'UPDATE, DELETE, TRUNCATE')"
            " FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
    readable = {name for name, read, _insert, _change in tables if read}
    assert readable == {
        "approval_decision", "approval_request", "evidence_checkpoint", "evidence_control",
        "evidence_ledger", "finding", "finding_event",
        "finding_progress", "finding_report", "incident", "incident_entry", "legal_hold",
        "parcelseal_version", "policy_control", "restore_point_operation", "use_grant",
        "use_opening", "use_request", "use_request_run",
    }  # fmt: skip
    assert [name for name, _read, insert, _change in tables if insert] == ["use_opening"]
    assert not [name for name, _read, _insert, change in tables if change]


def test_bundle_page_warns_of_changed_report_even_if_a_checkpoint_with_forged_signature_exists(
    pages_server: PagesServer,
) -> None:
    row = pages_server.company.newest("enforce_retention")
    file = pages_server.company.root / "evidence" / row.bundle / "report.en.html"
    forge = (
        "INSERT INTO evidence_checkpoint (up_to_seq, bundle, sums_sha256, signed_at,"
        " key_fingerprint, signature) VALUES (%s, %s, %s, now(), %s, 'forged')"
    )
    with psycopg.connect(pages_server.company.conninfo, autocommit=True) as state:
        values = [row.seq, row.bundle, row.sums_sha256, row.key_fingerprint]
        state.execute(forge, values)
        try:
            with damaged_file(file, b"<h1>All is well</h1>"):
                page = pages_server.get(OFFICER, f"/evidence/{row.seq}").text
                assert "DO NOT RELY ON THIS BUNDLE" in page
            assert "files removed" not in pages_server.get(OFFICER, "/evidence").text
        finally:
            state.execute("DELETE FROM evidence_checkpoint")


def test_missing_evidence_ledger_rows_are_reported_on_the_overview_page(
    pages_server: PagesServer,
) -> None:
    row, last = pages_server.company.newest("check_quality"), pages_server.company.rows()[-1]
    columns = list(vars(row))
    with psycopg.connect(pages_server.company.conninfo, autocommit=True) as state:
        with unguarded(state, "evidence_ledger"):
            state.execute("DELETE FROM evidence_ledger WHERE seq = %s", [row.seq])
            # The search for missing rows is cached for a minute, until the ledger grows.
            state.execute(
                "UPDATE evidence_ledger SET sums_sha256 = reverse(sums_sha256)"
                " WHERE seq = (SELECT max(seq) FROM evidence_ledger)"
            )
        try:
            page = pages_server.get(OFFICER, "/").text
            assert "1 bundles are missing from the evidence ledger." in page
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
                [getattr(row, column) for column in columns],
            )


@pytest.mark.parametrize("query", ["path=x", "self=1", "w=1", "request=1", "title=x"])
@pytest.mark.parametrize("role", [None, OFFICER, "On Call"])
def test_url_with_unknown_parameters_causes_no_server_error_and_gets_security_headers(
    pages_server: PagesServer, role: str | None, query: str
) -> None:
    """Visitors without a login get the same error page with the same headers."""
    for path in ("/", "/evidence", "/nowhere"):
        got = pages_server.get(role, f"{path}?{query}")
        assert got.status_code < 500, (path, query)
        assert "default-src 'none'" in got.headers["content-security-policy"]


@pytest.mark.parametrize("origin", ["http://[", "null", "https://evil.example", "file://", "x"])
def test_post_request_gets_status_403_if_its_origin_header_is_invalid_or_of_another_site(
    pages_server: PagesServer, origin: str
) -> None:
    got = pages_server.airflow.session(None).post(
        f"{pages_server.url}/",
        cookies=pages_server.airflow.cookies(OFFICER),
        headers={"Origin": origin},
    )
    assert got.status_code == 403


def test_error_page_does_not_contain_the_file_path_of_the_evidence_store(
    pages_server: PagesServer,
) -> None:
    store = pages_server.company.root / "evidence"
    away = store.with_name("gone")
    store.rename(away)
    try:
        row = pages_server.company.newest("check_quality")
        page = pages_server.get(OFFICER, f"/evidence/{row.seq}/report")
        assert str(pages_server.company.root) not in page.text
    finally:
        away.rename(store)


def test_file_download_gets_status_409_if_bundle_has_the_checksum_list_of_another_bundle(
    pages_server: PagesServer,
) -> None:
    row, other = (
        pages_server.company.newest("check_quality"),
        pages_server.company.newest("remind_training"),
    )
    folder = pages_server.company.root / "evidence"
    sums, signature = ("SHA256SUMS", "SHA256SUMS.sig")
    with (
        damaged_file(folder / row.bundle / sums, (folder / other.bundle / sums).read_bytes()),
        damaged_file(
            folder / row.bundle / signature, (folder / other.bundle / signature).read_bytes()
        ),
    ):
        got = pages_server.get(OFFICER, f"/evidence/{row.seq}/files/signer.pem")
        assert got.status_code == 409
        assert "list of checksums differs from the list in the evidence ledger" in got.text
        assert "Do not rely on this evidence bundle" in got.text


def test_refuse_too_large_response_raises_http_error_413_if_size_is_above_the_limit() -> None:
    from fastapi import HTTPException

    from plugins.compliance_ui.files import LARGEST, refuse_too_large_response

    refuse_too_large_response(LARGEST, LARGEST)
    for size, largest in ((LARGEST + 1, LARGEST), (2**60, None)):
        with pytest.raises(HTTPException) as refused:
            refuse_too_large_response(size, largest)
        assert refused.value.status_code == 413
