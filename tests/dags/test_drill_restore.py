"""Test of the order of the tasks in `drill_restore`."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.airflow
FILE = Path(__file__).parents[2] / "dags" / "drill_restore.py"


def test_task_drop_scratch_runs_even_after_a_failed_restore_drill_and_before_task_seal() -> None:
    """`drop_scratch` must not be a teardown task (docs/decisions/0047).

    If a run is marked as failed, Airflow skips `seal`, runs the teardown task, and reports success.
    """
    dag = runpy.run_path(str(FILE))["drill_restore"]()
    dropped = dag.get_task("drop_scratch")
    assert dropped.trigger_rule == "all_done"
    assert "each.drill" in {task.task_id for task in dropped.get_flat_relatives(upstream=True)}
    assert dropped.downstream_task_ids == {"seal"}
    assert not any(task.is_teardown for task in dag.tasks)
