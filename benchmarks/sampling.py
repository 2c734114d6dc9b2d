"""Compare freezing and drawing from a population with a plain sorted export.

``./parcelseal bench sampling [--rows N] [--rounds N]`` uses one embedded PostgreSQL and exits with
1 if a target is missed. A person without ParcelSeal would make the export: psql writes the keys in
order and sha256sum hashes them. Both must give the same digest.
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
SLOWER = 2.0  # largest duration relative to the plain export
MEMORY = 250  # MiB
DRAWING = 1000  # milliseconds
ANSWER = 50  # milliseconds, for a size or a limit at the usual rates
SETTINGS = {"max_wal_size": "8GB"}  # otherwise loading the tables causes frequent checkpoints
TITLES = {data.NUMBERS: "numbers", data.TEXTS: f"texts, {data.STRATA} strata"}


@dataclass(frozen=True)
class Pair:
    """One round of the export and of ParcelSeal.

    Attributes:
        plain: measurements of the export's process.
        ours: measurements of ParcelSeal's whole process.
        answer: seconds of the steps, as ParcelSeal's process reported them.
    """

    plain: Run
    ours: Run
    answer: dict[str, Any]

    @property
    def ratio(self) -> float:
        """ParcelSeal's seconds divided by the export's, without ParcelSeal's imports."""
        return float(self.answer["all"] / self.plain.seconds)


class SamplingBench:
    """A PostgreSQL server with both tables, and an evidence store; all are temporary."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.store.mkdir()
        self.server = EmbeddedPostgres(folder / "pg", SETTINGS)
        try:
            self._create_tables(rows)
        except BaseException:
            self.server.stop()
            raise

    def _create_tables(self, rows: int) -> None:
        self.server.start()
        with psycopg.connect(self.server.conninfo("postgres"), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {data.DATABASE}".encode())
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            data.create_tables(connection, rows)
            connection.execute("CHECKPOINT")
        os.sync()

    @property
    def conninfo(self) -> str:
        """The connection string of the benchmark's database."""
        return self.server.conninfo(data.DATABASE)

    def plain(self, name: str) -> tuple[Run, str]:
        """Measure a pipeline that exports and hashes the sorted keys, and return the digest."""
        file = self.folder / "plain"
        command = [program("psql"), "-qX", "-c", data.plain_export(name), self.conninfo]
        run = measure(shell(f"{shlex.join(command)} | sha256sum > {shlex.quote(str(file))}"))
        return run, file.read_text().split()[0]

    def ours(self, name: str) -> tuple[Run, dict[str, Any]]:
        """Measure freezing, hashing and drawing by ParcelSeal in a separate process."""
        file = self.folder / "parameters.json"
        parameters = {
            "name": name,
            "store": str(self.store),
            "database": self.conninfo,
            "items": ITEMS,
        }
        file.write_text(json.dumps(parameters))
        run = measure(
            [sys.executable, "-W", "ignore", "-m", "benchmarks._sampling_once", str(file)]
        )
        return run, json.loads(file.read_text())

    def pair(self, name: str, rows: int, *, first: bool) -> Pair:
        """Measure the export and ParcelSeal once each, with ParcelSeal first or last."""
        if first:
            ours, answer = self.ours(name)
            plain, digest = self.plain(name)
        else:
            plain, digest = self.plain(name)
            ours, answer = self.ours(name)
        if (digest, rows) != (answer["sha256"], answer["items"]):
            sys.exit("The export and the frame differ, so they did different work.")
        return Pair(plain, ours, answer)


def main() -> None:
    """Measure frames, draws and calculations, and print the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-bench-"))
    folder.chmod(0o755)
    targets = Targets()
    bench = None
    try:
        console.print(
            f"{machine()}; load {os.getloadavg()[0]:.1f}; {args.rows:,} items; "
            f"{args.rounds} rounds after a warm-up"
        )
        bench = SamplingBench(folder, args.rows)
        measure_frames(bench, args.rows, args.rounds, targets)
    finally:
        if bench is not None:
            bench.server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    measure_answers(args.rows, targets)
    console.print(f"Load at the end: {os.getloadavg()[0]:.1f}")
    sys.exit(1 if targets.missed else 0)


def measure_frames(bench: SamplingBench, rows: int, rounds: int, targets: Targets) -> None:
    """Measure freezing, drawing and export in turn, without the first round."""
    pairs: dict[str, list[Pair]] = {name: [] for name in TITLES}
    for number in range(rounds + 1):
        for name, rounds_of_name in pairs.items():
            rounds_of_name.append(bench.pair(name, rows, first=number % 2 == 1))
    counted = {name: measured[1:] for name, measured in pairs.items()}
    show(counted)
    for name, measured in counted.items():
        ratio = median(pair.ratio for pair in measured)
        targets.most(f"freeze, hash and draw against the export, {TITLES[name]}", ratio, SLOWER)
    peak = max(pair.ours.peak for measured in counted.values() for pair in measured)
    targets.most("peak memory", peak / 2**20, MEMORY, " MiB")


def show(pairs: dict[str, list[Pair]]) -> None:
    """Print a table of the measured rounds."""
    table = Table(title=f"Drawing {ITEMS} items", title_justify="left", box=None)
    for name in ("what", "s", "min", "max", "ratio", "whole", "CPU", "MiB"):
        table.add_column(name, no_wrap=True)
    for name, measured in pairs.items():
        plain = [pair.plain for pair in measured]
        _row(table, f"export, {TITLES[name]}", [run.seconds for run in plain], 1, plain)
        work = [pair.answer["all"] for pair in measured]
        ratio = median(pair.ratio for pair in measured)
        _row(table, f"ParcelSeal, {TITLES[name]}", work, ratio, [pair.ours for pair in measured])
        for step in ("freeze", "hash", "draw"):
            seconds = [pair.answer[step] for pair in measured]
            table.add_row(f"  {step}", *(f"{of(seconds):.2f}" for of in (median, min, max)))
    console.print(table)


def _row(table: Table, name: str, seconds: list[float], ratio: float, runs: list[Run]) -> None:
    table.add_row(
        name,
        *(f"{of(seconds):.2f}" for of in (median, min, max)),
        f"{ratio:.2f}",
        f"{median(run.seconds for run in runs):.2f}",
        f"{median(run.cpu for run in runs):.2f}",
        f"{max(run.peak for run in runs) / 2**20:.0f}",
    )


def measure_answers(rows: int, targets: Targets) -> None:
    """Measure a draw by the random seed alone, and the calculation of sizes and upper limits."""
    draw = exact.drawing(ITEMS, rows)
    targets.most(f"{draw.question} by the seed alone", draw.seconds * 1000, DRAWING, " ms")
    timings = list(exact.usual())
    table = Table(title="Sizes and limits", title_justify="left", box=None)
    for name in ("items", "answers", "median ms", "slowest ms", "slowest one"):
        table.add_column(name, no_wrap=True)
    for population in data.POPULATIONS:
        selected = [timing for timing in timings if timing.population == population]
        slowest = max(selected, key=lambda timing: timing.seconds)
        table.add_row(
            _items(population),
            str(len(selected)),
            f"{median(timing.seconds for timing in selected) * 1000:.2f}",
            f"{slowest.seconds * 1000:.2f}",
            f"{slowest.question}: {slowest.answer}",
        )
    console.print(table)
    slowest = max(timings, key=lambda timing: timing.seconds)
    targets.most("slowest size or limit at usual rates", slowest.seconds * 1000, ANSWER, " ms")
    for extreme in exact.extremes():
        console.print(
            f"Not usual: {extreme.question}, {_items(extreme.population)} items: "
            f"{extreme.seconds * 1000:.0f} ms, {extreme.answer}"
        )


def _items(population: int | None) -> str:
    return "very many" if population is None else f"{population:,}"


if __name__ == "__main__":
    main()
