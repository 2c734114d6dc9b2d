"""Tests that the secret of an HMAC key id cannot change."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from include.erasure.ledger import ErasureKeys
from include.erasure.matching import require_same_secrets
from include.services.errors import UsageError
from include.state.connect import engine

AT = datetime(2026, 11, 25, tzinfo=UTC)
FIRST, SECOND = b"1" * 32, b"2" * 32


def test_require_same_secrets_fails_if_secret_of_key_id_changed(migrated_database: str) -> None:
    """New key ids are stored. A configuration without an old key is accepted by this check."""
    state = engine(migrated_database)
    require_same_secrets(state, ErasureKeys({"a": FIRST}, "a"), AT)
    require_same_secrets(state, ErasureKeys({"a": FIRST, "b": SECOND}, "b"), AT)
    require_same_secrets(state, ErasureKeys({"b": SECOND}, "b"), AT)
    with pytest.raises(UsageError, match="The secret of erasure key a differs from the secret"):
        require_same_secrets(state, ErasureKeys({"a": SECOND, "b": SECOND}, "b"), AT)
