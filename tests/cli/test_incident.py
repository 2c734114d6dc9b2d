"""The ``incident`` commands list, show, verify, note and documents, which work without Airflow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from include.cli import app
from include.cli import incident as command
from include.evidence.ledger import LedgerRow
from include.incident.evidence import evidence_check
from include.incident.form import Action
from include.incident.incident_ids import UPDATES, WORKFLOW, Kind
from include.incident.report import timeline_file
from include.local.postgres import EmbeddedPostgres
from include.services.database import DatabaseAddress
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from include.state.connect import engine
from include.state.tables import evidence_ledger
from tests.incident.evidence.extract_fixtures import run as run_sql
from tests.incident.incident_fixtures import LEAD, NIGHT, TABLES, Case, Company
from tests.support.damage import flip
from tests.support.databases import temporary_database
from tests.support.s3 import client_for, new_bucket, start_moto


@pytest.fixture(scope="module")
def state(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Engine]:
    """Yield a state database that all tests of this module share."""
    with temporary_database(postgres, migrated_once) as name:
        yield engine(postgres.conninfo(name))


@pytest.fixture(scope="module")
def address(postgres: EmbeddedPostgres) -> Iterator[DatabaseAddress]:
    with temporary_database(postgres) as name:
        result = DatabaseAddress.from_conninfo(postgres.conninfo(name))
        run_sql(result, TABLES)
        yield result


@pytest.fixture
def company(
    state: Engine, address: DatabaseAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Company:
    """Return a company whose state database and evidence store the commands use."""
    company = Company(state, address, tmp_path)
    monkeypatch.setattr(command, "command_services", lambda: company)
    monkeypatch.setattr(command, "local_stack", nullcontext)
    monkeypatch.setattr(command, "_context", lambda _services: company.anywhere)
    monkeypatch.setattr(Company, "store", lambda *_: DirectoryStore(company.folder), raising=False)
    return company


@pytest.fixture
def case(company: Company) -> Case:
    return company.open(1, 2, began_at="2026-11-26T01:00").until("grade")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run an ``incident`` command and return its exit code, stdout and stderr."""
    code = app._run(["incident", *words])
    output = capsys.readouterr()
    return code, output.out, output.err


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code, out, _said = run(capsys, *words, "--json")
    assert out.count("\n") == 1
    result = json.loads(out)
    assert isinstance(result, dict)
    return code, result


def test_incident_list_shows_number_of_deadlines_that_are_missed_at_the_current_time(
    company: Company, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newest incident is first.

    The command evaluates deadlines at the current time, not at the time of the last run.
    """
    company.clock.on(hours=6)
    code, result = run_json(capsys, "list")
    assert code == 0
    first = result["incidents"][0]
    assert first["incident"] == case.number
    assert (first["state"], first["grade"], first["type"]) == ("open", "general", "lost_device")
    assert first["ran_out"] == 2  # team call, report to the postal administration
    assert first["began_at"] == "2026-11-25T17:00:00+00:00"
    assert first["run_id"] == case.run.run_id
    _code, out, _ = run(capsys, "list")
    assert case.number in out


def test_incident_show_prints_deadlines_and_timeline(
    company: Company, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    """The incident number may be in lower case. Time limits that do not apply are omitted."""
    company.clock.on(minutes=30)
    code, result = run_json(capsys, "show", case.number.lower())
    assert code == 0
    states = {clock["clock"]: clock["state"] for clock in result["clocks"]}
    assert (states["graded"], states["postal_first"]) == ("met", "running")
    assert "cac_first_critical" not in states
    assert [row["place"] for row in result["timeline"]] == list(range(1, len(case.entries()) + 1))
    assert result["timeline"][0]["kind"] == "opened"
    _code, out, _ = run(capsys, "show", case.number)
    assert "A scanner was left in a taxi" in out
    assert "The grade of the incident is General." in out


def test_incident_note_command_adds_timeline_entry_with_author_and_time(
    company: Company, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    """The timeline entry has the name of the team member and the time of the event."""
    company.clock.on(hours=6)
    words = ("note", case.number, "The police came", "--by", LEAD, "--at", "2026-11-26T04:00")
    code, result = run_json(capsys, *words)
    assert (code, result["incident"]) == (0, case.number)
    entry = case.entries(Kind.NOTE)[-1]
    assert (entry.place, entry.sha256) == (result["entry"], result["sha256"])
    assert (entry.by, entry.happened_at) == (LEAD, NIGHT + timedelta(minutes=45))
    code, out, _ = run(capsys, "note", case.number, "And left", "--by", LEAD)
    assert code == 0
    assert f"Entry {entry.place + 1} of {case.number}" in out


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("Z9", "It rained", ""), "Z9 may not enter this"),
        (("T2", "It rained", ""), "T2 may not enter this"),
        ((LEAD, "1 2 3", ""), "contains no words"),
        ((LEAD, "It rained", "noon"), "is not a valid time"),
        ((LEAD, "It rained", "2027-01-01T00:00"), "is in the future"),
    ],
)
def test_incident_note_command_exits_with_2_for_invalid_author_text_or_time(
    case: Case, capsys: pytest.CaptureFixture[str], words: tuple[str, str, str], fault: str
) -> None:
    """The timeline gets no new entry."""
    case.update(Action.TAKE_OFF, account="T2")
    count = len(case.entries())
    by, note, at = words
    when = ("--at", at) if at else ()
    code, _out, err = run(capsys, "note", case.number, note, "--by", by, *when)
    assert code == 2
    assert fault in " ".join(err.split())
    assert len(case.entries()) == count


def test_incident_verify_detects_a_changed_timeline(
    company: Company, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 1, and the output has the number of the first entry that does not verify."""
    code, result = run_json(capsys, "verify", case.number)
    assert (code, result["verified"], result["first_bad"]) == (0, True, None)
    assert (result["entries"], result["head"]) == (len(case.entries()), case.entries()[-1].sha256)
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(
            text("UPDATE incident_entry SET by = 'E9' WHERE incident_id = :id AND place = 2"),
            {"id": case.record.incident.id},
        )
    code, result = run_json(capsys, "verify", case.number)
    assert (code, result["verified"], result["first_bad"]) == (1, False, 2)
    code, _out, err = run(capsys, "verify", case.number)
    assert code == 1
    assert "entry 2" in err


def test_incident_verify_reports_missing_or_changed_log_extract_or_list_of_affected_people(
    company: Company, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command verifies the list of affected people in the database, and each log extract."""
    (entry,) = case.entries(Kind.PRESERVED)
    key = entry.data["extracts"]["courier"]["key"]
    code, result = run_json(capsys, "verify", case.number)
    assert (code, result["verified"]) == (0, True)
    assert [(row["name"], row["entry"], row["holds"]) for row in result["evidence"]] == [
        ("incident_subject", entry.place, True), (key, entry.place, True),
    ]  # fmt: skip
    assert result["evidence"][0]["sha256"] == entry.data["list_sha256"]
    path = company.folder / key
    content = path.read_bytes()
    flip(path)
    code, result = run_json(capsys, "verify", case.number)
    assert (code, [row["holds"] for row in result["evidence"]]) == (1, [True, False])
    path.unlink()
    code, _out, err = run(capsys, "verify", case.number)
    assert (code, f"{key} is missing (entry {entry.place})" in err) == (1, True)
    path.write_bytes(content)
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(
            text("DELETE FROM incident_subject WHERE incident_id = :id AND key = '2'"),
            {"id": case.record.incident.id},
        )
    code, _out, err = run(capsys, "verify", case.number)
    assert code == 1
    assert "incident_subject differs from the secured version" in err


@pytest.mark.parametrize("hide", ["delete", "overwrite"])
def test_incident_verify_prints_intact_object_version_of_overwritten_or_deleted_log_extract(
    company: Company,
    case: Case,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    hide: str,
) -> None:
    """Object Lock keeps the original version that a newer version or a delete marker hides."""
    (entry,) = case.entries(Kind.PRESERVED)
    key = entry.data["extracts"]["courier"]["key"]
    server = start_moto()
    try:
        client = client_for(server.endpoint)
        bucket = new_bucket(client)
        store = S3Store(client, bucket)
        secured = store.put(key, (company.folder / key).read_bytes()).version_id
        monkeypatch.setattr(Company, "store", lambda *_: store)
        code, answer = run_json(capsys, "verify", case.number)
        assert (code, answer["evidence"][1]["intact_version"]) == (0, "")
        if hide == "delete":
            client.delete_object(Bucket=bucket, Key=key)
        else:
            client.put_object(Bucket=bucket, Key=key, Body=b"x")
        code, answer = run_json(capsys, "verify", case.number)
        assert (code, answer["evidence"][1]["intact_version"]) == (1, secured)
        _code, _out, err = run(capsys, "verify", case.number)
        assert f"the version that was secured is intact: {secured} (entry {entry.place})" in err
    finally:
        server.stop()


@pytest.mark.parametrize("name", ["show", "verify", "documents"])
def test_incident_command_with_unknown_incident_number_exits_with_2(
    company: Company, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    out = ("--out", str(tmp_path / "out")) if name == "documents" else ()
    code, _out, err = run(capsys, name, "INC-1999-0001", *out)
    assert code == 2
    assert "The incident INC-1999-0001 does not exist" in err
    assert company.broken == set()


def test_incident_documents_command_creates_no_folder_if_no_document_is_sealed(
    case: Case, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, _out, err = run(capsys, "documents", case.number, "--out", str(out))
    assert code == 2
    assert "has no sealed documents yet" in err
    assert not out.exists()


@pytest.mark.parametrize("kind", ["addition", "document"])
def test_incident_verify_detects_deleted_timeline_entries_that_are_in_a_sealed_bundle(
    company: Company,
    case: Case,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
) -> None:
    """The remaining entries verify, but a sealed bundle lists an entry that is missing."""
    store = DirectoryStore(tmp_path)
    monkeypatch.setattr(Company, "store", lambda *_: store, raising=False)
    records = {"result.json": _result([])}
    if kind == "addition":
        records["timeline.jsonl"] = timeline_file(case.record)
    else:
        records["result.json"] = _result(
            [evidence_check.timeline_record(case.record).model_dump(mode="json")]
        )
    other = {"result.json": _result([]), "timeline.jsonl": timeline_file(company.open(3).record)}
    now = company.clock.now()
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(text("TRUNCATE evidence_ledger"))
        for number, files in enumerate((records, other), 1):
            for name, content in files.items():
                store.put(f"b{kind}{number}/{name}", content)
            row = LedgerRow(
                seq=number,
                bundle=f"b{kind}{number}",
                dag_id=UPDATES if kind == "addition" or number == 2 else f"{WORKFLOW}.first-cac",
                run_id=case.run.run_id if number == 1 else f"other-{kind}",
                outcome="pass",
                controls=[],
                started_at=now,
                sealed_at=now,
                sums_sha256="0" * 64,
                previous_sums_sha256="",
                key_fingerprint="none",
                row_signature=b"-",
            )
            conn.execute(evidence_ledger.insert().values(asdict(row)))
    case.update(Action.NOTE)
    code, result = run_json(capsys, "verify", case.number)
    assert (code, result["bundles"], result["contradicting"]) == (0, 1, [])
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(
            text("DELETE FROM incident_entry WHERE incident_id = :id AND place >= :last"),
            {"id": case.record.incident.id, "last": len(case.entries()) - 1},
        )
    code, result = run_json(capsys, "verify", case.number)
    assert (code, result["verified"], result["first_bad"]) == (1, False, None)
    assert result["contradicting"] == [f"b{kind}1"]
    _code, _out, err = run(capsys, "verify", case.number)
    assert f"b{kind}1 has an entry that is missing or different in the timeline" in err
    for name in records:
        (tmp_path / f"b{kind}1" / name).unlink()
    code, result = run_json(capsys, "verify", case.number)
    assert (code, result["unreadable"]) == (1, [f"b{kind}1"])


def _result(steps: list[dict[str, Any]]) -> bytes:
    return json.dumps({"steps": steps}).encode()
