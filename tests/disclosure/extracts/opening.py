"""Open encrypted extracts with the programs that their recipients use."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msoffcrypto
import pytest
from openpyxl import load_workbook

from include.disclosure.extracts.extract import ExtractForm
from tests.disclosure.extracts.extract_fixtures import CSV_NAME, PASSWORD, identity

UNO = Path(__file__).with_name("libreoffice_program.py")
SYSTEM_PYTHON = "/usr/bin/python3"  # Debian installs LibreOffice's module uno for this Python
# A field of RFC 4180, and the text after it
_FIELD = re.compile(r'(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n)')

CANNOT_OPEN = (
    subprocess.CalledProcessError,
    msoffcrypto.exceptions.FileFormatError,
    msoffcrypto.exceptions.InvalidKeyError,
)

Rows = list[tuple[str | None, ...]]


def installed(program: str, package: str) -> str:
    """Return the path of a program, or skip the test if the program is missing."""
    if (path := shutil.which(program)) is None:
        pytest.skip(f"needs {program}: apt-get install -y {package}")
    return path


def seven_zip() -> str:
    """Return the path of 7-Zip."""
    return installed("7z", "7zip")


def unzip(file: Path, password: str, name: str) -> bytes:
    """Return a file of a ZIP archive, extracted by 7-Zip.

    Raises:
        CalledProcessError: the password is wrong, or the archive is damaged.
    """
    command = [seven_zip(), "x", "-so", f"-p{password}", str(file), name]
    return subprocess.run(command, check=True, capture_output=True).stdout


def decrypt_age(file: Path, identity: str) -> bytes:
    """Return the content of an age file, decrypted by the program age.

    Raises:
        CalledProcessError: the identity is wrong, or the file is damaged.
    """
    key = file.with_suffix(".identity")
    key.write_text(identity)
    command = [installed("age", "age"), "--decrypt", "--identity", str(key), str(file)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def decrypt_office(file: Path, password: str) -> io.BytesIO:
    """Return the unencrypted content of a workbook, after a check of its integrity."""
    with file.open("rb") as stream:
        office = msoffcrypto.OfficeFile(stream)
        office.load_key(password, verify_password=True)
        clear = io.BytesIO()
        office.decrypt(clear, verify_integrity=True)
    clear.seek(0)
    return clear


def open_extract(file: Path, form: ExtractForm) -> None:
    """Open an extract with its secret.

    Raises:
        Exception: one of `CANNOT_OPEN`, because the file is incomplete or damaged.
    """
    match form:
        case ExtractForm.ZIP:
            unzip(file, PASSWORD, CSV_NAME)
        case ExtractForm.AGE:
            decrypt_age(file, str(identity()))
        case ExtractForm.XLSX:
            decrypt_office(file, PASSWORD)


def open_sheet(file: Path, password: str) -> Any:
    """Return the sheet of an encrypted workbook."""
    return load_workbook(decrypt_office(file, password)).worksheets[0]


def convert_with_libreoffice(file: Path, password: str, folder: Path) -> str:
    """Return the CSV to which LibreOffice converts an encrypted workbook.

    Args:
        file: the workbook.
        password: its password.
        folder: empty folder for files of LibreOffice.

    Raises:
        CalledProcessError: LibreOffice could not open the workbook.
    """
    installed("soffice", "libreoffice-calc-nogui")
    has_uno = [SYSTEM_PYTHON, "-c", "import uno"]
    if subprocess.run(has_uno, check=False, capture_output=True).returncode:
        pytest.skip("needs LibreOffice's module uno: apt-get install -y python3-uno")
    target = folder / "converted.csv"
    command = [SYSTEM_PYTHON, str(UNO), str(file), password, str(target), str(folder / "profile")]
    environment = {**os.environ, "TMPDIR": str(folder)}  # LibreOffice leaves files there
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return target.read_text("utf-8-sig")


def parse_csv(text: str) -> Rows:
    """Return the rows of a CSV. An empty field without quotes is None, as in PostgreSQL."""
    rows: Rows = []
    fields: list[str | None] = []
    position = 0
    while position < len(text):
        match = _FIELD.match(text, position)
        assert match, f"not RFC 4180: {text[position : position + 40]!r}"
        quoted, plain, end = match.groups()
        fields.append(quoted.replace('""', '"') if quoted is not None else plain or None)
        position = match.end()
        if end != ",":
            rows.append(tuple(fields))
            fields = []
    assert not fields, "the last row is incomplete"
    return rows
