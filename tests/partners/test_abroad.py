"""Sub-processors outside of China are told, however the country is written."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from include.partners import reviews
from include.partners.history import abroad, countries
from include.partners.questionnaire import SubProcessor
from include.reports.i18n import Translator
from tests.partners.books import answered
from tests.partners.rig import Rig, codes


def named(*where: str) -> list[SubProcessor]:
    return [SubProcessor(f"Company {at}", one, "hosting") for at, one in enumerate(where)]


@pytest.mark.parametrize(
    "country",
    ["China", "CHINA", " ＣＮ ", "cn", "PRC", "P. R. China", "中国", "中 国", "中华人民共和国",
     "中国大陆", "People’s Republic of China"],
)  # fmt: skip
def test_china_is_known_by_its_names(country: str) -> None:
    """Whatever their case, width and blanks."""
    assert abroad(named(country)) == []


@pytest.mark.parametrize("country", ["Singapore", "中国香港", "Hong Kong, China", "US"])
def test_everything_else_is_told(country: str) -> None:
    """What is not recognised counts as abroad."""
    assert [one.country for one in abroad(named("CN", country))] == [country]


def test_countries_are_named_once_and_not_without_end() -> None:
    """As they were written first; a list of a hundred does not fill a report."""
    assert countries(named("Japan", "ＪＡＰＡＮ", "US")) == "Japan, US"
    assert countries(named(*"ABCDEFG")) == "A, B, C, D, E, …"


def pass_with(rig: Rig, code: str, others: Sequence[Sequence[str]]) -> None:
    """A review that passes with every answer yes, "stored in China" too."""
    review = rig.issue(code)
    assert review.issued is not None
    content = answered(review.issued, others=others, on=rig.today)
    with rig.state.begin() as conn:
        reviews.hand_in(conn, content, "x.xlsx", by="E1", at=rig.now)
    rig.decide(code, passed=True)


def test_a_run_tells_of_each_partner_with_access(rig: Rig) -> None:
    """Once a partner, with how many and where; until a later review passes without any."""
    others = (("A", "CN", "x"), ("B", "Singapore", "x"), ("C", "US", "x"), ("D", "singapore", "x"))
    rig.ally("1")
    rig.ally("2")
    rig.ally("3", connected=False)
    pass_with(rig, "1", others)
    pass_with(rig, "2", others[:1])
    pass_with(rig, "3", others)
    record = rig.check()
    assert codes(record) == [("partners.sub_processor_abroad", "attention", "1")]
    (found,) = record.findings
    assert Translator("en").text(found.message) == (
        "Company 1: sub-processors that are not given as in China: 3 (Singapore, US)."
    )
    assert "Singapore, US" in Translator("zh_CN").text(found.message)
    pass_with(rig, "1", others[:1])
    assert codes(rig.check()) == []
