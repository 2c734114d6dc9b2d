"""Pictures of the pages have text alternatives, marks beside colours, and stay small."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.evidence.model import Outcome
from include.messages import _
from include.reports.i18n import Translator
from include.reports.pictures import (
    TONES,
    Column,
    HeatRow,
    Span,
    StackedBar,
    columns,
    donut,
    heat_map,
    stacked_bars,
    time_line,
)

EN, ZH = Translator("en"), Translator("zh_CN")
ZONE = ZoneInfo("Asia/Shanghai")
SVG = "{http://www.w3.org/2000/svg}"
OUTCOMES = [*Outcome, None]
WEEKS = [date(2026, 1, 4) + timedelta(weeks=week) for week in range(53)]


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314 - made by the code under test


def description(svg: str) -> str:
    return parsed(svg).findtext("desc") or ""


def tones(svg: str) -> list[str]:
    return [path.get("class", "") for path in parsed(svg).iter("path")]


def test_donut_states_each_outcome_with_its_number() -> None:
    counts = {Outcome.PASS: 15, Outcome.ATTENTION: 2, Outcome.FAIL: 4, None: 1}
    svg = donut(counts, _("Outcomes of the controls"), EN, "x")
    assert description(svg).split("\n") == [
        "Passed: 15", "Needs attention: 2", "Failed: 4", "No evidence yet: 1",
    ]  # fmt: skip
    assert [node.text for node in parsed(svg).iter("text")] == ["15 of 22", "controls passed"]
    assert {tone for tone in tones(svg) if tone.startswith("fill")} == {
        "fill-pass", "fill-attention", "fill-fail", "fill-none",
    }  # fmt: skip


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_donut_of_a_single_outcome_is_a_whole_ring(outcome: Outcome | None) -> None:
    svg = donut({outcome: 7}, _("Outcomes of the controls"), ZH, "x")
    (ring,) = [path for path in parsed(svg).iter("path") if "fill-" in path.get("class", "")]
    assert (ring.get("d") or "").count("A") == 4


@given(st.lists(st.lists(st.sampled_from(OUTCOMES), min_size=53, max_size=53), max_size=14))
def test_heat_map_has_one_cell_for_each_outcome_and_stays_small(
    rows: list[list[Outcome | None]],
) -> None:
    svg = heat_map(
        [HeatRow(f"4.{n}", row) for n, row in enumerate(rows)], WEEKS, _("Look"), EN, "x"
    )
    areas = [path for path in parsed(svg).iter("path") if "fill-" in path.get("class", "")]
    assert sum((path.get("d") or "").count("M") for path in areas) == 53 * len(rows)
    assert len(areas) <= 4
    assert len(svg) < 60_000


def test_heat_map_marks_failed_and_late_cells_without_colours() -> None:
    rows = [HeatRow("4.1", [Outcome.PASS, Outcome.ATTENTION, Outcome.FAIL, None])]
    svg = heat_map(rows, WEEKS[:4], _("Look"), EN, "x")
    marks = [path.get("d") or "" for path in parsed(svg).iter("path") if path.get("fill") == "none"]
    assert [mark.count("l") for mark in marks] == [1, 2]
    assert description(svg) == (
        "4.1: Passed from 2026-01-04; Needs attention from 2026-01-11; Failed from 2026-01-18; "
        "No evidence yet from 2026-01-25"
    )


def test_columns_never_round_a_share_up_to_100_percent() -> None:
    bars = [Column("2026 Q1", None), Column("2026 Q2", 0.999), Column("2026 Q3", 1.0)]
    texts = [node.text for node in parsed(columns(bars, _("Look"), EN, "x")).iter("text")]
    assert texts.count("100%") == 2  # the axis and the third quarter
    assert "99%" in texts
    assert "–" in texts


def test_stacked_bars_state_the_number_of_each_part() -> None:
    parts = (_("open for up to 30 days"), _("31 to 90 days"), _("more than 90 days"))
    bars = [StackedBar("<b>Owner</b>", (3, 0, 2)), StackedBar("Other", (1, 1, 0))]
    svg = stacked_bars(bars, parts, _("Look"), EN, "x")
    assert "<b>" not in svg
    assert description(svg).startswith("<b>Owner</b>: open for up to 30 days: 3, 31 to 90 days: 0")
    assert [node.text for node in parsed(svg).iter("text")][1::2] == ["5", "2"]


def test_time_line_draws_worse_outcomes_higher_and_gives_periods_as_text() -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    ends = [begin + timedelta(days=day) for day in (0, 10, 10.01, 40)]
    spans = [
        Span(ends[number], ends[number + 1], outcome)
        for number, outcome in enumerate([Outcome.PASS, Outcome.ATTENTION, Outcome.FAIL])
    ]
    svg = time_line(spans, _("Look"), ZH, ZONE, "x")
    assert description(svg).split("\n")[2] == "2026-01-11 至 2026-02-10：未通过"
    assert "--" not in svg  # a mark in a narrow period would have a negative size
    heights = [
        float((path.get("d") or "").split("v")[1].split("h")[0])
        for path in parsed(svg).iter("path")
        if "fill-" in path.get("class", "")
    ]
    assert heights == sorted(heights)


def test_tones_of_pictures_equal_the_variables_of_the_style_sheet() -> None:
    from pathlib import Path

    sheet = Path(__file__).parents[2] / "plugins" / "compliance_ui" / "assets" / "pages.css"
    light = sheet.read_text().partition("@media")[0]
    for tone, colour in TONES.items():
        assert f"--{tone}: {colour};" in light, tone
