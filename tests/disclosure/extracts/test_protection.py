"""Tests that an extract opens only with its secret, and that no plaintext is left behind."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from zipfile import BadZipFile

import pyrage
import pytest
from msoffcrypto.exceptions import InvalidKeyError
from openpyxl import load_workbook

from include.disclosure.extracts.extract import ExtractForm, write_extract
from include.service_container import ROOT
from include.services.errors import UsageError
from tests.disclosure.extracts.extract_fixtures import (
    CSV_NAME,
    MARKS,
    PASSWORD,
    FailingSink,
    FileWriter,
    secret_of,
    snapshot,
    source,
)
from tests.disclosure.extracts.opening import (
    CANNOT_OPEN,
    decrypt_age,
    decrypt_office,
    open_extract,
    seven_zip,
    unzip,
)

CANARY = "canary-4f1c"
# Random texts, so that most of them is in the file long before the last row was read
LONG = source(f"SELECT '{CANARY}' || md5(n::text) AS text FROM generate_series(1, 60000) n", "text")


@pytest.mark.parametrize("form", ExtractForm)
def test_file_contains_no_plaintext(database: str, tmp_path: Path, form: ExtractForm) -> None:
    with snapshot(database) as connection:
        _written, file = FileWriter(tmp_path).write(connection, LONG, form, max_rows=60000)
    content = file.read_bytes()
    for text in (CANARY, MARKS.recipient, "投诉处理"):
        for encoding in ("utf-8", "utf-16-le"):
            assert text.encode(encoding) not in content


def test_zip_does_not_open_without_or_with_wrong_password(database: str, tmp_path: Path) -> None:
    with snapshot(database) as connection:
        _written, file = FileWriter(tmp_path).write(
            connection, source("SELECT 1 AS a", "a"), ExtractForm.ZIP
        )
    assert unzip(file, PASSWORD, CSV_NAME).endswith(b"a\r\n1\r\n")
    listing = subprocess.run(
        [seven_zip(), "l", "-slt", str(file)], check=True, capture_output=True, text=True
    ).stdout
    assert listing.count("Method = AES-256 Deflate") == listing.count("Encrypted = +") == 2
    for wrong in ("", "wrong", PASSWORD.lower(), PASSWORD[:-1]):
        for name in (CSV_NAME, "READ-ME.txt"):
            with pytest.raises(subprocess.CalledProcessError) as refused:
                unzip(file, wrong, name)
            assert not refused.value.stdout


def test_workbook_does_not_open_without_or_with_wrong_password(
    database: str, tmp_path: Path
) -> None:
    with snapshot(database) as connection:
        _written, file = FileWriter(tmp_path).write(
            connection, source("SELECT 1 AS a", "a"), ExtractForm.XLSX
        )
    decrypt_office(file, PASSWORD)
    with pytest.raises(BadZipFile):
        load_workbook(file)
    for wrong in ("wrong", PASSWORD.lower(), PASSWORD[:-1]):
        with pytest.raises(InvalidKeyError):
            decrypt_office(file, wrong)


def test_age_file_does_not_open_with_another_key(database: str, tmp_path: Path) -> None:
    with snapshot(database) as connection:
        _written, file = FileWriter(tmp_path).write(
            connection, source("SELECT 1 AS a", "a"), ExtractForm.AGE
        )
    with pytest.raises(subprocess.CalledProcessError) as refused:
        decrypt_age(file, str(pyrage.x25519.Identity.generate()))
    assert not refused.value.stdout


@pytest.mark.parametrize("form", ExtractForm)
def test_changed_file_does_not_open(database: str, tmp_path: Path, form: ExtractForm) -> None:
    with snapshot(database) as connection:
        _written, file = FileWriter(tmp_path).write(
            connection, source("SELECT repeat('a', 9000) AS a", "a"), form
        )
    content = bytearray(file.read_bytes())
    content[content.find(b"extract") + 60 if form is ExtractForm.ZIP else len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(CANNOT_OPEN):
        open_extract(file, form)


@pytest.mark.parametrize("key", ["", "age1", "K7QF", "age1" + "q" * 58, "ssh-ed25519 AAAA"])
def test_invalid_public_key_is_refused(database: str, key: str) -> None:
    sink = FailingSink(0)
    with snapshot(database) as connection, pytest.raises(UsageError, match="not an age key"):
        write_extract(
            connection,
            source("SELECT 1 AS a", "a"),
            MARKS,
            ExtractForm.AGE,
            key,
            sink,
            max_rows=1,
        )


@pytest.mark.parametrize("form", ExtractForm)
@pytest.mark.parametrize("capacity", [0, 100, 1500, 3000])
def test_error_of_the_store_ends_the_extract(
    database: str,
    form: ExtractForm,
    capacity: int,
    recwarn: pytest.WarningsRecorder,
) -> None:
    gc.collect()  # objects that earlier tests left behind may warn when they are removed
    recwarn.clear()
    sink = FailingSink(capacity)
    with snapshot(database) as connection:
        with pytest.raises(OSError, match="the store is full"):
            write_extract(connection, LONG, MARKS, form, secret_of(form), sink, max_rows=60000)
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not [warning for warning in recwarn if issubclass(warning.category, ResourceWarning)]


def run_writer(
    conninfo: str, form: ExtractForm, folder: Path, ending: str
) -> subprocess.CompletedProcess[str]:
    """Write `LONG` in a separate process, and return its result.

    Args:
        conninfo: connection string of the database.
        form: form of the extract.
        folder: folder of the extract, and of all temporary files of the process.
        ending: ``complete``, or ``kill`` and ``error`` after the first rows were read.
    """
    temporary = folder / "tmp"
    temporary.mkdir()
    task = {"conninfo": conninfo, "form": form, "file": str(folder / "extract"), "ending": ending}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.disclosure.extracts.writer_program"],
        input=json.dumps(task),
        env={**os.environ, "TMPDIR": str(temporary)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("form", ExtractForm)
@pytest.mark.parametrize(("ending", "code"), [("complete", 0), ("error", 1)])
def test_process_writes_no_file_except_the_extract(
    database: str,
    tmp_path: Path,
    form: ExtractForm,
    ending: str,
    code: int,
) -> None:
    done = run_writer(database, form, tmp_path, ending)
    assert done.returncode == code, done.stderr
    assert json.loads(done.stdout) == [str(tmp_path / "extract")]
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.fault
@pytest.mark.parametrize("form", ExtractForm)
def test_killed_process_leaves_no_plaintext(
    database: str, tmp_path: Path, form: ExtractForm
) -> None:
    done = run_writer(database, form, tmp_path, "kill")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not list((tmp_path / "tmp").iterdir())
    assert CANARY.encode() not in (tmp_path / "extract").read_bytes()
    with pytest.raises(CANNOT_OPEN):
        open_extract(tmp_path / "extract", form)
