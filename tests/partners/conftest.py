"""A company with partners, once per module; each test begins with none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.local.postgres import EmbeddedPostgres
from tests.partners.rig import Rig, new_rig


@pytest.fixture(scope="module")
def company(
    postgres: EmbeddedPostgres, migrated_once: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """A company that a module shares."""
    with new_rig(postgres, migrated_once, tmp_path_factory.mktemp("pack")) as made:
        yield made


@pytest.fixture
def rig(company: Rig) -> Iterator[Rig]:
    """The company at its beginning."""
    pack, today, run = company.pack, company.today, company.run
    company.empty()
    yield company
    company.pack, company.today, company.run = pack, today, run
