"""Encryption: any one recipient opens, everything else is refused."""

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
from include.encryption.crypto import FRAME, MOST_RECIPIENTS, Refused, decrypting, encrypting
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
def test_each_recipient_alone_opens_the_message(
    size: int, recipients: list[Recipient], operations: Holder, offline: Holder
):
    """Of any size, around the frames' edges too."""
    clear = (CLEAR * (size // len(CLEAR) + 1))[:size]
    message = encrypted(clear, recipients)
    assert opened(message, operations.opening) == clear
    assert opened(message, offline.opening) == clear
    assert size < 100 or clear[:64] not in message


def test_another_key_is_refused(message: bytes, stranger: OpeningKey):
    """With a reason that says so and names the object."""
    with pytest.raises(Refused, match="does not belong to any of its recipients") as refused:
        opened(message, stranger)
    assert "courier/x/database.dump.zst.enc" in refused.value.message


def test_a_key_that_claims_another_ones_id_is_refused(
    message: bytes, operations: Holder, stranger: OpeningKey
):
    """The id only finds the entry; the key has to fit."""
    liar = OpeningKey("rsa", operations.recipient.key_id, stranger.private_pem)
    with pytest.raises(Refused):
        opened(message, liar)


def test_a_message_that_was_not_read_to_its_end_is_let_go_of_in_silence(
    message: bytes, operations: Holder, stranger: OpeningKey, monkeypatch: pytest.MonkeyPatch
):
    """Since 3.13, Python says what goes wrong then: in a drill's log it looked like a fault."""
    said: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: said.append(what.exc_value))
    with pytest.raises(Refused):
        opened(message, stranger)
    half = decrypting(io.BytesIO(message), operations.opening, CONTEXT, "x")
    assert half.read(1) == CLEAR[:1]
    del half
    gc.collect()
    assert said == []


def test_message_with_more_data_keys_than_allowed_is_refused(operations: Holder):
    """Each data key of a message costs the reader an attempt, so their number is bounded."""
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
    with pytest.raises(Refused, match="more recipients than the 10"):
        opened(message(MOST_RECIPIENTS + 1), operations.opening)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_flipped_bit_anywhere_is_refused(message: bytes, operations: Holder, data: st.DataObject):
    """In the header, the recipients' entries, the frames, the tags."""
    header = len(message) - len(CLEAR) - 60
    place = data.draw(st.integers(0, header) | st.integers(0, len(message) - 1))
    bit = data.draw(st.integers(0, 7))
    damaged = message[:place] + bytes([message[place] ^ (1 << bit)]) + message[place + 1 :]
    with pytest.raises(Refused):
        opened(damaged, operations.opening)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_truncated_message_is_refused(message: bytes, offline: Holder, data: st.DataObject):
    """Wherever it is cut, at nothing at all and at the last byte too."""
    length = data.draw(
        st.one_of(st.integers(0, len(message) - 1), st.sampled_from([0, 1, len(message) - 1]))
    )
    with pytest.raises(Refused):
        opened(message[:length], offline.opening)


def test_frames_of_two_messages_cannot_be_mixed(recipients: list[Recipient], operations: Holder):
    """Reordered, dropped and foreign frames are refused before their bytes are handed on."""
    clear = CLEAR * (3 * FRAME // len(CLEAR) + 1)
    one, two = encrypted(clear, recipients), encrypted(clear, recipients)
    head = len(one) - (len(one) - 1) % 1  # whole length; frames are cut below
    frame = FRAME + 4 + 12 + 16  # number, IV, content, tag
    last = len(clear) % FRAME + 4 + 4 + 12 + 4 + 16
    start = head - last - len(clear) // FRAME * frame
    first, second, rest = one[start : start + frame], one[start + frame : start + 2 * frame], 0
    rest = start + 2 * frame
    for mixed in (
        one[:start] + second + first + one[rest:],
        one[:start] + first + one[rest:],
        one[:start] + first + first + one[rest:],
        one[:start] + two[start : start + frame] + one[start + frame :],
        one[:start] + first + one[-last:],
    ):
        with pytest.raises(Refused):
            opened(mixed, operations.opening)
    assert opened(one[:start] + first + second + one[rest:], operations.opening) == clear


@pytest.mark.parametrize(
    "context",
    [
        {"database": "billing", "restore_point": CONTEXT["restore_point"]},
        {"database": "courier", "restore_point": "20261125T020000Z-abc123"},
        {"database": "courier", "restore_point": CONTEXT["restore_point"], "more": "x"},
    ],
)
def test_a_message_of_another_restore_point_is_refused(
    message: bytes, operations: Holder, context: dict[str, str]
):
    """Objects that were swapped in the store open with the right key; they are still wrong."""
    with pytest.raises(Refused, match="encrypted as another object"):
        opened(message, operations.opening, context)


def test_no_clear_byte_leaves_before_its_frame_was_authenticated(
    recipients: list[Recipient], operations: Holder
):
    """Damage in the second frame lets the first out, and nothing of the second."""
    clear = CLEAR * (2 * FRAME // len(CLEAR) + 1)
    message = bytearray(encrypted(clear, recipients))
    message[-FRAME] ^= 1
    stream = decrypting(io.BytesIO(bytes(message)), operations.opening, CONTEXT, "x")
    seen: list[bytes] = []
    with pytest.raises(Refused):
        seen.extend(iter(lambda: stream.read(1000), b""))
    assert len(b"".join(seen)) <= FRAME
    assert clear.startswith(b"".join(seen))


def test_nobody_and_too_many_are_no_recipients(operations: Holder):
    """What nobody opens is lost, and the format holds only so many."""
    with pytest.raises(UsageError, match="no recipient"):
        encrypted(CLEAR, [])
    many = [
        Recipient(f"r{number}", "rsa", f"{number:064x}", operations.recipient.public_pem)
        for number in range(MOST_RECIPIENTS + 1)
    ]
    with pytest.raises(UsageError, match=f"{MOST_RECIPIENTS + 1} recipients"):
        encrypted(CLEAR, many)
    assert opened(encrypted(CLEAR, [operations.recipient, *many[:-2]]), operations.opening) == CLEAR


def test_the_same_key_under_two_names_is_no_trouble(operations: Holder):
    """The preflight counts it once; encryption takes it."""
    twice = [
        operations.recipient,
        Recipient("again", *list(vars(operations.recipient).values())[1:]),
    ]
    assert opened(encrypted(CLEAR, twice), operations.opening) == CLEAR


def test_errors_of_the_source_are_not_called_tampering(message: bytes, operations: Holder):
    """A store that fails while it is read is no reason to raise an incident."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 900:
                raise ConnectionError("the line broke")
            return super().read(size)

    stream = decrypting(Broken(message), operations.opening, CONTEXT, "x")
    with pytest.raises(ConnectionError):
        list(iter(lambda: stream.read(100), b""))


def test_the_suite_commits_to_its_key():
    """One ciphertext must not open to two texts under two keys."""
    assert crypto.SUITE == "AES_256_GCM_HKDF_SHA512_COMMIT_KEY"
