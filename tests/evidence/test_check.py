"""A bundle is checked as far as its own content goes, also where its signature is right."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from include.evidence import ledger
from include.evidence.check import Refused, check_row, check_signature
from include.evidence.folder import StoreFolder, Sums
from include.evidence.signing import TrustedKeys
from tests.evidence.support import Evidence


def sign_anew(chain: Evidence, bundle: str, sums: bytes) -> StoreFolder:
    """Replace the signed list of a bundle, as a holder of the key can."""
    folder = chain.root / bundle
    (folder / "SHA256SUMS").write_bytes(sums)
    (folder / "SHA256SUMS.sig").write_bytes(chain.signer.sign(sums))
    return StoreFolder(chain.store, bundle)


def test_signed_list_in_another_form_is_refused(chain: Evidence) -> None:
    """A right signature does not make a list of anything that a seal would not write."""
    row = ledger.rows(chain.conn)[0]
    keys = TrustedKeys([chain.signer.public_pem])
    sums = (chain.root / row.bundle / "SHA256SUMS").read_bytes()
    assert check_signature(sign_anew(chain, row.bundle, sums), keys).sha256 == row.sums_sha256
    for other in (sums + b"a line that is no digest\n", sums + sums, b"\xff" + sums):
        with pytest.raises(Refused) as refused:
            check_signature(sign_anew(chain, row.bundle, other), keys)
        assert "not one that a seal writes" in refused.value.message.text


@pytest.mark.parametrize("content", [b"{}", b"[]", b"{", b"\xff", b"null"])
def test_signed_result_of_another_program_is_refused(chain: Evidence, content: bytes) -> None:
    """Its ledger row has the right digest, and result.json does not say what a row needs."""
    row = ledger.rows(chain.conn)[0]
    path = chain.root / row.bundle
    (path / "result.json").write_bytes(content)
    listed = Sums.parse((path / "SHA256SUMS").read_bytes())
    files = {**listed.files, "result.json": hashlib.sha256(content).hexdigest()}
    folder = sign_anew(chain, row.bundle, Sums(files, listed.previous).to_bytes())
    signed = check_signature(folder, TrustedKeys([chain.signer.public_pem]))
    with pytest.raises(Refused) as refused:
        check_row(replace(row, sums_sha256=signed.sha256), signed, folder, None)
    assert "not one of ParcelSeal" in refused.value.message.text
