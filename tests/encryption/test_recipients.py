"""Which keys are taken as recipients, when they end, and which keys open."""

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
    distinct,
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
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(PEM)


def test_a_certificate_brings_its_expiry(operations: Holder):
    """It ends two years after it was made; from that second on it counts as expired."""
    recipient = recipient_from_pem("operations", operations.certificate_pem)
    end = recipient.expires_at
    assert end is not None
    assert end == NOW.replace(microsecond=0) + timedelta(days=730)
    assert not recipient.expired(end - timedelta(seconds=1))
    assert recipient.expired(end)


def test_a_bare_public_key_never_expires_and_is_the_same_recipient(operations: Holder):
    """The id is of the key, not of its wrapping."""
    bare = recipient_from_pem("bare", operations.recipient.public_pem)
    assert bare.expires_at is None
    assert not bare.expired(NOW + timedelta(days=36500))
    assert bare.key_id == operations.recipient.key_id == operations.opening.key_id
    assert distinct([bare, operations.recipient]) == 1


def test_the_key_id_is_what_openssl_computes(operations: Holder, tmp_path: Path):
    """SHA-256 over the public key's DER, so that a holder can check it without us."""
    (tmp_path / "a.crt").write_bytes(operations.certificate_pem)
    public = tmp_path / "a.pub"
    openssl = functools.partial(subprocess.run, cwd=tmp_path, check=True)
    openssl(["openssl", "x509", "-in", "a.crt", "-noout", "-pubkey", "-out", public.name])
    openssl(["openssl", "pkey", "-pubin", "-in", "a.pub", "-outform", "DER", "-out", "a.der"])
    found = hashlib.sha256((tmp_path / "a.der").read_bytes()).hexdigest()
    assert found == operations.recipient.key_id


def test_other_kinds_of_key_are_refused():
    """Only RSA of 3072 bits or more: the format wraps its data key with RSA-OAEP."""
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
def test_what_is_no_key_is_refused_and_not_repeated(pem: bytes):
    """One line that names the recipient."""
    with pytest.raises(UsageError, match="Recipient escrow: this is neither") as refused:
        recipient_from_pem("escrow", pem)
    assert "AAAA" not in str(refused.value)


def test_a_private_key_is_no_recipient(operations: Holder):
    """The backup host must not hold one, and the error does not repeat it."""
    with pytest.raises(UsageError, match="neither a PEM certificate nor a PEM public key") as error:
        recipient_from_pem("operations", operations.private_pem)
    assert operations.private_pem.decode().splitlines()[1] not in str(error.value)


def test_opening_keys_must_be_plain_rsa(operations: Holder):
    """A passphrase, another kind of key or no key at all; the error names the file."""
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


def test_no_representation_shows_a_private_key(operations: Holder):
    """Logs show objects by their repr."""
    shown = f"{operations.opening!r} {operations.opening}"
    assert "PRIVATE" not in shown
    assert "BEGIN" not in shown


def test_kms_keys_are_recipients_by_their_arn():
    """They have no expiry of their own."""
    arn = "arn:aws:kms:us-east-1:123456789012:key/abc"
    recipient = recipient_from_kms("kms", arn, object())
    assert recipient.key_id == arn
    assert not recipient.expired(NOW + timedelta(days=9999))
    assert distinct([recipient, Recipient("again", "kms", arn)]) == 1


def test_public_key_id_depends_on_the_key(operations: Holder, offline: Holder):
    """Two keys, two ids."""
    keys = [
        serialization.load_pem_public_key(one.recipient.public_pem) for one in (operations, offline)
    ]
    ids = {public_key_id(key) for key in keys if isinstance(key, rsa.RSAPublicKey)}
    assert ids == {operations.recipient.key_id, offline.recipient.key_id}
    assert len(ids) == 2
