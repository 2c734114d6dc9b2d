"""Compare encrypted extracts with the same query, copied and encrypted by hand.

``./parcelseal bench disclosure [--rows N] [--rounds N]``. The benchmark uses its own embedded
PostgreSQL, and a separate process for each extract. It exits with 1 if a target is missed. The
times do not include the start of Python, because Airflow forks tasks from a process that has
already imported the modules. The column "whole" includes it.

The last part ends accesses in one run of `expire_grants`, one for every 2,000 rows, while another
session approves and opens extracts. It is measured once, whatever ``--rounds`` is.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import _disclosure_data as data
from benchmarks._disclosure_expiry import PEOPLE, ConcurrentSession, ExpiryCompany
from benchmarks._measure import (
    Part,
    Targets,
    console,
    machine,
    measure,
    parts_row,
    parts_table,
    require,
    shell,
)
from benchmarks._quality_bench import shared_buffers
from include.disclosure.extracts.extract import MAX_XLSX_ROWS
from include.local.postgres import EmbeddedPostgres
from include.services.database import DatabaseAddress
from include.services.programs import program

SLOWER = 1.5  # largest duration relative to COPY | age
SLOWER_XLSX = 1.3  # largest duration relative to openpyxl and msoffcrypto
MEMORY = 300  # MiB
PASSWORD = "K7QF-2MWX-9RTA-HC4D-VE8P-3NZG"  # noqa: S105 - of the benchmark's own files
HAND, PLAIN = "COPY | age", "openpyxl, msoffcrypto"
EXPIRY = 10.0  # minutes for one run of `expire_grants`
BLOCKED = 1.0  # longest transaction in seconds of a session that works meanwhile
ROWS_PER_ACCESS = 2_000  # so that 10,000,000 rows mean 5,000 expired accesses
_SORTED = "LC_ALL=C sort | sha256sum"
SETTINGS = {"max_wal_size": "8GB", "wal_level": "minimal", "max_wal_senders": "0"}


class DisclosureBench:
    """A temporary PostgreSQL server with shipments and consents, and an age key.

    Args:
        folder: temporary folder for the server, the key and files.
        rows: number of shipments. A tenth of them is extracted.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.rows = folder, rows // 10
        self.identity = folder / "identity"
        subprocess.run(["age-keygen", "-o", self.identity], check=True, capture_output=True)
        done = subprocess.run(
            ["age-keygen", "-y", self.identity], check=True, capture_output=True, text=True
        )
        self.recipient = done.stdout.strip()
        settings = SETTINGS | {"shared_buffers": shared_buffers()}
        self.server = EmbeddedPostgres(folder / "pg", settings)
        try:
            self.server.start()
            self.conninfo = self.server.conninfo("postgres")
            with psycopg.connect(self.conninfo, autocommit=True) as connection:
                data.make(connection, rows)
        except BaseException:
            self.server.stop()
            raise

    def part(self, part: str, form: str, most_rows: int | None = None, out: str = "") -> Part:
        """Measure an extract in a separate process.

        Args:
            part: ``ours`` or ``plain_workbook``.
            form: form of the extract.
            most_rows: number of rows to select; None for all.
            out: file to write; by default the bytes are discarded.
        """
        file = self.folder / "parameters.json"
        parameters: dict[str, Any] = {
            "part": part,
            "form": form,
            "conninfo": self.conninfo,
            "secret": self.recipient if form == "age" else PASSWORD,
            "most_rows": most_rows,
            "rows": self.rows,
            "out": out or os.devnull,
        }
        file.write_text(json.dumps(parameters))
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks._disclosure_once", str(file)]
        measured = Part(measure(command), json.loads(file.read_text()))
        if measured.answer["rows"] != (most_rows or self.rows):
            sys.exit(f"Rows are missing: {measured.answer}")
        return measured

    def by_hand(self, end: str = "") -> tuple[list[str], str]:
        """Return the handwritten pipeline as a shell command, and the password that it needs.

        Args:
            end: shell commands after the COPY; by default the encryption with age.
        """
        address = DatabaseAddress.from_conninfo(self.conninfo)
        copy = f"SET timezone = 'UTC'; COPY ({data.query()}) TO STDOUT CSV HEADER"
        psql = [program("psql"), "-q", "-X", "-d", address.public_conninfo(), "-c", copy]
        end = end or f"age -r {self.recipient}"
        return shell(f"{shlex.join(psql)} | {end}"), address.password


def main() -> None:
    """Measure extracts of all forms, and print the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    require("age", "age-keygen", "7z")
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-bench-"))
    folder.chmod(0o755)
    targets = Targets()
    bench = None
    try:
        bench = DisclosureBench(folder, args.rows)
        console.print(
            f"{machine()}; load {os.getloadavg()[0]:.1f}; {bench.rows:,} of {args.rows:,} rows; "
            f"{args.rounds} rounds"
        )
        require_same_rows(bench)
        measure_csv(bench, args.rounds, targets)
        measure_workbook(bench, args.rounds, targets)
        measure_expiry(bench, max(1, args.rows // ROWS_PER_ACCESS), targets)
    finally:
        if bench is not None:
            bench.server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    console.print(f"Load at the end: {os.getloadavg()[0]:.1f}")
    sys.exit(1 if targets.missed else 0)


def require_same_rows(bench: DisclosureBench) -> None:
    """Exit unless age and 7-Zip open the extracts, and their rows are those of the COPY."""
    file = bench.folder / "extract"
    command, password = bench.by_hand(_SORTED)
    expected = _output(command, {"PGPASSWORD": password})
    bench.part("ours", "age", out=str(file))
    opened = {"age": f"age -d -i {bench.identity} {file} | {_SORTED}"}
    digests = [_output(shell(opened["age"]))]
    bench.part("ours", "zip", out=str(file))
    # Without the byte order mark and the carriage returns, which only the ZIP file has
    unzip = f"7z x -so -p{PASSWORD} {file} extract-1.csv | sed '1s/^\\xef\\xbb\\xbf//; s/\\r$//'"
    digests.append(_output(shell(f"{unzip} | {_SORTED}")))
    file.unlink()
    if digests != [expected, expected]:
        sys.exit("The opened extracts differ from the rows of the COPY.")


def _output(command: list[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, env={**os.environ, **(environment or {})}, check=True, capture_output=True
    )
    return done.stdout.decode()


def measure_csv(bench: DisclosureBench, rounds: int, targets: Targets) -> None:
    """Measure ZIP and age files, and the handwritten pipeline, in turn."""
    command, password = bench.by_hand()
    parts: dict[str, list[Part]] = {HAND: [], "ZIP": [], "age": []}
    for number in range(rounds + 1):  # the first round fills caches and is not counted
        run = measure(command, {"PGPASSWORD": password})
        measured = {HAND: Part(run, {"seconds": run.seconds})}
        for name in ("ZIP", "age"):
            measured[name] = bench.part("ours", name.lower())
        if number:
            for name, part in measured.items():
                parts[name].append(part)
    _show(f"Extract of {bench.rows:,} rows", parts, HAND)
    for name in ("ZIP", "age"):
        targets.most(f"{name} against {HAND}", _ratio(parts[name], parts[HAND]), SLOWER)
        peak = max(part.run.peak for part in parts[name])
        targets.most(f"memory of {name}", peak / 2**20, MEMORY, " MiB")


def measure_workbook(bench: DisclosureBench, rounds: int, targets: Targets) -> None:
    """Measure a workbook, and the same rows with openpyxl and msoffcrypto alone, in turn."""
    rows = min(MAX_XLSX_ROWS, bench.rows)
    parts: dict[str, list[Part]] = {PLAIN: [], "XLSX": []}
    for _round in range(rounds):
        parts[PLAIN].append(bench.part("plain_workbook", "xlsx", rows))
        parts["XLSX"].append(bench.part("ours", "xlsx", rows))
    _show(f"Workbook with {rows:,} rows", parts, PLAIN)
    targets.most(f"XLSX against {PLAIN}", _ratio(parts["XLSX"], parts[PLAIN]), SLOWER_XLSX)
    peak = max(part.run.peak for part in parts["XLSX"])
    targets.most("memory of XLSX", peak / 2**20, MEMORY, " MiB")


def measure_expiry(bench: DisclosureBench, count: int, targets: Targets) -> None:
    """Measure a run of `expire_grants` and the concurrent session that it may block.

    Args:
        bench: the server and its folder.
        count: number of accesses that end.
        targets: targets of the benchmark.
    """
    company = ExpiryCompany(bench.server, bench.folder, count)
    try:
        file = bench.folder / "parameters.json"
        file.write_text(json.dumps({"part": "expire"} | company.parameters))
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks._disclosure_once", str(file)]
        with ConcurrentSession(company) as latencies:
            part = Part(measure(command), json.loads(file.read_text()))
    finally:
        company.close()
    answer = part.answer
    if (answer["ended"], answer["rows"], answer["outcomes"]) != (count, count, ["pass", "pass"]):
        sys.exit(f"Not every access ended with a proof: {answer}")
    table = parts_table(f"End of {count:,} accesses with {count * PEOPLE:,} people")
    parts_row(table, "end, delete and prove", [part])
    console.print(table)
    console.print(f"End and delete: {answer['expire']:.1f} s; prove: {answer['prove']:.1f} s")
    longest = sorted(latencies.longest.items(), key=lambda entry: -entry[1])
    text = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in longest)
    console.print(f"Longest of {latencies.count:,} concurrent transactions: {text}")
    targets.most(f"end of {count:,} accesses", part.seconds / 60, EXPIRY, " min")
    blocked = max(latencies.longest.values(), default=0)
    targets.most("longest concurrent transaction", blocked, BLOCKED, " s")


def _show(title: str, parts: dict[str, list[Part]], base: str) -> None:
    table = parts_table(title)
    for name, measured in parts.items():
        parts_row(table, name, measured, f"{_ratio(measured, parts[base]):.2f}")
    console.print(table)
    sizes = {name: measured[0].answer.get("size") for name, measured in parts.items()}
    text = (f"{name} {size / 2**20:.1f} MiB" for name, size in sizes.items() if size)
    console.print(f"Size of the files: {', '.join(text)}")


def _ratio(parts: Sequence[Part], base: Sequence[Part]) -> float:
    """Return the median ratio of the durations, computed within each round."""
    pairs = zip(parts, base, strict=True)
    return statistics.median(part.seconds / other.seconds for part, other in pairs)


if __name__ == "__main__":
    main()
