"""The page docs/explanation/partners.md explains every key, finding and command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from include.cli.partners import app
from include.partners.register import COLUMNS
from include.partners.rules import PartnerRules, Question, Register, Tier

ROOT = Path(__file__).parents[2]
PAGES = (
    "explanation/partners.md",
    "how-to/review-a-partner.md",
    "reference/policy-pack/partners.md",
)
PAGE = "\n".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in PAGES)
CODES = re.compile(r'"(partners\.(?!yaml|md)[a-z_]+)"')
NOT_FINDINGS = {  # kinds of notifications, and metrics
    "partners.reminder", "partners.contact", "partners.reminders", "partners.registered",
    "partners.live", "partners.live_blocked",
}  # fmt: skip


@pytest.mark.parametrize("model", [PartnerRules, Register, Tier, Question])
def test_partners_page_explains_every_key_of_partners_yaml(model: type[BaseModel]) -> None:
    keys = [field.alias or name for name, field in model.model_fields.items()]
    explained = {key.rpartition(".")[2] for key in re.findall(r"^\| `([^`]+)` \|", PAGE, re.M)}
    assert [key for key in keys if key not in explained] == []


def test_partners_page_describes_every_column_of_the_register() -> None:
    assert [column for column in COLUMNS if f"`{column}`" not in PAGE] == []


def test_partners_page_explains_every_finding_code() -> None:
    codes: set[str] = set()
    for file in sorted((ROOT / "include" / "partners").glob("*.py")):
        codes |= set(CODES.findall(file.read_text(encoding="utf-8")))
    codes -= NOT_FINDINGS
    assert {"partners.nda_lapsed", "partners.review_reopened", "partners.nobody"} <= codes
    assert [code for code in sorted(codes) if f"`{code}`" not in PAGE] == []


def test_partners_page_shows_every_command() -> None:
    names = [str(command.name) for command in app.registered_commands]
    assert [name for name in names if f"./parcelseal partners {name} " not in PAGE] == []
