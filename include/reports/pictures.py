"""Draw the pictures of the compliance pages as inline SVG: shares, heat map, columns, time line.

As in `include.reports.charts`, colour is never the only signal. Each outcome has its own mark: no
mark means passed, a slash needs attention, a cross failed, and a hollow shape no evidence yet. The
same marks are in the legend. All shapes of an outcome are one path, so that a page stays small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from zoneinfo import ZoneInfo

from include.evidence.model import Outcome
from include.messages import Message, _
from include.reports.charts import COLOURS, Anchor, shorten, text_width
from include.reports.i18n import Translator
from include.reports.jinja import TEMPLATES, environment

NO_EVIDENCE = "none"
"""Tone of controls that have no evidence yet; the tones of outcomes are their values."""
NO_EVIDENCE_TEXT = _("No evidence yet")
ORDER: tuple[Outcome | None, ...] = (Outcome.PASS, Outcome.ATTENTION, Outcome.FAIL, None)
# Light theme; must equal the variables of plugins/compliance_ui/assets/pages.css.
TONES = COLOURS | {
    NO_EVIDENCE: "#e4e8ed",
    "recent": "#6d93c9",
    "older": "#2b5fa8",
    "oldest": "#1b3a66",
}
_FONT_SIZE = 12.0
_BASELINE = 0.36 * _FONT_SIZE
_WEEK, _ROW, _GAP = 10, 22, 1.5  # size of a heat map's cell in SVG units


@dataclass(frozen=True)
class _Path:
    d: str
    tone: str
    is_line: bool = False
    width: float = 1.0


@dataclass(frozen=True)
class _Label:
    x: float
    y: float
    words: str
    anchor: Anchor = "start"
    tone: str = "ink"
    size: float = _FONT_SIZE
    is_bold: bool = False


@dataclass
class _Picture:
    width: float
    height: float
    paths: list[_Path] = field(default_factory=list)
    labels: list[_Label] = field(default_factory=list)

    def svg(self, title: str, description: str, identifier: str) -> str:
        template = environment(TEMPLATES).get_template("picture.svg.j2")
        return template.render(
            picture=self, title=title, description=description, id=identifier, colours=TONES,
            number=_figure,
        )  # fmt: skip


def tone_of(outcome: Outcome | None) -> str:
    """Return the tone of an outcome: a key of the colours of pictures and style sheets."""
    return NO_EVIDENCE if outcome is None else str(outcome)


def outcome_text(translator: Translator, outcome: Outcome | None) -> str:
    """Return the translated name of an outcome; None means no evidence yet."""
    return translator.text(NO_EVIDENCE_TEXT) if outcome is None else translator.outcome(outcome)


@dataclass
class _Cells:
    """Rectangles and marks of outcomes, collected into one path for each outcome."""

    areas: dict[Outcome | None, str] = field(default_factory=dict)
    marks: dict[Outcome | None, str] = field(default_factory=dict)

    def add(self, outcome: Outcome | None, x: float, y: float, width: float, height: float) -> None:
        area = f"M{_figure(x)} {_figure(y)}h{_figure(width)}v{_figure(height)}h-{_figure(width)}z"
        self.areas[outcome] = self.areas.get(outcome, "") + area
        side = min(width, height, 9.0) - 3
        if side < 2:
            return  # too narrow for a mark
        left, top = x + (width - side) / 2, y + (height - side) / 2
        slash = f"M{_figure(left)} {_figure(top + side)}l{_figure(side)}-{_figure(side)}"
        if outcome in (Outcome.ATTENTION, Outcome.FAIL):
            self.marks[outcome] = self.marks.get(outcome, "") + slash
        if outcome is Outcome.FAIL:
            other = f"m-{_figure(side)} 0l{_figure(side)} {_figure(side)}"
            self.marks[outcome] += other

    def paths(self) -> list[_Path]:
        paths = [_Path(self.areas[key], tone_of(key)) for key in ORDER if key in self.areas]
        marks = [_Path(self.marks[key], "page", True, 1.6) for key in ORDER if key in self.marks]
        return paths + marks


def donut(
    counts: Mapping[Outcome | None, int], title: Message, translator: Translator, identifier: str
) -> str:
    """Draw the shares of outcomes as a ring, with the number of passed controls in the middle.

    Args:
        counts: number of controls by outcome; None counts those without evidence yet.
        title: title of the picture.
        translator: translator into the reader's language.
        identifier: prefix of the ids in the element, unique on the page.
    """
    total = sum(counts.values())
    picture = _Picture(160, 160)
    begin = 0.0
    for outcome in ORDER:
        count = counts.get(outcome, 0)
        if not count:
            continue
        end = begin + count / total
        picture.paths.append(_Path(_slice(begin, end, 78, 57), tone_of(outcome)))
        if outcome in (Outcome.ATTENTION, Outcome.FAIL):
            mark = _mark(outcome, *_point((begin + end) / 2, 67.5))
            picture.paths.append(_Path(mark, "page", True, 2.4))
        begin = end
    passed = counts.get(Outcome.PASS, 0)
    label = _("{passed} of {total}", passed=passed, total=total)
    picture.labels = [
        _Label(80, 84, translator.text(label), "middle", size=21, is_bold=True),
        _Label(80, 102, translator.text(_("controls passed")), "middle", "muted", 11),
    ]
    lines = [
        translator.text(
            _("{label}: {figure}", label=outcome_text(translator, outcome), figure=counts[outcome])
        )
        for outcome in ORDER
        if counts.get(outcome)
    ]
    return picture.svg(translator.text(title), "\n".join(lines), identifier)


def _point(turn: float, radius: float) -> tuple[float, float]:
    angle = 2 * math.pi * turn
    return 80 + radius * math.sin(angle), 80 - radius * math.cos(angle)


def _slice(begin: float, end: float, outer: float, inner: float) -> str:
    if end - begin > 0.999:  # an arc to its own start would not be drawn
        return _slice(0, 0.5, outer, inner) + _slice(0.5, 0.999999, outer, inner)
    gap = 0.004
    begin, end = begin + gap / 2, max(begin + gap / 2 + 0.001, end - gap / 2)
    large = int(end - begin > 0.5)
    points = [_point(begin, outer), _point(end, outer), _point(end, inner), _point(begin, inner)]
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = ((_figure(x), _figure(y)) for x, y in points)
    return (
        f"M{ax} {ay}A{_figure(outer)} {_figure(outer)} 0 {large} 1 {bx} {by}"
        f"L{cx} {cy}A{_figure(inner)} {_figure(inner)} 0 {large} 0 {dx} {dy}z"
    )


def _mark(outcome: Outcome, x: float, y: float, side: float = 9) -> str:
    left, top = x - side / 2, y - side / 2
    slash = f"M{_figure(left)} {_figure(top + side)}l{_figure(side)}-{_figure(side)}"
    if outcome is Outcome.ATTENTION:
        return slash
    return slash + f"M{_figure(left)} {_figure(top)}l{_figure(side)} {_figure(side)}"


@dataclass(frozen=True)
class HeatRow:
    """A row of a heat map.

    Attributes:
        label: text at the left of the row.
        outcomes: one outcome for each week; None without evidence.
    """

    label: str
    outcomes: Sequence[Outcome | None]


def heat_map(
    rows: Sequence[HeatRow],
    weeks: Sequence[date],
    title: Message,
    translator: Translator,
    identifier: str,
) -> str:
    """Draw outcomes by row and week.

    Args:
        rows: the rows, with one outcome for each week.
        weeks: last day of each week, in ascending order. The last one may be the current day.
        title: title of the picture.
        translator: translator into the reader's language.
        identifier: prefix of the ids in the element, unique on the page.
    """
    left = min(290.0, max((text_width(row.label) for row in rows), default=0.0) + 14)
    top, foot = 20, 20 + _ROW * len(rows)
    picture = _Picture(left + _WEEK * len(weeks) + 4, foot + 6)
    cells = _Cells()
    for number, row in enumerate(rows):
        y = top + _ROW * number
        label = shorten(row.label, left - 12)
        picture.labels.append(_Label(left - 8, y + _ROW / 2 + _BASELINE, label, "end"))
        for week, outcome in enumerate(row.outcomes):
            size = _ROW - 2 * _GAP
            cells.add(outcome, left + _WEEK * week, y + _GAP, _WEEK - _GAP, size)
    picture.paths = cells.paths()
    month, free = 0, -math.inf
    for week, day in enumerate(weeks):
        x = left + _WEEK * week
        if day.month != month and x > free:
            words = day.strftime("%Y-%m") if month == 0 or day.month == 1 else day.strftime("%m")
            picture.labels.append(_Label(x, 12, words, "start", "muted", 11))
            free = x + text_width(words) + 4
        month = day.month
    description = "\n".join(
        translator.text(
            _("{label}: {figure}", label=row.label, figure=_runs(row, weeks, translator))
        )
        for row in rows
    )
    return picture.svg(translator.text(title), description, identifier)


def _runs(row: HeatRow, weeks: Sequence[date], translator: Translator) -> str:
    """Return the outcomes of a row in words: each outcome with the day since when it holds."""
    runs: list[tuple[Outcome | None, date]] = []
    for outcome, day in zip(row.outcomes, weeks, strict=True):
        if not runs or runs[-1][0] is not outcome:
            runs.append((outcome, day))
    texts = [
        translator.text(
            _("{outcome} from {day}", outcome=outcome_text(translator, outcome), day=day)
        )
        for outcome, day in runs
    ]
    return ("；" if translator.locale == "zh_CN" else "; ").join(texts)


@dataclass(frozen=True)
class Column:
    """A column of a column chart.

    Attributes:
        label: text below the column.
        share: value from 0 to 1; None if there is none.
    """

    label: str
    share: float | None


def columns(bars: Sequence[Column], title: Message, translator: Translator, identifier: str) -> str:
    """Draw shares from 0% to 100% as columns.

    Args:
        bars: the columns, from left to right.
        title: title of the picture.
        translator: translator into the reader's language.
        identifier: prefix of the ids in the element, unique on the page.
    """
    left, step, top, foot = 42, 46, 22, 142
    picture = _Picture(left + step * len(bars) + 6, foot + 40)
    for share in (0, 0.5, 1):
        y = foot - share * (foot - top)
        line = f"M{left} {_figure(y)}H{_figure(picture.width - 6)}"
        picture.paths.append(_Path(line, "grid", True))
        words = translator.percent(share)
        picture.labels.append(_Label(left - 6, y + _BASELINE, words, "end", "muted", 11))
    areas = ""
    for number, bar in enumerate(bars):
        middle = left + step * (number + 0.5)
        year, _space, quarter = bar.label.partition(" ")
        picture.labels.append(_Label(middle, foot + 16, quarter or year, "middle"))
        if quarter and (number == 0 or quarter.endswith("1")):
            picture.labels.append(_Label(middle, foot + 32, year, "middle", "muted", 11))
        if bar.share is None:
            picture.labels.append(_Label(middle, foot - 6, "–", "middle", "muted"))
            continue
        height = bar.share * (foot - top)
        areas += f"M{_figure(middle - 15)} {foot}h30v-{_figure(height)}h-30z"
        words = translator.percent(math.floor(bar.share * 100) / 100)
        picture.labels.append(_Label(middle, foot - height - 5, words, "middle", size=11))
    picture.paths.append(_Path(areas, "accent"))
    lines = [
        translator.text(
            _(
                "{label}: {figure}",
                label=bar.label,
                figure=NO_EVIDENCE_TEXT if bar.share is None else translator.percent(bar.share),
            )
        )
        for bar in bars
    ]
    return picture.svg(translator.text(title), "\n".join(lines), identifier)


@dataclass(frozen=True)
class StackedBar:
    """A horizontal bar of counts.

    Attributes:
        label: text at the left of the bar.
        counts: one number for each part.
    """

    label: str
    counts: Sequence[int]


PART_TONES = ("recent", "older", "oldest")
"""Tones of the parts of a stacked bar, from left to right. Their marks: none, slash, cross."""


def stacked_bars(
    bars: Sequence[StackedBar],
    parts: Sequence[Message],
    title: Message,
    translator: Translator,
    identifier: str,
) -> str:
    """Draw counts as horizontal bars that consist of at most three parts.

    Args:
        bars: the bars, from top to bottom.
        parts: names of the parts, as in the legend.
        title: title of the picture.
        translator: translator into the reader's language.
        identifier: prefix of the ids in the element, unique on the page.
    """
    left = min(170.0, max((text_width(bar.label) for bar in bars), default=0.0) + 12)
    width, row = 420, 28
    end, most = width - 36, max((sum(bar.counts) for bar in bars), default=1) or 1
    picture = _Picture(width, row * max(1, len(bars)) + 8)
    areas, marks = [""] * 3, ""
    for number, bar in enumerate(bars):
        x, y = left, 4 + row * number + 5
        label = shorten(bar.label, left - 10)
        baseline = y + 9 + _BASELINE
        picture.labels.append(_Label(left - 8, baseline, label, "end"))
        for part, count in enumerate(bar.counts):
            wide = count / most * (end - left)
            if not count:
                continue
            areas[part] += f"M{_figure(x)} {y}h{_figure(wide)}v18h-{_figure(wide)}z"
            if part:
                outcome = Outcome.ATTENTION if part == 1 else Outcome.FAIL
                marks += _mark(outcome, x + wide / 2, y + 9, min(9, max(2.0, wide - 2)))
            x += wide
        total = translator.number(sum(bar.counts))
        picture.labels.append(_Label(x + 6, baseline, total, "start"))
    picture.paths = [
        _Path(area, tone) for area, tone in zip(areas, PART_TONES, strict=True) if area
    ]
    if marks:
        picture.paths.append(_Path(marks, "page", True, 1.8))
    lines = []
    for bar in bars:
        figures = [
            translator.text(_("{label}: {figure}", label=part, figure=count))
            for part, count in zip(parts, bar.counts, strict=True)
        ]
        comma = "，" if translator.locale == "zh_CN" else ", "
        figure = comma.join(figures)
        lines.append(translator.text(_("{label}: {figure}", label=bar.label, figure=figure)))
    return picture.svg(translator.text(title), "\n".join(lines), identifier)


@dataclass(frozen=True)
class Span:
    """A period of a time line with one outcome.

    Attributes:
        begins_at: begin of the period.
        ends_at: end of the period.
        outcome: the outcome; None without evidence.
    """

    begins_at: datetime
    ends_at: datetime
    outcome: Outcome | None


def time_line(
    spans: Sequence[Span], title: Message, translator: Translator, zone: ZoneInfo, identifier: str
) -> str:
    """Draw the outcomes of a control over time as one bar.

    Args:
        spans: successive periods, the oldest first; at least one.
        title: title of the picture.
        translator: translator into the reader's language.
        zone: timezone of the dates.
        identifier: prefix of the ids in the element, unique on the page.
    """
    left, right, y, height = 4, 676, 6, 26
    start, end = spans[0].begins_at, spans[-1].ends_at
    whole = (end - start).total_seconds() or 1.0
    picture = _Picture(680, 56)
    cells = _Cells()

    def across(moment: datetime) -> float:
        return left + (moment - start).total_seconds() / whole * (right - left)

    for span in spans:
        x = across(span.begins_at)
        wide = max(1.5, across(span.ends_at) - x)
        # Worse outcomes are higher, so that they are noticed without colours, too.
        low = {Outcome.FAIL: 0, Outcome.ATTENTION: 6}.get(span.outcome or Outcome.PASS, 10)
        cells.add(span.outcome, x, y + low, wide, height - low)
    picture.paths = cells.paths()
    first, last = (moment.astimezone(zone).date().isoformat() for moment in (start, end))
    picture.labels = [
        _Label(left, 50, first, "start", "muted"),
        _Label(right, 50, last, "end", "muted"),
    ]
    lines = [
        translator.text(
            _(
                "{begin} to {end}: {outcome}",
                begin=span.begins_at.astimezone(zone).date(),
                end=span.ends_at.astimezone(zone).date(),
                outcome=outcome_text(translator, span.outcome),
            )
        )
        for span in spans
    ]
    return picture.svg(translator.text(title), "\n".join(lines), identifier)


def _figure(value: float) -> str:
    return f"{round(value, 1):g}"
