"""Pools, priorities and queues of tasks, as set in operations.yaml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from include.services.errors import UsageError
from tests.orchestration.test_deadline import dag, operations, pack

pytestmark = pytest.mark.airflow
__all__ = ["pack"]


def settings(dag_: Any) -> dict[str, tuple[str, str, int]]:
    return {task.label: (task.queue, task.pool, task.priority_weight) for task in dag_.tasks}


def test_tasks_have_their_declared_queues_and_the_default_pool_if_operations_yaml_is_missing(
    pack: Path,
) -> None:
    assert not (pack / "operations.yaml").exists()
    assert settings(dag("backup_offsite")) == {
        "databases": ("backup", "default_pool", 1),
        "preflight": ("backup", "default_pool", 1),
        "backup": ("backup", "default_pool", 1),
        "prune": ("retention", "default_pool", 1),
        "seal": ("sealing", "default_pool", 1),
        "gate": ("backup", "default_pool", 1),
    }


def test_operations_yaml_sets_pool_priority_and_queue_of_tasks(pack: Path) -> None:
    """A queue for the whole workflow does not move tasks out of their trust zones."""
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
    dag_ = dag("backup_offsite")
    assert settings(dag_) == expected
    assert '"pool": "dumps"' in serialized(dag_)
    operations(pack, remind_training={"queue": "night"})
    queues = {task.label: task.queue for task in dag("remind_training").tasks}
    assert (queues["send"], queues["gate"]) == ("default", "night")
    assert settings(dag("check_quality"))["check"] == ("default", "default_pool", 1)


def serialized(dag_: Any) -> str:
    from airflow.serialization.serialized_objects import DagSerialization

    return json.dumps(DagSerialization.serialize_dag(dag_))


def test_operations_yaml_sets_pool_and_priority_of_human_tasks(pack: Path) -> None:
    operations(pack, enforce_retention={"pool": "people", "tasks": {"approve": {"priority": 7}}})
    assert settings(dag("enforce_retention"))["approve"] == ("retention", "people", 7)


def test_unknown_task_in_operations_yaml_raises_usage_error_when_the_dag_is_built(
    pack: Path,
) -> None:
    operations(pack, backup_offsite={"tasks": {"bakcup": {"pool": "dumps"}}})
    with pytest.raises(UsageError, match=r"no task of backup_offsite: bakcup"):
        dag("backup_offsite")
