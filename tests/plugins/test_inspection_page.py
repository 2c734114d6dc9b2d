"""The page of inspection packs: content, permissions, broken and cancelled downloads."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests

from include.evidence.ledger import LedgerRow
from include.orchestration.access.roles import Role, all_roles
from tests.plugins.company import DAG_OF, NOW, PACK
from tests.plugins.pages_server import PagesServer

pytestmark = pytest.mark.airflow
OFFICER = "Compliance Officer"
CLAUSES = sorted({control.clause for control in PACK.controls})
TODAY = NOW.astimezone(PACK.calendar.zone).date()
PERIOD = {
    "first_day": str(TODAY - timedelta(days=2)),
    "last_day": str(TODAY + timedelta(days=1)),
}


def is_in_period(row: LedgerRow) -> bool:
    """Return whether a bundle was sealed in the period of `PERIOD`."""
    return row.sealed_at >= NOW - timedelta(days=1)


def address(clauses: list[str] = CLAUSES, **days: str) -> str:
    query = [("clause", clause) for clause in clauses] + list((PERIOD | days).items())
    return f"/inspection-pack/pack.zip?{urlencode(query)}"


def downloaded(pages_server: PagesServer, role: str) -> zipfile.ZipFile:
    got = pages_server.get(role, address())
    assert got.status_code == 200, got.text[:300]
    assert got.headers["content-type"] == "application/zip"
    assert "attachment" in got.headers["content-disposition"]
    archive = zipfile.ZipFile(io.BytesIO(got.content))
    assert archive.testzip() is None
    return archive


def manifest_of(archive: zipfile.ZipFile) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(archive.read("manifest.json"))
    return manifest


def test_officer_downloads_all_bundles_of_the_clauses_that_airflow_knows(
    pages_server: PagesServer,
) -> None:
    archive = downloaded(pages_server, OFFICER)
    manifest = manifest_of(archive)
    expected = [
        row.dag_id
        for row in pages_server.company.rows()
        if row.controls and DAG_OF[row.dag_id] != "a_workflow_of_yesterday" and is_in_period(row)
    ]
    assert [entry["workflow"] for entry in manifest["bundles"]] == expected
    assert all(entry["verified"] for entry in manifest["bundles"]), manifest
    for entry in manifest["bundles"]:
        bundle = entry["folder"].removeprefix("bundles/")
        for path in (pages_server.company.root / "evidence" / bundle).rglob("*"):
            name = path.relative_to(pages_server.company.root / "evidence").as_posix()
            assert archive.read(f"bundles/{name}") == path.read_bytes()


@pytest.mark.parametrize(
    "role",
    [role for role in all_roles(PACK) if role.name.startswith("Department")][:2]
    + [role for role in all_roles(PACK) if role.name == "Auditor"],
    ids=lambda role: role.name,
)
def test_pack_has_only_bundles_and_ledger_rows_that_the_visitor_may_read(
    pages_server: PagesServer, role: Role
) -> None:
    if pages_server.get(role.name, "/evidence").status_code == 403:
        assert pages_server.get(role.name, address()).status_code == 403
        return
    archive = downloaded(pages_server, role.name)
    manifest = manifest_of(archive)
    rows = [
        json.loads(line.split("\t")[1])[1]
        for line in archive.read("chain/ledger.txt").decode().splitlines()
    ]
    for name in [*(row["dag_id"] for row in rows), *(b["workflow"] for b in manifest["bundles"])]:
        assert DAG_OF[name] in role.reads, name
    hidden = {
        row.dag_id
        for row in pages_server.company.rows()
        if row.controls and DAG_OF[row.dag_id] not in role.reads
    }
    left_out = {entry["name"] for entry in manifest["workflows_left_out"]}
    assert left_out == hidden
    workflows = {entry["workflow"] for entry in manifest["findings"]}
    assert all(DAG_OF[name] in role.reads for name in workflows - {""})
    for name in hidden:
        assert not any(member.startswith(f"bundles/{name}/") for member in archive.namelist())


def test_form_states_that_a_period_that_ends_today_can_only_be_amber(
    pages_server: PagesServer,
) -> None:
    words = "If the period ends today, the result of the verification page can only be amber"
    assert words in pages_server.get(OFFICER, "/inspection-pack").text


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?first_day=2026-01-01&last_day=2026-01-31", "Choose at least one clause."),
        ("?clause=99.9&first_day=2026-01-01&last_day=2026-01-31", "no control of this clause"),
        ("?clause=5.3&first_day=2026-02-01&last_day=2026-01-31", "must not be after"),
        ("?clause=5.3&first_day=yesterday&last_day=", "Enter the first and the last day"),
        ("?clause=<script>&first_day=2026-01-01&last_day=2026-01-31", "no control of this clause"),
    ],
)
def test_form_shows_the_reason_if_the_selection_is_not_valid(
    pages_server: PagesServer, query: str, words: str
) -> None:
    got = pages_server.get(OFFICER, f"/inspection-pack/pack.zip{query}")
    assert got.status_code == 400
    assert words in got.text
    assert 'role="alert"' in got.text
    assert "<script>&" not in got.text


@contextmanager
def large_first_bundle(pages_server: PagesServer) -> Iterator[Path]:
    """Add a file of 64 MiB to the first bundle, so that a download takes longer than its start."""
    root = pages_server.company.root / "evidence"
    first = next(filter(is_in_period, pages_server.company.rows()))
    file = root / first.bundle / "zzz.bin"
    file.write_bytes(os.urandom(64 * 1024 * 1024))
    try:
        yield root
    finally:
        file.unlink()


def begun(pages_server: PagesServer) -> tuple[requests.Response, Iterator[bytes]]:
    """Begin a download, read its first bytes, and return the response and the other bytes."""
    got = pages_server.airflow.session(OFFICER).get(
        pages_server.url + address(), stream=True, timeout=120
    )
    assert got.status_code == 200
    chunks = got.iter_content(1024 * 1024)
    assert next(chunks).startswith(b"PK")
    return got, chunks


def test_download_breaks_off_if_the_store_fails_after_it_began(pages_server: PagesServer) -> None:
    """The connection is closed before the end, so nobody takes the file for a complete pack."""
    with large_first_bundle(pages_server) as root:
        _response, chunks = begun(pages_server)
        away = root.with_name("away")
        root.rename(away)
        content = io.BytesIO()
        try:
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                content.writelines(chunks)
        finally:
            away.rename(root)
    assert content.tell() > 1024 * 1024
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(content)
    assert pages_server.get(OFFICER, address()).status_code == 200


def test_download_shows_an_error_page_if_the_store_is_away_from_the_start(
    pages_server: PagesServer,
) -> None:
    root = pages_server.company.root / "evidence"
    away = root.with_name("away")
    root.rename(away)
    try:
        got = pages_server.get(OFFICER, address())
        assert got.status_code == 503
        assert "A service is not available" in got.text
        assert str(root) not in got.text
    finally:
        away.rename(root)


def test_cancelled_downloads_release_their_turns(pages_server: PagesServer) -> None:
    """At most two packs are downloaded at the same time. A third visitor waits, then gets 503."""
    with large_first_bundle(pages_server):
        first, second = begun(pages_server), begun(pages_server)
        third = pages_server.get(OFFICER, address())
        assert third.status_code == 503
        assert "Too many downloads" in third.text
        for response, _chunks in (first, second):
            response.close()
        begun(pages_server)[0].close()
    assert pages_server.get(OFFICER, address()).status_code == 200
