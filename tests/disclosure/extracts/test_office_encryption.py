"""Tests that encrypted workbooks of every size are valid compound files ([MS-CFB])."""

from __future__ import annotations

import io
import random
import struct
import zipfile

import msoffcrypto
import olefile
import pytest
from openpyxl import Workbook

from include.disclosure.extracts.office_encryption import encrypt_workbook
from include.disclosure.extracts.output import EncryptedOutput
from include.disclosure.extracts.reading import Heartbeat

PASSWORD = "K7QF"
_END_OF_CHAIN, _FREE, _FAT, _DIFAT = 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD, 0xFFFFFFFC


def _workbook(size: int) -> bytes:
    """Return a workbook file that contains ``size`` additional random bytes."""
    buffer = io.BytesIO()
    Workbook().save(buffer)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("filling", random.Random(size).randbytes(size))
    return buffer.getvalue()


def _sectors(content: bytes, number: int) -> tuple[int, ...]:
    return struct.unpack_from("<128I", content, 512 * (number + 1))


def _fat_of(content: bytes) -> list[int]:
    """Return the sector chains of a compound file, as [MS-CFB] 2.3 and 2.5 define them."""
    fat_sectors, difat, difat_sectors = struct.unpack_from("<I20xII", content, 44)
    numbers = list(struct.unpack_from("<109I", content, 76))
    chain = []
    while difat != _END_OF_CHAIN:
        chain.append(difat)
        *entries, difat = _sectors(content, difat)
        numbers += entries
    assert len(chain) == difat_sectors
    assert numbers[fat_sectors:] == [_FREE] * (len(numbers) - fat_sectors)
    fat = [entry for number in numbers[:fat_sectors] for entry in _sectors(content, number)]
    assert all(fat[number] == _FAT for number in numbers[:fat_sectors])
    assert all(fat[number] == _DIFAT for number in chain)
    return fat


# The list of FAT sectors has 109 entries in the header, and 127 in each further sector.
@pytest.mark.parametrize("size", [0, 1_000_000, 7_000_000, 7_200_000, 15_300_000, 15_600_000])
def test_encrypted_workbook_is_a_valid_compound_file(size: int) -> None:
    clear, out = _workbook(size), io.BytesIO()
    output = EncryptedOutput(out)
    encrypt_workbook(io.BytesIO(clear), PASSWORD, output, Heartbeat(lambda: None))
    content = out.getvalue()
    assert output.size == len(content)

    fat = _fat_of(content)
    with olefile.OleFileIO(content) as compound:
        entry = compound.root.kids_dict["encryptedpackage"]
    sector, sectors = entry.isectStart, []
    while sector != _END_OF_CHAIN:
        sectors.append(sector)
        sector = fat[sector]
    assert len(sectors) == -(-entry.size // 512)
    assert len(set(sectors)) == len(sectors)

    office, decrypted = msoffcrypto.OfficeFile(io.BytesIO(content)), io.BytesIO()
    office.load_key(PASSWORD)
    office.decrypt(decrypted, verify_integrity=True)
    assert decrypted.getvalue() == clear
