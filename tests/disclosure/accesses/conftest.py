"""Fixtures with a company that has an access log; it is created once per module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.local.postgres import EmbeddedPostgres
from tests.disclosure.accesses.access_fixtures import AccessCompany, new_company


@pytest.fixture(scope="module")
def shared_company(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[AccessCompany]:
    """Provide the company that the tests of a module share."""
    with new_company(postgres, migrated_once) as created:
        yield created


@pytest.fixture
def company(shared_company: AccessCompany) -> AccessCompany:
    """Provide the company without accesses, approvals and violations."""
    shared_company.reset()
    return shared_company
