"""Freezing a population and drawing from it, side by side with a plain sorted export.

``./parcelseal bench sampling [--rows N] [--rounds N]``: on one embedded PostgreSQL. Exits with 1
when a target is missed. The export is what whoever has no such workflow would do: psql writes the
keys in their order, and sha256sum says what they were. Both have to come to the same digest.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from rich.table import Table

from benchmarks import _sampling_data as data
from benchmarks import _sampling_exact as exact
from benchmarks._measure import Run, Targets, console, machine, measure, shell
from include.local.postgres import EmbeddedPostgres
from include.services.programs import program

ITEMS = 400
SLOWER = 2.0  # times the plain export, at most
MEMORY = 250  # MiB
DRAWING = 1000  # milliseconds
ANSWER = 50  # milliseconds; of a size or a limit at the usual rates
SETTINGS = {"max_wal_size": "8GB"}  # else the tables are made between two checkpoints a minute
TITLES = {data.NUMBERS: "numbers", data.TEXTS: f"texts, {data.STRATA} strata"}


@dataclass(frozen=True)
class Pair:
    """One round of both.

    Attributes:
        plain: the export and its digest.
        ours: our process, all of it.
        answer: what it says of its steps.
    """

    plain: Run
    ours: Run
    answer: dict[str, Any]

    @property
    def ratio(self) -> float:
        """Of the work itself, since psql imports nothing."""
        return float(self.answer["all"] / self.plain.seconds)


class SamplingBench:
    """A server with both tables, and an evidence store in a directory; all temporary."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.store.mkdir()
        self.server = EmbeddedPostgres(folder / "pg", SETTINGS)
        try:
            self._fill(rows)
        except BaseException:
            self.server.stop()
            raise

    def _fill(self, rows: int) -> None:
        self.server.start()
        with psycopg.connect(self.server.conninfo("postgres"), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {data.DATABASE}".encode())
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            data.make(connection, rows)
            connection.execute("CHECKPOINT")
        os.sync()

    @property
    def conninfo(self) -> str:
        """A connection string of the benchmark's database."""
        return self.server.conninfo(data.DATABASE)

    def plain(self, name: str) -> tuple[Run, str]:
        """Export the keys in their order, and hash them on the way."""
        file = self.folder / "plain"
        words = [program("psql"), "-qX", "-c", data.plain(name), self.conninfo]
        run = measure(shell(f"{shlex.join(words)} | sha256sum > {shlex.quote(str(file))}"))
        return run, file.read_text().split()[0]

    def ours(self, name: str) -> tuple[Run, dict[str, Any]]:
        """Freeze, hash and draw in a process of its own."""
        file = self.folder / "asked.json"
        given = {"name": name, "store": str(self.store), "database": self.conninfo, "items": ITEMS}
        file.write_text(json.dumps(given))
        run = measure(
            [sys.executable, "-W", "ignore", "-m", "benchmarks._sampling_once", str(file)]
        )
        return run, json.loads(file.read_text())

    def pair(self, name: str, rows: int, *, first: bool) -> Pair:
        """Run both, ours first or last."""
        if first:
            ours, answer = self.ours(name)
            plain, digest = self.plain(name)
        else:
            plain, digest = self.plain(name)
            ours, answer = self.ours(name)
        if (digest, rows) != (answer["sha256"], answer["items"]):
            sys.exit("The export and the frame differ: they did not do the same work.")
        return Pair(plain, ours, answer)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-bench-"))
    folder.chmod(0o755)
    targets = Targets()
    bench = None
    try:
        console.print(
            f"{machine()}; load {os.getloadavg()[0]:.1f}; {given.rows:,} items; "
            f"{given.rounds} rounds after a warm-up"
        )
        bench = SamplingBench(folder, given.rows)
        measure_frames(bench, given.rows, given.rounds, targets)
    finally:
        if bench is not None:
            bench.server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    measure_answers(given.rows, targets)
    console.print(f"Load at the end: {os.getloadavg()[0]:.1f}")
    sys.exit(1 if targets.missed else 0)


def measure_frames(bench: SamplingBench, rows: int, rounds: int, targets: Targets) -> None:
    """Freeze and draw in turn with the export; the first round warms up and is not counted."""
    pairs: dict[str, list[Pair]] = {name: [] for name in TITLES}
    for number in range(rounds + 1):
        for name, found in pairs.items():
            found.append(bench.pair(name, rows, first=number % 2 == 1))
    counted = {name: found[1:] for name, found in pairs.items()}
    show(counted)
    for name, found in counted.items():
        ratio = median(one.ratio for one in found)
        targets.most(f"freeze, hash and draw against the export, {TITLES[name]}", ratio, SLOWER)
    peak = max(one.ours.peak for found in counted.values() for one in found)
    targets.most("peak memory", peak / 2**20, MEMORY, " MiB")


def show(pairs: dict[str, list[Pair]]) -> None:
    """Print the table."""
    table = Table(title=f"Drawing {ITEMS} items", title_justify="left", box=None)
    for name in ("what", "s", "min", "max", "ratio", "whole", "CPU", "MiB"):
        table.add_column(name, no_wrap=True)
    for name, found in pairs.items():
        plain = [one.plain for one in found]
        _row(table, f"export, {TITLES[name]}", [one.seconds for one in plain], 1, plain)
        work = [one.answer["all"] for one in found]
        ratio = median(one.ratio for one in found)
        _row(table, f"ParcelSeal, {TITLES[name]}", work, ratio, [one.ours for one in found])
        for step in ("freeze", "hash", "draw"):
            seconds = [one.answer[step] for one in found]
            table.add_row(f"  {step}", *(f"{of(seconds):.2f}" for of in (median, min, max)))
    console.print(table)


def _row(table: Table, name: str, seconds: list[float], ratio: float, runs: list[Run]) -> None:
    table.add_row(
        name,
        *(f"{of(seconds):.2f}" for of in (median, min, max)),
        f"{ratio:.2f}",
        f"{median(one.seconds for one in runs):.2f}",
        f"{median(one.cpu for one in runs):.2f}",
        f"{max(one.peak for one in runs) / 2**20:.0f}",
    )


def measure_answers(rows: int, targets: Targets) -> None:
    """Draw by a seed alone, and work out sizes and limits."""
    drawn = exact.drawing(ITEMS, rows)
    targets.most(f"{drawn.question} by the seed alone", drawn.seconds * 1000, DRAWING, " ms")
    found = list(exact.usual())
    table = Table(title="Sizes and limits", title_justify="left", box=None)
    for name in ("items", "answers", "median ms", "slowest ms", "slowest one"):
        table.add_column(name, no_wrap=True)
    for population in data.POPULATIONS:
        some = [one for one in found if one.population == population]
        slowest = max(some, key=lambda one: one.seconds)
        table.add_row(
            _items(population),
            str(len(some)),
            f"{median(one.seconds for one in some) * 1000:.2f}",
            f"{slowest.seconds * 1000:.2f}",
            f"{slowest.question}: {slowest.answer}",
        )
    console.print(table)
    slowest = max(found, key=lambda one: one.seconds)
    targets.most("slowest size or limit at usual rates", slowest.seconds * 1000, ANSWER, " ms")
    for one in exact.extremes():
        console.print(
            f"Not usual: {one.question}, {_items(one.population)} items: "
            f"{one.seconds * 1000:.0f} ms, {one.answer}"
        )


def _items(population: int | None) -> str:
    return "very many" if population is None else f"{population:,}"


if __name__ == "__main__":
    main()
