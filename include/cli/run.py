"""``parcelseal run``: one workflow, now, in this process."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from include.cli.console import errors, output_to, print_json, results, tell
from include.cli.report import RunResult, exit_code, result_of
from include.cli.stack import DEFAULT_CUSTOMERS, local_stack, workplace
from include.local import airflow as local_airflow
from include.local.profile import AIRFLOW_RUNS
from include.services.errors import UsageError
from include.workplace import ROOT, Workplace


def run(
    dag_id: Annotated[str, typer.Argument(help="The workflow: the name of a file in dags/.")],
    conf: Annotated[str, typer.Option(help="Parameters of the run as a JSON object.")] = "{}",
    answer: Annotated[
        list[str] | None,
        typer.Option(help="TASK=OPTION: answer a human step as the sample company's right person."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> int:
    """Run one workflow now, in this process, against the configured connections."""
    place = workplace()
    parameters = _parameters(conf)
    log = place.home / "logs" / f"run-{dag_id}-{place.clock.now():%Y%m%dT%H%M%S}.log"
    with local_stack(place, customers=DEFAULT_CUSTOMERS, always=True):
        tell(f"running {dag_id}; log in {log}")
        with output_to(log):
            found = execute(place, dag_id, parameters, answer or [], log)
            done = result_of(place, dag_id, found.run_id, found.state, str(log))
    if as_json:
        print_json(done.as_json())
    else:
        show(done)
    return exit_code(done)


def show(done: RunResult) -> None:
    """Print a run's result for a person."""
    results.print(f"{done.dag_id}: {done.outcome or 'no evidence'} ({done.state})")
    if done.bundle:
        results.print(f"  bundle   {done.bundle}", soft_wrap=True)
    for report in done.reports:
        results.print(f"  report   {report}", soft_wrap=True)
    if done.error:
        errors.print(f"  error    {done.error}", soft_wrap=True)


class _Found:
    def __init__(self, run_id: str, state: str) -> None:
        self.run_id, self.state = run_id, state


def execute(
    place: Workplace, dag_id: str, parameters: dict[str, Any], answers: list[str], log: Path
) -> _Found:
    """Run a DAG with Airflow's own in-process runner, on a database of its own.

    It is not the database of `up`, whose scheduler would take the run's tasks for its own.
    """
    environment = local_airflow.settings(place.local, ROOT, AIRFLOW_RUNS, None)
    os.environ.update(environment)
    _migrate_once(place, environment, log)
    sys.path.insert(0, environment["AIRFLOW__CORE__DAGS_FOLDER"])
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(environment["AIRFLOW__CORE__DAGS_FOLDER"])
    if bag.import_errors:
        path, error = next(iter(bag.import_errors.items()))
        reason = error.strip().splitlines()[-1]
        raise UsageError(f"{Path(path).name} cannot be read: {reason}", f"See {log}.")
    dag = bag.dags.get(dag_id)
    if dag is None:
        known = ", ".join(sorted(bag.dags))
        raise UsageError(f"There is no workflow {dag_id}.", f"There are: {known}.")
    _check_answers(dag, answers)
    unknown = sorted(set(parameters) - set(dag.params))
    if unknown:
        raise UsageError(
            f"{dag_id} has no parameter {', '.join(unknown)}.",
            f"It has: {', '.join(sorted(dag.params)) or 'none'}.",
        )
    finished = dag.test(run_conf=parameters)
    found = _Found(finished.run_id, str(finished.state))
    from airflow import settings as airflow_settings

    airflow_settings.dispose_orm()  # before the local server stops, not at exit
    return found


def _check_answers(dag: Any, answers: list[str]) -> None:
    for one in answers:
        task_id, sign, _option = one.partition("=")
        if not sign or task_id not in dag.task_dict:
            raise UsageError(f"--answer {one} names no task of {dag.dag_id}.", "Write TASK=OPTION.")
        raise UsageError(
            f"{task_id} of {dag.dag_id} is no human step: it asks nobody.", "Leave out --answer."
        )


def _parameters(conf: str) -> dict[str, Any]:
    try:
        given = json.loads(conf)
    except ValueError as error:
        raise UsageError(f"--conf is not JSON: {error}.") from None
    if not isinstance(given, dict):
        raise UsageError("--conf is not a JSON object.", 'Write --conf \'{"name": "value"}\'.')
    return given


def _migrate_once(place: Workplace, environment: dict[str, str], log: Path) -> None:
    from importlib.metadata import version

    mark = place.home / "airflow" / f"migrated-{AIRFLOW_RUNS}"
    now = version("apache-airflow-core")
    if mark.exists() and mark.read_text() == now:
        return
    mark.parent.mkdir(parents=True, exist_ok=True)
    local_airflow.migrate(environment, log)
    mark.write_text(now)
