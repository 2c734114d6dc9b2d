"""A seal adds ledger rows for signed bundles that have none."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import update

from include.evidence import ledger
from include.evidence.folder import RESULT, SIGNATURE, SUMS, Sums, bundle_path
from include.evidence.ledger_recovery import recover_ledger
from include.evidence.signing import Signer, TrustedKeys, generate_key
from include.evidence.verify import verify_all
from include.services.clock import FixedClock
from include.services.errors import ControlFailed
from include.services.objectstore.s3 import S3Store
from include.state.tables import evidence_ledger
from tests.evidence.support import CLOCK, START, Evidence, SealingProcess, result_of
from tests.support.s3 import client_for, hide_object, new_bucket

LATER = FixedClock(START + timedelta(days=14))  # after all bundles of these tests


def restore_older_state(evidence: Evidence, seq: int) -> list[ledger.LedgerRow]:
    """Delete the ledger rows after a sequence number, as after the restore of an older backup.

    Returns:
        The deleted rows.
    """
    rows = ledger.rows(evidence.conn)
    evidence.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq > seq))
    return rows[seq:]


def forge_bundle(evidence: Evidence, bundle: str, previous: ledger.LedgerRow) -> None:
    """Store a bundle that is signed with an untrusted key.

    Args:
        evidence: the evidence store.
        bundle: folder of the forged bundle.
        previous: ledger row of the bundle to which the forged bundle links.
    """
    sums = Sums({RESULT: "0" * 64}, previous.link).to_bytes()
    evidence.store.put(f"{bundle}/{SUMS}", sums)
    signature = Signer.from_pem(generate_key()).sign(sums)
    evidence.store.put(f"{bundle}/{SIGNATURE}", signature)


@pytest.mark.parametrize("seq", [1, 2])
def test_seal_after_restore_of_older_state_database_adds_missing_ledger_rows_before_its_own(
    chain: Evidence, seq: int
) -> None:
    """The seal adds the rows of stored bundles before its own row, without `recover-ledger`."""
    lost = restore_older_state(chain, seq)
    assert chain.seal(11, clock=LATER).seq == 4
    rows = ledger.rows(chain.conn)[seq:3]
    assert [row.sums_sha256 for row in rows] == [row.sums_sha256 for row in lost]
    after = chain.verify()
    assert (after.verified, after.bundles, after.remarks) == (True, 4, []), after


def test_second_seal_of_run_whose_ledger_row_was_lost_returns_the_existing_bundle(
    chain: Evidence,
) -> None:
    restore_older_state(chain, 1)
    assert chain.seal(10, files={"other.txt": b"other"}, clock=LATER).seq == 3
    assert chain.verify().verified


def test_seal_adds_lost_ledger_rows_of_two_different_workflows(chain: Evidence) -> None:
    """Bundles of two workflows alternate, and the ledger lacks all of them."""
    chain.seal(11, dag_id="sample_audit.commitment")
    chain.seal(12)
    restore_older_state(chain, 3)
    assert chain.seal(13, clock=LATER).seq == 6
    assert chain.verify().verified


@pytest.mark.parametrize("days", [-20, -50])
def test_seal_adds_lost_ledger_row_of_run_that_started_in_an_earlier_month(
    chain: Evidence, days: int
) -> None:
    """The folder names the month in which the run began, which may be before that of the seal."""
    chain.seal(days)
    restore_older_state(chain, 3)
    assert chain.seal(11, clock=LATER).seq == 5
    assert chain.verify().verified


def test_seal_searches_whole_store_after_it_finds_a_bundle_without_ledger_row(
    chain: Evidence,
) -> None:
    """The last sealed run began long ago, so its folder is outside the searched months."""
    chain.seal(11)
    chain.seal(-150)
    restore_older_state(chain, 3)
    assert chain.seal(12, clock=LATER).seq == 6
    assert chain.verify().verified


@pytest.mark.fault
def test_concurrent_seals_after_restore_of_state_database_add_each_ledger_row_once(
    evidence: Evidence,
) -> None:
    """A seal holds the lock `StateLock.EVIDENCE` while it adds lost rows and its own row."""
    for number in (1, 2, 3):
        evidence.seal(number)
    restore_older_state(evidence, 1)
    processes = [SealingProcess(evidence, 5, dag) for dag in ("backup_offsite", "drill_restore")]
    for process in processes:
        process.process.join(30)
        assert process.process.exitcode == 0
    assert [row.seq for row in ledger.rows(evidence.conn)] == [1, 2, 3, 4, 5]
    assert evidence.verify().verified


def test_forged_bundles_in_store_do_not_prevent_a_seal(chain: Evidence) -> None:
    """Write access to the store must not be enough to stop seals."""
    *_, head = ledger.rows(chain.conn)
    run = result_of(number=11).run
    forge_bundle(chain, bundle_path(run.dag_id, run.run_id, run.started_at), head)
    for number in range(60):
        forge_bundle(chain, f"backup_offsite/2026/12/forged{number}", head)
    assert chain.seal(11, clock=LATER).seq == 4
    assert chain.verify().first_bad == "backup_offsite/2026/12/forged0"


def test_seal_raises_control_failed_if_bundle_after_last_ledger_row_lacks_result_json(
    chain: Evidence,
) -> None:
    """The result.json with the values for the row is missing.

    If the seal went on, two bundles would have the same predecessor, which could not be undone.
    """
    last = restore_older_state(chain, 2)[-1]
    result = chain.root / last.bundle / RESULT
    content = result.read_bytes()
    result.unlink()
    with pytest.raises(
        ControlFailed, match="follows the last bundle of the evidence ledger"
    ) as refused:
        chain.seal(11, clock=LATER)
    assert last.bundle in refused.value.message
    assert "can be sealed" in refused.value.action
    result.write_bytes(content)
    assert chain.seal(11, clock=LATER).seq == 4
    assert chain.verify().verified


@pytest.mark.parametrize("lost", [0, 1])
def test_seal_raises_control_failed_if_last_ledger_row_was_changed(
    chain: Evidence, lost: int
) -> None:
    """As soon as the row is restored, runs can be sealed again."""
    last = ledger.rows(chain.conn)[2 - lost]
    if lost:
        restore_older_state(chain, 2)
    is_last = evidence_ledger.c.seq == last.seq
    chain.tamper(update(evidence_ledger).where(is_last).values(outcome="pass"))
    with pytest.raises(ControlFailed, match="was changed: its signature is not valid") as refused:
        chain.seal(11, clock=LATER)
    assert "restore the original values" in refused.value.action
    chain.tamper(update(evidence_ledger).where(is_last).values(outcome=last.outcome))
    assert chain.seal(11, clock=LATER).seq == 4
    assert chain.verify().verified


@pytest.mark.parametrize("copy", ["0copy", "zcopy"])
def test_recover_ledger_ignores_copy_of_signed_bundle_in_folder_of_another_run(
    chain: Evidence, copy: str
) -> None:
    """The signature of the copy is valid, but its folder is that of another run."""
    lost = restore_older_state(chain, 2)
    genuine = chain.root / lost[0].bundle
    shutil.copytree(genuine, genuine.parent / copy)
    keys = TrustedKeys([chain.signer.public_pem])
    store, conn, signer = chain.store, chain.conn, chain.signer
    assert recover_ledger(store, conn, signer, keys, CLOCK) == [lost[0].bundle]


@pytest.mark.parametrize("name", [SIGNATURE, SUMS, RESULT])
@pytest.mark.parametrize("hide", ["delete", "overwrite"])
def test_seal_adds_lost_ledger_row_if_file_of_bundle_was_overwritten_or_deleted_in_s3(
    evidence: Evidence, endpoint: str, name: str, hide: str
) -> None:
    """The older version of the object is the signed one. Verification names the bundle."""
    client = client_for(endpoint)
    bucket = new_bucket(client)
    evidence = replace(evidence, store=S3Store(client, bucket, "evidence"))
    for number in (1, 2):
        evidence.seal(number)
    restore_older_state(evidence, 1)
    run = result_of(number=2).run
    bundle = bundle_path(run.dag_id, run.run_id, run.started_at)
    key = f"evidence/{bundle}/{name}"
    hide_object(client, bucket, key, hide)
    assert evidence.seal(3, clock=LATER).seq == 3
    trusted = [evidence.signer.public_pem]
    assert verify_all(evidence.store, evidence.conn, trusted).first_bad == bundle
