"""Write an extract for a person: a CSV file in a ZIP archive with a password.

The archive has the format WinZip AE-2 with AES-256. Windows' own ZIP folders cannot open it; 7-Zip,
WinZip, WinRAR and Keka on macOS can.
"""

from __future__ import annotations

import codecs
from datetime import datetime

import pyzipper

from include.disclosure.extracts.marking import in_both_languages, marking
from include.disclosure.extracts.model import Marks, require_at_most
from include.disclosure.extracts.output import EncryptedOutput
from include.disclosure.extracts.reading import BackgroundReader, CsvCopy, Heartbeat
from include.disclosure.extracts.statements import PreparedQuery
from include.messages import _

README = "READ-ME.txt"
# Measured on courier data: a seventh of the size of a stored file, in 1.2 times its CPU time.
_LEVEL = 1


def write_archive(
    query: PreparedQuery,
    marks: Marks,
    moment: datetime,
    password: str,
    output: EncryptedOutput,
    max_rows: int,
    heartbeat: Heartbeat,
) -> int:
    """Write the rows of a query as CSV in an encrypted ZIP archive.

    The archive also contains the file `README` with the marks. The names and sizes of files are not
    encrypted in a ZIP archive.

    Args:
        query: query of the rows.
        marks: visible marking.
        moment: time of the rows, which becomes the time of the files.
        password: password of the archive.
        output: file to write.
        max_rows: largest number of rows.
        heartbeat: reports progress.

    Returns:
        The number of rows.

    Raises:
        TooManyRows: there are more rows than ``max_rows``.
    """
    statement = query.copy_csv(max_rows + 1, is_guarded=True)
    copy = CsvCopy(query.connection, statement, has_crlf=True)
    name = f"extract-{marks.request}.csv"
    with (
        pyzipper.AESZipFile(output, "w", encryption=pyzipper.WZ_AES) as archive,
        output.discarding_after_error(),
    ):
        archive.setpassword(password.encode())
        archive.writestr(_entry(README, marks, moment), _readme(marks, name))
        with (
            archive.open(_entry(name, marks, moment), "w", force_zip64=True) as file,
            output.discarding_after_error(),
        ):
            file.write(codecs.BOM_UTF8)  # otherwise Excel does not show Chinese
            with BackgroundReader(query.connection, copy.pieces(), heartbeat) as pieces:
                for piece in pieces:
                    file.write(piece)
                    output.raise_error()
            require_at_most(copy.rows, max_rows)
    return copy.rows


def _entry(name: str, marks: Marks, moment: datetime) -> pyzipper.zipfile_aes.AESZipInfo:
    local = moment.astimezone(marks.zone)
    entry = pyzipper.zipfile_aes.AESZipInfo(name, local.timetuple()[:6])
    entry.compress_type, entry._compresslevel = pyzipper.ZIP_DEFLATED, _LEVEL
    entry.external_attr = 0o600 << 16
    return entry


def _readme(marks: Marks, name: str) -> bytes:
    messages = [
        *marking(marks),
        _("The rows are in {file}, a CSV file in UTF-8. Times have a UTC offset.", file=name),
        _(
            "An apostrophe was put before each text that begins with an apostrophe, a sign such as "
            "= + - @, a tab or a line break. So no program runs the text as a formula."
        ),
    ]
    blocks = in_both_languages(messages, marks.zone)
    text = "\n\n".join("\n".join(lines) for lines in blocks)
    return codecs.BOM_UTF8 + f"{text}\n".replace("\n", "\r\n").encode()
