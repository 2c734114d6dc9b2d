"""Tests that canary values of the databases occur in no output of ParcelSeal.

Rows with these values were backed up, restored, compared, and quoted by failing PostgreSQL
statements. The tests search everything that ParcelSeal wrote meanwhile.
"""

from __future__ import annotations

import base64
import json
import re
from email.mime.text import MIMEText
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.registry import WORKFLOWS
from tests.e2e import audited as audits
from tests.e2e import databases
from tests.e2e.audited import Audited
from tests.e2e.conftest import Cli, FailedRuns, Probed, Used
from tests.e2e.incidents.incident_driver import Played
from tests.e2e.retained import Retained
from tests.e2e.search import NOTICE_SUBJECT, Search, forms, without_its_reader

# If this file runs alone, its first test starts every run of this folder.
pytestmark = pytest.mark.airflow

EVERY_WORKFLOW = frozenset(WORKFLOWS)
ANSWERS = {"review_intake": ("--answer", "review=Approve")}
# Values in rows of the faulty databases that make statements fail.
QUOTED = (databases.IN_CLOCK, databases.IN_CHECK, databases.IN_LOAN)
PLANTED = "金丝雀 & CANARY-0815"


@pytest.fixture(scope="module")
def canaries(cli: Cli, audited: Audited) -> list[str]:
    """All canary values of the databases."""
    sheet = json.loads((cli.home / "sample" / "answer_sheet.json").read_text())
    marked = dict.fromkeys([*(canary["value"] for canary in sheet["canaries"]), *audited.canaries])
    return [*marked, *QUOTED]


@pytest.fixture(scope="module")
def ran(
    cli: Cli,
    backed_up: dict[str, Any],
    drilled: dict[str, Any],
    checked: dict[str, Any],
    partners: dict[str, Any],
    reminded: dict[str, Any],
    library: dict[str, str],
    failed: FailedRuns,
    probed: Probed,
    retained: Retained,
    audited: Audited,
    led: dict[str, Played],
    used: Used,
) -> None:
    """Run every workflow. The fixtures also cause every known failure."""
    sealed = {folder.name for folder in (cli.home / "evidence").iterdir()}
    for dag_id in EVERY_WORKFLOW - sealed:
        answers = ANSWERS.get(dag_id, ())
        # Without form values a run may fail, but it is sealed.
        cli.call("run", dag_id, "--json", *answers)
    assert {folder.name for folder in (cli.home / "evidence").iterdir()} >= EVERY_WORKFLOW


def test_all_canary_values_are_in_the_databases(cli: Cli, canaries: list[str], ran: None):
    """A search for values that do not exist would always pass."""
    values_found: set[str] = set()
    for name in ("courier", audits.NAME, *databases.FAULTY):
        with psycopg.connect(cli.postgres(name)) as conn:
            values_found |= {table.value for table in Search(canaries).tables(conn)}
    with psycopg.connect(cli.postgres("library")) as conn:
        values_found |= {table.value for table in Search(canaries).tables(conn)}
    assert values_found == set(canaries)


def test_no_file_in_the_home_folder_contains_a_canary_value(
    cli: Cli, canaries: list[str], ran: None
):
    """The search covers logs, bundles with reports, manifests, backups, keys and other files."""
    assert list(Search(canaries).folder(cli.home)) == []


def test_customer_notice_contains_no_canary_value_except_the_address_of_its_recipient(
    cli: Cli, canaries: list[str], ran: None
):
    """Customers with canary values got notices. Only the header ``To:`` contains their address."""
    values_found: set[str] = set()
    for path in (cli.home / "mail").glob("*.eml"):
        content = path.read_bytes()
        values = {match.value for match in Search(canaries).content(content, path.name)}
        if without_its_reader(content) == content:
            assert not values
            continue
        (to,) = re.findall(rb"(?m)^To: (\S+)", content)
        # Only the canary e-mail address is found.
        assert all(value.encode() in to for value in values)
        assert content.count(to) == 1
        values_found |= values
    assert any("@" in value for value in values_found)


def test_canary_search_ignores_only_the_recipient_address_of_a_notice():
    """Addresses in other headers and in the text are still found."""
    plain = f"To: {PLANTED}\r\nSubject: Hello\r\n\r\nTo: {PLANTED}\r\n".encode()
    assert without_its_reader(plain) == plain
    notice = MIMEText(f"To: {PLANTED}", _charset="utf-8")
    notice["To"], notice["Subject"], notice["Cc"] = "a@b.example", NOTICE_SUBJECT, "a@b.example"
    kept = without_its_reader(notice.as_bytes())
    assert kept.count(b"a@b.example") == 1
    assert [match.value for match in Search([PLANTED]).content(kept, "notice")] == [PLANTED]


@pytest.mark.parametrize("database", ["airflow_runs", "parcelseal_state"])
def test_state_database_and_airflow_database_contain_no_canary_value(
    cli: Cli, canaries: list[str], ran: None, database: str
):
    """The search covers every table of both databases, including Airflow's XCom."""
    with psycopg.connect(cli.postgres(database)) as conn:
        assert list(Search(canaries).tables(conn)) == []


def test_failed_restore_prints_no_canary_value(cli: Cli, canaries: list[str], failed: FailedRuns):
    """A restore that fails because of a row reports the failure without the row."""
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as conn:
        conn.execute("CREATE DATABASE unloadable_restored")
    completed = cli.call(
        *("restore", "--database", "unloadable", "--key", "keys/escrow.key", "--json"),
        *("--into", cli.postgres("unloadable_restored")),
        **failed.environment,
    )
    assert completed.returncode == 3, completed.stderr
    assert (
        list(Search(canaries).content((completed.stdout + completed.stderr).encode(), "output"))
        == []
    )


def plant_pdf(path: Path) -> None:
    from weasyprint import HTML

    HTML(string=f"<p>{PLANTED.replace('&', '&amp;')}</p>").write_pdf(path)


def test_canary_search_finds_the_value_in_every_folder_and_encoding(cli: Cli):
    """The search finds the value in every folder and in every likely encoding."""
    planted = {
        "logs/run-planted.log": f"DETAIL: Key (name)=({PLANTED})".encode(),
        "logs/escaped.log": json.dumps({"event": PLANTED}).encode(),
        "airflow/logs/dag_id=x/attempt=1.log": repr(PLANTED.encode()).encode(),
        "evidence/planted/result.json": json.dumps([PLANTED], ensure_ascii=False).encode(),
        "evidence/planted/report.en.html": PLANTED.replace("&", "&amp;").encode(),
        "evidence/planted/encoded.txt": base64.b64encode(b"xy" + PLANTED.encode() + b"z"),
        "offsite/planted/manifest.json": PLANTED.encode(),
        f"offsite/planted/{PLANTED}.json": b"",
    }
    for location, content in planted.items():
        (cli.home / location).parent.mkdir(parents=True, exist_ok=True)
        (cli.home / location).write_bytes(content)
    try:
        values_found = {match.location for match in Search([PLANTED]).folder(cli.home)}
    finally:
        for location in planted:
            (cli.home / location).unlink()
        for folder in ("evidence/planted", "offsite/planted"):
            (cli.home / folder).rmdir()
    assert values_found == set(planted)


@pytest.mark.pdf
def test_search_finds_canary_value_in_the_text_of_a_pdf(tmp_path: Path):
    """The text of a PDF file is compressed, so the search reads its text layer."""
    plant_pdf(tmp_path / "report.pdf")
    assert PLANTED.encode() not in (tmp_path / "report.pdf").read_bytes()
    assert [match.value for match in Search([PLANTED]).folder(tmp_path)] == [PLANTED]


@pytest.mark.parametrize(
    ("database", "table", "change"),
    [
        ("airflow_runs", "public.xcom", "UPDATE xcom SET value = to_jsonb(%s::text) WHERE {first}"),
        (
            "airflow_runs",
            "public.dag_run",
            "UPDATE dag_run SET conf = to_jsonb(%s::text) WHERE {first}",
        ),
        # This row is inserted, because rows of sealed runs are deleted.
        (
            "parcelseal_state",
            "public.run_step",
            "INSERT INTO run_step VALUES ('planted', 'run', 'step', %s, now(), '{{}}')",
        ),
        (
            "parcelseal_state",
            "public.run_artifact",
            "INSERT INTO run_artifact VALUES ('planted', 'run', 'a', convert_to(%s, 'UTF8'))",
        ),
    ],
)
def test_search_finds_canary_value_in_text_json_and_bytes_columns_of_a_table(
    cli: Cli, ran: None, database: str, table: str, change: str
):
    """The search finds the value in columns with text, JSON and bytes."""
    first = f"ctid = (SELECT min(ctid) FROM {table})"
    with psycopg.connect(cli.postgres(database)) as conn:
        assert conn.execute(change.format(first=first), [PLANTED]).rowcount == 1
        places = {finding.location for finding in Search([PLANTED]).tables(conn)}
        conn.rollback()
    assert table in places


def test_search_finds_base64_of_a_canary_value_at_every_alignment():
    """Base64 is found wherever the value begins.

    No encoding is so short that it matches by chance.
    """
    for before in range(4):
        for after in range(4):
            text = base64.b64encode(b"\xff" * before + PLANTED.encode() + b"\xff" * after)
            assert any(form in text for form in forms(PLANTED))
    assert min(map(len, forms("19977832279"))) >= 11
