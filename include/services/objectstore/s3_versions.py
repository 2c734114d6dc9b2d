"""Versions and delete markers of S3 objects, listed and in the order of a safe deletion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from include.services.objectstore.base import ObjectVersion
from include.services.objectstore.s3_answers import is_denied, is_lock_refusal, is_missing

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectRequestTypeDef, ListObjectVersionsOutputTypeDef


@dataclass(frozen=True)
class Version:
    """One version or delete marker of a key.

    Attributes:
        version_id: ``null`` in a bucket without versioning.
        locked_until: end of its retention, also when passed; None without one.
        held: a legal hold is on it.
    """

    version_id: str
    locked_until: datetime | None = None
    held: bool = False


def folders_under(client: S3Client, bucket: str, full_prefix: str) -> Iterator[str]:
    """Yield the folders directly under a prefix, each with a slash; raises what boto3 does.

    Folders of which only older versions or delete markers are left are included.
    """
    pages = client.get_paginator("list_object_versions").paginate(
        Bucket=bucket, Prefix=full_prefix, Delimiter="/"
    )
    for page in pages:
        for folder in page.get("CommonPrefixes", []):
            yield folder["Prefix"]


def versions_under(client: S3Client, bucket: str, full_prefix: str) -> list[ObjectVersion]:
    """Return all versions and delete markers under a prefix; raises what boto3 does.

    Returns:
        By full key in key order, the current version first, then the newest. The version that was
        stored before the bucket had versions is named ``null``, unless it is the current one.
    """
    pages = client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=full_prefix)
    versions = [version for page in pages for version in _versions_of(page)]
    # S3 lists a key's versions from the newest on, and its times are in seconds: the sort keeps
    # the order of the answer where two are of the same second.
    return sorted(
        versions, key=lambda each: (each.key, not each.is_current, -each.modified_at.timestamp())
    )


def _versions_of(page: ListObjectVersionsOutputTypeDef) -> Iterator[ObjectVersion]:
    for stored in page.get("Versions", []):
        is_current = stored["IsLatest"]
        unnamed = is_current and stored["VersionId"] == "null"
        yield ObjectVersion(
            stored["Key"],
            "" if unnamed else stored["VersionId"],
            stored["Size"],
            stored["LastModified"].astimezone(UTC),
            is_current,
        )
    for marker in page.get("DeleteMarkers", []):
        yield ObjectVersion(
            marker["Key"],
            marker["VersionId"],
            0,
            marker["LastModified"].astimezone(UTC),
            marker["IsLatest"],
            is_marker=True,
        )


def versions_to_delete(client: S3Client, bucket: str, full_key: str) -> list[Version]:
    """Return all versions and delete markers of a key, the oldest first and the current one last.

    A deletion that is interrupted then brings no earlier version back. Raises what boto3 does.
    """
    listed = versions_under(client, bucket, full_key)
    return [
        Version(version.version_id)
        if version.is_marker
        else _with_lock(client, bucket, full_key, version.version_id or "null")
        for version in reversed(listed)
        if version.key == full_key
    ]


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
