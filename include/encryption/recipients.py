"""Read the keys of recipients, and generate RSA keys and certificates.

A recipient has an RSA key pair or an AWS KMS key. For encryption, ParcelSeal needs only the RSA
public key or the right to use the KMS key.
"""

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

RSA_BITS = 4096  # BSI TR-02102-1 requires at least 3000 after 2023
CERTIFICATE_YEARS = 2
RSA_KIND = "rsa"
KMS_KIND = "kms"


@dataclass(frozen=True)
class Recipient:
    """The holder of a key that decrypts data, with the values that the encryption needs.

    Attributes:
        name: name in the Airflow connection and in manifests or records of what was encrypted, such
            as ``operations``.
        kind: ``rsa`` or ``kms``.
        key_id: for RSA, the SHA-256 (hex) of the public key in DER encoding; for KMS, the ARN.
        public_pem: RSA public key as PEM; empty for KMS.
        expires_at: end of the certificate's validity; None for KMS, or for an RSA public key
            without a certificate.
        client: KMS client of a ``kms`` recipient; None for RSA.
    """

    name: str
    kind: str
    key_id: str
    public_pem: bytes = b""
    expires_at: datetime | None = None
    client: Any = None

    def expired(self, moment: datetime) -> bool:
        """Return whether the recipient's certificate has expired at the given time."""
        return self.expires_at is not None and self.expires_at <= moment


def recipient_from_pem(name: str, pem: bytes) -> Recipient:
    """Return the RSA recipient whose certificate or public key is given as PEM.

    Only a certificate has an expiry date.

    Args:
        name: name of the recipient in the connection.
        pem: certificate or public key.

    Raises:
        UsageError: the PEM is not a certificate or public key, or the key is not an RSA key of at
            least 3072 bits.
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
            f"Recipient {name}: the value is neither a PEM certificate nor a PEM public key.",
            "Create a pair with ./parcelseal keys new NAME and give the .crt file.",
        ) from None
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < 3072:
        raise UsageError(
            f"Recipient {name}: the key is not RSA of at least 3072 bits.",
            "Create a pair with ./parcelseal keys new NAME.",
        )
    return Recipient(name, RSA_KIND, public_key_id(key), _public_pem(key), expires_at)


def recipient_from_kms(name: str, arn: str, client: Any) -> Recipient:
    """Return a recipient whose key is an AWS KMS key.

    Args:
        name: name of the recipient in the connection.
        arn: ARN of the KMS key.
        client: KMS client.
    """
    return Recipient(name, KMS_KIND, arn, client=client)


@dataclass(frozen=True)
class UnreadableRecipient:
    """A recipient in the connection whose key cannot be used.

    Attributes:
        name: name of the recipient in the connection.
        reason: reason why the key cannot be used, as display text.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class OpeningKey:
    """A key that decrypts messages: an RSA private key or a KMS key.

    Attributes:
        kind: ``rsa`` or ``kms``.
        key_id: SHA-256 (hex) of the RSA public key, or the ARN of the KMS key.
        private_pem: RSA private key as PEM; empty for KMS.
        client: KMS client; None for RSA.
    """

    kind: str
    key_id: str
    private_pem: bytes = b""
    client: Any = None

    def __repr__(self) -> str:
        return f"OpeningKey({self.kind}, {self.key_id[:16]})"


def opening_key_from_pem(pem: bytes, where: str) -> OpeningKey:
    """Return the decryption key for an RSA private key in PEM.

    Args:
        pem: content of the key file.
        where: name of the key file, for the error message.

    Raises:
        UsageError: the file does not contain an unencrypted RSA private key.
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
    """Generate an RSA key pair. Return the private key and a self-signed certificate, both as PEM.

    The certificate serves only to store the public key and an expiry date. The name in it is never
    verified.

    Args:
        name: name of the recipient, which becomes part of the certificate's common name.
        now: current time. The certificate is valid for `CERTIFICATE_YEARS` from then.
        bits: size of the key in bits.
    """
    private = new_key(bits)
    return private, certificate_of(name, private, now)


def new_key(bits: int = RSA_BITS) -> bytes:
    """Generate an RSA private key, and return it as PEM."""
    return private_pem(rsa.generate_private_key(public_exponent=65537, key_size=bits))


def private_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key in PKCS #8 format as PEM, without a passphrase."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def certificate_of(name: str, private: bytes, now: datetime) -> bytes:
    """Create a self-signed certificate for an RSA private key, and return it as PEM.

    Args:
        name: name of the recipient, which becomes part of the certificate's common name.
        private: private key as PEM.
        now: current time. The certificate is valid for `CERTIFICATE_YEARS` from then.

    Raises:
        UsageError: the private key is not an unencrypted RSA key in PEM form.
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
    """Return a builder for a certificate that the caller signs.

    Args:
        subject: name of the key's holder.
        issuer: name of the signer.
        key: public key of the holder.
        now: current time. The certificate is valid from five minutes before this time.
        years: number of years for which the certificate is valid.
    """
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


def is_certificate_of_key(name: str, private: bytes, certificate: bytes) -> bool:
    """Return whether a certificate contains the public key of an RSA private key.

    Args:
        name: name of the recipient, for error messages.
        private: private key as PEM.
        certificate: certificate as PEM.

    Raises:
        UsageError: the key or the certificate cannot be read.
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
        raise UsageError(f"The private key of {name} is not an unencrypted RSA key in PEM form.")
    return key


def public_key_id(key: rsa.RSAPublicKey) -> str:
    """Return the id of an RSA public key.

    The id is the SHA-256 (hex) of the DER encoding that ``openssl pkey -pubin -outform DER``
    prints.
    """
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return sha256(der).hexdigest()


def count_distinct_keys(recipients: Sequence[Recipient]) -> int:
    """Return the number of different keys of the recipients."""
    return len({recipient.key_id for recipient in recipients})


def _public_pem(key: rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def recipient_faults(
    usable: Sequence[Recipient], unusable: Sequence[UnreadableRecipient], minimum: int
) -> list[str]:
    """Return why the recipients in offsite_store do not meet the requirements of the policy pack.

    Args:
        usable: recipients whose keys can be used.
        unusable: recipients whose keys cannot be used.
        minimum: number of usable recipients that the policy pack requires.

    Returns:
        One sentence for each reason; an empty list if the recipients meet the requirements of the
        policy pack.
    """
    faults = [f"Recipient {recipient.name}: {recipient.reason}" for recipient in unusable]
    if len(usable) < minimum:
        faults.append(
            f"The connection offsite_store names {len(usable)} usable recipients; the policy "
            f"pack requires {minimum}."
        )
    return faults
