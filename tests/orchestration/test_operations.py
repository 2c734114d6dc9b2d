"""Pools, priorities and queues that the policy pack sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from include.services.errors import UsageError
from tests.orchestration.test_deadline import dag, operations, pack

pytestmark = pytest.mark.airflow
__all__ = ["pack"]


def settings(made: Any) -> dict[str, tuple[str, str, int]]:
    return {task.label: (task.queue, task.pool, task.priority_weight) for task in made.tasks}


def test_without_the_file_tasks_run_as_declared(pack: Path) -> None:
    assert not (pack / "operations.yaml").exists()
    assert settings(dag("backup_offsite")) == {
        "databases": ("backup", "default_pool", 1),
        "preflight": ("backup", "default_pool", 1),
        "backup": ("backup", "default_pool", 1),
        "prune": ("retention", "default_pool", 1),
        "seal": ("sealing", "default_pool", 1),
        "gate": ("backup", "default_pool", 1),
    }


def test_tasks_run_as_the_policy_pack_says(pack: Path) -> None:
    """Mapped tasks in groups too. A queue of the workflow leaves tasks in their trust zones."""
    operations(
        pack,
        backup_offsite={
            "queue": "night",
            "priority": 5,
            "tasks": {
                "backup": {"pool": "dumps", "priority": 9, "queue": "dumps"},
                "seal": {"queue": "notary"},
            },
        },
    )
    expected = {
        "databases": ("night", "default_pool", 5),
        "preflight": ("night", "default_pool", 5),
        "backup": ("dumps", "dumps", 9),
        "prune": ("retention", "default_pool", 5),
        "seal": ("notary", "default_pool", 5),
        "gate": ("night", "default_pool", 5),
    }
    made = dag("backup_offsite")
    assert settings(made) == expected
    assert '"pool": "dumps"' in serialized(made)
    operations(pack, remind_training={"queue": "night"})
    queues = {task.label: task.queue for task in dag("remind_training").tasks}
    assert (queues["send"], queues["gate"]) == ("default", "night")
    assert settings(dag("check_quality"))["check"] == ("default", "default_pool", 1)


def serialized(made: Any) -> str:
    from airflow.serialization.serialized_objects import DagSerialization

    return json.dumps(DagSerialization.serialize_dag(made))


def test_human_tasks_have_pools_and_priorities_too(pack: Path) -> None:
    operations(pack, enforce_retention={"pool": "people", "tasks": {"approve": {"priority": 7}}})
    assert settings(dag("enforce_retention"))["approve"] == ("retention", "people", 7)


def test_a_task_that_the_workflow_does_not_have_is_refused(pack: Path) -> None:
    """The DAG shows an import error, in place of a setting without effect."""
    operations(pack, backup_offsite={"tasks": {"bakcup": {"pool": "dumps"}}})
    with pytest.raises(UsageError, match=r"no task of backup_offsite: bakcup"):
        dag("backup_offsite")
