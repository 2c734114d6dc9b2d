"""Encryption of streams in the AWS Encryption SDK message format.

The committing suite without a trailing signature: the manifest or bundle that names a message is
signed, and a signature at the end of a stream would be known only after the data was used. Frames
of 1 MiB are each authenticated, so nothing that was tampered with leaves the decryptor.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import aws_encryption_sdk
from aws_encryption_sdk.exceptions import AWSEncryptionSDKClientError
from aws_encryption_sdk.identifiers import (
    Algorithm,
    CommitmentPolicy,
    EncryptionKeyType,
    WrappingAlgorithm,
)
from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
from aws_encryption_sdk.key_providers.base import MasterKeyProvider
from aws_encryption_sdk.key_providers.kms import KMSMasterKey
from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider
from botocore.exceptions import BotoCoreError
from cryptography.exceptions import InvalidTag

from include.encryption.recipients import KMS_KIND, RSA_KIND, OpeningKey, Recipient
from include.services.errors import ControlFailed, ServiceError, UsageError

SUITE = Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
FRAME = 1024 * 1024  # bytes; 4 KiB frames run fifty times slower
MOST_RECIPIENTS = 10
PROVIDER = "parcelseal-rsa"
WRAPPING = WrappingAlgorithm.RSA_OAEP_SHA256_MGF1


class Refused(ControlFailed):
    """The bytes do not open with this key, or are not what was encrypted."""


class Readable(Protocol):
    """Anything with ``read(size)``; a short answer means the end."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes."""
        ...


def encrypting(
    source: Readable, recipients: Sequence[Recipient], context: Mapping[str, str]
) -> Readable:
    """Return a stream of the encrypted message.

    Args:
        source: clear bytes; must fill each ``read`` until it ends.
        recipients: any one of them can open the message.
        context: authenticated but not secret; binds the message to what it belongs to (a
            restore point, an incident).

    Raises:
        UsageError: no recipient, or more than the format takes.
    """
    if not recipients:
        raise UsageError(
            "There is no recipient, so nobody could open what is encrypted.",
            "Name recipients in the connection offsite_store.",
        )
    if len(recipients) > MOST_RECIPIENTS:
        raise UsageError(
            f"There are {len(recipients)} recipients; the format takes {MOST_RECIPIENTS}.",
            "Leave some out of the connection offsite_store.",
        )
    return _Encrypting(source, recipients, context)


class _Encrypting:
    def __init__(
        self, source: Readable, recipients: Sequence[Recipient], context: Mapping[str, str]
    ) -> None:
        self._source, self._recipients, self._context = source, recipients, context
        self._stream: Any = None

    def read(self, size: int = -1) -> bytes:
        try:
            if self._stream is None:
                self._stream = self._open()
            return cast(bytes, self._stream.read(size))
        except (AWSEncryptionSDKClientError, BotoCoreError) as error:
            raise ServiceError(
                f"The data could not be encrypted: {_kms_reason(error)}.",
                "Check the recipients' KMS keys, their grants and the way to them.",
            ) from None

    def _open(self) -> Any:
        return _client().stream(
            mode="e",
            source=self._source,
            key_provider=_sealing_keys(self._recipients),
            algorithm=SUITE,
            frame_length=FRAME,
            encryption_context=dict(self._context),
        )


def decrypting(
    source: Readable, key: OpeningKey, context: Mapping[str, str], name: str
) -> Readable:
    """Return a stream of the clear bytes.

    Args:
        source: the encrypted message.
        key: of one recipient.
        context: what the message must be bound to.
        name: the object, for the refusal. Reading raises Refused for a wrong key and for bytes
            that were tampered with, truncated or were encrypted as another object, and
            ServiceError when its KMS does not answer.
    """
    return _Decrypting(source, key, context, name)


class _Decrypting:
    def __init__(
        self, source: Readable, key: OpeningKey, context: Mapping[str, str], name: str
    ) -> None:
        self._stream = _client().stream(mode="d", source=source, key_provider=_opening_key(key))
        self._expected = dict(context)
        self._name = name
        self._checked = False

    def __del__(self) -> None:
        # The SDK's own close() complains of a message that was not read to its end. Python 3.13
        # would write that into the log of a drill, where a refusal is what was looked for.
        if "_stream" in vars(self):
            io.IOBase.close(self._stream)

    def read(self, size: int = -1) -> bytes:
        try:
            if not self._checked:
                self._check_context()
            return cast(bytes, self._stream.read(size))
        except BotoCoreError as error:
            raise ServiceError(
                f"The KMS key of {self._name} cannot be used: {_kms_reason(error)}.",
                "Check the connection's KMS endpoint, region and credentials.",
            ) from None
        except (AWSEncryptionSDKClientError, InvalidTag, ValueError, TypeError) as error:
            # TypeError and ValueError: the SDK trips over a message that is cut inside a field.
            raise Refused(
                f"{self._name} cannot be opened: {_reason(error)}.",
                "Use a key of one of its recipients; if it is one, the object is damaged.",
            ) from None

    def _check_context(self) -> None:
        found = self._stream.header.encryption_context
        if any(found.get(key) != value for key, value in self._expected.items()):
            raise Refused(
                f"{self._name} was encrypted as another object, not as this one.",
                "Objects were swapped in the store: use another copy, raise an incident.",
            )
        self._checked = True


def _reason(error: Exception) -> str:
    kind = type(error).__name__
    if kind in {"DecryptKeyError", "MasterKeyProviderError", "IncorrectMasterKeyError"}:
        return "the key does not belong to any of its recipients"
    if kind == "InvalidTag":
        return "its bytes were changed after encryption"
    if kind == "MaxEncryptedDataKeysExceeded":
        return f"it names more recipients than the {MOST_RECIPIENTS} that the format allows"
    return f"its bytes are incomplete or were changed ({kind})"


def _kms_reason(error: Exception) -> str:
    # The SDK's own text names keys and causes; it holds no clear byte.
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _client() -> Any:
    return aws_encryption_sdk.EncryptionSDKClient(
        commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT,
        max_encrypted_data_keys=MOST_RECIPIENTS,
    )


@functools.lru_cache(maxsize=MOST_RECIPIENTS)
def _wrapping_key(pem: bytes, kind: EncryptionKeyType) -> WrappingKey:
    # Reading a private key checks its primes: 0.2 s that every loader of a restore would pay again.
    return WrappingKey(wrapping_algorithm=WRAPPING, wrapping_key=pem, wrapping_key_type=kind)


class _RsaKeys(RawMasterKeyProvider):  # type: ignore[misc] # the SDK has no types
    """The SDK's way to hold RSA keys by their id."""

    provider_id = PROVIDER

    def __init__(self, **_: Any) -> None:
        self._keys: dict[bytes, WrappingKey] = {}

    def _get_raw_key(self, key_id: bytes) -> WrappingKey:
        return self._keys[key_id]

    def hold(self, key_id: str, pem: bytes, kind: EncryptionKeyType) -> None:
        self._keys[key_id.encode()] = _wrapping_key(pem, kind)
        self.add_master_key(key_id.encode())


def _sealing_keys(recipients: Sequence[Recipient]) -> MasterKeyProvider:
    # KMS keys are members of this provider too: a KMSMasterKey ignores members of its own.
    keys = _RsaKeys()
    for recipient in {one.key_id: one for one in recipients}.values():
        if recipient.kind == RSA_KIND:
            keys.hold(recipient.key_id, recipient.public_pem, EncryptionKeyType.PUBLIC)
        else:
            keys.add_master_key_provider(
                KMSMasterKey(key_id=recipient.key_id, client=recipient.client)
            )
    return keys


def _opening_key(key: OpeningKey) -> MasterKeyProvider:
    if key.kind == KMS_KIND:
        return KMSMasterKey(key_id=key.key_id, client=key.client)
    rsa = _RsaKeys()
    rsa.hold(key.key_id, key.private_pem, EncryptionKeyType.PRIVATE)
    return rsa
