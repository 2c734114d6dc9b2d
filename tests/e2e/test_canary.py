"""No customer value gets out: marked values of the databases are searched for everywhere.

They stand in rows that were backed up, restored, compared and quoted by failing PostgreSQL
statements. Whatever ParcelSeal wrote meanwhile is searched for them.
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
from tests.e2e.conftest import Cli, FailedRuns, Probed
from tests.e2e.incidents.led import Played
from tests.e2e.retained import Retained
from tests.e2e.search import LETTER, Search, forms, without_its_reader

# Alone, its first test makes every run of this folder.
pytestmark = pytest.mark.airflow

EVERY_WORKFLOW = frozenset(WORKFLOWS)
ANSWERS = {"review_intake": ("--answer", "review=Approve")}
# Written into the databases above, in rows with which statements fail.
QUOTED = (databases.IN_CLOCK, databases.IN_CHECK, databases.IN_LOAN)
PLANTED = "金丝雀 & CANARY-0815"


@pytest.fixture(scope="module")
def canaries(cli: Cli, audited: Audited) -> list[str]:
    """Every marked value."""
    sheet = json.loads((cli.home / "sample" / "answer_sheet.json").read_text())
    marked = dict.fromkeys([*(one["value"] for one in sheet["canaries"]), *audited.canaries])
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
) -> None:
    """Run every workflow; with the fixtures above, also into every known failure."""
    sealed = {folder.name for folder in (cli.home / "evidence").iterdir()}
    for dag_id in EVERY_WORKFLOW - sealed:
        answers = ANSWERS.get(dag_id, ())
        cli.call("run", dag_id, "--json", *answers)  # without its form it may fail, and is sealed
    assert {folder.name for folder in (cli.home / "evidence").iterdir()} >= EVERY_WORKFLOW


def test_the_marked_values_are_in_the_databases(cli: Cli, canaries: list[str], ran: None):
    """A search for what is nowhere would find nothing."""
    found: set[str] = set()
    for name in ("courier", audits.NAME, *databases.FAULTY):
        with psycopg.connect(cli.postgres(name)) as conn:
            found |= {one.value for one in Search(canaries).tables(conn)}
    with psycopg.connect(cli.postgres("library")) as conn:
        found |= {one.value for one in Search(canaries).tables(conn)}
    assert found == set(canaries)


def test_no_marked_value_is_in_what_we_write(cli: Cli, canaries: list[str], ran: None):
    """Logs, bundles with reports, manifests, backups, keys: every file of the home."""
    assert list(Search(canaries).folder(cli.home)) == []


def test_a_letter_to_a_customer_holds_its_readers_address_and_no_other_value(
    cli: Cli, canaries: list[str], ran: None
):
    """Marked people were written to: the address stands once in each letter, as where it goes."""
    found: set[str] = set()
    for path in (cli.home / "mail").glob("*.eml"):
        content = path.read_bytes()
        values = {one.value for one in Search(canaries).content(content, path.name)}
        if without_its_reader(content) == content:
            assert not values
            continue
        (to,) = re.findall(rb"(?m)^To: (\S+)", content)
        assert all(value.encode() in to for value in values)  # one of them marks the address
        assert content.count(to) == 1
        found |= values
    assert any("@" in value for value in found)


def test_only_letters_may_hold_an_address():
    """And only as where they go: no other header, no line of the text."""
    plain = f"To: {PLANTED}\r\nSubject: Hello\r\n\r\nTo: {PLANTED}\r\n".encode()
    assert without_its_reader(plain) == plain
    letter = MIMEText(f"To: {PLANTED}", _charset="utf-8")
    letter["To"], letter["Subject"], letter["Cc"] = "a@b.example", LETTER, "a@b.example"
    kept = without_its_reader(letter.as_bytes())
    assert kept.count(b"a@b.example") == 1
    assert [one.value for one in Search([PLANTED]).content(kept, "letter")] == [PLANTED]


@pytest.mark.parametrize("database", ["airflow_runs", "parcelseal_state"])
def test_no_marked_value_is_in_a_database_of_ours(
    cli: Cli, canaries: list[str], ran: None, database: str
):
    """XCom and everything else of Airflow; every table of the state database."""
    with psycopg.connect(cli.postgres(database)) as conn:
        assert list(Search(canaries).tables(conn)) == []


def test_no_marked_value_is_said_on_the_command_line(
    cli: Cli, canaries: list[str], failed: FailedRuns
):
    """A restore that fails on a row says so without the row."""
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as conn:
        conn.execute("CREATE DATABASE unloadable_restored")
    done = cli.call(
        *("restore", "--database", "unloadable", "--key", "keys/escrow.key", "--json"),
        *("--into", cli.postgres("unloadable_restored")),
        **failed.environment,
    )
    assert done.returncode == 3, done.stderr
    assert list(Search(canaries).content((done.stdout + done.stderr).encode(), "output")) == []


def plant_pdf(path: Path) -> None:
    from weasyprint import HTML

    HTML(string=f"<p>{PLANTED.replace('&', '&amp;')}</p>").write_pdf(path)


def test_a_planted_value_is_found_in_every_file(cli: Cli):
    """The search sees it in each place and in each form in which it may get out."""
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
    for place, content in planted.items():
        (cli.home / place).parent.mkdir(parents=True, exist_ok=True)
        (cli.home / place).write_bytes(content)
    try:
        found = {one.place for one in Search([PLANTED]).folder(cli.home)}
    finally:
        for place in planted:
            (cli.home / place).unlink()
        for folder in ("evidence/planted", "offsite/planted"):
            (cli.home / folder).rmdir()
    assert found == set(planted)


@pytest.mark.pdf
def test_a_planted_value_is_found_in_the_text_of_a_pdf(tmp_path: Path):
    """A PDF's text is compressed; its text layer is read."""
    plant_pdf(tmp_path / "report.pdf")
    assert PLANTED.encode() not in (tmp_path / "report.pdf").read_bytes()
    assert [one.value for one in Search([PLANTED]).folder(tmp_path)] == [PLANTED]


@pytest.mark.parametrize(
    ("database", "table", "change"),
    [
        ("airflow_runs", "public.xcom", "UPDATE xcom SET value = to_jsonb(%s::text) WHERE {first}"),
        (
            "airflow_runs",
            "public.dag_run",
            "UPDATE dag_run SET conf = to_jsonb(%s::text) WHERE {first}",
        ),
        # Inserted: rows of a sealed run are removed.
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
def test_a_planted_value_is_found_in_a_table(
    cli: Cli, ran: None, database: str, table: str, change: str
):
    """The search sees it in text, JSON and bytes."""
    first = f"ctid = (SELECT min(ctid) FROM {table})"
    with psycopg.connect(cli.postgres(database)) as conn:
        assert conn.execute(change.format(first=first), [PLANTED]).rowcount == 1
        places = {finding.place for finding in Search([PLANTED]).tables(conn)}
        conn.rollback()
    assert table in places


def test_every_form_is_a_form_of_the_value():
    """Base64 is found wherever the value begins, and no form is too short to mean anything."""
    for before in range(4):
        for after in range(4):
            text = base64.b64encode(b"\xff" * before + PLANTED.encode() + b"\xff" * after)
            assert any(form in text for form in forms(PLANTED))
    assert min(map(len, forms("19977832279"))) >= 11
