"""``parcelseal test`` and ``parcelseal bench``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated

import typer

from include.services.errors import UsageError
from include.services.programs import ending_with_us
from include.services.stopping import Interruption
from include.workplace import ROOT

BENCHMARKS = ROOT / "benchmarks"
NOT_MEASURED = {"sampling_risk"}  # simulates; it has no rounds and compares with no tool


def test(
    context: typer.Context,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Only fast tests, in at most 3 minutes on 2 cores. Left out: tests with Airflow, "
            "a browser, PDF files or killed processes, and test files that take over 3 seconds.",
        ),
    ] = False,  # noqa: PT028 - a command, not a test
) -> int:
    """Run the tests on all cores; other arguments go to pytest (`-n0`: in one process)."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PARCELSEAL_")}
    words = [sys.executable, "-m", "pytest", "-n", "auto", "--durations=10"]
    if quick:
        words.append("--quick")
    return run_program([*words, *context.args], clean)


def bench(
    name: Annotated[str, typer.Argument(help="Which one: a file of benchmarks/.")],
    size: Annotated[
        float | None, typer.Option(help="Size of the generated database in GiB (backup).")
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(min=10_000, help="Rows (retention, sampling, incident), bundles (pages)."),
    ] = None,
    customers: Annotated[
        int | None, typer.Option(min=1_000, help="Customers in the database (quality, incident).")
    ] = None,
    log: Annotated[
        int | None, typer.Option(min=1_000, help="Rows in the log of accesses (incident).")
    ] = None,
    employees: Annotated[
        int | None, typer.Option(min=1_000, help="Employees of the company (reminders).")
    ] = None,
    mails: Annotated[
        int | None, typer.Option(min=100, help="People who get a mail (reminders, incident).")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median is shown.")] = 3,
    without_peers: Annotated[
        bool, typer.Option("--without-peers", help="Leave out other tools (quality).")
    ] = False,
) -> int:
    """Measure side by side with other tools, and print the table."""
    benchmarks = sorted({path.stem for path in BENCHMARKS.glob("[a-z]*.py")} - NOT_MEASURED)
    if name not in benchmarks:
        raise UsageError(f"There is no benchmark {name}.", f"There are: {', '.join(benchmarks)}.")
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
        raise UsageError("Only the benchmark quality can leave out other tools.", "Leave it out.")
    if without_peers:
        words.append("--without-peers")
    return run_program(words)


def run_program(words: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run a Python program of this tree; on a signal, end it as by Ctrl-C.

    The program then stops the servers that it started. If that takes too long, `stopping` ends it.
    It has a process group of its own, since `timeout` signals the whole group and SIGTERM ends a
    Python program without its clean-up; in front of a terminal it stays in our group, which alone
    may read from it. It stays in our session, in which the kernel compares nice values (autogroup).
    The program also gets SIGINT when this thread ends.

    Args:
        words: the command.
        environment: environment of the program; by default, that of this process.

    Returns:
        The exit code of the program.

    Raises:
        Interruption: a signal ended the command; the program has ended too.
    """
    group = None if sys.stdin.isatty() else 0
    process = subprocess.Popen(
        ending_with_us(words), cwd=ROOT, env=environment, process_group=group
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
