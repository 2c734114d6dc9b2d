"""Fixtures of a company with training; it is created once per module and emptied per test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.local.postgres import EmbeddedPostgres
from tests.training.training_fixtures import TrainingCompany, new_company


@pytest.fixture(scope="module")
def shared_company(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[TrainingCompany]:
    """Provide the company that the tests of a module share."""
    with new_company(postgres, migrated_once) as created:
        yield created


@pytest.fixture
def company(shared_company: TrainingCompany) -> TrainingCompany:
    """Provide the company without people, courses and notifications."""
    shared_company.reset()
    return shared_company
