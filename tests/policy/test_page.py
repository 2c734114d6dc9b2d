"""The documentation pages about the policy pack: examples work, and named categories exist."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

from include.policy import SHIPPED
from include.registry import load_pack
from include.service_container import ROOT
from tests.policy.packs import problem_lines, write_pack

HOW_TO = (ROOT / "docs" / "how-to" / "write-a-policy-pack.md").read_text(encoding="utf-8")
EXPLANATION = (ROOT / "docs" / "explanation" / "policy-pack.md").read_text(encoding="utf-8")
DATA_MAP = (ROOT / "docs" / "reference" / "policy-pack" / "datamap.md").read_text(encoding="utf-8")
EXAMPLES = [dedent(text) for text in re.findall(r"^ *```yaml\n(.*?)^ *```", HOW_TO, re.S | re.M)]


def test_yaml_examples_of_the_how_to_page_are_a_valid_policy_pack(tmp_path: Path) -> None:
    """The YAML examples of the page load, and the page quotes the error of its faulty example."""
    shop, company, backup, evidence, controls, quality, purposes, retention, *rest = EXAMPLES
    disposition, operations = rest
    files = {"company": company, "backup": backup, "evidence": evidence, "controls": controls}
    files |= {"retention": retention, "disposition": disposition, "operations": operations}
    files |= {"quality__customer": quality, "purposes": purposes}
    pack = load_pack(write_pack(tmp_path, datamap__shop=shop, **files))
    assert pack.company is not None
    assert pack.company.name["en"] == "Example Shop Ltd."
    assert pack.backup.keep.daily == 14
    assert pack.evidence.keep.months == 120
    assert [each.record_class for each in pack.retention] == ["order", "contact"]
    assert pack.disposition.limit.percent == 2
    assert str(pack.operations.of("backup_offsite").time_limit) == "PT4H"
    assert [each.id for each in pack.suites[0].expectations] == ["invalid_mobile"]
    assert pack.remarks == ()
    wrong = shop.replace("user.contact.phone_number", "user.phone")
    [line] = problem_lines(write_pack(tmp_path, datamap__shop=wrong))
    assert line in HOW_TO


def test_explanation_page_states_the_correct_folder_of_the_shipped_pack() -> None:
    assert "`include/policy/pack/`" in EXPLANATION
    assert SHIPPED.as_posix().endswith("include/policy/pack")


def test_data_categories_on_the_data_map_page_exist_in_the_fides_taxonomy() -> None:
    from fideslang.default_taxonomy import DEFAULT_TAXONOMY

    categories = {category.fides_key for category in DEFAULT_TAXONOMY.data_category}
    text = DATA_MAP.partition("## Data categories")[2]
    named = set(re.findall(r"`((?:user|system)\.[\w.]+)`", text))
    below = {f"user.contact.address{ending}" for ending in re.findall(r"`(\.\w+)`", text)}
    assert len(named) > 10
    assert len(below) == 5
    assert named | below <= categories
