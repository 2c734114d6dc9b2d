"""Sealing: the content of a bundle, repeated seals, and seals that are killed."""

from __future__ import annotations

import json
import os
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema
import pytest
from sqlalchemy import text

from include.evidence import ledger
from include.evidence.folder import bundle_path
from include.evidence.ledger_recovery import recover_ledger
from include.evidence.model import Result
from include.evidence.signing import Signer, TrustedKeys, generate_key
from include.services.errors import ControlFailed, UsageError
from include.services.objectstore.base import ObjectLocked
from include.services.objectstore.directory import DirectoryStore
from include.state.tables import evidence_intent, evidence_ledger
from tests.evidence.support import (
    CLOCK,
    FILES,
    ROOT,
    Evidence,
    SealingProcess,
    result_of,
)
from tests.support.damage import flip

MADE = {"result.json", "signer.pem", "SHA256SUMS", "SHA256SUMS.sig", *FILES}


def result_path(number: int) -> str:
    run = result_of(number=number).run
    return bundle_path(run.dag_id, run.run_id, run.started_at)


def kill_while_it_waits_for_its_row(evidence: Evidence) -> None:
    """Kill the seal of run 2 after it wrote its files, but before it committed its ledger row."""
    with evidence.engine.begin() as blocker:
        blocker.execute(text("LOCK TABLE evidence_ledger IN SHARE MODE"))  # reads go on
        child = SealingProcess(evidence, 2)
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'")
        for _ in range(1000):
            if blocker.scalar(waiting):
                break
            time.sleep(0.01)
        assert (evidence.root / result_path(2) / "SHA256SUMS").exists()
        assert not (evidence.root / result_path(2) / "SHA256SUMS.sig").exists()
        child.kill()


def files_in(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_bundle_contains_its_files_and_link_to_previous_bundle(chain: Evidence) -> None:
    """Folders, order and lines of SHA256SUMS are as documented; `sha256sum` accepts them."""
    first, second, third = ledger.rows(chain.conn)
    assert first.bundle == "backup_offsite/2026/11/manual__2026-11-25T141019.123456Z"
    assert third.bundle == "backup_offsite/2026/12/manual__2026-12-04T141019.123456Z"
    assert [row.seq for row in (first, second, third)] == [1, 2, 3]
    assert files_in(chain.root / third.bundle) == MADE
    lines = (chain.root / third.bundle / "SHA256SUMS").read_text().splitlines()
    assert lines[-1] == f"{second.sums_sha256}  ../../../../{second.bundle}/SHA256SUMS"
    assert "../" not in (chain.root / first.bundle / "SHA256SUMS").read_text()
    for row in (first, second, third):
        folder = chain.root / row.bundle
        check = subprocess.run(
            ["sha256sum", "--strict", "-c", "SHA256SUMS"],
            cwd=folder,
            capture_output=True,
            check=True,
        )
        assert b"OK" in check.stdout
        written = (folder / "SHA256SUMS.sig").stat().st_mtime_ns
        assert all(f.stat().st_mtime_ns <= written for f in folder.rglob("*") if f.is_file())
    assert chain.verify().verified
    assert chain.verify().bundles == 3


def test_sealed_result_is_read_back_unchanged(chain: Evidence) -> None:
    """The stored result.json also matches the published JSON schema."""
    row = ledger.rows(chain.conn)[0]
    written = json.loads((chain.root / row.bundle / "result.json").read_bytes())
    schema = json.loads((ROOT / "docs/result.schema.json").read_text())
    jsonschema.validate(written, schema)
    assert Result.model_validate(written).model_dump_json() == result_of().model_dump_json()
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(written | {"outcome": "green"}, schema)


def test_ledger_row_of_a_run_lists_the_controls_of_the_run(chain: Evidence) -> None:
    """A run that was not sealed has no row."""
    run = result_of("drill_restore", 2).run
    row = ledger.find(chain.conn, run.dag_id, run.run_id)
    assert row is not None
    assert row.seq == 2
    assert row.controls == ["BK-1", "BK-2"]
    assert row.started_at == run.started_at
    assert ledger.find(chain.conn, run.dag_id, "other") is None


def test_second_seal_of_a_run_returns_first_bundle(chain: Evidence) -> None:
    """The second seal changes nothing."""
    before = {file: file.read_bytes() for file in chain.root.rglob("*") if file.is_file()}
    again = chain.seal(2, dag_id="drill_restore", files={"other.txt": b"other"})
    assert again.seq == 2
    assert {file: file.read_bytes() for file in chain.root.rglob("*") if file.is_file()} == before
    assert len(ledger.rows(chain.conn)) == 3


def test_seal_commits_open_transaction_of_connection(evidence: Evidence) -> None:
    """A caller can seal on a connection on which it has just read or written."""
    evidence.conn.execute(
        evidence_intent.insert().values(bundle="a/2026/01/b", started_at=CLOCK.now())
    )
    evidence.seal()
    evidence.conn.rollback()
    kept = evidence.conn.execute(evidence_intent.select()).all()
    assert [row.bundle for row in kept] == ["a/2026/01/b"]


@pytest.mark.parametrize(
    "name",
    [
        "", "a\nb", "../x", "/etc/x", "a//b", "a/../b", "a\\b", "result.json", "SHA256SUMS",
        "SHA256SUMS.sig", "signer.pem", "signer.pem/x", "-", " a", "a ", "a\u2028b",
        "\u8def" * 70, "a/" * 200 + "b", ".x.lock.json", "report.en.html/x",
    ],
)  # fmt: skip
def test_seal_raises_usage_error_if_a_file_name_would_be_escaped_by_sha256sum(
    evidence: Evidence, name: str
) -> None:
    """The seal refuses the name before it writes anything, and the message contains the name."""
    with pytest.raises(UsageError, match="evidence file name"):
        evidence.seal(files={"report.en.html": b"", name: b""})
    assert not any(evidence.root.iterdir())


@pytest.mark.fault
@pytest.mark.parametrize(
    "step",
    [
        "put report.en.html",
        "put signer.pem",
        "put SHA256SUMS",
        "put SHA256SUMS.sig",
        "lock report.en.html",
        "lock SHA256SUMS.sig",
        "ledger row",
    ],
)
@pytest.mark.parametrize("next_run", ["same", "another"])
def test_chain_of_bundles_is_valid_after_a_seal_was_killed_at_any_step(
    evidence: Evidence, step: str, next_run: str
) -> None:
    """A retry of the run, or the seal of another run, then leaves a single, complete chain."""
    evidence.seal(1)
    committed = step in {"put SHA256SUMS.sig", "lock report.en.html", "lock SHA256SUMS.sig"}
    if step == "ledger row":
        kill_while_it_waits_for_its_row(evidence)
    else:
        SealingProcess(evidence, 2, block_before=step).kill_when_blocked()
    meanwhile = evidence.verify()
    assert meanwhile.verified, meanwhile
    assert meanwhile.bundles == (2 if committed else 1)
    silent = step == "put report.en.html" or step.startswith("lock")
    assert len(meanwhile.remarks) == (0 if silent else 1)

    if next_run == "same":
        sealed = evidence.seal(2)
        assert sealed.seq == 2
        kept = MADE | ({"only-in-the-child.txt"} if committed else set())
        names = {n for n in files_in(evidence.root / sealed.path) if not n.endswith(".lock.json")}
        assert names == kept
    else:
        assert evidence.seal(3).seq == (3 if committed else 2)
        assert evidence.seal(2).seq == (2 if committed else 3)
    after = evidence.verify()
    assert after.verified, after
    assert after.remarks == []
    assert evidence.conn.execute(evidence_intent.select()).all() == []
    if step.startswith("lock"):
        row = ledger.find_bundle(evidence.conn, result_path(2))
        assert row is not None
        locked = evidence.store.stat(f"{row.bundle}/report.en.html").locked_until is not None
        assert locked == (step == "lock SHA256SUMS.sig")


@pytest.mark.fault
def test_later_seals_do_not_sign_a_bundle_that_was_changed_before_its_signature_was_stored(
    evidence: Evidence,
) -> None:
    """If SHA256SUMS of a killed seal is replaced, no later seal stores the signature for it."""
    evidence.seal(1)
    SealingProcess(evidence, 2, block_before="put SHA256SUMS.sig").kill_when_blocked()
    flip(evidence.root / result_path(2) / "SHA256SUMS")
    assert evidence.seal(3).seq == 3
    assert not (evidence.root / result_path(2) / "SHA256SUMS.sig").exists()
    with pytest.raises(ControlFailed, match="changed before its signature"):
        evidence.seal(2)
    assert evidence.verify().first_bad == result_path(2)


@pytest.mark.fault
def test_concurrent_seals_create_a_single_chain_of_bundles(evidence: Evidence) -> None:
    """This also holds if two processes seal the same run."""
    runs = [(1, "a"), (1, "b"), (2, "a"), (1, "a")]
    children = [SealingProcess(evidence, number, dag) for number, dag in runs]
    for child in children:
        child.process.join(30)
        assert child.process.exitcode == 0
    rows = ledger.rows(evidence.conn)
    assert [row.seq for row in rows] == [1, 2, 3]
    links = [row.previous_sums_sha256 for row in rows]
    assert links == ["", rows[0].sums_sha256, rows[1].sums_sha256]
    assert evidence.verify().verified


def test_all_objects_of_sealed_bundle_are_locked(evidence: Evidence) -> None:
    """The signature is locked too."""
    until = datetime.now(UTC) + timedelta(days=1)  # noqa: TID251 - the store's own clock decides
    sealed = evidence.seal(lock_until=until)
    for name in MADE:
        with pytest.raises(ObjectLocked):
            evidence.store.delete(f"{sealed.path}/{name}")
    assert evidence.verify().verified


def test_sha256sums_of_the_next_seal_contains_the_locked_file_of_a_killed_seal(
    evidence: Evidence,
) -> None:
    """The bucket's default lock protects such a file, so the next seal lists it."""
    folder = "backup_offsite/2026/11/manual__2026-11-25T141019.123456Z"
    until = datetime.now(UTC) + timedelta(days=1)  # noqa: TID251 - the store's own clock decides
    evidence.store.put(f"{folder}/old.txt", b"old", locked_until=until)
    sealed = evidence.seal()
    assert "  old.txt\n" in (evidence.root / sealed.path / "SHA256SUMS").read_text()
    assert evidence.verify().verified


def test_seal_restores_ledger_rows_from_the_evidence_store_if_the_ledger_is_empty(
    chain: Evidence,
) -> None:
    before = ledger.rows(chain.conn)
    chain.tamper(evidence_ledger.delete())
    assert not chain.verify().verified
    assert chain.seal(11).seq == 4
    after = ledger.rows(chain.conn)
    assert [row.bundle for row in after[:3]] == [row.bundle for row in before]
    assert chain.verify().verified


def test_recovery_adds_ledger_rows_after_older_state_database_was_restored(chain: Evidence) -> None:
    """The recovery reads the missing rows from the store."""
    chain.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq > 1))
    assert not chain.verify().verified
    keys = TrustedKeys([chain.signer.public_pem])
    entered = recover_ledger(chain.store, chain.conn, chain.signer, keys, CLOCK)
    assert len(entered) == 2
    assert chain.verify().verified


def test_sealing_a_run_again_after_its_ledger_row_was_deleted_returns_its_first_bundle(
    chain: Evidence,
) -> None:
    """The seal enters the row again, at its place between the other rows."""
    first = ledger.row_at(chain.conn, 2)
    assert first is not None
    chain.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq == 2))
    again = chain.seal(2, dag_id="drill_restore")
    assert (again.seq, again.sums_sha256) == (2, first.sums_sha256)
    assert chain.verify().verified


def test_seal_fails_if_the_folder_of_its_run_contains_a_damaged_signed_bundle(
    chain: Evidence,
) -> None:
    """The row of an older bundle was deleted, and its result.json is missing."""
    row = ledger.row_at(chain.conn, 2)
    assert row is not None
    (chain.root / row.bundle / "result.json").unlink()
    chain.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq == 2))
    with pytest.raises(ControlFailed, match="already contains a signed bundle"):
        chain.seal(2, dag_id="drill_restore")


def test_bundle_signed_with_an_untrusted_key_gets_no_ledger_row(
    evidence: Evidence, tmp_path: Path
) -> None:
    """Write access to the store must not be enough to enter a bundle into the ledger."""
    stranger = Signer.from_pem(generate_key())
    evidence.seal(1, signer=stranger)
    evidence.tamper(evidence_ledger.delete())
    assert evidence.seal(2).seq == 1
    verification = evidence.verify()
    assert verification.first_bad == "backup_offsite/2026/11/manual__2026-11-25T141019.123456Z"


def test_chain_of_bundles_is_valid_after_key_rotation_if_both_keys_are_trusted(
    evidence: Evidence,
) -> None:
    """The chain is valid while both keys are trusted."""
    evidence.seal(1)
    new = Signer.from_pem(generate_key())
    evidence.seal(2, signer=new, trusted=[evidence.signer.public_pem])
    from include.evidence.verify import verify_all

    trusted = [evidence.signer.public_pem, new.public_pem]
    assert verify_all(evidence.store, evidence.conn, trusted).verified
    verification = verify_all(evidence.store, evidence.conn, [new.public_pem])
    assert verification.first_bad == ledger.rows(evidence.conn)[0].bundle


def test_seal_continues_chain_after_store_was_moved_to_another_path(evidence: Evidence) -> None:
    """A bundle does not contain the path of the store."""
    evidence.seal(1)
    moved = evidence.root.with_name("moved")
    os.rename(evidence.root, moved)  # noqa: PTH104 - the path object stays as it was
    evidence.store, evidence.root = DirectoryStore(moved), moved
    evidence.seal(2)
    assert evidence.verify().verified
