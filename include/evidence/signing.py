"""Sign and verify data with Ed25519 keys (RFC 8032).

Keys are in PEM, in the format of ``openssl genpkey -algorithm ed25519``.
"""

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
    """The private key with which evidence bundles are signed."""

    key: Ed25519PrivateKey

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: bytes | None = None) -> Self:
        """Return a signer with a private key in PEM.

        Args:
            pem: the private key.
            passphrase: passphrase of the key; None if the key has no passphrase.

        Raises:
            UsageError: the content is not a private key in PEM, the key is not an Ed25519 key, or
                the passphrase is wrong or missing.
        """
        try:
            key = load_pem_private_key(pem, passphrase)
        except TypeError as error:
            problem = "needs a passphrase" if passphrase is None else "has no passphrase"
            raise UsageError(f"The evidence signing key {problem}.") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise UsageError(
                "The evidence signing key is not a private key in PEM format, or its "
                "passphrase is wrong.",
                MAKE_ONE,
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise UsageError("The evidence signing key is not an Ed25519 key.", MAKE_ONE)
        return cls(key)

    @property
    def public_pem(self) -> bytes:
        """Return the public key in PEM."""
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 digest of the DER-encoded public key as 64 hex digits.

        The DER encoding is SubjectPublicKeyInfo.
        """
        return _fingerprint(self.key.public_key())

    def sign(self, data: bytes) -> bytes:
        """Return the Ed25519 signature over ``data``, 64 bytes long."""
        return self.key.sign(data)


def fingerprint(public_pem: bytes) -> str:
    """Return the SHA-256 digest of a public key in DER encoding as 64 hex digits.

    The DER encoding is SubjectPublicKeyInfo.

    Raises:
        UsageError: the content is not an Ed25519 public key in PEM.
    """
    return _fingerprint(_load_public(public_pem))


def verify(public_pem: bytes, signature: bytes, data: bytes) -> bool:
    """Return whether a signature over ``data`` is valid for a public key.

    Args:
        public_pem: public key of the expected signer, in PEM.
        signature: the Ed25519 signature.
        data: the signed bytes.

    Raises:
        UsageError: the content is not an Ed25519 public key in PEM.
    """
    return _verified(_load_public(public_pem), signature, data)


def _verified(key: Ed25519PublicKey, signature: bytes, data: bytes) -> bool:
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


class TrustedKeys:
    """The public keys whose signatures are accepted, at least one.

    Keys that a newer key has replaced can stay trusted, so that the bundles they signed stay valid.

    Raises:
        UsageError: a key is not an Ed25519 public key in PEM, or no key was given.
    """

    def __init__(self, public_pems: Iterable[bytes]) -> None:
        keys = map(_load_public, public_pems)  # once: pages hold hundreds of rows against them
        self._by_fingerprint = {_fingerprint(key): key for key in keys}
        if not self._by_fingerprint:
            raise UsageError("No trusted public key for evidence is configured.")

    @property
    def fingerprints(self) -> list[str]:
        """Return the fingerprints of the keys, in the order in which the keys were given."""
        return list(self._by_fingerprint)

    def signed_by(self, key_fingerprint: str, signature: bytes, data: bytes) -> bool:
        """Return whether the key with a certain fingerprint is trusted and signed ``data``.

        Args:
            key_fingerprint: fingerprint of the key.
            signature: the Ed25519 signature.
            data: the signed bytes.
        """
        key = self._by_fingerprint.get(key_fingerprint)
        return key is not None and _verified(key, signature, data)

    def signer_of(self, signature: bytes, data: bytes) -> str | None:
        """Return the fingerprint of the trusted key that signed ``data``.

        Return None if no trusted key signed it.
        """
        return next((fp for fp in self.fingerprints if self.signed_by(fp, signature, data)), None)


def _load_public(pem: bytes) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(
            "The public evidence key is not a public key in PEM format.",
            "Create the file from the private key with `openssl pkey -pubout`.",
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError("The evidence key is not an Ed25519 public key.", MAKE_ONE)
    return key


def _fingerprint(key: Ed25519PublicKey) -> str:
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return sha256(der).hexdigest()
