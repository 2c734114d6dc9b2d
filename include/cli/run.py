"""``parcelseal run``: run one workflow now, in this process."""

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
from include.cli.stack import DEFAULT_CUSTOMERS, local_stack, make_home, workplace
from include.cli.testing import run_program
from include.local import airflow as local_airflow
from include.local.profile import AIRFLOW_RUNS, LocalProfile
from include.registry import workflow
from include.services import stopping
from include.services.connections import with_short_timeouts
from include.services.errors import ParcelSealError, ServiceError, UsageError
from include.workplace import ROOT, Workplace

if TYPE_CHECKING:
    from include.orchestration.inprocess import Finished, Prepared
    from include.orchestration.retrying import RetryTime


def require_services(
    place: Workplace, dag_id: str, parameters: Mapping[str, Any], retry_time: RetryTime
) -> None:
    """Try the services without which a run leaves no evidence, and the logins of its databases.

    Args:
        place: the workplace.
        dag_id: the workflow.
        parameters: of the run.
        retry_time: for services that are away.

    Raises:
        UsageError: the state database or the evidence store is wrongly configured, or every
            database of the workflow refuses the login.
        ServiceError: one of the services is still unavailable when the time for retries is used up.
    """
    hasty = replace(place, lookup=with_short_timeouts(place.lookup))
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


def _read(place: Workplace) -> None:
    try:
        next(iter(place.store("evidence_store").folders()), None)
    except ServiceError as error:
        if error.is_permanent:
            raise UsageError(error.message, error.action) from None
        raise


def _databases(place: Workplace, dag_id: str, parameters: Mapping[str, Any]) -> list[str]:
    """Return the connections of the mapped databases that a run reads."""
    if not workflow(dag_id).chooses_databases:
        return []
    chosen = parameters.get("databases") or list(place.pack.databases)
    mapped = [place.pack.databases[name] for name in chosen if name in place.pack.databases]
    return list(dict.fromkeys(database.connection for database in mapped))


DAGS = ROOT / "dags"


def run(
    dag_id: Annotated[str, typer.Argument(help="The workflow: the name of a file in dags/.")],
    conf: Annotated[str, typer.Option(help="Parameters of the run as a JSON object.")] = "{}",
    answer: Annotated[
        list[str] | None,
        typer.Option(
            help="TASK=OPTION[:REASON or JSON object of fields]: answer a human step as the "
            "sample's right person."
        ),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Run one workflow now, in this process, against the configured connections."""
    place = workplace()
    try:
        done = _run(place, dag_id, _parameters(conf), answer or [])
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
    """Run a command of Airflow on the local stack: `dags test WORKFLOW`, `tasks list WORKFLOW`."""
    place = workplace()
    make_home(place)
    environment = local_airflow.settings(LocalProfile(place.home), ROOT, AIRFLOW_RUNS, None)
    log = new_log(place.home / "logs", "airflow", place.clock.now())
    with local_stack(place, customers=DEFAULT_CUSTOMERS, always=True):
        _migrate_once(place, environment, log)
        words = [sys.executable, "-m", "airflow", *context.args]
        return run_program(words, {**os.environ, **environment})


def _run(
    place: Workplace, dag_id: str, parameters: dict[str, Any], answers: list[str]
) -> RunResult:
    _require_workflow(dag_id)
    _ = place.pack  # every fault of a bad pack is named before anything is started
    make_home(place)
    _require_sample_people(place, answers)
    log = new_log(place.home / "logs", f"run-{dag_id}", place.clock.now())
    # not the database of `up`, whose scheduler would take the run's tasks for its own
    environment = local_airflow.settings(LocalProfile(place.home), ROOT, AIRFLOW_RUNS, None)
    os.environ.update(environment)
    folder = Path(environment["AIRFLOW__CORE__DAGS_FOLDER"])
    prepared = _prepared(folder, dag_id, parameters, answers, log)
    with local_stack(place, customers=DEFAULT_CUSTOMERS, always=True):
        tell(f"running {dag_id}; log in {log}")
        with output_to(log) as screen:
            from include.orchestration.retrying import RetryTime, retrying_in_process

            retry_time = RetryTime(Countdown(screen))
            require_services(place, dag_id, parameters, retry_time)
            _migrate_once(place, environment, log)
            with retrying_in_process(retry_time):
                finished = prepared.run(lambda text: tell(text, screen))
            return _result(place, dag_id, finished, log)


def _prepared(
    folder: Path, dag_id: str, parameters: dict[str, Any], answers: list[str], log: Path
) -> Prepared:
    """Refuse what was asked wrongly before anything is started; nothing stays of such a run."""
    try:
        with output_to(log):
            from include.orchestration.inprocess import prepare

            return prepare(folder, dag_id, parameters, answers)
    except UsageError:
        log.unlink(missing_ok=True)
        raise


def _result(place: Workplace, dag_id: str, finished: Finished, log: Path) -> RunResult:
    """Return a run's sealed result, with the causes if it is not what it should be."""
    try:
        done = result_of(place, dag_id, finished.run_id, finished.state, str(log))
    except ParcelSealError as error:  # state database or evidence store went away
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


def show(done: RunResult) -> None:
    """Print a run's result for a person."""
    results.print(f"{done.dag_id}: {done.outcome or 'no evidence'} ({done.state})")
    if done.bundle:
        results.print(f"  bundle   {done.bundle}", soft_wrap=True)
    for report in done.reports:
        results.print(f"  report   {report}", soft_wrap=True)
    if done.error:
        errors.print(f"  error    {done.error}", soft_wrap=True)


def _require_workflow(dag_id: str) -> None:
    known = sorted(path.stem for path in DAGS.glob("*.py"))
    if dag_id not in known:
        raise UsageError(f"There is no workflow {dag_id}.", f"There are: {', '.join(known)}.")


def _require_sample_people(place: Workplace, answers: list[str]) -> None:
    if answers and not place.is_local("state_db"):
        raise UsageError(
            "--answer speaks for people of the sample company, and state_db is a real one.",
            "Start the workflow in Airflow, where the people themselves answer.",
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
