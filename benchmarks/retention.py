"""Deleting expired records side by side with one SQL statement, while an application goes on.

``./parcelseal bench retention [--rows N] [--rounds N]``: on one embedded PostgreSQL as the local
profile has it, but for `SETTINGS`. Exits with 1 when a target is missed. ``--rounds`` is for the
plans; every deletion needs a fresh copy of the database and is done once.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from rich.table import Table

from benchmarks import _retention_data as data
from benchmarks._measure import Targets, console, machine
from benchmarks._retention_bench import PARCELS, PER_SECOND, Erased, Latencies, RetentionBench

MEMORY_GROWTH = 1.1  # times; of a tenth of the rows
# With the local profile's 2 GB, ten million rows make PostgreSQL take a checkpoint every 20
# seconds, and log that this is too often.
SETTINGS = {"max_wal_size": "8GB"}


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
        bench = RetentionBench(folder, SETTINGS)
        console.print(
            f"{machine()}; {given.rows:,} parcels, 30% expired; {PER_SECOND} statements a second "
            "beside"
        )
        measure_planning(bench, given.rows, given.rounds)
        measure_deletion(bench, given.rows, targets)
        measure_partitions(bench, given.rows, targets)
    finally:
        if bench is not None:
            bench.server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if targets.missed else 0)


def measure_planning(bench: RetentionBench, rows: int, rounds: int) -> None:
    """Plan, and count by the same conditions; both must give the same numbers."""
    bench.fill("large", data.make_parcels, rows, bench.cutoff)
    bench.state(data.HELD)
    conditions = bench.conditions()
    counts = [f"SELECT count(*) FROM {one} AS t WHERE {conditions[one]}" for one in PARCELS]  # noqa: S608 - constants
    _process, found = bench.once(
        "plan", "large", collections=list(PARCELS), rounds=rounds, counts=counts
    )
    console.print(f"Plan {found['ours']:.2f} s, plain counts {found['plain']:.2f} s")


def measure_deletion(bench: RetentionBench, rows: int, targets: Targets) -> None:
    """Delete once in one transaction, and once by ours."""
    bench.fill("small", data.make_parcels, rows // 10, bench.cutoff)
    small = bench.ours("small", rows // 10)
    bench.drop("small")
    one = bench.one_statement("large", rows)
    entered = bench.ledger("one")
    bench.drop("one")
    ours = bench.ours("large", rows)
    if bench.ledger("state") != entered:
        sys.exit("The ledgers differ: not the same records went.")
    bench.drop("large")
    bench.drop("ours")
    table = Table(title="Deleting expired parcels", title_justify="left", box=None)
    for name in ("what", "records", "s", "records/s", "p99 ms alone", "p99 ms beside"):
        table.add_column(name, no_wrap=True)
    _row(table, "one transaction", one)
    _row(table, "ParcelSeal", ours)
    _row(table, "ParcelSeal, a tenth", small)
    console.print(table)
    longest = ours.answer["longest_transaction_ms"]
    alone = Latencies(one.idle.took + ours.idle.took)
    targets.least("records a second against one transaction", ours.speed / one.speed, 0.5)
    targets.most("p99 of updates beside against alone", ours.beside.p99 / alone.p99, 3)
    targets.most("longest transaction", longest / 1000, 1, " s")
    _memory(small, ours, targets)


def measure_partitions(bench: RetentionBench, rows: int, targets: Targets) -> None:
    """Drop the partitions of 30 of 36 months while others read."""
    bench.fill("months", data.make_events, rows, bench.as_of)
    ours = bench.ours("months", rows, "reads", held=())
    dropped = sum(ours.answer["partitions"].values())
    if dropped != data.MONTHS - data.LIVE:
        sys.exit(f"Not all partitions went as a whole: {ours.answer}")
    console.print(
        f"{dropped} partitions with {ours.records:,} records in {ours.seconds:.1f} s "
        f"({ours.speed:,.0f} a second); readers wait {ours.beside.longest * 1000:.0f} ms at "
        f"most, alone {ours.idle.longest * 1000:.0f} ms"
    )
    longest = ours.answer["longest_transaction_ms"]
    targets.most("longest drop", longest / 1000, 1, " s")
    targets.most("longest wait of a reader", ours.beside.longest, 1, " s")


def _memory(small: Erased, large: Erased, targets: Targets) -> None:
    assert small.process is not None
    assert large.process is not None
    console.print(f"Peak memory of our process: {large.process.peak / 2**20:.0f} MiB")
    growth = large.process.peak / small.process.peak
    targets.most("peak memory against that of a tenth of the rows", growth, MEMORY_GROWTH)


def _row(table: Table, name: str, found: Erased) -> None:
    table.add_row(
        name,
        f"{found.records:,}",
        f"{found.seconds:.1f}",
        f"{found.speed:,.0f}",
        f"{found.idle.p99 * 1000:.1f}",
        f"{found.beside.p99 * 1000:.1f}",
    )


if __name__ == "__main__":
    main()
