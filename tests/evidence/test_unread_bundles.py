"""Bundles with unknown figures, and deleted ledger rows, are reported until they are resolved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from include.evidence import ledger
from include.evidence.folder import RESULT
from include.evidence.ledger_recovery import recover_ledger
from include.evidence.model import AcceptedLoss, Finding
from include.evidence.registers import EvidenceReader, accept_losses
from include.evidence.signing import Signer, TrustedKeys, generate_key
from include.holds import registry
from include.services.errors import ControlFailed
from include.services.objectstore.directory import DirectoryStore
from include.state.tables import evidence_intent
from tests.evidence.register_fixtures import Company
from tests.evidence.support import CLOCK, START, Evidence

UNREAD = "failed verification. Therefore the number"
UNTRUSTED = "is not signed with a trusted key"


def rows(company: Company) -> list[ledger.LedgerRow]:
    with company.state.connect() as conn:
        return ledger.rows(conn)


def codes(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.code, str(finding.severity)) for finding in findings]


def damage(company: Company, seq: int) -> tuple[Path, bytes]:
    """Overwrite the result.json of a bundle; return the file and its sealed content."""
    file = company.evidence.root / rows(company)[seq - 1].bundle / RESULT
    content = file.read_bytes()
    file.chmod(0o600)
    file.write_bytes(content + b" ")
    return file, content


def accept(company: Company) -> AcceptedLoss | None:
    words = {"by": "counsel", "because": "the disk burnt, no backup is left"}
    return accept_losses(company.reader, company.evidence.signer, company.clock, **words)


def exchange_key(company: Company) -> bytes:
    """Replace the signing key and trust only the new key; return the old public key."""
    old = company.evidence.signer.public_pem
    company.evidence = replace(company.evidence, signer=Signer.from_pem(generate_key()))
    return old


def test_require_complete_raises_control_failed_if_an_older_bundle_cannot_be_read(
    company: Company,
) -> None:
    """Only this bundle has a figure that covers the lost legal hold. Later bundles do not help."""
    company.hold()
    company.seal()
    damage(company, 2)
    company.harm("DELETE FROM legal_hold WHERE id = 3")
    for _ in range(5):
        state, findings = company.seal()
        assert codes(findings) == [("evidence.register_unread", "attention")]
        assert state.unread == (rows(company)[1].bundle,)
    with pytest.raises(ControlFailed, match=UNREAD):
        company.require()


def test_lost_legal_hold_is_reported_as_soon_as_unreadable_bundle_is_repaired(
    company: Company,
) -> None:
    company.hold()
    company.seal()
    file, content = damage(company, 2)
    company.harm("DELETE FROM legal_hold WHERE id = 3")
    for _ in range(5):
        company.seal()
    file.write_bytes(content)
    with pytest.raises(
        ControlFailed,
        match="1 of 3 legal holds are missing",
    ):
        company.require()
    state, _findings = company.seal()
    assert (state.unread, set(state.lost)) == ((), {"legal_hold"})


def test_first_unreadable_bundle_is_still_reported_after_second_unreadable_bundle_is_repaired(
    company: Company,
) -> None:
    """A later bundle lists the first unreadable bundle, and then becomes unreadable itself."""
    company.seal()
    damage(company, 2)
    company.seal()
    file, content = damage(company, 3)
    for _ in range(4):
        company.seal()
    file.write_bytes(content)
    state, _findings = company.seal()
    assert state.unread == (rows(company)[1].bundle,)


def test_require_complete_passes_after_loss_of_unreadable_bundle_is_accepted(
    company: Company,
) -> None:
    """If a further bundle cannot be read, runs are refused again."""
    company.seal()
    damage(company, 2)
    accepted = accept(company)
    assert accepted is not None
    assert (accepted.lost, accepted.unread) == ({}, (rows(company)[1].bundle,))
    company.require()
    state, findings = company.seal()
    assert codes(findings) == [("evidence.register_loss_accepted", "attention")]
    assert (state.unread, state.accepted) == ((), accepted)
    for _ in range(4):
        assert company.seal()[1] == []
    assert accept(company) is None
    damage(company, 5)
    with pytest.raises(ControlFailed, match=UNREAD):
        company.require()


def test_require_complete_raises_control_failed_if_replaced_signing_key_is_not_trusted(
    company: Company,
) -> None:
    """If the key of a bundle is not trusted, its figures are unknown, and a loss may be hidden."""
    old = exchange_key(company)
    company.harm("DELETE FROM legal_hold WHERE id = 2")
    with pytest.raises(ControlFailed, match=UNTRUSTED) as refused:
        company.require()
    assert "trusted_keys" in refused.value.action
    for _ in range(5):
        _state, findings = company.seal()
        assert codes(findings) == [("evidence.register_untrusted", "attention")]
    with pytest.raises(ControlFailed, match=UNTRUSTED):
        company.require()
    keys = [company.evidence.signer.public_pem, old]
    reader = EvidenceReader(company.evidence.store, company.state, keys, ["backup_offsite"])
    with pytest.raises(
        ControlFailed,
        match="1 of 2 legal holds are missing",
    ):
        reader.require_complete(company.clock.now())


def test_require_complete_passes_after_loss_of_bundles_signed_with_replaced_key_is_accepted(
    company: Company,
) -> None:
    """The key was stolen, so it is never trusted again."""
    for _ in range(4):
        company.seal()
    exchange_key(company)
    accepted = accept(company)
    assert accepted is not None
    assert len(accepted.unread) == 5
    company.require()
    for _ in range(5):
        company.seal()
        company.require()


def test_require_complete_passes_if_no_bundle_was_ever_sealed(evidence: Evidence) -> None:
    company = Company(evidence, evidence.engine)
    company.hold()
    company.require()
    assert company.reader.state_to_seal(company.clock)[1] == []


@pytest.mark.parametrize("deleted", [(3,), (1,), (2, 3), (2, 4)])
def test_seal_reports_and_restores_deleted_ledger_rows_older_than_the_last_remaining_row(
    company: Company, deleted: tuple[int, ...]
) -> None:
    for _ in range(4):
        company.seal()
    before = rows(company)
    numbers = ", ".join(map(str, deleted))
    company.harm(f"DELETE FROM evidence_ledger WHERE seq IN ({numbers})")
    _state, findings = company.seal()
    assert codes(findings) == [("evidence.ledger_lost", "fail")]
    assert findings[0].message.values == {"count": len(deleted), "number": deleted[0]}
    assert company.evidence.verify().verified
    assert [row.link for row in rows(company)[:5]] == [row.link for row in before]
    assert company.seal()[1] == []


def test_every_seal_reports_deleted_ledger_row_while_its_bundle_is_damaged(
    company: Company,
) -> None:
    for _ in range(4):
        company.seal()
    damage(company, 3)
    company.harm("DELETE FROM evidence_ledger WHERE seq = 3")
    for _ in range(2):
        assert ("evidence.ledger_lost", "fail") in codes(company.seal()[1])


def test_recover_ledger_restores_deleted_rows_in_the_middle_and_at_the_end_of_ledger(
    company: Company,
) -> None:
    for _ in range(4):
        company.seal()
    before = rows(company)
    company.harm("DELETE FROM evidence_ledger WHERE seq IN (3, 5)")
    evidence = company.evidence
    keys = TrustedKeys([evidence.signer.public_pem])
    with company.state.connect() as conn:
        entered = recover_ledger(evidence.store, conn, evidence.signer, keys, company.clock)
    assert entered == [before[2].bundle, before[4].bundle]
    assert evidence.verify().verified
    assert company.seal()[1] == []


def test_seal_reports_no_lost_ledger_rows_after_bundles_were_pruned(company: Company) -> None:
    for _ in range(4):
        company.seal()
    evidence = company.evidence
    with company.state.begin() as conn:
        for hold in registry.active_holds(conn):
            registry.release(conn, CLOCK, hold.id, released_by="counsel", reason="settled")
    assert len(evidence.prune(3, clock=company.clock).bundles) == 2
    list_versions = DirectoryStore.list_versions
    with patch.object(
        DirectoryStore, "list_versions", autospec=True, side_effect=list_versions
    ) as listed:
        assert company.seal()[1] == []
    assert "" not in [call.args[1] for call in listed.call_args_list]  # nor the whole store


def test_seal_adds_ledger_row_of_killed_seal_without_reporting_a_finding(company: Company) -> None:
    """Older versions signed a bundle before they wrote its row, so no row was lost."""
    company.seal()
    last = rows(company)[-1]
    company.harm(f"DELETE FROM evidence_ledger WHERE seq = {last.seq}")
    with company.state.begin() as conn:
        conn.execute(evidence_intent.insert().values(bundle=last.bundle, started_at=START))
    _state, findings = company.seal()
    assert findings == []
    assert company.evidence.verify().verified
    assert [row.bundle for row in rows(company)][1] == last.bundle
