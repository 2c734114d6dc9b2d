"""Provide a deployment folder in which `compose init` ran.

It is created once per session, because the generation of RSA keys takes long.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from include.cli.compose import app
from include.service_container import ROOT


def init(folder: Path, *words: str) -> Any:
    """Run `./parcelseal compose init` for a folder, and return the result."""
    return CliRunner().invoke(app, ["init", "--folder", str(folder), *words])


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with docker-compose.yaml after `compose init --sample`.

    Tests only read it.
    """
    folder = tmp_path_factory.mktemp("deployed")
    shutil.copy(ROOT / "docker-compose.yaml", folder)
    done = init(folder, "--sample")
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="session")
def stack(deployed: Path) -> dict[str, Any]:
    """Return the stack's configuration as Docker Compose reads it, without a Docker daemon."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PARCELSEAL_")}
    program = ["docker", "compose"] if shutil.which("docker") else ["docker-compose"]
    done = subprocess.run(
        [*program, "config", "--format", "json"],
        cwd=deployed,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    config: dict[str, Any] = json.loads(done.stdout)
    return config
