"""Queries of an S3 bucket: versions in the order of a safe deletion, and fitness for backups."""

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
    """A version or delete marker of a key.

    Attributes:
        version_id: ``null`` in a bucket without versioning.
        locked_until: end of its retention, also when passed; None without one.
        held: a legal hold is on it.
    """

    version_id: str
    locked_until: datetime | None = None
    held: bool = False


def folders_under(bucket: Bucket, full_prefix: str) -> Iterator[str]:
    """Yield the folders directly under a prefix, each with a slash; raises what boto3 does.

    Folders of which only older versions or delete markers are left are included.
    """
    pages = bucket.client.get_paginator("list_object_versions").paginate(
        Bucket=bucket.name, Prefix=full_prefix, Delimiter="/"
    )
    for page in pages:
        for folder in page.get("CommonPrefixes", []):
            yield folder["Prefix"]


def versions_under(bucket: Bucket, full_prefix: str) -> list[ObjectVersion]:
    """Return all versions and delete markers under a prefix; raises what boto3 does.

    Returns:
        By full key in key order, the current version first, then the newest. The version that was
        stored before the bucket had versions is named ``null``, unless it is the current one.
    """
    pages = bucket.client.get_paginator("list_object_versions").paginate(
        Bucket=bucket.name, Prefix=full_prefix
    )
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


def versions_to_delete(bucket: Bucket, full_key: str) -> list[Version]:
    """Return all versions and delete markers of a key, the oldest first and the current one last.

    A deletion that is interrupted then brings no earlier version back. Raises what boto3 does.
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
    """Return whether a deletion was refused because of a retention or legal hold."""
    if is_lock_refusal(error):
        return True
    return is_denied(error) and (version.held or version.locked_until is not None)


def lock_words(version: Version) -> str:
    """Return how a version is locked, in words."""
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
    """Return why the bucket is no proper off-site store; empty if it is.

    Leaves nothing behind: if the bucket locks every new object by default, or the login may not
    delete, a probe could not be deleted. An upload is begun then and aborted instead.
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
    text = "keeps no versions: whoever overwrites a backup destroys it. Turn versioning on."
    return [_problem(bucket, "no_versioning", text)]


def _check_object_lock(bucket: Bucket) -> tuple[list[StoreProblem], bool]:
    """Return the problems, and whether new objects may be locked without asking."""
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
    """Write and remove something as a backup would; raises what boto3 raises."""
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
