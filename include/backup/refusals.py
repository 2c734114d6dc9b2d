"""Proving that a restore can fail: three damaged variants of a restore point must be refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from random import SystemRandom

from include.backup.source import Source
from include.encryption.crypto import Readable, Refused, decrypting
from include.encryption.recipients import OpeningKey, new_pair, opening_key_from_pem
from include.encryption.stream import PIECE

WRONG_KEY_BITS = 3072


@dataclass(frozen=True)
class Refusal:
    """One variant and what became of it.

    Attributes:
        variant: ``flipped_byte``, ``truncated`` or ``wrong_key``.
        refused: whether it was, as it must be.
    """

    variant: str
    refused: bool


def prove_refusals(source: Source, now: datetime) -> list[Refusal]:
    """Open a copy with one flipped byte, a truncated one, and one with a key of nobody.

    The damage is at random places and done on the way from the store to the decryptor; nothing is
    written. Reading stops at the first refused frame.
    """
    size = source.manifest.dump.size
    chance = SystemRandom()
    stranger, _ = new_pair("stranger", now, bits=WRONG_KEY_BITS)
    wrong = opening_key_from_pem(stranger, "the drill's wrong key")
    return [
        Refusal("flipped_byte", _refused(source, source.key, flip=chance.randrange(size))),
        Refusal("truncated", _refused(source, source.key, cut=chance.randrange(size))),
        Refusal("wrong_key", _refused(source, wrong)),
    ]


def _refused(
    source: Source, key: OpeningKey, *, flip: int | None = None, cut: int | None = None
) -> bool:
    name = source.manifest.dump.key
    try:
        with _damaged(source, flip, cut) as damaged:
            message = decrypting(damaged, key, source.manifest.encryption.context, name)
            while message.read(PIECE):
                pass
    except Refused:
        return True
    return False


@contextmanager
def _damaged(source: Source, flip: int | None, cut: int | None) -> Iterator[Readable]:
    dump = source.manifest.dump
    with source.store.open_reader(dump.key, version_id=source.version_id) as reader:
        yield _Damaged(reader, flip, cut)


class _Damaged:
    def __init__(self, reader: Readable, flip: int | None, cut: int | None) -> None:
        self._reader, self._flip, self._cut, self._position = reader, flip, cut, 0

    def read(self, size: int = -1) -> bytes:
        if self._cut is not None:
            left = self._cut - self._position
            size = left if size < 0 else min(size, left)
        data = self._reader.read(size) if size else b""
        start, self._position = self._position, self._position + len(data)
        if self._flip is not None and start <= self._flip < self._position:
            place = self._flip - start
            data = data[:place] + bytes([data[place] ^ 0x01]) + data[place + 1 :]
        return data
