"""The pictures of the overview: shares of controls, heat map, quarters, and open findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from include.evidence.compliance_history import ComplianceHistory, read_history
from include.evidence.control_evidence import ControlEvidence, clause_order
from include.evidence.control_history import ControlHistory
from include.findings.ages import by_owner_and_age
from include.findings.register import Finding
from include.messages import Message, _
from include.policy import PolicyPack
from include.reports.i18n import Translator
from include.reports.pictures import (
    Column,
    HeatRow,
    StackedBar,
    columns,
    donut,
    heat_map,
    stacked_bars,
)
from plugins.compliance_ui.page_services import PageServices
from plugins.compliance_ui.shown_day import ShownDay

AGE_TITLES: tuple[Message, ...] = (
    _("open for up to 30 days"),
    _("31 to 90 days"),
    _("more than 90 days"),
)
MOST_OWNERS = 8  # owners with a bar of their own
_OTHERS = _("other owners")


@dataclass(frozen=True)
class Pictures:
    """The pictures of the overview as SVG; None if there is too little to draw.

    Attributes:
        shares: shares of the outcomes of controls.
        weeks: worst outcome of each clause by week.
        quarters: share of passed controls by quarter.
        findings: open findings by owner and age.
    """

    shares: Markup | None
    weeks: Markup | None
    quarters: Markup | None
    findings: Markup | None


def draw_pictures(
    services: PageServices,
    history: ControlHistory,
    evidence: Sequence[ControlEvidence],
    shown: ShownDay,
    known_since: Mapping[str, datetime],
    findings: Sequence[Finding],
    translator: Translator,
) -> Pictures:
    """Draw the pictures of the overview.

    Args:
        services: services for the request.
        history: the history of controls.
        evidence: the controls that the visitor may read, with their newest evidence.
        shown: the day that the page shows.
        known_since: control -> time of the first seal whose policy pack had the control.
        findings: open findings that the visitor may read.
        translator: translator into the language of the page.
    """
    counts = Counter(control.outcome for control in evidence)
    weeks, quarters = _history_pictures(services, history, evidence, shown, known_since, translator)
    shares = donut(counts, _("Outcomes of the controls"), translator, "shares")
    return Pictures(
        _markup(shares) if evidence else None,
        _markup(weeks),
        _markup(quarters),
        _markup(_findings_picture(services, findings, shown.moment, translator)),
    )


def _markup(svg: str) -> Markup | None:
    return Markup(svg) if svg else None  # noqa: S704 - escaped by the template of pictures


def _history_pictures(
    services: PageServices,
    history: ControlHistory,
    evidence: Sequence[ControlEvidence],
    shown: ShownDay,
    known_since: Mapping[str, datetime],
    translator: Translator,
) -> tuple[str, str]:
    """Return the pictures of weeks and quarters; empty texts if there is too little to draw.

    Both are cached for as long as the history, the day, the controls and their outcomes are the
    same.
    """
    controls = [item.control for item in evidence]
    current = tuple(item.outcome for item in evidence)
    key: Hashable = (
        translator.locale,
        services.pack.sha256,
        history.version,
        shown.day,
        tuple(control.id for control in controls),
        current,
        tuple(sorted(known_since.items())),
    )
    read: list[ComplianceHistory] = []

    def figures() -> ComplianceHistory:
        if not read:
            zone = services.pack.calendar.zone
            read.append(read_history(history, controls, current, shown.moment, known_since, zone))
        return read[0]

    weeks = services.cache.picture(
        ("weeks", key), lambda: _draw_weeks(services.pack, figures(), translator)
    )
    quarters = services.cache.picture(
        ("quarters", key), lambda: _draw_quarters(figures(), translator)
    )
    return weeks, quarters


def _draw_weeks(pack: PolicyPack, figures: ComplianceHistory, translator: Translator) -> str:
    weeks_with_evidence = sum(
        any(outcome is not None for outcome in outcomes)
        for outcomes in zip(*figures.clauses.values(), strict=True)
    )
    if weeks_with_evidence < 2:
        return ""
    rows = [
        HeatRow(translator.text(pack.clause_message(clause)), figures.clauses[clause])
        for clause in sorted(figures.clauses, key=clause_order)
    ]
    title = _("Worst outcome of the controls of each clause, by week")
    return heat_map(rows, figures.weeks, title, translator, "weeks")


def _draw_quarters(figures: ComplianceHistory, translator: Translator) -> str:
    if sum(quarter.share is not None for quarter in figures.quarters) < 2:
        return ""
    bars = [
        Column(f"{quarter.year} Q{quarter.quarter}", quarter.share) for quarter in figures.quarters
    ]
    return columns(bars, _("Share of passed controls by quarter"), translator, "quarters")


def _findings_picture(
    services: PageServices, findings: Sequence[Finding], moment: datetime, translator: Translator
) -> str:
    """Return the picture of open findings, which is cached for as long as the numbers are equal."""
    if not findings:
        return ""
    pack = services.pack
    counts = [
        (owner, tuple(groups)) for owner, groups in by_owner_and_age(findings, moment).items()
    ]
    key = ("findings", translator.locale, pack.sha256, tuple(counts))
    return services.cache.picture(key, lambda: _draw_findings(pack, counts, translator))


def _draw_findings(
    pack: PolicyPack, counts: Sequence[tuple[str, Sequence[int]]], translator: Translator
) -> str:
    bars = [
        StackedBar(translator.text(pack.role_message(owner)), groups)
        for owner, groups in counts[:MOST_OWNERS]
    ]
    if others := counts[MOST_OWNERS:]:
        sums = [sum(groups[part] for _owner, groups in others) for part in range(len(AGE_TITLES))]
        bars.append(StackedBar(translator.text(_OTHERS), sums))
    title = _("Open findings by owner and age")
    return stacked_bars(bars, AGE_TITLES, title, translator, "open-findings")
