"""Facts and errors in the answers of S3, without the service's own text."""

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


def is_comparable(expected: str, stored: str) -> bool:
    """Return whether two checksums are of the same kind."""
    return expected.startswith("etag:") == stored.startswith("etag:")


def is_same_checksum(expected: str, stored: str) -> bool:
    """Return whether two checksums agree; some services leave out the number of parts."""
    if expected.startswith("etag:"):
        return expected == stored
    expected_digest, _, expected_parts = expected.partition("-")
    digest, _, parts = stored.partition("-")
    return digest == expected_digest and (not parts or parts == expected_parts)


TRY_AGAIN = "Try again later; if it stays so, look at the service's status page."
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

# Everything that can end the reading of a body half-way.
BODY_ERRORS = (BotoCoreError, urllib3.exceptions.HTTPError, OSError)


def error_code(error: Exception) -> str:
    """Return S3's error code, such as ``NoSuchKey``; empty when the service did not answer."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


def is_missing(error: Exception) -> bool:
    """Return whether the service answered that there is no such object."""
    return error_code(error) in _MISSING


def is_denied(error: Exception) -> bool:
    """Return whether the service refused permission."""
    return error_code(error) in _DENIED


def needs_a_person(error: Exception) -> bool:
    """Return whether only a change of account, bucket or certificate removes an error."""
    local = boto.NoCredentialsError | boto.PartialCredentialsError | boto.SSLError
    return isinstance(error, local) or error_code(error) in _DENIED | _ACCOUNT


def is_lock_refusal(error: Exception) -> bool:
    """Return whether the refusal names a lock.

    AWS and Ceph answer AccessDenied with a text naming Object Lock; MinIO says WORM protected.
    """
    if not isinstance(error, ClientError):
        return False
    text = str(error.response.get("Error", {}).get("Message", "")).lower()
    return any(word in text for word in ("object lock", "worm", "retention"))


def reason_and_action(error: Exception) -> tuple[str, str]:
    """Return why a call failed and the action, without any text of the service."""
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
    """The part of an S3 bucket under a prefix. It names the store in the errors it makes.

    Attributes:
        client: of boto3.
        name: of the bucket.
        prefix: of all keys, with a slash at its end; empty for the whole bucket.
    """

    client: S3Client
    name: str
    prefix: str

    @cached_property
    def store(self) -> str:
        """The store's name for people: URL and, for other services than AWS, the host."""
        endpoint = urlsplit(self.client.meta.endpoint_url)
        host = endpoint.hostname or ""
        if host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
            return f"s3://{self.name}/{self.prefix}"
        port = f":{endpoint.port}" if endpoint.port else ""
        return f"s3://{self.name}/{self.prefix} at {host}{port}"

    def full_key(self, key: str) -> str:
        """Return the key in the bucket; raises UsageError for one that no store can hold."""
        return self.prefix + checked_key(key)

    @contextmanager
    def naming(self, doing: str, key: str = "") -> Iterator[None]:
        """Turn boto3's errors inside the block into a StoreError.

        Args:
            doing: what was tried, as a verb: ``read``.
            key: the object, where there is one.

        Raises:
            ObjectMissing: there is no such object.
            StoreError: everything else, naming store, key and what to do.
        """
        try:
            yield
        except (BotoCoreError, ClientError, urllib3.exceptions.HTTPError, OSError) as error:
            raise self.translated(error, doing, key) from error

    def translated(self, error: Exception, doing: str, key: str = "") -> StoreError:
        """Return the StoreError that stands for an error of boto3."""
        if key and is_missing(error):
            return ObjectMissing(f"There is no object {key!r} in {self.store}.")
        reason, action = reason_and_action(error)
        attempt = f"{doing} {key!r} in {self.store}" if key else f"{doing} {self.store}"
        failure = StoreError(f"Cannot {attempt}: {reason}.", action)
        failure.is_permanent = needs_a_person(error)
        return failure
