"""Errors that nobody foresaw: they are found again without repeating what they quote."""

from __future__ import annotations

import psycopg
import pytest

from include.orchestration.unforeseen import value_free
from include.services.errors import ServiceError


def test_an_error_of_postgresql_is_named_without_its_words(database: str):
    """Kind, SQLSTATE and place stand there; the value that the server quotes does not."""
    with psycopg.connect(database) as connection, pytest.raises(psycopg.Error) as caught:
        connection.execute("SELECT 'CANARY-4711'::int")
    assert "CANARY-4711" in str(caught.value)
    text = value_free(caught.value)
    assert "CANARY-4711" not in text
    assert "InvalidTextRepresentation (SQLSTATE 22P02)" in text
    assert "test_unforeseen.py" in text


def test_causes_are_named_too():
    """The error below the error says where the fault is."""
    error = ServiceError("CANARY-4711")
    error.__cause__ = KeyError("CANARY-4711")
    text = value_free(error)
    assert [line for line in text.splitlines() if not line.startswith(" ")] == [
        "ServiceError",
        "KeyError",
    ]
    assert "CANARY-4711" not in text


def test_causes_in_a_ring_end():
    """Two errors that name each other do not hang the log."""
    one, other = ValueError(), TypeError()
    one.__cause__, other.__cause__ = other, one
    assert value_free(one).split() == ["ValueError", "TypeError"]
