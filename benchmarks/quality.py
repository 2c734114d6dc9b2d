"""A quality check side by side with one SQL statement and three other tools, in one run.

``./parcelseal bench quality [--customers N] [--rounds N]``. Exits with 1 when a target is missed.
The other tools are installed on first use; ``--without-peers`` leaves them out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from rich.table import Table

from benchmarks import _quality_history
from benchmarks._measure import Targets, console, machine
from benchmarks._quality_bench import QualityBench, Timed, peers_interpreter
from include.policy import SHIPPED
from include.registry import load_pack
from include.workplace import ROOT

FULL, SQL = "ParcelSeal, all", "one SQL statement"
INCREMENTAL = {100: "ParcelSeal, 1% changed", 1_000: "ParcelSeal, 0.1% changed"}
UNCHANGED = "ParcelSeal, 0% changed"
GX, SODA, PANDERA = "GX COMPLETE", "Soda Core v4", "pandera (polars)"
PAST_RUNS = (10, 1_000)
LONGER = 1.5  # times; what two medians of some 0.5 s differ by on a machine that is not idle
MANY = 10_000_000  # customers, from which on the other ratio of incremental checks is judged
MEMORY = 400 * 2**20  # bytes


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-peers", action="store_true")
    given = parser.parse_args()
    home = Path(os.environ.get("PARCELSEAL_HOME", ROOT / ".parcelseal"))
    peers = None if given.without_peers else peers_interpreter(home / "bench")
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-bench-"))
    folder.chmod(0o755)
    targets = Targets()
    bench = None
    try:
        bench = QualityBench(folder, given.customers, peers)
        console.print(f"{machine()}; {given.customers:,} customers; {given.rounds} rounds")
        measure_checks(bench, given.rounds, targets)
        measure_history(bench, given.rounds, targets)
        measure_promotion(bench, given.rounds, targets)
    finally:
        if bench is not None:
            bench.server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if targets.missed else 0)


def measure_checks(bench: QualityBench, rounds: int, targets: Targets) -> None:
    """Check in turn with all tools; the first round warms up and is not counted."""
    tools: dict[str, Callable[[], Timed]] = {
        SQL: bench.statement,
        FULL: lambda: bench.ours(full=True),
        GX: bench.great_expectations,
    }
    if bench.peers is not None:
        tools[SODA] = lambda: bench.peer("soda")
        tools[PANDERA] = lambda: bench.peer("pandera")
    ours = (*INCREMENTAL.values(), UNCHANGED)
    runs: dict[str, list[Timed]] = {name: [] for name in (*tools, *ours)}
    for number in range(rounds + 1):
        order = list(tools.items())
        for name, check in order if number % 2 else reversed(order):
            found = check()
            runs[name].append(found)
            require_same(name, found, runs[SQL][-1] if runs[SQL] else found)
            if name == FULL:
                for share, incremental in [*INCREMENTAL.items(), (None, UNCHANGED)]:
                    if share is not None:
                        bench.change(share)
                    changed = bench.ours(full=False)
                    require_same(incremental, changed, runs[SQL][-1] if runs[SQL] else found)
                    runs[incremental].append(changed)
    counted = {name: found[1:] for name, found in runs.items()}
    show(counted)
    for name in (SQL, GX, SODA, PANDERA):
        if name in counted:
            most = 1.3 if name == SQL else 1.0
            targets.most(f"all records against {name}", ratio(counted[FULL], counted[name]), most)
    for name in ours:
        looked, seconds = counted[name][-1].looked_at, median(one.check for one in counted[name])
        console.print(f"{name}: {looked:,} of {bench.customers:,} examined, {seconds:.2f} s")
    console.print("A check with 0% changed reads the margin for late arrivals: the fixed cost.")
    if bench.customers >= MANY:
        part = ratio(counted[INCREMENTAL[1_000]], counted[FULL])
        targets.most("0.1% changed against all records", part, 0.05)
    else:
        part = ratio(counted[INCREMENTAL[100]], counted[FULL])
        targets.most("1% changed against all records", part, 0.1)
    peak = max(one.process.peak for name in (FULL, *ours) for one in counted[name])
    targets.most("peak memory", peak / 2**20, MEMORY / 2**20, " MiB")


def require_same(name: str, found: Timed, bar: Timed) -> None:
    """Stop when two tools do not find the same: then they did not do the same work."""
    other = {
        rule: (bar.counts.get(rule), found.counts.get(rule))
        for rule in bar.counts.keys() | found.counts.keys()
        if bar.counts.get(rule) != found.counts.get(rule)
    }
    if other:
        sys.exit(f"{name} counts otherwise (rule: expected, found): {other}")


def ratio(runs: list[Timed], base: list[Timed]) -> float:
    """Median of the ratios of the checks themselves, pair by pair."""
    return median(a.check / b.check for a, b in zip(runs, base, strict=True))


def show(runs: dict[str, list[Timed]]) -> None:
    """Print the table.

    Ratios are those of the check itself, since psql imports nothing; whole processes stand beside.
    """
    table = Table(title="Checks of the customers, in seconds", title_justify="left", box=None)
    for name in ("what", "check", "min", "max", "ratio", "import", "whole", "CPU", "MiB"):
        table.add_column(name, no_wrap=True)
    for name, found in runs.items():
        checks = [one.check for one in found]
        table.add_row(
            name,
            f"{median(checks):.2f}",
            f"{min(checks):.2f}",
            f"{max(checks):.2f}",
            f"{ratio(found, runs[SQL]):.2f}",
            f"{median(one.imports for one in found):.2f}",
            f"{median(one.process.seconds for one in found):.2f}",
            f"{median(one.process.cpu for one in found):.2f}",
            f"{max(one.process.peak for one in found) / 2**20:.0f}",
        )
    console.print(table)


def measure_history(bench: QualityBench, rounds: int, targets: Targets) -> None:
    """Write reports after few and after many past runs."""
    took = _quality_history.measure(bench, PAST_RUNS, max(rounds, 5))
    few, many = (took[one] for one in PAST_RUNS)
    console.print(
        f"Report and Data Docs: {few:.2f} s after {PAST_RUNS[0]} runs, "
        f"{many:.2f} s after {PAST_RUNS[1]:,}"
    )
    targets.most("report after many runs against few", many / few, LONGER)


def measure_promotion(bench: QualityBench, rounds: int, targets: Targets) -> None:
    """Let a batch in, against a bare INSERT ... SELECT; where there is such a workflow."""
    if find_spec("benchmarks._promotion") is None:
        console.print("Promotion: not part of this version")
        return
    from benchmarks import _promotion
    from include.intake.checks import OwnChecks, SuiteChecks
    from include.intake.names import Incoming

    pack = load_pack(SHIPPED)
    incoming = Incoming(pack.intake[0], pack.database("courier"))
    now = datetime.now(UTC)  # noqa: TID251 - the moment of a benchmark's decision
    (suite,) = pack.suites_of("courier", incoming=True)
    checkers = [SuiteChecks(incoming, suite.expectations), OwnChecks(incoming)]
    found = _promotion.measure(bench.conninfo("small"), incoming, checkers, now, rounds=rounds)
    console.print(f"{found.rows:,} rows let in: {found.ours:.2f} s; bare {found.bare:.2f} s")
    targets.most("promotion against a bare INSERT ... SELECT", found.ratio, 2.0)


if __name__ == "__main__":
    main()
