"""Signed bundles that the ledger lacks are entered by seals; intruders hide and forge none."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import update

from include.evidence import ledger
from include.evidence.adopt import recover_ledger
from include.evidence.folder import RESULT, SIGNATURE, SUMS, Sums, bundle_path
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
    """Bring the ledger back to the time of one bundle; returns the rows that this loses."""
    rows = ledger.rows(evidence.conn)
    evidence.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq > seq))
    return rows[seq:]


def forge_bundle(evidence: Evidence, bundle: str, previous: ledger.LedgerRow) -> None:
    """Store a bundle that follows another, signed by an untrusted key."""
    sums = Sums({RESULT: "0" * 64}, previous.link).to_bytes()
    evidence.store.put(f"{bundle}/{SUMS}", sums)
    signature = Signer.from_pem(generate_key()).sign(sums)
    evidence.store.put(f"{bundle}/{SIGNATURE}", signature)


@pytest.mark.parametrize("seq", [1, 2])
def test_seal_after_an_older_state_database_was_restored_keeps_one_chain(
    chain: Evidence, seq: int
) -> None:
    """Nobody recovered the ledger: the seal enters the bundles of the store before its own."""
    lost = restore_older_state(chain, seq)
    assert chain.seal(11, clock=LATER).seq == 4
    rows = ledger.rows(chain.conn)[seq:3]
    assert [row.sums_sha256 for row in rows] == [row.sums_sha256 for row in lost]
    after = chain.verify()
    assert (after.verified, after.bundles, after.remarks) == (True, 4, []), after


def test_seal_of_a_run_that_an_older_state_database_forgot_returns_its_first_bundle(
    chain: Evidence,
) -> None:
    restore_older_state(chain, 1)
    assert chain.seal(10, files={"other.txt": b"other"}, clock=LATER).seq == 3
    assert chain.verify().verified


def test_seal_enters_bundles_of_workflows_that_the_ledger_does_not_know(chain: Evidence) -> None:
    """The first bundle of a workflow lies between two of another workflow; all are forgotten."""
    chain.seal(11, dag_id="sample_audit.commitment")
    chain.seal(12)
    restore_older_state(chain, 3)
    assert chain.seal(13, clock=LATER).seq == 6
    assert chain.verify().verified


@pytest.mark.parametrize("days", [-20, -50])
def test_seal_enters_bundles_of_runs_that_waited_for_people(chain: Evidence, days: int) -> None:
    """The folder names the month in which a run began, which may be before that of the seal."""
    chain.seal(days)
    restore_older_state(chain, 3)
    assert chain.seal(11, clock=LATER).seq == 5
    assert chain.verify().verified


def test_seal_searches_the_whole_store_once_it_finds_a_lost_bundle(chain: Evidence) -> None:
    """A run of long ago was sealed last: its folder is outside of the months that are searched."""
    chain.seal(11)
    chain.seal(-150)
    restore_older_state(chain, 3)
    assert chain.seal(12, clock=LATER).seq == 6
    assert chain.verify().verified


@pytest.mark.fault
def test_seals_at_once_after_an_older_state_database_was_restored_keep_one_chain(
    evidence: Evidence,
) -> None:
    """The evidence lock covers search, entries and the row of the seal itself."""
    for number in (1, 2, 3):
        evidence.seal(number)
    restore_older_state(evidence, 1)
    processes = [SealingProcess(evidence, 5, dag) for dag in ("backup_offsite", "drill_restore")]
    for process in processes:
        process.process.join(30)
        assert process.process.exitcode == 0
    assert [row.seq for row in ledger.rows(evidence.conn)] == [1, 2, 3, 4, 5]
    assert evidence.verify().verified


def test_seal_is_not_blocked_by_forged_bundles(chain: Evidence) -> None:
    """An intruder with the right to write to the store cannot keep runs from being sealed."""
    *_, head = ledger.rows(chain.conn)
    run = result_of(number=11).run
    forge_bundle(chain, bundle_path(run.dag_id, run.run_id, run.started_at), head)
    for number in range(60):
        forge_bundle(chain, f"backup_offsite/2026/12/forged{number}", head)
    assert chain.seal(11, clock=LATER).seq == 4
    assert chain.verify().first_bad == "backup_offsite/2026/12/forged0"


def test_seal_refuses_to_follow_a_bundle_beside_one_that_cannot_be_entered(
    chain: Evidence,
) -> None:
    """The result.json is gone, and with it the columns of the row; a fork cannot be undone."""
    last = restore_older_state(chain, 2)[-1]
    result = chain.root / last.bundle / RESULT
    content = result.read_bytes()
    result.unlink()
    with pytest.raises(ControlFailed, match="follows the ledger's last bundle") as refused:
        chain.seal(11, clock=LATER)
    assert last.bundle in refused.value.message
    assert "sealed afterwards" in refused.value.action
    result.write_bytes(content)
    assert chain.seal(11, clock=LATER).seq == 4
    assert chain.verify().verified


@pytest.mark.parametrize("lost", [0, 1])
def test_seal_refuses_to_follow_a_ledger_row_that_was_changed(chain: Evidence, lost: int) -> None:
    """Once the row was put back, nothing is left of it."""
    last = ledger.rows(chain.conn)[2 - lost]
    if lost:
        restore_older_state(chain, 2)
    is_last = evidence_ledger.c.seq == last.seq
    chain.tamper(update(evidence_ledger).where(is_last).values(outcome="pass"))
    with pytest.raises(ControlFailed, match="was changed: its signature does not fit") as refused:
        chain.seal(11, clock=LATER)
    assert "Put it back" in refused.value.action
    chain.tamper(update(evidence_ledger).where(is_last).values(outcome=last.outcome))
    assert chain.seal(11, clock=LATER).seq == 4
    assert chain.verify().verified


@pytest.mark.parametrize("copy", ["0copy", "zcopy"])
def test_copied_bundle_is_not_entered_in_the_place_of_the_genuine_one(
    chain: Evidence, copy: str
) -> None:
    """Its signature fits, and its folder is not that of its run."""
    lost = restore_older_state(chain, 2)
    genuine = chain.root / lost[0].bundle
    shutil.copytree(genuine, genuine.parent / copy)
    keys = TrustedKeys([chain.signer.public_pem])
    store, conn, signer = chain.store, chain.conn, chain.signer
    assert recover_ledger(store, conn, signer, keys, CLOCK) == [lost[0].bundle]


@pytest.mark.parametrize("name", [SIGNATURE, SUMS, RESULT])
@pytest.mark.parametrize("hide", ["delete", "overwrite"])
def test_seal_enters_bundles_that_an_intruder_hid_in_s3(
    evidence: Evidence, endpoint: str, name: str, hide: str
) -> None:
    """The older version of the object was signed; verification names the bundle."""
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
