"""Measure the processor seconds of tests, including the programs that a test waits for.

Servers in the background are not included.
"""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

import pytest

MOST_FILES = 30  # number of files that are listed


class ProcessorTime:
    """Adds the processor time of its phase (set-up, call or tear-down) to each test report."""

    def __init__(self) -> None:
        self._before = used()

    def pytest_collection_finish(self) -> None:
        """Start the measurement after the collection, so that imports are not included."""
        self._before = used()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Iterable[pytest.TestReport]:
        """Set the attribute `processor_seconds`, which pytest-xdist sends with the report."""
        report: pytest.TestReport = yield
        now = used()
        report.processor_seconds = now - self._before
        self._before = now
        return report


def used() -> float:
    """Return the processor seconds of this process and of the children that it waited for."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def summary(reports: Iterable[object]) -> list[str]:
    """Return lines of text: the seconds by folder, and the seconds of the slowest files.

    Args:
        reports: test reports of a session.
    """
    folders: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for report in reports:
        if isinstance(report, pytest.TestReport):
            file = report.nodeid.partition("::")[0]
            seconds = getattr(report, "processor_seconds", 0.0)
            files[file] += seconds
            folders["/".join(PurePosixPath(file).parts[:2])] += seconds
    lines = [f"processors: {sum(files.values()):.0f} s without servers in the background"]
    return lines + [
        f"{seconds:8.1f} s {name}"
        for counted in (folders.most_common(), files.most_common(MOST_FILES))
        for name, seconds in counted
    ]
