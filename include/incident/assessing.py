"""Assessing an incident: what is affected is counted, kept as a version, and a grade proposed."""

from __future__ import annotations

from typing import Any

from include.evidence.examination import Examination
from include.evidence.model import Outcome, StepRecord
from include.incident import scopes, timeline
from include.incident.counting import count_all
from include.incident.desk import Desk, File
from include.incident.grading import propose
from include.incident.names import CLAUSE, STEP_ASSESS, Kind
from include.incident.scope import Scope, Unknown, of_scenario
from include.incident.selection import Selection
from include.incident.timeline import Entry
from include.messages import _, listed, verbatim
from include.reports.i18n import Translator


def assess(desk: Desk, number: str) -> tuple[StepRecord, str]:
    """Count what the trigger form says is affected; repeated, it counts again where it could not.

    Args:
        desk: of the incident.
        number: of the incident.

    Returns:
        The step's record; and why nobody could count somewhere, empty where everybody could or
        where another try would come to the same.
    """
    file = desk.file(number)
    if not file.incident.is_led:
        return StepRecord(step=STEP_ASSESS, outcome=Outcome.PASS, data={"asked": False}), ""
    before = scopes.found(desk, file.incident.id)
    if before is not None and before.complete:  # a repeated task: it was counted
        return _record(desk, before), ""
    counted = _count(desk, file, file.incident.selection, before)
    passing = [one for one in counted.unknown if one.passing]
    _keep(desk, file, counted, by=STEP_ASSESS)
    return _record(desk, counted), " ".join(_plain(one) for one in passing)


def widen(desk: Desk, number: str, more: Selection, *, by: str) -> StepRecord:
    """Count anew what is affected, by a wider selection; who was found before stays affected.

    Args:
        desk: of the incident.
        number: of the incident.
        more: all that is affected as far as is known now.
        by: user id of who says so.
    """
    file = desk.file(number)
    before = scopes.found(desk, file.incident.id)
    counted = _count(desk, file, more, before)
    _keep(desk, file, counted, by=by)
    return _record(desk, counted)


def _count(desk: Desk, file: File, selection: Selection, before: Scope | None) -> Scope:
    version = before.version + 1 if before else 1
    if desk.scenario is not None:
        return of_scenario(desk.scenario, version, selection)
    return count_all(
        selection,
        desk.rules,
        desk.databases,
        desk.readers,
        version=version,
        moment=file.incident.aware_at,
        zone=desk.zone,
    )


def _keep(desk: Desk, file: File, counted: Scope, *, by: str) -> Entry:
    proposed = propose(counted, desk.rules)
    words = _(
        "Counted: {people} people, {records} records; proposed grade: {grade}.",
        people=counted.subjects,
        records=counted.records,
        grade=desk.rules.grade(proposed.grade).message,
    )
    if counted.unknown:
        names = listed([verbatim(one.database) for one in counted.unknown])
        words = _("{words} Could not be counted: {databases}.", words=words, databases=names)
    data: dict[str, Any] = {
        "version": counted.version,
        "people": counted.subjects,
        "unknown": [one.database for one in counted.unknown],
        "proposed": proposed.grade,
        "certain": proposed.certain,
    }
    with desk.state.begin() as conn:
        entry = timeline.append(
            conn, file.incident.id, Kind.SCOPED, words, by=by, clock=desk.clock, data=data,
            once=f"scope:{counted.version}",
        )  # fmt: skip
        if counted.version > len(scopes.every(conn, file.incident.id)):
            scopes.keep(conn, desk, file.incident.id, counted)
    return entry


def _record(desk: Desk, counted: Scope) -> StepRecord:
    seen = Examination(STEP_ASSESS, CLAUSE)
    for one in counted.unknown:
        seen.find(
            "incident.not_counted",
            Outcome.FAIL,
            _("{database} could not be counted in: {reason}", database=one.database,
              reason=one.reason),
            _("Make it reachable, then clear the task `assess`, or trigger update_incident."),
            subject=one.database,
        )  # fmt: skip
    if counted.nobody:
        seen.find(
            "incident.nobody_affected",
            Outcome.ATTENTION,
            _("By what was entered nobody is affected."),
            _("Look at the form again: a wrong table, time or account finds nobody."),
        )
    seen.measure("incident.people_affected", counted.subjects if counted.complete else None, "1")
    return seen.record({"scope": counted.as_json()})


def _plain(unknown: Unknown) -> str:
    """Why nobody could count, for a task's log."""
    return f"{unknown.database}: {Translator('en').text(unknown.reason)}"
