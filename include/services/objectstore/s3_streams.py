"""Read objects from S3 and write objects to S3 as streams.

A writer sends large objects in parts, each with a SHA-256. A reader continues after a lost
connection.
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from include.services.objectstore.base import ObjectReader, ObjectWriter, StoredObject, StoreError
from include.services.objectstore.s3_answers import (
    BODY_ERRORS,
    Bucket,
    error_code,
    reason_and_action,
)

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, GetObjectRequestTypeDef


log = logging.getLogger(__name__)

# After a dropped connection the last piece is read again, so pieces are small.
_PIECE_BYTES = 1024 * 1024
_MAX_DROPS_WITHOUT_PROGRESS = 6
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 10.0
_random = random.SystemRandom()


class S3Reader(ObjectReader):
    """A stream that reads one version of one S3 object; see ``ObjectReader``.

    If the transfer breaks, the reader sends another request for the remaining bytes. This request
    names the version and ETag of the first response. Therefore, bytes of two versions are never
    mixed.
    """

    def __init__(self, bucket: Bucket, key: str, version_id: str = "") -> None:
        self._bucket, self._key = bucket, key
        self._request: GetObjectRequestTypeDef = {
            "Bucket": bucket.name,
            "Key": bucket.full_key(key),
        }
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
        """Return ``size`` bytes, or fewer at the end of the object.

        Args:
            size: number of bytes; -1 for all remaining bytes.

        Raises:
            StoreError: the connection was lost too often, or the object was replaced meanwhile.
        """
        left = self._size - self._offset
        missing = left if size < 0 else min(size, left)
        pieces = []
        while missing:
            piece = self._read_piece(min(missing, _PIECE_BYTES))
            pieces.append(piece)
            missing -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Close the connection to S3."""
        self._body.close()

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
            raise self._bucket.translated(cause, "read", self._key) from cause
        log.info("Reading %r continues at byte %d: %s.", self._key, self._offset, reason)
        self._body.close()
        longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** (self._drops - 1))
        time.sleep(_random.uniform(longest / 2, longest))
        if self._offset:
            self._request["Range"] = f"bytes={self._offset}-"
        answer = self._ask()
        if self._offset and not answer.get("ContentRange", "").startswith(f"bytes {self._offset}-"):
            raise StoreError(
                f"Cannot read {self._key!r} in {self._bucket.store}: "
                "the service ignores byte ranges, so a broken transfer cannot be resumed."
            )

    def _ask(self) -> GetObjectOutputTypeDef:
        with self._bucket.naming("read", self._key):
            answer = self._bucket.client.get_object(**self._request)
        self._body = answer["Body"]
        return answer


FIRST_PART_BYTES = 16 * 1024 * 1024
MAX_PARTS = 10_000
MAX_OBJECT_BYTES = 5 * 1024**4
# A part grows by this share of the bytes sent before it, so that MAX_PARTS reach MAX_OBJECT_BYTES
# while parts stay below 25 MiB for the first 16 GiB.
_GROWTH = 1900
_PARTS_IN_FLIGHT = 2


def part_bytes(sent: int) -> int:
    """Return the size in bytes of the next part of a multipart upload.

    Args:
        sent: total number of bytes in the parts that were sent before.
    """
    return FIRST_PART_BYTES + sent // _GROWTH


def checksum_text(digest: bytes) -> str:
    """Return a digest in Base64, as S3 writes checksums."""
    return base64.b64encode(digest).decode()


@dataclass(frozen=True)
class SentPart:
    """A part of a multipart upload that was sent. The last request of the upload lists all parts.

    Attributes:
        number: number of the part, from 1.
        etag: ETag in the response of the service.
        digest: SHA-256 of the part as bytes.
    """

    number: int
    etag: str
    digest: bytes


@dataclass(frozen=True)
class SentObject:
    """The size and digests of an object that was sent completely.

    Attributes:
        size: size in bytes.
        sha256: SHA-256 (hex) of the content.
        checksum: checksum that S3 has to report for the object.
        version_id: id of the new version; empty if unknown.
    """

    size: int
    sha256: str
    checksum: str
    version_id: str


class S3Writer(ObjectWriter):
    """A stream that writes one S3 object; see ``ObjectWriter``.

    An object of up to 16 MiB is sent in one request, and a larger object in parts. Two parts are
    sent while the caller fills the next part. Therefore, the writer needs memory for three parts.
    These are 48 MiB at first, and 210 MiB at the end of an object of 100 GiB, because the parts
    grow.
    """

    def __init__(
        self, bucket: Bucket, key: str, describe: Callable[[str, SentObject], StoredObject]
    ) -> None:
        self._bucket, self._key, self._full_key = bucket, key, bucket.full_key(key)
        self._describe = describe
        # File-like bodies are sent in blocks, each with a timeout of its own; a bytearray would
        # have to be sent whole within one timeout, which slow lines miss.
        self._part = io.BytesIO()
        self._part_limit = FIRST_PART_BYTES
        self._handed_over = 0
        self._hash = hashlib.sha256()
        self._upload_id = ""
        self._pool: ThreadPoolExecutor | None = None
        self._pending: set[Future[SentPart]] = set()
        self._parts: list[SentPart] = []
        self._next_number = 1
        self._open = True
        self._failed = False

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append bytes to the object, and return their number.

        If the current part is full and two parts are still being sent, the method waits.

        Raises:
            StoreError: the service refused a part, even after retries. The writer cannot be used
                any more.
        """
        self._check_usable()
        view = memoryview(data).cast("B")
        taken = 0
        while taken < len(view):
            if self._part.tell() == self._part_limit:
                self._send_part()
            room = self._part_limit - self._part.tell()
            piece = view[taken : taken + room]
            self._hash.update(piece)
            taken += self._part.write(piece)
        return taken

    def commit(self) -> StoredObject:
        """Complete the upload, and compare the stored object with the data that was sent.

        The size and the checksum that the service reports for the object are compared.

        Raises:
            StoreError: the service did not accept the object.
            ObjectDamaged: the size or the checksum differs.
        """
        self._check_usable()
        try:
            sent = self._finish_parts() if self._upload_id else self._put_whole()
        except BaseException:
            self._failed = True
            raise
        self._open = False
        self._stop_pool()
        return self._describe(self._key, sent)

    def abort(self) -> None:
        """Abort the upload. The service then deletes the parts that were sent.

        If this fails, `clear_abandoned` can delete the parts later.
        """
        if not self._open:
            return
        self._open = False
        self._stop_pool()
        if not self._upload_id:
            return
        try:
            self._bucket.client.abort_multipart_upload(
                Bucket=self._bucket.name, Key=self._full_key, UploadId=self._upload_id
            )
        except (BotoCoreError, ClientError) as error:
            if error_code(error) != "NoSuchUpload":
                reason, _ = reason_and_action(error)
                log.warning(
                    "An unfinished upload of %r stays in %s until the next run clears it: %s.",
                    self._key,
                    self._bucket.store,
                    reason,
                )

    def _check_usable(self) -> None:
        if not self._open or self._failed:
            raise StoreError(
                f"The writer of {self._key!r} in {self._bucket.store} is closed or has failed."
            )

    def _send_part(self) -> None:
        """Wait until fewer than two parts are being sent, then send the full part in a thread."""
        try:
            if not self._upload_id:
                self._begin()
            while len(self._pending) >= _PARTS_IN_FLIGHT:
                self._collect(wait(self._pending, return_when=FIRST_COMPLETED).done)
            self._check_part_number()
        except BaseException:
            self._failed = True
            raise
        assert self._pool is not None
        full, self._part = self._part, io.BytesIO()
        self._handed_over += full.tell()
        self._pending.add(self._pool.submit(self._upload_part, self._next_number, full))
        self._next_number += 1
        self._part_limit = part_bytes(self._handed_over)

    def _check_part_number(self) -> None:
        if self._next_number > MAX_PARTS:
            raise StoreError(
                f"Cannot write {self._key!r} in {self._bucket.store}: "
                f"it is larger than {MAX_OBJECT_BYTES} bytes.",
                "Split the database into shards.",
            )

    def _begin(self) -> None:
        with self._bucket.naming("write", self._key):
            answer = self._bucket.client.create_multipart_upload(
                Bucket=self._bucket.name, Key=self._full_key, ChecksumAlgorithm="SHA256"
            )
        self._upload_id = answer["UploadId"]
        self._pool = ThreadPoolExecutor(_PARTS_IN_FLIGHT, thread_name_prefix="s3-part")

    def _upload_part(self, number: int, body: io.BytesIO) -> SentPart:
        digest = hashlib.sha256(body.getbuffer()).digest()
        body.seek(0)
        # The algorithm is named beside the value: Object Lock buckets insist on its header.
        answer = self._bucket.client.upload_part(
            Bucket=self._bucket.name,
            Key=self._full_key,
            UploadId=self._upload_id,
            PartNumber=number,
            Body=body,
            ChecksumAlgorithm="SHA256",
            ChecksumSHA256=checksum_text(digest),
        )
        return SentPart(number, answer["ETag"], digest)

    def _collect(self, done: set[Future[SentPart]]) -> None:
        self._pending -= done
        with self._bucket.naming("write", self._key):
            self._parts.extend(future.result() for future in done)

    def _finish_parts(self) -> SentObject:
        if self._part.tell():
            self._send_part()
        self._collect(wait(self._pending).done)
        parts = sorted(self._parts, key=lambda part: part.number)
        combined = hashlib.sha256(b"".join(part.digest for part in parts)).digest()
        checksum = f"{checksum_text(combined)}-{len(parts)}"
        version_id = self._complete(parts)
        return SentObject(self._handed_over, self._hash.hexdigest(), checksum, version_id)

    def _complete(self, parts: list[SentPart]) -> str:
        """Complete the multipart upload, and return the id of the new version; empty if unknown.

        If the response of the service to the first request is lost, the request is repeated. The
        service then reports that no such upload exists, because the first request has completed it.
        In this case, the id is empty, and the caller compares size and checksum to find out whether
        the object was stored.

        Args:
            parts: all parts of the upload.
        """
        with self._bucket.naming("write", self._key):
            try:
                answer = self._bucket.client.complete_multipart_upload(
                    Bucket=self._bucket.name,
                    Key=self._full_key,
                    UploadId=self._upload_id,
                    MpuObjectSize=self._handed_over,
                    MultipartUpload={
                        "Parts": [
                            {
                                "PartNumber": part.number,
                                "ETag": part.etag,
                                "ChecksumSHA256": checksum_text(part.digest),
                            }
                            for part in parts
                        ]
                    },
                )
            except ClientError as error:
                if error_code(error) != "NoSuchUpload":
                    raise
                log.info("The upload of %r was completed by an earlier attempt.", self._key)
                return ""
        return answer.get("VersionId", "")

    def _put_whole(self) -> SentObject:
        size = self._part.tell()
        self._part.seek(0)
        digest = self._hash.digest()
        with self._bucket.naming("write", self._key):
            answer = self._bucket.client.put_object(
                Bucket=self._bucket.name,
                Key=self._full_key,
                Body=self._part,
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=checksum_text(digest),
            )
        version_id = answer.get("VersionId", "")
        return SentObject(size, digest.hex(), checksum_text(digest), version_id)

    def _stop_pool(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
        self._pending.clear()
        self._part = io.BytesIO()
