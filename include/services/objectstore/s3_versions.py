"""Read the versions of objects in an S3 bucket, and check whether a bucket suits backups."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from include.services.objectstore.base import ObjectVersion, StoreProblem
from include.services.objectstore.keys import partial_name
from include.services.objectstore.s3_answers import (
    Bucket,
    error_code,
    is_denied,
    is_lock_refusal,
    is_missing,
    reason_and_action,
)

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import (
        HeadObjectRequestTypeDef,
        ListObjectVersionsOutputTypeDef,
        ObjectLockConfigurationTypeDef,
    )


@dataclass(frozen=True)
class Version:
    """A version or delete marker of an object, with its lock and its S3 legal hold.

    Attributes:
        version_id: id of the version; ``null`` in a bucket without versioning.
        locked_until: end of the lock (the retention period of S3 Object Lock), which may have
            passed; None if the version has no lock.
        held: whether the version has an S3 legal hold.
    """

    version_id: str
    locked_until: datetime | None = None
    held: bool = False


def folders_under(bucket: Bucket, full_prefix: str) -> Iterator[str]:
    """Yield the full prefixes of the folders directly under a prefix, with a trailing slash.

    A folder is included even if it contains only older versions or delete markers.

    Args:
        bucket: bucket of the store.
        full_prefix: prefix, including the prefix of the store.

    Raises:
        BotoCoreError, ClientError: the request failed.
    """
    pages = bucket.client.get_paginator("list_object_versions").paginate(
        Bucket=bucket.name, Prefix=full_prefix, Delimiter="/"
    )
    for page in pages:
        for folder in page.get("CommonPrefixes", []):
            yield folder["Prefix"]


def versions_under(bucket: Bucket, full_prefix: str) -> list[ObjectVersion]:
    """Return all versions and delete markers under a prefix.

    Args:
        bucket: bucket of the store.
        full_prefix: prefix, including the prefix of the store.

    Returns:
        The versions sorted by full key. For each key, the current version is first, followed by the
        others from the newest to the oldest. A version that was stored without versioning has an
        empty id if it is the current version, or else the id ``null``.

    Raises:
        BotoCoreError, ClientError: the request failed.
    """
    pages = bucket.client.get_paginator("list_object_versions").paginate(
        Bucket=bucket.name, Prefix=full_prefix
    )
    versions = [version for page in pages for version in _versions_of(page)]
    # S3 lists the versions of a key from the newest to the oldest, with times in seconds. The sort
    # is stable, so versions of the same second keep the order of the response.
    return sorted(
        versions,
        key=lambda version: (version.key, not version.is_current, -version.modified_at.timestamp()),
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


def versions_to_delete(bucket: Bucket, full_key: str) -> list[Version]:
    """Return all versions and delete markers of a key in the order in which to delete them.

    The oldest version is first and the current version last. If the current version were deleted
    first, an interrupted deletion would make an earlier version current again.

    Raises:
        BotoCoreError, ClientError: the request failed.
    """
    listed = versions_under(bucket, full_key)
    return [
        Version(version.version_id)
        if version.is_marker
        else _with_lock(bucket, full_key, version.version_id or "null")
        for version in reversed(listed)
        if version.key == full_key
    ]


def refused_by_lock(error: Exception, version: Version) -> bool:
    """Return whether S3 refused to delete a version because of its lock or its S3 legal hold.

    A lock is a retention period of S3 Object Lock.

    Args:
        error: error of the deletion.
        version: version that was to be deleted, with its lock and its S3 legal hold.
    """
    if is_lock_refusal(error):
        return True
    return is_denied(error) and (version.held or version.locked_until is not None)


def lock_words(version: Version) -> str:
    """Return a text for messages that names a version's S3 legal hold, or the end of its lock."""
    if version.held:
        return "under a legal hold"
    if version.locked_until is None:
        return "locked, until when could not be read"
    return f"locked until {version.locked_until.isoformat()}"


def _with_lock(bucket: Bucket, full_key: str, version_id: str) -> Version:
    request: HeadObjectRequestTypeDef = {"Bucket": bucket.name, "Key": full_key}
    if version_id != "null":
        request["VersionId"] = version_id
    try:
        head = bucket.client.head_object(**request)
    except ClientError as error:
        if is_missing(error):
            return Version(version_id)
        raise
    held = head.get("ObjectLockLegalHoldStatus") == "ON"
    return Version(version_id, locked_until=head.get("ObjectLockRetainUntilDate"), held=held)


def preflight(bucket: Bucket, *, may_delete: bool) -> list[StoreProblem]:
    """Return the reasons why a bucket is unsuitable as an off-site store.

    To check the right to write, a small object is written and deleted. This object could not be
    deleted if the bucket locks new objects by default, or if the credentials do not allow to delete
    objects. In these cases, an upload is begun and aborted instead.

    Args:
        bucket: bucket to check.
        may_delete: whether the credentials allow to delete objects.
    """
    problem = _reach(bucket)
    if problem:
        return [problem]
    problems = _check_versioning(bucket)
    lock_problems, probe_may_stay_locked = _check_object_lock(bucket)
    problems += lock_problems
    try:
        begun_only = probe_may_stay_locked or not may_delete
        _probe(bucket, bucket.prefix + partial_name("probe"), begun_only=begun_only)
    except (BotoCoreError, ClientError) as error:
        failure = _failure(bucket, "cannot be written to", error)
        problems.append(replace(failure, code="not_writable") if is_denied(error) else failure)
    return problems


def _reach(bucket: Bucket) -> StoreProblem | None:
    try:
        bucket.client.head_bucket(Bucket=bucket.name)
    except (BotoCoreError, ClientError) as error:
        if is_missing(error) or error_code(error) == "NoSuchBucket":
            return _problem(
                bucket, "missing", "does not exist. Create it with versioning and Object Lock."
            )
        return _failure(bucket, "cannot be used", error)
    return None


def _check_versioning(bucket: Bucket) -> list[StoreProblem]:
    try:
        status = bucket.client.get_bucket_versioning(Bucket=bucket.name).get("Status")
    except (BotoCoreError, ClientError) as error:
        return [_failure(bucket, "hides its versioning", error)]
    if status == "Enabled":
        return []
    text = "keeps no versions, so an overwrite destroys a backup. Turn versioning on."
    return [_problem(bucket, "no_versioning", text)]


def locks_by_default(bucket: Bucket) -> bool:
    """Return whether the bucket locks new objects by default, or hides its settings."""
    return _check_object_lock(bucket)[1]


def _check_object_lock(bucket: Bucket) -> tuple[list[StoreProblem], bool]:
    """Return the problems with Object Lock, and whether the bucket locks new objects by default.

    If the settings of the bucket cannot be read, the second result is True, because the bucket
    could lock new objects.
    """
    settings: ObjectLockConfigurationTypeDef = {}
    try:
        answer = bucket.client.get_object_lock_configuration(Bucket=bucket.name)
        settings = answer["ObjectLockConfiguration"]
    except (BotoCoreError, ClientError) as error:
        unset = {"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfig"}
        if error_code(error) not in unset:
            return [_failure(bucket, "hides its Object Lock", error)], True
    if settings.get("ObjectLockEnabled") == "Enabled":
        return [], "Rule" in settings
    text = (
        "has no Object Lock: backups in it can be deleted before their retention ends. "
        "Turn Object Lock on."
    )
    return [_problem(bucket, "no_object_lock", text)], False


def _probe(bucket: Bucket, key: str, *, begun_only: bool) -> None:
    """Check that the credentials allow to write, without leaving an object in the bucket.

    An upload is begun and aborted. Then a small object is written and deleted.

    Args:
        bucket: bucket to check.
        key: key of the small object and of the upload.
        begun_only: whether to begin and abort the upload only, without writing the small object.

    Raises:
        BotoCoreError, ClientError: a request failed.
    """
    client, name = bucket.client, bucket.name
    upload = client.create_multipart_upload(Bucket=name, Key=key, ChecksumAlgorithm="SHA256")
    client.abort_multipart_upload(Bucket=name, Key=key, UploadId=upload["UploadId"])
    if begun_only:
        return
    content = secrets.token_bytes(16)
    answer = client.put_object(Bucket=name, Key=key, Body=content, ChecksumAlgorithm="SHA256")
    if version := answer.get("VersionId"):
        client.delete_object(Bucket=name, Key=key, VersionId=version)
    else:
        client.delete_object(Bucket=name, Key=key)


def _failure(bucket: Bucket, problem: str, error: Exception) -> StoreProblem:
    reason, action = reason_and_action(error)
    code = "denied" if is_denied(error) else "unreachable"
    return _problem(bucket, code, f"{problem}: {reason}. {action}")


def _problem(bucket: Bucket, code: str, text: str) -> StoreProblem:
    return StoreProblem(code, f"The bucket {bucket.name!r} {text}")
