"""What is written down of an encrypted object, so that a holder of a key can open it without us."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from include.encryption.recipients import Recipient


class Frozen(BaseModel):
    """A record that is written once."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RecipientRecord(Frozen):
    """A key that opens the object."""

    name: str
    kind: Literal["rsa", "kms"]
    key_id: str
    expires_at: datetime | None = None

    @classmethod
    def of(cls, recipient: Recipient) -> Self:
        """Record a recipient."""
        return cls.model_validate(
            {
                "name": recipient.name,
                "kind": recipient.kind,
                "key_id": recipient.key_id,
                "expires_at": recipient.expires_at,
            }
        )


class EncryptionRecord(Frozen):
    """How the object was encrypted; the context is authenticated with it."""

    format: str = "AWS Encryption SDK message, version 2"
    suite: str
    frame_bytes: int
    wrapping: str
    provider: str
    context: dict[str, str]

    @classmethod
    def of(cls, context: Mapping[str, str]) -> Self:
        """Record how `crypto.encrypting` works, and what it binds a message to."""
        from include.encryption import crypto

        return cls(
            suite=crypto.SUITE,
            frame_bytes=crypto.FRAME,
            wrapping=crypto.WRAPPING,
            provider=crypto.PROVIDER,
            context=dict(context),
        )
