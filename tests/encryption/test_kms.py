"""Test AWS KMS keys as keys of recipients. The KMS is a local server."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest

from include.encryption.crypto import ContentRefused, decrypting, encrypting
from include.encryption.recipients import KMS_KIND, OpeningKey, Recipient, recipient_from_kms
from include.services.aws import kms_client
from include.services.connections import ConnectionSpec
from include.services.errors import ServiceError
from tests.support.holders import Holder
from tests.support.s3 import ACCESS_KEY, REGION, SECRET_KEY, MotoServer

CONTEXT = {"database": "courier", "restore_point": "p"}
CLEAR = b"row\n" * 1000


def spec(endpoint: str) -> ConnectionSpec:
    return ConnectionSpec(
        "offsite_store",
        "aws",
        login=ACCESS_KEY,
        password=SECRET_KEY,
        extra={"kms_endpoint_url": endpoint, "region_name": REGION},
    )


@pytest.fixture(scope="module")
def client(moto: MotoServer) -> Any:
    return kms_client(spec(moto.endpoint))


def new_key(client: Any) -> str:
    return str(client.create_key()["KeyMetadata"]["Arn"])


def encrypted(recipients: Sequence[Recipient]) -> bytes:
    return encrypting(io.BytesIO(CLEAR), recipients, CONTEXT).read()


def opened(message: bytes, key: OpeningKey) -> bytes:
    return decrypting(io.BytesIO(message), key, CONTEXT, "x").read()


def test_message_for_one_or_two_kms_keys_can_be_decrypted_with_each_of_these_keys(client: Any):
    """A key that is not a recipient is refused."""
    first_key, second_key, other = (new_key(client) for _ in range(3))
    message = encrypted([recipient_from_kms("one", first_key, client)])
    assert opened(message, OpeningKey(KMS_KIND, first_key, client=client)) == CLEAR
    message = encrypted(
        [recipient_from_kms("one", first_key, client), recipient_from_kms("2", second_key, client)]
    )
    for arn in (first_key, second_key):
        assert opened(message, OpeningKey(KMS_KIND, arn, client=client)) == CLEAR
    with pytest.raises(ContentRefused):
        opened(message, OpeningKey(KMS_KIND, other, client=client))


@pytest.mark.parametrize("kms_first", [True, False])
def test_message_for_kms_and_rsa_recipients_can_be_decrypted_with_each_of_their_keys(
    client: Any, operations: Holder, offline: Holder, stranger: OpeningKey, kms_first: bool
):
    """The order of the recipients does not matter. Other keys are refused."""
    arn = new_key(client)
    recipients = [operations.recipient, offline.recipient]
    recipients.insert(0 if kms_first else 2, recipient_from_kms("kms", arn, client))
    message = encrypted(recipients)
    for key in (OpeningKey(KMS_KIND, arn, client=client), operations.opening, offline.opening):
        assert opened(message, key) == CLEAR
    with pytest.raises(ContentRefused):
        opened(message, stranger)
    with pytest.raises(ContentRefused):
        opened(message, OpeningKey(KMS_KIND, new_key(client), client=client))


def test_encryption_and_decryption_raise_service_error_if_kms_is_unreachable(
    client: Any, operations: Holder
):
    """This applies to encryption and decryption. The error contains no secret of the connection."""
    arn = new_key(client)
    message = encrypted([recipient_from_kms("kms", arn, client)])
    gone = kms_client(spec("http://127.0.0.1:9"))
    with pytest.raises(ServiceError, match="could not be encrypted") as sealing:
        encrypted([operations.recipient, recipient_from_kms("kms", arn, gone)])
    with pytest.raises(ServiceError, match="cannot be used") as opening:
        opened(message, OpeningKey(KMS_KIND, arn, client=gone))
    for error in (sealing, opening):
        assert not isinstance(error.value, ContentRefused)
        assert SECRET_KEY not in str(error.value)


def test_encryption_with_missing_kms_key_raises_service_error(client: Any, operations: Holder):
    """The error has a single line, without the SDK's traceback."""
    absent = f"arn:aws:kms:{REGION}:123456789012:key/00000000-0000-0000-0000-000000000000"
    with pytest.raises(ServiceError, match="could not be encrypted"):
        encrypted([operations.recipient, recipient_from_kms("kms", absent, client)])
    with pytest.raises(ServiceError, match="could not be encrypted"):
        encrypted([recipient_from_kms("kms", absent, client)])
