"""docs/training.md: every key, column and finding is there."""

from __future__ import annotations

import re
from pathlib import Path

from include.training.rules import Ladder, TrainingRules
from include.training.sources import COLUMNS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
CODES = re.compile(r'"(training\.(?!yaml|md)[a-z_]+)"')
NO_FINDINGS = {  # kinds of notices, figures, the file
    "training.yaml",
    "training.reminder",
    "training.copy",
    "training.department",
    "training.people",
    "training.overdue",
}


def test_every_key_is_explained_with_its_default():
    """Each key of the models stands as code on the page."""
    keys = [name for name in TrainingRules.model_fields if name != "ladder"]
    keys += [f"ladder.{name}" for name in Ladder.model_fields]
    assert [one for one in keys if f"`{one}`" not in PAGE] == []
    rows = dict(re.findall(r"^\| `ladder\.(\w+)` \| `([^`]+)` \|", PAGE, re.M))
    assert rows == {
        name: str(list(value) if isinstance(value, tuple) else value)
        for name, value in Ladder().model_dump().items()
    }


def test_every_column_is_explained():
    """Of each of the three sources."""
    for name, columns in COLUMNS.items():
        [row] = re.findall(rf"^\| `{name}` \| (.*) \|$", PAGE, re.M)
        assert [one for one in columns if f"`{one}`" not in row] == [], name


def test_every_finding_is_explained():
    """A code in a report leads to its meaning."""
    found: set[str] = set()
    for file in sorted((ROOT / "include" / "training").glob("*.py")):
        found |= set(CODES.findall(file.read_text(encoding="utf-8")))
    assert "training.twice" in found
    assert [one for one in sorted(found - NO_FINDINGS) if f"`{one}`" not in PAGE] == []
