"""Test that keyrings and the SDK's older master key providers can decrypt each other's messages.

At commit dbc41e28, ParcelSeal still used master key providers, and encrypted
`message_of_master_keys` with them. The keys of this message are used for nothing else.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import aws_encryption_sdk
import pytest
from aws_encryption_sdk.identifiers import (
    Algorithm,
    CommitmentPolicy,
    EncryptionKeyType,
    WrappingAlgorithm,
)
from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
from aws_encryption_sdk.key_providers.base import MasterKeyProvider
from aws_encryption_sdk.key_providers.kms import KMSMasterKey
from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider

from include.encryption.crypto import FRAME, PROVIDER, ContentRefused, decrypting, encrypting
from include.encryption.recipients import (
    KMS_KIND,
    OpeningKey,
    Recipient,
    opening_key_from_pem,
    recipient_from_kms,
)
from include.services.aws import kms_client
from tests.encryption.test_kms import new_key, spec
from tests.support.holders import Holder
from tests.support.s3 import MotoServer

FOLDER = Path(__file__).parent / "message_of_master_keys"
CONTEXT = {"database": "courier", "restore_point": "20261129T020000Z-abc123"}
CLEAR = bytes(range(256)) * 20


class MasterKeys(RawMasterKeyProvider):  # type: ignore[misc] # the SDK has no types
    """A provider of RSA master keys by their id, as in the code at commit dbc41e28."""

    provider_id = PROVIDER

    def __init__(self, **_: Any) -> None:
        self.keys: dict[bytes, WrappingKey] = {}

    def _get_raw_key(self, key_id: bytes) -> WrappingKey:
        return self.keys[key_id]

    def hold(self, key_id: str, pem: bytes, kind: EncryptionKeyType) -> None:
        self.keys[key_id.encode()] = WrappingKey(
            wrapping_algorithm=WrappingAlgorithm.RSA_OAEP_SHA256_MGF1,
            wrapping_key=pem,
            wrapping_key_type=kind,
        )
        self.add_master_key(key_id.encode())


def sdk() -> Any:
    return aws_encryption_sdk.EncryptionSDKClient(
        commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT,
        max_encrypted_data_keys=10,
    )


def master_key(key: OpeningKey) -> MasterKeyProvider:
    if key.kind == KMS_KIND:
        return KMSMasterKey(key_id=key.key_id, client=key.client)
    rsa = MasterKeys()
    rsa.hold(key.key_id, key.private_pem, EncryptionKeyType.PRIVATE)
    return rsa


def sealed_by_master_keys(recipients: list[Recipient]) -> bytes:
    keys = MasterKeys()
    for recipient in recipients:
        if recipient.kind == KMS_KIND:
            keys.add_master_key_provider(
                KMSMasterKey(key_id=recipient.key_id, client=recipient.client)
            )
        else:
            keys.hold(recipient.key_id, recipient.public_pem, EncryptionKeyType.PUBLIC)
    message, _ = sdk().encrypt(
        source=CLEAR,
        key_provider=keys,
        algorithm=Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
        frame_length=FRAME,
        encryption_context=CONTEXT,
    )
    return bytes(message)


def opened(message: bytes, key: OpeningKey) -> bytes:
    return decrypting(io.BytesIO(message), key, CONTEXT, "x").read()


@pytest.fixture(scope="module")
def kms(moto: MotoServer) -> Any:
    return kms_client(spec(moto.endpoint))


@pytest.mark.parametrize("name", ["operations", "offline"])
def test_stored_message_that_was_encrypted_with_master_keys_is_decrypted_by_each_recipient_key(
    name: str, stranger: OpeningKey
):
    message = (FOLDER / "message.enc").read_bytes()
    key = opening_key_from_pem((FOLDER / f"{name}.key").read_bytes(), name)
    assert opened(message, key) == CLEAR
    with pytest.raises(ContentRefused, match="does not belong to any of its recipients"):
        opened(message, stranger)


def test_keyrings_decrypt_messages_encrypted_with_master_keys(kms: Any, operations: Holder):
    """Cases: a message for an RSA and a KMS recipient, and a message for a KMS key alone."""
    arn = new_key(kms)
    key, recipient = OpeningKey(KMS_KIND, arn, client=kms), recipient_from_kms("kms", arn, kms)
    message = sealed_by_master_keys([operations.recipient, recipient])
    assert opened(message, operations.opening) == CLEAR
    assert opened(message, key) == CLEAR
    assert opened(sealed_by_master_keys([recipient]), key) == CLEAR


def test_master_keys_decrypt_messages_encrypted_with_keyrings(
    kms: Any, operations: Holder, offline: Holder
):
    """This shows that other tools can read current backups if they support the message format."""
    arn = new_key(kms)
    key, recipient = OpeningKey(KMS_KIND, arn, client=kms), recipient_from_kms("kms", arn, kms)
    for recipients, keys in (
        (
            [operations.recipient, offline.recipient, recipient],
            [operations.opening, offline.opening, key],
        ),
        ([recipient], [key]),
    ):
        message = encrypting(io.BytesIO(CLEAR), recipients, CONTEXT).read()
        for opening in keys:
            clear, header = sdk().decrypt(source=message, key_provider=master_key(opening))
            assert clear == CLEAR
            assert header.algorithm is Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
            assert header.frame_length == FRAME
            assert header.encryption_context == CONTEXT
