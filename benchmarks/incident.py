"""Incident response: how soon somebody is asked for the grade, letters to people, and evidence.

``./parcelseal bench incident [--customers N] [--log N] [--mails N] [--rows N] [--rounds N]``: on an
embedded PostgreSQL of its own, each part in a process of its own. Exits with 1 when a target is
missed. What is affected is counted in turn with queries that somebody would write by hand; both
have to come to the same figures.
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
from include.state.connect import engine
from include.state.migrate import migrate
from include.workplace import ROOT

RATE = 500  # letters a second, rendered and queued, at least
GROWTH = 8  # MiB that ten times as many letters may take
COURIER, LOG, EMPTY = "courier", "log", "empty_state"
# Else the tables are made between two checkpoints a minute.
SETTINGS = {"max_wal_size": "8GB", "wal_level": "minimal", "max_wal_senders": "0"}


class IncidentBench:
    """A server with the courier and an empty state database; all temporary."""

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
        """Create a database; its connection string."""
        with psycopg.connect(self.server.conninfo("postgres"), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return self.server.conninfo(name)

    def state(self, copied: str = "") -> str:
        """Create a state database; its connection string.

        Args:
            copied: connection string of the one that it is a copy of; else nothing happened yet.
        """
        self.states += 1
        template = conninfo_to_dict(copied)["dbname"] if copied else EMPTY
        return self.create(f"state_{self.states}", str(template))

    def part(self, name: str, state: str = "", **asked: Any) -> Part:
        """Do one part in a process of its own."""
        file = self.folder / "asked.json"
        given = {"part": name, "courier": self.server.conninfo(COURIER), "state": state}
        file.write_text(json.dumps({"run": "bench", **given, **asked}))
        done = measure(
            [sys.executable, "-W", "ignore", "-m", "benchmarks._incident_once", str(file)]
        )
        return Part(done, json.loads(file.read_text()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--customers", type=int, default=5_000_000)
    parser.add_argument("--log", type=int, default=20_000_000)
    parser.add_argument("--mails", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if not 100 <= given.mails <= given.customers // 2:
        parser.error("at least 100 mails, and at most to every second customer")
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-bench-"))
    folder.chmod(0o755)
    targets = Targets()
    bench = None
    try:
        console.print(
            f"{machine()}; load {os.getloadavg()[0]:.1f}; {given.customers:,} customers, "
            f"{given.log:,} log rows; {given.rounds} rounds"
        )
        bench = IncidentBench(folder, given.customers, given.log)
        measure_scope(bench, given.rounds)
        measure_letters(bench, given.mails, targets)
        extracts = ExtractBench(bench.create(LOG), folder)
        with psycopg.connect(extracts.conninfo, autocommit=True) as connection:
            make_log(connection, given.rows)
        extracts.prepare()
        measure_extract(extracts, given.rounds, targets)
    finally:
        if bench is not None:
            bench.server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    console.print(f"Load at the end: {os.getloadavg()[0]:.1f}")
    sys.exit(1 if targets.missed else 0)


def measure_scope(bench: IncidentBench, rounds: int) -> None:
    """From the trigger to the question for the grade, in turn with the queries by hand.

    Stops where both differ in any figure. Before the first round every table was read once.
    """
    state = bench.state()
    for part in ("by_hand", "ours"):
        bench.part(part, state, case="everything", run="warm")
    table = parts_table("From trigger to the question for the grade")
    for name, case in CASES.items():
        found: dict[str, list[Part]] = {"by_hand": [], "ours": []}
        for number in range(rounds):
            for part in sorted(found, reverse=number % 2 == 1):
                found[part].append(bench.part(part, state, case=name, run=f"{name}-{number}"))
        figures = _same([one.answer["figures"] for parts in found.values() for one in parts])
        ratios = [
            ours.seconds / hand.seconds
            for ours, hand in zip(found["ours"], found["by_hand"], strict=True)
        ]
        parts_row(table, f"{case.name}: by hand", found["by_hand"], "1.00")
        parts_row(
            table,
            f"  ParcelSeal, {figures['subjects']:,} people",
            found["ours"],
            f"{median(ratios):.2f}",
        )
    console.print(table)
    steps = [one.answer["steps"] for one in found["ours"]]
    told = (f"{name} {median(one[name] for one in steps):.2f} s" for name in steps[0])
    console.print(f"Of the last: {', '.join(told)}. All figures are those of the queries by hand.")


def _same(figures: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Stop where figures differ: the times would mean nothing."""
    for one in figures:
        if one != figures[0]:
            sys.exit(f"Figures differ, one of them is wrong: {figures[0]}, {one}.")
    return figures[0]


def measure_letters(bench: IncidentBench, mails: int, targets: Targets) -> None:
    """Queue and render a tenth of the letters, sending these too, then all of them."""
    few, many = _letters(bench, mails // 10, send=True), _letters(bench, mails)
    sending = few.pop("send")
    table = parts_table("Letters to affected people")
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
    targets.least("letters a second, queued and rendered", rate, RATE)
    for name in many:
        grown = (many[name].run.peak - few[name].run.peak) / 2**20
        targets.most(f"memory to {name} {mails:,} beyond {mails // 10:,}", grown, GROWTH, " MiB")


def _letters(bench: IncidentBench, count: int, *, send: bool = False) -> dict[str, Part]:
    """Queue and render so many, and send them too; stop where not everybody gets one mail."""
    state = bench.state()
    number = bench.part("prepare", state, letters=count).answer["number"]
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
    """Stop where somebody was forgotten or told twice; calls to the team are mails too."""
    calls = delivered["mails"] - count
    if queued != count or delivered["left"] or delivered["sent"] != count + calls or calls < 0:
        sys.exit(f"Not everybody got one letter: {queued} queued, {delivered}.")


if __name__ == "__main__":
    main()
