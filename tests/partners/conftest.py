"""Fixtures with a company that has partners.

It is created once per module and emptied for each test.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.local.postgres import EmbeddedPostgres
from tests.partners.partner_fixtures import PartnersCompany, new_company


@pytest.fixture(scope="module")
def shared_company(
    postgres: EmbeddedPostgres, migrated_once: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PartnersCompany]:
    """Provide the company that all tests of a module share."""
    with new_company(postgres, migrated_once, tmp_path_factory.mktemp("pack")) as created:
        yield created


@pytest.fixture
def company(shared_company: PartnersCompany) -> Iterator[PartnersCompany]:
    """Provide the shared company without partners, reviews and notifications."""
    pack, today, run = shared_company.pack, shared_company.today, shared_company.run
    shared_company.reset()
    yield shared_company
    shared_company.pack, shared_company.today, shared_company.run = pack, today, run
