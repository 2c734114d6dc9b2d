"""Lost register rows stay reported, and no intruder can hide a bundle that shows the loss."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from unittest.mock import patch

import pytest

from include.evidence import ledger, registers
from include.evidence.folder import RESULT, SIGNATURE, SUMS
from include.evidence.registers import accept_losses
from include.services.clock import FixedClock
from include.services.errors import ControlFailed
from include.services.objectstore.s3 import S3Store
from tests.evidence.register_fixtures import Company
from tests.evidence.support import Evidence
from tests.support.s3 import client_for, hide_object, new_bucket


def lose_hold(company: Company, number: int) -> str:
    """Delete a legal hold, and return the SQL statement that restores it.

    Args:
        company: the sample company.
        number: id of the hold.
    """
    columns = "id, kind, value, reason, owner, case_ref, placed_at, review_on"
    company.harm(
        "CREATE TABLE IF NOT EXISTS lost_hold (LIKE legal_hold)",
        f"INSERT INTO lost_hold SELECT * FROM legal_hold WHERE id = {number}",
        f"DELETE FROM legal_hold WHERE id = {number}",
    )
    return (
        f"INSERT INTO legal_hold ({columns}) OVERRIDING SYSTEM VALUE "
        f"SELECT {columns} FROM lost_hold WHERE id = {number}"
    )


def seal_and_forget(company: Company) -> str:
    """Seal a bundle and delete its ledger row, as after the restore of an older state database.

    Returns:
        The folder of the bundle.
    """
    company.seal("enforce_retention")
    with company.state.connect() as conn:
        row = ledger.head(conn)
    assert row is not None
    company.harm(f"DELETE FROM evidence_ledger WHERE seq = {row.seq}")
    return row.bundle


def test_first_loss_of_register_rows_is_still_reported_after_a_second_loss_was_repaired(
    company: Company,
) -> None:
    """Later bundles repeat each figure that shows a loss until its rows are restored."""
    try:
        first = lose_hold(company, 1)
        company.seal()
        company.hold()
        for _ in range(4):  # the figure that has both holds is in none of the newest bundles
            company.seal()
        second = lose_hold(company, 3)
        company.seal()
        company.harm(second)
        for _ in range(4):
            _state, findings = company.seal()
        assert [finding.code for finding in findings] == ["evidence.register_lost"]
        with pytest.raises(
            ControlFailed,
            match="1 of 2 legal holds are missing",
        ):
            company.require()
        company.harm(first)
        company.require()
    finally:
        company.harm("DROP TABLE lost_hold")


def test_first_loss_of_register_rows_is_reported_even_if_all_compared_bundles_are_newer_than_it(
    company: Company,
) -> None:
    """Every compared bundle was sealed while both losses existed."""
    try:
        first = lose_hold(company, 1)
        company.seal()
        company.hold()
        for _ in range(4):
            company.seal()
        second = lose_hold(company, 3)
        for _ in range(4):
            company.seal()
        company.harm(second)
        with pytest.raises(
            ControlFailed,
            match="1 of 2 legal holds are missing",
        ):
            company.require()
        company.harm(first)
        company.require()
    finally:
        company.harm("DROP TABLE lost_hold")


def accept(company: Company) -> object:
    words = {"by": "counsel", "because": "the disk burnt"}
    signer = company.evidence.signer
    return accept_losses(company.reader, signer, company.clock, **words, patience=0.2)


def test_loss_in_a_register_that_is_being_written_is_detected_after_another_loss_was_accepted(
    company: Company,
) -> None:
    """The newest bundle may lack this figure: sessions wrote to the register during its seal."""
    company.finding()
    company.seal()
    company.harm("DELETE FROM finding")
    with company.state.connect() as writer:
        writer.exec_driver_sql("LOCK TABLE legal_hold IN ROW EXCLUSIVE MODE")
        assert accept(company)
    company.require()
    company.harm("DELETE FROM legal_hold WHERE id = 2")
    assert company.lost() == {"legal_hold"}


def test_accepting_a_loss_of_register_rows_fails_while_a_transaction_writes_to_the_register(
    company: Company,
) -> None:
    """The register would have no figure, so a later loss of other rows would not be detected."""
    company.harm("DELETE FROM legal_hold WHERE id = 2")
    with company.state.connect() as writer:
        writer.exec_driver_sql("LOCK TABLE legal_hold IN ROW EXCLUSIVE MODE")
        with pytest.raises(ControlFailed, match=r"legal_hold .* is written to"):
            accept(company)
    assert company.lost() == {"legal_hold"}
    assert accept(company)
    company.harm("DELETE FROM legal_hold WHERE id = 1")
    assert company.lost() == {"legal_hold"}


def test_figures_of_a_register_are_from_an_older_bundle_if_the_newest_bundle_lacks_them(
    company: Company,
) -> None:
    company.seal()
    states = company.reader.sealed_states(company.clock.now()).recorded
    newest = max(states, key=lambda state: state.read_at)
    del newest.figures["legal_hold"]
    assert "legal_hold" in registers.SealedStates(states).newest


def test_lost_rows_are_reported_once_per_register(company: Company) -> None:
    """Many figures may show the loss. The report contains the figure with the most rows."""
    try:
        lose_hold(company, 1)
        company.hold()
        company.seal()
        lose_hold(company, 3)
        state, findings = company.seal()
    finally:
        company.harm("DROP TABLE lost_hold")
    assert len(findings) == 1
    assert (state.lost["legal_hold"].rows, len(state.also_lost["legal_hold"])) == (2, 1)


def test_lost_register_row_is_detected_if_last_genuine_bundle_is_among_many_forged_folders(
    company: Company,
) -> None:
    """The forged folders are newer, and outnumber the genuine bundles that are read."""
    company.hold()
    seal_and_forget(company)
    company.harm("DELETE FROM legal_hold WHERE id = 3")
    for number in range(60):
        folder = f"backup_offsite/2026/11/forged{number}"
        company.evidence.store.put(f"{folder}/{SUMS}", b"x")
        company.evidence.store.put(f"{folder}/{SIGNATURE}", b"x" * 64)
    assert company.lost() == {"legal_hold"}


def test_run_fails_if_too_many_folders_have_no_trusted_signature(company: Company) -> None:
    """A bundle that shows a loss may be among the unchecked folders."""
    for number in range(6):
        folder = f"backup_offsite/2026/11/forged{number}"
        company.evidence.store.put(f"{folder}/{SUMS}", b"x")
        company.evidence.store.put(f"{folder}/{SIGNATURE}", b"x" * 64)
    company.require()
    with patch.object(registers, "MOST_FORGED", 8):
        with pytest.raises(ControlFailed, match="2 folders of the evidence store"):
            company.require()
        _state, findings = company.seal()
    assert [(finding.code, str(finding.severity)) for finding in findings] == [
        ("evidence.too_many_unknown_folders", "fail")
    ]


def test_seal_has_a_finding_if_it_added_lost_ledger_rows_again(company: Company) -> None:
    """A lost row of the ledger is reported, although the seal repairs the ledger."""
    seal_and_forget(company)
    _state, findings = company.seal()
    assert [(finding.code, str(finding.severity)) for finding in findings] == [
        ("evidence.ledger_lost", "attention")
    ]
    assert company.evidence.verify().verified
    _state, findings = company.seal()
    assert findings == []


@pytest.mark.parametrize("name", [SIGNATURE, SUMS, RESULT])
@pytest.mark.parametrize("hide", ["delete", "overwrite"])
def test_lost_register_row_is_detected_although_newer_s3_versions_hide_the_files_of_a_bundle(
    evidence: Evidence, endpoint: str, name: str, hide: str
) -> None:
    """A delete marker or a newer version hides the object."""
    client = client_for(endpoint)
    bucket = new_bucket(client)
    company = Company(replace(evidence, store=S3Store(client, bucket, "evidence")), evidence.engine)
    company.hold()
    company.seal()
    company.hold()
    key = f"evidence/{seal_and_forget(company)}/{name}"
    company.harm("DELETE FROM legal_hold WHERE id = 2")
    hide_object(client, bucket, key, hide)
    assert company.lost() == {"legal_hold"}


@pytest.mark.parametrize("minutes", [-4, 4, 60])
def test_loss_of_rows_can_be_accepted_if_clocks_of_machines_differ(
    company: Company, minutes: int
) -> None:
    """The clock of the accepting machine is behind or ahead of the sealing machine's clock."""
    company.harm("DELETE FROM legal_hold WHERE id = 1")
    company.seal()
    other = FixedClock(company.day + timedelta(minutes=minutes))
    signer = company.evidence.signer
    assert accept_losses(company.reader, signer, other, by="counsel", because="the disk burnt")
    company.require()
    company.hold()
    company.seal()
    company.seal()
    company.harm("DELETE FROM legal_hold WHERE id = 3")
    assert company.lost() == {"legal_hold"}


@pytest.mark.parametrize("name", [SIGNATURE, SUMS, RESULT])
def test_overwritten_s3_file_of_a_bundle_is_read_in_its_sealed_version_and_reported(
    evidence: Evidence, endpoint: str, name: str
) -> None:
    """An intruder cannot stop drills with newer versions, and a finding names the bundle."""
    client = client_for(endpoint)
    bucket = new_bucket(client)
    company = Company(replace(evidence, store=S3Store(client, bucket, "evidence")), evidence.engine)
    company.hold()
    company.seal()
    row = ledger.head(evidence.conn)
    assert row is not None
    client.put_object(Bucket=bucket, Key=f"evidence/{row.bundle}/{name}", Body=b"x" * 64)
    company.require()
    _state, findings = company.seal()
    assert [(finding.code, finding.subject) for finding in findings] == [
        ("evidence.bundle_hidden", row.bundle)
    ]
    company.harm("DELETE FROM legal_hold WHERE id = 1")
    assert company.lost() == {"legal_hold"}
