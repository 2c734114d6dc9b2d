"""What the auth manager adds to FAB's rules, asked of permissions that no role of ours has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from include.orchestration.access.permissions import Action, Part, Permission, on_dag, on_part

DAG = "enforce_retention"
READ = on_dag(Action.READ, DAG)
ANSWER = on_part(Action.EDIT, Part.ANSWER, DAG)
WHOLE_FAB = [Permission(Action.EDIT, "DAGs"), Permission(Action.EDIT, "HITL Detail")]


@pytest.fixture(scope="module")
def manager() -> Any:
    from include.orchestration.access.manager import AccountFabAuthManager

    return AccountFabAuthManager()


def may_answer(manager: Any, *permissions: Permission, dag_id: str | None = DAG) -> bool:
    from airflow.api_fastapi.auth.managers.models.resource_details import (
        DagAccessEntity,
        DagDetails,
    )

    return manager.is_authorized_dag(
        method="PUT",
        access_entity=DagAccessEntity.HITL_DETAIL,
        details=DagDetails(id=dag_id),
        user=SimpleNamespace(perms=set(permissions)),
    )


def test_a_permission_on_a_part_counts_for_who_reads_the_dag(manager: Any) -> None:
    """Neither is enough alone, and that of another DAG is none."""
    assert may_answer(manager, READ, ANSWER)
    assert not may_answer(manager, ANSWER)
    assert not may_answer(manager, READ)
    assert not may_answer(manager, READ, on_part(Action.EDIT, Part.ANSWER, "review_intake"))
    assert not may_answer(manager, READ, on_part(Action.READ, Part.ANSWER, DAG))


def test_what_fab_grants_it_grants_as_before(manager: Any) -> None:
    """And what FAB refuses of its own permissions stays refused: all parts, but only reading."""
    assert may_answer(manager, *WHOLE_FAB)
    assert not may_answer(manager, READ, Permission(Action.EDIT, "HITL Detail"))


def test_a_part_of_one_dag_is_no_part_of_all(manager: Any) -> None:
    """A list over all DAGs is asked about without naming one."""
    assert not may_answer(manager, READ, ANSWER, dag_id=None)
    assert not may_answer(manager, READ, ANSWER, dag_id="~")
