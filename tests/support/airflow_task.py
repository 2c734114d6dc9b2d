"""Run the functions of human steps as a task of Airflow does, and kill them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import Engine

from include.evidence import steps as kept_steps
from include.evidence.model import StepRecord
from include.services.clock import Clock


def in_task(
    monkeypatch: pytest.MonkeyPatch, key: tuple[str, str], state: Engine, clock: Clock, **more: Any
) -> SimpleNamespace:
    """Let the tasks of a run work on a state database, and return their workplace.

    Args:
        monkeypatch: of the test.
        key: dag id and run id.
        state: the state database.
        clock: of the workplace.
        more: further attributes of the workplace.
    """
    from include.orchestration import run

    place = SimpleNamespace(state=state, clock=clock, **more)
    dag_run = SimpleNamespace(
        dag_id=key[0],
        run_id=key[1],
        start_date=datetime(2026, 11, 28, tzinfo=UTC),
        triggering_user_name=None,
    )
    monkeypatch.setattr(run, "get_current_context", lambda: {"dag_run": dag_run})
    monkeypatch.setattr(run, "workplace", lambda: place)
    return place


def killed_after(task: Callable[[], Any], module: Any, name: str) -> Any:
    """Kill a task right after a function of a module returned, and return its result.

    Args:
        task: that is killed.
        module: in which the function is looked up.
        name: of the function.
    """
    returned: list[Any] = []
    real = getattr(module, name)

    def last(*given: Any, **named: Any) -> Any:
        returned.append(real(*given, **named))
        raise SystemExit

    with patch.object(module, name, last), suppress(SystemExit):
        task()
    (result,) = returned
    return result


def record_of(state: Engine, key: tuple[str, str], step: str, part: str = "") -> StepRecord:
    """Return the record that a step of a run left."""
    with state.connect() as conn:
        (record,) = [
            record
            for record in kept_steps.steps_of(conn, *key)
            if (record.step, record.part) == (step, part)
        ]
    return record
