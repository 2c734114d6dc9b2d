"""Tests that the documentation explains every key, column and finding of training."""

from __future__ import annotations

import re
from pathlib import Path

from include.training.rules import Ladder, TrainingRules
from include.training.sources import COLUMNS

ROOT = Path(__file__).parents[2]
PAGES = ("explanation/training.md", "reference/policy-pack/training.md")
EXPLANATION, REFERENCE = ((ROOT / "docs" / page).read_text(encoding="utf-8") for page in PAGES)
PAGE = EXPLANATION + REFERENCE
CODES = re.compile(r'"(training\.(?!yaml|md)[a-z_]+)"')
NOT_FINDINGS = {  # kinds of notifications, metrics, and the name of the rules file
    "training.yaml",
    "training.reminder",
    "training.copy",
    "training.department",
    "training.people",
    "training.overdue",
}


def test_documentation_page_contains_every_key_of_training_yaml_and_ladder_defaults():
    keys = [name for name in TrainingRules.model_fields if name != "ladder"]
    keys += [f"ladder.{name}" for name in Ladder.model_fields]
    assert [key for key in keys if f"`{key}`" not in PAGE] == []
    rows = dict(re.findall(r"^\| `ladder\.(\w+)` \| [^|]* \| [^|]* \| `([^`]+)` \|", PAGE, re.M))
    assert rows == {
        name: str(list(value) if isinstance(value, tuple) else value)
        for name, value in Ladder().model_dump().items()
    }


def test_documentation_page_contains_every_column_of_each_training_source():
    for name, columns in COLUMNS.items():
        [row] = re.findall(rf"^\| `{name}` \| (.*) \|$", EXPLANATION, re.M)
        assert [column for column in columns if f"`{column}`" not in row] == [], name


def test_documentation_page_contains_every_finding_code_of_training():
    codes: set[str] = set()
    for file in sorted((ROOT / "include" / "training").glob("*.py")):
        codes |= set(CODES.findall(file.read_text(encoding="utf-8")))
    assert "training.twice" in codes
    assert [code for code in sorted(codes - NOT_FINDINGS) if f"`{code}`" not in PAGE] == []
