"""Tests of import contracts and of other rules about the source code."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("include", "dags", "plugins", "benchmarks", "tests")


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "lint-imports"
    return subprocess.run(
        [program, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages and their import contracts, in which tests plant violations."""
    folder = tmp_path_factory.mktemp("house")
    ignore = shutil.ignore_patterns("__pycache__", "pack", "pools", "locale")
    shutil.copytree(ROOT / "include", folder / "include", ignore=ignore)
    shutil.copy(ROOT / ".importlinter", folder)
    support = folder / "tests" / "support"
    support.mkdir(parents=True)
    shutil.copy(ROOT / "tests/support/registry_layers.py", support)
    return folder


def test_import_linter_reports_no_broken_contract():
    process = lint(ROOT)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "6 kept, 0 broken" in process.stdout


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("backup/planted.py", "from airflow.sdk import dag", "Only orchestration imports Airflow"),
        ("service_container.py", "import airflow", "Only orchestration imports Airflow"),
        ("evidence/planted.py", "def f():\n    import airflow.models", "Only orchestration"),
        ("quality/planted.py", "def f():\n    import great_expectations", "Only expectations"),
        ("evidence/planted.py", "from include.backup import dump", "Imports between packages"),
        ("services/planted.py", "from include.policy import model", "Imports between packages"),
        (
            "backup/planted.py",
            "from include.orchestration import workflow",
            "Imports between packages",
        ),
        ("backup/planted.py", "import include.composition", "Imports between packages"),
        (
            "retention/certificate/count/planted.py",
            "from include.retention.planning import graph",
            "The count after a deletion",
        ),
        (
            "incident/counting/planted.py",
            "from include.incident import timeline",
            "The scope of an incident is counted",
        ),
        (
            "incident/time_limits/planted.py",
            "from include.incident.communication import letter",
            "Time limits use rules and timeline only",
        ),
        ("attic/__init__.py", "", "attic"),
    ],
)
def test_import_linter_reports_contract_that_a_forbidden_import_breaks(
    copy: Path, file: str, line: str, message: str
):
    """Imports inside of a function or in a new package are detected too."""
    path = copy / "include" / file
    before = path.read_text() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{before or ''}\n{line}\n")
    try:
        process = lint(copy)
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    assert process.returncode != 0, process.stdout
    kept = [line for line in process.stdout.splitlines() if line.endswith("KEPT")]
    assert message in process.stdout + process.stderr
    assert not any(message in contract for contract in kept)


def test_import_linter_reports_import_from_package_of_another_workflow(copy: Path):
    planted = copy / "include" / "intake" / "planted.py"
    planted.write_text("from include.backup import dump\n")
    try:
        process = lint(copy)
    finally:
        planted.unlink()
    assert process.returncode != 0
    assert "include.intake is not allowed to import include.backup" in process.stdout


def test_code_imports_no_dag_file():
    """An import of a DAG file would create the DAG again."""
    dags = {source.stem for source in sources("dags")} | {"dags"}
    for path in sources("include", "plugins", "benchmarks"):
        roots = {name.split(".")[0] for name in imported(ast.parse(path.read_text()))}
        assert not roots & dags, path


# Domain code receives its settings as arguments, so that it runs the same in a task and in a test.
# Only these modules may read environment variables.
READS_ENVIRONMENT = {
    "include/cli",  # reads the variables of the user's shell
    "include/expectations/gx.py",  # sets a switch of Great Expectations before its import
    "include/local/airflow.py",  # passes variables on to Airflow
    "include/orchestration",  # reads the variables of the worker
    "include/services",  # passes variables on to PostgreSQL's programs
}


def environment_readers(path: Path) -> bool:
    tree = ast.parse(path.read_text())
    return any(
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
        and node.attr in {"environ", "getenv", "environb"}
        for node in ast.walk(tree)
    )


def test_domain_code_reads_no_environment_variable():
    """Only the modules in `READS_ENVIRONMENT` may read environment variables."""
    readers = [
        source.relative_to(ROOT) for source in sources("include") if environment_readers(source)
    ]
    assert readers  # the search must find the allowed modules
    offenders = [
        reader
        for reader in readers
        if not {str(reader), *map(str, reader.parents)} & READS_ENVIRONMENT
    ]
    assert not offenders
