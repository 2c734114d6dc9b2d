"""Tests of the options that `./parcelseal bench` passes to a benchmark."""

from __future__ import annotations

import subprocess
import sys

import pytest

from include.cli.testing import BENCHMARKS, NOT_MEASURED
from include.service_container import ROOT

NAMES = sorted({path.stem for path in BENCHMARKS.glob("[a-z]*.py")} - NOT_MEASURED)


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_reports_invalid_value_of_option_rounds(name: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--rounds", "none"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "argument --rounds: invalid int value: 'none'" in done.stderr
