"""Fixtures: a runner whose databases are created once and emptied before each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.local.postgres import EmbeddedPostgres
from tests.retention.runner import RetentionRunner, new_runner


@pytest.fixture(scope="session")
def shared_runner(postgres: EmbeddedPostgres) -> Iterator[RetentionRunner]:
    """A runner with databases for the whole session."""
    with new_runner(postgres) as shared:
        yield shared


@pytest.fixture
def runner(shared_runner: RetentionRunner) -> RetentionRunner:
    """A runner without records. Tests that change its tables use `new_runner` instead."""
    shared_runner.empty()
    return shared_runner.but()
