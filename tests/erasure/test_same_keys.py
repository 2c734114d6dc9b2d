"""Another secret under an id of the ledger's keys is refused, wherever the ledger is used."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from include.erasure.ledger import ErasureKeys
from include.erasure.matching import require_same_secrets
from include.services.errors import UsageError
from include.state.connect import engine

AT = datetime(2026, 11, 25, tzinfo=UTC)
FIRST, SECOND = b"1" * 32, b"2" * 32


def test_a_secret_is_known_by_its_id_from_its_first_use_on(migrated_database: str) -> None:
    """New ids are remembered; an old one that lacks is no fault here."""
    state = engine(migrated_database)
    require_same_secrets(state, ErasureKeys({"a": FIRST}, "a"), AT)
    require_same_secrets(state, ErasureKeys({"a": FIRST, "b": SECOND}, "b"), AT)
    require_same_secrets(state, ErasureKeys({"b": SECOND}, "b"), AT)
    with pytest.raises(UsageError, match="The secret of erasure key a is not the one"):
        require_same_secrets(state, ErasureKeys({"a": SECOND, "b": SECOND}, "b"), AT)
