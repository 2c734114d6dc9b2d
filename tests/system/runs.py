"""Runs of workflows without Airflow.

The functions behind the tasks are called one after the other.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from airflow.sdk.exceptions import AirflowException
from airflow.sdk.execution_time.context import OutletEventAccessors

from include.backup.drill import CHOOSE, DRILL
from include.backup.offsite import BACKUP, PREFLIGHT, PRUNE
from include.backup.refusals import REFUSALS
from include.backup.workflow import BACKUP_OFFSITE, DRILL_RESTORE
from include.evidence.folder import RESULT, StoreFolder
from include.evidence.model import Outcome, Result
from include.orchestration import gate, run, run_trigger, tasks
from include.orchestration.retry_policy import TaskFailed
from include.orchestration.tasks import ask_people, run_step, seal_workflow
from include.retention.steps import APPROVE, EXECUTE, PLAN, PRUNE_EVIDENCE, VERIFY
from include.retention.workflow import ENFORCE_RETENTION
from include.services.errors import ParcelSealError
from tests.system.company import NAME, Company

TASK_ERRORS = (ParcelSealError, AirflowException)
"""Errors with which a task of Airflow fails."""


class Killed(BaseException):
    """Raised if a test kills the process of a task."""


@dataclass
class Run:
    """A run of a workflow.

    Attributes:
        shown: outcome that the run showed at its end; None before the seal.
        bundle: folder of the run's evidence bundle.
        steps: functions behind the tasks of the run in their order, except for the seal.
        parameters: parameters of the run.
    """

    dag_id: str
    steps: list[Callable[[], object]]
    seal_task: Callable[[], dict[str, Any]]
    parameters: dict[str, Any] = field(default_factory=dict)
    run_id: str = field(default_factory=lambda: f"manual__{uuid.uuid4().hex[:10]}")
    shown: str | None = None
    bundle: str = ""
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))  # noqa: TID251 - Airflow's own clock

    def work(self, company: Company, *, try_number: int = 1) -> None:
        """Run all steps until one fails.

        Raises:
            Killed: a test killed a step.
        """
        with self.as_task(company, try_number):
            try:
                for step in self.steps:
                    step()
            except TASK_ERRORS:
                return

    def repeat(self, company: Company, step: int) -> bool:
        """Run a step again as a cleared task, and return whether the step succeeded."""
        with self.as_task(company, 2):
            try:
                self.steps[step]()
            except TASK_ERRORS:
                return False
        return True

    def seal(self, company: Company) -> str:
        """Seal the run, and return the outcome that the gate shows.

        Raises:
            Killed: a test killed the seal.
        """
        with self.as_task(company):
            sealed = self.seal_task()
            try:
                gate.report_sealed_run(company.services, self.dag_id, self.run_id, sealed)
            except TaskFailed:
                shown = str(Outcome.FAIL)
            else:
                shown = sealed["outcome"]
        assert shown == sealed["outcome"]
        self.shown, self.bundle = shown, sealed["bundle"]
        return shown

    def complete(self, company: Company) -> str:
        """Run all steps, seal the run, and return the outcome that the run shows."""
        self.work(company)
        return self.seal(company)

    @contextmanager
    def as_task(self, company: Company, try_number: int = 1) -> Iterator[None]:
        """Give the functions behind tasks the Airflow context of a task of this run."""
        context = {
            "dag_run": SimpleNamespace(
                dag_id=self.dag_id,
                run_id=self.run_id,
                start_date=self.started_at,
                data_interval_start=None,
                data_interval_end=None,
                triggering_user_name=None,
                conf={},
            ),
            "ti": SimpleNamespace(
                try_number=try_number,
                max_tries=3,
                get_task_states=lambda **_of_run: {self.run_id: {}},
            ),
            "params": self.parameters,
            "outlet_events": OutletEventAccessors(),
        }
        with ExitStack() as stack:
            for module in (run, run_trigger, tasks):
                stack.enter_context(patch.object(module, "get_current_context", lambda: context))
            stack.enter_context(patch.object(run, "task_services", lambda: company.services))
            yield


def backup_run() -> Run:
    """Return a new run of `backup_offsite`."""
    return Run(
        "backup_offsite",
        [
            lambda: run_step(BACKUP_OFFSITE, PREFLIGHT),
            lambda: run_step(BACKUP_OFFSITE, BACKUP, NAME),
            lambda: run_step(BACKUP_OFFSITE, PRUNE, NAME),
        ],
        lambda: seal_workflow(BACKUP_OFFSITE),
    )


def drill_run(rule: str = "latest") -> Run:
    """Return a new run of `drill_restore`.

    Args:
        rule: how the run chooses a restore point.
    """
    return Run(
        "drill_restore",
        [
            lambda: run_step(DRILL_RESTORE, CHOOSE, NAME),
            lambda: run_step(DRILL_RESTORE, REFUSALS, NAME),
            lambda: run_step(DRILL_RESTORE, DRILL, NAME),
        ],
        lambda: seal_workflow(DRILL_RESTORE),
        parameters={"choose": rule},
    )


def retention_run() -> Run:
    """Return a new run of `enforce_retention`."""

    def ask() -> None:
        people = ask_people(ENFORCE_RETENTION, APPROVE, NAME)
        assert people is None, "the plan waits for a second person"

    return Run(
        "enforce_retention",
        [
            lambda: run_step(ENFORCE_RETENTION, PLAN, NAME),
            ask,
            lambda: run_step(ENFORCE_RETENTION, EXECUTE, NAME),
            lambda: run_step(ENFORCE_RETENTION, VERIFY, NAME),
            lambda: run_step(ENFORCE_RETENTION, PRUNE_EVIDENCE),
        ],
        lambda: seal_workflow(ENFORCE_RETENTION),
    )


def sealed_result(company: Company, bundle: str) -> Result:
    """Return the content of result.json in a sealed bundle."""
    content = StoreFolder(company.services.store("evidence_store"), bundle).read(RESULT)
    return Result.model_validate_json(content)
