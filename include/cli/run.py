"""``parcelseal run`` runs a workflow; ``parcelseal airflow`` runs a command of Airflow."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.cli.console import (
    Countdown,
    complain,
    errors,
    new_log,
    one_line,
    output_to,
    print_json,
    results,
    tell,
)
from include.cli.options import AsJson
from include.cli.report import RunResult, exit_code, result_of
from include.cli.stack import DEFAULT_CUSTOMERS, command_services, local_stack, make_home
from include.cli.testing import run_program
from include.local import airflow as local_airflow
from include.local.profile import AIRFLOW_RUNS, LocalProfile
from include.registry import workflow
from include.service_container import ROOT, Services
from include.services import stopping
from include.services.connections import with_short_timeouts
from include.services.errors import ParcelSealError, ServiceError, UsageError

if TYPE_CHECKING:
    from include.orchestration.in_process_run import FinishedRun, PreparedRun
    from include.orchestration.retry_policy import RetryTime


def require_services(
    services: Services, dag_id: str, parameters: Mapping[str, Any], retry_time: RetryTime
) -> None:
    """Check that the state database and the evidence store are available for a run.

    Without them, a run leaves no evidence. The function also checks that the mapped databases
    accept the logins of their connections, if the workflow reads them. A mapped database that is
    unavailable is not an error, because the run itself tries again to connect to it.

    Args:
        services: connections and policy pack.
        dag_id: DAG id of the workflow.
        parameters: parameters of the run.
        retry_time: limit of the time for retries while a service is unavailable.

    Raises:
        UsageError: the state database or the evidence store is wrongly configured, or every
            database that the workflow reads refuses the login of its connection.
        ServiceError: a service is still unavailable after the time for retries.
    """
    hasty = replace(services, lookup=with_short_timeouts(services.lookup))
    retry_time.repeat("state_db", lambda: hasty.state)
    retry_time.repeat("evidence_store", lambda: _read(hasty))
    _ = hasty.signer
    refusals = []
    databases = list(_databases(hasty, dag_id, parameters))
    for conn_id in databases:
        try:
            hasty.database(conn_id).connect().close()
        except UsageError as error:
            refusals.append(error)
        except ServiceError:
            continue  # the run retries, and records the attempts in its evidence
    if refusals and len(refusals) == len(databases):
        raise refusals[0]


def _read(services: Services) -> None:
    try:
        next(iter(services.store("evidence_store").folders()), None)
    except ServiceError as error:
        if error.is_permanent:
            raise UsageError(error.message, error.action) from None
        raise


def _databases(services: Services, dag_id: str, parameters: Mapping[str, Any]) -> list[str]:
    """Return the connection ids of the mapped databases that the parameters of a run select.

    If the parameters select none, the result has all mapped databases. It is empty if a run of the
    workflow cannot select databases.

    Args:
        services: connections and policy pack.
        dag_id: DAG id of the workflow.
        parameters: parameters of the run.
    """
    if not workflow(dag_id).chooses_databases:
        return []
    chosen = parameters.get("databases") or list(services.pack.databases)
    mapped = [services.pack.databases[name] for name in chosen if name in services.pack.databases]
    return list(dict.fromkeys(database.connection for database in mapped))


DAGS = ROOT / "dags"


def run(
    dag_id: Annotated[
        str, typer.Argument(help="Name of the workflow: the name of a file in dags/.")
    ],
    conf: Annotated[str, typer.Option(help="Parameters of the run as a JSON object.")] = "{}",
    answer: Annotated[
        list[str] | None,
        typer.Option(
            help="Answer a human step as a person of the sample company: TASK=OPTION, "
            "TASK=OPTION:REASON, or TASK=OPTION:FIELDS with a JSON object of form fields."
        ),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Run a workflow now, in the process of this command, with the configured connections.

    Exit code 1: a control of the workflow failed.
    """
    services = command_services()
    try:
        done = _run(services, dag_id, _parameters(conf), answer or [])
    except ParcelSealError as error:
        if not as_json:
            raise
        failed = RunResult(dag_id, None, None, None, None, [], 0, one_line(error))
        print_json(failed.as_json())
        complain(error.message, error.action)
        return error.exit_code
    if as_json:
        print_json(done.as_json())
    else:
        show(done)
    return exit_code(done)


def airflow(context: typer.Context) -> int:
    """Run an Airflow command, such as `dags test WORKFLOW`, with the local stack."""
    services = command_services()
    make_home(services)
    environment = local_airflow.settings(LocalProfile(services.home), ROOT, AIRFLOW_RUNS, None)
    log = new_log(services.home / "logs", "airflow", services.clock.now())
    with local_stack(services, customers=DEFAULT_CUSTOMERS, always=True):
        _migrate_once(services, environment, log)
        words = [sys.executable, "-m", "airflow", *context.args]
        return run_program(words, {**os.environ, **environment})


def _run(
    services: Services, dag_id: str, parameters: dict[str, Any], answers: list[str]
) -> RunResult:
    _require_workflow(dag_id)
    _ = services.pack  # faults of the pack are reported before a process is started
    make_home(services)
    _require_sample_people(services, answers)
    log = new_log(services.home / "logs", f"run-{dag_id}", services.clock.now())
    # The database differs from that of `up`, whose scheduler would execute the tasks of this run.
    environment = local_airflow.settings(LocalProfile(services.home), ROOT, AIRFLOW_RUNS, None)
    os.environ.update(environment)
    folder = Path(environment["AIRFLOW__CORE__DAGS_FOLDER"])
    prepared = _prepared(folder, dag_id, parameters, answers, log)
    with local_stack(services, customers=DEFAULT_CUSTOMERS, always=True):
        tell(f"running {dag_id}; log in {log}")
        with output_to(log) as screen:
            from include.orchestration.retry_policy import RetryTime, retrying_in_process

            retry_time = RetryTime(Countdown(screen))
            require_services(services, dag_id, parameters, retry_time)
            _migrate_once(services, environment, log)
            with retrying_in_process(retry_time):
                finished = prepared.run(lambda text: tell(text, screen))
            return _result(services, dag_id, finished, log)


def _prepared(
    folder: Path, dag_id: str, parameters: dict[str, Any], answers: list[str], log: Path
) -> PreparedRun:
    """Prepare a run. If the run is refused, its log file is deleted.

    Args:
        folder: folder of the DAG files.
        dag_id: DAG id of the workflow.
        parameters: parameters of the run.
        answers: values of the option ``--answer``.
        log: path of the log file of the run.

    Raises:
        UsageError: the workflow, its parameters or its answers are wrong.
    """
    try:
        with output_to(log):
            from include.orchestration.in_process_run import prepare

            return prepare(folder, dag_id, parameters, answers)
    except UsageError:
        log.unlink(missing_ok=True)
        raise


def _result(services: Services, dag_id: str, finished: FinishedRun, log: Path) -> RunResult:
    """Return the result of a finished run.

    If a task failed or the evidence bundle is missing, the result includes the error that caused
    the failure.
    """
    try:
        done = result_of(services, dag_id, finished.run_id, finished.state, str(log))
    except ParcelSealError as error:  # state database or evidence store became unavailable
        line = f"The run left no bundle: {one_line(finished.seal_failure or error)}"
        done = RunResult(dag_id, finished.run_id, finished.state, None, None, [], 0, line)
    if finished.seal_failure and done.outcome is None:
        line = f"The run left no bundle: {one_line(finished.seal_failure)}"
        done = replace(done, error=line)
    causes = finished.failures or ({"seal": finished.seal_failure} if finished.seal_failure else {})
    done = replace(done, cause=next(iter(causes.values()), None))
    if interrupted := stopping.interruption():
        done = replace(done, error=f"The run was {interrupted}. {done.error or ''}".strip())
    return done


def _outcome_text(done: RunResult) -> str:
    return done.words.lower() if done.could_not_run else done.outcome or "no evidence"


def show(done: RunResult) -> None:
    """Print the result of a run as lines of text."""
    results.print(f"{done.dag_id}: {_outcome_text(done)} ({done.state})")
    if done.bundle:
        results.print(f"  bundle   {done.bundle}", soft_wrap=True)
    for report in done.reports:
        results.print(f"  report   {report}", soft_wrap=True)
    if done.error:
        errors.print(f"  error    {done.error}", soft_wrap=True)


def _require_workflow(dag_id: str) -> None:
    dag_ids = sorted(path.stem for path in DAGS.glob("*.py"))
    if dag_id not in dag_ids:
        raise UsageError(
            f"The workflow {dag_id} does not exist.", f"Use one of: {', '.join(dag_ids)}."
        )


def _require_sample_people(services: Services, answers: list[str]) -> None:
    if answers and not services.is_local("state_db"):
        raise UsageError(
            "--answer is only for the sample company, but state_db is a configured database.",
            "Start the workflow in Airflow, where the entitled people answer.",
        )


def _parameters(conf: str) -> dict[str, Any]:
    try:
        parameters = json.loads(conf)
    except ValueError as error:
        raise UsageError(f"--conf is not JSON: {error}.") from None
    if not isinstance(parameters, dict):
        raise UsageError("--conf is not a JSON object.", 'Write --conf \'{"name": "value"}\'.')
    return parameters


def _migrate_once(services: Services, environment: dict[str, str], log: Path) -> None:
    from importlib.metadata import version

    mark = services.home / "airflow" / f"migrated-{AIRFLOW_RUNS}"
    now = version("apache-airflow-core")
    if mark.exists() and mark.read_text() == now:
        return
    mark.parent.mkdir(parents=True, exist_ok=True)
    local_airflow.migrate(environment, log)
    mark.write_text(now)
