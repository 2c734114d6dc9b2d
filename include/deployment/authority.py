"""Create the certificate authority and the server certificates of the Docker Compose stack.

The private key of the authority stays in the private folder of the deployment.
"""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from include.encryption.recipients import certificate_builder, private_pem
from include.services.errors import UsageError

YEARS = 5  # of the authority and of servers; docs/reference/stack.md says how to renew them


def new_authority_key() -> bytes:
    """Generate the private key of a certificate authority, and return it as PEM."""
    return private_pem(ec.generate_private_key(ec.SECP256R1()))


def authority_of(private: bytes, now: datetime) -> bytes:
    """Create the certificate of a certificate authority from its private key; return PEM.

    Args:
        private: private key of the authority as PEM.
        now: current time, at which the validity of the certificate starts.

    Raises:
        UsageError: the key cannot be read.
    """
    key = _authority_key(private)
    name = _name("ParcelSeal deployment")
    certificate = (
        certificate_builder(name, name, key.public_key(), now, YEARS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _authority_key(private: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(private, None)
    except (ValueError, TypeError):
        raise UsageError(
            "The authority's key cannot be read.",
            "Restore `authority.key` from your backup of the private folder.",
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UsageError("The authority's key has another type than `compose init` creates.")
    return key


def new_server(
    host: str, authority_key: bytes, authority: bytes, now: datetime
) -> tuple[bytes, bytes]:
    """Create the private key and the certificate of a server, and return both as PEM.

    Args:
        host: host name to which clients connect. ``localhost`` is added for the server's own health
            checks.
        authority_key: private key of the certificate authority as PEM.
        authority: certificate of the certificate authority as PEM.
        now: current time, at which the validity of the certificate starts.

    Raises:
        UsageError: the key or the certificate of the authority cannot be read.
    """
    signer = _authority_key(authority_key)
    try:
        issuer = x509.load_pem_x509_certificate(authority)
    except ValueError:
        raise UsageError(
            "The authority's certificate cannot be read.",
            "Restore `ca_certificate` from your backup of the private folder.",
        ) from None
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName(host), x509.DNSName("localhost")]
    issuer_key = x509.SubjectKeyIdentifier.from_public_key(signer.public_key())
    certificate = (
        certificate_builder(_name(host), issuer.subject, key.public_key(), now, YEARS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key),
            critical=False,
        )
        .sign(signer, hashes.SHA256())
    )
    return private_pem(key), certificate.public_bytes(serialization.Encoding.PEM)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
