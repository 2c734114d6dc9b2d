"""``parcelseal up``: the local stack, Airflow, and every scheduled workflow once."""

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
from include.cli.stack import DEFAULT_CUSTOMERS, local_stack, make_home, workplace
from include.local import airflow as local_airflow
from include.local.airflow import Standalone
from include.local.airflow_api import AirflowApi
from include.local.profile import AIRFLOW, LocalProfile
from include.services import stopping
from include.services.errors import ServiceError
from include.workplace import ROOT, Workplace

RUN_TIMEOUT = 1800  # seconds for one workflow
# A drill needs a restore point, so the first backup comes first.
FIRST = ("backup_offsite",)


def up(
    once: Annotated[
        bool,
        typer.Option(
            help="Stop when every workflow ran; exit 0 only if each is proven by a bundle."
        ),
    ] = False,
    customers: Annotated[
        int, typer.Option(min=1, help="Size of the sample courier database, when it is made.")
    ] = DEFAULT_CUSTOMERS,
) -> int:
    """Start the local stack and Airflow, and run every scheduled workflow once."""
    place = workplace()
    _ = place.pack  # a bad pack is reported before anything is started
    make_home(place)
    with local_airflow.hold(place.home), local_stack(place, customers=customers, always=True):
        local = LocalProfile(place.home)
        local_airflow.stop_left_over(local)
        port = local_airflow.free_port()
        environment = local_airflow.settings(local, ROOT, AIRFLOW, port, sample_people(place))
        tell("starting Airflow (about half a minute)")
        airflow: Standalone | None = None
        try:
            with stopping.deferred():  # an Airflow must be known before it can be stopped
                airflow = Standalone.start(local, ROOT, environment)
            airflow.wait_until_ready(tell)
            if not once:  # nobody has to wait for the runs before they log in
                tell(f"Airflow is at {airflow.url}: user admin, password {airflow.password}")
            done = run_all(place, airflow, answer=once)
            verified = show(place, done)
            if once:
                return 0 if verified and all(one.bundle for one in done) else 1
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
            (place.home / "airflow.pid").unlink(missing_ok=True)
    return 0


def run_all(place: Workplace, airflow: Standalone, *, answer: bool) -> list[RunResult]:
    """Run every scheduled workflow once, in Airflow, one after the other.

    Args:
        place: the workplace.
        airflow: that runs them.
        answer: whether to answer human steps, each as a person entitled to; otherwise a run that
            waits for people is left to them.

    Raises:
        ServiceError: Airflow does not answer, or a run takes too long; the results of the runs
            before it are printed.
    """
    api = airflow.api()
    wanted = len(list((ROOT / "dags").glob("*.py")))
    workflows = sorted(api.scheduled_workflows(wanted), key=lambda one: (one not in FIRST, one))
    if not workflows:
        raise ServiceError("Airflow found no workflow.", f"See {airflow.log}.")
    done: list[RunResult] = []
    try:
        for dag_id in workflows:
            done.append(_run_one(place, airflow, api, dag_id, answer=answer))  # noqa: PERF401
    except ServiceError:
        if done:
            _show_runs(done)
        raise
    return done


def _run_one(
    place: Workplace, airflow: Standalone, api: AirflowApi, dag_id: str, *, answer: bool
) -> RunResult:
    run_id = api.trigger(dag_id)
    if not errors.is_terminal:
        tell(f"running {dag_id}")
    people = Answering(place, airflow, api, dag_id)
    end = time.monotonic() + RUN_TIMEOUT
    with errors.status(f"running {dag_id}"):
        while (state := api.state(dag_id, run_id)) in {"queued", "running"}:
            if time.monotonic() > end:
                raise ServiceError(
                    f"{dag_id} did not end in {RUN_TIMEOUT} s.", f"See {airflow.log}."
                )
            if answer:
                people.answer()
            elif waiting := api.questions(dag_id):
                who = ", ".join(sorted({one for each in waiting for one in each.assigned}))
                tell(f"{dag_id} waits for an answer of {who}: see Required Actions in Airflow")
                return RunResult(dag_id, run_id, "waiting", None, None, [], 0, None)
            time.sleep(0.5)
    done = result_of(place, dag_id, run_id, state, str(airflow.log))
    tell(f"{dag_id}: {done.outcome or 'no evidence'}")
    return done


def show(place: Workplace, done: list[RunResult]) -> bool:
    """Print the table of outcomes, and whether all evidence verifies."""
    from include.evidence.verify import verify_all

    _show_runs(done)
    with place.state.connect() as conn:
        checked = verify_all(place.store("evidence_store"), conn, place.trusted)
    if checked.verified:
        results.print(f"evidence {checked.bundles} bundles verified")
    else:
        errors.print(f"evidence NOT verified: {checked.first_bad}: {checked.reason}")
    return checked.verified


def _show_runs(done: list[RunResult]) -> None:
    table = Table(title="Workflows", title_justify="left")
    for name in ("workflow", "run", "outcome", "findings"):
        table.add_column(name)
    for one in done:
        table.add_row(one.dag_id, one.state, one.outcome or "no evidence", str(one.findings))
    results.print(table)
    for one in done:
        for report in one.reports:
            results.print(f"report   {report}", soft_wrap=True)
        if one.error:
            errors.print(f"error    {one.dag_id}: {one.error}", soft_wrap=True)


def _wait(airflow: Standalone) -> None:
    try:
        while airflow.process.poll() is None:
            time.sleep(1)
        raise ServiceError("Airflow stopped by itself.", f"See {airflow.log}.")
    except KeyboardInterrupt:
        os.write(2, b"\n")
