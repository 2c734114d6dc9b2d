"""``incident``: list, show, verify, note and documents, in words and as JSON, without Airflow."""

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
from include.incident.evidence import kept
from include.incident.form import Action
from include.incident.names import UPDATES, WORKFLOW, Kind
from include.incident.report import timeline_file
from include.local.postgres import EmbeddedPostgres
from include.services.database import DatabaseAddress
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from include.state.connect import engine
from include.state.tables import evidence_ledger
from tests.incident.desk_rig import LEAD, NIGHT, TABLES, Case, Company
from tests.incident.evidence.extract_rig import run as run_sql
from tests.support.damage import flip
from tests.support.databases import fresh
from tests.support.s3 import client_for, new_bucket, start_moto


@pytest.fixture(scope="module")
def state(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Engine]:
    """A state database that the tests share."""
    with fresh(postgres, migrated_once) as name:
        yield engine(postgres.conninfo(name))


@pytest.fixture(scope="module")
def address(postgres: EmbeddedPostgres) -> Iterator[DatabaseAddress]:
    with fresh(postgres) as name:
        found = DatabaseAddress.from_conninfo(postgres.conninfo(name))
        run_sql(found, TABLES)
        yield found


@pytest.fixture
def company(
    state: Engine, address: DatabaseAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Company:
    """A company whose commands work on its state."""
    made = Company(state, address, tmp_path)
    monkeypatch.setattr(command, "workplace", lambda: made)
    monkeypatch.setattr(command, "local_stack", nullcontext)
    monkeypatch.setattr(command, "_context", lambda _place: made.anywhere)
    monkeypatch.setattr(Company, "store", lambda *_: DirectoryStore(made.folder), raising=False)
    return made


@pytest.fixture
def case(company: Company) -> Case:
    return company.open(1, 2, began_at="2026-11-26T01:00").until("grade")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run a command; its exit code, what it said on stdout and on stderr."""
    code = app._run(["incident", *words])
    told = capsys.readouterr()
    return code, told.out, told.err


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code, out, _said = run(capsys, *words, "--json")
    assert out.count("\n") == 1
    found = json.loads(out)
    assert isinstance(found, dict)
    return code, found


def test_incidents_are_listed_with_what_is_due_and_what_ran_out(
    company: Company, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newest first; the truth of now, though nothing was running meanwhile."""
    company.clock.on(hours=6)
    code, found = told(capsys, "list")
    assert code == 0
    first = found["incidents"][0]
    assert first["incident"] == case.number
    assert (first["state"], first["grade"], first["type"]) == ("open", "general", "lost_device")
    assert first["ran_out"] == 2  # the team was not called, the postal administration not told
    assert first["began_at"] == "2026-11-25T17:00:00+00:00"
    assert first["run_id"] == case.run.run_id
    _code, said, _ = run(capsys, "list")
    assert case.number in said


def test_an_incident_is_shown_with_its_clocks_and_its_timeline(
    company: Company, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    """However its number is typed; what does not apply is left out."""
    company.clock.on(minutes=30)
    code, found = told(capsys, "show", case.number.lower())
    assert code == 0
    states = {one["clock"]: one["state"] for one in found["clocks"]}
    assert (states["graded"], states["postal_first"]) == ("met", "running")
    assert "cac_first_critical" not in states
    assert [one["place"] for one in found["timeline"]] == list(range(1, len(case.entries()) + 1))
    assert found["timeline"][0]["kind"] == "opened"
    _code, said, _ = run(capsys, "show", case.number)
    assert "A scanner was left in a taxi" in said
    assert "Graded General." in said


def test_a_note_is_added_where_airflow_is_down(
    company: Company, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the name of one of the team, with the moment at which it happened."""
    company.clock.on(hours=6)
    words = ("note", case.number, "The police came", "--by", LEAD, "--at", "2026-11-26T04:00")
    code, found = told(capsys, *words)
    assert (code, found["incident"]) == (0, case.number)
    entry = case.entries(Kind.NOTE)[-1]
    assert (entry.place, entry.sha256) == (found["entry"], found["sha256"])
    assert (entry.by, entry.happened_at) == (LEAD, NIGHT + timedelta(minutes=45))
    code, said, _ = run(capsys, "note", case.number, "And left", "--by", LEAD)
    assert code == 0
    assert f"Entry {entry.place + 1} of {case.number}" in said


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("Z9", "It rained", ""), "Z9 may not do that"),
        (("T2", "It rained", ""), "T2 may not do that"),
        ((LEAD, "1 2 3", ""), "says nothing"),
        ((LEAD, "It rained", "noon"), "is no moment"),
        ((LEAD, "It rained", "2027-01-01T00:00"), "is yet to come"),
    ],
)
def test_a_note_that_cannot_be_is_refused_with_what_to_do(
    case: Case, capsys: pytest.CaptureFixture[str], words: tuple[str, str, str], fault: str
) -> None:
    """Nothing is entered."""
    case.update(Action.TAKE_OFF, account="T2")
    count = len(case.entries())
    by, said, at = words
    when = ("--at", at) if at else ()
    code, _out, err = run(capsys, "note", case.number, said, "--by", by, *when)
    assert code == 2
    assert fault in " ".join(err.split())
    assert len(case.entries()) == count


def test_a_timeline_is_verified_and_tampering_is_found(
    company: Company, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, and the entry at which it does not hold."""
    code, found = told(capsys, "verify", case.number)
    assert (code, found["verified"], found["first_bad"]) == (0, True, None)
    assert (found["entries"], found["head"]) == (len(case.entries()), case.entries()[-1].sha256)
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(
            text("UPDATE incident_entry SET by = 'E9' WHERE incident_id = :id AND place = 2"),
            {"id": case.record.incident.id},
        )
    code, found = told(capsys, "verify", case.number)
    assert (code, found["verified"], found["first_bad"]) == (1, False, 2)
    code, _out, err = run(capsys, "verify", case.number)
    assert code == 1
    assert "entry 2" in err


def test_evidence_that_is_gone_or_changed_is_named(
    company: Company, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    """The frozen list in the state database, and each extract in the store."""
    (entry,) = case.entries(Kind.PRESERVED)
    key = entry.data["extracts"]["courier"]["key"]
    code, found = told(capsys, "verify", case.number)
    assert (code, found["verified"]) == (0, True)
    assert [(one["name"], one["entry"], one["holds"]) for one in found["evidence"]] == [
        ("incident_subject", entry.place, True), (key, entry.place, True),
    ]  # fmt: skip
    assert found["evidence"][0]["sha256"] == entry.data["list_sha256"]
    path = company.folder / key
    content = path.read_bytes()
    flip(path)
    code, found = told(capsys, "verify", case.number)
    assert (code, [one["holds"] for one in found["evidence"]]) == (1, [True, False])
    path.unlink()
    code, _out, err = run(capsys, "verify", case.number)
    assert (code, f"{key} is gone (entry {entry.place})" in err) == (1, True)
    path.write_bytes(content)
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(
            text("DELETE FROM incident_subject WHERE incident_id = :id AND key = '2'"),
            {"id": case.record.incident.id},
        )
    code, _out, err = run(capsys, "verify", case.number)
    assert code == 1
    assert "incident_subject is not what was secured" in err


@pytest.mark.parametrize("hide", ["delete", "overwrite"])
def test_extract_that_an_intruder_hid_in_a_bucket_is_named_with_its_intact_version(
    company: Company,
    case: Case,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    hide: str,
) -> None:
    """Object Lock keeps the version that was secured; a newer version or marker hides it."""
    (entry,) = case.entries(Kind.PRESERVED)
    key = entry.data["extracts"]["courier"]["key"]
    server = start_moto()
    try:
        client = client_for(server.endpoint)
        bucket = new_bucket(client)
        store = S3Store(client, bucket)
        secured = store.put(key, (company.folder / key).read_bytes()).version_id
        monkeypatch.setattr(Company, "store", lambda *_: store)
        code, answer = told(capsys, "verify", case.number)
        assert (code, answer["evidence"][1]["intact_version"]) == (0, "")
        if hide == "delete":
            client.delete_object(Bucket=bucket, Key=key)
        else:
            client.put_object(Bucket=bucket, Key=key, Body=b"x")
        code, answer = told(capsys, "verify", case.number)
        assert (code, answer["evidence"][1]["intact_version"]) == (1, secured)
        _code, _out, err = run(capsys, "verify", case.number)
        assert f"the version that was secured is intact: {secured} (entry {entry.place})" in err
    finally:
        server.stop()


@pytest.mark.parametrize("name", ["show", "verify", "documents"])
def test_an_incident_that_there_is_not_is_named(
    company: Company, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    """With where to look."""
    out = ("--out", str(tmp_path / "out")) if name == "documents" else ()
    code, _out, err = run(capsys, name, "INC-1999-0001", *out)
    assert code == 2
    assert "There is no incident INC-1999-0001" in err
    assert company.broken == set()


def test_documents_that_were_not_made_yet_are_none(
    case: Case, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """And no folder is left."""
    out = tmp_path / "out"
    code, _out, err = run(capsys, "documents", case.number, "--out", str(out))
    assert code == 2
    assert "No document of" in err
    assert not out.exists()


@pytest.mark.parametrize("kind", ["addition", "document"])
def test_a_timeline_whose_end_was_cut_off_contradicts_a_sealed_bundle(
    company: Company,
    case: Case,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
) -> None:
    """What is left of it holds by itself; the bundle knows of an entry that is not there."""
    store = DirectoryStore(tmp_path)
    monkeypatch.setattr(Company, "store", lambda *_: store, raising=False)
    records = {"result.json": _result([])}
    if kind == "addition":
        records["timeline.jsonl"] = timeline_file(case.record)
    else:
        records["result.json"] = _result(
            [kept.timeline_record(case.record).model_dump(mode="json")]
        )
    other = {"result.json": _result([]), "timeline.jsonl": timeline_file(company.open(3).record)}
    now = company.clock.now()
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(text("TRUNCATE evidence_ledger"))
        for place, held in enumerate((records, other), 1):
            for name, content in held.items():
                store.put(f"b{kind}{place}/{name}", content)
            row = LedgerRow(
                seq=place,
                bundle=f"b{kind}{place}",
                dag_id=UPDATES if kind == "addition" or place == 2 else f"{WORKFLOW}.first-cac",
                run_id=case.run.run_id if place == 1 else f"other-{kind}",
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
    code, found = told(capsys, "verify", case.number)
    assert (code, found["bundles"], found["contradicting"]) == (0, 1, [])
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(
            text("DELETE FROM incident_entry WHERE incident_id = :id AND place >= :last"),
            {"id": case.record.incident.id, "last": len(case.entries()) - 1},
        )
    code, found = told(capsys, "verify", case.number)
    assert (code, found["verified"], found["first_bad"]) == (1, False, None)
    assert found["contradicting"] == [f"b{kind}1"]
    _code, _out, err = run(capsys, "verify", case.number)
    assert f"b{kind}1 knows an entry that is not there" in err
    for name in records:
        (tmp_path / f"b{kind}1" / name).unlink()
    code, found = told(capsys, "verify", case.number)
    assert (code, found["unreadable"]) == (1, [f"b{kind}1"])


def _result(steps: list[dict[str, Any]]) -> bytes:
    return json.dumps({"steps": steps}).encode()
