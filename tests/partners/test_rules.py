"""The validation of partners.yaml."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.partners.rules import PARTNERS, PartnerRules
from include.policy import SHIPPED
from include.registry import load_pack
from tests.policy.packs import problems_of, write_pack

TITLES = {"en": "Words", "zh-CN": "文字"}


def question(**more: Any) -> dict[str, Any]:
    return {"id": "purpose", "text": TITLES, "basis": "business"} | more


def tier(**more: Any) -> dict[str, Any]:
    return {"tier": 1, "title": TITLES, "review_every": "P12M", "pass_mark": "75%"} | more


def rules(**more: Any) -> dict[str, Any]:
    content = {
        "register": {"database": "shop", "sql": "SELECT 1"},
        "owner": "management",
        "tiers": [tier()],
        "questionnaire": [question()],
    } | more
    return {key: value for key, value in content.items() if value is not None}


def write_rules(folder: Path, content: dict[str, Any]) -> Path:
    return write_pack(folder, partners=yaml.safe_dump(content, allow_unicode=True))


def load_rules(folder: Path, content: dict[str, Any]) -> PartnerRules:
    rules = load_pack(write_rules(folder, content)).section(PARTNERS)
    assert rules is not None
    return rules


def test_optional_keys_of_partners_yaml_have_defaults(tmp_path: Path) -> None:
    partner_rules = load_rules(tmp_path, rules())
    assert (partner_rules.connection, partner_rules.ladder, partner_rules.lapsed_every) == (
        "partners_db",
        (90, 30, 7),
        7,
    )
    assert (partner_rules.tell_partners, partner_rules.sub_processors) == (False, True)
    tier_rule = partner_rules.tier(1)
    assert tier_rule is not None
    assert tier_rule.pass_mark == Fraction(3, 4)
    assert partner_rules.tier(2) is None
    assert partner_rules.tier(None) is None


def test_policy_pack_without_partners_yaml_has_no_partner_rules(tmp_path: Path) -> None:
    assert load_pack(write_pack(tmp_path)).section(PARTNERS) is None


def test_each_shipped_question_has_a_legal_or_business_basis() -> None:
    partner_rules = load_pack(SHIPPED).section(PARTNERS)
    assert partner_rules is not None
    for item in partner_rules.questionnaire:
        assert item.basis == "business" or item.basis.version
    assert {item.tier for item in partner_rules.tiers} == {1, 2, 3}
    assert {item.review_every.text for item in partner_rules.tiers} == {"P12M"}


@pytest.mark.parametrize(
    ("changes", "path", "expected"),
    [
        ({"register": {"database": "bank", "sql": "x"}}, "register.database", "maps no database"),
        ({"owner": "nobody"}, "owner", "has no role 'nobody'"),
        ({"tiers": [tier(), tier()]}, "tiers[1].tier", "1 occurs twice"),
        ({"tiers": []}, "tiers", "should not be empty"),
        ({"tiers": [tier(pass_mark=0.75)]}, "tiers[0].pass_mark", "should be text"),
        ({"tiers": [tier(pass_mark="120%")]}, "tiers[0].pass_mark", "above 1"),
        ({"tiers": [tier(review_every="PT12H")]}, "tiers[0].review_every", "in days, months"),
        ({"tiers": [tier(review_every="P0M")]}, "tiers[0].review_every", "longer than zero"),
        ({"ladder": [7, 30]}, "", "ladder should fall"),
        ({"ladder": [0]}, "ladder[0]", "greater than or equal to 1"),
        ({"questionnaire": [question(), question()]}, "questionnaire[1].id", "occurs twice"),
        ({"questionnaire": [question(weight=0)]}, "questionnaire[0].weight", "greater than or"),
        ({"questionnaire": [question(text={"en": "x"})]}, "questionnaire[0].text", "zh-CN"),
        (
            {"questionnaire": [question(critical=True, may_not_apply=True)]},
            "questionnaire[0].may_not_apply",
            "a critical question always applies",
        ),
        ({"questionnaire": [question(basis="law")]}, "questionnaire[0].basis", "business"),
        ({"reminders": 3}, "reminders", "key is unknown"),
    ],
)
def test_problem_about_invalid_value_in_partners_yaml_contains_path_of_its_key(
    tmp_path: Path, changes: dict[str, Any], path: str, expected: str
) -> None:
    (problem,) = problems_of(write_rules(tmp_path, rules(**changes)))
    assert problem.file == "partners.yaml"
    assert problem.path == path
    assert expected in problem.message
