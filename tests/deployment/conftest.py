"""A deployment's folder as `compose init` leaves it, made once: RSA keys take their time."""

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
from include.workplace import ROOT


def init(folder: Path, *words: str) -> Any:
    """Run `./parcelseal compose init` for a folder."""
    return CliRunner().invoke(app, ["init", "--folder", str(folder), *words])


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with docker-compose.yaml, after `compose init --sample`. Not to be changed."""
    folder = tmp_path_factory.mktemp("deployed")
    shutil.copy(ROOT / "docker-compose.yaml", folder)
    done = init(folder, "--sample")
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="session")
def stack(deployed: Path) -> dict[str, Any]:
    """The stack as Docker Compose understands it; asks no daemon."""
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
    found: dict[str, Any] = json.loads(done.stdout)
    return found
