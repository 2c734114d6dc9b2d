"""The page of a control: its definition, outcomes over time, measured values and bundles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta, tzinfo
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, status
from fastapi.responses import Response
from markupsafe import Markup

from include.evidence import control_index
from include.evidence.checkpoint import newest_checkpoint
from include.evidence.control_evidence import ControlEvidence, PruneState, read_control_evidence
from include.evidence.control_history import ControlHistory, ControlResult, Phase
from include.evidence.control_reasons import reason_of
from include.evidence.indicators import figure_message, requirement_message
from include.evidence.model import ControlState, Finding, Outcome
from include.messages import Message, _
from include.orchestration.access.permissions import Page
from include.policy.rules import Control
from include.reports.charts import trend_chart
from include.reports.i18n import CONTROL_STATES, Translator
from include.reports.model import Target, TrendChart, TrendPoint
from include.reports.pictures import Span, time_line
from plugins.compliance_ui.access import Visitor, visitor_of
from plugins.compliance_ui.control_texts import age_text
from plugins.compliance_ui.language import locale_of
from plugins.compliance_ui.page_services import PageServices, page_services
from plugins.compliance_ui.rendering import render_navigation_page
from plugins.compliance_ui.shown_day import ShownDay, shown_day
from plugins.compliance_ui.workflow_names import title_of

router = APIRouter()

RESULTS = 60  # newest results in the table and in the chart
CHANGES = 30  # newest changes of the outcome in the list
_PICTURED = timedelta(days=365)
_MOST_PHASES = 2000  # phases that a picture shows
_POINT_OUTCOMES = {ControlState.PASSED: Outcome.PASS, ControlState.FAILED: Outcome.FAIL}
_SINCE: Mapping[Outcome | None, Callable[[str], Message]] = {
    Outcome.PASS: lambda moment: _("Passed since {moment}.", moment=moment),
    Outcome.ATTENTION: lambda moment: _("Needs attention since {moment}.", moment=moment),
    Outcome.FAIL: lambda moment: _("Failing since {moment}.", moment=moment),
    None: lambda moment: _("In the policy pack since {moment}; no evidence yet.", moment=moment),
}


@dataclass(frozen=True)
class ControlPictures:
    """The pictures of a control as SVG; None if there is too little to draw.

    Attributes:
        outcomes: outcomes in the last 12 months.
        values: measured values of the newest results.
    """

    outcomes: Markup | None
    values: Markup | None


@router.get("/controls/{control}")
def show_control(
    request: Request,
    visitor: Annotated[Visitor, Depends(visitor_of(Page.OVERVIEW))],
    control: Annotated[str, Path(max_length=100)],
    asof: Annotated[str, Query(max_length=40)] = "",
) -> Response:
    """Show a control of the policy pack, if the visitor may read its workflow.

    Args:
        request: request of the visitor.
        visitor: the visitor.
        control: id of the control.
        asof: a past day; empty for the present. See the overview page.

    Raises:
        HTTPException: 404 if the policy pack has no such control, or if the visitor may not read
            its workflow.
        InvalidAddress: `asof` is not a date, or is in the future.
    """
    services = page_services()
    pack, zone = services.pack, services.pack.calendar.zone
    definition = next((item for item in pack.controls if item.id == control), None)
    if definition is None or not visitor.reads(definition.workflow):
        raise HTTPException(status.HTTP_404_NOT_FOUND)
    shown = shown_day(services, asof)
    with services.read_connection() as conn:
        checkpoint = newest_checkpoint(conn, services.bundle_reader.keys)
        known_since = control_index.known_since(conn)
        (evidence,) = read_control_evidence(
            conn, services.bundle_reader, [definition], shown.moment, zone,
            PruneState.at(checkpoint, shown.as_of), as_of=shown.as_of, known_since=known_since,
        )  # fmt: skip
        ledger = services.ledger(conn, checkpoint.up_to_seq if checkpoint else 0)
        history = services.history(conn)
    since = known_since.get(control)
    phases = _newest_phases(history.phases(definition, shown.moment, since, zone), shown)
    results = history.results(control, shown.moment, RESULTS)
    translator = Translator(locale_of(request), services.timezone)
    return render_navigation_page(
        request,
        services,
        visitor,
        Page.OVERVIEW,
        "control.html.j2",
        title=definition.message,
        shown=shown,
        control=definition,
        clause=pack.clause_message(definition.clause),
        owner=pack.role_message(definition.owner) if definition.owner else None,
        requirement=requirement_message(definition.indicator.target),
        evidence=evidence,
        reason=reason_of(evidence, zone),
        since=_since(evidence, phases, zone),
        age=age_text(evidence),
        ledger=ledger,
        findings=_findings_of(evidence),
        phases=phases[:CHANGES],
        results=results,
        figure=lambda result: figure_message(
            definition.indicator.name, definition.indicator.target, result.value
        ),
        control_states=CONTROL_STATES,
        pictures=_cached_pictures(
            services, history, definition, phases, results, shown, translator
        ),
        workflow=title_of(definition.workflow),
        opens_evidence=Page.EVIDENCE in visitor.pages,
    )


def _newest_phases(phases: Iterable[Phase], shown: ShownDay) -> list[Phase]:
    """Return the phases of the last 12 months, and at least the newest 30 phases.

    Args:
        phases: phases of the control, the newest first.
        shown: the day that the page shows.
    """
    first = shown.moment - _PICTURED
    newest: list[Phase] = []
    for phase in islice(phases, _MOST_PHASES):
        newest.append(phase)
        if phase.begins_at < first and len(newest) >= CHANGES:
            break
    return newest


def _since(evidence: ControlEvidence, phases: Sequence[Phase], zone: tzinfo) -> Message | None:
    """Return since when the control has its outcome.

    Return None if the history index does not have this outcome, for example because the newest
    bundle was changed after its seal. It is then unknown when the bundle was changed.

    Args:
        evidence: the control with its newest evidence.
        phases: the phases of the control, the newest first.
        zone: timezone of the time in the sentence, which the footer of the page states.
    """
    if not phases or phases[0].outcome is not evidence.outcome:
        return None
    moment = phases[0].begins_at.astimezone(zone).strftime("%Y-%m-%d %H:%M")
    return _SINCE[evidence.outcome](moment)


def _findings_of(evidence: ControlEvidence) -> list[Finding]:
    """Return the findings of the newest bundle about the clause of the control."""
    clause = evidence.control.clause
    return [finding for finding in evidence.findings if finding.clause in ("", clause)]


def _cached_pictures(
    services: PageServices,
    history: ControlHistory,
    control: Control,
    phases: Sequence[Phase],
    results: Sequence[ControlResult],
    shown: ShownDay,
    translator: Translator,
) -> ControlPictures:
    """Return the pictures of a control, from a cache.

    The time line of the present is drawn again after a minute, because evidence becomes late.
    """
    key = (
        translator.locale,
        services.pack.sha256,
        history.version,
        control.id,
        shown.moment.replace(second=0, microsecond=0),
    )
    picture = services.cache.picture
    return ControlPictures(
        _markup(
            picture(("time line", key), lambda: _time_line(phases, results, shown, translator))
        ),
        _markup(picture(("values", key), lambda: _values(control, results, translator))),
    )


def _time_line(
    phases: Sequence[Phase],
    results: Sequence[ControlResult],
    shown: ShownDay,
    translator: Translator,
) -> str:
    """Return the outcomes of the last 12 months as SVG; empty if there is a single result."""
    first = shown.moment - _PICTURED
    spans = [
        Span(max(phase.begins_at, first), phase.ends_at, phase.outcome)
        for phase in reversed(phases)
        if phase.ends_at > first
    ]
    if len(results) < 2 or not spans:
        return ""
    title = _("Outcome of the control in the last 12 months")
    return time_line(spans, title, translator, translator.zone, "outcomes")


def _values(control: Control, results: Sequence[ControlResult], translator: Translator) -> str:
    """Return the measured values as SVG; empty if there is a single value."""
    if sum(result.value is not None for result in results) < 2:
        return ""
    return trend_chart(_trend(control, results), translator, "values")


def _trend(control: Control, results: Sequence[ControlResult]) -> TrendChart:
    indicator = control.indicator
    ratio = "percent" if indicator.is_share else ""
    points = [
        TrendPoint(
            at=result.finished_at, value=result.value, status=_POINT_OUTCOMES.get(result.state)
        )
        for result in reversed(results)
    ]
    return TrendChart(
        caption=_("Measured values, and the value that is required"),
        unit=ratio,
        points=points,
        target=Target(value=float(indicator.figure), label=_("Required")),
    )


def _markup(svg: str) -> Markup | None:
    return Markup(svg) if svg else None  # noqa: S704 - escaped by the templates of charts
