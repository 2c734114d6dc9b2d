"""Any order of the whole system's operations keeps the invariants of docs/architecture.md.

TEST_SYSTEM_SEQUENCES sets how many sequences are tried (60). With it a failing sequence is made as
short as possible too, which takes minutes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from include.local.postgres import EmbeddedPostgres
from tests.support.s3 import MotoServer, client_for, new_bucket, start_moto
from tests.system.company import Bucket, Company, company

LONGER = os.environ.get("TEST_SYSTEM_SEQUENCES", "")
SEQUENCES = int(LONGER or 60)
STEPS = 10

pytestmark = pytest.mark.airflow


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    """An S3 server."""
    server = start_moto()
    yield server
    server.stop()


@pytest.mark.timeout(0 if LONGER else 900)
def test_any_order_of_operations_keeps_the_invariants(
    postgres: EmbeddedPostgres, migrated_once: str, moto: MotoServer
) -> None:
    """Back up, prune, hold, erase, restore, drill, seal, clear, kill, damage and recover."""
    from tests.system.machine import SystemMachine

    class Machine(SystemMachine):
        @staticmethod
        def new_company(folder: Path, kind: str) -> AbstractContextManager[Company]:
            bucket = Bucket(moto.endpoint, new_bucket(client_for(moto.endpoint)))
            return company(postgres, migrated_once, folder, bucket if kind == "s3" else None)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink] if LONGER else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
