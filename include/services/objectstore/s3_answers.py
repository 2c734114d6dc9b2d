"""Facts about objects and stores, read from the answers of S3."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from include.services.objectstore.base import StoredObject

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef


def stored_object(key: str, head: HeadObjectOutputTypeDef) -> StoredObject:
    """Return the object that the answer to a HEAD request describes."""
    version_id = head.get("VersionId", "")
    locked_until = head.get("ObjectLockRetainUntilDate")
    return StoredObject(
        key=key,
        size=head["ContentLength"],
        modified_at=head["LastModified"].astimezone(UTC),
        checksum=head.get("ChecksumSHA256") or f"etag:{head['ETag'].strip(chr(34))}",
        version_id="" if version_id == "null" else version_id,
        locked_until=locked_until.astimezone(UTC) if locked_until else None,
    )


def is_comparable(expected: str, found: str) -> bool:
    """Return whether two checksums are of the same kind."""
    return expected.startswith("etag:") == found.startswith("etag:")


def is_same_checksum(expected: str, found: str) -> bool:
    """Return whether two checksums agree; some services leave out the number of parts."""
    if expected.startswith("etag:"):
        return expected == found
    expected_digest, _, expected_parts = expected.partition("-")
    digest, _, parts = found.partition("-")
    return digest == expected_digest and (not parts or parts == expected_parts)


def described(client: S3Client, bucket: str, prefix: str) -> str:
    """Return the store's name for people: URL and, for other services than AWS, the host."""
    endpoint = urlsplit(client.meta.endpoint_url)
    host = endpoint.hostname or ""
    if host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return f"s3://{bucket}/{prefix}"
    port = f":{endpoint.port}" if endpoint.port else ""
    return f"s3://{bucket}/{prefix} at {host}{port}"
