"""Errors of wrongly used commands: one line, exit code 2, and no process or file is created."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.cli.console import new_log, one_line
from include.service_container import ROOT
from include.services.errors import UsageError
from tests.support.forking import run_forked

RUN_KEYS = {"dag_id", "run_id", "state", "outcome", "bundle", "reports", "findings", "error"}


def call(home: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PARCELSEAL_HOME": str(home)}
    return run_forked("include.cli.app", *words, cwd=home.parent, env={**own, **environment})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def bad_pack(tmp_path: Path) -> Path:
    folder = tmp_path / "pack"
    (folder / "datamap").mkdir(parents=True)
    (folder / "datamap" / "shop.yaml").write_text("fides_key: shop\ncollectionz: []\n")
    (folder / "calendar.yaml").write_text("timezone: Mars/Olympus\n")
    return folder


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["nosuch"], "nosuch"),
        (["verify"], "--all"),
        (["verify", "x", "--all"], "--all"),
        (["run"], "dag_id"),
        (["run", "nosuch"], "drill_restore"),
        (["run", "../dags/backup_offsite"], "backup_offsite"),
        (["run", "backup_offsite", "--conf", "{"], "--conf"),
        (["run", "backup_offsite", "--conf", "[]"], "--conf"),
        (["bench", "nosuch"], "dag_parsing"),
        (["bench", "backup", "--without-peers"], "quality"),
    ],
)
def test_wrong_usage_prints_one_line_and_exits_with_2(home: Path, words: list[str], part: str):
    """The line states the mistake or the valid values.

    No traceback is printed, and no file is created.
    """
    completed = call(home, *words)
    assert completed.returncode == 2, completed.stderr
    assert completed.stdout == ""
    assert part in completed.stderr
    assert "Traceback" not in completed.stderr
    assert not home.exists()


def test_run_command_with_json_option_prints_the_same_keys_for_refused_and_finished_runs(
    home: Path,
):
    """Scripts read the same keys from the result of refused and of finished runs."""
    completed = call(home, "run", "nosuch", "--json")
    result = json.loads(completed.stdout)
    assert completed.returncode == 2
    assert set(result) == RUN_KEYS
    assert (result["dag_id"], result["run_id"], result["outcome"]) == ("nosuch", None, None)
    assert "The workflow nosuch does not exist" in result["error"]


@pytest.mark.parametrize(
    "words", [["run", "backup_offsite"], ["backup", "list"], ["config", "check"]]
)
def test_command_with_invalid_pack_prints_each_fault_of_the_pack(
    home: Path, bad_pack: Path, words: list[str]
):
    """Every command checks the policy pack before it starts a process."""
    completed = call(home, *words, PARCELSEAL_POLICY=str(bad_pack))
    assert completed.returncode == 2
    assert "calendar.yaml:1" in completed.stderr
    assert "datamap/shop.yaml" in completed.stderr
    assert "Traceback" not in completed.stderr


def test_command_with_invalid_pack_and_json_option_prints_a_one_line_error(
    home: Path, bad_pack: Path
):
    """The error text has no line breaks, and stdout has only the JSON object."""
    completed = call(home, "run", "backup_offsite", "--json", PARCELSEAL_POLICY=str(bad_pack))
    result = json.loads(completed.stdout)
    assert "\n" not in result["error"]
    assert "calendar.yaml:1" in result["error"]
    assert "datamap/shop.yaml" in result["error"]


def test_function_one_line_joins_the_lines_of_an_error_with_semicolons():
    """The first line keeps its colon, and the following lines are separated by semicolons."""
    error = UsageError("Two problems:\na.yaml: x\nb.yaml: y", "Correct them.")
    assert one_line(error) == "Two problems: a.yaml: x; b.yaml: y Correct them."


def test_commands_started_in_the_same_second_have_separate_log_files(tmp_path: Path):
    """Otherwise two commands would write into the same log file."""
    now = datetime(2026, 3, 1, tzinfo=UTC)
    first, second = (new_log(tmp_path, "run-backup_offsite", now) for _ in range(2))
    assert first != second
    assert {path.name[:35] for path in (first, second)} == {"run-backup_offsite-20260301T000000-"}


def test_run_command_with_unknown_parameter_exits_with_2_and_starts_no_server(home: Path):
    """No server is started and no log file is created. More cases are in tests/e2e."""
    completed = call(home, "run", "backup_offsite", "--conf", '{"database": []}')
    assert completed.returncode == 2, completed.stderr
    assert "has no parameter database" in completed.stderr
    assert "running" not in completed.stderr
    assert "Traceback" not in completed.stderr
    assert not (home / "postgres").exists()
    assert not list(home.glob("logs/*.log"))


def test_error_of_a_missing_argument_refers_to_the_help_of_the_command(home: Path) -> None:
    completed = call(home, "hold", "add")
    assert completed.returncode == UsageError.exit_code
    assert "./parcelseal hold add --help" in completed.stderr


def test_command_line_without_arguments_prints_help_and_no_error(home: Path) -> None:
    completed = call(home)
    assert completed.returncode == UsageError.exit_code
    assert "recover-ledger" in completed.stdout + completed.stderr
    assert "error:" not in completed.stderr


def test_version_option_prints_the_revision_of_the_code(home: Path) -> None:
    completed = call(home, "--version")
    assert completed.returncode == 0
    assert completed.stdout.startswith("ParcelSeal ")
    assert not home.exists()
