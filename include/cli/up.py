"""``parcelseal up``: start the local stack and Airflow, and run every scheduled workflow once."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from typing import Annotated
from urllib.parse import quote

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from include.cli.answers import Answering
from include.cli.answers import people as sample_people
from include.cli.console import errors, print_line, results, tell
from include.cli.report import RunResult, result_of
from include.cli.stack import DEFAULT_CUSTOMERS, command_services, local_stack, make_home
from include.cli.table import UNFOLDED
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
    reports: Annotated[
        bool, typer.Option("--reports", help="Also print the paths of all reports.")
    ] = False,
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
            verified = show(services, done, None if once else airflow.url, reports=reports)
            if once:
                _print_next_steps(
                    "Open a report of the table in a browser; `./parcelseal up --once --reports` "
                    "prints the paths of all reports.",
                    "Verify the evidence: ./parcelseal verify --all",
                    "Keep Airflow and the compliance pages running: ./parcelseal up",
                )
                return 0 if verified and all(run.bundle for run in done) else 1
            passwords = environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]
            _print_next_steps(
                f"Open {airflow.url}/compliance/ and log in: user admin, password "
                f"{airflow.password}",
                "Log out, and log in as a person of the table to answer a required action; "
                f"passwords: {passwords}",
                "Verify the evidence: ./parcelseal verify --all",
            )
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
                reason = _people_who_may_answer({user for act in waiting for user in act.assigned})
                tell(f"{dag_id} waits for an answer: {reason}")
                return RunResult(dag_id, run_id, "waiting", None, None, [], 0, None, reason=reason)
            time.sleep(0.5)
    done = result_of(services, dag_id, run_id, state, str(airflow.log))
    tell(f"{dag_id}: {done.words}")
    return done


def _people_who_may_answer(accounts: Collection[str]) -> str:
    """Return a text that names one of the people who may answer, and the number of the others."""
    if not accounts:
        return "everybody with the right in Airflow may answer"
    first, *others = sorted(accounts)
    return f"{first} may answer" + (f", or {len(others)} other people" if others else "")


def show(
    services: Services, done: list[RunResult], url: str | None = None, *, reports: bool = False
) -> bool:
    """Print the outcomes of the runs, and verify the evidence store.

    Args:
        services: connections and policy pack.
        done: results of the runs.
        url: address of Airflow; None if Airflow stops at the end of the command.
        reports: whether to print the paths of all reports.

    Returns:
        Whether all bundles of the evidence store are valid.
    """
    from include.evidence.verify import verify_all

    if reports:
        _print_reports(done)
    with services.state.connect() as conn:
        checked = verify_all(services.store("evidence_store"), conn, services.trusted)
    if checked.verified:
        results.print(f"evidence verified: {checked.bundles} bundles")
    else:
        errors.print(f"evidence NOT verified: {checked.first_bad}: {checked.reason}")
    _show_runs(done, url)
    return checked.verified


def _print_reports(done: list[RunResult]) -> None:
    for run in done:
        for report in run.reports:
            print_line(f"report   {report}")


def _show_runs(done: list[RunResult], url: str | None = None) -> None:
    """Print a table with the outcome, the first reason and a link for each run.

    Args:
        done: results of the runs.
        url: address of Airflow, to which the links lead; None for links to the reports.
    """
    from include.reports.i18n import visible

    table = Table(title="Workflows", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("workflow", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    table.add_column("first reason", overflow="fold")
    table.add_column("link", overflow="fold")
    for run in done:
        words, style = _outcome_words(run)
        reason = run.reason or run.error or ""
        link = _link(run, url)
        target = link if "://" in link else f"file://{link}" if link else None
        table.add_row(
            run.dag_id,
            Text(words, style),
            Text(visible(reason)),
            Text(link, Style(link=target)),
        )
    if results.is_terminal:
        results.print(table)
    else:
        Console(file=results.file, width=UNFOLDED, highlight=False).print(table)


def _outcome_words(run: RunResult) -> tuple[str, str]:
    """Return the outcome of a run in words, and the style in which the table shows it."""
    if run.state == "waiting":
        return "waits for an answer", "cyan"
    if run.could_not_run:
        return run.words, "yellow"
    return run.words, _STYLES.get(run.outcome or "", "bold red")


_STYLES = {"pass": "green", "attention": "yellow", "fail": "bold red"}


def _link(run: RunResult, url: str | None) -> str:
    """Return the address of a bundle's page or of a waiting run, or else the path of a report."""
    if url is not None and run.number is not None:
        return f"{url}/compliance/evidence/{run.number}"
    if url is not None and run.run_id is not None:
        run_id = quote(run.run_id, safe="")
        tab = "/required_actions?response_received=false" if run.state == "waiting" else ""
        return f"{url}/dags/{run.dag_id}/runs/{run_id}{tab}"
    return next((path for path in run.reports if path.endswith("report.en.html")), "")


def _print_next_steps(*steps: str) -> None:
    results.print("Next steps:", style="bold")
    for number, step in enumerate(steps, 1):
        print_line(f"  {number}. {step}")


def _wait(airflow: Standalone) -> None:
    try:
        while airflow.process.poll() is None:
            time.sleep(1)
        raise ServiceError("Airflow stopped unexpectedly.", f"See {airflow.log}.")
    except KeyboardInterrupt:
        os.write(2, b"\n")
