"""The bundle reader returns only content that equals the sealed content."""

from __future__ import annotations

import hashlib
import tracemalloc

import pytest

from include.evidence import ledger
from include.evidence.bundle_reader import BELIEVED_FOR, IN_MEMORY, BundleCheck, BundleReader
from include.evidence.check import EvidenceRefused
from include.evidence.folder import SIGNATURE
from include.evidence.signing import Signer, generate_key
from include.evidence.verify import link_before
from include.messages import Message, _
from tests.evidence.support import Evidence


def reader_of(evidence: Evidence) -> BundleReader:
    return BundleReader(evidence.store, [evidence.signer.public_pem])


def newest(evidence: Evidence) -> ledger.LedgerRow:
    row = ledger.head(evidence.conn)
    assert row is not None
    return row


def test_bundle_reader_returns_the_sealed_bytes_of_each_file(chain: Evidence) -> None:
    """The reader returns each file of SHA256SUMS, SHA256SUMS itself and its signature."""
    bundle_reader, row = reader_of(chain), newest(chain)
    signed = bundle_reader.signed(row)
    for name in (*signed.sums.files, "SHA256SUMS", "SHA256SUMS.sig"):
        with bundle_reader.open(row, name, signed) as file:
            assert file.read() == (chain.root / row.bundle / name).read_bytes()


@pytest.mark.parametrize("harm", ["changed", "removed", "cut"])
def test_bundle_reader_raises_evidence_refused_if_a_file_was_changed_or_removed(
    chain: Evidence, harm: str
) -> None:
    """The reader returns no byte of the file, and the error names the reason."""
    bundle_reader, row = reader_of(chain), newest(chain)
    file = chain.root / row.bundle / "report.en.html"
    if harm == "removed":
        file.unlink()
    else:
        file.write_bytes(b"<p>better</p>\n" if harm == "changed" else b"<p>rep")
    with pytest.raises(EvidenceRefused) as refused:
        bundle_reader.open(row, "report.en.html", bundle_reader.signed(row))
    assert "report.en.html" in str(refused.value.message.values)


def test_reader_opens_large_file_with_little_memory(evidence: Evidence) -> None:
    """Many readers may open incident files at once, so a large file is buffered on the disk."""
    content = bytes(3 * IN_MEMORY)
    evidence.seal(files={"frames.bin": content})
    bundle_reader, row = reader_of(evidence), newest(evidence)
    signed = bundle_reader.signed(row)
    tracemalloc.start()
    with bundle_reader.open(row, "frames.bin", signed) as file:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(content).digest()
    assert peak < 2 * IN_MEMORY


@pytest.mark.parametrize(
    "name",
    ["../../../etc/passwd", "/etc/passwd", "report.en.html/../x", "", "SHA256SUMS/", "..%2f"],
)
def test_bundle_reader_raises_key_error_if_file_name_is_not_in_sha256sums(
    chain: Evidence, name: str
) -> None:
    bundle_reader, row = reader_of(chain), newest(chain)
    with pytest.raises(KeyError):
        bundle_reader.open(row, name, bundle_reader.signed(row))


def test_cached_bundle_result_is_verified_again_after_its_cache_lifetime(chain: Evidence) -> None:
    """A change of the bundle is therefore detected when the lifetime has passed, if not earlier."""
    now = [0.0]
    bundle_reader = BundleReader(chain.store, [chain.signer.public_pem], lambda: now[0])
    row = newest(chain)
    first = bundle_reader.result(row)
    (chain.root / row.bundle / "result.json").write_text("{}")
    now[0] = BELIEVED_FOR - 1
    assert bundle_reader.result(row) == first
    now[0] = BELIEVED_FOR
    with pytest.raises(EvidenceRefused):
        bundle_reader.result(row)


@pytest.mark.parametrize("problem", [None, _("the file {name} is missing", name="x")])
@pytest.mark.parametrize("complete", [False, True])
def test_bundle_is_verified_only_if_every_file_was_checked(
    problem: Message | None, complete: bool
) -> None:
    """A bundle with a fault, or with a file too large to be checked, is never shown as passed."""
    assert BundleCheck(problem, complete).verified == (complete and problem is None)


def test_bundle_check_fails_and_contains_the_name_of_the_changed_file(chain: Evidence) -> None:
    """The reported problem names the changed file."""
    bundle_reader, row = reader_of(chain), newest(chain)
    previous = link_before(chain.conn, row)
    assert bundle_reader.checked(row, lambda: previous).verified
    (chain.root / row.bundle / "report.en.html").write_bytes(b"<p>better</p>\n")
    check = reader_of(chain).checked(row, lambda: previous)
    assert not check.verified
    assert check.problem is not None
    assert "report.en.html" in check.problem.values.values()


def test_check_of_bundle_without_stored_signature_is_not_cached(chain: Evidence) -> None:
    """A seal commits the ledger row before it stores the signature.

    A page that is loaded in between must not show a failure for minutes.
    """
    bundle_reader, row = reader_of(chain), newest(chain)
    signature = chain.root / row.bundle / "SHA256SUMS.sig"
    content = signature.read_bytes()
    signature.unlink()
    previous = link_before(chain.conn, row)
    assert bundle_reader.checked(row, lambda: previous).problem is not None
    signature.write_bytes(content)
    assert bundle_reader.checked(row, lambda: previous).verified


def test_bundle_is_valid_if_its_signature_is_only_in_state_database(chain: Evidence) -> None:
    """A seal was killed after it committed its ledger row and before it stored its signature."""
    row = newest(chain)
    file = chain.root / row.bundle / SIGNATURE
    signature = file.read_bytes()
    file.unlink()
    pending = {row.bundle: signature}
    bundle_reader = BundleReader(chain.store, [chain.signer.public_pem], pending=pending.get)
    check = bundle_reader.check(row, link_before(chain.conn, row))
    assert (check.verified, check.has_pending_signature) == (True, True)
    assert bundle_reader.result(row).run.run_id == row.run_id
    with bundle_reader.open(row, SIGNATURE, bundle_reader.signed(row)) as content:
        assert content.read() == signature
    pending[row.bundle] = Signer.from_pem(generate_key()).sign(b"forged")
    assert not bundle_reader.check(row, link_before(chain.conn, row)).verified
    pending.clear()
    assert not bundle_reader.check(row, link_before(chain.conn, row)).verified


def test_bundle_check_succeeds_if_a_seal_stores_the_signature_during_the_check(
    chain: Evidence,
) -> None:
    """Another seal stores the signature after the check read the store."""
    row = newest(chain)
    file = chain.root / row.bundle / SIGNATURE
    signature = file.read_bytes()
    file.unlink()

    def publish(_bundle: str) -> None:
        file.write_bytes(signature)

    bundle_reader = BundleReader(chain.store, [chain.signer.public_pem], pending=publish)
    assert bundle_reader.check(row, link_before(chain.conn, row)).verified


def test_bundle_reader_raises_evidence_refused_if_ledger_row_is_signed_with_untrusted_key(
    chain: Evidence,
) -> None:
    """The row is refused even if another reader accepted it with its own trusted key."""
    row = newest(chain)
    assert reader_of(chain).is_authentic(row)
    other = Signer.from_pem(generate_key())
    stranger = BundleReader(chain.store, [other.public_pem])
    assert not stranger.is_authentic(row)
    with pytest.raises(EvidenceRefused):
        stranger.signed(row)
