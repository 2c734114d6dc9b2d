"""Ed25519 (RFC 8032) keys in PEM, as ``openssl genpkey -algorithm ed25519`` makes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from include.services.errors import UsageError

MAKE_ONE = "Make one with `openssl genpkey -algorithm ed25519`."


def generate_key() -> bytes:
    """Return a new private key as PKCS #8 PEM, without a passphrase."""
    return Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


@dataclass(frozen=True)
class Signer:
    """Holds the private key that seals evidence."""

    key: Ed25519PrivateKey

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: bytes | None = None) -> Self:
        """Read a private key.

        Raises:
            UsageError: no private key, another kind of key, or the wrong passphrase.
        """
        try:
            key = load_pem_private_key(pem, passphrase)
        except TypeError as error:
            problem = "needs a passphrase" if passphrase is None else "has no passphrase"
            raise UsageError(f"The evidence signing key {problem}.") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise UsageError(
                "The evidence signing key is no private key in PEM, or its passphrase is wrong.",
                MAKE_ONE,
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise UsageError("The evidence signing key is not an Ed25519 key.", MAKE_ONE)
        return cls(key)

    @property
    def public_pem(self) -> bytes:
        """The public key as PEM."""
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key in DER (SubjectPublicKeyInfo), 64 hex digits."""
        return _fingerprint(self.key.public_key())

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of the signature over ``data``."""
        return self.key.sign(data)


def fingerprint(public_pem: bytes) -> str:
    """Return a public key's fingerprint: SHA-256 of its DER form, 64 hex digits.

    Raises:
        UsageError: not an Ed25519 public key.
    """
    return _fingerprint(_load_public(public_pem))


def verify(public_pem: bytes, signature: bytes, data: bytes) -> bool:
    """Return whether the signature over ``data`` was made with the private half of the key.

    Raises:
        UsageError: not an Ed25519 public key.
    """
    return _verified(_load_public(public_pem), signature, data)


def _verified(key: Ed25519PublicKey, signature: bytes, data: bytes) -> bool:
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


class TrustedKeys:
    """The public keys whose seals count; more than one after a key was rotated.

    Raises:
        UsageError: one of them is no Ed25519 public key, or there is none.
    """

    def __init__(self, public_pems: Iterable[bytes]) -> None:
        keys = map(_load_public, public_pems)  # once: pages hold hundreds of rows against them
        self._by_fingerprint = {_fingerprint(key): key for key in keys}
        if not self._by_fingerprint:
            raise UsageError("No trusted evidence key was named.")

    @property
    def fingerprints(self) -> list[str]:
        """The fingerprints of the keys, in the order given."""
        return list(self._by_fingerprint)

    def signed_by(self, key_fingerprint: str, signature: bytes, data: bytes) -> bool:
        """Return whether the named key is trusted and made this signature."""
        key = self._by_fingerprint.get(key_fingerprint)
        return key is not None and _verified(key, signature, data)

    def who_signed(self, signature: bytes, data: bytes) -> str | None:
        """Return the fingerprint of the trusted key that made the signature, if one did."""
        return next((fp for fp in self.fingerprints if self.signed_by(fp, signature, data)), None)


def _load_public(pem: bytes) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(
            "The evidence key is no public key in PEM.",
            "Take it from the private one with `openssl pkey -pubout`.",
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError("The evidence key is not an Ed25519 public key.", MAKE_ONE)
    return key


def _fingerprint(key: Ed25519PublicKey) -> str:
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return sha256(der).hexdigest()
