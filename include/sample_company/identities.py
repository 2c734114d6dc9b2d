"""Compute names, phone numbers, ID numbers and addresses of customers from customer numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from include.sample_company.chance import Ints, Mask, coprime_step, pick
from include.sample_company.columns import (
    Part,
    Strings,
    characters,
    choose,
    dates,
    digits,
    put,
    strings,
)
from include.sample_company.pools import CANARY_PREFIX, MOBILE_PREFIXES
from include.sample_company.world import World

_NUMBERS = np.array([b"%d" % n for n in range(1000)], "S3")
ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
ID_CHECKS = "10X98765432"
_CHECKS = np.array([ord(c) for c in ID_CHECKS], np.uint8)
_FIRST_BIRTH = int(np.datetime64("1950-01-02").astype(int))
CANARY_SURNAME, CANARY_STREET = "金", "金丝雀路"
CANARY_BIRTH = b"19491001"  # earlier than every other birth date
_SEQUENCES = 998


@dataclass
class People:
    """The names and phone numbers of customers. Each attribute has one element per customer.

    Attributes:
        surname: surnames.
        first: first characters of the given names; empty for a given name of one character.
        second: last characters of the given names.
        pinyin: romanised surnames.
        phone: phone numbers.
    """

    surname: Strings
    first: Strings
    second: Strings
    pinyin: Strings
    phone: Strings

    @property
    def name(self) -> tuple[Strings, Strings, Strings]:
        """The surname, and the first and second character of the given name, of each customer."""
        return self.surname, self.first, self.second


def originals(world: World, ids: Ints) -> Ints:
    """Return for each customer the number from which name, phone and ID number are computed.

    This is the customer's own number. For a deliberate duplicate of another customer, it is the
    number of the other customer.
    """
    duplicates = np.flatnonzero(
        world.variants(ids) == world.customer_plan.code("duplicate_customer")
    )
    if not duplicates.size:
        return ids
    owners = ids.copy()
    owners[duplicates] = world.customer_plan.partners(ids[duplicates])
    return owners


def people(world: World, ids: Ints) -> People:
    """Return valid names and phone numbers of customers.

    Two customers have the same phone number only if one is a deliberate duplicate of the other.
    """
    ids = originals(world, ids)
    pools = world.pools
    bits = world.chance.bits(ids, "name")
    surname = pick(bits, len(pools.surnames))
    columns = People(
        surname=pools.surnames[surname],
        first=pools.firsts[pick(bits, len(pools.firsts), 20)],
        second=pools.seconds[pick(bits, len(pools.seconds), 40)],
        pinyin=pools.pinyin[surname],
        phone=_phones(world, ids),
    )
    for canary in world.canaries[np.isin(world.canaries, ids)]:
        is_canary = ids == canary
        columns.surname = put(columns.surname, is_canary, canary_name(world, canary).encode())
        columns.first = put(columns.first, is_canary, b"")
        columns.second = put(columns.second, is_canary, b"")
        columns.phone = put(columns.phone, is_canary, canary_phone(world, canary).encode())
    return columns


def canary_name(world: World, canary: int) -> str:
    """Return the unique name of a canary customer.

    Tests search for this name to find out whether customer data has leaked.

    Args:
        world: settings of the sample database.
        canary: number of the canary customer.
    """
    return f"{CANARY_SURNAME}丝雀{world.token(canary)}"


def canary_phone(world: World, canary: int) -> str:
    """Return the unique phone number of a canary customer.

    Tests search for this number to find out whether customer data has leaked. It consists of a
    prefix that is reserved for canary customers, the digits 77, and six digits computed from
    `World.token`.

    Args:
        world: settings of the sample database.
        canary: number of the canary customer.
    """
    return f"{CANARY_PREFIX.decode()}77{int(world.token(canary), 16) % 1_000_000:06d}"


def canary_email(world: World, canary: int) -> str:
    """Return the unique e-mail address of a canary customer.

    Tests search for this address to find out whether customer data has leaked.

    Args:
        world: settings of the sample database.
        canary: number of the canary customer.
    """
    return f"canary-{world.token(canary)}@example.com"


def canary_street(world: World, canary: int) -> str:
    """Return the unique street of a canary customer.

    Tests search for this street to find out whether customer data has leaked.

    Args:
        world: settings of the sample database.
        canary: number of the canary customer.
    """
    return f"{CANARY_STREET}{world.token(canary)}号"


def _phones(world: World, ids: Ints) -> Strings:
    prefixes = len(MOBILE_PREFIXES)
    modulus = prefixes * 10**8
    step = coprime_step(modulus, 2_654_435_761 + world.seed % 1_000_003)
    number = (ids * step + world.seed) % modulus
    prefix = number // 10**8
    text = np.empty((len(ids), 11), np.uint8)
    text[:, :3] = characters(choose(MOBILE_PREFIXES, prefix))
    text[:, 3:] = characters(digits(number - prefix * 10**8, 8))
    return strings(text)


def id_numbers(world: World, ids: Ints) -> tuple[Strings, Strings]:
    """Return valid resident ID numbers of customers, and the birth dates that the numbers contain.

    Two customers have the same ID number only if one is a deliberate duplicate of the other. About
    1 in 80 ID numbers ends in a lower-case x. An ID number begins with the code of an
    administrative division. This code was in force when the customer was born: adults were born
    before the first code was retired, and the code of a minor is still in force.
    """
    ids = originals(world, ids)
    minor = _minors(world, ids)
    latest = min(world.today - 16 * 366, int(world.pools.first_retired.astype(int)))
    codes = np.where(minor, world.pools.active, len(world.pools.codes))
    number = np.where(
        minor,
        _scattered(world, ids, world.pools.active * 3000 * _SEQUENCES),
        _scattered(world, ids, len(world.pools.codes) * (latest - _FIRST_BIRTH) * _SEQUENCES),
    )
    rest, sequence = np.divmod(number, _SEQUENCES)
    day, division = np.divmod(rest, codes)
    # A minor is between 3 and 12 years old.
    birth = dates(np.where(minor, world.today - 3 * 366 - day, _FIRST_BIRTH + day))
    written = characters(birth)
    text = np.empty((len(ids), 18), np.uint8)
    text[:, :6] = characters(world.pools.codes[division])
    text[:, 6:10] = written[:, :4]
    text[:, 10:12] = written[:, 5:7]
    text[:, 12:14] = written[:, 8:]
    text[:, 14:17] = characters(digits(sequence + 1, 3))
    for index in np.flatnonzero(np.isin(ids, world.canaries)):
        text[index, 6:14] = np.frombuffer(CANARY_BIRTH, np.uint8)
    check = check_characters(text[:, :17])
    lower = (check == ord("X")) & (world.chance.below(ids, 8, "lower x") == 0)
    text[:, 17] = np.where(lower, ord("x"), check)
    return strings(text), put(birth, np.isin(ids, world.canaries), b"1949-10-01")


def check_characters(
    first_17: np.ndarray[tuple[int, int], np.dtype[np.uint8]],
) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Return the check characters of ID numbers (GB 11643-1999: ISO 7064 MOD 11-2).

    Args:
        first_17: character codes of the first 17 digits, one row per ID number.
    """
    total = np.zeros(len(first_17), np.int32)
    for index, weight in enumerate(ID_WEIGHTS):
        total += (first_17[:, index].astype(np.int32) - ord("0")) * weight
    return _CHECKS[total % 11]


def _scattered(world: World, ids: Ints, modulus: int) -> Ints:
    step = coprime_step(modulus, 1_640_531_527 + world.seed % 999_983)
    return (ids * step + world.seed) % modulus


def _minors(world: World, ids: Ints) -> Mask:
    plan = world.customer_plan
    return np.isin(
        world.variants(ids), [plan.code("minor"), plan.code("minor_without_guardian_consent")]
    )


@dataclass
class Places:
    """Addresses as columns. Each column has one element per address.

    Attributes:
        division: index of each address's administrative division in ``Pools.codes``.
        street: street of each address.
        house: columns that are concatenated to the house number of each address.
        unit: columns that are concatenated to the unit of each address.
    """

    division: Ints
    street: Strings
    house: Sequence[Part]
    unit: Sequence[Part]

    @property
    def line(self) -> list[Part]:
        """The columns that are concatenated to the address line: street, house number and unit."""
        return [self.street, *self.house, *self.unit]


def places(world: World, addresses: Ints) -> Places:
    """Return the addresses with the given address numbers.

    Customer number c has the address number 2c - 1. Some customers also have the address number 2c.

    Args:
        world: settings of the sample database.
        addresses: address numbers.
    """
    bits = world.chance.bits(addresses, "address")
    more = world.chance.bits(addresses, "unit")
    house: list[Part] = [
        _NUMBERS[pick(bits, 380, 40) + 1], "号".encode(),
        _NUMBERS[pick(more, 28) + 1], "号楼".encode(),
    ]  # fmt: skip
    unit: list[Part] = [
        _NUMBERS[pick(more, 4, 16) + 1], "单元".encode(),
        _NUMBERS[pick(more, 9, 24) + 1], b"0", _NUMBERS[pick(more, 4, 36) + 1], "室".encode(),
    ]  # fmt: skip
    street = world.pools.streets[pick(bits, len(world.pools.streets), 20)]
    first = world.canaries * 2 - 1
    if np.isin(addresses, first).any():
        for canary in world.canaries:
            is_canary = addresses == canary * 2 - 1
            street = put(street, is_canary, canary_street(world, canary).encode())
            house = [np.where(is_canary, b"", part).astype("S") for part in house]
    return Places(pick(bits, world.pools.active), street, house, unit)


def has_second_address(world: World, ids: Ints) -> Mask:
    """Return for each customer whether the customer has a second address."""
    return world.chance.below(ids, 1000, "second address") < world.rates.second_address
