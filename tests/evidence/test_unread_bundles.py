"""Bundles whose figures are unknown, and deleted ledger rows, are not forgotten."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from include.evidence import ledger
from include.evidence.adopt import recover_ledger
from include.evidence.folder import RESULT
from include.evidence.model import AcceptedLoss, Finding
from include.evidence.registers import EvidenceReader, accept_losses
from include.evidence.signing import Signer, TrustedKeys, generate_key
from include.holds import registry
from include.services.errors import ControlFailed
from include.services.objectstore.directory import DirectoryStore
from include.state.tables import evidence_intent
from tests.evidence.register_fixtures import Company
from tests.evidence.support import CLOCK, START, Evidence

UNREAD = "does not verify, so nothing shows"
UNTRUSTED = "No trusted key signed the ledger row"


def rows(company: Company) -> list[ledger.LedgerRow]:
    with company.state.connect() as conn:
        return ledger.rows(conn)


def codes(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.code, str(finding.severity)) for finding in findings]


def damage(company: Company, seq: int) -> tuple[Path, bytes]:
    """Overwrite the result.json of a bundle; returns the file and its sealed content."""
    file = company.evidence.root / rows(company)[seq - 1].bundle / RESULT
    content = file.read_bytes()
    file.chmod(0o600)
    file.write_bytes(content + b" ")
    return file, content


def accept(company: Company) -> AcceptedLoss | None:
    words = {"by": "counsel", "because": "the disk burnt, no backup is left"}
    return accept_losses(company.reader, company.evidence.signer, company.clock, **words)


def exchange_key(company: Company) -> bytes:
    """Seal and trust with a new key only; returns the old public key."""
    old = company.evidence.signer.public_pem
    company.evidence = replace(company.evidence, signer=Signer.from_pem(generate_key()))
    return old


def test_unread_bundle_stops_work_after_newer_bundles_were_sealed(company: Company) -> None:
    """A hold that only this bundle has stays sealed, however many bundles follow."""
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


def test_unread_bundle_is_compared_once_it_verifies_again(company: Company) -> None:
    company.hold()
    company.seal()
    file, content = damage(company, 2)
    company.harm("DELETE FROM legal_hold WHERE id = 3")
    for _ in range(5):
        company.seal()
    file.write_bytes(content)
    with pytest.raises(ControlFailed, match="1 of 3 sealed legal holds are missing"):
        company.require()
    state, _findings = company.seal()
    assert (state.unread, set(state.lost)) == ((), {"legal_hold"})


def test_unread_bundle_that_named_another_one_does_not_hide_it(company: Company) -> None:
    """The first bundle that could not be read is named by one that could not be read later."""
    company.seal()
    damage(company, 2)
    company.seal()
    file, content = damage(company, 3)
    for _ in range(4):
        company.seal()
    file.write_bytes(content)
    state, _findings = company.seal()
    assert state.unread == (rows(company)[1].bundle,)


def test_accepted_unread_bundle_ends_the_refusals(company: Company) -> None:
    """Another bundle that cannot be read stops the work again."""
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


def test_rows_of_an_exchanged_key_are_refused_until_it_is_trusted_again(company: Company) -> None:
    """Without its key, a bundle's figures are unknown: they do not count as equal."""
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
    with pytest.raises(ControlFailed, match="1 of 2 sealed legal holds are missing"):
        reader.require_complete(company.clock.now())


def test_accepted_rows_of_an_exchanged_key_end_the_refusals(company: Company) -> None:
    """The key was stolen, so that nobody trusts it again."""
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


def test_installation_without_any_bundle_has_nothing_to_compare(evidence: Evidence) -> None:
    company = Company(evidence, evidence.engine)
    company.hold()
    company.require()
    assert company.reader.state_to_seal(company.clock)[1] == []


@pytest.mark.parametrize("deleted", [(3,), (1,), (2, 3), (2, 4)])
def test_seal_reports_and_enters_rows_deleted_in_the_middle_of_the_ledger(
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


def test_seal_reports_a_deleted_row_again_while_its_bundle_cannot_be_entered(
    company: Company,
) -> None:
    for _ in range(4):
        company.seal()
    damage(company, 3)
    company.harm("DELETE FROM evidence_ledger WHERE seq = 3")
    for _ in range(2):
        assert ("evidence.ledger_lost", "fail") in codes(company.seal()[1])


def test_recover_ledger_enters_a_row_deleted_in_the_middle(company: Company) -> None:
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


def test_pruned_rows_are_no_gap(company: Company) -> None:
    for _ in range(4):
        company.seal()
    evidence = company.evidence
    with company.state.begin() as conn:
        for hold in registry.active(conn):
            registry.release(conn, CLOCK, hold.id, released_by="counsel", reason="settled")
    assert len(evidence.prune(3, clock=company.clock).bundles) == 2
    list_versions = DirectoryStore.list_versions
    with patch.object(
        DirectoryStore, "list_versions", autospec=True, side_effect=list_versions
    ) as listed:
        assert company.seal()[1] == []
    assert "" not in [call.args[1] for call in listed.call_args_list]  # nor the whole store


def test_bundle_of_a_killed_seal_is_entered_without_a_finding(company: Company) -> None:
    """Older versions signed a bundle before they wrote its row: no row was lost."""
    company.seal()
    last = rows(company)[-1]
    company.harm(f"DELETE FROM evidence_ledger WHERE seq = {last.seq}")
    with company.state.begin() as conn:
        conn.execute(evidence_intent.insert().values(bundle=last.bundle, begun_at=START))
    _state, findings = company.seal()
    assert findings == []
    assert company.evidence.verify().verified
    assert [row.bundle for row in rows(company)][1] == last.bundle
