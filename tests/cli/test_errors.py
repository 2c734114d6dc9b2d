"""What the command line says and how it ends when it was used wrongly; nothing is started then."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.cli.console import new_log, one_line
from include.services.errors import UsageError
from include.workplace import ROOT
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
def test_wrong_usage_is_one_line_and_exit_code_2(home: Path, words: list[str], part: str):
    """It says what is wrong or what there is, shows no traceback and leaves no trace."""
    done = call(home, *words)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert not home.exists()


def test_a_refused_run_has_the_keys_of_every_run(home: Path):
    """Scripts read the same keys whether a run was refused or made."""
    done = call(home, "run", "nosuch", "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 2
    assert set(said) == RUN_KEYS
    assert (said["dag_id"], said["run_id"], said["outcome"]) == ("nosuch", None, None)
    assert "There is no workflow nosuch" in said["error"]


@pytest.mark.parametrize(
    "words", [["run", "backup_offsite"], ["backup", "list"], ["config", "check"]]
)
def test_a_bad_pack_is_named_with_every_fault(home: Path, bad_pack: Path, words: list[str]):
    """Before anything is started, whichever command meets it."""
    done = call(home, *words, PARCELSEAL_POLICY=str(bad_pack))
    assert done.returncode == 2
    assert "calendar.yaml:1" in done.stderr
    assert "datamap/shop.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_pack_is_one_line_in_json(home: Path, bad_pack: Path):
    """An error in JSON has no line breaks, and stdout has nothing else."""
    done = call(home, "run", "backup_offsite", "--json", PARCELSEAL_POLICY=str(bad_pack))
    said = json.loads(done.stdout)
    assert "\n" not in said["error"]
    assert "calendar.yaml:1" in said["error"]
    assert "datamap/shop.yaml" in said["error"]


def test_lines_of_an_error_are_joined():
    """A heading keeps its colon, entries get semicolons."""
    error = UsageError("Two problems:\na.yaml: x\nb.yaml: y", "Mend them.")
    assert one_line(error) == "Two problems: a.yaml: x; b.yaml: y Mend them."


def test_two_commands_of_one_second_have_logs_of_their_own(tmp_path: Path):
    """Neither writes into what the other says."""
    now = datetime(2026, 3, 1, tzinfo=UTC)
    one, other = (new_log(tmp_path, "run-backup_offsite", now) for _ in range(2))
    assert one != other
    assert {path.name[:35] for path in (one, other)} == {"run-backup_offsite-20260301T000000-"}


def test_a_run_that_was_asked_for_wrongly_is_refused_before_it_begins(home: Path):
    """No server is started, nothing is said to be running, no log is left; more in tests/e2e."""
    done = call(home, "run", "backup_offsite", "--conf", '{"database": []}')
    assert done.returncode == 2, done.stderr
    assert "has no parameter database" in done.stderr
    assert "running" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "postgres").exists()
    assert not list(home.glob("logs/*.log"))


def test_missing_word_is_named_with_help_of_its_command(home: Path) -> None:
    done = call(home, "hold", "add")
    assert done.returncode == UsageError.exit_code
    assert "./parcelseal hold add --help" in done.stderr


def test_command_line_without_words_prints_help_and_no_error(home: Path) -> None:
    done = call(home)
    assert done.returncode == UsageError.exit_code
    assert "recover-ledger" in done.stdout + done.stderr
    assert "error:" not in done.stderr


def test_version_option_prints_the_revision_of_the_code(home: Path) -> None:
    done = call(home, "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("ParcelSeal ")
    assert not home.exists()
