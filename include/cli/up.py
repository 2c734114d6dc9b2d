"""``parcelseal up``: start the local stack and Airflow, and run every scheduled workflow once."""

from __future__ import annotations

import os
import time
from typing import Annotated

import typer
from rich.table import Table

from include.cli.answers import Answering
from include.cli.answers import people as sample_people
from include.cli.console import errors, results, tell
from include.cli.report import RunResult, result_of
from include.cli.stack import DEFAULT_CUSTOMERS, command_services, local_stack, make_home
from include.local import airflow as local_airflow
from include.local.airflow import Standalone
from include.local.airflow_api import AirflowApi
from include.local.profile import AIRFLOW, LocalProfile
from include.service_container import ROOT, Services
from include.services import stopping
from include.services.errors import ServiceError

RUN_TIMEOUT = 1800  # seconds for one workflow
# A drill needs a restore point, so the first backup comes first.
FIRST = ("backup_offsite",)


def up(
    once: Annotated[
        bool,
        typer.Option(
            help="Stop after every workflow has run. The exit code is 0 only if each workflow "
            "left a valid bundle."
        ),
    ] = False,
    customers: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of customers in the sample courier database, if the command creates it.",
        ),
    ] = DEFAULT_CUSTOMERS,
) -> int:
    """Start the local stack and Airflow, and run every scheduled workflow once.

    Without --once, Airflow runs until you press Ctrl-C.

    Exit code 1: with --once, a workflow left no bundle, or a bundle is invalid.
    """
    services = command_services()
    _ = services.pack  # faults of the pack are reported before a process is started
    make_home(services)
    with (
        local_airflow.lock_home(services.home),
        local_stack(services, customers=customers, always=True),
    ):
        _ = services.state  # refuses the schema of another version before Airflow starts
        local = LocalProfile(services.home)
        local_airflow.stop_leftover(local)
        port = local_airflow.free_port()
        environment = local_airflow.settings(local, ROOT, AIRFLOW, port, sample_people(services))
        tell("starting Airflow (about half a minute)")
        airflow: Standalone | None = None
        try:
            with stopping.deferred():  # only a known process of Airflow can be stopped
                airflow = Standalone.start(local, ROOT, environment)
            airflow.wait_until_ready(tell)
            if not once:  # people can log in while the workflows run
                tell(f"Airflow is at {airflow.url}: user admin, password {airflow.password}")
            done = run_all(services, airflow, answer=once)
            verified = show(services, done)
            if once:
                return 0 if verified and all(run.bundle for run in done) else 1
            results.print(f"Airflow: {airflow.url}  user admin, password {airflow.password}")
            results.print(f"Compliance pages: {airflow.url}/compliance/, also in its navigation")
            passwords = environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]
            results.print(f"Passwords of the others: {passwords}", soft_wrap=True)
            results.print("Stop with Ctrl-C.")
            _wait(airflow)
        finally:
            tell("stopping Airflow")
            if airflow:
                airflow.stop()
            (services.home / "airflow.pid").unlink(missing_ok=True)
    return 0


def run_all(services: Services, airflow: Standalone, *, answer: bool) -> list[RunResult]:
    """Run every scheduled workflow once in Airflow, one after the other.

    Args:
        services: connections and policy pack.
        airflow: the local Airflow.
        answer: whether to answer required actions on behalf of the people of the sample company.
            Otherwise the function does not wait for a run that needs an answer.

    Raises:
        ServiceError: Airflow does not answer, or a run takes too long. The results of the earlier
            runs are printed before the error is raised.
    """
    api = airflow.api()
    expected = len(list((ROOT / "dags").glob("*.py")))
    workflows = sorted(
        api.scheduled_workflows(expected), key=lambda workflow: (workflow not in FIRST, workflow)
    )
    if not workflows:
        raise ServiceError("Airflow has no scheduled workflow.", f"See {airflow.log}.")
    done: list[RunResult] = []
    try:
        for dag_id in workflows:
            done.append(_run_one(services, airflow, api, dag_id, answer=answer))  # noqa: PERF401
    except ServiceError:
        if done:
            _show_runs(done)
        raise
    return done


def _run_one(
    services: Services, airflow: Standalone, api: AirflowApi, dag_id: str, *, answer: bool
) -> RunResult:
    run_id = api.trigger(dag_id)
    if not errors.is_terminal:
        tell(f"running {dag_id}")
    people = Answering(services, airflow, api, dag_id)
    end = time.monotonic() + RUN_TIMEOUT
    with errors.status(f"running {dag_id}"):
        while (state := api.state(dag_id, run_id)) in {"queued", "running"}:
            if time.monotonic() > end:
                raise ServiceError(
                    f"{dag_id} did not end in {RUN_TIMEOUT} s.", f"See {airflow.log}."
                )
            if answer:
                people.answer()
            elif waiting := api.required_actions(dag_id):
                assigned = {user for action in waiting for user in action.assigned}
                users = ", ".join(sorted(assigned))
                tell(f"{dag_id} waits for {users}: see Required Actions in Airflow")
                return RunResult(dag_id, run_id, "waiting", None, None, [], 0, None)
            time.sleep(0.5)
    done = result_of(services, dag_id, run_id, state, str(airflow.log))
    tell(f"{dag_id}: {done.words}")
    return done


def show(services: Services, done: list[RunResult]) -> bool:
    """Print the outcomes of the runs, and verify the evidence store.

    Returns:
        Whether all bundles of the evidence store are valid.
    """
    from include.evidence.verify import verify_all

    _show_runs(done)
    with services.state.connect() as conn:
        checked = verify_all(services.store("evidence_store"), conn, services.trusted)
    if checked.verified:
        results.print(f"evidence verified: {checked.bundles} bundles")
    else:
        errors.print(f"evidence NOT verified: {checked.first_bad}: {checked.reason}")
    return checked.verified


def _show_runs(done: list[RunResult]) -> None:
    table = Table(title="Workflows", title_justify="left")
    for name in ("workflow", "run", "outcome", "findings"):
        table.add_column(name)
    for run in done:
        table.add_row(run.dag_id, run.state, run.words, str(run.findings))
    results.print(table)
    for run in done:
        for report in run.reports:
            results.print(f"report   {report}", soft_wrap=True)
        if run.error:
            kind = "finding " if run.outcome else "error   "
            errors.print(f"{kind} {run.dag_id}: {run.error}", soft_wrap=True)


def _wait(airflow: Standalone) -> None:
    try:
        while airflow.process.poll() is None:
            time.sleep(1)
        raise ServiceError("Airflow stopped unexpectedly.", f"See {airflow.log}.")
    except KeyboardInterrupt:
        os.write(2, b"\n")
