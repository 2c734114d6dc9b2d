"""Encrypt streams in the AWS Encryption SDK message format, and record how to open them.

It uses the committing suite without a trailing signature: the manifest or bundle that names a
message is signed, and a signature at the end of a stream would be known only after the data was
used. Frames of 1 MiB are each authenticated, so nothing that was tampered with leaves the
decryptor.
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
            # TypeError and ValueError: the SDK trips over a message that is cut inside a field.
            raise Refused(
                f"{self._name} cannot be opened: {_reason(error)}.",
                "Use a key of one of its recipients; if it is one, the object is damaged.",
            ) from None

    def _check_context(self) -> None:
        context = self._stream.header.encryption_context
        if any(context.get(key) != value for key, value in self._expected.items()):
            raise Refused(
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
    # The SDK's own text names keys and causes; it holds no clear byte.
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


class RecipientRecord(StrictModel):
    """A key that opens the object."""

    name: str
    kind: Literal["rsa", "kms"]
    key_id: str
    expires_at: datetime | None = None

    @classmethod
    def of(cls, recipient: Recipient) -> Self:
        """Record a recipient."""
        return cls.model_validate(recipient, from_attributes=True)


class EncryptionRecord(StrictModel):
    """The encryption of the object; its context is authenticated."""

    format: str = "AWS Encryption SDK message, version 2"
    suite: str
    frame_bytes: int
    wrapping: str
    provider: str
    context: dict[str, str]

    @classmethod
    def of(cls, context: Mapping[str, str]) -> Self:
        """Record how `encrypting` works, and to what it binds a message."""
        return cls(
            suite=SUITE,
            frame_bytes=FRAME,
            wrapping=WRAPPING,
            provider=PROVIDER,
            context=dict(context),
        )
