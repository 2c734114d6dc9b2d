"""Measuring whole processes: wall time, CPU time and peak memory, by the operating system."""

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

console = Console(width=None if sys.stdout.isatty() else 120)  # else tables lose their last column

# A process counts the memory of the one that started it as its own until it runs another program,
# and keeps that peak: so a bare interpreter starts what is measured, not this large one.
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
    """One finished process.

    Attributes:
        seconds: wall time.
        cpu: user and system time of it and its children, in seconds.
        peak: largest resident set of it or of one of its children, in bytes.
    """

    seconds: float
    cpu: float
    peak: int


@dataclass(frozen=True)
class Part:
    """One part of a run, in a process of its own.

    Attributes:
        run: its process.
        answer: what it says of itself.
    """

    run: Run
    answer: dict[str, Any]

    @property
    def seconds(self) -> float:
        """Of the work itself, without the start of Python."""
        return float(self.answer["seconds"])


@dataclass
class Targets:
    """What the figures have to be, and whether they are."""

    missed: list[str] = field(default_factory=list)

    def most(self, what: str, value: float, most: float, unit: str = "") -> None:
        """Print one target that is a limit."""
        self._print(what, value <= most, f"{value:.2f}{unit} (at most {most:g}{unit})")

    def least(self, what: str, value: float, least: float) -> None:
        """Print one target that has to be reached."""
        self._print(what, value >= least, f"{value:.2f} (at least {least:g})")

    def _print(self, what: str, good: bool, text: str) -> None:
        word = "[green]pass[/]" if good else "[red]MISS[/]"
        console.print(f"{word}  {what}: {text}")
        if not good:
            self.missed.append(what)


def measure(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Run:
    """Run a command to its end; raises SystemExit when it fails."""
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _STARTER, *command],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        check=True,
    )
    code, seconds, cpu, peak = json.loads(found.stdout)
    if code:
        sys.exit(f"failed ({code}): {shlex.join(command)}")
    return Run(seconds, cpu, peak * 1024)


def shell(text: str) -> list[str]:
    """Return a command that runs a pipeline and fails when any part of it fails."""
    return ["bash", "-o", "pipefail", "-c", text]


def require(*programs: str) -> None:
    """Stop when a program of a side-by-side measurement is missing."""
    missing = [name for name in programs if not shutil.which(name)]
    if missing:
        sys.exit(f"Missing for comparison: {', '.join(missing)} (apt-get install -y age restic).")


def median(runs: Sequence[Run]) -> float:
    """Return the median wall time."""
    return statistics.median(one.seconds for one in runs)


def show(title: str, runs: Mapping[str, Sequence[Run]], base: str) -> None:
    """Print a table of medians with ratios to one of the rows, pair by pair."""
    table = Table(title=title, title_justify="left")
    for name in ("what", "median s", "min-max s", "ratio (median of pairs)", "CPU s", "peak MiB"):
        table.add_column(name)
    for name, found in runs.items():
        pairs = [a.seconds / b.seconds for a, b in zip(found, runs[base], strict=True)]
        table.add_row(
            name,
            f"{median(found):.2f}",
            f"{min(one.seconds for one in found):.2f}-{max(one.seconds for one in found):.2f}",
            f"{statistics.median(pairs):.2f}",
            f"{statistics.median(one.cpu for one in found):.2f}",
            f"{max(one.peak for one in found) / 2**20:.0f}",
        )
    console.print(table)


def parts_table(title: str) -> Table:
    """Return an empty table of parts."""
    table = Table(title=title, title_justify="left", box=None)
    for name in ("what", "s", "min", "max", "ratio", "whole", "CPU", "MiB"):
        table.add_column(name, no_wrap=True)
    return table


def parts_row(table: Table, name: str, parts: Sequence[Part], ratio: str = "") -> None:
    """Add what a part took: median, least and most seconds of the work, and of its process."""
    seconds = [one.seconds for one in parts]
    table.add_row(
        name,
        *(f"{of(seconds):.2f}" for of in (statistics.median, min, max)),
        ratio,
        f"{statistics.median(one.run.seconds for one in parts):.2f}",
        f"{statistics.median(one.run.cpu for one in parts):.2f}",
        f"{max(one.run.peak for one in parts) / 2**20:.0f}",
    )


def machine() -> str:
    """Describe the machine in one line."""
    with Path("/proc/cpuinfo").open() as file:
        model = next((line.split(":")[1].strip() for line in file if "model name" in line), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores {model}, {memory:.0f} GiB, Python {sys.version.split()[0]}"
