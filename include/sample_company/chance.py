"""Chance without state: every random figure is a function of the seed, a salt and a row's number.

So a row comes out the same in whatever chunk it is made, and one table can ask what another says.
"""

from __future__ import annotations

from math import gcd
from zlib import crc32

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

BLOCK = 1000
_UNITS = np.array([unit for unit in range(BLOCK) if gcd(unit, BLOCK) == 1], np.int64)
_INVERSES = np.array([pow(int(unit), -1, BLOCK) for unit in _UNITS], np.int64)
CLEAN = 255


class Chance:
    """The dice of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def bits(self, rows: Ints, salt: str) -> Bits:
        """64 independent random bits for each row: SplitMix64 of the row's number."""
        start = (self.seed * 0x9E3779B97F4A7C15 + crc32(salt.encode()) * 0xD1342543DE82EF95) % 2**64
        x = rows.astype(np.uint64)
        x *= np.uint64(0x9E3779B97F4A7C15)
        x += np.uint64(start)
        x ^= x >> np.uint64(30)
        x *= np.uint64(0xBF58476D1CE4E5B9)
        x ^= x >> np.uint64(27)
        x *= np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
        return x

    def below(self, rows: Ints, limit: int, salt: str) -> Ints:
        """A number from 0 to ``limit - 1`` for each row."""
        return pick(self.bits(rows, salt), limit)

    def unit(self, rows: Ints, salt: str) -> npt.NDArray[np.float64]:
        """A number in [0, 1) for each row."""
        return fraction(self.bits(rows, salt))


def pick(bits: Bits, limit: int, shift: int = 0) -> Ints:
    """A number below ``limit`` (at most 2^16) from 24 of the bits, those from ``shift`` on."""
    part = (bits >> np.uint64(shift)) & np.uint64(0xFFFFFF)
    return ((part * np.uint64(limit)) >> np.uint64(24)).astype(np.int64)


def fraction(bits: Bits) -> npt.NDArray[np.float64]:
    """A number in [0, 1) from the upper 53 bits."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


class Plan:
    """Which rows are planted with what: an exact number in each thousand, scattered by the seed.

    Each row has at most one kind, so that a planted row breaks its own rule and no other.

    Args:
        chance: the dice.
        salt: names the table.
        per_thousand: kinds and how many rows of a thousand have each.
    """

    def __init__(self, chance: Chance, salt: str, per_thousand: dict[str, int]) -> None:
        self._chance = chance
        self._salt = salt
        self.codes = {kind: code for code, kind in enumerate(per_thousand)}
        self._first: dict[str, int] = {}
        self._table = np.full(BLOCK, CLEAN, np.uint8)
        at = 0
        for kind, count in per_thousand.items():
            self._first[kind] = at
            self._table[at : at + count] = self.codes[kind]
            at += count
        # Half of the slots stay clean, so that each planted row has a clean partner.
        if at > BLOCK // 2:
            raise ValueError(f"more than half of the rows of {salt} would be planted")

    def kinds(self, rows: Ints) -> npt.NDArray[np.uint8]:
        """The code of each row's kind (rows count from 1); row 1 is always clean."""
        found = self._table[self._slots(rows)]
        found[rows == 1] = CLEAN
        return found

    def code(self, kind: str) -> int:
        """The code that ``kinds`` gives for a kind; one that no row has if it is not planted."""
        return self.codes.get(kind, CLEAN - 1)

    def partners(self, rows: Ints) -> Ints:
        """For each planted row a clean row of the same thousand, its own."""
        block, _ = np.divmod(rows - 1, BLOCK)
        units, shift = self._shuffle(block)
        place = (_INVERSES[units] * (self._slots(rows) + BLOCK // 2 - shift)) % BLOCK
        partner: Ints = block * BLOCK + place + 1
        return partner

    def _slots(self, rows: Ints) -> Ints:
        block, place = np.divmod(rows - 1, BLOCK)
        units, shift = self._shuffle(block)
        slots: Ints = (_UNITS[units] * place + shift) % BLOCK
        return slots

    def _shuffle(self, block: Ints) -> tuple[Ints, Ints]:
        bits = self._chance.bits(block, self._salt)
        return pick(bits, len(_UNITS)), pick(bits, BLOCK, 24)


def coprime_step(modulus: int, wish: int) -> int:
    """The least number from ``wish`` on that shares no factor with ``modulus``."""
    while gcd(wish, modulus) != 1:
        wish += 1
    return wish
