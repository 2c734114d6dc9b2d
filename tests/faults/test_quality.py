"""A customer database that crashes between two checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.local.postgres import EmbeddedPostgres
from tests.faults.conftest import new_database
from tests.faults.support import crash_and_restart
from tests.quality.support import Company

pytestmark = pytest.mark.fault


def test_a_crash_between_two_checks_hides_no_deletion(
    fragile: EmbeddedPostgres, migrated_database: str, tmp_path: Path
) -> None:
    """The server counts deletions anew after it: as many as before are not none."""
    company = Company.make(new_database(fragile), migrated_database, tmp_path / "pack")
    company.do("DELETE FROM consent WHERE person_id IN (1, 2)", "DELETE FROM person WHERE id = 1")
    company.do("UPDATE person SET name = '' WHERE id IN (2, 3)")
    company.check()
    crash_and_restart(fragile)
    company.do("DELETE FROM person WHERE id = 2")
    company.check()
    assert company.open() == {"named": {'["3"]'}}
