"""Measure the training reminders of a large company: due employees, and a mail to each of them.

``./parcelseal bench reminders [--employees N] [--mails N] [--rounds N]``. The benchmark starts an
embedded PostgreSQL and a mail server in separate processes. It exits with 1 if a target is missed.
Obligations are computed by ParcelSeal and by a handwritten query in turn, which must give the same
rows.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psycopg

from benchmarks import _reminders_data as data
from benchmarks._measure import (
    Part,
    Targets,
    console,
    machine,
    measure,
    parts_row,
    parts_table,
)
from include.local.postgres import EmbeddedPostgres
from include.service_container import ROOT
from include.state.connect import engine
from include.state.migrate import migrate

SLOWER = 2.0  # largest duration relative to the handwritten query
RATE = 200  # smallest number of mails per second
GROWTH = 16  # MiB; largest growth of memory with ten times as many mails
AGAIN = 0.1  # largest duration of the second run relative to the first
COMPANY, EMPTY = "company", "empty_state"
SETTINGS = {"max_wal_size": "8GB"}  # otherwise PostgreSQL makes two checkpoints a minute meanwhile


@dataclass(frozen=True)
class Day:
    """Two runs of `remind_training` on the same day, each with its two steps plan and send.

    Attributes:
        first: both steps of the first run.
        second: both steps of the second run.
        received: numbers that the mail server counted.
    """

    first: tuple[Part, Part]
    second: tuple[Part, Part]
    received: dict[str, int]

    @property
    def rate(self) -> float:
        """The number of mails per second in the first run."""
        return float(self.first[1].answer["sent"] / self.first[1].seconds)

    @property
    def again(self) -> float:
        """The duration of the second run as a fraction of the first run's duration."""
        return sum(part.seconds for part in self.second) / sum(part.seconds for part in self.first)


class RemindersBench:
    """A PostgreSQL server with the company and an empty state database; all are temporary."""

    def __init__(self, folder: Path, employees: int, mails: int) -> None:
        self.folder, self.employees, self.mails = folder, employees, mails
        self.states = 0
        self.server = EmbeddedPostgres(folder / "pg", SETTINGS)
        try:
            self._fill()
        except BaseException:
            self.server.stop()
            raise

    def _fill(self) -> None:
        self.server.start()
        self._create(COMPANY, "template1")
        self._create(EMPTY, "template1")
        migrate(engine(self.server.conninfo(EMPTY)))
        with self.company() as connection:
            data.make(connection, self.employees, self.mails)
            connection.execute("CHECKPOINT")
        os.sync()

    def _create(self, name: str, template: str) -> None:
        with psycopg.connect(self.server.conninfo("postgres"), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())

    def company(self) -> psycopg.Connection:
        """Return a new connection to the company's database."""
        return psycopg.connect(self.server.conninfo(COMPANY), autocommit=True)

    def part(self, name: str, state: str = EMPTY, run: str = "first", port: int = 0) -> Part:
        """Measure a part in a separate process."""
        file = self.folder / "asked.json"
        parameters = {
            "part": name,
            "company": self.server.conninfo(COMPANY),
            "run": run,
            "port": port,
        }
        file.write_text(json.dumps(parameters | {"state": self.server.conninfo(state)}))
        process = measure(
            [sys.executable, "-W", "ignore", "-m", "benchmarks._reminders_once", str(file)]
        )
        return Part(process, json.loads(file.read_text()))

    def day(self) -> Day:
        """Measure two runs of one day. The first run starts with an empty state database."""
        self.states += 1
        state = f"state_{self.states}"
        self._create(state, EMPTY)
        words = [sys.executable, "-m", "benchmarks._reminders_smtp"]
        pipe = subprocess.PIPE
        with subprocess.Popen(words, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as server:
            assert server.stdin is not None
            assert server.stdout is not None
            port = int(server.stdout.readline())
            runs = [
                (self.part("plan", state, run), self.part("send", state, run, port))
                for run in ("first", "second")
            ]
            server.stdin.close()
            received = json.loads(server.stdout.read())
        day = Day(runs[0], runs[1], received)
        _require_right(day)
        return day


def _require_right(day: Day) -> None:
    """Exit unless each due employee got exactly one mail.

    Otherwise the measurements would be meaningless.
    """
    first, second = day.first[1].answer, day.second[1].answer
    counts = {first["sent"], *(day.received[name] for name in ("mails", "recipients", "ids"))}
    if len(counts) > 1 or first["left"]:
        sys.exit(f"Not everybody got one mail: {first}, {day.received}.")
    if second["sent"] or second["left"]:
        sys.exit(f"The second run of the day told somebody: {second}.")


def main() -> None:
    """Measure obligations and sending, and print the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--employees", type=int, default=200_000)
    parser.add_argument("--mails", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if not 10 <= args.mails <= args.employees // 5:
        parser.error("at least 10 mails, and at most to every fifth employee")
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-bench-"))
    folder.chmod(0o755)
    targets = Targets()
    bench = None
    try:
        console.print(
            f"{machine()}; load {os.getloadavg()[0]:.1f}; {args.employees:,} employees, "
            f"{data.COURSES} courses, {args.mails:,} people due; {args.rounds} rounds"
        )
        bench = RemindersBench(folder, args.employees, args.mails)
        measure_obligations(bench, args.rounds, targets)
        measure_sending(bench, args.rounds, targets)
    finally:
        if bench is not None:
            bench.server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    console.print(f"Load at the end: {os.getloadavg()[0]:.1f}")
    sys.exit(1 if targets.missed else 0)


def measure_obligations(bench: RemindersBench, rounds: int, targets: Targets) -> None:
    """Measure ParcelSeal and the handwritten query in turn, without the first round."""
    parts_by_name: dict[str, list[Part]] = {"by_hand": [], "ours": []}
    for number in range(rounds + 1):
        for name in sorted(parts_by_name, reverse=number % 2 == 1):
            parts_by_name[name].append(bench.part(name))
    if len({part.answer["digest"] for parts in parts_by_name.values() for part in parts}) > 1:
        sys.exit("Obligations and the query by hand differ: one of them is wrong.")
    counted = {name: parts[1:] for name, parts in parts_by_name.items()}
    ratios = [
        ours.seconds / hand.seconds
        for ours, hand in zip(counted["ours"], counted["by_hand"], strict=True)
    ]
    table = parts_table("Who has to take which course by when")
    parts_row(table, "query by hand", counted["by_hand"], "1.00")
    parts_row(table, "ParcelSeal", counted["ours"], f"{median(ratios):.2f}")
    console.print(table)
    answer = counted["ours"][0].answer
    with bench.company() as connection:
        (history,) = connection.execute("SELECT count(*) FROM completions").fetchone() or (0,)
    console.print(
        f"The same rows: {answer['due']:,} on a rung, {answer['untrained']:,} untrained with "
        f"access; from {history:,} completions."
    )
    targets.most("obligations against the query by hand", median(ratios), SLOWER)


def measure_sending(bench: RemindersBench, rounds: int, targets: Targets) -> None:
    """Measure runs with a tenth of the mails, and then with all mails."""
    with bench.company() as connection:
        data.leave(connection, bench.employees, bench.mails, bench.mails // 10)
    few = bench.day()
    with bench.company() as connection:
        data.take_back(connection)
    days = [bench.day() for _round in range(rounds)]
    table = parts_table("Two runs of one day")
    count = days[0].first[1].answer["sent"]
    for position, name in enumerate(("plan", "send")):
        parts_row(
            table, f"first run, {name}, {count:,} mails", [day.first[position] for day in days]
        )
    for position, name in enumerate(("plan", "send")):
        ratio = f"{median(day.again for day in days):.2f}" if position else ""
        parts_row(table, f"second run, {name}", [day.second[position] for day in days], ratio)
    small = few.first[1].answer["sent"]
    for position, name in enumerate(("plan", "send")):
        parts_row(table, f"first run, {name}, {small:,} mails", [few.first[position]])
    console.print(table)
    size = days[0].received["bytes"] / count / 1024
    console.print(
        f"Each of {count:,} recipients got one mail of {size:.1f} KiB; the second run sent none."
    )
    targets.least("mails a second", median(day.rate for day in days), RATE)
    grown = max(day.first[1].run.peak for day in days) - few.first[1].run.peak
    targets.most(f"memory for {count:,} mails beyond {small:,}", grown / 2**20, GROWTH, " MiB")
    again = median(day.again for day in days)
    targets.most("second run of the day against the first", again, AGAIN)


if __name__ == "__main__":
    main()
