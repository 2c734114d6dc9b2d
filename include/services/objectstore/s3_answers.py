"""Read objects and errors from the responses of S3.

Error messages of this module do not quote the error text of the service.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import urllib3.exceptions
from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError, ClientError

from include.services.objectstore.base import ObjectMissing, StoredObject, StoreError
from include.services.objectstore.keys import checked_key

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef


def stored_object(key: str, head: HeadObjectOutputTypeDef) -> StoredObject:
    """Return the metadata of an object from the response to a HEAD request.

    Args:
        key: key of the object in the store, without the store's prefix.
        head: response of S3.
    """
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


def is_comparable(expected: str, stored: str) -> bool:
    """Return whether two checksums are of the same type: both ETags, or both SHA-256."""
    return expected.startswith("etag:") == stored.startswith("etag:")


def is_same_checksum(expected: str, stored: str) -> bool:
    """Return whether two checksums are equal.

    After a multipart upload, the number of parts follows the digest. Some services omit this
    number. If ``stored`` has no number of parts, only the digests are compared.

    Args:
        expected: checksum that S3 has to report.
        stored: checksum that S3 reports.
    """
    if expected.startswith("etag:"):
        return expected == stored
    expected_digest, _, expected_parts = expected.partition("-")
    digest, _, parts = stored.partition("-")
    return digest == expected_digest and (not parts or parts == expected_parts)


TRY_AGAIN = "Try again later. If the error continues, check the status page of the service."
CHECK_CONNECTION = "Check the endpoint and region in the connection, the network and the firewall."
CHECK_CERTIFICATE = "Name the file of the certificate's authority in the connection."
CHECK_CREDENTIALS = "Check the access key and the secret in the connection."

_REASONS = {
    "NoSuchBucket": (
        "the bucket does not exist",
        "Create it with versioning and Object Lock, or correct the connection.",
    ),
    "NoSuchUpload": ("the upload was removed meanwhile", "Run the job again."),
    "PreconditionFailed": ("the object was replaced meanwhile", "Run the job again."),
    "InvalidAccessKeyId": ("the access key is not known", CHECK_CREDENTIALS),
    "SignatureDoesNotMatch": ("the secret is wrong", CHECK_CREDENTIALS),
    "InvalidToken": ("the credentials are not valid", CHECK_CREDENTIALS),
    "ExpiredToken": ("the credentials have expired", "Renew them in the connection."),
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "Set its clock by NTP."),
    "EntityTooLarge": ("the object is too large", "Split the database into shards."),
    "InvalidRetentionPeriod": ("the end of the lock is not allowed", "Choose a later moment."),
    "ObjectLockConfigurationNotFoundError": (
        "the bucket has no Object Lock",
        "Turn Object Lock on for the bucket.",
    ),
}
_DENIED = {"AccessDenied", "AllAccessDisabled", "401", "403", "AccountProblem"}
_ACCOUNT = {"NoSuchBucket", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"}
_THROTTLED = {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "429"}
_MISSING = {"NoSuchKey", "NoSuchVersion", "404", "NotFound", "405", "MethodNotAllowed"}

# Errors that can interrupt the reading of a response body.
BODY_ERRORS = (BotoCoreError, urllib3.exceptions.HTTPError, OSError)


def error_code(error: Exception) -> str:
    """Return S3's error code, such as ``NoSuchKey``; empty if the service did not respond."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


def is_missing(error: Exception) -> bool:
    """Return whether the service reported that an object or bucket does not exist."""
    return error_code(error) in _MISSING


def is_denied(error: Exception) -> bool:
    """Return whether the service refused permission."""
    return error_code(error) in _DENIED


def needs_a_person(error: Exception) -> bool:
    """Return whether a request fails until a person changes the account, bucket or certificate."""
    local = boto.NoCredentialsError | boto.PartialCredentialsError | boto.SSLError
    return isinstance(error, local) or error_code(error) in _DENIED | _ACCOUNT


def is_lock_refusal(error: Exception) -> bool:
    """Return whether the text of a response says that a lock prevents the request.

    AWS and Ceph return AccessDenied with a text about Object Lock. MinIO returns the text "WORM
    protected".
    """
    if not isinstance(error, ClientError):
        return False
    text = str(error.response.get("Error", {}).get("Message", "")).lower()
    return any(word in text for word in ("object lock", "worm", "retention"))


def reason_and_action(error: Exception) -> tuple[str, str]:
    """Return two texts for users: the cause of a request's failure, and a corrective action.

    The error text of the service is not used.
    """
    if isinstance(error, ClientError):
        return _answer_reason(error)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return "no complete credentials were given", CHECK_CREDENTIALS
    if isinstance(error, boto.SSLError | urllib3.exceptions.SSLError):
        return "its TLS certificate was not accepted", CHECK_CERTIFICATE
    if isinstance(error, boto.ReadTimeoutError | urllib3.exceptions.TimeoutError):
        return "the service did not answer in time", CHECK_CONNECTION
    unreachable = boto.ConnectionError | boto.HTTPClientError | urllib3.exceptions.HTTPError
    if isinstance(error, unreachable | OSError):
        return "the service cannot be reached or drops the connection", CHECK_CONNECTION
    return f"the request could not be made ({type(error).__name__})", CHECK_CONNECTION


def _answer_reason(error: ClientError) -> tuple[str, str]:
    code = error_code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _REASONS:
        return _REASONS[code]
    if code in _DENIED:
        return (
            f"{error.operation_name} is denied",
            "Grant this permission to the connection's account.",
        )
    if code in _THROTTLED or status in {429, 503}:
        return "the service throttles requests, also after retries", TRY_AGAIN
    if status >= 500:
        return f"the service failed ({_plain(code)}), also after retries", TRY_AGAIN
    return (
        f"the service refused {error.operation_name} ({_plain(code)})",
        "Check that the bucket has versioning and Object Lock, and its policy.",
    )


def _plain(code: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]", "", code)[:64] or "no code"


@dataclass(frozen=True)
class Bucket:
    """An S3 bucket, or the part of it whose keys have a common prefix.

    Attributes:
        client: client of boto3.
        name: name of the bucket.
        prefix: common prefix of all keys, with a trailing slash; empty for the whole bucket.
    """

    client: S3Client
    name: str
    prefix: str

    @cached_property
    def store(self) -> str:
        """Return the S3 URL of the store for messages.

        If the host is not a host of AWS, the result also names the host.
        """
        endpoint = urlsplit(self.client.meta.endpoint_url)
        host = endpoint.hostname or ""
        if host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
            return f"s3://{self.name}/{self.prefix}"
        port = f":{endpoint.port}" if endpoint.port else ""
        return f"s3://{self.name}/{self.prefix} at {host}{port}"

    def full_key(self, key: str) -> str:
        """Return the key of an object in the bucket, including the prefix of the store.

        Raises:
            UsageError: the key is not valid.
        """
        return self.prefix + checked_key(key)

    @contextmanager
    def naming(self, doing: str, key: str = "") -> Iterator[None]:
        """Convert a boto3 error of the block to a StoreError that names the store and the object.

        Args:
            doing: attempted operation as a verb, such as ``read``.
            key: key of the object; empty for an operation on the store.

        Raises:
            ObjectMissing: the object does not exist.
            StoreError: any other error was raised.
        """
        try:
            yield
        except (BotoCoreError, ClientError, urllib3.exceptions.HTTPError, OSError) as error:
            raise self.translated(error, doing, key) from error

    def translated(self, error: Exception, doing: str, key: str = "") -> StoreError:
        """Return the StoreError for an error of boto3.

        Args:
            error: error of boto3.
            doing: attempted operation as a verb, such as ``read``.
            key: key of the object; empty for an operation on the store.
        """
        if key and is_missing(error):
            return ObjectMissing(f"There is no object {key!r} in {self.store}.")
        reason, action = reason_and_action(error)
        attempt = f"{doing} {key!r} in {self.store}" if key else f"{doing} {self.store}"
        failure = StoreError(f"Cannot {attempt}: {reason}.", action)
        failure.is_permanent = needs_a_person(error)
        return failure
