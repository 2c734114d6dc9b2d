"""Every version of one S3 object, in the order in which they are safe to delete."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from include.services.objectstore.s3_errors import is_denied, is_lock_refusal, is_missing

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectRequestTypeDef


@dataclass(frozen=True)
class Version:
    """One version or delete marker of a key.

    Attributes:
        version_id: ``null`` in a bucket without versioning.
        is_marker: it only says that the object was deleted.
        locked_until: end of its retention, also when passed; None without one.
        held: a legal hold is on it.
    """

    version_id: str
    is_marker: bool = False
    locked_until: datetime | None = None
    held: bool = False

    @property
    def deletion_order(self) -> tuple[bool, bool, float]:
        """Sort key: the longest locked first, markers last.

        A lock then refuses before anything is gone, and a deletion broken half-way brings no old
        version back to light.
        """
        end = self.locked_until.timestamp() if self.locked_until else 0.0
        return self.is_marker, not self.held, -end


def versions_to_delete(client: S3Client, bucket: str, full_key: str) -> list[Version]:
    """Return all versions and delete markers of a key in deletion order; raises what boto3 does."""
    pages = client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=full_key)
    versions: list[Version] = []
    for page in pages:
        versions += [
            _with_lock(client, bucket, full_key, found["VersionId"])
            for found in page.get("Versions", [])
            if found["Key"] == full_key
        ]
        versions += [
            Version(marker["VersionId"], is_marker=True)
            for marker in page.get("DeleteMarkers", [])
            if marker["Key"] == full_key
        ]
    return sorted(versions, key=lambda version: version.deletion_order)


def refused_by_lock(error: Exception, version: Version) -> bool:
    """Tell whether a deletion was refused because of a retention or legal hold."""
    if is_lock_refusal(error):
        return True
    return is_denied(error) and (version.held or version.locked_until is not None)


def lock_words(version: Version) -> str:
    """Say how a version is locked."""
    if version.held:
        return "under a legal hold"
    if version.locked_until is None:
        return "locked, until when could not be read"
    return f"locked until {version.locked_until.isoformat()}"


def _with_lock(client: S3Client, bucket: str, full_key: str, version_id: str) -> Version:
    request: HeadObjectRequestTypeDef = {"Bucket": bucket, "Key": full_key}
    if version_id != "null":
        request["VersionId"] = version_id
    try:
        head = client.head_object(**request)
    except ClientError as error:
        if is_missing(error):
            return Version(version_id)
        raise
    held = head.get("ObjectLockLegalHoldStatus") == "ON"
    return Version(version_id, locked_until=head.get("ObjectLockRetainUntilDate"), held=held)
