"""The script of docs/audit.md, which needs Python alone, on bundles that ParcelSeal made."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from include.sampling.samples import Sample
from tests.sampling.rig import Rig, by_branch, population
from tests.sampling.test_audit_page import script

ODD = r"""
SELECT 'k' || g || (ARRAY['', E'\t', E'\n', E'\\', E'\\n', E'\r', '中', ',', '"', E'\b\f\v'])[g % 10 + 1] AS id,
    (ARRAY[E'a\\b', E'tab\there', '北京', ''])[g % 4 + 1] AS stratum
FROM generate_series(1, 400) AS g
"""  # noqa: E501


@pytest.fixture(scope="module")
def drawn(shop: Rig) -> Path:
    """A sealed bundle of odd ids, strata and stages, and of a census."""
    shop.empty()
    shop.audit(
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


def ran(folder: Path) -> subprocess.CompletedProcess[str]:
    """The script as an outsider runs it: in a file, without anything that is installed."""
    file = folder.parent / "check.py"
    file.write_text(script())
    command = [sys.executable, "-I", "-S", str(file), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_script_draws_the_same_items(bundle: Path) -> None:
    """Whatever ids and strata hold, and where two stages need every item."""
    found = ran(bundle)
    assert found.returncode == 0, found.stderr
    assert found.stdout == (
        "the same items are drawn again: openings, branches, stages, halves, whole\n"
    )
    halves = Sample.model_validate_json((bundle / "samples/halves.json").read_bytes())
    assert len(halves.items) == 16
    assert {one.line for one in halves.of_stage(1)} != set(range(1, 9))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("frames/openings.tsv", b"k1", b"k9"),
        ("samples/branches.json", b'"key": "', b'"key": "x'),
        ("samples/stages.json", b'"ordinal": ', b'"ordinal": 1'),
        ("seed.json", b'"seed": "', b'"seed": "x'),
    ],
)
def test_the_script_notices_an_edit(bundle: Path, name: str, old: bytes, new: bytes) -> None:
    """It ends with an error, and says nothing else."""
    path = bundle / name
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    found = ran(bundle)
    assert found.returncode != 0
    assert found.stdout == ""
    assert "AssertionError" in found.stderr
