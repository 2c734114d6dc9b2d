"""Verification detects every change of a file, a ledger row or the chain, and names the bundle."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from sqlalchemy import text, update

from include.evidence import ledger
from include.evidence.ledger import LedgerRow
from include.evidence.signing import Signer, generate_key
from include.evidence.verify import verify_all, verify_one, verify_path
from include.services.errors import UsageError
from include.services.objectstore.directory import DirectoryStore
from include.state.tables import evidence_intent, evidence_ledger
from tests.evidence.support import CLOCK, FILES, START, Evidence
from tests.support.damage import flipped

KINDS = ["result.json", "signer.pem", "SHA256SUMS", "SHA256SUMS.sig", *FILES]
COLUMNS = {
    "seq": 7,
    "bundle": "backup_offsite/2026/12/elsewhere",
    "dag_id": "other",
    "run_id": "other",
    "outcome": "pass",
    "controls": ["BK-1"],
    "started_at": START,
    "sealed_at": START,
    "sums_sha256": "0" * 64,
    "previous_sums_sha256": "0" * 64,
    "key_fingerprint": "0" * 64,
    "row_signature": b"\0" * 64,
}


def row_at(chain: Evidence, seq: int) -> LedgerRow:
    row = ledger.row_at(chain.conn, seq)
    assert row is not None
    chain.conn.rollback()
    return row


def delete_row(chain: Evidence, seq: int) -> LedgerRow:
    row = row_at(chain, seq)
    chain.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq == seq))
    return row


@pytest.fixture
def uninstalled(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Yield environment variables whose PATH contains neither ParcelSeal nor Python."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sha256sum", "openssl", "grep"):
        program = shutil.which(name)
        assert program
        (tools / name).symlink_to(program)
    return {"PATH": str(tools), "HOME": str(tmp_path)}


def run_lines(lines: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", "-e", "-o", "pipefail", "-c", "\n".join(lines)],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("seq", [1, 2, 3])
@pytest.mark.parametrize("name", KINDS)
def test_verification_reports_bundle_if_a_byte_in_any_of_its_files_was_changed(
    chain: Evidence, name: str, seq: int
) -> None:
    """A byte in the middle of the file is changed, in the first, a middle and the last bundle."""
    bundle = row_at(chain, seq).bundle
    file = chain.root / bundle / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    verification = chain.verify()
    assert (verification.verified, verification.first_bad) == (False, bundle)
    assert verification.bundles == 3
    assert verification.reason
    assert verification.commands[0] == f"cd '{chain.root}/{bundle}'"
    assert verify_one(chain.store, bundle, [chain.signer.public_pem]).first_bad == bundle


@pytest.mark.parametrize("name", KINDS)
def test_verification_reports_bundle_if_a_file_is_missing_or_was_added(
    chain: Evidence, name: str
) -> None:
    bundle = row_at(chain, 2).bundle
    file = chain.root / bundle / name
    content = file.read_bytes()
    file.unlink()
    verification = chain.verify()
    assert verification.first_bad == bundle
    assert verification.reason
    assert "missing" in verification.reason
    file.write_bytes(content)
    assert chain.verify().verified
    file.with_name("added.txt").write_bytes(b"")
    verification = chain.verify()
    assert verification.first_bad == bundle
    assert verification.reason
    assert "added.txt was added" in verification.reason


@pytest.mark.parametrize("seq", [1, 2, 3])
@pytest.mark.parametrize("column", list(COLUMNS))
def test_verification_reports_bundle_if_any_column_of_its_ledger_row_was_changed(
    chain: Evidence, column: str, seq: int
) -> None:
    """Every column is changed, in the first, a middle and the last row."""
    row = row_at(chain, seq)
    assert set(COLUMNS) == {column.name for column in evidence_ledger.c}
    value = COLUMNS[column]
    assert getattr(row, column) != value
    chain.tamper(
        update(evidence_ledger).where(evidence_ledger.c.seq == seq).values({column: value})
    )
    verification = chain.verify()
    assert (verification.verified, verification.first_bad) == (False, row.bundle)


def test_verification_fails_if_signed_ledger_row_disagrees_with_its_bundle(chain: Evidence) -> None:
    """A row with a valid signature is still compared with result.json and the chain."""
    for column in set(COLUMNS) - {"seq", "bundle", "sealed_at", "row_signature"}:
        row = row_at(chain, 3)
        changed = LedgerRow(**{**vars(row), column: COLUMNS[column]})
        delete_row(chain, 3)
        ledger.append(chain.conn, chain.signer, changed)
        chain.conn.commit()
        verification = chain.verify()
        assert verification.first_bad == row.bundle, column
        delete_row(chain, 3)
        ledger.append(chain.conn, chain.signer, row)
        chain.conn.commit()
        assert chain.verify().verified


def sign_again(chain: Evidence, seq: int, old: str, new: str) -> LedgerRow:
    """Change SHA256SUMS of the newest bundle; sign it and its ledger row with the genuine key."""
    row = delete_row(chain, seq)
    file = chain.root / row.bundle / "SHA256SUMS"
    assert old in file.read_text()
    sums = file.read_text().replace(old, new).encode()
    file.write_bytes(sums)
    file.with_name("SHA256SUMS.sig").write_bytes(chain.signer.sign(sums))
    changed = vars(row) | {"sums_sha256": sha256(sums).hexdigest()}
    ledger.append(chain.conn, chain.signer, LedgerRow(**changed))
    chain.conn.commit()
    return row


def test_verification_fails_if_signed_bundle_does_not_link_to_previous_bundle(
    chain: Evidence,
) -> None:
    """The ledger row is right, but the link in the bundle names another bundle."""
    first, second = row_at(chain, 1), row_at(chain, 2)
    for digest, other in ((second.sums_sha256, "0" * 64), (second.bundle, first.bundle)):
        bundle = sign_again(chain, 3, digest, other).bundle
        verification = chain.verify()
        assert (verification.first_bad, verification.reason) == (
            bundle,
            "the bundle does not contain the digest of the previous bundle, "
            "so the chain is broken here",
        )
        sign_again(chain, 3, other, digest)
        assert chain.verify().verified


def test_verification_fails_if_signer_pem_is_not_the_key_that_signed(chain: Evidence) -> None:
    """Otherwise a person who checks the bundle by hand would compare the wrong fingerprint."""
    file = chain.root / row_at(chain, 3).bundle / "signer.pem"
    other = Signer.from_pem(generate_key()).public_pem
    digests = [sha256(pem).hexdigest() for pem in (chain.signer.public_pem, other)]
    file.write_bytes(other)
    bundle = sign_again(chain, 3, *digests).bundle
    verification = chain.verify()
    assert (verification.first_bad, verification.reason) == (
        bundle,
        "the bundle's public key is not the key that signed the bundle",
    )


@pytest.mark.parametrize("seq", [1, 2, 3])
@pytest.mark.parametrize("folder_too", [False, True])
def test_verification_reports_bundle_if_its_ledger_row_was_deleted(
    chain: Evidence, seq: int, folder_too: bool
) -> None:
    """If row and folder of the last bundle are deleted together, the loss is not detected."""
    row = delete_row(chain, seq)
    if folder_too:
        shutil.rmtree(chain.root / row.bundle)
    verification = chain.verify()
    if folder_too and seq == 3:
        assert verification.verified  # what no chain can see: docs/explanation/evidence.md says so
        return
    assert (verification.verified, verification.first_bad) == (False, row.bundle)


def test_verification_reports_bundle_of_first_deleted_row_if_several_ledger_rows_were_deleted(
    chain: Evidence,
) -> None:
    """First, two rows in the middle are deleted. Later, all rows are deleted."""
    chain.seal(11)
    first = row_at(chain, 2).bundle
    chain.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq.in_([2, 3])))
    assert chain.verify().first_bad == first
    start = row_at(chain, 1).bundle
    chain.tamper(text("TRUNCATE evidence_ledger"))
    verification = chain.verify()
    assert (verification.verified, verification.first_bad, verification.bundles) == (
        False,
        start,
        0,
    )


def test_swapped_bundles_fail_verification(chain: Evidence) -> None:
    """Each of the two bundles is valid by itself, but is in the other's folder."""
    first, third = row_at(chain, 1).bundle, row_at(chain, 3).bundle
    aside = chain.root / "aside"
    os.renames(chain.root / first, aside)
    os.renames(chain.root / third, chain.root / first)
    os.renames(aside, chain.root / third)
    assert verify_one(chain.store, first, [chain.signer.public_pem]).verified
    assert chain.verify().first_bad == first


def test_verification_fails_for_bundle_that_was_rewritten_and_signed_with_untrusted_key(
    chain: Evidence,
) -> None:
    """The forged bundle, including its signer.pem, is consistent in itself."""
    forger = Signer.from_pem(generate_key())
    bundle = row_at(chain, 3).bundle
    folder = chain.root / bundle
    sums = (folder / "SHA256SUMS").read_text()
    row = row_at(chain, 3)
    for name, data in {"signer.pem": forger.public_pem, "report.en.html": b"forged"}.items():
        (folder / name).write_bytes(data)
        digest = subprocess.run(
            ["sha256sum", name], cwd=folder, capture_output=True, check=True, text=True
        ).stdout
        old = next(line for line in sums.splitlines() if line.endswith(f"  {name}"))
        sums = sums.replace(old, digest.strip())
    (folder / "SHA256SUMS").write_text(sums)
    (folder / "SHA256SUMS.sig").write_bytes(forger.sign(sums.encode()))
    delete_row(chain, 3)
    digest = subprocess.run(
        ["sha256sum", "SHA256SUMS"], cwd=folder, capture_output=True, check=True, text=True
    ).stdout[:64]
    forged = {**vars(row), "sums_sha256": digest, "key_fingerprint": forger.fingerprint}
    ledger.append(chain.conn, forger, LedgerRow(**forged))
    chain.conn.commit()
    assert chain.verify().first_bad == bundle
    assert verify_all(
        chain.store, chain.conn, [chain.signer.public_pem, forger.public_pem]
    ).verified
    own = verify_path(folder)
    assert own.verified
    assert forger.fingerprint in str(own.remarks)
    assert verify_path(folder, [chain.signer.public_pem]).first_bad == str(folder)


def test_verification_fails_if_trusted_key_did_not_sign_any_bundle(chain: Evidence) -> None:
    """The first bundle is named. Without any trusted key, verification refuses to start."""
    other = Signer.from_pem(generate_key()).public_pem
    assert verify_all(chain.store, chain.conn, [other]).first_bad == row_at(chain, 1).bundle
    with pytest.raises(UsageError, match="trusted"):
        verify_all(chain.store, chain.conn, [])


def test_verification_fails_with_reason_no_evidence_if_ledger_and_store_are_empty(
    evidence: Evidence,
) -> None:
    verification = evidence.verify()
    assert (verification.verified, verification.bundles, verification.first_bad) == (False, 0, None)
    assert verification.reason
    assert "no evidence" in verification.reason


def test_verification_accepts_missing_ledger_row_of_interrupted_seal_only_at_end_of_chain(
    chain: Evidence,
) -> None:
    """An interrupted seal can explain a missing row only at the end of the chain."""
    second, third = row_at(chain, 2).bundle, row_at(chain, 3).bundle
    for bundle in (second, third):
        chain.execute(evidence_intent.insert().values(bundle=bundle, started_at=CLOCK.now()))
    chain.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq > 1))
    assert chain.verify().first_bad == third
    delete_row(chain, 1)
    assert not chain.verify().verified


def test_verification_ignores_objects_outside_of_bundle_folders(chain: Evidence) -> None:
    """An example is an evidence extract of an incident, whose digest a bundle contains."""
    chain.store.put("incidents/INC-2026-0001/access.courier.csv.zst.enc", b"encrypted")
    verification = chain.verify()
    assert verification.verified
    assert verification.remarks == []


def test_verification_reports_unfinished_bundle_folder_as_remark(chain: Evidence) -> None:
    """An unfinished folder is no bundle, so it is no failure either."""
    chain.store.put("x/2026/11/y/report.en.html", b"")
    verification = chain.verify()
    assert verification.verified
    assert [remark.values["bundle"] for remark in verification.remarks] == ["x/2026/11/y"]


def test_verification_leaves_no_open_transaction_and_no_lock(chain: Evidence) -> None:
    """A verification may take hours, so it must not block other sessions."""
    chain.conn.rollback()
    chain.verify()
    assert not chain.conn.in_transaction()
    held = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
    assert chain.conn.scalar(held) == 0


def test_verification_of_single_bundle_fails_if_its_ledger_row_or_previous_row_was_deleted(
    chain: Evidence,
) -> None:
    """The bundle is given by its path in the store. The ledger is used if it is available."""
    trusted = [chain.signer.public_pem]
    rows = ledger.rows(chain.conn)
    for row in rows:
        assert verify_one(chain.store, row.bundle, trusted, chain.conn).verified
    alone = verify_one(chain.store, rows[1].bundle, trusted)
    assert alone.verified
    assert len(alone.remarks) == 1
    assert verify_one(chain.store, "no/2026/11/such", trusted).first_bad == "no/2026/11/such"
    delete_row(chain, 1)
    assert verify_one(chain.store, rows[0].bundle, trusted, chain.conn).first_bad == rows[0].bundle
    assert verify_one(chain.store, rows[1].bundle, trusted, chain.conn).first_bad == rows[1].bundle


def test_printed_commands_verify_bundle_without_parcelseal(
    chain: Evidence, uninstalled: dict[str, str]
) -> None:
    """Coreutils and openssl accept the bundle, print its fingerprint, and refuse a changed file."""
    row = row_at(chain, 3)
    lines = chain.verify().commands
    done = run_lines(lines, uninstalled)
    assert done.returncode == 0, done.stderr
    assert "Signature Verified Successfully" in done.stdout
    assert f"../../../../{row_at(chain, 2).bundle}/SHA256SUMS: OK" in done.stdout
    assert row.key_fingerprint in done.stdout
    assert row.key_fingerprint in lines[-1]
    for victim in (
        chain.root / row.bundle / "report.en.html",
        chain.root / row.bundle / "SHA256SUMS.sig",
        chain.root / row_at(chain, 2).bundle / "SHA256SUMS",
    ):
        content = victim.read_bytes()
        victim.write_bytes(flipped(content))
        assert run_lines(lines, uninstalled).returncode != 0
        victim.write_bytes(content)
    assert run_lines(lines, uninstalled).returncode == 0


def test_copied_bundle_passes_verification_with_remark_that_link_was_not_checked(
    chain: Evidence, tmp_path: Path, uninstalled: dict[str, str]
) -> None:
    """A remark says that the link was not checked."""
    copy = tmp_path / "it's a copy"
    shutil.copytree(chain.root / row_at(chain, 2).bundle, copy)
    verification = verify_path(copy, [chain.signer.public_pem])
    assert verification.verified
    assert "follows it in the chain" in str(verification.remarks)
    assert run_lines(verification.commands, uninstalled).returncode == 0
    (copy / "plans/plan one.csv").write_bytes(b"")
    assert run_lines(verification.commands, uninstalled).returncode != 0
    assert verify_path(copy).first_bad == str(copy)
    (copy / "signer.pem").write_bytes(b"x")
    assert verify_path(copy).first_bad == str(copy)
    with pytest.raises(UsageError, match="does not exist"):
        verify_path(copy / "missing")


def test_verification_of_bundle_folder_fails_if_previous_bundle_in_store_was_changed(
    chain: Evidence,
) -> None:
    second = chain.root / row_at(chain, 2).bundle
    assert verify_path(second, [chain.signer.public_pem]).remarks == []
    first = chain.root / row_at(chain, 1).bundle / "SHA256SUMS"
    first.write_text(first.read_text() + "\n")
    assert "previous bundle" in str(verify_path(second, [chain.signer.public_pem]).reason)


def test_verification_fails_if_sha256sums_contains_path_outside_of_bundle_folder(
    chain: Evidence,
) -> None:
    """A path that leaves the folder is refused, even if the signature is valid."""
    bundle = row_at(chain, 3).bundle
    folder = chain.root / bundle
    for name in ("../../../../../etc/passwd", "/etc/passwd", "a/../../x"):
        sums = (folder / "SHA256SUMS").read_bytes() + f"{'0' * 64}  {name}\n".encode()
        (folder / "SHA256SUMS").write_bytes(sums)
        (folder / "SHA256SUMS.sig").write_bytes(chain.signer.sign(sums))
        reason = verify_one(chain.store, bundle, [chain.signer.public_pem]).reason
        assert reason == (
            "the bundle's list of checksums does not have the format in which ParcelSeal seals "
            "bundles"
        )


def test_locked_bundle_of_directory_store_can_be_verified_from_disk(evidence: Evidence) -> None:
    """The lock files of a directory store do not belong to the bundle."""
    sealed = evidence.seal(lock_until=CLOCK.now() + timedelta(days=36500))
    folder = evidence.root / sealed.path
    assert verify_path(folder, [evidence.signer.public_pem]).verified
    assert isinstance(evidence.store, DirectoryStore)
