"""Streaming out of S3: goes on where it was after a dropped connection."""

from __future__ import annotations

import logging
import random
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from include.services.objectstore.base import StoreError
from include.services.objectstore.s3_errors import BODY_ERRORS, S3Errors, reason_and_action

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, GetObjectRequestTypeDef

log = logging.getLogger(__name__)

# What is lost when a connection drops is read again, so pieces are small.
_PIECE_BYTES = 1024 * 1024
_MAX_DROPS_WITHOUT_PROGRESS = 6
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 10.0
_random = random.SystemRandom()


class S3Reader:
    """Stream out of one version of one S3 object; see ``ObjectReader``.

    A broken body is asked for again from the current offset, bound to the version and ETag of the
    first answer, so that two versions never mix. Requests as such are retried by boto3.
    """

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        full_key: str,
        key: str,
        errors: S3Errors,
        version_id: str = "",
    ) -> None:
        self._client = client
        self._key = key
        self._errors = errors
        self._request: GetObjectRequestTypeDef = {"Bucket": bucket, "Key": full_key}
        if version_id:
            self._request["VersionId"] = version_id
        self._offset = 0
        self._drops = 0
        answer = self._ask()
        self._size = answer["ContentLength"]
        self._request["IfMatch"] = answer["ETag"]
        if answer.get("VersionId", "null") != "null":
            self._request["VersionId"] = answer["VersionId"]

    def read(self, size: int = -1) -> bytes:
        """Return ``size`` bytes, fewer only at the end; all that is left for -1.

        Raises:
            StoreError: the connection kept dropping, or the object was replaced meanwhile.
        """
        left = self._size - self._offset
        wanted = left if size < 0 else min(size, left)
        pieces = []
        while wanted:
            piece = self._read_piece(min(wanted, _PIECE_BYTES))
            pieces.append(piece)
            wanted -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Release the connection."""
        self._body.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read_piece(self, size: int) -> bytes:
        while True:
            try:
                piece: bytes = self._body.read(size)
            except BODY_ERRORS as error:
                self._resume(error)
                continue
            if piece:
                self._offset += len(piece)
                self._drops = 0
                return piece
            self._resume(ConnectionError("the body ended early"))

    def _resume(self, cause: Exception) -> None:
        self._drops += 1
        reason, _ = reason_and_action(cause)
        if self._drops > _MAX_DROPS_WITHOUT_PROGRESS:
            raise self._errors.translated(cause, "read", self._key) from cause
        log.info("Reading %r goes on at byte %d: %s.", self._key, self._offset, reason)
        self._body.close()
        longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** (self._drops - 1))
        time.sleep(_random.uniform(longest / 2, longest))
        if self._offset:
            self._request["Range"] = f"bytes={self._offset}-"
        answer = self._ask()
        if self._offset and not answer.get("ContentRange", "").startswith(f"bytes {self._offset}-"):
            raise StoreError(
                f"Cannot read {self._key!r} in {self._errors.store}: "
                "the service ignores byte ranges, so a broken transfer cannot go on."
            )

    def _ask(self) -> GetObjectOutputTypeDef:
        with self._errors.naming("read", self._key):
            answer = self._client.get_object(**self._request)
        self._body = answer["Body"]
        return answer
