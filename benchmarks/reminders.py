"""Training reminders of a large company: who is due, and one mail to each of them.

``./parcelseal bench reminders [--employees N] [--mails N] [--rounds N]``: on one embedded
PostgreSQL and one mail server, each in a process of its own. Exits with 1 when a target is missed.
Obligations are worked out side by side with one query that somebody would write by hand; both have
to come to the same rows.
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
from include.state.connect import engine
from include.state.migrate import migrate
from include.workplace import ROOT

SLOWER = 2.0  # times the query by hand, at most
RATE = 200  # mails a second, at least
GROWTH = 16  # MiB that ten times as many mails may take
AGAIN = 0.1  # of the first run's time, at most
COMPANY, EMPTY = "company", "empty_state"
SETTINGS = {"max_wal_size": "8GB"}  # else the tables are made between two checkpoints a minute


@dataclass(frozen=True)
class Day:
    """A run of the day and a second one, each of plan and sending.

    Attributes:
        first: both parts of the first run.
        second: of the second one.
        received: what the mail server counted.
    """

    first: tuple[Part, Part]
    second: tuple[Part, Part]
    received: dict[str, int]

    @property
    def rate(self) -> float:
        """Mails a second."""
        return float(self.first[1].answer["sent"] / self.first[1].seconds)

    @property
    def again(self) -> float:
        """Time of the second run, as a share of the first one's."""
        return sum(one.seconds for one in self.second) / sum(one.seconds for one in self.first)


class RemindersBench:
    """A server with the company and an empty state database; all temporary."""

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
        """A connection to the company's database."""
        return psycopg.connect(self.server.conninfo(COMPANY), autocommit=True)

    def part(self, name: str, state: str = EMPTY, run: str = "first", port: int = 0) -> Part:
        """Do one part in a process of its own."""
        file = self.folder / "asked.json"
        given = {"part": name, "company": self.server.conninfo(COMPANY), "run": run, "port": port}
        file.write_text(json.dumps(given | {"state": self.server.conninfo(state)}))
        done = measure(
            [sys.executable, "-W", "ignore", "-m", "benchmarks._reminders_once", str(file)]
        )
        return Part(done, json.loads(file.read_text()))

    def day(self) -> Day:
        """Two runs of one day, the first on an empty state database."""
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
    """Stop where somebody was forgotten, or told twice: the figures would mean nothing."""
    first, second = day.first[1].answer, day.second[1].answer
    counts = {first["sent"], *(day.received[name] for name in ("mails", "recipients", "ids"))}
    if len(counts) > 1 or first["left"]:
        sys.exit(f"Not everybody got one mail: {first}, {day.received}.")
    if second["sent"] or second["left"]:
        sys.exit(f"The second run of the day told somebody: {second}.")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--employees", type=int, default=200_000)
    parser.add_argument("--mails", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if not 10 <= given.mails <= given.employees // 5:
        parser.error("at least 10 mails, and at most to every fifth employee")
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-bench-"))
    folder.chmod(0o755)
    targets = Targets()
    bench = None
    try:
        console.print(
            f"{machine()}; load {os.getloadavg()[0]:.1f}; {given.employees:,} employees, "
            f"{data.COURSES} courses, {given.mails:,} people due; {given.rounds} rounds"
        )
        bench = RemindersBench(folder, given.employees, given.mails)
        measure_obligations(bench, given.rounds, targets)
        measure_sending(bench, given.rounds, targets)
    finally:
        if bench is not None:
            bench.server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    console.print(f"Load at the end: {os.getloadavg()[0]:.1f}")
    sys.exit(1 if targets.missed else 0)


def measure_obligations(bench: RemindersBench, rounds: int, targets: Targets) -> None:
    """Work them out in turn with the query by hand; the first round warms up and is not counted."""
    found: dict[str, list[Part]] = {"by_hand": [], "ours": []}
    for number in range(rounds + 1):
        for name in sorted(found, reverse=number % 2 == 1):
            found[name].append(bench.part(name))
    if len({one.answer["digest"] for parts in found.values() for one in parts}) > 1:
        sys.exit("Obligations and the query by hand differ: one of them is wrong.")
    counted = {name: parts[1:] for name, parts in found.items()}
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
    """Runs with a tenth of the mails, then with all of them."""
    with bench.company() as connection:
        data.leave(connection, bench.employees, bench.mails, bench.mails // 10)
    few = bench.day()
    with bench.company() as connection:
        data.take_back(connection)
    days = [bench.day() for _round in range(rounds)]
    table = parts_table("Two runs of one day")
    count = days[0].first[1].answer["sent"]
    for place, name in enumerate(("plan", "send")):
        parts_row(table, f"first run, {name}, {count:,} mails", [one.first[place] for one in days])
    for place, name in enumerate(("plan", "send")):
        ratio = f"{median(one.again for one in days):.2f}" if place else ""
        parts_row(table, f"second run, {name}", [one.second[place] for one in days], ratio)
    small = few.first[1].answer["sent"]
    for place, name in enumerate(("plan", "send")):
        parts_row(table, f"first run, {name}, {small:,} mails", [few.first[place]])
    console.print(table)
    size = days[0].received["bytes"] / count / 1024
    console.print(
        f"Each of {count:,} recipients got one mail of {size:.1f} KiB; the second run sent none."
    )
    targets.least("mails a second", median(one.rate for one in days), RATE)
    grown = max(one.first[1].run.peak for one in days) - few.first[1].run.peak
    targets.most(f"memory for {count:,} mails beyond {small:,}", grown / 2**20, GROWTH, " MiB")
    again = median(one.again for one in days)
    targets.most("second run of the day against the first", again, AGAIN)


if __name__ == "__main__":
    main()
