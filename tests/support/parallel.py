"""Distribute tests over the workers of pytest-xdist, and choose the tests of `--quick`.

A worker runs all tests of a group one after the other, so that they share the group's fixtures. A
group is a test file, or all files below a folder of `SHARED`. The longest groups start first.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path, PurePosixPath

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

WHOLE_AIRFLOW = "whole Airflow"
# Folders whose tests share a server that takes long to start, and the name of their group.
SHARED = {
    "tests/e2e/in_airflow": WHOLE_AIRFLOW,
    "tests/e2e": "end to end",
    "tests/plugins": "API server",
    "tests/orchestration/access": "API server",
}
DURATIONS = Path(__file__).parents[1] / "durations.json"
MORE_THAN_CORES = 1  # additional workers, since tests also wait for servers and programs
GIVES_WAY = 5  # nice value of a worker that does not run a complete Airflow
UNRECORDED = 20.0  # assumed seconds of a group without a recorded duration
QUICK_FILE = 3.2  # seconds; the longest file of `--quick`
STOP_TIMEOUT = 60  # seconds that workers have to stop their servers after an interruption
NOT_QUICK = ("airflow", "chromium", "fault", "pdf")  # markers


class GroupScheduling(LoadScopeScheduling):
    """Assigns groups to workers, the longest first."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        longest = max(
            self.workqueue, key=lambda group: durations_of_groups().get(group, UNRECORDED)
        )
        self.workqueue.move_to_end(longest, last=False)
        super()._assign_work_unit(node)


def group_of(nodeid: str) -> str:
    """Return the group of a test or test file."""
    path = nodeid.partition("::")[0]
    for folder in PurePosixPath(path).parents:
        if name := SHARED.get(str(folder)):
            return name
    return path


def number_of_workers(arguments: Iterable[str]) -> int:
    """Return how many workers run the tests, or 0 if all tests belong to one group.

    Args:
        arguments: files, folders and tests on pytest's command line.
    """
    files = [argument.partition("::")[0] for argument in arguments]
    if all(file.endswith(".py") for file in files) and len(set(map(group_of, files))) == 1:
        return 0
    return len(os.sched_getaffinity(0)) + MORE_THAN_CORES


def give_way(nodeid: str) -> None:
    """Lower the priority of a worker, unless its test needs a complete Airflow.

    Airflow's tasks time out if their requests are not answered for seconds.

    Args:
        nodeid: id of the next test.
    """
    if group_of(nodeid) != WHOLE_AIRFLOW and os.nice(0) < GIVES_WAY:
        os.nice(GIVES_WAY - os.nice(0))


def takes_long(path: str) -> bool:
    """Return whether `--quick` skips a test file without importing it."""
    return group_of(path) != path or _durations().get(path, 0) > QUICK_FILE


def write_durations(seconds: Mapping[str, float]) -> None:
    """Record how long the tests of each file took.

    Args:
        seconds: seconds by test file.
    """
    rounded = {path: round(took, 1) for path, took in sorted(seconds.items())}
    DURATIONS.write_text(json.dumps(rounded, indent=1) + "\n")


@cache
def _durations() -> dict[str, float]:
    return dict(json.loads(DURATIONS.read_text()))


@cache
def durations_of_groups() -> dict[str, float]:
    """Return how many seconds the tests of each group took when they were last recorded."""
    groups: defaultdict[str, float] = defaultdict(float)
    for path, seconds in _durations().items():
        groups[group_of(path)] += seconds
    return groups
