"""Running one workflow with Airflow's own in-process runner, as `./parcelseal run` does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from include.orchestration.answering import Given, answering, read_answers
from include.services.errors import UsageError

_DISCOVERY = "AIRFLOW__CORE__MIGHT_CONTAIN_DAG_CALLABLE"
_read_only: str | None = None


@dataclass(frozen=True)
class Finished:
    """A run that came to its end.

    Attributes:
        state: Airflow's word for it, ``success`` or ``failed``.
    """

    run_id: str
    state: str


@dataclass(frozen=True)
class Prepared:
    """A run that can begin: its workflow is there, and what it was given fits.

    Attributes:
        dag: Airflow's.
        parameters: of the run.
        given: answers by task id.
    """

    dag: Any
    parameters: Mapping[str, Any]
    given: Mapping[str, Given]

    def run(self) -> Finished:
        """Run it now, in this process, on the database that Airflow's settings name."""
        from airflow import settings
        from airflow.sdk import timezone

        from include.orchestration import anew

        anew.install()
        try:
            now = timezone.utcnow()
            with only_file(self.dag.fileloc), answering(self.dag.dag_id, now, self.given):
                run = self.dag.test(logical_date=now, run_conf=dict(self.parameters))
            return Finished(run.run_id, str(run.state))
        finally:
            settings.dispose_orm()  # before the local server stops, not at exit


def prepare(
    folder: Path, dag_id: str, parameters: Mapping[str, Any], answers: Sequence[str]
) -> Prepared:
    """Read a DAG and hold against it what its run is given; no database is asked.

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
        attend(step, answered=task_id in given)
    _check_parameters(dag, parameters)
    return Prepared(dag, parameters, given)


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
