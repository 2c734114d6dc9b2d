"""Stateless random numbers: each number is calculated from the seed, a salt and a row number.

The salt states what the number is used for. The rows of a table are generated in blocks, but the
division into blocks does not change their values. The code that generates one table can also
compute the values of another table.
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
    """A generator of random numbers that depend only on a seed, a salt and a row number."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def bits(self, rows: Ints, salt: str) -> Bits:
        """Return 64 independent random bits for each row number, computed with SplitMix64.

        Args:
            rows: row numbers.
            salt: what the bits are used for. A different salt gives different bits.
        """
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
        """Return a random number from 0 to ``limit - 1`` for each row number.

        Args:
            rows: row numbers.
            limit: number of possible results.
            salt: what the numbers are used for. A different salt gives different numbers.
        """
        return pick(self.bits(rows, salt), limit)

    def unit(self, rows: Ints, salt: str) -> npt.NDArray[np.float64]:
        """Return a random number that is at least 0 and less than 1 for each row number.

        Args:
            rows: row numbers.
            salt: what the numbers are used for. A different salt gives different numbers.
        """
        return fraction(self.bits(rows, salt))


def pick(bits: Bits, limit: int, shift: int = 0) -> Ints:
    """Return numbers from 0 to ``limit - 1``, computed from 24 bits of each element of ``bits``.

    Args:
        bits: random bits.
        limit: number of possible results, at most 2^16.
        shift: position of the lowest of the 24 bits.
    """
    part = (bits >> np.uint64(shift)) & np.uint64(0xFFFFFF)
    return ((part * np.uint64(limit)) >> np.uint64(24)).astype(np.int64)


def fraction(bits: Bits) -> npt.NDArray[np.float64]:
    """Return a number from 0 to 1 for each element of ``bits``, computed from its upper 53 bits.

    The number 1 itself is never returned.
    """
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


class VariantPlan:
    """Chooses the rows of a table that get a deliberate variant, such as an invalid phone number.

    Among each thousand consecutive rows, each variant gets exactly the number of rows that
    ``per_thousand`` says. The seed decides which rows these are. A row has at most one variant, so
    that it breaks at most one rule of the answer sheet.

    Args:
        chance: generator of the random numbers.
        salt: name of the table.
        per_thousand: name of the variant -> number of rows per thousand that get it.
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
        # Half of the slots stay clean, so that each planted row has its own clean partner.
        if at > BLOCK // 2:
            raise ValueError(f"more than half of the rows of {salt} would be planted")

    def variants(self, rows: Ints) -> npt.NDArray[np.uint8]:
        """Return the code of each row's variant; ``CLEAN`` for a row without a variant.

        A variant is a deliberate change of a row, such as an invalid phone number; see the class.

        Args:
            rows: row numbers from 1. Row 1 never has a variant.
        """
        variants = self._table[self._slots(rows)]
        variants[rows == 1] = CLEAN
        return variants

    def code(self, kind: str) -> int:
        """Return the code with which `variants` represents a variant.

        Args:
            kind: name of the variant. If the plan has no such variant, the result is a code that no
                row has.
        """
        return self.codes.get(kind, CLEAN - 1)

    def partners(self, rows: Ints) -> Ints:
        """Return, for each row with a variant, another row that has no variant.

        For example, the row of a duplicate customer is a copy of the row that this function returns
        for it. Both rows are among the same thousand rows. Different rows get different results.

        Args:
            rows: numbers of the rows that have a variant.
        """
        block, _ = np.divmod(rows - 1, BLOCK)
        units, shift = self._shuffle(block)
        offset = (_INVERSES[units] * (self._slots(rows) + BLOCK // 2 - shift)) % BLOCK
        partner: Ints = block * BLOCK + offset + 1
        return partner

    def _slots(self, rows: Ints) -> Ints:
        block, offset = np.divmod(rows - 1, BLOCK)
        units, shift = self._shuffle(block)
        slots: Ints = (_UNITS[units] * offset + shift) % BLOCK
        return slots

    def _shuffle(self, block: Ints) -> tuple[Ints, Ints]:
        bits = self._chance.bits(block, self._salt)
        return pick(bits, len(_UNITS)), pick(bits, BLOCK, 24)


def coprime_step(modulus: int, start: int) -> int:
    """Return the smallest number that is at least ``start`` and coprime to ``modulus``."""
    while gcd(start, modulus) != 1:
        start += 1
    return start
