"""Tests that sub-processors outside of China are reported, however their country is spelled."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from include.messages import in_english
from include.partners import reviews
from include.partners.history import country_list, outside_china
from include.partners.questionnaire import SubProcessor
from include.reports.i18n import Translator
from tests.partners.partner_fixtures import PartnersCompany, codes
from tests.partners.questionnaire_workbooks import answered_workbook


def sub_processors_in(*countries: str) -> list[SubProcessor]:
    return [
        SubProcessor(f"Company {index}", country, "hosting")
        for index, country in enumerate(countries)
    ]


@pytest.mark.parametrize(
    "country",
    ["China", "CHINA", " ＣＮ ", "cn", "PRC", "P. R. China", "中国", "中 国", "中华人民共和国",
     "中国大陆", "People’s Republic of China"],
)  # fmt: skip
def test_company_in_china_is_recognised_by_any_name_of_china(country: str) -> None:
    assert outside_china(sub_processors_in(country)) == []


@pytest.mark.parametrize("country", ["Singapore", "中国香港", "Hong Kong, China", "US"])
def test_company_with_any_other_country_counts_as_outside_china(country: str) -> None:
    assert [
        sub_processor.country for sub_processor in outside_china(sub_processors_in("CN", country))
    ] == [country]


def test_country_list_has_each_country_once_and_at_most_five() -> None:
    assert in_english(country_list(sub_processors_in("Japan", "ＪＡＰＡＮ", "US"))) == "Japan, US"
    assert in_english(country_list(sub_processors_in(*"ABCDEFG"))) == "A, B, C, D, E, …"


def complete_review_with(
    company: PartnersCompany, code: str, sub_processors: Sequence[Sequence[str]]
) -> None:
    """Pass a review in which every answer is yes and which names the given sub-processors."""
    review = company.issue(code)
    assert review.issued is not None
    content = answered_workbook(review.issued, sub_processors=sub_processors, on=company.today)
    with company.state.begin() as conn:
        reviews.accept_questionnaire(conn, content, "x.xlsx", by="E1", at=company.now)
    company.decide(code, passed=True)


def test_check_reports_sub_processors_outside_china_only_for_partners_with_access(
    company: PartnersCompany,
) -> None:
    sub_processors = (
        ("A", "CN", "x"),
        ("B", "Singapore", "x"),
        ("C", "US", "x"),
        ("D", "singapore", "x"),
    )
    company.add_partner("1")
    company.add_partner("2")
    company.add_partner("3", connected=False)
    complete_review_with(company, "1", sub_processors)
    complete_review_with(company, "2", sub_processors[:1])
    complete_review_with(company, "3", sub_processors)
    record = company.check()
    assert codes(record) == [("partners.sub_processor_abroad", "attention", "1")]
    (finding,) = record.findings
    assert Translator("en").text(finding.message) == (
        "In the questionnaire, 3 sub-processors have a country or region other than mainland "
        "China (Singapore, US)."
    )
    assert "Singapore、US" in Translator("zh_CN").text(finding.message)
    complete_review_with(company, "1", sub_processors[:1])
    assert codes(company.check()) == []
