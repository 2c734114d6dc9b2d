"""Running one workflow with Airflow's own in-process runner, as `./parcelseal run` does."""

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

from include.orchestration.answering import give, read_answers
from include.orchestration.left_over import SEAL, locked_run, seal_left_over, seal_run_now
from include.orchestration.retrying import cause_of, note_success
from include.services import stopping
from include.services.errors import ParcelSealError, UsageError

_DISCOVERY = "AIRFLOW__CORE__MIGHT_CONTAIN_DAG_CALLABLE"
_read_only: str | None = None


@dataclass(frozen=True)
class Finished:
    """The end of a run.

    Attributes:
        run_id: Airflow's id of the run.
        state: Airflow's state of the run, ``success`` or ``failed``.
        failures: causes by task, for the tasks of which every instance failed.
        seal_failure: why the task `seal` failed; None if it did not fail.
    """

    run_id: str
    state: str
    failures: Mapping[str, ParcelSealError] = field(default_factory=dict)
    seal_failure: ParcelSealError | None = None


@dataclass(frozen=True)
class Prepared:
    """A run that can begin: its workflow is there, and what it was given fits.

    Attributes:
        dag: Airflow's.
        parameters: of the run.
    """

    dag: Any
    parameters: Mapping[str, Any]

    def run(self, announce: Callable[[str], None] = lambda _: None) -> Finished:
        """Run the workflow now, in this process, on the database of Airflow's settings.

        Before that, seal earlier runs of the workflow whose process ended before their seal. An
        interrupted run is sealed at once, without PDF files.

        Args:
            announce: prints a line on the terminal.

        Raises:
            Interruption: a signal ended the process before the run began, or before its seal.
        """
        from airflow import settings
        from airflow.sdk import timezone

        from include.orchestration import anew

        anew.install()
        try:
            now = timezone.utcnow()
            with only_file(self.dag.fileloc), locked_run(self.dag.dag_id, now):
                seal_left_over(self.dag, announce)
                with _collecting() as outcomes:
                    return self._run(now, outcomes)
        finally:
            settings.dispose_orm()  # before the local server stops, not at exit

    def _run(self, logical_date: datetime, outcomes: Outcomes) -> Finished:
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
    """Let the API that Airflow has for tasks in this process serve only its newest version.

    Its tasks use no other one. Airflow generates nine versions at the first request, which takes
    seconds of CPU.
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
    """Listens to the tasks of a run in this process."""

    def __init__(self) -> None:
        self._failures: dict[tuple[str, int], BaseException] = {}
        self._succeeded: set[str] = set()

    @hookimpl
    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
        """Forget earlier failures of a task that succeeded."""
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
        stopping.check()  # Airflow's runner would take the signal for a failure, and continue

    def finished(self, run_id: str, state: str) -> Finished:
        """Return the end of the run with the causes of its failures."""
        causes = {
            task: cause_of(error)
            for (task, _index), error in reversed(self._failures.items())
            if task not in self._succeeded
        }
        seal_failure = causes.pop(SEAL, None)
        causes.pop("gate", None)
        return Finished(run_id, state, dict(reversed(causes.items())), seal_failure)


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
) -> Prepared:
    """Read a DAG and check the run's parameters and answers; use no database.

    Args:
        folder: of the DAG files.
        dag_id: the workflow.
        parameters: of the run.
        answers: ``TASK=OPTION``, for human steps; each of them needs one.

    Raises:
        UsageError: no such workflow, parameter, human step or option; a value of the wrong type; a
            human step without an answer, at which the run would wait for ever.
    """
    from include.orchestration.human import attend, human_steps

    sys.path.insert(0, str(folder))
    dag = _find(folder, dag_id)
    given = read_answers(dag, answers)
    for task_id, step in human_steps(dag).items():
        attend(step, partial(give, given[task_id]) if task_id in given else None)
    _check_parameters(dag, parameters)
    return Prepared(dag, parameters)


@contextmanager
def only_file(file: str) -> Iterator[None]:
    """Let Airflow, which reads the whole folder anew at each run, read this one of its files."""
    global _read_only
    before, _read_only = _read_only, file
    named = os.environ.get(_DISCOVERY)
    os.environ[_DISCOVERY] = f"{__name__}.{may_hold_the_dag.__name__}"
    try:
        yield
    finally:
        _read_only = before
        if named is None:
            del os.environ[_DISCOVERY]
        else:
            os.environ[_DISCOVERY] = named


def may_hold_the_dag(file_path: str, zip_file: Any = None) -> bool:
    """Answer Airflow, which asks of each file whether it is one to read for DAGs.

    Args:
        file_path: of the folder.
        zip_file: an archive that the file is in; there are none.
    """
    return zip_file is None and file_path == _read_only


def _find(folder: Path, dag_id: str) -> Any:
    from airflow.dag_processing.dagbag import DagBag

    own = folder / f"{dag_id}.py"  # as all of ours are named; the others need not be read for it
    bag = DagBag(str(own if own.is_file() else folder))
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
            copy(parameter).resolve(value)  # it keeps the value as its default
        except ParamValidationError as error:
            raise UsageError(
                f"The parameter {name} of {dag.dag_id}: {str(error).splitlines()[0]}.",
                parameter.description or "",  # a pattern alone says little to people
            ) from None


def _list(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)) or "none"
