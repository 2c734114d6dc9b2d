"""Key pairs of recipients. Each is generated once per process, because this takes long."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from include.encryption.recipients import (
    OpeningKey,
    Recipient,
    new_pair,
    opening_key_from_pem,
    recipient_from_pem,
)

NOW = datetime.now(UTC)  # noqa: TID251 - certificates and locks follow the real clock


@dataclass(frozen=True)
class Holder:
    """A recipient with its private key."""

    recipient: Recipient
    opening: OpeningKey
    private_pem: bytes
    certificate_pem: bytes


@functools.cache
def holder(name: str) -> Holder:
    """Return the key pair of a recipient."""
    private, certificate = new_pair(name, NOW, bits=3072)
    return Holder(
        recipient_from_pem(name, certificate),
        opening_key_from_pem(private, f"{name}.key"),
        private,
        certificate,
    )


@pytest.fixture(scope="session")
def operations() -> Holder:
    return holder("operations")


@pytest.fixture(scope="session")
def offline() -> Holder:
    return holder("offline")


@pytest.fixture(scope="session")
def stranger() -> OpeningKey:
    return holder("stranger").opening


@pytest.fixture(scope="session")
def recipients(operations: Holder, offline: Holder) -> list[Recipient]:
    return [operations.recipient, offline.recipient]
