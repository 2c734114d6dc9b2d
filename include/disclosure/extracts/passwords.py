"""Derive the passwords of extracts, so that none has to be stored.

An attempt to write an extract that is repeated after an interruption gets the same password. Only a
holder of the secret key can derive it.
"""

from __future__ import annotations

import hashlib
import hmac

# Digits and capital letters without 0, O, 1, I and L, which readers confuse
ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
_PREFIX = "parcelseal.extract-password/1"
_GROUPS, _GROUP_LENGTH = 6, 4
MINIMUM_KEY = 32  # bytes


def derive_password(secret_key: bytes, request_digest: str, recipient: str, attempt: str) -> str:
    """Return the password of an extract, such as ``K7QF-2MWX-9RTA-HC4D-VE8P-3NZG``.

    The password has 118 bits: 24 characters of an alphabet of 31.

    Args:
        secret_key: secret of at least `MINIMUM_KEY` bytes, used for no other purpose.
        request_digest: digest of the approved request.
        recipient: recipient of the extract.
        attempt: identifier of the attempt to write the extract.

    Raises:
        ValueError: the secret key is too short.
    """
    if len(secret_key) < MINIMUM_KEY:
        raise ValueError(f"the key of extract passwords needs at least {MINIMUM_KEY} bytes")
    # Each part is preceded by its length, so that different parts never give the same message.
    parts = [part.encode() for part in (_PREFIX, request_digest, recipient, attempt)]
    message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    number = int.from_bytes(hmac.digest(secret_key, message, hashlib.sha256), "big")
    characters = []
    for _position in range(_GROUPS * _GROUP_LENGTH):
        number, index = divmod(number, len(ALPHABET))
        characters.append(ALPHABET[index])
    text = "".join(characters)
    return "-".join(
        text[start : start + _GROUP_LENGTH] for start in range(0, len(text), _GROUP_LENGTH)
    )
