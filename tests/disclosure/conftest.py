"""Fixtures with a company whose employees request customer information."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.local.postgres import EmbeddedPostgres
from tests.disclosure.use_fixtures import UseCompany, new_company


@pytest.fixture(scope="module")
def shared_company(
    postgres: EmbeddedPostgres, migrated_once: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[UseCompany]:
    """Provide the company that all tests of a module share."""
    with new_company(postgres, migrated_once, tmp_path_factory.mktemp("extracts")) as created:
        yield created


@pytest.fixture
def company(shared_company: UseCompany) -> UseCompany:
    """Provide the company with five customers and without requests."""
    shared_company.reset()
    shared_company.add_customers()
    return shared_company
