"""Packages that a process imports until the first line of a step.

`./parcelseal bench start_up` measures the CPU time, which depends on the load of the machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from include.registry import WORKFLOWS
from include.workplace import ROOT

HEAVY = {
    "aws_encryption_sdk", "boto3", "docx", "great_expectations", "lxml", "matplotlib", "numpy",
    "openpyxl", "pandas", "requests", "scipy", "weasyprint",
}  # fmt: skip
"""Packages that a step imports when it needs them. Each takes 0.05 to 2 seconds of CPU."""
SCRIPT = """
import json, os, sys
from pkgutil import resolve_name

def imported(work):
    reader, writer = os.pipe()
    if not (pid := os.fork()):
        work()
        packages = sorted({".".join(name.split(".")[:2]) for name in sys.modules})
        os.write(writer, json.dumps(packages).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        said = json.load(answer)
    os.waitpid(pid, 0)
    return said

def open_workflow(name):
    from include.composition import workplace_of
    resolve_name(name)
    workplace_of(os.environ).pack

def compile_pack():
    from include.composition import workplace_of
    workplace_of(os.environ).pack

def command(word):
    from include.cli.app import command_line
    command_line([word])

imported(compile_pack)
workflows = {dag_id: imported(lambda: open_workflow(name)) for dag_id, name in WORKFLOWS.items()}
commands = {word: imported(lambda: command(word)) for word in ("run", "verify")}
print(json.dumps({"workflows": workflows, "commands": commands}))
"""


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the packages of processes that open a workflow or a command, by its name."""
    home = tmp_path_factory.mktemp("home")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("WORKFLOWS", repr(dict(WORKFLOWS)))],
        env={**os.environ, "PARCELSEAL_HOME": str(home), "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert list(Path(home, "packs").glob("*.pack"))
    said: dict[str, Any] = json.loads(done.stdout)
    return said["workflows"] | said["commands"]


@pytest.mark.parametrize("name", [*WORKFLOWS, "run", "verify"])
def test_start_imports_no_heavy_package(starts: dict[str, Any], name: str) -> None:
    """A step or a command imports them where it uses them."""
    assert HEAVY.intersection(starts[name]) == set()


@pytest.mark.parametrize("dag_id", WORKFLOWS)
def test_task_imports_no_other_workflow(starts: dict[str, Any], dag_id: str) -> None:
    """It reads its own section of the compiled pack."""
    packages = {name.rpartition(".workflow:")[0] for name in WORKFLOWS.values()}
    own = WORKFLOWS[dag_id].rpartition(".workflow:")[0]
    assert packages.intersection(starts[dag_id]) == {own}
