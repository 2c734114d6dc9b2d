"""Tests of the packages that a process imports before it executes a step.

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
from include.service_container import ROOT

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
        start = json.load(answer)
    os.waitpid(pid, 0)
    return start

def open_workflow(name):
    from include.composition import services_from
    resolve_name(name)
    services_from(os.environ).pack

def compile_pack():
    from include.composition import services_from
    services_from(os.environ).pack

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
    """The packages that a process imports to start a workflow or command, by its name."""
    home = tmp_path_factory.mktemp("home")
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("WORKFLOWS", repr(dict(WORKFLOWS)))],
        env={**os.environ, "PARCELSEAL_HOME": str(home), "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert list(Path(home, "packs").glob("*.pack"))
    message: dict[str, Any] = json.loads(process.stdout)
    return message["workflows"] | message["commands"]


@pytest.mark.parametrize("name", [*WORKFLOWS, "run", "verify"])
def test_start_of_a_workflow_or_command_imports_no_heavy_package(
    starts: dict[str, Any], name: str
) -> None:
    assert HEAVY.intersection(starts[name]) == set()


@pytest.mark.parametrize("dag_id", WORKFLOWS)
def test_task_of_a_workflow_imports_no_package_of_another_workflow(
    starts: dict[str, Any], dag_id: str
) -> None:
    packages = {name.rpartition(".workflow:")[0] for name in WORKFLOWS.values()}
    own = WORKFLOWS[dag_id].rpartition(".workflow:")[0]
    assert packages.intersection(starts[dag_id]) == {own}
