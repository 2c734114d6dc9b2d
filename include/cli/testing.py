"""``parcelseal test`` runs the tests, and ``parcelseal bench`` runs a benchmark."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated

import typer

from include.service_container import ROOT
from include.services.errors import UsageError
from include.services.programs import ending_with_this_thread
from include.services.stopping import Interruption

BENCHMARKS = ROOT / "benchmarks"
NOT_MEASURED = {"sampling_risk"}  # a simulation without rounds and without other tools


def test(
    context: typer.Context,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Run only fast tests, in at most 3 minutes on 2 cores. Tests with Airflow, a "
            "browser, PDF files or killed processes are left out, and test files that "
            "take over 3 seconds.",
        ),
    ] = False,  # noqa: PT028 - a command, not a test
) -> int:
    """Run the tests on all CPU cores.

    Further arguments are passed to pytest, for example `-n0` to use one process.
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PARCELSEAL_")}
    words = [sys.executable, "-m", "pytest", "-n", "auto", "--durations=10"]
    if quick:
        words.append("--quick")
    return run_program([*words, *context.args], clean)


def bench(
    name: Annotated[
        str, typer.Argument(help="Name of the benchmark: the name of a file in benchmarks/.")
    ],
    size: Annotated[
        float | None,
        typer.Option(help="Size of the generated database in GiB, for the benchmark backup."),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            min=10_000,
            help="Number of rows, for the benchmarks retention, sampling, incident and "
            "disclosure. Number of bundles, for pages.",
        ),
    ] = None,
    customers: Annotated[
        int | None,
        typer.Option(
            min=1_000,
            help="Number of customers in the database, for the benchmarks quality and incident.",
        ),
    ] = None,
    log: Annotated[
        int | None,
        typer.Option(
            min=1_000, help="Number of rows in the log of accesses, for the benchmark incident."
        ),
    ] = None,
    employees: Annotated[
        int | None,
        typer.Option(
            min=1_000, help="Number of employees of the company, for the benchmark reminders."
        ),
    ] = None,
    mails: Annotated[
        int | None,
        typer.Option(
            min=100, help="Number of recipients of mail, for the benchmarks reminders and incident."
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="Number of repetitions. The table shows the median.")
    ] = 3,
    without_peers: Annotated[
        bool,
        typer.Option(
            "--without-peers", help="Do not measure other tools, for the benchmark quality."
        ),
    ] = False,
) -> int:
    """Run a benchmark of ParcelSeal and comparable tools, and print the table of results."""
    benchmarks = sorted({path.stem for path in BENCHMARKS.glob("[a-z]*.py")} - NOT_MEASURED)
    if name not in benchmarks:
        raise UsageError(
            f"The benchmark {name} does not exist.", f"Use one of: {', '.join(benchmarks)}."
        )
    words = [sys.executable, "-m", f"benchmarks.{name}", "--rounds", str(rounds)]
    sizes = (
        ("--size", size),
        ("--customers", customers),
        ("--rows", rows),
        ("--log", log),
        ("--employees", employees),
        ("--mails", mails),
    )
    for option, value in sizes:
        if value is not None:
            words += [option, str(value)]
    if without_peers and name != "quality":
        raise UsageError(
            "Only the benchmark quality can leave out other tools.", "Remove --without-peers."
        )
    if without_peers:
        words.append("--without-peers")
    return run_program(words)


def run_program(words: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run a program in the project folder. If a signal ends the command, the program is stopped.

    On a signal, the program gets SIGINT and can stop the servers that it started. If that takes too
    long, the module `stopping` kills it. The program also gets SIGINT when the thread that called
    this function ends.

    Without a terminal, the program has its own process group, because `timeout` sends SIGTERM to a
    whole group, and SIGTERM ends a Python program without its clean-up. With a terminal, the
    program stays in the process group of this process, since only that group may read from the
    terminal. The program always stays in the session of this process, because Linux compares the
    nice values only of processes in the same session (autogroup).

    Args:
        words: program and arguments.
        environment: environment variables of the program; None for those of this process.

    Returns:
        The exit code of the program.

    Raises:
        Interruption: a signal ended the command. The program has ended as well.
    """
    group = None if sys.stdin.isatty() else 0
    process = subprocess.Popen(
        ending_with_this_thread(words), cwd=ROOT, env=environment, process_group=group
    )
    try:
        return process.wait()
    except Interruption as interrupted:
        # A terminal sends Ctrl-C to the whole group; a second SIGINT would end the clean-up.
        with suppress(ProcessLookupError):
            if group == 0:
                os.killpg(process.pid, signal.SIGINT)
            elif interrupted.number != signal.SIGINT:
                process.send_signal(signal.SIGINT)
        process.wait()
        raise
