"""Encrypt and decrypt streams in the message format of the AWS Encryption SDK.

The module uses the key-committing algorithm suite that adds no signature to the end of a message. A
reader could verify such a signature only after it had used all data of the message. Instead, each
frame of 1 MiB is authenticated, so the decryption never outputs data that was tampered with. A
signed manifest or a signed evidence bundle records the digest of each encrypted message.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol, Self, cast

from botocore.exceptions import BotoCoreError
from cryptography.exceptions import InvalidTag

from include.encryption.recipients import OpeningKey, Recipient
from include.frozen import StrictModel
from include.services.errors import ControlFailed, ServiceError, UsageError

SUITE = "AES_256_GCM_HKDF_SHA512_COMMIT_KEY"
FRAME = 1024 * 1024  # bytes; 4 KiB frames run fifty times slower
MOST_RECIPIENTS = 10
PROVIDER = "parcelseal-rsa"
WRAPPING = "RSA_OAEP_SHA256_MGF1"


class ContentRefused(ControlFailed):
    """Raised when a key cannot decrypt a message, or when the encrypted message was changed."""


class Readable(Protocol):
    """An object with the method ``read(size)``.

    If ``read`` returns fewer bytes than requested, the data has ended.
    """

    def read(self, size: int = -1, /) -> bytes:
        """Return ``size`` bytes, or fewer at the end of the data.

        Args:
            size: number of bytes; -1 for all remaining bytes.
        """
        ...


def encrypting(
    source: Readable, recipients: Sequence[Recipient], context: Mapping[str, str]
) -> Readable:
    """Return a stream of the encrypted message for a stream of plaintext.

    Args:
        source: stream of the plaintext. Each ``read`` must return the requested number of bytes,
            except at the end.
        recipients: holders of keys. Each recipient can decrypt the message without the others.
        context: encryption context. It names the subject of the message, such as the id of a
            restore point or an incident. It is not secret. If it was changed, the decryption fails.

    Raises:
        UsageError: `recipients` is empty, or has more than `MOST_RECIPIENTS` entries.
    """
    if not recipients:
        raise UsageError(
            "No recipient is configured, so the data could never be decrypted.",
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
        from include.encryption.keyrings import SDK_ERRORS

        try:
            if self._stream is None:
                self._stream = self._open()
            return cast(bytes, self._stream.read(size))
        except (*SDK_ERRORS, BotoCoreError) as error:
            raise ServiceError(
                f"The data could not be encrypted: {_kms_reason(error)}.",
                "Check the recipients' KMS keys, their grants and the way to them.",
            ) from None

    def _open(self) -> Any:
        from include.encryption import keyrings

        return keyrings.client(MOST_RECIPIENTS).stream(
            mode="e",
            source=self._source,
            keyring=keyrings.sealing_keyring(self._recipients, PROVIDER),
            algorithm=keyrings.algorithm(SUITE),
            frame_length=FRAME,
            encryption_context=dict(self._context),
        )


def decrypting(
    source: Readable, key: OpeningKey, context: Mapping[str, str], name: str
) -> Readable:
    """Return a stream of the plaintext of an encrypted message.

    Reading the stream raises ContentRefused if the key is wrong, or if the message was tampered
    with, truncated, or encrypted with another context. Reading raises ServiceError if the key is a
    KMS key and the KMS cannot be used.

    Args:
        source: encrypted message.
        key: key of one recipient.
        context: values that must be in the encryption context of the message.
        name: name of the encrypted object, for the error message.
    """
    return _Decrypting(source, key, context, name)


class _Decrypting:
    def __init__(
        self, source: Readable, key: OpeningKey, context: Mapping[str, str], name: str
    ) -> None:
        from include.encryption import keyrings

        self._stream = keyrings.client(MOST_RECIPIENTS).stream(
            mode="d", source=source, keyring=keyrings.opening_keyring(key, PROVIDER)
        )
        self._expected = dict(context)
        self._name = name
        self._checked = False

    def __del__(self) -> None:
        # The SDK's own close() raises an error for a message that was not read to its end. Python
        # 3.13 would write that into the log of a drill, which expects the refusal.
        if "_stream" in vars(self):
            io.IOBase.close(self._stream)

    def read(self, size: int = -1) -> bytes:
        from include.encryption.keyrings import SDK_ERRORS

        try:
            if not self._checked:
                self._check_context()
            return cast(bytes, self._stream.read(size))
        except BotoCoreError as error:
            raise ServiceError(
                f"The KMS key of {self._name} cannot be used: {_kms_reason(error)}.",
                "Check the connection's KMS endpoint, region and credentials.",
            ) from None
        except (*SDK_ERRORS, InvalidTag, ValueError, TypeError) as error:
            # TypeError and ValueError: the SDK fails so on a message that is cut inside a field.
            raise ContentRefused(
                f"{self._name} cannot be opened: {_reason(error)}.",
                "Use a key of one of its recipients. If the key belongs to a recipient, the "
                "object is damaged.",
            ) from None

    def _check_context(self) -> None:
        context = self._stream.header.encryption_context
        if any(context.get(key) != value for key, value in self._expected.items()):
            raise ContentRefused(
                f"{self._name} was encrypted as another object, not as this one.",
                "Objects were swapped in the store: use another copy, raise an incident.",
            )
        self._checked = True


def _reason(error: Exception) -> str:
    from include.encryption.keyrings import lacks_data_key

    kind = type(error).__name__
    if lacks_data_key(error):
        return "the key does not belong to any of its recipients"
    if kind == "InvalidTag":
        return "its bytes were changed after encryption"
    if kind == "MaxEncryptedDataKeysExceeded":
        return f"it names more recipients than the {MOST_RECIPIENTS} that the format allows"
    return f"its bytes are incomplete or were changed ({kind})"


def _kms_reason(error: Exception) -> str:
    # The SDK's own text has keys and causes, but no clear byte.
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


class RecipientRecord(StrictModel):
    """A recipient, without the key, as a manifest or evidence bundle records it.

    Attributes:
        name: name of the recipient in the connection.
        kind: type of the recipient's key.
        key_id: SHA-256 (hex) of an RSA public key, or the ARN of a KMS key.
        expires_at: end of validity of the recipient's certificate; None if the recipient has no
            certificate.
    """

    name: str
    kind: Literal["rsa", "kms"]
    key_id: str
    expires_at: datetime | None = None

    @classmethod
    def of(cls, recipient: Recipient) -> Self:
        """Return the record that describes a recipient."""
        return cls.model_validate(recipient, from_attributes=True)


class EncryptionRecord(StrictModel):
    """The format and parameters with which an object was encrypted.

    Attributes:
        format: name of the message format.
        suite: name of the algorithm suite.
        frame_bytes: size of a frame in bytes.
        wrapping: algorithm that encrypts the data key for RSA recipients.
        provider: key namespace that the message states for its RSA keys.
        context: encryption context, as passed to `encrypting`. If it was changed, the decryption
            fails.
    """

    format: str = "AWS Encryption SDK message, version 2"
    suite: str
    frame_bytes: int
    wrapping: str
    provider: str
    context: dict[str, str]

    @classmethod
    def of(cls, context: Mapping[str, str]) -> Self:
        """Return the parameters that `encrypting` uses for the given encryption context."""
        return cls(
            suite=SUITE,
            frame_bytes=FRAME,
            wrapping=WRAPPING,
            provider=PROVIDER,
            context=dict(context),
        )
