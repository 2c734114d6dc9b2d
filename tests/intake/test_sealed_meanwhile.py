"""A run is sealed while its settlement is cut off from the session that holds its lock."""

from __future__ import annotations

from typing import Any

import pytest

from include.intake import settle
from include.intake.workflow import REVIEW_INTAKE
from tests.intake.conftest import NOW, Rig
from tests.support.airflow_task import seal_under_work

pytestmark = pytest.mark.airflow


def test_settlement_lets_nothing_in_once_its_run_was_sealed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, run_of_tasks: tuple[str, str]
) -> None:
    """No evidence would show the promotion; the next run asks again."""
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.tasks import run_step

    checked = rig.checked()
    rig.answered(checked)
    real = settle._settle

    def sealed_before(*arguments: Any, **named: Any) -> Any:
        seal_under_work(rig.table.state, run_of_tasks, NOW)
        return real(*arguments, **named)

    monkeypatch.setattr(settle, "_settle", sealed_before)
    with pytest.raises(AirflowFailException, match="sealed while this step was still at work"):
        run_step(REVIEW_INTAKE, settle.SETTLE, checked.part)
    assert rig.states() == {"pending": 30}
