"""docs/audit.md: every key and finding is there, and its script draws a sample again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from include.policy.rules import Rule
from include.sampling.rules import Attribute, AuditRules, Population, Seed

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
CODES = re.compile(r'"(sampling\.[a-z_]+)"')


@pytest.mark.parametrize("model", [AuditRules, Seed, Population, Attribute])
def test_every_key_is_explained(model: type[BaseModel]) -> None:
    """Each key of the models stands as code on the page."""
    assert issubclass(model, Rule)
    prefix = "seed." if model is Seed else ""
    absent = [
        name
        for name in model.model_fields
        if f"`{prefix}{name}`" not in PAGE and name not in ("seed",)
    ]
    assert not absent


def test_every_finding_is_explained() -> None:
    """With its outcome."""
    found = set()
    for file in sorted((ROOT / "include" / "sampling").glob("*.py")):
        found |= set(CODES.findall(file.read_text(encoding="utf-8")))
    figures = {
        "sampling.population",
        "sampling.populations_committed",
        "sampling.items_drawn",
        "sampling.populations_concluded",
        "sampling.populations_not_accepted",
        "sampling.findings_open",
    }
    absent = [code for code in sorted(found - figures) if f"`{code}`" not in PAGE]
    assert not absent


def script() -> str:
    """The script that draws a bundle again."""
    [found] = re.findall(r"```python\n(import hashlib, json, pathlib, sys\n.*?)```", PAGE, re.S)
    return str(found)


def test_the_script_needs_the_standard_library_alone() -> None:
    """Nothing else is imported."""
    imports = [line for line in script().splitlines() if "import" in line]
    assert imports == ["import hashlib, json, pathlib, sys"]


def test_the_page_says_how_it_is_run_by_hand() -> None:
    """Each command, and how the digest that was written down is computed."""
    for words in (
        "./parcelseal run sample_audit --answer 'seed=Enter:",
        "./parcelseal sampling return workpapers.xlsx --by NAME",
        "./parcelseal run conclude_audit",
        "sha256sum commitment.json",
    ):
        assert words in PAGE
