"""Descriptions of unexpected errors contain no value of a row."""

from __future__ import annotations

import psycopg
import pytest

from include.orchestration.redacted_errors import redact_traceback
from include.services.errors import ServiceError


def test_redact_traceback_omits_message_of_postgresql(database: str):
    """The description contains the type of the error, the SQLSTATE and the lines of code."""
    with psycopg.connect(database) as connection, pytest.raises(psycopg.Error) as caught:
        connection.execute("SELECT 'CANARY-4711'::int")
    assert "CANARY-4711" in str(caught.value)
    text = redact_traceback(caught.value)
    assert "CANARY-4711" not in text
    assert "InvalidTextRepresentation (SQLSTATE 22P02)" in text
    assert "test_redacted_errors.py" in text


def test_redacted_traceback_contains_types_but_no_texts_of_error_and_cause():
    error = ServiceError("CANARY-4711")
    error.__cause__ = KeyError("CANARY-4711")
    text = redact_traceback(error)
    assert [line for line in text.splitlines() if not line.startswith(" ")] == [
        "ServiceError",
        "KeyError",
    ]
    assert "CANARY-4711" not in text


def test_redact_traceback_terminates_if_causes_form_a_cycle():
    first, second = ValueError(), TypeError()
    first.__cause__, second.__cause__ = second, first
    assert redact_traceback(first).split() == ["ValueError", "TypeError"]
