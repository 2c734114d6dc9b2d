"""Bundles and losses of register rows are found even if ledger rows or bundles were changed."""

from __future__ import annotations

import shutil
from itertools import count

import pytest

from include.evidence import ledger
from include.evidence.folder import RESULT, SIGNATURE, SUMS
from include.evidence.ledger_recovery import recover_ledger
from include.evidence.signing import Signer, TrustedKeys, generate_key
from include.services.errors import ControlFailed
from include.state.tables import evidence_ledger
from tests.evidence.register_fixtures import Company
from tests.evidence.support import CLOCK, Evidence
from tests.evidence.test_unread_bundles import codes, exchange_key, rows

FOREIGN = "key_fingerprint = repeat('b', 64)"


@pytest.mark.parametrize("forged", ["", "sums_sha256 = repeat('a', 64), "])
def test_seal_fails_if_the_key_of_the_last_ledger_row_was_changed_to_an_untrusted_key(
    company: Company, forged: str
) -> None:
    """A trusted key signed the bundle of this row, so the row was not signed by a replaced key."""
    company.seal()
    company.seal()
    last = rows(company)[-1]
    company.harm(f"UPDATE evidence_ledger SET {forged}{FOREIGN} WHERE seq = {last.seq}")
    company.numbers = count(10)
    with pytest.raises(ControlFailed, match="was changed: its signature is not valid"):
        company.seal()
    company.harm(
        f"UPDATE evidence_ledger SET sums_sha256 = '{last.sums_sha256}', "
        f"key_fingerprint = '{last.key_fingerprint}' WHERE seq = {last.seq}"
    )
    assert company.seal()[1] == []
    assert company.evidence.verify().verified


def test_seal_fails_if_the_keys_of_several_last_ledger_rows_were_changed_to_an_untrusted_key(
    company: Company,
) -> None:
    """The row before the last row proves nothing about the chain if it was changed as well."""
    for _ in range(4):
        company.seal()
    forged = "sums_sha256 = md5(seq::text) || md5(seq::text)"
    company.harm(f"UPDATE evidence_ledger SET {forged}, {FOREIGN} WHERE seq > 1")
    with pytest.raises(ControlFailed, match="was changed: its signature is not valid"):
        company.seal()


def test_next_seal_has_a_finding_if_a_ledger_row_in_the_middle_was_changed(
    company: Company,
) -> None:
    company.seal()
    company.seal()
    company.harm("UPDATE evidence_ledger SET outcome = 'pass', controls = '{}' WHERE seq = 2")
    _state, findings = company.seal()
    assert codes(findings) == [("evidence.ledger_changed", "fail")]


def test_bundle_stays_untrusted_if_the_files_of_a_newer_bundle_are_copied_over_it(
    company: Company,
) -> None:
    """The figures of the replaced bundle stay unknown, however many bundles follow."""
    exchange_key(company)
    company.harm("DELETE FROM legal_hold WHERE id = 2")
    for _ in range(5):
        company.seal()
    first, *_others, newest = rows(company)
    for name in (SUMS, SIGNATURE, RESULT):
        file = company.evidence.root / first.bundle / name
        file.unlink()
        shutil.copyfile(company.evidence.root / newest.bundle / name, file)
    state, findings = company.seal()
    assert state.unread == (first.bundle,)
    assert codes(findings) == [("evidence.register_untrusted", "attention")]
    with pytest.raises(ControlFailed, match="is not signed with a trusted key"):
        company.require()


def test_ledger_row_signed_with_a_stolen_key_can_be_deleted_and_recovered_with_a_new_key(
    chain: Evidence,
) -> None:
    """The key that signed the recovered row was stolen later.

    The bundle's own key is still trusted.
    """
    stolen, new = (Signer.from_pem(generate_key()) for _ in range(2))
    is_last = evidence_ledger.c.seq == 3
    chain.tamper(evidence_ledger.delete().where(is_last))
    keys = TrustedKeys([stolen.public_pem, chain.signer.public_pem])
    assert len(recover_ledger(chain.store, chain.conn, stolen, keys, CLOCK)) == 1
    trusted = [chain.signer.public_pem]
    with pytest.raises(ControlFailed, match="was changed") as refused:
        chain.seal(11, signer=new, trusted=trusted)
    assert "delete the row as the owner of the table" in refused.value.action
    chain.tamper(evidence_ledger.delete().where(is_last))
    keys = TrustedKeys([new.public_pem, *trusted])
    assert len(recover_ledger(chain.store, chain.conn, new, keys, CLOCK)) == 1
    assert chain.seal(11, signer=new, trusted=trusted).seq == 4
    assert [row.seq for row in ledger.rows(chain.conn)] == [1, 2, 3, 4]
