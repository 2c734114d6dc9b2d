"""Compare the deletion of expired records with one SQL statement while an application runs.

``./parcelseal bench retention [--rows N] [--rounds N]``. The benchmark starts an embedded
PostgreSQL like the local profile's, except for `SETTINGS`. It exits with 1 if a target is missed.
``--rounds`` applies to the plans. Each deletion is measured once, because it needs a fresh copy of
the database.
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

MEMORY_GROWTH = 1.1  # largest memory relative to a tenth of the rows
# With the local profile's 2 GB, ten million rows make PostgreSQL take a checkpoint every 20
# seconds, and log that this is too often.
SETTINGS = {"max_wal_size": "8GB"}


def main() -> None:
    """Measure plans, deletions and dropped partitions, and print the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-bench-"))
    folder.chmod(0o755)
    targets = Targets()
    bench = None
    try:
        bench = RetentionBench(folder, SETTINGS)
        console.print(
            f"{machine()}; {args.rows:,} parcels, 30% expired; {PER_SECOND} statements a second "
            "beside"
        )
        measure_planning(bench, args.rows, args.rounds)
        measure_deletion(bench, args.rows, targets)
        measure_partitions(bench, args.rows, targets)
    finally:
        if bench is not None:
            bench.server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if targets.missed else 0)


def measure_planning(bench: RetentionBench, rows: int, rounds: int) -> None:
    """Compare plans with plain counts for the same conditions, which must give the same numbers."""
    bench.fill("large", data.make_parcels, rows, bench.cutoff)
    bench.state(data.HELD)
    conditions = bench.conditions()
    counts = [
        f"SELECT count(*) FROM {parcel} AS t WHERE {conditions[parcel]}"  # noqa: S608 - constants
        for parcel in PARCELS
    ]
    _process, seconds = bench.once(
        "plan", "large", collections=list(PARCELS), rounds=rounds, counts=counts
    )
    console.print(f"Plan {seconds['ours']:.2f} s, plain counts {seconds['plain']:.2f} s")


def measure_deletion(bench: RetentionBench, rows: int, targets: Targets) -> None:
    """Measure a deletion in one transaction, and a deletion by `enforce_retention`."""
    bench.fill("small", data.make_parcels, rows // 10, bench.cutoff)
    small = bench.ours("small", rows // 10)
    bench.drop("small")
    single = bench.one_statement("large", rows)
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
    _row(table, "one transaction", single)
    _row(table, "ParcelSeal", ours)
    _row(table, "ParcelSeal, a tenth", small)
    console.print(table)
    longest = ours.answer["longest_transaction_ms"]
    alone = Latencies(single.idle.took + ours.idle.took)
    targets.least("records a second against one transaction", ours.speed / single.speed, 0.5)
    targets.most("p99 of updates beside against alone", ours.beside.p99 / alone.p99, 3)
    targets.most("longest transaction", longest / 1000, 1, " s")
    _memory(small, ours, targets)


def measure_partitions(bench: RetentionBench, rows: int, targets: Targets) -> None:
    """Measure the drop of 30 of 36 monthly partitions while an application reads."""
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


def _row(table: Table, name: str, erased: Erased) -> None:
    table.add_row(
        name,
        f"{erased.records:,}",
        f"{erased.seconds:.1f}",
        f"{erased.speed:,.0f}",
        f"{erased.idle.p99 * 1000:.1f}",
        f"{erased.beside.p99 * 1000:.1f}",
    )


if __name__ == "__main__":
    main()
