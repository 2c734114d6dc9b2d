"""Fixture of the state machine."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from include.local.postgres import EmbeddedPostgres
from tests.support.s3 import MotoServer, client_for, new_bucket
from tests.system.company import Bucket, Company, company

if TYPE_CHECKING:
    from tests.system.machine import SystemMachine


@pytest.fixture
def machine(
    postgres: EmbeddedPostgres, migrated_once: str, moto: MotoServer
) -> type[SystemMachine]:
    """The class of the state machine. Each instance creates its own company."""
    from tests.system.machine import SystemMachine

    class Machine(SystemMachine):
        @staticmethod
        def new_company(folder: Path, kind: str) -> AbstractContextManager[Company]:
            bucket = Bucket(moto.endpoint, new_bucket(client_for(moto.endpoint)))
            return company(postgres, migrated_once, folder, bucket if kind == "s3" else None)

    return Machine
