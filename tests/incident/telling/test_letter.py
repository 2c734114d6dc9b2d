"""The letter to affected people has all that the law asks for; what is missing blocks it."""

from __future__ import annotations

import pytest

from include.incident.names import Kind
from include.incident.rule_checks import INCIDENT
from include.incident.telling import letter
from include.incident.timeline import Entry
from include.reports.i18n import Translator
from tests.incident.clocks.clock_rig import entry
from tests.incident.desk_rig import NIGHT, PACK, TEXTS, english

RULES = PACK.require(INCIDENT)
CATEGORIES = ["user.contact.phone_number", "user.name", "system.operations"]


def impact(**texts: str) -> list[Entry]:
    return [entry(1, Kind.IMPACT, NIGHT, texts=TEXTS | texts)]


def test_a_letter_has_every_part_of_the_law_in_both_languages() -> None:
    """Types, cause, harm, remedy, what people can do, contact (PIPL 57)."""
    assert RULES is not None
    made = letter.letter_text(RULES, impact(), CATEGORIES)
    assert [english(one.title) for one in made.parts] == [
        "Which information of yours may be affected", "What happened", "What may come of it",
        "What we have done", "What you can do",
    ]  # fmt: skip
    assert [english(one.words) for one in made.parts] == [
        "name, phone number", "cause, said in en", "harm, said in en", "measures, said in en",
        "self_help, said in en",
    ]  # fmt: skip
    chinese = Translator("zh_CN", "Asia/Shanghai")
    assert chinese.text(made.parts[0].words) == "姓名、电话号码"
    assert chinese.text(made.parts[2].words) == "harm, said in zh"
    assert "privacy@courier.example" in english(made.contact)


@pytest.mark.parametrize(
    ("entries", "categories", "lacking"),
    [
        ([], CATEGORIES, ["What happened", "What may come of it", "What we have done",
                          "What you can do"]),
        (impact(harm_zh=""), CATEGORIES, ["What may come of it"]),
        (impact(harm_en="", self_help_zh=""), CATEGORIES, ["What may come of it",
                                                           "What you can do"]),
        (impact(), [], ["Types of information"]),
        (impact(), ["system.operations"], ["Types of information"]),
        (impact(next_steps_en=""), CATEGORIES, []),
        (impact(), CATEGORIES, []),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_and_blocks_it(
    entries: list[Entry], categories: list[str], lacking: list[str]
) -> None:
    """One language is not enough: people are told in both."""
    assert RULES is not None
    assert [english(one) for one in letter.missing(entries, categories)] == lacking
    if lacking:
        with pytest.raises(ValueError, match=lacking[0]):
            letter.letter_text(RULES, entries, categories)
    else:
        assert letter.letter_text(RULES, entries, categories)


def test_words_that_were_written_anew_are_those_of_the_letter() -> None:
    """The newest of them."""
    assert RULES is not None
    entries = [*impact(harm_en="First"), entry(2, Kind.IMPACT, NIGHT, texts=TEXTS)]
    made = letter.letter_text(RULES, entries, CATEGORIES)
    assert english(made.parts[2].words) == "harm, said in en"
