"""The changes that ParcelSeal's auth manager makes to FAB's rules, tested with artificial roles."""

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


def test_user_may_answer_only_with_permissions_to_answer_and_to_read_the_same_dag(
    manager: Any,
) -> None:
    """A permission on another DAG, or only to read the part, gives no right either."""
    assert may_answer(manager, READ, ANSWER)
    assert not may_answer(manager, ANSWER)
    assert not may_answer(manager, READ)
    assert not may_answer(manager, READ, on_part(Action.EDIT, Part.ANSWER, "review_intake"))
    assert not may_answer(manager, READ, on_part(Action.READ, Part.ANSWER, DAG))


def test_user_with_the_permissions_that_fab_itself_grants_on_all_dags_may_answer(
    manager: Any,
) -> None:
    assert may_answer(manager, *WHOLE_FAB)
    assert not may_answer(manager, READ, Permission(Action.EDIT, "HITL Detail"))


def test_permission_to_answer_one_dag_does_not_apply_to_lists_of_all_dags(manager: Any) -> None:
    """For lists over all DAGs, Airflow checks the permission without a DAG id."""
    assert not may_answer(manager, READ, ANSWER, dag_id=None)
    assert not may_answer(manager, READ, ANSWER, dag_id="~")
