"""The content of a bundle is checked even if its signature is valid."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from include.evidence import ledger
from include.evidence.check import EvidenceRefused, check_row, check_signature
from include.evidence.folder import StoreFolder, Sums
from include.evidence.signing import TrustedKeys
from tests.evidence.support import Evidence


def sign_again(chain: Evidence, bundle: str, sums: bytes) -> StoreFolder:
    """Replace the signed SHA256SUMS of a bundle, as a person with the signing key can."""
    folder = chain.root / bundle
    (folder / "SHA256SUMS").write_bytes(sums)
    (folder / "SHA256SUMS.sig").write_bytes(chain.signer.sign(sums))
    return StoreFolder(chain.store, bundle)


def test_check_signature_raises_evidence_refused_if_sha256sums_has_another_format(
    chain: Evidence,
) -> None:
    """A seal would not write such a SHA256SUMS, so a valid signature is not enough."""
    row = ledger.rows(chain.conn)[0]
    keys = TrustedKeys([chain.signer.public_pem])
    sums = (chain.root / row.bundle / "SHA256SUMS").read_bytes()
    assert check_signature(sign_again(chain, row.bundle, sums), keys).sha256 == row.sums_sha256
    for other in (sums + b"a line that is no digest\n", sums + sums, b"\xff" + sums):
        with pytest.raises(EvidenceRefused) as refused:
            check_signature(sign_again(chain, row.bundle, other), keys)
        assert (
            "does not have the format in which ParcelSeal seals bundles"
            in refused.value.message.text
        )


@pytest.mark.parametrize("content", [b"{}", b"[]", b"{", b"\xff", b"null"])
def test_check_row_raises_evidence_refused_if_result_json_was_not_written_by_parcelseal(
    chain: Evidence, content: bytes
) -> None:
    """The ledger row has the digest of the bundle, but result.json lacks the values of the row."""
    row = ledger.rows(chain.conn)[0]
    path = chain.root / row.bundle
    (path / "result.json").write_bytes(content)
    listed = Sums.parse((path / "SHA256SUMS").read_bytes())
    files = {**listed.files, "result.json": hashlib.sha256(content).hexdigest()}
    folder = sign_again(chain, row.bundle, Sums(files, listed.previous).to_bytes())
    signed = check_signature(folder, TrustedKeys([chain.signer.public_pem]))
    with pytest.raises(EvidenceRefused) as refused:
        check_row(replace(row, sums_sha256=signed.sha256), signed, folder, None)
    assert "not written by ParcelSeal" in refused.value.message.text
