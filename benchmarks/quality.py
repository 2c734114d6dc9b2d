"""Compare a quality check with one SQL statement and three other tools, in one run.

``./parcelseal bench quality [--customers N] [--rounds N]``. Exits with 1 when a target is missed.
The other tools are installed at first use; ``--without-peers`` leaves them out.
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
from benchmarks._quality_bench import CheckTiming, QualityBench, peers_interpreter
from include.policy import SHIPPED
from include.registry import load_pack
from include.service_container import ROOT

FULL, SQL = "ParcelSeal, all", "one SQL statement"
INCREMENTAL = {100: "ParcelSeal, 1% changed", 1_000: "ParcelSeal, 0.1% changed"}
UNCHANGED = "ParcelSeal, 0% changed"
GX, SODA, PANDERA = "GX COMPLETE", "Soda Core v4", "pandera (polars)"
PAST_RUNS = (10, 1_000)
LONGER = 1.5  # times; two medians of about 0.5 s can differ by this much on a busy machine
MANY = 10_000_000  # number of customers from which the other target for incremental checks applies
MEMORY = 400 * 2**20  # bytes


def main() -> None:
    """Measure checks, reports and promotion, and print the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-peers", action="store_true")
    args = parser.parse_args()
    home = Path(os.environ.get("PARCELSEAL_HOME", ROOT / ".parcelseal"))
    peers = None if args.without_peers else peers_interpreter(home / "bench")
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-bench-"))
    folder.chmod(0o755)
    targets = Targets()
    bench = None
    try:
        bench = QualityBench(folder, args.customers, peers)
        console.print(f"{machine()}; {args.customers:,} customers; {args.rounds} rounds")
        measure_checks(bench, args.rounds, targets)
        measure_history(bench, args.rounds, targets)
        measure_promotion(bench, args.rounds, targets)
    finally:
        if bench is not None:
            bench.server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if targets.missed else 0)


def measure_checks(bench: QualityBench, rounds: int, targets: Targets) -> None:
    """Measure the checks of all tools in turn. The first round is a warm-up and is not counted."""
    tools: dict[str, Callable[[], CheckTiming]] = {
        SQL: bench.statement,
        FULL: lambda: bench.ours(full=True),
        GX: bench.great_expectations,
    }
    if bench.peers is not None:
        tools[SODA] = lambda: bench.peer("soda")
        tools[PANDERA] = lambda: bench.peer("pandera")
    ours = (*INCREMENTAL.values(), UNCHANGED)
    runs: dict[str, list[CheckTiming]] = {name: [] for name in (*tools, *ours)}
    for number in range(rounds + 1):
        order = list(tools.items())
        for name, check in order if number % 2 else reversed(order):
            timing = check()
            runs[name].append(timing)
            require_same(name, timing, runs[SQL][-1] if runs[SQL] else timing)
            if name == FULL:
                for share, incremental in [*INCREMENTAL.items(), (None, UNCHANGED)]:
                    if share is not None:
                        bench.change(share)
                    changed = bench.ours(full=False)
                    require_same(incremental, changed, runs[SQL][-1] if runs[SQL] else timing)
                    runs[incremental].append(changed)
    counted = {name: timings[1:] for name, timings in runs.items()}
    show(counted)
    for name in (SQL, GX, SODA, PANDERA):
        if name in counted:
            limit = 1.3 if name == SQL else 1.0
            targets.most(f"all records against {name}", ratio(counted[FULL], counted[name]), limit)
    for name in ours:
        examined = counted[name][-1].looked_at
        seconds = median(timing.check for timing in counted[name])
        console.print(f"{name}: {examined:,} of {bench.customers:,} examined, {seconds:.2f} s")
    console.print("A check with 0% changed reads the margin for late arrivals: the fixed cost.")
    if bench.customers >= MANY:
        part = ratio(counted[INCREMENTAL[1_000]], counted[FULL])
        targets.most("0.1% changed against all records", part, 0.05)
    else:
        part = ratio(counted[INCREMENTAL[100]], counted[FULL])
        targets.most("1% changed against all records", part, 0.1)
    peak = max(timing.process.peak for name in (FULL, *ours) for timing in counted[name])
    targets.most("peak memory", peak / 2**20, MEMORY / 2**20, " MiB")


def require_same(name: str, timing: CheckTiming, expected: CheckTiming) -> None:
    """Exit if two tools report different counts, because they did not do the same check."""
    differences = {
        rule: (expected.counts.get(rule), timing.counts.get(rule))
        for rule in expected.counts.keys() | timing.counts.keys()
        if expected.counts.get(rule) != timing.counts.get(rule)
    }
    if differences:
        sys.exit(f"{name} counts differently (rule: expected, found): {differences}")


def ratio(runs: list[CheckTiming], base: list[CheckTiming]) -> float:
    """Return the median ratio of the durations of two tools' checks, round by round."""
    return median(a.check / b.check for a, b in zip(runs, base, strict=True))


def show(runs: dict[str, list[CheckTiming]]) -> None:
    """Print a table of the measured checks.

    The ratio compares only the checks, because psql imports nothing. The time of the whole process
    is in a separate column.
    """
    table = Table(title="Checks of the customers, in seconds", title_justify="left", box=None)
    for name in ("what", "check", "min", "max", "ratio", "import", "whole", "CPU", "MiB"):
        table.add_column(name, no_wrap=True)
    for name, timings in runs.items():
        checks = [timing.check for timing in timings]
        table.add_row(
            name,
            f"{median(checks):.2f}",
            f"{min(checks):.2f}",
            f"{max(checks):.2f}",
            f"{ratio(timings, runs[SQL]):.2f}",
            f"{median(timing.imports for timing in timings):.2f}",
            f"{median(timing.process.seconds for timing in timings):.2f}",
            f"{median(timing.process.cpu for timing in timings):.2f}",
            f"{max(timing.process.peak for timing in timings) / 2**20:.0f}",
        )
    console.print(table)


def measure_history(bench: QualityBench, rounds: int, targets: Targets) -> None:
    """Measure reports after few and after many past runs."""
    timings = _quality_history.measure(bench, PAST_RUNS, max(rounds, 5))
    few, many = (timings[run] for run in PAST_RUNS)
    console.print(
        f"Report and Data Docs: {few:.2f} s after {PAST_RUNS[0]} runs, "
        f"{many:.2f} s after {PAST_RUNS[1]:,}"
    )
    targets.most("report after many runs against few", many / few, LONGER)


def measure_promotion(bench: QualityBench, rounds: int, targets: Targets) -> None:
    """Compare the promotion of a batch with a plain INSERT ... SELECT, if this version has both."""
    if find_spec("benchmarks._promotion") is None:
        console.print("Promotion: not part of this version")
        return
    from benchmarks import _promotion
    from include.intake.checks import ConditionChecks, SuiteChecks
    from include.intake.incoming import Incoming

    pack = load_pack(SHIPPED)
    incoming = Incoming(pack.intake[0], pack.database("courier"))
    now = datetime.now(UTC)  # noqa: TID251 - the moment of a benchmark's decision
    (suite,) = pack.suites_of("courier", incoming=True)
    checkers = [SuiteChecks(incoming, suite.expectations), ConditionChecks(incoming)]
    promotion = _promotion.measure(bench.conninfo("small"), incoming, checkers, now, rounds=rounds)
    console.print(
        f"{promotion.rows:,} rows promoted: {promotion.ours:.2f} s; bare {promotion.bare:.2f} s"
    )
    targets.most("promotion against a bare INSERT ... SELECT", promotion.ratio, 2.0)


if __name__ == "__main__":
    main()
