"""Tests of the docs pages about audits: keys, finding codes, and the verification script."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from include.policy.rules import Rule
from include.sampling.rules import Attribute, AuditRules, Population, Seed

ROOT = Path(__file__).parents[2]
PAGES = [
    "explanation/audit.md",
    "how-to/conclude-an-audit.md",
    "how-to/verify-a-sample.md",
    "reference/audit-findings.md",
]
PAGE = "\n".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in PAGES)
CODES = re.compile(r'"(sampling\.[a-z_]+)"')


@pytest.mark.parametrize("model", [AuditRules, Seed, Population, Attribute])
def test_reference_page_has_every_key_of_audit_yaml(model: type[BaseModel]) -> None:
    """The reference page of audit.yaml has a row for each field of the rule models."""
    assert issubclass(model, Rule)
    page = (ROOT / "docs" / "reference" / "policy-pack" / "audit.md").read_text(encoding="utf-8")
    keys = {key.rpartition(".")[2] for key in re.findall(r"^\| `([^`]+)` \|", page, re.M)}
    assert set(model.model_fields) <= keys


def test_docs_have_every_finding_code() -> None:
    codes = set()
    for file in sorted((ROOT / "include" / "sampling").glob("*.py")):
        codes |= set(CODES.findall(file.read_text(encoding="utf-8")))
    figures = {
        "sampling.population",
        "sampling.populations_committed",
        "sampling.items_drawn",
        "sampling.populations_concluded",
        "sampling.populations_not_accepted",
        "sampling.findings_open",
    }
    absent = [code for code in sorted(codes - figures) if f"`{code}`" not in PAGE]
    assert not absent


def script() -> str:
    """Return the script on the docs page that repeats the draw of a bundle."""
    [source] = re.findall(r"```python\n(import hashlib, json, pathlib, sys\n.*?)```", PAGE, re.S)
    return str(source)


def test_verification_script_imports_standard_library_only() -> None:
    imports = [line for line in script().splitlines() if "import" in line]
    assert imports == ["import hashlib, json, pathlib, sys"]


def test_docs_have_commands_to_run_an_audit_by_hand() -> None:
    """The commands include the one that computes the digest of the commitment."""
    for words in (
        "./parcelseal run sample_audit --answer 'seed=Enter:",
        "./parcelseal sampling return workpapers.xlsx --by NAME",
        "./parcelseal run conclude_audit",
        "sha256sum commitment.json",
    ):
        assert words in PAGE
