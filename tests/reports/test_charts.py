"""Charts have accessible text, the colours of the page and reproducible bytes."""

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
def test_trend_chart_of_any_length_shows_every_value(values: tuple[float | None, ...]):
    """A new installation has no values or only a few."""
    texts = _texts(_trend(*values))
    for value in values:
        assert T.quantity(value, "seconds") in texts
    if not values:
        assert "未测得" in texts
    assert "要求：15 分钟" in texts


def test_trend_chart_with_many_points_has_label_of_newest_value_and_no_overlapping_dates():
    """The chart has the values of a year of weekly drills."""
    svg = _parse(_trend(*range(300, 352)))
    dates = sorted(
        float(node.get("x", 0)) for node in svg.iter("text") if (node.text or "").startswith("202")
    )
    assert len(dates) >= 4
    assert min(b - a for a, b in pairwise(dates)) > 70
    assert "5 分钟 51 秒" in _texts(_trend(*range(300, 352)))


@pytest.mark.parametrize("unit", ["bytes", "seconds", "percent", "rows", "", "widgets"])
@pytest.mark.parametrize("value", [1e-6, 0.9, 1, 59, 1023, 86_400, 5e12])
def test_trend_chart_has_few_axis_ticks_in_any_unit(unit: str, value: float):
    """The axis has a small number of ticks for values of any size."""
    texts = _texts(_trend(value, unit=unit, target=None))
    assert 4 <= len(texts) <= 10


def test_axis_ticks_start_at_zero_and_end_at_or_above_the_highest_value():
    """An axis that does not start at zero exaggerates differences."""
    for highest in (0.003, 1, 7, 99.9, 1234567):
        ticks = charts._ticks(highest)
        assert ticks[0] == 0
        assert ticks[-1] >= highest
        assert 3 <= len(ticks) <= 7


def test_bar_chart_has_hatched_bars_for_failures_and_text_not_measured_for_missing_values():
    """Bars that did not pass are hatched, and missing values are labelled."""
    svg = _bars(Bar(label="甲", value=0.5, status=Outcome.FAIL), Bar(label="乙", value=None))
    assert "<pattern" in svg
    assert "<pattern" not in _bars(Bar(label="甲", value=0.5, status=Outcome.PASS))
    assert "未测得" in _texts(svg)


def test_every_coloured_chart_element_has_a_css_class_for_the_dark_theme():
    """A shape without a class would keep its light colour on a dark page."""
    svg = _bars(Bar(label="a", value=0.5, status=Outcome.ATTENTION)) + _trend(1, 2)
    for node in _parse(f"<r>{svg}</r>").iter():
        for key in ("fill", "stroke"):
            if (colour := node.get(key, "none")) not in ("none",) and not colour.startswith("url("):
                assert colour in COLOURS.values(), ElementTree.tostring(node)
                assert f"{key}-" in node.get("class", "")
    assert "style=" not in svg


def test_chart_has_a_title_and_description_for_screen_readers():
    """The description lists the values of the chart."""
    root = _parse(_trend(310))
    assert root.get("role") == "img"
    names = {node.get("id"): node.text for node in root if node.tag in ("title", "desc")}
    assert [names[key] for key in root.get("aria-labelledby", "").split()] == [
        "How long",
        "2026-01-06 02:00 UTC+08:00：5 分钟 10 秒",
    ]


def test_html_in_chart_labels_is_escaped():
    """Labels are names that come from databases."""
    hostile = "</text><script>alert(1)</script> $\\frac{1}{2}$ \x00"
    svg = _bars(Bar(label=hostile, value=1))
    assert "<script" not in svg
    assert any("$" in text for text in _texts(svg))


def test_long_labels_are_shortened_in_the_middle():
    """Long names usually differ at both ends."""
    (label,) = [t for t in _texts(_bars(Bar(label="a" * 300 + "END", value=1))) if "…" in t]
    assert label.startswith("aaa")
    assert label.endswith("END")


def test_chart_bytes_are_the_same_in_another_process():
    """The digest of a report in sealed evidence must be reproducible."""
    code = "from tests.reports.test_charts import _trend; print(_trend(1, 2, None), end='')"
    command = [sys.executable, "-c", code]
    other = subprocess.run(command, capture_output=True, text=True, check=True)
    assert other.stdout == _trend(1, 2, None)


def test_importing_charts_does_not_import_weasyprint():
    """The import of WeasyPrint takes longer than the rendering of a report."""
    code = (
        "import sys; from tests.reports.test_charts import _trend; import include.reports.render; "
        "_trend(1, 2, None); print([m for m in ('matplotlib', 'weasyprint') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
