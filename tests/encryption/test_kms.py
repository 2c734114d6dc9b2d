"""KMS keys as recipients, against a KMS that speaks HTTP."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest

from include.encryption.crypto import Refused, decrypting, encrypting
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


def test_a_kms_key_alone_and_two_of_them_open(client: Any):
    """Each by itself; a third one is refused."""
    one, two, other = (new_key(client) for _ in range(3))
    message = encrypted([recipient_from_kms("one", one, client)])
    assert opened(message, OpeningKey(KMS_KIND, one, client=client)) == CLEAR
    both = encrypted([recipient_from_kms("one", one, client), recipient_from_kms("2", two, client)])
    for arn in (one, two):
        assert opened(both, OpeningKey(KMS_KIND, arn, client=client)) == CLEAR
    with pytest.raises(Refused):
        opened(both, OpeningKey(KMS_KIND, other, client=client))


@pytest.mark.parametrize("kms_first", [True, False])
def test_kms_and_rsa_recipients_mix(
    client: Any, operations: Holder, offline: Holder, stranger: OpeningKey, kms_first: bool
):
    """In any order; every one of them opens, nobody else."""
    arn = new_key(client)
    recipients = [operations.recipient, offline.recipient]
    recipients.insert(0 if kms_first else 2, recipient_from_kms("kms", arn, client))
    message = encrypted(recipients)
    for key in (OpeningKey(KMS_KIND, arn, client=client), operations.opening, offline.opening):
        assert opened(message, key) == CLEAR
    with pytest.raises(Refused):
        opened(message, stranger)
    with pytest.raises(Refused):
        opened(message, OpeningKey(KMS_KIND, new_key(client), client=client))


def test_a_kms_that_cannot_be_reached_is_no_tampering(client: Any, operations: Holder):
    """Neither when a message is made nor when it is opened; the secret is not in the message."""
    arn = new_key(client)
    message = encrypted([recipient_from_kms("kms", arn, client)])
    gone = kms_client(spec("http://127.0.0.1:9"))
    with pytest.raises(ServiceError, match="could not be encrypted") as sealing:
        encrypted([operations.recipient, recipient_from_kms("kms", arn, gone)])
    with pytest.raises(ServiceError, match="cannot be used") as opening:
        opened(message, OpeningKey(KMS_KIND, arn, client=gone))
    for error in (sealing, opening):
        assert not isinstance(error.value, Refused)
        assert SECRET_KEY not in str(error.value)


def test_a_kms_key_that_is_not_there_stops_the_encryption(client: Any, operations: Holder):
    """With one line, not with the SDK's traceback."""
    absent = f"arn:aws:kms:{REGION}:123456789012:key/00000000-0000-0000-0000-000000000000"
    with pytest.raises(ServiceError, match="could not be encrypted"):
        encrypted([operations.recipient, recipient_from_kms("kms", absent, client)])
    with pytest.raises(ServiceError, match="could not be encrypted"):
        encrypted([recipient_from_kms("kms", absent, client)])
