"""Objects in an S3 bucket under a prefix, locked by Object Lock."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from include.services.aws import new_session
from include.services.clock import Clock, SystemClock
from include.services.errors import UsageError
from include.services.objectstore.base import (
    ObjectDamaged,
    ObjectLocked,
    ObjectMissing,
    ObjectStore,
    ObjectVersion,
    StoredObject,
    StoreError,
    StoreProblem,
    read_sha256,
)
from include.services.objectstore.keys import (
    checked_key,
    checked_list_prefix,
    checked_lock_end,
    is_own_name,
)
from include.services.objectstore.s3_answers import (
    Bucket,
    error_code,
    is_comparable,
    is_missing,
    is_same_checksum,
    stored_object,
)
from include.services.objectstore.s3_streams import S3Reader, S3Writer, SentObject, checksum_text
from include.services.objectstore.s3_versions import (
    Version,
    folders_under,
    lock_words,
    preflight,
    refused_by_lock,
    versions_to_delete,
    versions_under,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import (
        HeadObjectOutputTypeDef,
        PutObjectRequestTypeDef,
        PutObjectRetentionRequestTypeDef,
    )

LockMode = Literal["COMPLIANCE", "GOVERNANCE"]


def make_s3_client(
    endpoint_url: str | None = None,
    region: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
    verify: bool | str = True,
    connect_timeout: float = 10,
    read_timeout: float = 60,
    max_attempts: int = 6,
) -> S3Client:
    """Build the boto3 client; the only place that does.

    Args:
        endpoint_url: an S3-compatible service, addressed path-style; None for AWS.
        region: the bucket's region.
        access_key: with ``secret_key``; None leaves it to boto3's chain (instance role).
        secret_key: see ``access_key``.
        verify: check TLS certificates; a path names a file of trusted authorities.
        connect_timeout: seconds.
        read_timeout: seconds without a byte before a request counts as failed.
        max_attempts: attempts a request in all, with growing random pauses between them.

    Raises:
        UsageError: endpoint or region cannot be used.
    """
    settings = Config(
        retries={"mode": "standard", "total_max_attempts": max_attempts},
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        s3={"addressing_style": "path"} if endpoint_url else {},
        tcp_keepalive=True,
        # Uploads name SHA-256 themselves; other services do not know boto3's default CRC.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        return new_session().client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=region,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            verify=verify,
            config=settings,
        )
    except (BotoCoreError, ValueError) as error:
        raise UsageError(
            "The S3 connection cannot be used: its endpoint, region or credentials are malformed.",
            "Check the connection's host, region, login and password.",
        ) from error


class S3Store(ObjectStore):
    """Objects in an S3 bucket; see ``ObjectStore``.

    ``checksum`` is S3's SHA-256: of the object for a single put, of the parts' digests for a
    multipart upload (``<base64>-<parts>``). A service that keeps no SHA-256 gives ``etag:<ETag>``
    instead, which ``verify`` then compares: it shows replacement, not silent damage.
    Some services leave out ``-<parts>``; the digest alone is compared with these.
    """

    kind = "s3"

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        prefix: str = "",
        site: str = "",
        *,
        lock_mode: LockMode = "COMPLIANCE",
        clock: Clock | None = None,
        may_delete: bool = True,
    ) -> None:
        trimmed = prefix.strip("/")
        self._bucket = Bucket(client, bucket, f"{checked_key(trimmed)}/" if trimmed else "")
        self._lock_mode: LockMode = lock_mode
        self._may_delete = may_delete
        self._clock = clock or SystemClock()
        self.site = site
        self.description = self._bucket.store

    def preflight(self) -> Sequence[StoreProblem]:
        """Check the needs of a backup; leaves nothing behind."""
        return preflight(self._bucket, may_delete=self._may_delete)

    def open_writer(self, key: str) -> S3Writer:
        """Open a streaming writer; nothing is sent before 16 MiB or commit."""
        return S3Writer(self._bucket, key, self._describe_sent)

    def put(self, key: str, data: bytes, *, locked_until: datetime | None = None) -> StoredObject:
        """Store a small object in one call; a locked older version stays beside the new one."""
        digest = hashlib.sha256(data).digest()
        checksum = checksum_text(digest)
        request: PutObjectRequestTypeDef = {
            "Bucket": self._bucket.name,
            "Key": self._bucket.full_key(key),
            "Body": io.BytesIO(data),
            "ChecksumAlgorithm": "SHA256",
            "ChecksumSHA256": checksum,
        }
        if locked_until is not None:
            request["ObjectLockMode"] = self._lock_mode
            request["ObjectLockRetainUntilDate"] = checked_lock_end(locked_until)
        with self._bucket.naming("write", key):
            answer = self._bucket.client.put_object(**request)
        version_id = answer.get("VersionId", "")
        return self._describe_sent(key, SentObject(len(data), digest.hex(), checksum, version_id))

    def open_reader(self, key: str, *, version_id: str = "") -> S3Reader:
        """Open a streaming reader of the current or the named version."""
        return S3Reader(self._bucket, key, version_id)

    def stat(self, key: str, *, version_id: str = "") -> StoredObject:
        """Return the object that S3 has, in the current or the named version."""
        return stored_object(key, self._head(key, version_id))

    def verify(self, expected: StoredObject) -> None:
        """Compare S3's size and checksum of the recorded version with the expected object.

        Without a checksum to compare, the object is read and hashed. Without a recorded version,
        the current one is verified.

        Raises:
            UsageError: ``expected`` holds neither checksum nor SHA-256.
            ObjectMissing: there is no such version.
            ObjectDamaged: size, checksum or content differ.
        """
        stored = self.stat(expected.key, version_id=expected.version_id)
        if stored.size != expected.size:
            self._fail_verification(
                expected.key, f"it holds {stored.size} bytes instead of {expected.size}"
            )
        if expected.checksum and is_comparable(expected.checksum, stored.checksum):
            if not is_same_checksum(expected.checksum, stored.checksum):
                self._fail_verification(expected.key, "its checksum differs")
        elif expected.sha256:
            digest = read_sha256(self, expected.key, version_id=expected.version_id)
            if digest != expected.sha256:
                self._fail_verification(expected.key, "its content differs")
        else:
            raise UsageError(f"The object {expected.key!r} was recorded without a checksum.")

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the current objects in key order, 1,000 a request."""
        pages = self._bucket.client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket.name, Prefix=self._bucket.prefix + checked_list_prefix(prefix)
        )
        with self._bucket.naming("list"):
            for page in pages:
                for stored in page.get("Contents", []):
                    key = stored["Key"].removeprefix(self._bucket.prefix)
                    if not is_own_name(key.rpartition("/")[2]):
                        yield StoredObject(
                            key, stored["Size"], stored["LastModified"].astimezone(UTC)
                        )

    def list_versions(self, prefix: str = "") -> Iterator[ObjectVersion]:
        """Yield all versions and delete markers under a prefix in key order, newest first.

        The whole list is held in memory: S3 answers with versions and markers apart.
        """
        full_prefix = self._bucket.prefix + checked_list_prefix(prefix)
        with self._bucket.naming("list the versions in"):
            versions = versions_under(self._bucket, full_prefix)
        for version in versions:
            key = version.key.removeprefix(self._bucket.prefix)
            if not is_own_name(key.rpartition("/")[2]):
                yield replace(version, key=key)

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Yield the names of the folders directly under a prefix, 1,000 a request."""
        full_prefix = self._bucket.prefix + checked_list_prefix(prefix)
        with self._bucket.naming("list the folders of"):
            for folder in folders_under(self._bucket, full_prefix):
                yield folder.removeprefix(full_prefix).removesuffix("/")

    def lock(self, key: str, until: datetime, *, version_id: str = "") -> None:
        """Lock the current or the named version; a later lock is kept, never shortened.

        Raises:
            ObjectLocked: the version is locked for longer already.
            StoreError: the bucket has no Object Lock, or S3 refuses.
        """
        end = checked_lock_end(until)
        head = self._head(key, version_id)
        locked_until = stored_object(key, head).locked_until
        if locked_until and locked_until > end:
            raise ObjectLocked(
                f"{key!r} in {self.description} is locked until {locked_until.isoformat()}, "
                f"which cannot be shortened to {end.isoformat()}."
            )
        request: PutObjectRetentionRequestTypeDef = {
            "Bucket": self._bucket.name,
            "Key": self._bucket.full_key(key),
            "Retention": {"Mode": self._lock_mode, "RetainUntilDate": end},
            "ChecksumAlgorithm": "SHA256",
        }
        if head.get("VersionId"):
            request["VersionId"] = head["VersionId"]
        with self._bucket.naming("lock", key):
            self._bucket.client.put_object_retention(**request)

    def require_deletable(self, key: str, now: datetime) -> None:
        """Check retention and legal hold of every version; raises ObjectLocked."""
        self._deletable_versions(key, now)

    def _deletable_versions(self, key: str, now: datetime) -> Sequence[Version]:
        """Return the versions and markers of a key in deletion order; raises ObjectLocked."""
        with self._bucket.naming("read the locks of", key):
            versions = versions_to_delete(self._bucket, self._bucket.full_key(key))
        for version in versions:
            if version.held or (version.locked_until and version.locked_until > now):
                raise self._locked(key, version)
        return versions

    def delete(self, key: str) -> None:
        """Remove every version and delete marker, the current one last.

        The locks of all versions are checked first, so nothing is removed when one is locked.

        Raises:
            ObjectLocked: a retention or legal hold forbids it; names until when.
            StoreError: S3 refuses for another reason.
        """
        full_key = self._bucket.full_key(key)
        for version in self._deletable_versions(key, self._clock.now()):
            try:
                with self._bucket.naming("delete", key):
                    self._bucket.client.delete_object(
                        Bucket=self._bucket.name, Key=full_key, VersionId=version.version_id
                    )
            except ObjectMissing:
                continue
            except StoreError as error:
                cause = error.__cause__
                if isinstance(cause, Exception) and refused_by_lock(cause, version):
                    raise self._locked(key, version) from error
                raise

    def _locked(self, key: str, version: Version) -> ObjectLocked:
        return ObjectLocked(
            f"{key!r} in {self.description} cannot be deleted: it is {lock_words(version)}.",
            "Wait for its end; a compliance lock cannot be lifted earlier.",
        )

    def clear_abandoned(self, prefix: str = "") -> int:
        """Abort every unfinished upload under a prefix.

        The caller makes sure that nobody is writing there at that moment.
        """
        cleared = 0
        with self._bucket.naming("clear unfinished uploads in"):
            pages = self._bucket.client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket.name, Prefix=self._bucket.prefix + checked_list_prefix(prefix)
            )
            uploads = [upload for page in pages for upload in page.get("Uploads", [])]
            for upload in uploads:
                try:
                    self._bucket.client.abort_multipart_upload(
                        Bucket=self._bucket.name, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
                except ClientError as error:
                    if error_code(error) != "NoSuchUpload":
                        raise
                cleared += 1
        return cleared

    def _head(self, key: str, version_id: str = "") -> HeadObjectOutputTypeDef:
        extra: dict[str, Any] = {"VersionId": version_id} if version_id else {}
        try:
            with self._bucket.naming("read", key):
                return self._bucket.client.head_object(
                    Bucket=self._bucket.name,
                    Key=self._bucket.full_key(key),
                    ChecksumMode="ENABLED",
                    **extra,
                )
        except ObjectMissing:
            self._check_bucket()
            raise

    def _check_bucket(self) -> None:
        """Raise StoreError for a missing bucket, which HEAD reports like a missing object."""
        try:
            self._bucket.client.head_bucket(Bucket=self._bucket.name)
        except ClientError as error:
            if is_missing(error):
                raise StoreError(
                    f"Cannot read {self.description}: the bucket does not exist.",
                    "Create it with versioning and Object Lock, or correct the connection.",
                ) from error

    def _describe_sent(self, key: str, sent: SentObject) -> StoredObject:
        """Read the stored object back, and compare it with the sent object."""
        head = self._head(key, sent.version_id if sent.version_id != "null" else "")
        stored = replace(stored_object(key, head), sha256=sent.sha256)
        if stored.size != sent.size:
            self._fail_verification(key, f"{stored.size} of {sent.size} bytes arrived")
        if not is_comparable(sent.checksum, stored.checksum):
            return stored
        if not is_same_checksum(sent.checksum, stored.checksum):
            self._fail_verification(key, "its checksum differs from what was sent")
        return replace(stored, checksum=sent.checksum)

    def _fail_verification(self, key: str, why: str) -> None:
        raise ObjectDamaged(f"{key!r} in {self.description} is not what was stored: {why}.")
