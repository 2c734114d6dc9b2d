"""Test that each damaged variant of a restore point differs from the stored object as intended."""

from __future__ import annotations

import pytest

from include.backup.refusals import prove_refusals
from include.encryption.crypto import Readable
from include.encryption.stream import PIECE
from tests.backup.support import Taken
from tests.support.holders import NOW, Holder


def test_damaged_variants_of_dump_have_one_changed_bit_or_are_truncated(
    taken: Taken, operations: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One variant has a flipped bit, one is truncated, and the wrong key gets the intact object."""
    variants: list[bytes] = []

    def record(damaged: Readable, *_key: object) -> Readable:
        pieces = iter(lambda: damaged.read(PIECE), b"")
        variants.append(b"".join(pieces))
        return damaged

    monkeypatch.setattr("include.backup.refusals.decrypting", record)
    dump = taken.manifest.dump
    with taken.store.open_reader(dump.key, version_id=dump.version_id) as reader:
        stored = reader.read(-1)
    prove_refusals(taken.source(operations.opening), NOW)
    flipped, truncated, intact = variants
    assert len(flipped) == len(stored)
    assert (int.from_bytes(flipped) ^ int.from_bytes(stored)).bit_count() == 1
    assert stored.startswith(truncated)
    assert len(truncated) < len(stored)
    assert intact == stored
