"""Losses of registers: none is forgotten, and no intruder hides the bundle that shows one."""

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
    """Delete a hold; returns the statement that puts it back."""
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
    """Seal a bundle, and delete its ledger row as an older state database would; its folder."""
    company.seal("enforce_retention")
    with company.state.connect() as conn:
        row = ledger.head(conn)
    assert row is not None
    company.harm(f"DELETE FROM evidence_ledger WHERE seq = {row.seq}")
    return row.bundle


def test_first_loss_stays_when_a_second_one_is_repaired(company: Company) -> None:
    """Each lost figure stays in later bundles until its own rows are back."""
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
        with pytest.raises(ControlFailed, match="1 of 2 sealed legal holds are missing"):
            company.require()
        company.harm(first)
        company.require()
    finally:
        company.harm("DROP TABLE lost_hold")


def test_first_loss_stays_when_only_also_lost_names_it(company: Company) -> None:
    """Every bundle that is compared was sealed while both losses stood."""
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
        with pytest.raises(ControlFailed, match="1 of 2 sealed legal holds are missing"):
            company.require()
        company.harm(first)
        company.require()
    finally:
        company.harm("DROP TABLE lost_hold")


def accept(company: Company) -> object:
    words = {"by": "counsel", "because": "the disk burnt"}
    signer = company.evidence.signer
    return accept_losses(company.reader, signer, company.clock, **words, patience=0.2)


def test_acceptance_keeps_the_sealed_figure_of_a_register_that_is_being_written(
    company: Company,
) -> None:
    """The newest bundle may lack it too: it was written while that bundle was sealed."""
    company.finding()
    company.seal()
    company.harm("DELETE FROM finding")
    with company.state.connect() as writer:
        writer.exec_driver_sql("LOCK TABLE legal_hold IN ROW EXCLUSIVE MODE")
        assert accept(company)
    company.require()
    company.harm("DELETE FROM legal_hold WHERE id = 2")
    assert company.lost() == {"legal_hold"}


def test_acceptance_is_refused_while_the_register_that_lacks_rows_is_written(
    company: Company,
) -> None:
    """It would have no figure, and a later loss of its other rows would not be noticed."""
    company.harm("DELETE FROM legal_hold WHERE id = 2")
    with company.state.connect() as writer:
        writer.exec_driver_sql("LOCK TABLE legal_hold IN ROW EXCLUSIVE MODE")
        with pytest.raises(ControlFailed, match=r"legal_hold .* is being written"):
            accept(company)
    assert company.lost() == {"legal_hold"}
    assert accept(company)
    company.harm("DELETE FROM legal_hold WHERE id = 1")
    assert company.lost() == {"legal_hold"}


def test_newest_figures_include_a_register_that_the_newest_state_lacks(company: Company) -> None:
    company.seal()
    states = company.reader.sealed_states(company.clock.now()).recorded
    newest = max(states, key=lambda state: state.read_at)
    del newest.figures["legal_hold"]
    assert "legal_hold" in registers.SealedStates(states).newest


def test_loss_is_named_once_for_each_register(company: Company) -> None:
    """However many figures show it: the largest is named."""
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


def test_forged_folders_do_not_hide_an_unrecorded_bundle(company: Company) -> None:
    """They are newer than it, and more than are read of genuine ones."""
    company.hold()
    seal_and_forget(company)
    company.harm("DELETE FROM legal_hold WHERE id = 3")
    for number in range(60):
        folder = f"backup_offsite/2026/11/forged{number}"
        company.evidence.store.put(f"{folder}/{SUMS}", b"x")
        company.evidence.store.put(f"{folder}/{SIGNATURE}", b"x" * 64)
    assert company.lost() == {"legal_hold"}


def test_more_unknown_folders_than_can_be_checked_are_a_failure(company: Company) -> None:
    """A bundle that shows a loss may be among those that were left."""
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


def test_seal_says_that_it_enters_bundles_that_the_ledger_lost(company: Company) -> None:
    """A lost row of the ledger is noticed, though the seal repairs it."""
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
def test_hidden_object_does_not_hide_an_unrecorded_bundle_in_s3(
    evidence: Evidence, endpoint: str, name: str, hide: str
) -> None:
    """Neither a delete marker nor a newer version."""
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
def test_acceptance_does_not_depend_on_the_clocks_of_two_machines(
    company: Company, minutes: int
) -> None:
    """The clock of the machine that accepts is behind or ahead of that of the sealing one."""
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
def test_hidden_bundle_of_the_ledger_is_read_by_its_sealed_version(
    evidence: Evidence, endpoint: str, name: str
) -> None:
    """An intruder who writes newer versions stops no drill, and a finding names the bundle."""
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
