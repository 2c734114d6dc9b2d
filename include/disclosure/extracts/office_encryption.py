"""Encrypt a workbook with a password: AES-256 and SHA-512 of [MS-OFFCRYPTO] 2.3.4.10.

The key of the content has 128 random bits, because msoffcrypto draws 16 bytes and fills the rest
with a constant.
"""

from __future__ import annotations

import io
import struct
from typing import IO

from msoffcrypto.format.ooxml import OOXMLFile

from include.disclosure.extracts.output import EncryptedOutput
from include.disclosure.extracts.reading import Heartbeat

_PIECE = 1024 * 1024  # bytes written at a time
# Of a compound file, [MS-CFB] 2.1, 2.2 and 2.5
_SECTOR = 512  # bytes
_IN_HEADER = 109  # entries for FAT sectors that the header holds
_PER_SECTOR = _SECTOR // 4 - 1  # entries of a DIFAT sector, which ends with a pointer
_END_OF_CHAIN, _FREE = 0xFFFFFFFE, 0xFFFFFFFF
_COUNTS = struct.Struct("<I20xII")  # at offset 44: FAT sectors, first DIFAT sector, DIFAT sectors


def encrypt_workbook(
    clear: io.BytesIO, password: str, output: EncryptedOutput, heartbeat: Heartbeat
) -> None:
    """Write the encrypted content of a workbook.

    The memory of this function is up to six times the size of the workbook.

    Args:
        clear: content of the workbook (.xlsx).
        password: password, which Office programs ask for.
        output: file to write.
        heartbeat: reports progress.
    """
    encrypted = io.BytesIO()
    OOXMLFile(clear).encrypt(password, encrypted)
    complete_difat(encrypted)
    encrypted.seek(0)
    while piece := encrypted.read(_PIECE):
        output.write(piece)
        output.raise_error()
        heartbeat.beat()


def complete_difat(file: IO[bytes]) -> None:
    """Correct the list of FAT sectors in a compound file that msoffcrypto wrote.

    In files of more than 7 MB, msoffcrypto writes one entry too many and does not end the chain.
    Programs that follow [MS-CFB] 2.5 strictly could reject such a file.
    """
    file.seek(44)
    fat_sectors, first, count = _COUNTS.unpack(file.read(_COUNTS.size))
    if not count:
        return
    file.seek(76)
    (first_fat,) = struct.unpack("<I", file.read(4))
    entries = range(first_fat + _IN_HEADER, first_fat + fat_sectors)  # sectors are consecutive
    for number in range(count):
        part = list(entries[number * _PER_SECTOR : (number + 1) * _PER_SECTOR])
        part += [_FREE] * (_PER_SECTOR - len(part))
        part.append(first + number + 1 if number + 1 < count else _END_OF_CHAIN)
        file.seek(_SECTOR * (1 + first + number))
        file.write(struct.pack(f"<{len(part)}I", *part))
