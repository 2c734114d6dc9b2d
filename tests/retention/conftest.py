"""A rig whose databases are made once; each test finds them empty."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.local.postgres import EmbeddedPostgres
from tests.retention.rig import Rig, new_rig


@pytest.fixture(scope="session")
def standing_rig(postgres: EmbeddedPostgres) -> Iterator[Rig]:
    with new_rig(postgres) as made:
        yield made


@pytest.fixture
def rig(standing_rig: Rig) -> Rig:
    """A rig without records; a test that changes its tables takes `new_rig` instead."""
    standing_rig.empty()
    return standing_rig.but()
