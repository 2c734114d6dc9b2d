"""Test which keys recipients may have, when they expire, and which keys can decrypt."""

from __future__ import annotations

import functools
import hashlib
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from include.encryption.recipients import (
    Recipient,
    count_distinct_keys,
    opening_key_from_pem,
    public_key_id,
    recipient_from_kms,
    recipient_from_pem,
)
from include.services.errors import UsageError
from tests.support.holders import NOW, Holder

PEM, SPKI = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo


def certificate_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(PEM)


def test_certificate_expires_at_its_end_date(operations: Holder):
    """A certificate is valid for two years. At the exact end, it counts as expired."""
    recipient = recipient_from_pem("operations", operations.certificate_pem)
    end = recipient.expires_at
    assert end is not None
    assert end == NOW.replace(microsecond=0) + timedelta(days=730)
    assert not recipient.expired(end - timedelta(seconds=1))
    assert recipient.expired(end)


def test_public_key_without_certificate_never_expires(operations: Holder):
    """The id of the key is the same with and without a certificate."""
    bare = recipient_from_pem("bare", operations.recipient.public_pem)
    assert bare.expires_at is None
    assert not bare.expired(NOW + timedelta(days=36500))
    assert bare.key_id == operations.recipient.key_id == operations.opening.key_id
    assert count_distinct_keys([bare, operations.recipient]) == 1


def test_key_id_equals_the_openssl_sha256_digest_of_the_public_key(
    operations: Holder, tmp_path: Path
):
    """The id is the SHA-256 of the public key in DER form.

    Therefore, a holder can check the id without ParcelSeal.
    """
    (tmp_path / "a.crt").write_bytes(operations.certificate_pem)
    public = tmp_path / "a.pub"
    openssl = functools.partial(subprocess.run, cwd=tmp_path, check=True)
    openssl(["openssl", "x509", "-in", "a.crt", "-noout", "-pubkey", "-out", public.name])
    openssl(["openssl", "pkey", "-pubin", "-in", "a.pub", "-outform", "DER", "-out", "a.der"])
    digest = hashlib.sha256((tmp_path / "a.der").read_bytes()).hexdigest()
    assert digest == operations.recipient.key_id


def test_recipient_key_that_is_not_rsa_or_has_less_than_3072_bits_raises_usage_error():
    """The data key of a message is encrypted with RSA-OAEP. Longer RSA keys are accepted."""
    curve = ec.generate_private_key(ec.SECP384R1())
    small = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    old = dsa.generate_private_key(key_size=2048)
    for key in (curve, small, old, ed25519.Ed25519PrivateKey.generate()):
        with pytest.raises(UsageError, match="Recipient escrow: the key is not RSA"):
            recipient_from_pem("escrow", key.public_key().public_bytes(PEM, SPKI))
    with pytest.raises(UsageError, match="not RSA of at least 3072 bits"):
        recipient_from_pem("escrow", certificate_of(curve))


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"not a key",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    ],
)
def test_invalid_recipient_key_raises_usage_error_that_does_not_contain_the_key(pem: bytes):
    """The error has a single line, which names the recipient."""
    with pytest.raises(UsageError, match="Recipient escrow: the value is neither") as refused:
        recipient_from_pem("escrow", pem)
    assert "AAAA" not in str(refused.value)


def test_private_key_as_recipient_key_raises_usage_error_that_does_not_contain_the_key(
    operations: Holder,
):
    """The backup host must not store a private key. The error does not contain the key."""
    with pytest.raises(UsageError, match="neither a PEM certificate nor a PEM public key") as error:
        recipient_from_pem("operations", operations.private_pem)
    assert operations.private_pem.decode().splitlines()[1] not in str(error.value)


def test_loading_decryption_key_raises_usage_error_unless_it_is_an_unencrypted_rsa_key(
    operations: Holder,
):
    """Cases: a key with a passphrase, a key that is not RSA, and no key.

    The error names the file.
    """
    key = serialization.load_pem_private_key(operations.private_pem, None)
    locked = key.private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    for pem in (locked, b"", operations.certificate_pem):
        with pytest.raises(UsageError, match=r"a\.key is not an unencrypted PEM private key"):
            opening_key_from_pem(pem, "a.key")
    curve = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(UsageError, match=r"a\.key is not an RSA private key"):
        opening_key_from_pem(curve, "a.key")


def test_repr_of_decryption_key_contains_no_private_key(operations: Holder):
    """Logs show objects by their repr."""
    shown = f"{operations.opening!r} {operations.opening}"
    assert "PRIVATE" not in shown
    assert "BEGIN" not in shown


def test_recipient_of_kms_key_is_identified_by_its_arn():
    """KMS keys do not expire."""
    arn = "arn:aws:kms:us-east-1:123456789012:key/abc"
    recipient = recipient_from_kms("kms", arn, object())
    assert recipient.key_id == arn
    assert not recipient.expired(NOW + timedelta(days=9999))
    assert count_distinct_keys([recipient, Recipient("again", "kms", arn)]) == 1


def test_different_public_keys_have_different_ids(operations: Holder, offline: Holder):
    keys = [
        serialization.load_pem_public_key(holder.recipient.public_pem)
        for holder in (operations, offline)
    ]
    ids = {public_key_id(key) for key in keys if isinstance(key, rsa.RSAPublicKey)}
    assert ids == {operations.recipient.key_id, offline.recipient.key_id}
    assert len(ids) == 2
