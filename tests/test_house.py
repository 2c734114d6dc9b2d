"""The rules of the house: who may import whom, and what a file may know."""

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
    """The packages and their rules, to be broken."""
    folder = tmp_path_factory.mktemp("house")
    ignore = shutil.ignore_patterns("__pycache__", "pack", "pools", "locale")
    shutil.copytree(ROOT / "include", folder / "include", ignore=ignore)
    shutil.copy(ROOT / ".importlinter", folder)
    support = folder / "tests" / "support"
    support.mkdir(parents=True)
    shutil.copy(ROOT / "tests/support/registry_layers.py", support)
    return folder


def test_arrows_point_down_and_only_orchestration_knows_airflow():
    """The contracts of .importlinter, with their reasons beside them, are kept."""
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("backup/planted.py", "from airflow.sdk import dag", "Only orchestration imports Airflow"),
        ("workplace.py", "import airflow", "Only orchestration imports Airflow"),
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
            "What counts",
        ),
        (
            "incident/counting/planted.py",
            "from include.incident import timeline",
            "What is affected is counted",
        ),
        (
            "incident/clocks/planted.py",
            "from include.incident.telling import letter",
            "Clocks know rules and timeline",
        ),
        ("attic/__init__.py", "", "attic"),
    ],
)
def test_an_arrow_that_points_up_is_refused(copy: Path, file: str, line: str, said: str):
    """Each contract sees an offence that is planted, also inside a function or in a new package."""
    place = copy / "include" / file
    before = place.read_text() if place.exists() else None
    place.parent.mkdir(exist_ok=True)
    place.write_text(f"{before or ''}\n{line}\n")
    try:
        done = lint(copy)
    finally:
        if before is None:
            place.unlink()
        else:
            place.write_text(before)
        if not any(place.parent.iterdir()):
            place.parent.rmdir()
    assert done.returncode != 0, done.stdout
    kept = [one for one in done.stdout.splitlines() if one.endswith("KEPT")]
    assert said in done.stdout + done.stderr
    assert not any(said in one for one in kept)


def test_one_workflow_that_imports_another_is_refused(copy: Path):
    """A workflow that knows another could not be changed or left out alone."""
    planted = copy / "include" / "intake" / "planted.py"
    planted.write_text("from include.backup import dump\n")
    try:
        done = lint(copy)
    finally:
        planted.unlink()
    assert done.returncode != 0
    assert "include.intake is not allowed to import include.backup" in done.stdout


def test_nothing_imports_a_dag_file():
    """Importing a DAG file makes its DAG again; what two need lies in include/orchestration."""
    dags = {one.stem for one in sources("dags")} | {"dags"}
    for path in sources("include", "plugins", "benchmarks"):
        roots = {name.split(".")[0] for name in imported(ast.parse(path.read_text()))}
        assert not roots & dags, path


# Domain code takes what it needs as arguments: it runs the same in a task, a test and on the worst
# day. These are where the outside comes in.
READS_ENVIRONMENT = {
    "include/cli",  # the shell's
    "include/expectations/gx.py",  # sets a switch of Great Expectations before its import
    "include/local/airflow.py",  # hands it on to Airflow
    "include/orchestration",  # the worker's
    "include/services",  # hands it on to PostgreSQL's programs
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
    """Only the packages above do, each for the reason named beside it."""
    readers = [one.relative_to(ROOT) for one in sources("include") if environment_readers(one)]
    assert readers  # the search finds those that may
    offenders = [
        one for one in readers if not {str(one), *map(str, one.parents)} & READS_ENVIRONMENT
    ]
    assert not offenders
