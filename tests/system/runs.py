"""Runs of workflows without Airflow: the functions behind its tasks, one after the other."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from include.evidence.folder import StoreFolder
from include.evidence.model import Outcome, Result
from include.evidence.names import RESULT
from include.orchestration import backup, retention, run, starter
from include.services.errors import ParcelSealError
from tests.system.company import NAME, Company

REFUSALS = (ParcelSealError, AirflowException)
"""Errors with which a task of Airflow fails."""


class Killed(BaseException):
    """The process of a task was killed."""


@dataclass
class Run:
    """One run of a workflow.

    Attributes:
        shown: the outcome that the run showed at its end; None before its seal.
        bundle: folder of its bundle.
        steps: functions behind its tasks, without the seal, in their order.
    """

    dag_id: str
    steps: list[Callable[[], object]]
    seal_task: Callable[[], dict[str, Any]]
    run_id: str = field(default_factory=lambda: f"manual__{uuid.uuid4().hex[:10]}")
    shown: str | None = None
    bundle: str = ""
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))  # noqa: TID251 - Airflow's own clock

    def work(self, company: Company, *, try_number: int = 1) -> None:
        """Run all steps; one that fails ends them, as a failed task of Airflow does.

        Raises:
            Killed: a test killed one of them.
        """
        with self.as_task(company, try_number):
            try:
                for step in self.steps:
                    step()
            except REFUSALS:
                return

    def repeat(self, company: Company, step: int) -> bool:
        """Run a step again, as a cleared task does; return whether it succeeded."""
        with self.as_task(company, 2):
            try:
                self.steps[step]()
            except REFUSALS:
                return False
        return True

    def seal(self, company: Company) -> str:
        """Seal the run and return the outcome that it shows: the state of its gate.

        Raises:
            Killed: a test killed the seal.
        """
        with self.as_task(company):
            sealed = self.seal_task()
            try:
                run.require_held(sealed)
            except AirflowFailException:
                gate = str(Outcome.FAIL)
            else:
                gate = sealed["outcome"]
        assert gate == sealed["outcome"]
        self.shown, self.bundle = gate, sealed["bundle"]
        return gate

    def complete(self, company: Company) -> str:
        """Run all steps, seal, and return the outcome that the run shows."""
        self.work(company)
        return self.seal(company)

    @contextmanager
    def as_task(self, company: Company, try_number: int = 1) -> Iterator[None]:
        """Let the functions behind tasks believe that they run in a task of this run."""
        context = {
            "dag_run": SimpleNamespace(
                dag_id=self.dag_id,
                run_id=self.run_id,
                start_date=self.started_at,
                data_interval_start=None,
                data_interval_end=None,
                triggering_user_name=None,
            ),
            "ti": SimpleNamespace(
                try_number=try_number, get_task_states=lambda **_of_run: {self.run_id: {}}
            ),
            "params": {},
        }
        with ExitStack() as stack:
            for module in (run, backup, retention, starter):
                stack.enter_context(patch.object(module, "get_current_context", lambda: context))
            stack.enter_context(patch.object(run, "workplace", lambda: company.services))
            yield


def backup_run() -> Run:
    """A run of `backup_offsite`."""
    return Run(
        "backup_offsite",
        [backup.preflight, lambda: backup.back_up(NAME), lambda: backup.prune(NAME)],
        backup.seal_backup,
    )


def drill_run(rule: str = "latest") -> Run:
    """A run of `drill_restore`."""
    return Run(
        "drill_restore",
        [
            lambda: backup.choose(NAME, rule),
            lambda: backup.prove_refusals(NAME),
            lambda: backup.drill(NAME),
        ],
        backup.seal_drill,
    )


def retention_run() -> Run:
    """A run of `enforce_retention`."""
    plans: list[dict[str, Any]] = []

    def plan() -> None:
        plans.append(retention.plan(NAME, None))

    def ask() -> None:
        assert retention.ask(NAME) is None, "the plan waits for a second person"

    return Run(
        "enforce_retention",
        [
            plan,
            ask,
            lambda: retention.execute(NAME),
            lambda: retention.verify(plans[-1]),
            retention.prune_evidence,
        ],
        retention.seal_retention,
    )


def sealed_result(company: Company, bundle: str) -> Result:
    """Read the result.json of a sealed bundle."""
    content = StoreFolder(company.services.store("evidence_store"), bundle).read(RESULT)
    return Result.model_validate_json(content)
