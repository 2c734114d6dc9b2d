"""Keys and the KMS that the encryption tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.holders import offline, operations, recipients, stranger
from tests.support.s3 import MotoServer, start_moto

__all__ = ["offline", "operations", "recipients", "stranger"]


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoServer]:
    made = start_moto()
    yield made
    made.stop()
