"""Tests of texts in workpapers: the frame line of an item, and the source of a question."""

from __future__ import annotations

from include.reports.i18n import Translator
from include.sampling import issue
from tests.sampling.draw_fixtures import ISSUED, committed_population, make_draw


def test_workpapers_show_line_number_of_item_in_sampling_frame() -> None:
    """In both stages, the workpapers do not show the position of an item in its stratum."""
    issued = make_draw(committed_population("intake", {"north": 60, "south": 60}, plan="staged"))
    sample = issued.samples["intake"]
    later = issue.stage_papers(issued.papers, issued.committed, issued.samples, ["intake"], ISSUED)
    items = [item for stage in (issued.papers, later) for item in stage.papers[0].items]
    assert {item.number: item.ordinal for item in items} == {
        item.number: item.line for item in sample.items
    }
    assert any(item.line != item.ordinal for item in sample.items)


def test_workpapers_cite_source_of_question() -> None:
    """The source is an article of a law, or the company's own policy."""
    own, law = (
        attribute.criterion
        for attribute in make_draw(committed_population()).papers.papers[0].attributes
    )
    english, chinese = Translator("en"), Translator("zh_CN")
    assert english.text(own) == "the company's own information protection policy"
    assert chinese.text(own) == "公司自行制定的信息保护制度"
    assert english.text(law) == "PIPL (2021-11-01), article 23"
    assert chinese.text(law) == "《个人信息保护法》（2021年11月1日起施行）第二十三条"
