"""Draw the charts of reports as inline SVG with selectable text and reproducible bytes.

This module computes positions; ``templates/chart.svg.j2`` draws them. Presentation attributes hold
the light colours (for print and PDF). The shapes also have classes, so that the style sheet of a
report can replace the colours. The SVG has no ``style`` attributes, so the content security policy
of a report can forbid all styles except one style sheet, which it allows by its hash. Colour is
never the only signal: each outcome has its own marker shape, bars whose outcome is not *passed* are
hatched, and values are printed as text.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from include.evidence.indicators import NOT_MEASURED
from include.evidence.model import Outcome
from include.messages import _
from include.reports.i18n import Translator
from include.reports.jinja import TEMPLATES, environment
from include.reports.model import BarChart, Target, TrendChart

# Light theme, AA contrast on white; must equal the variables of templates/report.css.
COLOURS = {
    "ink": "#1c2430",
    "muted": "#566171",
    "grid": "#d9dee5",
    "accent": "#2b5fa8",
    "page": "#ffffff",
    "pass": "#1d6b43",
    "attention": "#8a5300",
    "fail": "#b02a25",
}
# Fonts of the PDF; the page's style sheet has its own. No spaces: WeasyPrint does not strip them.
_FONT = (
    "Noto Sans,Segoe UI,Helvetica Neue,Arial,Noto Sans CJK SC,PingFang SC,Microsoft YaHei,"
    "sans-serif"
)
WIDTH = 680  # SVG units; the page scales the drawing
_SIZE = 12.0  # font size in SVG units
_MIDDLE = 0.36 * _SIZE  # distance from the middle of a text line down to its baseline
_HATCHES = {Outcome.ATTENTION: 11, Outcome.FAIL: 6}  # units between the lines

Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class _Text:
    x: float
    y: float
    words: str
    anchor: Anchor = "start"
    tone: str = "ink"


@dataclass(frozen=True)
class _Line:
    points: Sequence[tuple[float, float]]
    tone: str
    width: float = 1
    dashed: bool = False


@dataclass(frozen=True)
class _Bar:
    x: float
    y: float
    width: float
    height: float
    status: Outcome | None


@dataclass(frozen=True)
class _Marker:
    x: float
    y: float
    status: Outcome | None
    hollow: bool = False


@dataclass
class _Drawing:
    """The shapes of a chart, in SVG units.

    They are drawn in this order, each above the shapes before it: lines, bars, rules (lines that
    have to be visible above bars), markers, texts. Therefore no shape covers a text.
    """

    height: float
    lines: list[_Line] = field(default_factory=list)
    bars: list[_Bar] = field(default_factory=list)
    rules: list[_Line] = field(default_factory=list)  # above the bars
    markers: list[_Marker] = field(default_factory=list)
    texts: list[_Text] = field(default_factory=list)

    def svg(self, title: str, description: str, identifier: str) -> str:
        """Draw the shapes as an accessible ``<svg>`` element.

        Args:
            title: title of the chart for screen readers.
            description: description of the chart for screen readers.
            identifier: prefix of the ids in the element, unique on the page.
        """
        hatched = {bar.status for bar in self.bars} & _HATCHES.keys()
        template = environment(TEMPLATES).get_template("chart.svg.j2")
        return template.render(
            drawing=self,
            title=title,
            description=description,
            id=identifier,
            width=WIDTH,
            size=_SIZE,
            font=_FONT,
            colours=COLOURS,
            hatches={status: step for status, step in _HATCHES.items() if status in hatched},
            number=lambda value: f"{round(value, 2):g}",
        )


def bar_chart(chart: BarChart, translator: Translator, identifier: str) -> str:
    """Draw a chart of horizontal bars as an ``<svg>`` element.

    Args:
        chart: bars and target of the chart.
        translator: translator into the reader's language.
        identifier: prefix of the ids in the element, unique on the page.
    """
    labels = [translator.value(bar.label) for bar in chart.bars]
    left = min(260.0, max([text_width(label) for label in labels], default=0.0) + 12)
    row, top, bottom = 28, 8, 26 if chart.target else 8
    foot = top + row * max(1, len(labels))
    texts = [translator.quantity(bar.value, chart.unit) for bar in chart.bars]
    right = min(240.0, max([text_width(text) for text in texts], default=0.0) + 42)
    texts = [shorten(text, right - 42) for text in texts]
    measured = [bar.value for bar in chart.bars if bar.value is not None]
    lowest, highest = min(0, *measured, 0), _highest(measured, chart.target)
    end = WIDTH - right

    def across(value: float) -> float:
        return left + (value - lowest) / (highest * 1.02 - lowest) * (end - left)

    zero = across(0)
    drawing = _Drawing(foot + bottom)
    for index, (bar, label, text) in enumerate(zip(chart.bars, labels, texts, strict=True)):
        middle = top + row * (index + 0.5)
        if bar.value is not None:
            first, last = sorted((zero, across(bar.value)))
            thick = row * 0.62
            drawing.bars.append(_Bar(first, middle - thick / 2, last - first, thick, bar.status))
        tone = "ink" if bar.value is not None else "muted"
        baseline = middle + _MIDDLE
        drawing.texts += [
            _Text(zero - 8, baseline, shorten(label, left - 12), "end"),
            _Text(WIDTH - 28, baseline, text, "end", tone),
        ]
        if bar.status is not None:
            drawing.markers.append(_Marker(WIDTH - 14, middle, bar.status))
    drawing.rules.append(_Line([(zero, top), (zero, foot)], "grid"))
    if chart.target:
        at = across(chart.target.value)
        drawing.rules.append(_Line([(at, top), (at, foot)], "ink", 1.3, dashed=True))
        words = _target_label(chart.target, chart.unit, translator)
        near_end = chart.target.value > highest * 0.55
        drawing.texts.append(_Text(at, foot + 16, words, "end" if near_end else "start"))
    description = _list(translator, zip(labels, texts, strict=True))
    return drawing.svg(translator.text(chart.caption), description, identifier)


def trend_chart(chart: TrendChart, translator: Translator, identifier: str) -> str:
    """Draw a chart of values over time as an ``<svg>`` element.

    Args:
        chart: values and target of the chart.
        translator: translator into the reader's language.
        identifier: prefix of the ids in the element, unique on the page.
    """
    points = sorted(chart.points, key=lambda point: point.at)
    measured = [point.value for point in points if point.value is not None]
    divisor, tick_text = _scale(measured, chart.target, chart.unit, translator)
    ticks = _ticks(_highest(measured, chart.target) / divisor)
    tick_labels = ["0" if tick == 0 else tick_text(tick) for tick in ticks]
    left = min(180.0, max(text_width(label) for label in tick_labels) + 14)
    right, top, foot = WIDTH - 28, 24, 196
    times = [point.at.timestamp() for point in points] or [0.0]
    pad = max((times[-1] - times[0]) * 0.04, 1800.0)
    start, span = times[0] - pad, times[-1] - times[0] + 2 * pad
    xs = [left + (time - start) / span * (right - left) for time in times]

    def level(value: float) -> float:
        return foot - value / ticks[-1] * (foot - top)

    drawing = _Drawing(foot + 34)
    for tick, label in zip(ticks, tick_labels, strict=True):
        y = level(tick)
        drawing.lines.append(_Line([(left, y), (right, y)], "grid"))
        words = shorten(label, left - 14)
        drawing.texts.append(_Text(left - 8, y + _MIDDLE, words, "end", "muted"))
    if chart.target:
        y = level(chart.target.value / divisor)
        drawing.lines.append(_Line([(left, y), (right, y)], "ink", 1.3, dashed=True))
        words = _target_label(chart.target, chart.unit, translator)
        is_low = foot - y < 20  # the values of points near the axis would cover the text
        drawing.texts.append(_Text(left + 6, 12 if is_low else y - 5, words))
    levels = [0.0 if point.value is None else point.value / divisor for point in points]
    # The line has a gap where no value was measured.
    stretches: list[list[tuple[float, float]]] = [[]]
    for point, x, value in zip(points, xs, levels, strict=False):
        if point.value is None:  # a hollow marker on the axis, since a gap is easily overlooked
            drawing.markers.append(_Marker(x, foot, None, hollow=True))
            stretches.append([])
            continue
        drawing.markers.append(_Marker(x, level(value), point.status))
        stretches[-1].append((x, level(value)))
    drawing.lines += [_Line(stretch, "accent", 2) for stretch in stretches if len(stretch) > 1]
    texts = [translator.quantity(point.value, chart.unit) for point in points]
    for index in _labels_without_overlap(xs, texts):
        dx, dy, anchor = _beside_the_line(levels, index, ticks[-1])
        at = xs[index] + dx, level(levels[index]) + dy
        drawing.texts.append(_Text(*at, texts[index], anchor))
    dates = _dates([point.at.astimezone(translator.zone) for point in points])
    for index in _labels_without_overlap(xs, dates):
        drawing.texts.append(_Text(xs[index], foot + 20, dates[index], "middle", "muted"))
    if not points:
        nothing = translator.text(NOT_MEASURED)
        drawing.texts.append(_Text(xs[0], (top + foot) / 2, nothing, "middle"))
    moments = [translator.datetime(point.at) for point in points]
    description = _list(translator, zip(moments, texts, strict=True))
    return drawing.svg(translator.text(chart.caption), description, identifier)


def _highest(values: Sequence[float], target: Target | None) -> float:
    top = max([*values, target.value if target else 0, 0])
    return float(top) or 1.0


def _ticks(highest: float) -> list[float]:
    """Return three to six round tick values for an axis, in ascending order from 0.

    The last value is not less than ``highest``.

    Args:
        highest: highest value that the axis has to show.
    """
    raw = highest / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999) * power
    return [round(step * index, 10) for index in range(math.ceil(highest / step - 1e-9) + 1)]


def _scale(
    values: Sequence[float], target: Target | None, unit: str, translator: Translator
) -> tuple[float, Callable[[float], str]]:
    """Return the divisor of an axis and the function that formats its tick values.

    The divisor converts values to the unit in which the axis is labelled, such as hours or MiB. The
    ticks are then round numbers in that unit.

    Args:
        values: values of the chart.
        target: target line of the chart; None if it has none.
        unit: unit of the values, as in `include.reports.model.Fact`.
        translator: translator into the reader's language.
    """
    highest = _highest(values, target)
    if unit == "bytes":
        power = min(5, int(math.log(max(1.0, highest), 1024)))
        return 1024.0**power, lambda tick: translator.bytes(tick * 1024.0**power)
    if unit in ("seconds", "duration"):
        size = next((size for size in (86400, 3600, 60) if highest >= 3 * size), 1)
        return float(size), lambda tick: translator.span(tick, size)
    if unit in ("percent", "ratio"):
        return 1.0, translator.percent
    return 1.0, lambda tick: translator.quantity(tick, unit)


def _target_label(target: Target, unit: str, translator: Translator) -> str:
    figure = translator.quantity(target.value, unit)
    return translator.text(_("{label}: {figure}", label=target.label, figure=figure))


def _list(translator: Translator, pairs: Iterable[tuple[str, str]]) -> str:
    lines = [
        translator.text(_("{label}: {figure}", label=label, figure=figure))
        for label, figure in pairs
    ]
    return "\n".join(lines) or translator.text(NOT_MEASURED)


def _beside_the_line(
    levels: Sequence[float], index: int, top: float
) -> tuple[float, float, Anchor]:
    """Return where to print a value so that its text does not cover the line of a trend chart.

    Args:
        levels: values of the points of the line, in the unit of the axis.
        index: index, in `levels`, of the value to print.
        top: highest tick of the axis.

    Returns:
        The offsets dx and dy of the text from the value in SVG units, and the text anchor.
    """
    level = levels[index]
    before, after = levels[max(0, index - 1)], levels[min(len(levels) - 1, index + 1)]
    low, high = level < top * 0.15, level > top * 0.9
    if low or (not high and level >= (before + level + after) / 3):
        return 0, -9, "middle"
    if before < level < after:
        return -4, 19, "start"
    if before > level > after:
        return 4, 19, "end"
    return 0, 19, "middle"


def _dates(moments: Sequence[datetime]) -> list[str]:
    days = {moment.date() for moment in moments}
    if len(days) == len(moments):
        return [moment.strftime("%Y-%m-%d") for moment in moments]
    if len(days) == 1:
        return [moment.strftime("%Y-%m-%d %H:%M") for moment in moments]
    return [moment.strftime("%m-%d %H:%M") for moment in moments]


def _labels_without_overlap(xs: Sequence[float], texts: Sequence[str]) -> list[int]:
    """Return the indices of the texts that can be printed without overlap.

    If two texts overlap, the one further to the right is kept, because its value is newer. The
    result is in descending order.

    Args:
        xs: x coordinates of the centres of the texts, in ascending order.
        texts: texts, in the order of `xs`.
    """
    kept: list[int] = []
    free = math.inf
    for index in range(len(texts) - 1, -1, -1):
        half = text_width(texts[index]) / 2 + 6
        if xs[index] + half <= free:
            kept.append(index)
            free = xs[index] - half
    return kept


def text_width(text: str) -> float:
    """Return the estimated width of a text in SVG units.

    The estimate does not depend on the installed fonts.
    """
    wide = sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
    return _SIZE * (wide + 0.58 * (len(text) - wide))


def shorten(text: str, room: float) -> str:
    """Replace the middle of a text by an ellipsis if the text is wider than the available space.

    The middle is cut because long names usually differ at both ends.

    Args:
        text: text to shorten.
        room: available width in SVG units.
    """
    if text_width(text) <= room:
        return text
    keep = len(text)
    while keep > 2 and text_width(text[: keep // 2] + "…" + text[len(text) - keep // 2 :]) > room:
        keep -= 1
    return f"{text[: keep // 2]}…{text[len(text) - keep // 2 :]}"
