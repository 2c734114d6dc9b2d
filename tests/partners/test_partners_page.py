"""docs/partners.md: every key, finding and command is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from include.cli.partners import app
from include.partners.register import COLUMNS
from include.partners.rules import PartnerRules, Question, Register, Tier

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "partners.md").read_text(encoding="utf-8")
CODES = re.compile(r'"(partners\.(?!yaml|md)[a-z_]+)"')
OTHERS = {  # notices and figures
    "partners.reminder", "partners.contact", "partners.reminders", "partners.registered",
    "partners.live", "partners.live_blocked",
}  # fmt: skip


@pytest.mark.parametrize("model", [PartnerRules, Register, Tier, Question])
def test_every_key_is_explained(model: type[BaseModel]) -> None:
    """Each key stands as code on the page, and the figures are the code's own."""
    keys = [field.alias or name for name, field in model.model_fields.items()]
    assert [key for key in keys if f"`{key}`" not in PAGE] == []


def test_every_column_of_the_register_is_named() -> None:
    """Whoever writes the query finds them."""
    assert [one for one in COLUMNS if f"`{one}`" not in PAGE] == []


def test_every_finding_is_explained() -> None:
    """Every code stands in the code as a whole, and on the page."""
    found: set[str] = set()
    for file in sorted((ROOT / "include" / "partners").glob("*.py")):
        found |= set(CODES.findall(file.read_text(encoding="utf-8")))
    found -= OTHERS
    assert {"partners.nda_lapsed", "partners.review_reopened", "partners.nobody"} <= found
    assert [code for code in sorted(found) if f"`{code}`" not in PAGE] == []


def test_every_command_is_shown() -> None:
    """With the words that it takes."""
    names = [str(one.name) for one in app.registered_commands]
    assert [one for one in names if f"./parcelseal partners {one} " not in PAGE] == []
