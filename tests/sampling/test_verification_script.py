"""Tests of the script of docs/how-to/verify-a-sample.md on real evidence bundles."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from include.sampling.samples import Sample
from tests.sampling.company import Company, by_branch, population
from tests.sampling.test_audit_page import script

ODD = r"""
SELECT 'k' || g || (ARRAY['', E'\t', E'\n', E'\\', E'\\n', E'\r', '中', ',', '"', E'\b\f\v'])[g % 10 + 1] AS id,
    (ARRAY[E'a\\b', E'tab\there', '北京', ''])[g % 4 + 1] AS stratum
FROM generate_series(1, 400) AS g
"""  # noqa: E501


@pytest.fixture(scope="module")
def drawn(shop: Company) -> Path:
    """Provide a sealed bundle of populations with unusual ids, strata, stages, or a census."""
    shop.reset()
    shop.use_populations(
        population(sql=ODD),
        by_branch(sql=ODD),
        by_branch("stages", plan="staged", sql=ODD),
        population("halves", plan="staged", sql="SELECT id FROM log WHERE id <= 16"),
        population("whole", sql="SELECT id FROM log WHERE id <= 5"),
    )
    return shop.root / shop.run().path


@pytest.fixture
def bundle(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "bundle"))


def run_script(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the script as an outsider does: from a file, and without installed packages."""
    file = folder.parent / "check.py"
    file.write_text(script())
    command = [sys.executable, "-I", "-S", str(file), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_verification_script_draws_the_same_items_from_unchanged_bundle(bundle: Path) -> None:
    """The bundle has unusual ids and strata, and a population whose stages need every item."""
    finished = run_script(bundle)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == (
        "the same items are drawn again: openings, branches, stages, halves, whole\n"
    )
    halves = Sample.model_validate_json((bundle / "samples/halves.json").read_bytes())
    assert len(halves.items) == 16
    assert {item.line for item in halves.of_stage(1)} != set(range(1, 9))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("frames/openings.tsv", b"k1", b"k9"),
        ("samples/branches.json", b'"key": "', b'"key": "x'),
        ("samples/stages.json", b'"ordinal": ', b'"ordinal": 1'),
        ("seed.json", b'"seed": "', b'"seed": "x'),
    ],
)
def test_verification_script_fails_on_edited_bundle(
    bundle: Path, name: str, old: bytes, new: bytes
) -> None:
    """The script ends with an error and prints nothing to its standard output."""
    path = bundle / name
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    finished = run_script(bundle)
    assert finished.returncode != 0
    assert finished.stdout == ""
    assert "AssertionError" in finished.stderr
