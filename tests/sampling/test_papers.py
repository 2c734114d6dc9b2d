"""Workpapers say where an item stands in the frame, and what the source of a question is."""

from __future__ import annotations

from include.reports.i18n import Translator
from include.sampling import issue
from tests.sampling.drawn import ISSUED, committed, draw


def test_an_item_has_its_line_of_the_frame_not_its_place_in_the_stratum() -> None:
    """Whoever looks it up finds it there, in the second stage too."""
    made = draw(committed("intake", {"north": 60, "south": 60}, plan="staged"))
    sample = made.samples["intake"]
    later = issue.stage_papers(made.papers, made.committed, made.samples, ["intake"], ISSUED)
    told = [one for of_stage in (made.papers, later) for one in of_stage.papers[0].items]
    assert {one.number: one.ordinal for one in told} == {
        one.number: one.line for one in sample.items
    }
    assert any(one.line != one.ordinal for one in sample.items)


def test_the_source_of_a_question_is_cited() -> None:
    """A law by its article, the company's own rule as such."""
    own, law = (one.criterion for one in draw(committed()).papers.papers[0].attributes)
    english, chinese = Translator("en"), Translator("zh_CN")
    assert english.text(own) == "the company's own information protection policy"
    assert chinese.text(own) == "公司自行制定的信息保护制度"
    assert english.text(law) == "PIPL (2021-11-01), article 23"
    assert chinese.text(law) == "《个人信息保护法》（2021-11-01）第 23 条"
