"""The Airflow tasks of a workflow, made from its declaration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from airflow.sdk import CronTriggerTimetable, Param, TriggerRule, get_current_context, task

from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import StepFindings
from include.notify.outbox import Run
from include.orchestration import notices
from include.orchestration.databases import wanted_databases
from include.orchestration.run import require_held, run_key, seal_run
from include.orchestration.run import step as do_step
from include.orchestration.starter import started_by
from include.orchestration.workflow import DEFAULT_ARGS, SEAL_ARGS, SEND_ARGS, cron
from include.reports.conclusion import Conclusion
from include.workflow.declaration import AnyWorkflow
from include.workflow.run_context import RunContext
from include.workflow.step import RunRecords, Step
from include.workplace import Workplace


def dag_settings(
    workflow: AnyWorkflow,
    *,
    schedule: str | None,
    page: str,
    params: Mapping[str, Param] | None = None,
) -> dict[str, Any]:
    """Return the arguments of Airflow's `dag` for a workflow.

    Args:
        workflow: its declaration.
        schedule: cron expression in the policy pack's timezone; None to run on demand only.
        page: Markdown for the person on call: the docstring of the DAG file.
        params: of a run.
    """
    timetable: CronTriggerTimetable | None = cron(schedule) if schedule else None
    paused = {"is_paused_upon_creation": False} if workflow.starts_unpaused else {}
    return {
        **paused,
        "dag_id": workflow.id,
        "dag_display_name": workflow.title.text,
        "description": workflow.summary,
        "doc_md": page,
        "schedule": timetable,
        "catchup": False,
        "max_active_runs": workflow.concurrent_runs,
        "default_args": DEFAULT_ARGS | {"owner": workflow.owner, "queue": workflow.queue},
        "tags": workflow.tags,
        "params": dict(params or {}),
    }


class Tasks:
    """The tasks of a workflow, for the body of its DAG.

    Each step of the declaration is a method: ``tasks.check()`` makes the task `check`. Besides
    there are `send` and `seal_after`.
    """

    def __init__(self, workflow: AnyWorkflow) -> None:
        self._workflow = workflow

    def __getattr__(self, name: str) -> Any:
        """Return the maker of a step's task; a mapped one takes the part that it works on."""
        try:
            step = self._workflow.step(name)
        except KeyError:
            raise AttributeError(f"{self._workflow.id} has no step {name}") from None
        return task_of(self._workflow, step)

    def send(self) -> Any:
        """Make the task that sends queued notifications, also those of other workflows."""
        clause = self._workflow.clauses[-1]

        @task(trigger_rule=TriggerRule.ALL_DONE, **SEND_ARGS)
        def send() -> dict[str, Any]:
            """Send the queued notifications that are still due, one message a day and person."""
            return notices.send(clause)

        return send()

    def databases(self) -> Any:
        """Make the task that names the databases of a run, for ``expand``."""
        clause = self._workflow.clauses[0]

        @task
        def databases(params: dict[str, Any] | None = None) -> list[str]:
            """Name the databases to work on: all mapped ones, or those the run was asked for."""
            return wanted_databases((params or {}).get("databases"), clause=clause)

        return databases()

    def seal_after(self, last: Any, seal_run: Callable[[], dict[str, Any]] | None = None) -> None:
        """Make the tasks `seal` and `gate`, which follow the last task of every run.

        Args:
            last: task or tasks before them.
            seal_run: seals the run; by default with the declaration's `conclude`.
        """
        write_bundle = seal_run or partial(seal_workflow, self._workflow)

        @task(**SEAL_ARGS)  # type: ignore[untyped-decorator] # of Airflow
        def seal() -> dict[str, Any]:
            """Write the sealed bundle, whatever happened before."""
            return write_bundle()

        @task(retries=0)
        def gate(sealed: dict[str, Any]) -> None:
            """Fail the run if its sealed outcome is a failure."""
            require_held(sealed)

        sealed = seal()
        last >> sealed
        gate(sealed)


def tasks_of(workflow: AnyWorkflow) -> Tasks:
    """Return the tasks of a workflow."""
    return Tasks(workflow)


def task_of(workflow: AnyWorkflow, step: Step[Any, Any]) -> Callable[..., Any]:
    """Return a TaskFlow task that does a step; its argument is the part that it works on."""

    def work(part: str = "") -> dict[str, Any]:
        return run_step(workflow, step, part)

    work.__name__ = step.name
    work.__doc__ = step.work.__doc__
    rule = TriggerRule.ALL_DONE if step.runs_always else TriggerRule.ALL_SUCCESS
    made: Callable[..., Any] = task(task_id=step.name, trigger_rule=rule)(work)
    return made


def run_step(workflow: AnyWorkflow, step: Step[Any, Any], part: str = "") -> dict[str, Any]:
    """Do a step of the running task's run; see `include.orchestration.run.step`.

    Under a pack that leaves out the workflow's section the step passes without a result.

    Args:
        workflow: its declaration.
        step: of the workflow.
        part: what the step works on; empty if there is one.

    Returns:
        Name, part and outcome: what may stand in XCom.
    """

    def work(services: Workplace) -> StepRecord:
        run = _context(workflow, services)
        if run is None:
            return StepRecord(step=step.name, part=part, outcome=Outcome.PASS)
        findings = StepFindings(step.name, step.clause, part)
        return findings.record(step.work(run, findings))

    return do_step(step.name, part, step.title_of(part), work, step.clause)


def seal_workflow(workflow: AnyWorkflow) -> dict[str, Any]:
    """Seal the evidence of the running task's run; see `include.orchestration.run.seal_run`."""

    def conclude(
        services: Workplace, records: Sequence[StepRecord], artifacts: dict[str, bytes]
    ) -> Conclusion:
        run = _context(workflow, services)
        if run is None:
            return workflow.conclude_without_rules(records)
        assert workflow.conclude is not None
        return workflow.conclude(run, RunRecords(records, artifacts))

    return seal_run(conclude)


def _context(workflow: AnyWorkflow, services: Workplace) -> RunContext[Any] | None:
    parameters = dict(get_current_context()["params"])
    return workflow.context(
        services, Run(*run_key()), triggered_by=started_by(), parameters=parameters
    )
