"""Run the functions behind human steps as Airflow's tasks do, and kill them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import Engine

from include.evidence import ledger
from include.evidence import step_findings as kept_steps
from include.evidence.ledger import LedgerRow
from include.evidence.model import StepRecord
from include.evidence.signing import Signer, generate_key
from include.services.clock import Clock


def in_task(
    monkeypatch: pytest.MonkeyPatch, key: tuple[str, str], state: Engine, clock: Clock, **more: Any
) -> SimpleNamespace:
    """Let the tasks of a run use a state database, and return the services of the tasks.

    Args:
        monkeypatch: fixture of the test.
        key: DAG id and run id.
        state: the state database.
        clock: source of the current time.
        more: further attributes of the services.
    """
    services = SimpleNamespace(state=state, clock=clock, **more)
    with_services(monkeypatch, key, services)
    return services


def with_services(monkeypatch: pytest.MonkeyPatch, key: tuple[str, str], services: Any) -> None:
    """Let the tasks of a run use the given services.

    Args:
        monkeypatch: fixture of the test.
        key: DAG id and run id.
        services: the services.
    """
    from include.orchestration import run, run_trigger, tasks

    dag_run = SimpleNamespace(
        dag_id=key[0],
        run_id=key[1],
        start_date=datetime(2026, 11, 28, tzinfo=UTC),
        triggering_user_name=None,
        conf={},
    )
    instance = SimpleNamespace(try_number=1, max_tries=5)
    context = {"dag_run": dag_run, "ti": instance, "params": {}}
    for module in (run, run_trigger, tasks):
        monkeypatch.setattr(module, "get_current_context", lambda: context)
    monkeypatch.setattr(run, "task_services", lambda: services)


def killed_after(task: Callable[[], Any], module: Any, name: str) -> Any:
    """Kill a task right after a function returned, and return the function's result.

    Args:
        task: function behind the task that is killed.
        module: module in which the task looks up the function.
        name: name of the function.
    """
    returned: list[Any] = []
    real = getattr(module, name)

    def last(*arguments: Any, **named: Any) -> Any:
        returned.append(real(*arguments, **named))
        raise SystemExit

    with patch.object(module, name, last), suppress(SystemExit):
        task()
    (result,) = returned
    return result


def record_of(state: Engine, key: tuple[str, str], step: str, part: str = "") -> StepRecord:
    """Return the record that a step of a run wrote."""
    with state.connect() as conn:
        (record,) = [
            record
            for record in kept_steps.steps_of(conn, *key)
            if (record.step, record.part) == (step, part)
        ]
    return record


def seal_under_work(state: Engine, key: tuple[str, str], at: datetime) -> None:
    """Enter a run in the evidence ledger as sealed while a step of the run is at work.

    Before that, the database session with which the step locks the run is terminated.
    """
    from include.orchestration import run_lock

    work = run_lock._at_work.get()
    assert work is not None
    assert work.lock is not None
    pid = work.lock.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    signer = Signer.from_pem(generate_key())
    with state.begin() as conn:
        conn.exec_driver_sql(f"SELECT pg_terminate_backend({pid}, 10000)")
        row = LedgerRow(
            1, "/".join(key), *key, "fail", [], at, at, "0" * 64, "", signer.fingerprint
        )
        ledger.append(conn, signer, row)
