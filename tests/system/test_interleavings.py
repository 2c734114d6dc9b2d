"""Test that operations in any order break no invariant of docs/explanation/architecture.md.

TEST_SYSTEM_SEQUENCES sets the number of sequences (default 30). If it is set, a failing sequence is
shortened, which takes minutes. TEST_SYSTEM_DEFECT applies a patch of `tests.system.defects` to
measure how soon a random sequence finds the defect. That sequence is not shortened.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

if TYPE_CHECKING:
    from tests.system.machine import SystemMachine

LONGER = os.environ.get("TEST_SYSTEM_SEQUENCES", "")
SEQUENCES = int(LONGER or 30)
STEPS = 10 if LONGER else 4  # operations per sequence; two more follow at its end
DEFECT = os.environ.get("TEST_SYSTEM_DEFECT", "")

pytestmark = pytest.mark.airflow


@pytest.mark.timeout(0 if LONGER else 1400)
def test_operations_in_any_order_break_no_invariant_of_the_system(
    machine: type[SystemMachine],
) -> None:
    """Operations are backups, legal holds, erasures, restores, drills, seals, kills and damage."""
    from tests.system.defects import DEFECTS

    with DEFECTS[DEFECT]() if DEFECT else nullcontext():
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=SEQUENCES,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                phases=[Phase.generate, Phase.shrink]
                if LONGER and not DEFECT
                else [Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
