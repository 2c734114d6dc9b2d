"""partners.yaml: every mistake at once, each with its file, line and path."""

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

BOTH = {"en": "Words", "zh-CN": "文字"}


def question(**more: Any) -> dict[str, Any]:
    return {"id": "purpose", "text": BOTH, "basis": "business"} | more


def tier(**more: Any) -> dict[str, Any]:
    return {"tier": 1, "title": BOTH, "review_every": "P12M", "pass_mark": "75%"} | more


def rules(**more: Any) -> dict[str, Any]:
    given = {
        "register": {"database": "shop", "sql": "SELECT 1"},
        "owner": "management",
        "tiers": [tier()],
        "questionnaire": [question()],
    } | more
    return {key: value for key, value in given.items() if value is not None}


def written(folder: Path, given: dict[str, Any]) -> Path:
    return write_pack(folder, partners=yaml.safe_dump(given, allow_unicode=True))


def loaded(folder: Path, given: dict[str, Any]) -> PartnerRules:
    found = load_pack(written(folder, given)).section(PARTNERS)
    assert found is not None
    return found


def test_another_companys_partners_load_with_their_defaults(tmp_path: Path) -> None:
    """Nothing of the sample's names is needed."""
    found = loaded(tmp_path, rules())
    assert (found.connection, found.ladder, found.lapsed_every) == ("partners_db", (90, 30, 7), 7)
    assert (found.tell_partners, found.sub_processors) == (False, True)
    one = found.tier(1)
    assert one is not None
    assert one.pass_mark == Fraction(3, 4)
    assert found.tier(2) is None
    assert found.tier(None) is None


def test_a_pack_without_the_file_has_no_partners(tmp_path: Path) -> None:
    """The shipped one never stands in: it names the sample's tables."""
    assert load_pack(write_pack(tmp_path)).section(PARTNERS) is None


def test_the_shipped_questionnaire_names_the_source_of_every_question() -> None:
    """What the law asks for and what is the company's own is told apart, with the edition."""
    found = load_pack(SHIPPED).section(PARTNERS)
    assert found is not None
    for one in found.questionnaire:
        assert one.basis == "business" or one.basis.version
    assert {one.tier for one in found.tiers} == {1, 2, 3}
    assert {one.review_every.text for one in found.tiers} == {"P12M"}


@pytest.mark.parametrize(
    ("given", "path", "said"),
    [
        ({"register": {"database": "bank", "sql": "x"}}, "register.database", "maps no database"),
        ({"owner": "nobody"}, "owner", "has no role 'nobody'"),
        ({"tiers": [tier(), tier()]}, "tiers[1].tier", "1 stands twice"),
        ({"tiers": []}, "tiers", "should not be empty"),
        ({"tiers": [tier(pass_mark=0.75)]}, "tiers[0].pass_mark", "should be text"),
        ({"tiers": [tier(pass_mark="120%")]}, "tiers[0].pass_mark", "above 1"),
        ({"tiers": [tier(review_every="PT12H")]}, "tiers[0].review_every", "in days, months"),
        ({"tiers": [tier(review_every="P0M")]}, "tiers[0].review_every", "longer than nothing"),
        ({"ladder": [7, 30]}, "", "ladder should fall"),
        ({"ladder": [0]}, "ladder[0]", "greater than or equal to 1"),
        ({"questionnaire": [question(), question()]}, "questionnaire[1].id", "stands twice"),
        ({"questionnaire": [question(weight=0)]}, "questionnaire[0].weight", "greater than or"),
        ({"questionnaire": [question(text={"en": "x"})]}, "questionnaire[0].text", "zh-CN"),
        (
            {"questionnaire": [question(critical=True, may_not_apply=True)]},
            "questionnaire[0].may_not_apply",
            "a critical question always applies",
        ),
        ({"questionnaire": [question(basis="law")]}, "questionnaire[0].basis", "business"),
        ({"reminders": 3}, "reminders", "not known here"),
    ],
)
def test_a_mistake_is_named_with_its_place(
    tmp_path: Path, given: dict[str, Any], path: str, said: str
) -> None:
    """One problem for one mistake."""
    (one,) = problems_of(written(tmp_path, rules(**given)))
    assert one.file == "partners.yaml"
    assert one.path == path
    assert said in one.message
