"""Count and hash the bytes of an encrypted file while they are written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from include.disclosure.extracts.model import ByteSink


class EncryptedOutput:
    """A write-only binary file that passes its bytes to a stream.

    After an error of the stream, the file discards all further bytes, and the caller gets the error
    from `raise_error`. Libraries that write archives cannot handle an error in ``write``.

    Attributes:
        size: number of bytes that were passed to the stream.
    """

    def __init__(self, out: ByteSink) -> None:
        self.size = 0
        self._out = out
        self._digest = hashlib.sha256()
        self._error: BaseException | None = None
        self._is_discarding = False

    @property
    def sha256(self) -> str:
        """The SHA-256 (hex) of the bytes that were passed to the stream."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> int:
        """Pass all bytes to the stream, and return their number."""
        if not self._is_discarding:
            try:
                self._out.write(data)
            except BaseException as error:  # noqa: BLE001 - raised again in `raise_error`
                self._error, self._is_discarding = error, True
            else:
                self._digest.update(data)
                self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing, because no bytes are kept."""

    def raise_error(self) -> None:
        """Raise the error of the stream, if it had one."""
        if self._error is not None:
            raise self._error

    @contextmanager
    def discarding_after_error(self) -> Iterator[None]:
        """Discard all further bytes after an error in the ``with`` block.

        Otherwise, the library would complete the archive when it closes it.
        """
        try:
            yield
        except BaseException:
            self._is_discarding = True
            raise
