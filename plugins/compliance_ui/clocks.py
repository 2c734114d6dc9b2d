"""Clocks: incidents that are led now, and by when what has to be done about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from include.evidence.model import Outcome
from include.incident import register
from include.incident.clocks import clock_words
from include.incident.clocks.clock import Clock, ClockState, clocks_at, for_people
from include.incident.incident_run import IncidentRecord, record_in
from include.incident.names import WORKFLOW, State
from include.incident.register import Incident
from include.incident.rule_checks import INCIDENT
from include.messages import Message, _, verbatim
from include.orchestration.access.permissions import Page
from include.policy.rules import in_languages
from include.services.errors import UsageError
from plugins.compliance_ui.access import Visitor, opening
from plugins.compliance_ui.rendering import show
from plugins.compliance_ui.services import Services, services

router = APIRouter()

_STATES = {
    State.OPEN: _("is led"),
    State.CLOSED: _("closed"),
    State.CANCELLED: _("was none"),
    State.DUPLICATE: _("is led elsewhere"),
}


@dataclass(frozen=True)
class Running:
    """An incident on the page.

    Attributes:
        incident: as it is registered.
        clocks: that apply to it or may yet, what has to be done first.
        type: in words.
        grade: in words; None before one was confirmed.
        state: in words.
    """

    incident: Incident
    clocks: Sequence[Clock]
    type: Message
    grade: Message | None
    state: Message

    @property
    def is_running(self) -> bool:
        """Whether something has to be done about it."""
        return self.incident.state is State.OPEN or any(one.is_open for one in self.clocks)

    @property
    def outcome(self) -> Outcome:
        """The worst that its clocks say; what still runs is no failure."""
        return Outcome.worst(
            [clock_words.outcome(one) or Outcome.PASS for one in self.clocks] or [Outcome.PASS]
        )


@router.get("/clocks")
def running_clocks(
    request: Request, who: Annotated[Visitor, Depends(opening(Page.CLOCKS))]
) -> Response:
    """Show running incidents with their clocks, and how many are over."""
    who.require(WORKFLOW)
    here = services()
    rules = here.place.pack.section(INCIDENT)
    if rules is None:
        raise UsageError("The policy pack has no incident.yaml.", "Write one: docs/incidents.md.")
    with here.reading() as conn:
        led = [one for one in register.listed(conn) if one.is_led]
        records = [record_in(conn, one.number) for one in led]
    shown = [_running(here, one) for one in records]
    return show(
        request,
        here,
        who,
        Page.CLOCKS,
        "clocks.html.j2",
        running=[one for one in shown if one.is_running],
        over=sum(not one.is_running for one in shown),
        due=clock_words.due,
        state=clock_words.state,
        basis=clock_words.basis,
        clock_outcome=clock_words.outcome,
    )


def _running(here: Services, record: IncidentRecord) -> Running:
    rules, pack = here.place.pack.section(INCIDENT), here.place.pack
    assert rules is not None
    one = record.incident
    types = {of.id: of for of in (*rules.types, *((one.kept.type,) if one.kept else ()))}
    grades = {of.id: of for of in (one.kept.grades if one.kept else rules.grades)}
    graded = record.grade
    return Running(
        one,
        [
            clock
            for clock in for_people(clocks_at(rules, record, here.now(), pack.calendar.zone))
            if clock.state is not ClockState.NOT_APPLICABLE
        ],
        in_languages(types[one.type].title) if one.type in types else verbatim(one.type),
        None
        if graded is None
        else in_languages(grades[graded].title)
        if graded in grades
        else verbatim(graded),
        _STATES[one.state],
    )
