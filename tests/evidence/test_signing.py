"""Keys that openssl made are accepted.

Any key that is not an Ed25519 key is refused with a message of one line.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from include.evidence.signing import Signer, TrustedKeys, fingerprint, generate_key, verify
from include.services.errors import UsageError


def openssl(*arguments: str) -> bytes:
    return subprocess.run(["openssl", *arguments], capture_output=True, check=True).stdout


def test_signer_with_openssl_key_creates_valid_signature_and_has_same_public_key_as_openssl(
    tmp_path: Path,
) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(openssl("genpkey", "-algorithm", "ed25519"))
    signer = Signer.from_pem(file.read_bytes())
    assert openssl("pkey", "-in", str(file), "-pubout") == signer.public_pem
    signature = signer.sign(b"data")
    assert verify(signer.public_pem, signature, b"data")
    assert not verify(signer.public_pem, signature, b"date")
    assert not verify(signer.public_pem, signature[:-1], b"data")
    assert not verify(Signer.from_pem(generate_key()).public_pem, signature, b"data")
    assert signer.fingerprint == fingerprint(signer.public_pem)


def test_private_key_with_passphrase_raises_usage_error_if_passphrase_is_missing_or_wrong(
    tmp_path: Path,
) -> None:
    """A wrong passphrase is refused, and so is a passphrase for a key that has none."""
    pem = openssl("genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:open sesame")
    assert len(Signer.from_pem(pem, b"open sesame").sign(b"")) == 64
    with pytest.raises(UsageError, match="needs a passphrase"):
        Signer.from_pem(pem)
    with pytest.raises(UsageError, match="passphrase is wrong"):
        Signer.from_pem(pem, b"wrong")
    with pytest.raises(UsageError, match="has no passphrase"):
        Signer.from_pem(generate_key(), b"needless")


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"",
        lambda: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        lambda: Signer.from_pem(generate_key()).public_pem,
        lambda: openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
        lambda: openssl("genpkey", "-algorithm", "x25519"),
    ],
)
def test_signing_key_that_is_not_an_ed25519_private_key_raises_usage_error(
    make: Callable[[], bytes],
) -> None:
    """The error contains the command that creates a key."""
    with pytest.raises(UsageError, match="openssl genpkey"):
        Signer.from_pem(make())


def test_trusted_key_that_is_not_a_public_key_raises_usage_error() -> None:
    """A private key among the trusted keys is refused too."""
    for wrong in (b"", generate_key(), b"ssh-ed25519 AAAA"):
        with pytest.raises(UsageError, match="public key"):
            TrustedKeys([wrong])


def test_signer_of_returns_fingerprint_of_trusted_signing_key_and_none_for_untrusted_key() -> None:
    """Only the fingerprint of the key that signed is returned, and only if the key is trusted."""
    first, second, third = (Signer.from_pem(generate_key()) for _ in range(3))
    keys = TrustedKeys([first.public_pem, second.public_pem])
    assert keys.signer_of(second.sign(b"x"), b"x") == second.fingerprint
    assert keys.signer_of(third.sign(b"x"), b"x") is None
    assert not keys.signed_by(first.fingerprint, second.sign(b"x"), b"x")
