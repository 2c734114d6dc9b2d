"""Recipients of encrypted data: public keys and KMS keys. Encryption needs no private key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from include.services.errors import UsageError

RSA_BITS = 4096  # BSI TR-02102-1 asks for 3000 and more beyond 2023
CERTIFICATE_YEARS = 2
RSA_KIND = "rsa"
KMS_KIND = "kms"


@dataclass(frozen=True)
class Recipient:
    """A key that can open encrypted data.

    Attributes:
        name: as the connection and the records call it, ``operations``.
        kind: ``rsa`` or ``kms``.
        key_id: SHA-256 of the public key's DER (hex) for RSA, the ARN for KMS.
        public_pem: the public key, empty for KMS.
        expires_at: end of the certificate, None for a bare key or KMS.
        client: the KMS client of a ``kms`` recipient.
    """

    name: str
    kind: str
    key_id: str
    public_pem: bytes = b""
    expires_at: datetime | None = None
    client: Any = None

    def expired(self, moment: datetime) -> bool:
        """Return whether the certificate has expired at that moment."""
        return self.expires_at is not None and self.expires_at <= moment


def recipient_from_pem(name: str, pem: bytes) -> Recipient:
    """Read an RSA recipient from a PEM certificate (which has an expiry) or public key.

    Raises:
        UsageError: it is neither, or not an RSA key of at least 3072 bits.
    """
    expires_at = None
    try:
        if b"CERTIFICATE" in pem:
            certificate = x509.load_pem_x509_certificate(pem)
            key, expires_at = certificate.public_key(), certificate.not_valid_after_utc
        else:
            key = serialization.load_pem_public_key(pem)  # type: ignore[assignment] # narrowed below
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(
            f"Recipient {name}: this is neither a PEM certificate nor a PEM public key.",
            "Create a pair with ./parcelseal keys new NAME and give the .crt file.",
        ) from None
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < 3072:
        raise UsageError(
            f"Recipient {name}: the key is not RSA of at least 3072 bits.",
            "Create a pair with ./parcelseal keys new NAME.",
        )
    return Recipient(name, RSA_KIND, public_key_id(key), _public_pem(key), expires_at)


def recipient_from_kms(name: str, arn: str, client: Any) -> Recipient:
    """Make a recipient of an AWS KMS key."""
    return Recipient(name, KMS_KIND, arn, client=client)


@dataclass(frozen=True)
class UnreadableRecipient:
    """A recipient that is configured and cannot be used."""

    name: str
    reason: str


@dataclass(frozen=True)
class OpeningKey:
    """A key that opens: an RSA private key, or a KMS key with its client."""

    kind: str
    key_id: str
    private_pem: bytes = b""
    client: Any = None

    def __repr__(self) -> str:
        return f"OpeningKey({self.kind}, {self.key_id[:16]})"


def opening_key_from_pem(pem: bytes, where: str) -> OpeningKey:
    """Read an RSA private key.

    Args:
        pem: the file's content.
        where: names the file in the error.

    Raises:
        UsageError: not an unencrypted RSA private key.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UsageError(
            f"{where} is not an unencrypted PEM private key.",
            "If it has a passphrase: openssl pkey -in KEY -out /dev/shm/key.pem",
        ) from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise UsageError(f"{where} is not an RSA private key.", "Give the key of a recipient.")
    return OpeningKey(RSA_KIND, public_key_id(key.public_key()), private_pem(key))


def new_pair(name: str, now: datetime, *, bits: int = RSA_BITS) -> tuple[bytes, bytes]:
    """Make an RSA pair; returns (private key PEM, self-signed certificate PEM).

    The certificate only carries the public key and its expiry; its name needs no trust.
    """
    private = new_key(bits)
    return private, certificate_of(name, private, now)


def new_key(bits: int = RSA_BITS) -> bytes:
    """Make the private half of a pair; returns PEM."""
    return private_pem(rsa.generate_private_key(public_exponent=65537, key_size=bits))


def private_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PKCS #8 PEM, without a passphrase."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def certificate_of(name: str, private: bytes, now: datetime) -> bytes:
    """Make the certificate of an existing private key; returns PEM.

    Raises:
        UsageError: it is no RSA key in PEM without a passphrase.
    """
    key = _rsa_key(name, private)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ParcelSeal {name}"[:64])])
    builder = certificate_builder(subject, subject, key.public_key(), now, CERTIFICATE_YEARS)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def certificate_builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    now: datetime,
    years: int,
) -> x509.CertificateBuilder:
    """Return a certificate to sign that is valid from five minutes before ``now``."""
    start = now.astimezone(UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - timedelta(minutes=5))
        .not_valid_after(start + timedelta(days=365 * years))
    )


def belong_together(name: str, private: bytes, certificate: bytes) -> bool:
    """Return whether a certificate is of a private key; both are PEM, the name is for messages.

    Raises:
        UsageError: one of them cannot be read.
    """
    try:
        public = x509.load_pem_x509_certificate(certificate).public_key()
    except ValueError:
        raise UsageError(f"The certificate of {name} cannot be read.") from None
    return public == _rsa_key(name, private).public_key()


def _rsa_key(name: str, private: bytes) -> rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(private, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise UsageError(f"The private key of {name} is no RSA key in PEM without a passphrase.")
    return key


def public_key_id(key: rsa.RSAPublicKey) -> str:
    """Return SHA-256 (hex) of the key's DER SubjectPublicKeyInfo, as ``openssl`` computes it."""
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return sha256(der).hexdigest()


def distinct(recipients: Sequence[Recipient]) -> int:
    """Count different keys: the same key under two names is one recipient."""
    return len({recipient.key_id for recipient in recipients})


def _public_pem(key: rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def faults_of_recipients(
    usable: Sequence[Recipient], unusable: Sequence[UnreadableRecipient], minimum: int
) -> list[str]:
    """Return why the recipients of the connection offsite_store do not satisfy the policy pack.

    Args:
        usable: recipients whose keys can be used.
        unusable: recipients whose keys cannot be used.
        minimum: recipients that the pack asks for.
    """
    faults = [f"Recipient {recipient.name}: {recipient.reason}" for recipient in unusable]
    if len(usable) < minimum:
        faults.append(
            f"The connection offsite_store names {len(usable)} usable recipients; the policy "
            f"pack asks for {minimum}."
        )
    return faults
