"""Charts as inline SVG: text stays text, colours follow the page, same input gives same bytes.

matplotlib draws (object-oriented, no pyplot state) in the light theme's colours;
`include.reports.svg` then turns every colour into a class for the page's style sheet to theme.
Colour is never the only signal: outcomes also have their own marker shape, bars that did not
pass are hatched, and values are printed.
"""

from __future__ import annotations

import io
import math
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from include.evidence.model import Outcome
from include.messages import _
from include.reports.i18n import NOT_MEASURED, Translator
from include.reports.model import BarChart, Target, TrendChart, TrendPoint
from include.reports.svg import COLOURS, inline_svg

if TYPE_CHECKING:  # matplotlib costs up to two seconds to import: only when there is a chart
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 680  # SVG units; the page scales the drawing
_SIZE = 12.0  # font size in SVG units
_MARKERS = {None: "o", Outcome.PASS: "o", Outcome.ATTENTION: "^", Outcome.FAIL: "X"}
_HATCHES = {Outcome.ATTENTION: "\\\\", Outcome.FAIL: "////"}


def bar_chart(chart: BarChart, translator: Translator, identifier: str) -> str:
    """Draw horizontal bars as an ``<svg>`` element; ``identifier`` is unique on the page."""
    labels = [translator.value(bar.label) for bar in chart.bars]
    left = min(260.0, max([_width(label) for label in labels], default=0.0) + 12)
    row, top, bottom = 28, 8, 26 if chart.target else 8
    height = row * max(1, len(labels)) + top + bottom
    texts = [translator.quantity(bar.value, chart.unit) for bar in chart.bars]
    right = min(240.0, max([_width(text) for text in texts], default=0.0) + 42)
    texts = [_shorten(text, right - 42) for text in texts]
    figure, axes = _canvas(height, left, right, top, bottom)
    known = [bar.value for bar in chart.bars if bar.value is not None]
    highest = _highest(known, chart.target)
    axes.set_xlim(min(0, *known, 0), highest * 1.02)
    axes.set_ylim(max(1, len(labels)) - 0.5, -0.5)
    end = axes.get_xlim()[1]
    for place, (bar, label, text) in enumerate(zip(chart.bars, labels, texts, strict=True)):
        if bar.value is not None:
            axes.barh(
                place,
                bar.value,
                height=0.62,
                facecolor=COLOURS["accent"] if bar.status is None else COLOURS[bar.status],
                edgecolor=COLOURS["page"],
                hatch=_HATCHES.get(bar.status) if bar.status else None,
                linewidth=0,
            )
        tone = "ink" if bar.value is not None else "muted"
        _text(axes, 0, place, _shorten(label, left - 12), dx=-8, ha="right", va="center")
        _text(axes, end, place, text, dx=right - 28, ha="right", va="center", colour=tone)
        if bar.status is not None:
            _mark(axes, end, place, bar.status, dx=right - 14)
    if chart.target:
        axes.axvline(chart.target.value, color=COLOURS["ink"], linewidth=1.3, linestyle=(0, (5, 3)))
        at = len(labels) - 0.5
        label = _target_label(chart.target, chart.unit, translator)
        near_end = chart.target.value > highest * 0.55
        _text(axes, chart.target.value, at, label, dy=-16, ha="right" if near_end else "left")
    axes.axvline(0, color=COLOURS["grid"], linewidth=1)
    description = _list(translator, zip(labels, texts, strict=True))
    return _svg(figure, translator.text(chart.caption), description, identifier)


def trend_chart(chart: TrendChart, translator: Translator, identifier: str) -> str:
    """Draw values over time as an ``<svg>`` element; ``identifier`` is unique on the page."""
    points = sorted(chart.points, key=lambda point: point.at)
    known = [point.value for point in points if point.value is not None]
    divisor, tick_text = _scale(known, chart.target, chart.unit, translator)
    highest = _highest(known, chart.target) / divisor
    ticks = _ticks(highest)
    tick_labels = ["0" if tick == 0 else tick_text(tick) for tick in ticks]
    left = min(180.0, max(_width(label) for label in tick_labels) + 14)
    tick_labels = [_shorten(label, left - 14) for label in tick_labels]
    figure, axes = _canvas(230, left, right=28, top=24, bottom=34)
    span = _times(points)
    first, last = span[0], span[-1]
    pad = max((last - first) * 0.04, 1800.0)
    axes.set_xlim(first - pad, last + pad)
    axes.set_ylim(0, ticks[-1])
    for tick, label in zip(ticks, tick_labels, strict=True):
        axes.axhline(tick, color=COLOURS["grid"], linewidth=1, zorder=0)
        _text(axes, first - pad, tick, label, dx=-8, ha="right", va="center", colour="muted")
    line = [math.nan if point.value is None else point.value / divisor for point in points]
    axes.plot(_times(points) if points else [], line, color=COLOURS["accent"], linewidth=2)
    for point in points:
        _point(axes, point, divisor)
    if chart.target:
        _target_line(axes, chart, divisor, first - pad, translator)
    plot = WIDTH - left - 28
    texts = [translator.quantity(point.value, chart.unit) for point in points]
    levels = [0.0 if point.value is None else point.value / divisor for point in points]
    for index in _not_crowded(points, texts, plot, first - pad, last + pad):
        dy, align, dx = _beside_the_line(levels, index, ticks[-1])
        moment = points[index].at.timestamp()
        _text(axes, moment, levels[index], texts[index], dx=dx, dy=dy, ha=align)
    dates = _dates(points, translator)
    for index in _not_crowded(points, dates, plot, first - pad, last + pad):
        _text(
            axes, points[index].at.timestamp(), 0, dates[index], dy=-20, ha="center", colour="muted"
        )
    if not points:
        _text(axes, first, ticks[-1] / 2, translator.text(NOT_MEASURED), ha="center")
    moments = [translator.datetime(point.at) for point in points]
    description = _list(translator, zip(moments, texts, strict=True))
    return _svg(figure, translator.text(chart.caption), description, identifier)


def _target_line(
    axes: Axes, chart: TrendChart, divisor: float, start: float, translator: Translator
) -> None:
    assert chart.target
    level = chart.target.value / divisor
    axes.axhline(level, color=COLOURS["ink"], linewidth=1.3, linestyle=(0, (5, 3)))
    _text(axes, start, level, _target_label(chart.target, chart.unit, translator), dx=6, dy=5)


def _point(axes: Axes, point: TrendPoint, divisor: float) -> None:
    if point.value is None:  # hollow, on the axis: a gap in the line is easily overlooked
        axes.plot(
            [point.at.timestamp()],
            [0],
            marker="o",
            markersize=7,
            linestyle="none",
            markerfacecolor=COLOURS["page"],
            markeredgecolor=COLOURS["muted"],
            clip_on=False,
        )
        return
    tone = "accent" if point.status is None else str(point.status)
    axes.plot(
        [point.at.timestamp()],
        [point.value / divisor],
        marker=_MARKERS[point.status],
        markersize=9,
        linestyle="none",
        markerfacecolor=COLOURS[tone],
        markeredgecolor=COLOURS["page"],
        clip_on=False,
        zorder=3,
    )


def _mark(axes: Axes, x: float, y: float, status: Outcome, dx: float) -> None:
    right, up = axes.transData.transform((x, y))
    where = axes.transData.inverted().transform((right + dx, up))
    axes.plot(
        [where[0]],
        [where[1]],
        marker=_MARKERS[status],
        markersize=9,
        linestyle="none",
        markerfacecolor=COLOURS[str(status)],
        markeredgecolor=COLOURS["page"],
        clip_on=False,
    )


def _canvas(
    height: float, left: float, right: float, top: float, bottom: float
) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    figure.patch.set_visible(False)
    box = (
        left / WIDTH,
        bottom / height,
        (WIDTH - left - right) / WIDTH,
        (height - top - bottom) / height,
    )
    axes = figure.add_axes(box)
    axes.set_axis_off()
    return figure, axes


def _text(axes: Axes, x: float, y: float, text: str, **options: Any) -> None:
    axes.annotate(
        text.replace("\n", " "),
        (x, y),
        xytext=(options.get("dx", 0), options.get("dy", 0)),
        textcoords="offset points",
        ha=options.get("ha", "left"),
        va=options.get("va", "baseline"),
        color=COLOURS[options.get("colour", "ink")],
        fontsize=_SIZE,
        parse_math=False,
        annotation_clip=False,
    )


def _svg(figure: Figure, title: str, description: str, identifier: str) -> str:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "parcelseal", "hatch.linewidth": 2.0}
    with mpl.rc_context(settings), warnings.catch_warnings():
        # The reader's fonts draw the text; that the measuring font has no Chinese is harmless.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(buffer, metadata={"Date": None, "Creator": None})
    return inline_svg(buffer.getvalue(), title, description, prefix=identifier)


def _highest(values: Sequence[float], target: Target | None) -> float:
    top = max([*values, target.value if target else 0, 0])
    return float(top) or 1.0


def _ticks(highest: float) -> list[float]:
    """Round steps from 0 to at least ``highest``, three to six of them."""
    raw = highest / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999) * power
    return [round(step * index, 10) for index in range(math.ceil(highest / step - 1e-9) + 1)]


def _scale(
    values: Sequence[float], target: Target | None, unit: str, translator: Translator
) -> tuple[float, Callable[[float], str]]:
    """Divisor and tick words of the axis, so that ticks are round in the unit people read."""
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


def _list(translator: Translator, pairs: Any) -> str:
    lines = [
        translator.text(_("{label}: {figure}", label=label, figure=figure))
        for label, figure in pairs
    ]
    return "\n".join(lines) or translator.text(NOT_MEASURED)


def _beside_the_line(levels: Sequence[float], index: int, top: float) -> tuple[int, str, int]:
    """Where a value's text goes so that the line does not run through it: dy, align, dx."""
    level = levels[index]
    before, after = levels[max(0, index - 1)], levels[min(len(levels) - 1, index + 1)]
    low, high = level < top * 0.15, level > top * 0.9
    if low or (not high and level >= (before + level + after) / 3):
        return 9, "center", 0
    if before < level < after:
        return -19, "left", -4
    if before > level > after:
        return -19, "right", 4
    return -19, "center", 0


def _times(points: Sequence[TrendPoint]) -> list[float]:
    return [point.at.timestamp() for point in points] or [0.0]


def _dates(points: Sequence[TrendPoint], translator: Translator) -> list[str]:
    local = [point.at.astimezone(translator.zone) for point in points]
    days = {moment.date() for moment in local}
    if len(days) == len(local):
        return [moment.strftime("%Y-%m-%d") for moment in local]
    if len(days) == 1:
        return [moment.strftime("%Y-%m-%d %H:%M") for moment in local]
    return [moment.strftime("%m-%d %H:%M") for moment in local]


def _not_crowded(
    points: Sequence[TrendPoint], texts: Sequence[str], plot: float, start: float, end: float
) -> list[int]:
    """Indices whose texts do not touch, chosen from the newest back."""
    kept: list[int] = []
    free = math.inf
    for index in range(len(points) - 1, -1, -1):
        centre = (points[index].at.timestamp() - start) / (end - start) * plot
        half = _width(texts[index]) / 2 + 6
        if centre + half <= free:
            kept.append(index)
            free = centre - half
    return kept


def _width(text: str) -> float:
    """Estimated width in SVG units, the same on every machine whatever its fonts."""
    wide = sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
    return _SIZE * (wide + 0.58 * (len(text) - wide))


def _shorten(text: str, room: float) -> str:
    """Cut in the middle: names that are long usually differ at both ends."""
    if _width(text) <= room:
        return text
    keep = len(text)
    while keep > 2 and _width(text[: keep // 2] + "…" + text[len(text) - keep // 2 :]) > room:
        keep -= 1
    return f"{text[: keep // 2]}…{text[len(text) - keep // 2 :]}"
