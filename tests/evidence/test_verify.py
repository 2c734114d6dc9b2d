"""Verification: every change of a file, a row or the chain is noticed and names the bundle."""

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
    row = ledger.at(chain.conn, seq)
    assert row is not None
    chain.conn.rollback()
    return row


def delete_row(chain: Evidence, seq: int) -> LedgerRow:
    row = row_at(chain, seq)
    chain.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq == seq))
    return row


@pytest.fixture
def uninstalled(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment with nothing of ours or of Python on PATH."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sha256sum", "openssl", "grep"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
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
def test_one_changed_byte_in_any_file_names_its_bundle(
    chain: Evidence, name: str, seq: int
) -> None:
    """First, middle and last bundle; the byte in the middle of the file."""
    bundle = row_at(chain, seq).bundle
    file = chain.root / bundle / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    found = chain.verify()
    assert (found.verified, found.first_bad) == (False, bundle)
    assert found.bundles == 3
    assert found.reason
    assert found.commands[0] == f"cd '{chain.root}/{bundle}'"
    assert verify_one(chain.store, bundle, [chain.signer.public_pem]).first_bad == bundle


@pytest.mark.parametrize("name", KINDS)
def test_a_missing_or_added_file_names_its_bundle(chain: Evidence, name: str) -> None:
    """Nothing may be taken away, and nothing slipped in."""
    bundle = row_at(chain, 2).bundle
    file = chain.root / bundle / name
    content = file.read_bytes()
    file.unlink()
    found = chain.verify()
    assert found.first_bad == bundle
    assert found.reason
    assert "missing" in found.reason
    file.write_bytes(content)
    assert chain.verify().verified
    file.with_name("added.txt").write_bytes(b"")
    found = chain.verify()
    assert found.first_bad == bundle
    assert found.reason
    assert "added.txt was added" in found.reason


@pytest.mark.parametrize("seq", [1, 2, 3])
@pytest.mark.parametrize("column", list(COLUMNS))
def test_one_changed_column_of_any_row_names_its_bundle(
    chain: Evidence, column: str, seq: int
) -> None:
    """Every column, in the first, middle and last row."""
    row = row_at(chain, seq)
    assert set(COLUMNS) == {one.name for one in evidence_ledger.c}
    value = COLUMNS[column]
    assert getattr(row, column) != value
    chain.tamper(
        update(evidence_ledger).where(evidence_ledger.c.seq == seq).values({column: value})
    )
    found = chain.verify()
    assert (found.verified, found.first_bad) == (False, row.bundle)


def test_a_row_that_the_signer_wrote_must_still_agree_with_the_bundle(chain: Evidence) -> None:
    """With a valid signature on the row, result.json and the chain are compared with it."""
    for column in set(COLUMNS) - {"seq", "bundle", "sealed_at", "row_signature"}:
        row = row_at(chain, 3)
        changed = LedgerRow(**{**vars(row), column: COLUMNS[column]})
        delete_row(chain, 3)
        ledger.append(chain.conn, chain.signer, changed)
        chain.conn.commit()
        found = chain.verify()
        assert found.first_bad == row.bundle, column
        delete_row(chain, 3)
        ledger.append(chain.conn, chain.signer, row)
        chain.conn.commit()
        assert chain.verify().verified


def sign_again(chain: Evidence, seq: int, old: str, new: str) -> LedgerRow:
    """Change SHA256SUMS of the newest bundle and let the real signer sign it and its row."""
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


def test_a_signed_bundle_must_link_to_the_one_before_it(chain: Evidence) -> None:
    """The row says the right thing; the bundle's own line points past its predecessor."""
    first, second = row_at(chain, 1), row_at(chain, 2)
    for one, other in ((second.sums_sha256, "0" * 64), (second.bundle, first.bundle)):
        bundle = sign_again(chain, 3, one, other).bundle
        found = chain.verify()
        assert (found.first_bad, found.reason) == (
            bundle,
            "it does not link to the bundle before it",
        )
        sign_again(chain, 3, other, one)
        assert chain.verify().verified


def test_signer_pem_must_be_the_key_that_signed(chain: Evidence) -> None:
    """Otherwise the lines for a check by hand would compare the wrong fingerprint."""
    file = chain.root / row_at(chain, 3).bundle / "signer.pem"
    other = Signer.from_pem(generate_key()).public_pem
    digests = [sha256(pem).hexdigest() for pem in (chain.signer.public_pem, other)]
    file.write_bytes(other)
    bundle = sign_again(chain, 3, *digests).bundle
    found = chain.verify()
    assert (found.first_bad, found.reason) == (bundle, "signer.pem is not the key that signed")


@pytest.mark.parametrize("seq", [1, 2, 3])
@pytest.mark.parametrize("folder_too", [False, True])
def test_a_deleted_row_names_its_bundle(chain: Evidence, seq: int, folder_too: bool) -> None:
    """In the middle even when its folder went too; at the tail as long as the folder is there."""
    row = delete_row(chain, seq)
    if folder_too:
        shutil.rmtree(chain.root / row.bundle)
    found = chain.verify()
    if folder_too and seq == 3:
        assert found.verified  # what no chain can see: docs/evidence.md says so
        return
    assert (found.verified, found.first_bad) == (False, row.bundle)


def test_of_several_deleted_rows_the_first_is_named(chain: Evidence) -> None:
    """Two in the middle; then everything."""
    chain.seal(11)
    first = row_at(chain, 2).bundle
    chain.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq.in_([2, 3])))
    assert chain.verify().first_bad == first
    start = row_at(chain, 1).bundle
    chain.tamper(text("TRUNCATE evidence_ledger"))
    found = chain.verify()
    assert (found.verified, found.first_bad, found.bundles) == (False, start, 0)


def test_swapped_bundles_are_noticed(chain: Evidence) -> None:
    """Each is valid by itself and lies in the other's place."""
    first, third = row_at(chain, 1).bundle, row_at(chain, 3).bundle
    aside = chain.root / "aside"
    os.renames(chain.root / first, aside)
    os.renames(chain.root / third, chain.root / first)
    os.renames(aside, chain.root / third)
    assert verify_one(chain.store, first, [chain.signer.public_pem]).verified
    assert chain.verify().first_bad == first


def test_a_bundle_rewritten_with_another_key_is_refused(chain: Evidence) -> None:
    """Consistent in itself, signer.pem included; but nobody trusts that key."""
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


def test_a_wrong_trusted_key_verifies_nothing(chain: Evidence) -> None:
    """The first bundle is named; with no key at all the question itself is refused."""
    other = Signer.from_pem(generate_key()).public_pem
    assert verify_all(chain.store, chain.conn, [other]).first_bad == row_at(chain, 1).bundle
    with pytest.raises(UsageError, match="trusted"):
        verify_all(chain.store, chain.conn, [])


def test_nothing_to_look_at_is_not_verified(evidence: Evidence) -> None:
    """An empty ledger over an empty store shows nothing."""
    found = evidence.verify()
    assert (found.verified, found.bundles, found.first_bad) == (False, 0, None)
    assert found.reason
    assert "no evidence" in found.reason


def test_an_intent_hides_no_bundle_but_the_next_one(chain: Evidence) -> None:
    """Marking a deleted row's bundle as under way does not help in the middle of the chain."""
    second, third = row_at(chain, 2).bundle, row_at(chain, 3).bundle
    for bundle in (second, third):
        chain.execute(evidence_intent.insert().values(bundle=bundle, begun_at=CLOCK.now()))
    chain.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq > 1))
    assert chain.verify().first_bad == third
    delete_row(chain, 1)
    assert not chain.verify().verified


def test_what_lies_beside_the_bundles_is_no_remark(chain: Evidence) -> None:
    """An incident's extract stands in the same store; a bundle names its digest."""
    chain.store.put("incidents/INC-2026-0001/access.courier.csv.zst.enc", b"encrypted")
    found = chain.verify()
    assert found.verified
    assert found.remarks == []


def test_unfinished_folders_are_a_remark(chain: Evidence) -> None:
    """They are no bundles, and no failure."""
    chain.store.put("x/2026/11/y/report.en.html", b"")
    found = chain.verify()
    assert found.verified
    assert [one.values["bundle"] for one in found.remarks] == ["x/2026/11/y"]


def test_reading_leaves_no_transaction_and_no_lock(chain: Evidence) -> None:
    """A verification that runs for hours is in nobody's way."""
    chain.conn.rollback()
    chain.verify()
    assert not chain.conn.in_transaction()
    held = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
    assert chain.conn.scalar(held) == 0


def test_one_bundle_is_checked_with_its_row_and_link(chain: Evidence) -> None:
    """By its path in the store; with the ledger where it is at hand."""
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


def test_the_printed_lines_check_a_bundle_without_parcelseal(
    chain: Evidence, uninstalled: dict[str, str]
) -> None:
    """Coreutils and openssl accept it, print the fingerprint, and refuse a changed one."""
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


def test_a_bundle_that_was_copied_elsewhere_is_checked_alone(
    chain: Evidence, tmp_path: Path, uninstalled: dict[str, str]
) -> None:
    """No ledger, no neighbour: the link is left out, and a remark says so."""
    copy = tmp_path / "it's a copy"
    shutil.copytree(chain.root / row_at(chain, 2).bundle, copy)
    found = verify_path(copy, [chain.signer.public_pem])
    assert found.verified
    assert "link was not checked" in str(found.remarks)
    assert run_lines(found.commands, uninstalled).returncode == 0
    (copy / "plans/plan one.csv").write_bytes(b"")
    assert run_lines(found.commands, uninstalled).returncode != 0
    assert verify_path(copy).first_bad == str(copy)
    (copy / "signer.pem").write_bytes(b"x")
    assert verify_path(copy).first_bad == str(copy)
    with pytest.raises(UsageError, match="no folder"):
        verify_path(copy / "missing")


def test_a_folder_beside_its_predecessor_checks_the_link(chain: Evidence) -> None:
    """In a copy of the whole store, the link is followed."""
    second = chain.root / row_at(chain, 2).bundle
    assert verify_path(second, [chain.signer.public_pem]).remarks == []
    first = chain.root / row_at(chain, 1).bundle / "SHA256SUMS"
    first.write_text(first.read_text() + "\n")
    assert "before it" in str(verify_path(second, [chain.signer.public_pem]).reason)


def test_hostile_lines_of_sha256sums_open_no_file_outside(chain: Evidence) -> None:
    """Even signed: a path that leaves the folder is refused, not read."""
    bundle = row_at(chain, 3).bundle
    folder = chain.root / bundle
    for name in ("../../../../../etc/passwd", "/etc/passwd", "a/../../x"):
        sums = (folder / "SHA256SUMS").read_bytes() + f"{'0' * 64}  {name}\n".encode()
        (folder / "SHA256SUMS").write_bytes(sums)
        (folder / "SHA256SUMS.sig").write_bytes(chain.signer.sign(sums))
        reason = verify_one(chain.store, bundle, [chain.signer.public_pem]).reason
        assert reason == "SHA256SUMS is not one that a seal writes"


def test_a_locked_directory_bundle_can_be_checked_as_a_folder(evidence: Evidence) -> None:
    """The store's own lock files are no files of the bundle."""
    sealed = evidence.seal(lock_until=CLOCK.now() + timedelta(days=36500))
    folder = evidence.root / sealed.path
    assert verify_path(folder, [evidence.signer.public_pem]).verified
    assert isinstance(evidence.store, DirectoryStore)
