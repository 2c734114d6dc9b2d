"""Random sequences of operations give no access beyond an approval, and none after its end.

Legal holds on the records of an extract change neither.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.disclosure.use_fixtures import UseCompany
from tests.disclosure.use_machine import UseMachine

# A failing sequence is reported as it was drawn: shrinking takes minutes and runs the same steps.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
RUNS = int(os.environ.get("TEST_USE_RUNS", "150"))
LONGER = "TEST_USE_RUNS" in os.environ


@pytest.mark.timeout(0 if LONGER else 900)
def test_random_sequences_of_requests_and_extracts_keep_the_invariants(
    company: UseCompany,
) -> None:
    machine = type("BoundMachine", (UseMachine,), {"company": company})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=RUNS,
            stateful_step_count=25,
            deadline=None,
            phases=PHASES,
            suppress_health_check=list(HealthCheck),
        ),
    )
