"""Measure incident response: time until the grade is requested, notices and evidence extract.

``./parcelseal bench incident [--customers N] [--log N] [--mails N] [--rows N] [--rounds N]``. The
benchmark uses its own embedded PostgreSQL, and a separate process for each part. It exits with 1 if
a target is missed. The scope is counted by ParcelSeal and by handwritten queries in turn, which
must give the same figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from benchmarks import _incident_data as data
from benchmarks._incident_extract import ExtractBench, make_log, measure_extract
from benchmarks._incident_hand import CASES
from benchmarks._measure import (
    Part,
    Targets,
    console,
    machine,
    measure,
    parts_row,
    parts_table,
)
from benchmarks._quality_bench import shared_buffers
from include.local.postgres import EmbeddedPostgres
from include.service_container import ROOT
from include.state.connect import engine
from include.state.migrate import migrate

RATE = 500  # smallest number of notices queued and rendered per second
GROWTH = 8  # MiB; largest growth of memory with ten times as many notices
COURIER, LOG, EMPTY = "courier", "log", "empty_state"
# Otherwise PostgreSQL would make two checkpoints a minute while the tables are filled.
SETTINGS = {"max_wal_size": "8GB", "wal_level": "minimal", "max_wal_senders": "0"}


class IncidentBench:
    """A temporary PostgreSQL server with a courier database and an empty state database."""

    def __init__(self, folder: Path, customers: int, log: int) -> None:
        self.folder, self.states = folder, 0
        settings = SETTINGS | {"shared_buffers": shared_buffers()}
        self.server = EmbeddedPostgres(folder / "pg", settings)
        try:
            self.server.start()
            for name in (COURIER, EMPTY):
                self.create(name)
            migrate(engine(self.server.conninfo(EMPTY)))
            data.make(self.server.conninfo(COURIER), customers, log)
        except BaseException:
            self.server.stop()
            raise

    def create(self, name: str, template: str = "template1") -> str:
        """Create a database, and return its connection string."""
        with psycopg.connect(self.server.conninfo("postgres"), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return self.server.conninfo(name)

    def state(self, copied: str = "") -> str:
        """Create a state database, and return its connection string.

        Args:
            copied: connection string of the state database to copy; by default an empty one is
                copied.
        """
        self.states += 1
        template = conninfo_to_dict(copied)["dbname"] if copied else EMPTY
        return self.create(f"state_{self.states}", str(template))

    def part(self, name: str, state: str = "", **options: Any) -> Part:
        """Measure a part in a separate process."""
        file = self.folder / "asked.json"
        parameters = {"part": name, "courier": self.server.conninfo(COURIER), "state": state}
        file.write_text(json.dumps({"run": "bench", **parameters, **options}))
        process = measure(
            [sys.executable, "-W", "ignore", "-m", "benchmarks._incident_once", str(file)]
        )
        return Part(process, json.loads(file.read_text()))


def main() -> None:
    """Measure all parts, and print the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--customers", type=int, default=5_000_000)
    parser.add_argument("--log", type=int, default=20_000_000)
    parser.add_argument("--mails", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if not 100 <= args.mails <= args.customers // 2:
        parser.error("at least 100 mails, and at most to every second customer")
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-bench-"))
    folder.chmod(0o755)
    targets = Targets()
    bench = None
    try:
        console.print(
            f"{machine()}; load {os.getloadavg()[0]:.1f}; {args.customers:,} customers, "
            f"{args.log:,} log rows; {args.rounds} rounds"
        )
        bench = IncidentBench(folder, args.customers, args.log)
        measure_scope(bench, args.rounds)
        measure_notices(bench, args.mails, targets)
        extracts = ExtractBench(bench.create(LOG), folder)
        with psycopg.connect(extracts.conninfo, autocommit=True) as connection:
            make_log(connection, args.rows)
        extracts.prepare()
        measure_extract(extracts, args.rounds, targets)
    finally:
        if bench is not None:
            bench.server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    console.print(f"Load at the end: {os.getloadavg()[0]:.1f}")
    sys.exit(1 if targets.missed else 0)


def measure_scope(bench: IncidentBench, rounds: int) -> None:
    """Measure the time until the grade is requested, in turn with the handwritten queries.

    Exit if any figure differs. Every table is read once before the first round.
    """
    state = bench.state()
    for part in ("by_hand", "ours"):
        bench.part(part, state, case="everything", run="warm")
    table = parts_table("From trigger to the request for the grade")
    for name, case in CASES.items():
        measured_parts: dict[str, list[Part]] = {"by_hand": [], "ours": []}
        for number in range(rounds):
            for part in sorted(measured_parts, reverse=number % 2 == 1):
                measured_parts[part].append(
                    bench.part(part, state, case=name, run=f"{name}-{number}")
                )
        figures = _same(
            [part.answer["figures"] for parts in measured_parts.values() for part in parts]
        )
        ratios = [
            ours.seconds / hand.seconds
            for ours, hand in zip(measured_parts["ours"], measured_parts["by_hand"], strict=True)
        ]
        parts_row(table, f"{case.name}: by hand", measured_parts["by_hand"], "1.00")
        parts_row(
            table,
            f"  ParcelSeal, {figures['subjects']:,} people",
            measured_parts["ours"],
            f"{median(ratios):.2f}",
        )
    console.print(table)
    steps = [our.answer["steps"] for our in measured_parts["ours"]]
    medians = (f"{name} {median(step[name] for step in steps):.2f} s" for name in steps[0])
    console.print(
        f"Of the last: {', '.join(medians)}. All figures are those of the queries by hand."
    )


def _same(figures: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the figures if all are equal. Otherwise exit, because the times are meaningless."""
    for figure in figures:
        if figure != figures[0]:
            sys.exit(f"Figures differ, one of them is wrong: {figures[0]}, {figure}.")
    return figures[0]


def measure_notices(bench: IncidentBench, mails: int, targets: Targets) -> None:
    """Measure the queueing and rendering of a tenth of the notices, and then of all of them.

    The tenth is also sent to a mail server.
    """
    few, many = _notices(bench, mails // 10, send=True), _notices(bench, mails)
    sending = few.pop("send")
    table = parts_table("Notices to affected people")
    for count, parts in ((mails, many), (mails // 10, few)):
        for name, part in parts.items():
            parts_row(table, f"{name} {count:,}", [part])
    parts_row(table, f"send {mails // 10:,} to a server", [sending])
    console.print(table)
    size = many["render"].answer["bytes"] / many["render"].answer["mails"] / 1024
    console.print(
        f"Each of {mails:,} people got one mail of {size:.1f} KiB rendered; sending a tenth of "
        f"them came to {mails // 10 / sending.seconds:.0f} a second."
    )
    rate = mails / sum(part.seconds for part in many.values())
    targets.least("notices a second, queued and rendered", rate, RATE)
    for name in many:
        grown = (many[name].run.peak - few[name].run.peak) / 2**20
        targets.most(f"memory to {name} {mails:,} beyond {mails // 10:,}", grown, GROWTH, " MiB")


def _notices(bench: IncidentBench, count: int, *, send: bool = False) -> dict[str, Part]:
    """Measure the queueing and rendering of a number of notices.

    Exit unless every customer gets exactly one mail.

    Args:
        bench: the benchmark's server.
        count: number of notices.
        send: whether the notices are also sent to a mail server.
    """
    state = bench.state()
    number = bench.part("prepare", state, notices=count).answer["number"]
    parts = {"queue": bench.part("queue", state, number=number)}
    queued = parts["queue"].answer["new"]
    if send:
        parts["send"] = _sent(bench, bench.state(copied=state), number, count)
    parts["render"] = bench.part("render", state, number=number, port=25)
    _require_all(queued, parts["render"].answer, count)
    return parts


def _sent(bench: IncidentBench, state: str, number: str, count: int) -> Part:
    words, pipe = [sys.executable, "-m", "benchmarks._reminders_smtp"], subprocess.PIPE
    with subprocess.Popen(words, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        part = bench.part("send", state, number=number, port=int(server.stdout.readline()))
        server.stdin.close()
        received = json.loads(server.stdout.read())
    _require_all(count, part.answer | {"mails": received["ids"]}, count)
    return part


def _require_all(queued: int, delivered: Mapping[str, Any], count: int) -> None:
    """Exit unless each customer got exactly one mail.

    Mails that call the incident team are also among the delivered mails.
    """
    calls = delivered["mails"] - count
    if queued != count or delivered["left"] or delivered["sent"] != count + calls or calls < 0:
        sys.exit(f"Not everybody got one notice: {queued} queued, {delivered}.")


if __name__ == "__main__":
    main()
