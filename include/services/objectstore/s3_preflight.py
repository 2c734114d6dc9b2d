"""Is this bucket fit for off-site backups? Asked before anything is dumped."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from include.services.objectstore.base import StoreProblem
from include.services.objectstore.keys import partial_name
from include.services.objectstore.s3_answers import (
    error_code,
    is_denied,
    is_missing,
    reason_and_action,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def preflight(
    client: S3Client, bucket: str, prefix: str, *, may_delete: bool = True
) -> list[StoreProblem]:
    """Return what keeps the bucket from being a proper off-site store; empty when it is one.

    Leaves nothing behind: if the bucket locks every new object by default, or the login may not
    delete, a probe could not be deleted. An upload is begun then and aborted instead.
    """
    problem = _reach(client, bucket)
    if problem:
        return [problem]
    problems = _check_versioning(client, bucket)
    lock_problems, probe_may_stay_locked = _check_object_lock(client, bucket)
    problems += lock_problems
    try:
        begun_only = probe_may_stay_locked or not may_delete
        _probe(client, bucket, prefix + partial_name("probe"), begun_only=begun_only)
    except (BotoCoreError, ClientError) as error:
        code = "not_writable" if is_denied(error) else "unreachable"
        problems.append(StoreProblem(code, _detail(bucket, "cannot be written to", error)))
    return problems


def _reach(client: S3Client, bucket: str) -> StoreProblem | None:
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if is_missing(error) or error_code(error) == "NoSuchBucket":
            return StoreProblem(
                "missing",
                f"The bucket {bucket!r} does not exist. Create it with versioning and Object Lock.",
            )
        if is_denied(error):
            return StoreProblem("denied", _detail(bucket, "cannot be used", error))
        return StoreProblem("unreachable", _detail(bucket, "cannot be used", error))
    except BotoCoreError as error:
        return StoreProblem("unreachable", _detail(bucket, "cannot be used", error))
    return None


def _check_versioning(client: S3Client, bucket: str) -> list[StoreProblem]:
    try:
        status = client.get_bucket_versioning(Bucket=bucket).get("Status")
    except (BotoCoreError, ClientError) as error:
        return [StoreProblem(_code(error), _detail(bucket, "hides its versioning", error))]
    if status == "Enabled":
        return []
    return [
        StoreProblem(
            "no_versioning",
            f"The bucket {bucket!r} keeps no versions: whoever overwrites a backup destroys it. "
            "Turn versioning on.",
        )
    ]


def _check_object_lock(client: S3Client, bucket: str) -> tuple[list[StoreProblem], bool]:
    """Return the problems, and whether new objects may be locked without asking."""
    try:
        settings = client.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
    except ClientError as error:
        if error_code(error) in {"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfig"}:
            return [_no_object_lock(bucket)], False
        return [StoreProblem(_code(error), _detail(bucket, "hides its Object Lock", error))], True
    except BotoCoreError as error:
        return [StoreProblem(_code(error), _detail(bucket, "hides its Object Lock", error))], True
    if settings.get("ObjectLockEnabled") != "Enabled":
        return [_no_object_lock(bucket)], False
    return [], "Rule" in settings


def _no_object_lock(bucket: str) -> StoreProblem:
    return StoreProblem(
        "no_object_lock",
        f"The bucket {bucket!r} has no Object Lock: backups in it can be deleted before their "
        "retention ends. Turn Object Lock on.",
    )


def _probe(client: S3Client, bucket: str, key: str, *, begun_only: bool) -> None:
    """Write and remove something as a backup would; raises what boto3 raises."""
    upload = client.create_multipart_upload(Bucket=bucket, Key=key, ChecksumAlgorithm="SHA256")
    client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload["UploadId"])
    if begun_only:
        return
    answer = client.put_object(
        Bucket=bucket, Key=key, Body=secrets.token_bytes(16), ChecksumAlgorithm="SHA256"
    )
    version = answer.get("VersionId", "")
    if version:
        client.delete_object(Bucket=bucket, Key=key, VersionId=version)
    else:
        client.delete_object(Bucket=bucket, Key=key)


def _code(error: Exception) -> str:
    return "denied" if is_denied(error) else "unreachable"


def _detail(bucket: str, what: str, error: Exception) -> str:
    reason, action = reason_and_action(error)
    return f"The bucket {bucket!r} {what}: {reason}. {action}"
