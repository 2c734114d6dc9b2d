"""Tests of the notice to affected people. It cannot be sent while a required section is missing."""

from __future__ import annotations

import pytest

from include.incident.communication import notice_text
from include.incident.incident_ids import Kind
from include.incident.rule_checks import INCIDENT
from include.incident.timeline import Entry
from include.reports.i18n import Translator
from tests.incident.incident_fixtures import NIGHT, PACK, TEXTS, english
from tests.incident.time_limits.time_limit_fixtures import entry

RULES = PACK.require(INCIDENT)
CATEGORIES = ["user.contact.phone_number", "user.name", "system.operations"]


def impact(**texts: str) -> list[Entry]:
    return [entry(1, Kind.IMPACT, NIGHT, texts=TEXTS | texts)]


def test_notice_has_all_required_sections_in_both_languages() -> None:
    assert RULES is not None
    text = notice_text.create_notice_text(RULES, impact(), CATEGORIES)
    assert [english(part.title) for part in text.parts] == [
        "Your information that may be affected", "What happened", "What this may mean for you",
        "What we have done", "What you can do",
    ]  # fmt: skip
    assert [english(part.words) for part in text.parts] == [
        "name, phone number", "cause, said in en", "harm, said in en", "measures, said in en",
        "self_help, said in en",
    ]  # fmt: skip
    chinese = Translator("zh_CN", "Asia/Shanghai")
    assert chinese.text(text.parts[0].words) == "姓名、电话号码"
    assert chinese.text(text.parts[2].words) == "harm, said in zh"
    assert "privacy@courier.example" in english(text.contact)


@pytest.mark.parametrize(
    ("entries", "categories", "lacking"),
    [
        ([], CATEGORIES, ["What happened", "What this may mean for you", "What we have done",
                          "What you can do"]),
        (impact(harm_zh=""), CATEGORIES, ["What this may mean for you"]),
        (impact(harm_en="", self_help_zh=""), CATEGORIES, ["What this may mean for you",
                                                           "What you can do"]),
        (impact(), [], ["Types of information"]),
        (impact(), ["system.operations"], ["Types of information"]),
        (impact(next_steps_en=""), CATEGORIES, []),
        (impact(), CATEGORIES, []),
    ],
)  # fmt: skip
def test_create_notice_text_raises_value_error_if_required_section_is_missing(
    entries: list[Entry], categories: list[str], lacking: list[str]
) -> None:
    assert RULES is not None
    assert [english(title) for title in notice_text.missing_parts(entries, categories)] == lacking
    if lacking:
        with pytest.raises(ValueError, match=lacking[0]):
            notice_text.create_notice_text(RULES, entries, categories)
    else:
        assert notice_text.create_notice_text(RULES, entries, categories)


def test_notice_contains_newest_impact_texts_if_they_were_entered_twice() -> None:
    assert RULES is not None
    entries = [*impact(harm_en="First"), entry(2, Kind.IMPACT, NIGHT, texts=TEXTS)]
    text = notice_text.create_notice_text(RULES, entries, CATEGORIES)
    assert english(text.parts[2].words) == "harm, said in en"
