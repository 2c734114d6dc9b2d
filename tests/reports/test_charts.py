"""Charts: accessible text, page colours, same bytes, and right with few points."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from include.evidence.model import Outcome
from include.messages import _
from include.reports import charts
from include.reports.charts import COLOURS
from include.reports.i18n import Translator
from include.reports.model import Bar, BarChart, Target, TrendChart, TrendPoint

T = Translator("zh_CN")
START = datetime(2026, 1, 5, 18, tzinfo=UTC)
TARGET = Target(value=900, label=_("Target"))


def _trend(*values: float | None, unit: str = "seconds", target: Target | None = TARGET) -> str:
    points = [
        TrendPoint(at=START + timedelta(days=7 * week), value=value, status=Outcome.PASS)
        for week, value in enumerate(values)
    ]
    return charts.trend_chart(
        TrendChart(caption=_("How long"), unit=unit, points=points, target=target), T, "x"
    )


def _bars(*bars: Bar, target: Target | None = None, unit: str = "percent") -> str:
    chart = BarChart(
        caption=_("Coverage"), category=_("Who"), bars=list(bars), unit=unit, target=target
    )
    return charts.bar_chart(chart, T, "x")


def _parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314 - made by the code under test


def _texts(svg: str) -> list[str]:
    return [node.text or "" for node in _parse(svg).iter("text")]


@pytest.mark.parametrize(
    "values", [(), (310,), (310, 290), (0,), (None,), (310, None, 700), (0.0, 0.0)]
)
def test_a_trend_of_any_length_shows_every_value_it_has(values: tuple[float | None, ...]):
    """None, one and few points are the first weeks of every installation."""
    texts = _texts(_trend(*values))
    for value in values:
        assert T.quantity(value, "seconds") in texts
    if not values:
        assert "未测得" in texts
    assert "目标：15 分钟" in texts


def test_many_points_keep_their_texts_apart_and_the_newest_is_there():
    """A year of weekly drills."""
    svg = _parse(_trend(*range(300, 352)))
    dates = sorted(
        float(node.get("x", 0)) for node in svg.iter("text") if (node.text or "").startswith("202")
    )
    assert len(dates) >= 4
    assert min(b - a for a, b in pairwise(dates)) > 70
    assert "5 分钟 51 秒" in _texts(_trend(*range(300, 352)))


@pytest.mark.parametrize("unit", ["bytes", "seconds", "percent", "rows", "", "widgets"])
@pytest.mark.parametrize("value", [1e-6, 0.9, 1, 59, 1023, 86_400, 5e12])
def test_axes_take_any_size_and_unit(unit: str, value: float):
    """Ticks stay few, round and end above the value."""
    texts = _texts(_trend(value, unit=unit, target=None))
    assert 4 <= len(texts) <= 10


def test_the_first_tick_is_zero_and_the_last_covers_the_highest():
    """An axis that does not start at zero exaggerates."""
    for highest in (0.003, 1, 7, 99.9, 1234567):
        ticks = charts._ticks(highest)
        assert ticks[0] == 0
        assert ticks[-1] >= highest
        assert 3 <= len(ticks) <= 7


def test_outcomes_differ_without_colour():
    """Failed bars are hatched, and a missing one is said to be missing."""
    svg = _bars(Bar(label="甲", value=0.5, status=Outcome.FAIL), Bar(label="乙", value=None))
    assert "<pattern" in svg
    assert "<pattern" not in _bars(Bar(label="甲", value=0.5, status=Outcome.PASS))
    assert "未测得" in _texts(svg)


def test_every_colour_has_a_class_for_the_page_to_theme():
    """A colour without class would stay light on a dark page."""
    svg = _bars(Bar(label="a", value=0.5, status=Outcome.ATTENTION)) + _trend(1, 2)
    for node in _parse(f"<r>{svg}</r>").iter():
        for key in ("fill", "stroke"):
            if (colour := node.get(key, "none")) not in ("none",) and not colour.startswith("url("):
                assert colour in COLOURS.values(), ElementTree.tostring(node)
                assert f"{key}-" in node.get("class", "")
    assert "style=" not in svg


def test_a_chart_is_named_and_described_for_screen_readers():
    """The description holds the figures."""
    root = _parse(_trend(310))
    assert root.get("role") == "img"
    names = {node.get("id"): node.text for node in root if node.tag in ("title", "desc")}
    assert [names[key] for key in root.get("aria-labelledby", "").split()] == [
        "How long",
        "2026-01-06 02:00 UTC+08:00：5 分钟 10 秒",
    ]


def test_labels_are_text_not_markup_or_formulas():
    """Names come from databases."""
    hostile = "</text><script>alert(1)</script> $\\frac{1}{2}$ \x00"
    svg = _bars(Bar(label=hostile, value=1))
    assert "<script" not in svg
    assert any("$" in text for text in _texts(svg))


def test_very_long_labels_are_cut_in_the_middle():
    """Both ends tell names apart."""
    (label,) = [t for t in _texts(_bars(Bar(label="a" * 300 + "END", value=1))) if "…" in t]
    assert label.startswith("aaa")
    assert label.endswith("END")


def test_the_same_chart_gives_the_same_bytes_in_another_process():
    """Sealed evidence is compared by hash."""
    code = "from tests.reports.test_charts import _trend; print(_trend(1, 2, None), end='')"
    command = [sys.executable, "-c", code]
    other = subprocess.run(command, capture_output=True, text=True, check=True)
    assert other.stdout == _trend(1, 2, None)


def test_weasyprint_is_imported_by_no_caller():
    """Its import takes longer than a whole report; matplotlib draws nothing."""
    code = (
        "import sys; from tests.reports.test_charts import _trend; import include.reports.render; "
        "_trend(1, 2, None); print([m for m in ('matplotlib', 'weasyprint') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
