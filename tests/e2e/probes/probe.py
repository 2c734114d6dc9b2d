"""DAGs whose tasks fail in different ways, for the end-to-end tests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow.sdk import TriggerRule, dag, task

from include.backup.workflow import BACKUP_OFFSITE
from include.evidence.model import Outcome, StepRecord
from include.messages import _
from include.orchestration.gate import report_sealed_run
from include.orchestration.run import execute_step, run_key, seal_run, task_services
from include.orchestration.tasks import run_step
from include.reports.conclusion import Conclusion
from include.service_container import Services
from include.services.errors import ServiceError, UsageError
from include.workflow.databases import databases_step


def conclude(
    services: Services, records: Sequence[StepRecord], artifacts: dict[str, bytes]
) -> Conclusion:
    return Conclusion(
        title=_("Restore drill"),
        summary=_("Restore drill"),
        outcome=Outcome.worst([Outcome.PASS, *(record.outcome for record in records)]),
        findings=[finding for record in records for finding in record.findings],
        metrics=[],
    )


@task(trigger_rule=TriggerRule.ALL_DONE)
def seal() -> dict[str, Any]:
    return seal_run(conclude)


@task
def gate(sealed: dict[str, Any]) -> None:
    report_sealed_run(task_services(), *run_key(), sealed)


@dag(dag_id="early", schedule=None)
def early() -> None:
    """A task fails before any step has begun."""

    @task
    def before_its_step() -> None:
        raise ValueError("nothing was recorded")

    sealed = seal()
    before_its_step() >> sealed
    gate(sealed)


@dag(dag_id="inside", schedule=None, params={"databases": ["nope"]})
def inside() -> None:
    """Three steps fail: in PostgreSQL, in a service, and because of an unmapped database."""

    @task
    def in_postgresql() -> None:
        def work(services: Services) -> StepRecord:
            with services.database("customer_db").connect() as conn:
                conn.execute("SELECT name::int FROM customer WHERE name LIKE '金丝雀%'")
            raise AssertionError

        execute_step("quoting", "", _("The restore"), work, "4.2")

    @task
    def in_a_service() -> None:
        def work(services: Services) -> StepRecord:
            raise ServiceError("The store does not answer.", "See to it.")

        execute_step("service", "", _("The restore"), work, "4.2")

    @task
    def unmapped() -> None:
        run_step(BACKUP_OFFSITE, databases_step("4.2"))

    sealed = seal()
    [in_postgresql(), in_a_service(), unmapped()] >> sealed
    gate(sealed)


@dag(dag_id="mended", schedule=None)
def mended() -> None:
    """A step fails until a file exists."""

    @task
    def look() -> None:
        def work(_place: Services) -> StepRecord:
            if not Path(os.environ["PROBE_MENDED"]).exists():
                raise UsageError("It is broken.", "Mend it.")
            return StepRecord(step="look", outcome=Outcome.PASS)

        execute_step("look", "", _("The restore"), work, "4.2")

    sealed = seal()
    look() >> sealed
    gate(sealed)


early()
inside()
mended()
