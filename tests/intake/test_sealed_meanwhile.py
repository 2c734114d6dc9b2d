"""Test of a run that is sealed while one of its steps is still working.

The step has lost the database session with its lock, so the seal does not wait for it.
"""

from __future__ import annotations

from typing import Any

import pytest

from include.intake import settle
from include.intake.workflow import REVIEW_INTAKE
from tests.intake.conftest import NOW, Rig
from tests.support.airflow_task import seal_under_work

pytestmark = pytest.mark.airflow


def test_no_row_is_promoted_if_the_run_is_sealed_while_the_promotion_task_is_running(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, run_of_tasks: tuple[str, str]
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.tasks import run_step

    checked = rig.checked()
    rig.answered(checked)
    real = settle._settle_batch

    def sealed_before(*arguments: Any, **named: Any) -> Any:
        seal_under_work(rig.table.state, run_of_tasks, NOW)
        return real(*arguments, **named)

    monkeypatch.setattr(settle, "_settle_batch", sealed_before)
    with pytest.raises(AirflowFailException, match="sealed while this step was still at work"):
        run_step(REVIEW_INTAKE, settle.SETTLE, checked.part)
    assert rig.states() == {"pending": 30}
