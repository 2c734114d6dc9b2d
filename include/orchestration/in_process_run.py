"""Run a workflow in this process with Airflow's runner `dag.test`, as `./parcelseal run` does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from airflow.listeners import hookimpl

from include.orchestration.auto_answer import read_answers, submit_answer
from include.orchestration.interrupted_runs import (
    SEAL,
    locked_run,
    seal_interrupted_runs,
    seal_run_now,
)
from include.orchestration.retry_policy import cause_of, note_success
from include.services import stopping
from include.services.errors import ParcelSealError, UsageError

_DISCOVERY = "AIRFLOW__CORE__MIGHT_CONTAIN_DAG_CALLABLE"
_only_dag_file: str | None = None


@dataclass(frozen=True)
class FinishedRun:
    """The result of an in-process run that has ended.

    Attributes:
        run_id: Airflow's id of the run.
        state: Airflow's state of the run, ``success`` or ``failed``.
        failures: task id -> error, for each task with a failed instance and no successful instance.
            The tasks `seal` and `gate` are left out.
        seal_failure: why the task `seal` failed; None if it did not fail.
    """

    run_id: str
    state: str
    failures: Mapping[str, ParcelSealError] = field(default_factory=dict)
    seal_failure: ParcelSealError | None = None


@dataclass(frozen=True)
class PreparedRun:
    """A run that can start: its workflow exists, and its parameters and answers are valid.

    Attributes:
        dag: Airflow's DAG of the workflow.
        parameters: parameters of the run.
    """

    dag: Any
    parameters: Mapping[str, Any]

    def run(self, announce: Callable[[str], None] = lambda _: None) -> FinishedRun:
        """Run the workflow now, in this process, with the database that Airflow's settings name.

        Before that, the method seals earlier in-process runs of the workflow whose process ended
        before it could seal them. If this run is interrupted, it is sealed immediately, without PDF
        files.

        Args:
            announce: prints a line on the terminal.

        Raises:
            Interruption: a signal ended the process before the run began, or the interrupted run
                could not be sealed.
        """
        from airflow import settings
        from airflow.sdk import timezone

        from include.orchestration import hitl_reset

        hitl_reset.install()
        try:
            now = timezone.utcnow()
            with only_file(self.dag.fileloc), locked_run(self.dag.dag_id, now):
                seal_interrupted_runs(self.dag, announce)
                with _collecting() as outcomes:
                    return self._run(now, outcomes)
        finally:
            settings.dispose_orm()  # before the local server stops, not at exit

    def _run(self, logical_date: datetime, outcomes: Outcomes) -> FinishedRun:
        serve_newest_api()
        try:
            run = self.dag.test(logical_date=logical_date, run_conf=dict(self.parameters))
        except KeyboardInterrupt:
            run_id = seal_run_now(self.dag, logical_date)
            if run_id is None:
                raise
            return outcomes.finished(run_id, "failed")
        return outcomes.finished(run.run_id, str(run.state))


def serve_newest_api() -> None:
    """Make this process serve only the newest version of Airflow's task API.

    The tasks of this process use only that version. By default, Airflow generates nine versions at
    the first request, which takes seconds of CPU time.
    """
    from airflow.api_fastapi.execution_api import versions
    from airflow.api_fastapi.execution_api.routes import execution_api_router
    from cadwyn import HeadVersion, Version, VersionBundle
    from cadwyn.route_generation import _DELETED_ROUTE_TAG

    versions.bundle = VersionBundle(HeadVersion(), Version(versions.bundle.versions[0].value))
    for route in list(execution_api_router.routes):
        if _DELETED_ROUTE_TAG in getattr(route, "tags", ()):  # exists in older versions only
            execution_api_router.routes.remove(route)


class Outcomes:
    """An Airflow listener that collects the failures of the tasks of an in-process run."""

    def __init__(self) -> None:
        self._failures: dict[tuple[str, int], BaseException] = {}
        self._succeeded: set[str] = set()

    @hookimpl
    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
        """Remove the error of an earlier attempt of a task that has now succeeded."""
        del previous_state
        self._failures.pop(_key(task_instance), None)
        self._succeeded.add(task_instance.task_id)
        note_success(task_instance.try_number)

    @hookimpl
    def on_task_instance_failed(
        self, previous_state: Any, task_instance: Any, error: BaseException | str | None
    ) -> None:
        """Store the error of a failed task; end the run if a signal ended the task."""
        del previous_state
        if isinstance(error, BaseException):
            self._failures[_key(task_instance)] = error
        stopping.check()  # Airflow's runner would treat the signal as a failure, and continue

    def finished(self, run_id: str, state: str) -> FinishedRun:
        """Return the result of the run, with the error of each task that never succeeded.

        Args:
            run_id: Airflow's id of the run.
            state: Airflow's state of the run.
        """
        causes = {
            task: cause_of(error)
            for (task, _index), error in reversed(self._failures.items())
            if task not in self._succeeded
        }
        seal_failure = causes.pop(SEAL, None)
        causes.pop("gate", None)
        return FinishedRun(run_id, state, dict(reversed(causes.items())), seal_failure)


def _key(task_instance: Any) -> tuple[str, int]:
    index = getattr(task_instance, "map_index", None)
    return task_instance.task_id, -1 if index is None else index


@contextmanager
def _collecting() -> Iterator[Outcomes]:
    from airflow.sdk.listener import get_listener_manager

    outcomes = Outcomes()
    manager = get_listener_manager()
    manager.add_listener(outcomes)  # type: ignore[no-untyped-call]
    try:
        yield outcomes
    finally:
        manager.pm.unregister(outcomes)


def prepare(
    folder: Path, dag_id: str, parameters: Mapping[str, Any], answers: Sequence[str]
) -> PreparedRun:
    """Read a DAG, and check the run's parameters and answers without access to a database.

    Args:
        folder: folder of the DAG files.
        dag_id: DAG id of the workflow.
        parameters: parameters of the run.
        answers: ``TASK=OPTION`` for each human step.

    Raises:
        UsageError: the workflow, a parameter, a human step or an option does not exist; a value has
            the wrong type; or a human step has no answer, so the run could not continue.
    """
    from include.orchestration.human_step import answer_in_process, human_steps

    sys.path.insert(0, str(folder))
    dag = _find(folder, dag_id)
    submitted = read_answers(dag, answers)
    for task_id, step in human_steps(dag).items():
        answer = submitted.get(task_id)
        answer_in_process(step, partial(submit_answer, answer) if answer is not None else None)
    _check_parameters(dag, parameters)
    return PreparedRun(dag, parameters)


@contextmanager
def only_file(file: str) -> Iterator[None]:
    """Make Airflow search only one file for DAGs while the block executes.

    By default, Airflow reads the whole folder in each run.

    Args:
        file: path of the DAG file.
    """
    global _only_dag_file
    previous_file, _only_dag_file = _only_dag_file, file
    previous_callable = os.environ.get(_DISCOVERY)
    os.environ[_DISCOVERY] = f"{__name__}.{might_contain_dag.__name__}"
    try:
        yield
    finally:
        _only_dag_file = previous_file
        if previous_callable is None:
            del os.environ[_DISCOVERY]
        else:
            os.environ[_DISCOVERY] = previous_callable


def might_contain_dag(file_path: str, zip_file: Any = None) -> bool:
    """Return whether Airflow searches a file for DAGs. It searches only the file of `only_file`.

    Airflow calls this function because it is set as `might_contain_dag_callable`.

    Args:
        file_path: a file of the DAGs folder.
        zip_file: the archive that contains the file; None if the file is not in an archive.
    """
    return zip_file is None and file_path == _only_dag_file


def _find(folder: Path, dag_id: str) -> Any:
    from airflow.dag_processing.dagbag import DagBag

    dag_file = folder / f"{dag_id}.py"  # each DAG file is named after its DAG
    bag = DagBag(str(dag_file if dag_file.is_file() else folder))
    if bag.import_errors:
        path, error = next(iter(bag.import_errors.items()))
        raise UsageError(f"{Path(path).name} cannot be read: {error.strip().splitlines()[-1]}")
    dag = bag.dags.get(dag_id)
    if dag is None:
        raise UsageError(f"There is no workflow {dag_id}.", f"There are: {_list(bag.dags)}.")
    return dag


def _check_parameters(dag: Any, parameters: Mapping[str, Any]) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    unknown = sorted(set(parameters) - set(dag.params))
    if unknown:
        raise UsageError(
            f"{dag.dag_id} has no parameter {', '.join(unknown)}.",
            f"It has: {_list(dag.params)}.",
        )
    for name, value in parameters.items():
        parameter = dag.params.get_param(name)
        try:
            copy(parameter).resolve(value)  # `resolve` stores the value as the default
        except ParamValidationError as error:
            raise UsageError(
                f"The parameter {name} of {dag.dag_id}: {str(error).splitlines()[0]}.",
                parameter.description or "",  # a pattern alone says little to people
            ) from None


def _list(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)) or "none"
