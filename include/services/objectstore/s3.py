"""Store objects in an S3 bucket under a prefix, and lock them with Object Lock."""

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
    locks_by_default,
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
    """Build the boto3 client for S3.

    Args:
        endpoint_url: URL of an S3-compatible service, which is addressed path-style; None for AWS.
        region: region of the bucket.
        access_key: access key, used with ``secret_key``. If it is None, boto3 searches for
            credentials itself, such as an instance role.
        secret_key: secret key for ``access_key``.
        verify: whether to verify TLS certificates, or the file of trusted certificate authorities.
        connect_timeout: timeout of a connection attempt in seconds.
        read_timeout: seconds to wait for the next byte of a response. If none arrives, the request
            has failed.
        max_attempts: total number of attempts of a request. The pauses between them are random and
            become longer.

    Raises:
        UsageError: the endpoint, region or credentials are malformed.
    """
    settings = Config(
        retries={"mode": "standard", "total_max_attempts": max_attempts},
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        s3={"addressing_style": "path"} if endpoint_url else {},
        tcp_keepalive=True,
        # Uploads request SHA-256 explicitly. Some services do not support boto3's default, a CRC.
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
    """A store whose objects are in an S3 bucket; see ``ObjectStore``.

    The checksum of a stored object is the SHA-256 that S3 computes. After a multipart upload, this
    is the SHA-256 of the digests of all parts, written as ``<base64>-<parts>`` with the number of
    parts. Some services omit ``-<parts>``; only the digest is then compared. If a service computes
    no SHA-256, the checksum is ``etag:<ETag>``. An ETag shows that an object was replaced, but not
    that its bytes were damaged.
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
        """Return the reasons why the bucket is unsuitable for backups.

        The check leaves no object in the bucket.
        """
        return preflight(self._bucket, may_delete=self._may_delete)

    def locks_new_objects(self) -> bool:
        """Return whether the bucket has a default retention, or hides its settings."""
        return locks_by_default(self._bucket)

    def open_writer(self, key: str) -> S3Writer:
        """Open a stream that writes an object.

        The stream sends its first bytes when it has received 16 MiB, or when it is committed.
        """
        return S3Writer(self._bucket, key, self._describe_sent)

    def put(self, key: str, data: bytes, *, locked_until: datetime | None = None) -> StoredObject:
        """Store a small object in one call, and return its metadata.

        If an object with this key exists, a new version is added, and the locked versions of the
        object are kept.
        """
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
        """Open a stream that reads an object.

        Args:
            key: key of the object.
            version_id: version to read; empty for the current version.
        """
        return S3Reader(self._bucket, key, version_id)

    def stat(self, key: str, *, version_id: str = "") -> StoredObject:
        """Return the metadata that S3 reports for an object.

        Args:
            key: key of the object.
            version_id: version to report; empty for the current version.
        """
        return stored_object(key, self._head(key, version_id))

    def verify(self, expected: StoredObject) -> None:
        """Compare the size and checksum that S3 reports for an object with those in ``expected``.

        If the reported checksum is of another type than that in ``expected``, the object is read
        and hashed. If ``expected`` has no version id, the current version is verified.

        Raises:
            UsageError: ``expected`` has no checksum that can be compared, and no SHA-256.
            ObjectMissing: the version does not exist.
            ObjectDamaged: the size, checksum or content differs.
        """
        stored = self.stat(expected.key, version_id=expected.version_id)
        if stored.size != expected.size:
            self._fail_verification(
                expected.key, f"it has {stored.size} bytes instead of {expected.size}"
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
        """Yield the current versions of the objects under a prefix, sorted by key.

        Each request lists 1,000 objects.
        """
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
        """Yield all versions and delete markers of the objects under a prefix, sorted by key.

        For each key, the newest version is first. The whole list is held in memory, because S3
        lists versions and delete markers separately.
        """
        full_prefix = self._bucket.prefix + checked_list_prefix(prefix)
        with self._bucket.naming("list the versions in"):
            versions = versions_under(self._bucket, full_prefix)
        for version in versions:
            key = version.key.removeprefix(self._bucket.prefix)
            if not is_own_name(key.rpartition("/")[2]):
                yield replace(version, key=key)

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Yield the names of the folders directly under a prefix."""
        full_prefix = self._bucket.prefix + checked_list_prefix(prefix)
        with self._bucket.naming("list the folders of"):
            for folder in folders_under(self._bucket, full_prefix):
                yield folder.removeprefix(full_prefix).removesuffix("/")

    def lock(self, key: str, until: datetime, *, version_id: str = "") -> None:
        """Lock an object until a given time. A lock is never shortened.

        Args:
            key: key of the object.
            until: end of the lock.
            version_id: version to lock; empty for the current version.

        Raises:
            ObjectLocked: an existing lock of the version ends later.
            StoreError: the bucket has no Object Lock, or S3 refuses the request.
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
        """Raise an error if any version of an object is locked at the given time.

        Raises:
            ObjectLocked: a version has a lock or S3 legal hold at that time.
        """
        self._deletable_versions(key, now)

    def _deletable_versions(self, key: str, now: datetime) -> Sequence[Version]:
        """Return the versions and delete markers of a key in the order in which to delete them.

        Raises:
            ObjectLocked: a version has a lock or S3 legal hold at ``now``.
        """
        with self._bucket.naming("read the locks of", key):
            versions = versions_to_delete(self._bucket, self._bucket.full_key(key))
        for version in versions:
            if version.held or (version.locked_until and version.locked_until > now):
                raise self._locked(key, version)
        return versions

    def delete(self, key: str) -> None:
        """Delete all versions and delete markers of an object, the current version last.

        The locks of all versions are checked first, so nothing is deleted if one version is locked.

        Raises:
            ObjectLocked: a lock or S3 legal hold forbids the deletion. The message names the end of
                a lock.
            StoreError: S3 refuses the deletion for another reason.
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
            "Wait until the lock expires; a lock in compliance mode cannot be removed earlier.",
        )

    def clear_abandoned(self, prefix: str = "") -> int:
        """Abort all unfinished uploads under a prefix, and return their number.

        The caller must ensure that no upload under the prefix is in progress.
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
        """Raise StoreError if the bucket does not exist.

        S3 gives the same response to a HEAD request if the object is missing and if the whole
        bucket is missing. Callers use this method to distinguish the two cases.
        """
        try:
            self._bucket.client.head_bucket(Bucket=self._bucket.name)
        except ClientError as error:
            if is_missing(error):
                raise StoreError(
                    f"Cannot read {self.description}: the bucket does not exist.",
                    "Create it with versioning and Object Lock, or correct the connection.",
                ) from error

    def _describe_sent(self, key: str, sent: SentObject) -> StoredObject:
        """Compare an object in the bucket with the data that was sent, and return its metadata.

        Args:
            key: key of the object.
            sent: size and digests of the data.

        Raises:
            ObjectDamaged: the size or checksum differs.
        """
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
        raise ObjectDamaged(f"{key!r} in {self.description} differs from the stored object: {why}.")
