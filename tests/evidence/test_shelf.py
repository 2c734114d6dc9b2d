"""What is shown of a bundle: nothing that is not what was sealed."""

from __future__ import annotations

import hashlib
import tracemalloc

import pytest

from include.evidence import ledger
from include.evidence.check import Refused
from include.evidence.folder import SIGNATURE
from include.evidence.shelf import BELIEVED_FOR, IN_MEMORY, BundleCheck, Shelf
from include.evidence.signing import Signer, generate_key
from include.evidence.verify import link_before
from include.messages import Message, _
from tests.evidence.support import Evidence


def shelf_of(evidence: Evidence) -> Shelf:
    return Shelf(evidence.store, [evidence.signer.public_pem])


def newest(evidence: Evidence) -> ledger.LedgerRow:
    found = ledger.head(evidence.conn)
    assert found is not None
    return found


def test_files_are_handed_over_as_they_were_sealed(chain: Evidence) -> None:
    """Each file of the list, the list itself and its signature."""
    shelf, row = shelf_of(chain), newest(chain)
    signed = shelf.signed(row)
    for name in (*signed.sums.files, "SHA256SUMS", "SHA256SUMS.sig"):
        with shelf.open(row, name, signed) as file:
            assert file.read() == (chain.root / row.bundle / name).read_bytes()


@pytest.mark.parametrize("harm", ["changed", "removed", "cut"])
def test_a_file_that_was_harmed_is_not_handed_over(chain: Evidence, harm: str) -> None:
    """Not a byte of it, with the reason."""
    shelf, row = shelf_of(chain), newest(chain)
    file = chain.root / row.bundle / "report.en.html"
    if harm == "removed":
        file.unlink()
    else:
        file.write_bytes(b"<p>better</p>\n" if harm == "changed" else b"<p>rep")
    with pytest.raises(Refused) as refused:
        shelf.open(row, "report.en.html", shelf.signed(row))
    assert "report.en.html" in str(refused.value.message.values)


def test_large_file_is_opened_with_little_memory(evidence: Evidence) -> None:
    """Many readers at once open files of incidents; a large one waits on the disk."""
    content = bytes(3 * IN_MEMORY)
    evidence.seal(files={"frames.bin": content})
    shelf, row = shelf_of(evidence), newest(evidence)
    signed = shelf.signed(row)
    tracemalloc.start()
    with shelf.open(row, "frames.bin", signed) as file:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(content).digest()
    assert peak < 2 * IN_MEMORY


@pytest.mark.parametrize(
    "name",
    ["../../../etc/passwd", "/etc/passwd", "report.en.html/../x", "", "SHA256SUMS/", "..%2f"],
)
def test_what_the_list_does_not_name_is_not_looked_for(chain: Evidence, name: str) -> None:
    """No name reaches the store that was not sealed."""
    shelf, row = shelf_of(chain), newest(chain)
    with pytest.raises(KeyError):
        shelf.open(row, name, shelf.signed(row))


def test_a_result_is_remembered_for_a_while_and_then_looked_at_again(chain: Evidence) -> None:
    """What was harmed since is noticed after that while at the latest."""
    now = [0.0]
    shelf = Shelf(chain.store, [chain.signer.public_pem], lambda: now[0])
    row = newest(chain)
    first = shelf.result(row)
    (chain.root / row.bundle / "result.json").write_text("{}")
    now[0] = BELIEVED_FOR - 1
    assert shelf.result(row) == first
    now[0] = BELIEVED_FOR
    with pytest.raises(Refused):
        shelf.result(row)


@pytest.mark.parametrize("problem", [None, _("the file {name} is missing", name="x")])
@pytest.mark.parametrize("complete", [False, True])
def test_bundle_is_verified_when_every_file_was_checked_and_is_right(
    problem: Message | None, complete: bool
) -> None:
    """Neither a fault nor a file too large to be checked is shown as passed."""
    assert BundleCheck(problem, complete).verified == (complete and problem is None)


def test_harmed_bundle_is_not_verified(chain: Evidence) -> None:
    """The reason names the file."""
    shelf, row = shelf_of(chain), newest(chain)
    previous = link_before(chain.conn, row)
    assert shelf.checked(row, lambda: previous).verified
    (chain.root / row.bundle / "report.en.html").write_bytes(b"<p>better</p>\n")
    check = shelf_of(chain).checked(row, lambda: previous)
    assert not check.verified
    assert check.problem is not None
    assert "report.en.html" in check.problem.values.values()


def test_bundle_that_waits_for_its_signature_is_checked_again_at_once(chain: Evidence) -> None:
    """A page that came between the ledger's row and the signature does not fail for minutes."""
    shelf, row = shelf_of(chain), newest(chain)
    signature = chain.root / row.bundle / "SHA256SUMS.sig"
    content = signature.read_bytes()
    signature.unlink()
    previous = link_before(chain.conn, row)
    assert shelf.checked(row, lambda: previous).problem is not None
    signature.write_bytes(content)
    assert shelf.checked(row, lambda: previous).verified


def test_bundle_whose_signature_is_not_stored_yet_is_shown_as_sealed(chain: Evidence) -> None:
    """A seal was killed between its ledger row and the upload of its signature."""
    row = newest(chain)
    file = chain.root / row.bundle / SIGNATURE
    signature = file.read_bytes()
    file.unlink()
    pending = {row.bundle: signature}
    shelf = Shelf(chain.store, [chain.signer.public_pem], pending=pending.get)
    check = shelf.check(row, link_before(chain.conn, row))
    assert (check.verified, check.is_waiting) == (True, True)
    assert shelf.result(row).run.run_id == row.run_id
    with shelf.open(row, SIGNATURE, shelf.signed(row)) as content:
        assert content.read() == signature
    pending[row.bundle] = Signer.from_pem(generate_key()).sign(b"forged")
    assert not shelf.check(row, link_before(chain.conn, row)).verified
    pending.clear()
    assert not shelf.check(row, link_before(chain.conn, row)).verified


def test_signature_that_is_stored_meanwhile_is_read(chain: Evidence) -> None:
    """The next seal put it there after the store was asked and before the state database was."""
    row = newest(chain)
    file = chain.root / row.bundle / SIGNATURE
    signature = file.read_bytes()
    file.unlink()

    def publish(_bundle: str) -> None:
        file.write_bytes(signature)

    shelf = Shelf(chain.store, [chain.signer.public_pem], pending=publish)
    assert shelf.check(row, link_before(chain.conn, row)).verified


def test_a_row_of_another_key_is_not_believed(chain: Evidence) -> None:
    """A key that nobody trusts signs nothing, whatever was remembered of others."""
    row = newest(chain)
    assert shelf_of(chain).is_authentic(row)
    other = Signer.from_pem(generate_key())
    stranger = Shelf(chain.store, [other.public_pem])
    assert not stranger.is_authentic(row)
    with pytest.raises(Refused):
        stranger.signed(row)
