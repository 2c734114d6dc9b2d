"""Measure processes with the operating system: wall time, CPU time and peak memory."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

# Otherwise tables lose their last column.
console = Console(width=None if sys.stdout.isatty() else 120)

# Until it executes another program, a process counts its parent's memory in its peak. Therefore
# a bare interpreter starts the measured commands, not this large process.
_STARTER = """
import json, os, sys, time
begun = time.monotonic()
out = os.open(os.devnull, os.O_WRONLY)
pid = os.posix_spawnp(
    sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, out, 1)]
)
_pid, status, usage = os.wait4(pid, 0)
seconds = time.monotonic() - begun
cpu = usage.ru_utime + usage.ru_stime
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, cpu, usage.ru_maxrss]))
"""


@dataclass(frozen=True)
class Run:
    """A finished process.

    Attributes:
        seconds: wall time in seconds.
        cpu: user and system time of the process and its children, in seconds.
        peak: largest resident set of the process or of one of its children, in bytes.
    """

    seconds: float
    cpu: float
    peak: int


@dataclass(frozen=True)
class Part:
    """A part of a benchmark that was measured in a separate process.

    Attributes:
        run: measurements of the whole process.
        answer: result that the process wrote.
    """

    run: Run
    answer: dict[str, Any]

    @property
    def seconds(self) -> float:
        """The seconds of the measured operation, without the start of Python."""
        return float(self.answer["seconds"])


@dataclass
class Targets:
    """Prints the targets of a benchmark, and collects the missed ones."""

    missed: list[str] = field(default_factory=list)

    def most(self, target: str, value: float, most: float, unit: str = "") -> None:
        """Print whether a value is at most its target, and collect the target if it is missed."""
        self._print(target, value <= most, f"{value:.2f}{unit} (at most {most:g}{unit})")

    def least(self, target: str, value: float, least: float) -> None:
        """Print whether a value is at least its target, and collect the target if it is missed."""
        self._print(target, value >= least, f"{value:.2f} (at least {least:g})")

    def _print(self, target: str, good: bool, text: str) -> None:
        mark = "[green]pass[/]" if good else "[red]MISS[/]"
        console.print(f"{mark}  {target}: {text}")
        if not good:
            self.missed.append(target)


def measure(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Run:
    """Run a command to its end, and return its measurements.

    Raises:
        SystemExit: the command failed.
    """
    completed = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _STARTER, *command],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        check=True,
    )
    code, seconds, cpu, peak = json.loads(completed.stdout)
    if code:
        sys.exit(f"failed ({code}): {shlex.join(command)}")
    return Run(seconds, cpu, peak * 1024)


def shell(text: str) -> list[str]:
    """Return a command that runs a shell pipeline, and fails if any part of the pipeline fails."""
    return ["bash", "-o", "pipefail", "-c", text]


def require(*programs: str) -> None:
    """Exit if a program that the benchmark needs for comparison is missing."""
    missing = [name for name in programs if not shutil.which(name)]
    if missing:
        sys.exit(f"Missing for comparison: {', '.join(missing)} (apt-get install -y age restic).")


def median(runs: Sequence[Run]) -> float:
    """Return the median wall time of processes, in seconds."""
    return statistics.median(run.seconds for run in runs)


def show(title: str, runs: Mapping[str, Sequence[Run]], base: str) -> None:
    """Print a table of medians, with the median ratio of each row to a base row.

    Ratios are computed between the processes of the same round.

    Args:
        title: title of the table.
        runs: measured processes by name of the row.
        base: name of the base row.
    """
    table = Table(title=title, title_justify="left")
    for name in ("what", "median s", "min-max s", "ratio (median of pairs)", "CPU s", "peak MiB"):
        table.add_column(name)
    for name, measured in runs.items():
        seconds = [run.seconds for run in measured]
        pairs = [a.seconds / b.seconds for a, b in zip(measured, runs[base], strict=True)]
        table.add_row(
            name,
            f"{median(measured):.2f}",
            f"{min(seconds):.2f}-{max(seconds):.2f}",
            f"{statistics.median(pairs):.2f}",
            f"{statistics.median(run.cpu for run in measured):.2f}",
            f"{max(run.peak for run in measured) / 2**20:.0f}",
        )
    console.print(table)


def parts_table(title: str) -> Table:
    """Return an empty table for rows of `parts_row`."""
    table = Table(title=title, title_justify="left", box=None)
    for name in ("what", "s", "min", "max", "ratio", "whole", "CPU", "MiB"):
        table.add_column(name, no_wrap=True)
    return table


def parts_row(table: Table, name: str, parts: Sequence[Part], ratio: str = "") -> None:
    """Add a row with the measurements of repetitions of a part.

    The row has the median, smallest and largest seconds of the operation, and the medians of the
    whole process.
    """
    seconds = [part.seconds for part in parts]
    table.add_row(
        name,
        *(f"{of(seconds):.2f}" for of in (statistics.median, min, max)),
        ratio,
        f"{statistics.median(part.run.seconds for part in parts):.2f}",
        f"{statistics.median(part.run.cpu for part in parts):.2f}",
        f"{max(part.run.peak for part in parts) / 2**20:.0f}",
    )


def machine() -> str:
    """Return a description of this machine in one line."""
    with Path("/proc/cpuinfo").open() as file:
        model = next((line.split(":")[1].strip() for line in file if "model name" in line), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores {model}, {memory:.0f} GiB, Python {sys.version.split()[0]}"
