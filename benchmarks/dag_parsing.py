"""Compare the import of all DAG files with the import of ``airflow.sdk`` alone.

``./parcelseal bench dag_parsing``. Each measurement is a new process, and the two alternate.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

from rich.console import Console

console = Console(highlight=False)
ROOT = Path(__file__).resolve().parent.parent
MOST = 2.0  # seconds more than airflow.sdk alone
NAMES = "Param, TriggerRule, dag, task, Connection, CronTriggerTimetable, get_current_context"
SDK = f"from airflow.sdk import {NAMES}; from airflow.sdk.exceptions import AirflowFailException"


def main() -> int:
    """Measure and print both medians, and return 1 if the DAG files take too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", help="ignored: no database is made")
    rounds = max(1, parser.parse_args().rounds)
    files = sorted((ROOT / "dags").glob("*.py"))
    run_each = "; ".join(f"runpy.run_path({str(path)!r})" for path in files)
    programs = {"airflow.sdk": SDK, "every DAG file": f"import runpy; {run_each}"}
    for code in programs.values():
        _seconds(code)  # fills the caches
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, code in programs.items():
            times[name].append(_seconds(code))
    medians = {name: statistics.median(measured) for name, measured in times.items()}
    for name, median in medians.items():
        console.print(f"{name:16} {median:6.2f} s")
    more = medians["every DAG file"] - medians["airflow.sdk"]
    console.print(
        f"{len(files)} files cost {more:.2f} s more; allowed {MOST:.1f} s; {rounds} rounds"
    )
    return 0 if more <= MOST else 1


def _seconds(code: str) -> float:
    timed = f"import time; s = time.perf_counter(); {code}; print(time.perf_counter() - s)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    completed = subprocess.run(
        [sys.executable, "-c", timed], check=True, capture_output=True, text=True, env=environment
    )
    return float(completed.stdout.split()[-1])


if __name__ == "__main__":
    sys.exit(main())
