"""Write an extract for a program: a CSV file that is encrypted to an age key.

The format is described at https://age-encryption.org/v1. The command ``age -d -i KEY`` decrypts
the file.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyrage

from include.disclosure.extracts.model import require_at_most
from include.disclosure.extracts.output import EncryptedOutput
from include.disclosure.extracts.reading import BackgroundReader, CsvCopy, Heartbeat
from include.disclosure.extracts.statements import PreparedQuery
from include.services.errors import UsageError


def write_age(
    query: PreparedQuery, key: str, output: EncryptedOutput, max_rows: int, heartbeat: Heartbeat
) -> int:
    """Write the rows of a query as CSV, encrypted to an age key.

    Args:
        query: query of the rows.
        key: public key of the recipient, such as ``age1...``.
        output: file to write.
        max_rows: largest number of rows.
        heartbeat: reports progress.

    Returns:
        The number of rows.

    Raises:
        UsageError: the public key is invalid.
        TooManyRows: there are more rows than ``max_rows``.
    """
    recipient = _recipient(key)
    statement = query.copy_csv(max_rows + 1, is_guarded=False)
    copy = CsvCopy(query.connection, statement, has_crlf=False)
    with BackgroundReader(query.connection, copy.pieces(), heartbeat) as pieces:
        reader = _CsvReader(copy, iter(pieces), output, max_rows)
        try:
            pyrage.encrypt_io(reader, output, [recipient])
        except pyrage.EncryptError as error:
            raise (reader.error or error) from None  # pyrage replaces errors with its own
    return copy.rows


def _recipient(key: str) -> pyrage.x25519.Recipient:
    try:
        return pyrage.x25519.Recipient.from_str(key)
    except pyrage.RecipientError:
        raise UsageError(
            "The public key of the recipient is not an age key.",
            "Enter the line that begins with age1 and that age-keygen printed.",
        ) from None


class _CsvReader:
    """The input of pyrage: the pieces of the CSV.

    Attributes:
        error: error that ended the reading; None without an error.
    """

    def __init__(
        self, copy: CsvCopy, pieces: Iterator[bytes], output: EncryptedOutput, max_rows: int
    ) -> None:
        self.error: BaseException | None = None
        self._copy = copy
        self._pieces = pieces
        self._output = output
        self._max_rows = max_rows
        self._piece = b""
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        """Return at most ``size`` bytes, and no bytes at the end of the data.

        If there are too many rows, or after any other error, pyrage does not write the last block,
        without which the file cannot be decrypted.

        Raises:
            OSError: the reading failed. pyrage would retry after an InterruptedError, and so do all
                programs in Rust.
        """
        try:
            if self._position == len(self._piece):
                self._output.raise_error()
                self._piece, self._position = next(self._pieces, b""), 0
                if not self._piece:
                    require_at_most(self._copy.rows, self._max_rows)
        except BaseException as error:
            self.error = self.error or error
            raise OSError("the rows cannot be read") from error
        end = len(self._piece) if size < 0 else self._position + size
        data = self._piece[self._position : end]
        self._position += len(data)
        return data
