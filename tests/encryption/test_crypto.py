"""Test encryption: each recipient can decrypt a message, and damaged messages are refused."""

from __future__ import annotations

import gc
import io
import sys
from collections.abc import Sequence

import pytest
from aws_encryption_sdk import EncryptionSDKClient
from aws_encryption_sdk.identifiers import CommitmentPolicy
from hypothesis import given, settings
from hypothesis import strategies as st

from include.encryption import crypto, keyrings
from include.encryption.crypto import FRAME, MOST_RECIPIENTS, ContentRefused, decrypting, encrypting
from include.encryption.recipients import OpeningKey, Recipient
from include.services.errors import UsageError
from tests.support.holders import Holder

CONTEXT = {"database": "courier", "restore_point": "20261124T020000Z-abc123"}
CLEAR = bytes(range(256)) * 3


def encrypted(
    clear: bytes, recipients: Sequence[Recipient], context: dict[str, str] = CONTEXT
) -> bytes:
    stream = encrypting(io.BytesIO(clear), recipients, context)
    return b"".join(iter(lambda: stream.read(FRAME), b""))


def opened(message: bytes, key: OpeningKey, context: dict[str, str] = CONTEXT) -> bytes:
    stream = decrypting(io.BytesIO(message), key, context, "courier/x/database.dump.zst.enc")
    return b"".join(iter(lambda: stream.read(FRAME), b""))


@pytest.fixture(scope="module")
def message(recipients: list[Recipient]) -> bytes:
    return encrypted(CLEAR, recipients)


@pytest.mark.parametrize("size", [0, 1, FRAME - 1, FRAME, FRAME + 1, 3 * FRAME, 3 * FRAME + 17])
def test_each_recipient_decrypts_the_message(
    size: int, recipients: list[Recipient], operations: Holder, offline: Holder
):
    """The sizes of messages include those just below and above the size of a frame."""
    clear = (CLEAR * (size // len(CLEAR) + 1))[:size]
    message = encrypted(clear, recipients)
    assert opened(message, operations.opening) == clear
    assert opened(message, offline.opening) == clear
    assert size < 100 or clear[:64] not in message


def test_decryption_raises_content_refused_if_the_key_belongs_to_no_recipient(
    message: bytes, stranger: OpeningKey
):
    """The error names the reason and the key of the object."""
    with pytest.raises(ContentRefused, match="does not belong to any of its recipients") as refused:
        opened(message, stranger)
    assert "courier/x/database.dump.zst.enc" in refused.value.message


def test_decryption_fails_if_another_key_has_the_id_of_a_recipient_key(
    message: bytes, operations: Holder, stranger: OpeningKey
):
    """The key id only selects the encrypted data key.

    Only the recipient's private key decrypts it.
    """
    liar = OpeningKey("rsa", operations.recipient.key_id, stranger.private_pem)
    with pytest.raises(ContentRefused):
        opened(message, liar)


def test_discarding_a_partly_read_decryption_stream_prints_no_error(
    message: bytes, operations: Holder, stranger: OpeningKey, monkeypatch: pytest.MonkeyPatch
):
    """Since 3.13, Python prints an error in this case, which looked like a fault in logs."""
    errors: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: errors.append(args.exc_value))
    with pytest.raises(ContentRefused):
        opened(message, stranger)
    half = decrypting(io.BytesIO(message), operations.opening, CONTEXT, "x")
    assert half.read(1) == CLEAR[:1]
    del half
    gc.collect()
    assert errors == []


def test_decryption_raises_content_refused_if_message_has_more_data_keys_than_allowed(
    operations: Holder,
):
    """The decryption tries each encrypted data key of a message, so their number is limited."""
    public = operations.recipient.public_pem

    def message(keys: int) -> bytes:
        key_ids = [operations.recipient.key_id, *(f"other {n}" for n in range(1, keys))]
        recipients = [Recipient(key_id, "rsa", key_id, public) for key_id in key_ids]
        client = EncryptionSDKClient(
            commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT
        )
        stored, _ = client.encrypt(
            source=CLEAR,
            keyring=keyrings.sealing_keyring(recipients, crypto.PROVIDER),
            algorithm=keyrings.algorithm(crypto.SUITE),
            encryption_context=CONTEXT,
        )
        return bytes(stored)

    assert opened(message(MOST_RECIPIENTS), operations.opening) == CLEAR
    with pytest.raises(ContentRefused, match="more recipients than the 10"):
        opened(message(MOST_RECIPIENTS + 1), operations.opening)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_decryption_raises_content_refused_if_a_bit_of_the_message_was_flipped(
    message: bytes, operations: Holder, data: st.DataObject
):
    """The bit may be in the header, the encrypted data keys, the frames or the tags."""
    header = len(message) - len(CLEAR) - 60
    position = data.draw(st.integers(0, header) | st.integers(0, len(message) - 1))
    bit = data.draw(st.integers(0, 7))
    damaged = message[:position] + bytes([message[position] ^ (1 << bit)]) + message[position + 1 :]
    with pytest.raises(ContentRefused):
        opened(damaged, operations.opening)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_decryption_raises_content_refused_if_the_message_is_truncated(
    message: bytes, offline: Holder, data: st.DataObject
):
    """The message is truncated to any length, including zero and one byte less."""
    length = data.draw(
        st.one_of(st.integers(0, len(message) - 1), st.sampled_from([0, 1, len(message) - 1]))
    )
    with pytest.raises(ContentRefused):
        opened(message[:length], offline.opening)


def test_decryption_fails_if_frames_are_reordered_dropped_or_taken_from_another_message(
    recipients: list[Recipient], operations: Holder
):
    """A foreign frame comes from another message with the same recipients."""
    clear = CLEAR * (3 * FRAME // len(CLEAR) + 1)
    message, foreign = encrypted(clear, recipients), encrypted(clear, recipients)
    head = len(message) - (len(message) - 1) % 1  # whole length; frames are cut below
    frame = FRAME + 4 + 12 + 16  # number, IV, content, tag
    last = len(clear) % FRAME + 4 + 4 + 12 + 4 + 16
    start = head - last - len(clear) // FRAME * frame
    first, second, rest = (
        message[start : start + frame],
        message[start + frame : start + 2 * frame],
        0,
    )
    rest = start + 2 * frame
    for mixed in (
        message[:start] + second + first + message[rest:],
        message[:start] + first + message[rest:],
        message[:start] + first + first + message[rest:],
        message[:start] + foreign[start : start + frame] + message[start + frame :],
        message[:start] + first + message[-last:],
    ):
        with pytest.raises(ContentRefused):
            opened(mixed, operations.opening)
    assert opened(message[:start] + first + second + message[rest:], operations.opening) == clear


@pytest.mark.parametrize(
    "context",
    [
        {"database": "billing", "restore_point": CONTEXT["restore_point"]},
        {"database": "courier", "restore_point": "20261125T020000Z-abc123"},
        {"database": "courier", "restore_point": CONTEXT["restore_point"], "more": "x"},
    ],
)
def test_decryption_fails_if_the_message_belongs_to_another_restore_point(
    message: bytes, operations: Holder, context: dict[str, str]
):
    """The key can decrypt the message, but its encryption context names another restore point."""
    with pytest.raises(ContentRefused, match="encrypted as another object"):
        opened(message, operations.opening, context)


def test_decryption_returns_no_bytes_of_a_message_frame_that_fails_authentication(
    recipients: list[Recipient], operations: Holder
):
    """If the second frame is damaged, only bytes of the first frame are returned."""
    clear = CLEAR * (2 * FRAME // len(CLEAR) + 1)
    message = bytearray(encrypted(clear, recipients))
    message[-FRAME] ^= 1
    stream = decrypting(io.BytesIO(bytes(message)), operations.opening, CONTEXT, "x")
    received: list[bytes] = []
    with pytest.raises(ContentRefused):
        received.extend(iter(lambda: stream.read(1000), b""))
    assert len(b"".join(received)) <= FRAME
    assert clear.startswith(b"".join(received))


def test_encryption_raises_usage_error_if_there_is_no_recipient_or_too_many_recipients(
    operations: Holder,
):
    """Without a recipient, the message could never be decrypted. The format limits their number."""
    with pytest.raises(UsageError, match="No recipient"):
        encrypted(CLEAR, [])
    many = [
        Recipient(f"r{number}", "rsa", f"{number:064x}", operations.recipient.public_pem)
        for number in range(MOST_RECIPIENTS + 1)
    ]
    with pytest.raises(UsageError, match=f"{MOST_RECIPIENTS + 1} recipients"):
        encrypted(CLEAR, many)
    assert opened(encrypted(CLEAR, [operations.recipient, *many[:-2]]), operations.opening) == CLEAR


def test_encryption_succeeds_if_two_recipients_have_the_same_key(operations: Holder):
    """The preflight of a backup reports that the two recipients have only one key."""
    twice = [
        operations.recipient,
        Recipient("again", *list(vars(operations.recipient).values())[1:]),
    ]
    assert opened(encrypted(CLEAR, twice), operations.opening) == CLEAR


def test_decryption_raises_connection_error_if_the_store_fails_while_the_message_is_read(
    message: bytes, operations: Holder
):
    """If the store fails while a message is read, this is not a security incident."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 900:
                raise ConnectionError("the line broke")
            return super().read(size)

    stream = decrypting(Broken(message), operations.opening, CONTEXT, "x")
    with pytest.raises(ConnectionError):
        list(iter(lambda: stream.read(100), b""))


def test_algorithm_suite_has_key_commitment():
    """With key commitment, no message can decrypt to different plaintexts with different keys."""
    assert crypto.SUITE == "AES_256_GCM_HKDF_SHA512_COMMIT_KEY"
