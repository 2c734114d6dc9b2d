"""Verification releases its lock, even after an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from include.services.objectstore.base import StoredObject, StoreError
from include.services.objectstore.directory import DirectoryStore
from tests.evidence.support import Evidence


def test_error_during_verification_is_raised_and_lock_is_released(chain: Evidence) -> None:
    """The transaction may already be aborted when the lock is released, as after a signal."""

    class FailingStore(DirectoryStore):
        def list(self, prefix: str = "") -> Iterator[StoredObject]:
            del prefix
            with suppress(SQLAlchemyError):
                chain.conn.execute(text("SELECT 1 / 0"))
            raise StoreError("the store is away")

    chain.store = FailingStore(chain.root)
    with pytest.raises(StoreError, match="the store is away"):
        chain.verify()
    chain.conn.rollback()
    held = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
    assert chain.conn.scalar(held) == 0
