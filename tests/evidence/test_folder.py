"""Folders of bundles: the signature that a seal has yet to put, and every other file."""

from __future__ import annotations

from include.evidence import ledger
from include.evidence.folder import DiskFolder, StoreFolder
from include.evidence.names import SIGNATURE
from tests.evidence.support import Evidence


def test_folder_has_the_pending_signature_until_the_store_has_one(chain: Evidence) -> None:
    """Each other file is the store's, and so is the signature once it is there."""
    row = ledger.rows(chain.conn)[0]
    path = chain.root / row.bundle
    files = {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }
    stored = StoreFolder(chain.store, row.bundle, signature=b"pending")
    assert not stored.lacks_signature
    assert stored.names() == DiskFolder(path).names() == set(files)
    assert {name: stored.read(name) for name in files} == files
    (path / SIGNATURE).unlink()
    pending = StoreFolder(chain.store, row.bundle, signature=b"pending")
    assert pending.lacks_signature
    assert pending.names() == set(files)
    assert {name: pending.read(name) for name in files} == {**files, SIGNATURE: b"pending"}
    unsigned = StoreFolder(chain.store, row.bundle)
    assert not unsigned.lacks_signature
    assert unsigned.names() == set(files) - {SIGNATURE}
