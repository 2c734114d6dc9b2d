"""Measure the compliance pages of a large company with 20 readers while a scheduler runs.

``./parcelseal bench pages [--rows N] [--rounds N]``. The benchmark starts an embedded PostgreSQL,
an API server with FAB, a scheduler and a DAG processor, with 100,000 signed bundles and 40
controls. It exits with 1 if a target is missed. Readers open Overview and Evidence at random:
Overview of today and of past days, pages of controls, and Evidence at any depth and with any
filter. They read for a second between two pages.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median, quantiles

import psycopg
import requests
from rich.table import Table

from benchmarks import _pages_data as data
from benchmarks._measure import Targets, console, machine
from include.evidence.signing import Signer, generate_key
from include.local.airflow import stop_tree
from include.local.postgres import EmbeddedPostgres
from include.policy import SHIPPED
from include.registry import load_pack
from include.service_container import ROOT
from include.state.connect import engine
from include.state.migrate import migrate
from tests.support.fab import FabAirflow, fab_airflow

BUNDLES, USERS = 100_000, 20
THINK = 1.0  # seconds for which a reader reads a page, on average
SECONDS = 30  # duration of each round
P95 = 150  # largest number of milliseconds in the server
SIZE = 200  # largest size of a page in KiB
DEEP = 0.5  # depth in the ledger from which a page counts as deep
LEDGER_TIMEOUT = 600  # seconds
READY_TIMEOUT, SETTLING = 120, 15  # seconds; all DAG files are parsed once meanwhile
ROLES = ("Auditor", "Compliance Officer", "Management")  # roles that may read every workflow
SETTINGS = {"shared_buffers": "256MB"}


@dataclass(frozen=True)
class Page:
    """A page that a reader opened, with times in milliseconds and size in bytes."""

    kind: str
    depth: float
    server: float
    reader: float
    size: int


def p95(figures: Sequence[float]) -> float:
    """Return the 95th percentile of numbers."""
    return quantiles(figures, n=20, method="inclusive")[-1]


@contextmanager
def company(folder: Path, bundles: int) -> Iterator[tuple[FabAirflow, Sequence[date]]]:
    """Start all servers with the data of the company, and stop them at the end.

    Yields:
        The API server, and the past days that readers look at.
    """
    server = EmbeddedPostgres(folder / "pg", SETTINGS)
    server.start()
    try:
        with psycopg.connect(server.conninfo("postgres"), autocommit=True) as admin:
            admin.execute("CREATE DATABASE state")
        conninfo = server.conninfo("state")
        migrate(engine(conninfo))
        signer = Signer.from_pem(generate_key())
        public = folder / "evidence.pub"
        public.write_bytes(signer.public_pem)
        store = folder / "evidence"
        store.mkdir()
        rules = data.pack(folder / "pack")
        days = data.fill(conninfo, store, signer, rules, bundles)
        (folder / "airflow").mkdir()
        with (
            fab_airflow(server, folder / "airflow", _settings(server, folder)) as airflow,
            _beside(airflow, "scheduler"),
            _beside(airflow, "dag-processor"),
        ):
            _wait_until_it_runs(airflow)
            _wait_for_ledger_check(airflow)
            yield airflow, days
    finally:
        server.stop()


def _settings(server: EmbeddedPostgres, folder: Path) -> Mapping[str, str]:
    state = {
        "conn_type": "postgres", "host": str(server.socket_folder), "schema": "state",
        "login": "postgres", "password": server.password,
    }  # fmt: skip
    evidence = {
        "conn_type": "fs",
        "extra": {
            "path": str(folder / "evidence"),
            "trusted_keys": [str(folder / "evidence.pub")],
        },
    }
    return {
        "AIRFLOW_CONN_PAGES_DB": json.dumps(state),
        "AIRFLOW_CONN_EVIDENCE_STORE": json.dumps(evidence),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        "PARCELSEAL_POLICY": str(folder / "pack"),
    }


def _wait_until_it_runs(airflow: FabAirflow) -> None:
    """Wait until scheduler and DAG processor have started, so that their start is not measured."""
    end = time.monotonic() + READY_TIMEOUT
    while time.monotonic() < end:
        health = requests.get(f"{airflow.url}/api/v2/monitor/health", timeout=30).json()
        if all(health[part]["status"] == "healthy" for part in ("scheduler", "dag_processor")):
            time.sleep(SETTLING)
            return
        time.sleep(1)
    raise RuntimeError(f"Scheduler and DAG processor were not ready after {READY_TIMEOUT} s.")


def _wait_for_ledger_check(airflow: FabAirflow) -> None:
    """Wait for the check of all ledger rows that the first request after a start begins.

    Later checks examine only new rows.
    """
    begun = time.monotonic()
    headers = {"Authorization": f"Bearer {airflow.token(ROLES[0])}", "Accept-Language": "en"}
    while time.monotonic() - begun < LEDGER_TIMEOUT:
        page = requests.get(f"{airflow.url}/compliance/evidence", headers=headers, timeout=60)
        page.raise_for_status()
        if "Ledger rows whose signatures were checked so far" not in page.text:
            seconds = time.monotonic() - begun
            console.print(f"first check of all ledger rows after the start: {seconds:.0f} s")
            return
        time.sleep(1)
    raise RuntimeError(f"The ledger was not checked after {LEDGER_TIMEOUT} s.")


@contextmanager
def _beside(airflow: FabAirflow, component: str) -> Iterator[None]:
    with (airflow.folder / f"{component}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", component],
            env=dict(airflow.environment),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError(f"{component} ended: {log.name}")
    finally:
        stop_tree(process.pid)
        process.wait()


def look(
    airflow: FabAirflow,
    bundles: int,
    days: Sequence[date],
    seconds: float,
    think: float = THINK,
) -> list[Page]:
    """Simulate readers for some seconds, and return the pages that they opened.

    Args:
        airflow: the API server.
        bundles: number of bundles in the evidence ledger.
        days: past days for which readers open the overview.
        seconds: duration of the simulation.
        think: seconds between two pages of a reader.
    """
    wish = {
        "url": f"{airflow.url}/compliance",
        "tokens": [airflow.token(role) for role in ROLES],
        "users": USERS,
        "seconds": seconds,
        "think": think,
        "bundles": bundles,
        "days": [day.isoformat() for day in days],
        "controls": [control.id for control in load_pack(SHIPPED).controls],
    }
    completed = subprocess.run(
        [sys.executable, "-m", "benchmarks._pages_load"],
        input=json.dumps(wish),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [Page(*load) for load in json.loads(completed.stdout)]


def open_past_days(airflow: FabAirflow, days: Sequence[date]) -> list[float]:
    """Open the overview of each past day in each language, one after the other.

    Only the first opening in ten minutes reads and verifies the evidence of a day.

    Returns:
        Milliseconds on the server for each first opening.
    """
    spent = []
    for day in days:
        for language in ("en", "zh-CN"):
            page = requests.get(
                f"{airflow.url}/compliance/?asof={day}",
                headers={
                    "Authorization": f"Bearer {airflow.token(ROLES[0])}",
                    "Accept-Language": language,
                },
                timeout=60,
            )
            page.raise_for_status()
            timing = re.search(r"dur=([\d.]+)", page.headers["server-timing"])
            assert timing is not None
            if language == "en":
                spent.append(float(timing[1]))
    return spent


def show(views: Sequence[Page], bundles: int, seconds: float) -> None:
    """Print a table of the measured pages."""
    table = Table(
        title=f"{bundles:,} bundles, {data.CONTROLS} controls, {USERS} people: {machine()}"
    )
    for name in ("page", "opened", "server, median", "server, p95", "reader, p95", "largest"):
        table.add_column(name, justify="left" if name == "page" else "right")
    for name, pages in groups(views).items():
        servers, readers = [page.server for page in pages], [page.reader for page in pages]
        table.add_row(
            name,
            str(len(pages)),
            f"{median(servers):.0f} ms",
            f"{p95(servers):.0f} ms",
            f"{p95(readers):.0f} ms",
            f"{max(page.size for page in pages) / 1024:.0f} KiB",
        )
    console.print(table)
    console.print(f"{len(views) / seconds:.1f} pages a second")


def groups(views: Sequence[Page]) -> dict[str, list[Page]]:
    """Return the measured pages by kind."""
    return {
        "Overview": [page for page in views if page.kind == "overview"],
        "Overview, past day": [page for page in views if page.kind == "as of"],
        "Control": [page for page in views if page.kind == "control"],
        "Evidence, newest": [page for page in views if page.kind == "evidence" and not page.depth],
        "Evidence, deep": [page for page in views if page.depth > DEEP],
        "Evidence, any": [page for page in views if page.kind == "evidence"],
    }


def main() -> int:
    """Measure, print, and return 1 if a target is missed."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--rows", type=int, default=BUNDLES)
    words.add_argument("--rounds", type=int, default=3)
    args = words.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-bench-pages-"))
    folder.chmod(0o755)
    try:
        with company(folder, args.rows) as (airflow, days):
            first = open_past_days(airflow, days)  # fills the caches of the server
            look(airflow, args.rows, days, 5)
            views = [
                page
                for _number in range(args.rounds)
                for page in look(airflow, args.rows, days, SECONDS)
            ]
            flood = look(airflow, args.rows, days, 10, think=0.0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(views, args.rows, SECONDS * args.rounds)
    console.print(
        f"first opening of a past day, by one reader: {median(first):.0f} ms on the server "
        f"(median), {p95(first):.0f} ms (p95)"
    )
    console.print(
        f"without a pause between two pages: {len(flood) / 10:.0f} pages a second, "
        f"{median(page.reader for page in flood):.0f} ms to the reader"
    )
    targets, by = Targets(), groups(views)
    for name in (
        "Overview",
        "Overview, past day",
        "Control",
        "Evidence, newest",
        "Evidence, deep",
        "Evidence, any",
    ):
        targets.most(
            f"{name}: server time at p95", p95([page.server for page in by[name]]), P95, " ms"
        )
    newest, deep = (
        median(page.server for page in by[name]) for name in ("Evidence, newest", "Evidence, deep")
    )
    console.print(f"deep pages take {deep / newest:.2f} times as long as the newest (medians)")
    targets.most("largest page", max(page.size for page in views) / 1024, SIZE, " KiB")
    return 1 if targets.missed else 0


if __name__ == "__main__":
    sys.exit(main())
