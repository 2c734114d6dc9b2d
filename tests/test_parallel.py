"""Tests of the distribution of tests to workers, and of the tests that `--quick` skips."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import parallel
from tests.support.processor_time import summary

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/backup/test_drill.py::test_a[x::y]", "tests/backup/test_drill.py"),
        ("tests/e2e/test_up.py::test_a", "end to end"),
        ("tests/e2e/incidents/test_scripted_incidents.py::test_a", "end to end"),
        ("tests/e2e/in_airflow/test_people.py::test_a", "whole Airflow"),
        ("tests/plugins/test_pages.py::test_a", "API server"),
    ],
)
def test_tests_that_share_a_server_are_one_group(nodeid: str, group: str) -> None:
    assert parallel.group_of(nodeid) == group


@pytest.mark.parametrize(
    ("arguments", "workers"),
    [
        (["tests"], CORES + 1),
        (["tests/backup/test_drill.py", "tests/backup/test_dump.py"], CORES + 1),
        (["tests/backup/test_drill.py"], 0),
        (["tests/backup/test_drill.py::test_a", "tests/backup/test_drill.py::test_b"], 0),
        (["tests/e2e/test_up.py", "tests/e2e/test_runs.py"], 0),
    ],
)
def test_number_of_test_workers_is_zero_only_if_one_test_group_is_selected(
    arguments: list[str], workers: int
) -> None:
    assert parallel.number_of_workers(arguments) == workers


def test_takes_long_is_true_for_test_files_with_long_duration_and_end_to_end_tests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file without a recorded duration counts as quick."""
    durations = {"tests/a/test_long.py": 3.5, "tests/a/test_short.py": 0.4}
    monkeypatch.setattr(parallel, "_durations", lambda: durations)
    assert parallel.takes_long("tests/a/test_long.py")
    assert not parallel.takes_long("tests/a/test_short.py")
    assert not parallel.takes_long("tests/a/test_new.py")
    assert parallel.takes_long("tests/e2e/test_runs.py")


def test_duration_of_a_test_group_is_the_sum_over_its_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Groups are sorted by this duration."""
    durations = {"tests/e2e/test_a.py": 3.0, "tests/e2e/test_b.py": 3.0, "tests/a/test_c.py": 5.0}
    monkeypatch.setattr(parallel, "_durations", lambda: durations)
    parallel.durations_of_groups.cache_clear()
    assert parallel.durations_of_groups() == {"end to end": 6.0, "tests/a/test_c.py": 5.0}
    parallel.durations_of_groups.cache_clear()


def test_durations_are_recorded_for_each_test_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Durations are rounded and sorted, so that two records can be compared easily."""
    file = tmp_path / "durations.json"
    monkeypatch.setattr(parallel, "DURATIONS", file)
    parallel.write_durations({"tests/b.py": 2.26, "tests/a.py": 0.01})
    assert file.read_text() == '{\n "tests/a.py": 0.0,\n "tests/b.py": 2.3\n}\n'


def test_summary_contains_sum_of_processor_seconds_for_each_test_folder_and_file() -> None:
    """The largest sums come first. A report without a measurement adds nothing."""
    reports = []
    for name, seconds in (("a/test_b.py", 1.0), ("a/test_c.py", 2.5), ("d/test_e.py", 3.0)):
        report = pytest.TestReport(f"tests/{name}::test", ("", 0, ""), {}, "passed", None, "call")
        report.processor_seconds = seconds
        reports.append(report)
    reports.append(
        pytest.TestReport("tests/a/test_b.py::x", ("", 0, ""), {}, "passed", None, "call")
    )
    assert summary(reports)[0] == "processors: 6 s without servers in the background"
    names = [line.split()[-1] for line in summary(reports)[1:]]
    assert names[:2] == ["tests/a", "tests/d"]
    assert names[2:] == ["tests/d/test_e.py", "tests/a/test_c.py", "tests/a/test_b.py"]
