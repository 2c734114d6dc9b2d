"""One company per module; each test begins with its tables empty."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.local.postgres import EmbeddedPostgres
from tests.training.rig import Rig, new_rig


@pytest.fixture(scope="module")
def company(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Rig]:
    """A company that a module shares."""
    with new_rig(postgres, migrated_once) as made:
        yield made


@pytest.fixture
def rig(company: Rig) -> Rig:
    """The company at its beginning."""
    company.empty()
    return company
