"""Measure the CPU time from the start of a process to the first line of a workflow's first steps.

``./parcelseal bench start_up`` measures `./parcelseal run`, and the processes that Airflow forks
for tasks (one ``up --once``). CPU seconds are measured, so that other programs on the machine do
not matter. Needs Python 3.12.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console

console = Console(highlight=False)
ROOT = Path(__file__).resolve().parent.parent
MOST = 1.2  # seconds
STEPS = {
    "backup_offsite": "backup/offsite:check",
    "enforce_retention": "workflow/databases:name_databases",
    "review_partners": "partners/check:check_partners",
    "remind_training": "training/plan:plan_reminders",
}
"""Workflow -> its first step."""
FURTHER = ("backup/offsite:back_up", "retention/steps:plan", "quality/check:check")
HEAVY = ("great_expectations", "pandas", "scipy", "numpy", "openpyxl", "boto3", "weasyprint")


def main() -> int:
    """Measure and print all figures, and return 1 if a figure is above its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = max(1, parser.parse_args().rounds)
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary, "home")
        _begun(["run", "review_partners"], home)  # makes the local profile
        worst = 0.0
        for workflow, step in STEPS.items():
            runs = [_begun(["run", workflow], home) for _ in range(rounds)]
            seconds = [line["seconds"] for run in runs for line in run if line["step"] == step]
            worst = max(worst, _show(f"./parcelseal run {workflow}", seconds))
        tasks = defaultdict(list)
        for line in _begun(["up", "--once"], home):
            tasks[line["step"]].append(line)
        for step, lines in tasks.items():
            heavy = set(HEAVY).intersection(*(line["packages"] for line in lines))
            seconds = [line["seconds"] for line in lines]
            worst = max(worst, _show(f"task {step}, {', '.join(sorted(heavy)) or '-'}", seconds))
    console.print(f"at most {MOST} s")
    return 0 if worst <= MOST else 1


def _show(name: str, seconds: list[float]) -> float:
    """Print the smallest and the median number of seconds, and return the median."""
    median = statistics.median(seconds)
    console.print(f"{name:60} {min(seconds):6.2f} s {median:6.2f} s")
    return median


def _begun(words: list[str], home: Path) -> list[dict[str, Any]]:
    """Run a command, and return what its processes recorded about the steps that began."""
    file = home.with_suffix(".jsonl")
    file.write_text("")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'benchmarks' / '_start_up'}:{ROOT}",
        "PARCELSEAL_HOME": str(home),
        "START_UP_FILE": str(file),
        "START_UP_STEPS": ",".join([*STEPS.values(), *FURTHER]),
    }
    subprocess.run(
        [sys.executable, "-m", "include.cli", *words],
        check=False,  # exit code 1 only reports findings of the sample
        stdout=subprocess.DEVNULL,
        env=environment,
    )
    return [json.loads(line) for line in file.read_text().splitlines()]


if __name__ == "__main__":
    sys.exit(main())
