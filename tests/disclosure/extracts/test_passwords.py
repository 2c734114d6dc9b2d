"""Tests of the passwords of extracts."""

from __future__ import annotations

import hashlib
import hmac
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.disclosure.extracts.passwords import ALPHABET, derive_password

KEY = bytes(range(32))
texts = st.text(max_size=20)


def test_password_has_over_100_bits_and_no_characters_that_look_alike() -> None:
    password = derive_password(KEY, "digest", "wang", "1")
    assert re.fullmatch(f"([{ALPHABET}]{{4}}-){{5}}[{ALPHABET}]{{4}}", password)
    assert not set("0O1IL") & set(ALPHABET)
    assert len(set(ALPHABET)) == len(ALPHABET)
    assert 24 * math.log2(len(ALPHABET)) > 100


def test_password_is_the_hmac_in_base_31() -> None:
    parts = (b"parcelseal.extract-password/1", "摘要".encode(), b"wang", b"1")
    message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    number = int(hmac.new(KEY, message, hashlib.sha256).hexdigest(), 16)
    expected = "".join(ALPHABET[number // 31**position % 31] for position in range(24))
    assert derive_password(KEY, "摘要", "wang", "1").replace("-", "") == expected


@given(first=st.tuples(texts, texts, texts), second=st.tuples(texts, texts, texts))
def test_different_requests_have_different_passwords(
    first: tuple[str, str, str], second: tuple[str, str, str]
) -> None:
    passwords = derive_password(KEY, *first), derive_password(KEY, *second)
    assert (passwords[0] == passwords[1]) == (first == second)


@given(parts=st.tuples(texts, texts, texts), at=st.integers(0, 2))
def test_password_depends_on_where_its_parts_end(parts: tuple[str, str, str], at: int) -> None:
    joined = "".join(parts)
    alone = ["", "", ""]
    alone[at] = joined
    same = tuple(alone) == parts
    assert (derive_password(KEY, *alone) == derive_password(KEY, *parts)) == same


def test_other_key_gives_other_password() -> None:
    assert derive_password(KEY, "d", "r", "1") != derive_password(KEY[::-1], "d", "r", "1")


def test_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 bytes"):
        derive_password(KEY[:31], "d", "r", "1")
