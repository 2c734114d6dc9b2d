"""Build keyrings of the AWS Encryption SDK. A keyring encrypts or decrypts a message's data key.

Importing the SDK takes half a second of CPU time. Therefore, `crypto` imports this module only when
a message is encrypted or decrypted.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import aws_encryption_sdk
from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
from aws_cryptographic_material_providers.mpl import errors as mpl_errors
from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
from aws_cryptographic_material_providers.mpl.models import (
    CreateAwsKmsKeyringInput,
    CreateMultiKeyringInput,
    CreateRawRsaKeyringInput,
    OnDecryptInput,
    OnDecryptOutput,
    OnEncryptInput,
    OnEncryptOutput,
    PaddingScheme,
)
from aws_cryptographic_material_providers.mpl.references import IKeyring
from aws_encryption_sdk.exceptions import AWSEncryptionSDKClientError
from aws_encryption_sdk.identifiers import Algorithm, CommitmentPolicy
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from include.encryption.recipients import KMS_KIND, RSA_KIND, OpeningKey, Recipient

SDK_ERRORS = (AWSEncryptionSDKClientError, mpl_errors.ServiceError)
_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label=None)


def client(most_keys: int) -> Any:
    """Return a client of the AWS Encryption SDK that accepts only key-committing algorithm suites.

    Args:
        most_keys: maximum number of encrypted data keys in a message. A message has one for each
            different key of its recipients.
    """
    return aws_encryption_sdk.EncryptionSDKClient(
        commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT,
        max_encrypted_data_keys=most_keys,
    )


def algorithm(suite: str) -> Algorithm:
    """Return the algorithm suite with the given name."""
    return Algorithm[suite]


def sealing_keyring(recipients: Sequence[Recipient], namespace: str) -> IKeyring:
    """Return a keyring that encrypts the data key of a message for every recipient.

    If there is an RSA recipient, the data key is generated on this machine. Otherwise, the KMS of
    the first recipient generates it.

    Args:
        recipients: at least one recipient. If several recipients have the same key, the data key is
            encrypted once with it.
        namespace: namespace of the RSA keys in the message.
    """
    distinct = {recipient.key_id: recipient for recipient in recipients}.values()
    rings = [
        _kms(recipient.key_id, recipient.client)
        if recipient.kind == KMS_KIND
        else _providers().create_raw_rsa_keyring(
            CreateRawRsaKeyringInput(
                key_namespace=namespace,
                key_name=recipient.key_id,
                padding_scheme=PaddingScheme.OAEP_SHA256_MGF1,
                public_key=recipient.public_pem,
            )
        )
        for recipient in sorted(distinct, key=lambda recipient: recipient.kind != RSA_KIND)
    ]
    return _providers().create_multi_keyring(
        CreateMultiKeyringInput(generator=rings[0], child_keyrings=rings[1:])
    )


def opening_keyring(key: OpeningKey, namespace: str) -> IKeyring:
    """Return a keyring that decrypts the data key of a message with the key of one recipient.

    Args:
        key: key of the recipient.
        namespace: namespace of the RSA keys in the message.
    """
    if key.kind == KMS_KIND:
        return _kms(key.key_id, key.client)
    return _RsaOpening(namespace, key.key_id, _private_key(key.private_pem))


class _RsaOpening(IKeyring):  # type: ignore[misc] # the library has no types
    """A keyring with an RSA private key that can only decrypt data keys.

    It replaces the RSA keyring of the SDK, which parses the private key and checks its primes again
    for each message. This would take 0.2 s in each process of a restore and in each decryption
    attempt of a restore drill.
    """

    def __init__(self, namespace: str, key_id: str, key: rsa.RSAPrivateKey) -> None:
        self._entry = (namespace, key_id.encode())
        self._key = key

    def on_encrypt(self, param: OnEncryptInput) -> OnEncryptOutput:
        raise NotImplementedError

    def on_decrypt(self, param: OnDecryptInput) -> OnDecryptOutput:
        """Decrypt the data key of a message, and return the SDK's decryption materials.

        If this private key cannot decrypt any data key of the message, the returned materials have
        no data key.
        """
        for entry in param.encrypted_data_keys:
            if (entry.key_provider_id, bytes(entry.key_provider_info)) != self._entry:
                continue
            try:
                data_key = self._key.decrypt(bytes(entry.ciphertext), _OAEP)
            except ValueError:
                continue
            param.materials.plaintext_data_key = data_key
            break
        return OnDecryptOutput(materials=param.materials)


def lacks_data_key(error: Exception) -> bool:
    """Return whether an error of the SDK means that a message was encrypted for other keys.

    The message then contains no data key that the reader's key can decrypt.

    Args:
        error: error that the SDK raised when it decrypted the message.
    """
    return any(isinstance(cause, mpl_errors.ServiceError) for cause in (error, *error.args))


@functools.cache
def _providers() -> AwsCryptographicMaterialProviders:
    return AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())


def _kms(arn: str, kms_client: Any) -> IKeyring:
    return _providers().create_aws_kms_keyring(
        CreateAwsKmsKeyringInput(kms_key_id=arn, kms_client=kms_client)
    )


@functools.lru_cache(maxsize=16)
def _private_key(pem: bytes) -> rsa.RSAPrivateKey:
    # `opening_key_from_pem` checked its primes, which takes 0.2 s.
    key = serialization.load_pem_private_key(
        pem, password=None, unsafe_skip_rsa_key_validation=True
    )
    assert isinstance(key, rsa.RSAPrivateKey)
    return key
