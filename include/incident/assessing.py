"""Count what is affected by an incident, and propose the worst grade that the counts reach.

If a count is unknown, the proposed grade is a lower bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.incident import incident_run, timeline
from include.incident.counting.database import count_all
from include.incident.entries import GradeConfirmed, ScopeCounted, Scoped
from include.incident.form import selection
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    incident_of,
    record_of,
    rules_of,
    scenario_of,
)
from include.incident.names import STEP_ASSESS, STEP_PRESERVE, Kind
from include.incident.rules import Grade, IncidentRules
from include.incident.scope import Scope, Unknown, of_scenario, refuse_less, widened
from include.incident.selection import Selection
from include.incident.timeline import last_of
from include.messages import Message, _, listed, verbatim
from include.policy.datamap import LazyMapping
from include.reports.i18n import Translator
from include.services.errors import ServiceError


@dataclass(frozen=True)
class Proposal:
    """A grade that the counts propose.

    Attributes:
        grade: of incident.yaml.
        certain: whether everything that it depends on was counted.
        words: which grade, why, and what could not be counted.
    """

    grade: str
    certain: bool
    words: Message


def propose(scope: Scope, rules: IncidentRules) -> Proposal:
    """Propose the worst grade that any figure reaches.

    Args:
        scope: what is affected.
        rules: incident.yaml.
    """
    worst, reasons = rules.grades[0], list(_reached(scope, rules.grades[0]))
    for grade in rules.grades[1:]:
        if found := list(_reached(scope, grade)):
            worst, reasons = grade, found
    why = listed(reasons) if reasons else _("no figure of a worse grade is reached")
    certain = scope.complete and not _minors_matter(scope, rules, worst)
    if scope.unknown:
        names = listed([verbatim(unknown.database) for unknown in scope.unknown])
        words = _(
            "Proposed grade: AT LEAST {grade} ({why}). Nobody could count in {databases}: it may "
            "be worse.",
            grade=worst.message,
            why=why,
            databases=names,
        )
    elif not certain:
        words = _(
            "Proposed grade: at least {grade} ({why}). Nobody knows how many of them are under 14.",
            grade=worst.message,
            why=why,
        )
    else:
        words = _("Proposed grade: {grade} ({why}).", grade=worst.message, why=why)
    return Proposal(worst.id, certain, words)


def _figures(scope: Scope) -> dict[str, int | None]:
    return {"people": scope.subjects, "sensitive": scope.sensitive, "minors": scope.minors}


def _reached(scope: Scope, grade: Grade) -> Iterator[Message]:
    for name, count in _figures(scope).items():
        limit = getattr(grade, name)
        if limit is not None and count is not None and count >= limit:
            yield _reason(name, count, limit)


def _reason(figure: str, count: int, limit: int) -> Message:
    if figure == "people":
        return _("{count} people are affected, from {limit} on", count=count, limit=limit)
    if figure == "sensitive":
        return _(
            "sensitive information of {count} people is affected, from {limit} on",
            count=count,
            limit=limit,
        )
    return _("{count} people under 14 are affected, from {limit} on", count=count, limit=limit)


def _minors_matter(scope: Scope, rules: IncidentRules, worst: Grade) -> bool:
    """Return whether people of whom nobody knows the age could make it worse.

    Whoever is under 14 counts as sensitive, too.
    """
    unknown = scope.subjects if scope.minors is None else scope.age_unknown
    at_most = (scope.minors or 0) + unknown
    worse = rules.grades[rules.grades.index(worst) + 1 :]
    sensitive = min(scope.sensitive + unknown, scope.subjects)
    return any(
        (one.minors is not None and at_most >= one.minors)
        or (one.sensitive is not None and unknown > 0 and sensitive >= one.sensitive)
        for one in worse
    )


def assess(run: IncidentRun, findings: StepFindings) -> ScopeCounted:
    """Count what is affected in every database, and propose a grade; unknown is never zero.

    A repeated task counts again where an earlier try could not.

    Raises:
        ServiceError: a database cannot be reached, and another try may reach it.
    """
    record = incident_of(run)
    if not record.incident.is_led:
        return ScopeCounted(asked=False)
    before = incident_run.latest_scope(run, record.incident.id)
    if before is not None and before.complete:  # a repeated task
        return _reported(run, findings, before, record)
    # The last selection: an update may have widened it where nobody could count.
    chosen = before.selection if before is not None else record.incident.selection
    counted, _fewer = widened(before, _count(run, record, chosen))
    counted = _kept(run, record, counted, by=STEP_ASSESS)
    passing = " ".join(_plain(each) for each in counted.unknown if each.passing)
    if passing and not run.task.is_last_try:
        raise ServiceError(passing, "The task is repeated, then it goes on without it.")
    return _reported(run, findings, counted, incident_of(run))


def widen(run: IncidentRun, findings: StepFindings) -> ScopeCounted:
    """Count what is affected besides; skipped where nothing is.

    Raises:
        UsageError: the form leaves out a database that is affected already.
    """
    more = selection(run.parameters, run.rules, run.zone)
    return count_more(run, findings, incident_of(run), more, by=run.triggered_by or "")


def count_more(
    run: IncidentRun,
    findings: StepFindings,
    record: IncidentRecord,
    more: Selection,
    *,
    by: str,
) -> ScopeCounted:
    """Count what is affected by a wider selection; people found before stay affected.

    Args:
        run: the run or command.
        findings: gets what could not be counted.
        record: the incident.
        more: everything that is known to be affected now.
        by: user id of the person who says so.

    Raises:
        UsageError: it leaves out a database that is affected already.
    """
    before = incident_run.latest_scope(run, record.incident.id)
    refuse_less(before, more)
    counted, fewer = widened(before, _count(run, record, more))
    counted = _kept(run, record, counted, by=by)
    number = record.incident.number
    return _reported(run, findings, counted, record_of(run, number), fewer)


def correct(run: IncidentRun, record: IncidentRecord, corrected: Scope) -> Scope | None:
    """Keep figures that the frozen list corrected as the next version, and propose a grade anew.

    Args:
        run: the run or command.
        record: the incident.
        corrected: the newest count, corrected; still with its version.

    Returns:
        As it is kept; None where somebody counted meanwhile, whose own run looks at the list.
    """
    return _keep(run, record, corrected, by=STEP_PRESERVE, after=corrected.version)


def outgrown(run: IncidentRun, record: IncidentRecord) -> str | None:
    """The grade that is proposed, where it is worse than the one that was confirmed before.

    Args:
        run: the run or command.
        record: the incident.
    """
    counted, graded = last_of(record.entries, Kind.SCOPED), last_of(record.entries, Kind.GRADED)
    if counted is None or graded is None or graded.place > counted.place:
        return None
    order = [grade.id for grade in rules_of(run, record).grades]
    proposed = counted.as_(Scoped).proposed
    confirmed = graded.as_(GradeConfirmed).grade
    return proposed if order.index(proposed) > order.index(confirmed) else None


def find_outgrown(
    findings: StepFindings, run: IncidentRun, record: IncidentRecord, proposed: str
) -> None:
    """Say that the confirmed grade is for less than is affected.

    Args:
        findings: gets it.
        run: the run or command.
        record: the incident.
        proposed: the grade that is proposed.
    """
    findings.find(
        "incident.grade_outgrown",
        Outcome.ATTENTION,
        _("More is affected than the confirmed grade is for; proposed: {grade}.",
          grade=rules_of(run, record).grade(proposed).message),
        _("Have who grades it confirm the grade: update_incident, action regrade."),
    )  # fmt: skip


def _count(run: IncidentRun, record: IncidentRecord, selection: Selection) -> Scope:
    """Count; which version it is, is known when it is kept."""
    version = 0
    if (scenario := scenario_of(run)) is not None:
        return of_scenario(scenario, version, selection)
    return count_all(
        selection,
        run.rules,
        LazyMapping(selection.databases, run.database),
        LazyMapping(selection.databases, run.reader),
        version=version,
        moment=record.incident.aware_at,
        zone=run.zone,
    )


def _kept(run: IncidentRun, record: IncidentRecord, counted: Scope, *, by: str) -> Scope:
    """Keep a count as the next version: an addition may have been counted meanwhile."""
    kept = _keep(run, record, counted, by=by)
    assert kept is not None
    return kept


def _keep(
    run: IncidentRun, record: IncidentRecord, counted: Scope, *, by: str, after: int | None = None
) -> Scope | None:
    """Keep a count as the next version; not where a version is the newest that is not ``after``."""
    proposed = propose(counted, rules_of(run, record))
    words = _(
        "Counted: {people} people, {records} records; proposed grade: {grade}.",
        people=counted.subjects,
        records=counted.records,
        grade=rules_of(run, record).grade(proposed.grade).message,
    )
    if counted.unknown:
        names = listed([verbatim(unknown.database) for unknown in counted.unknown])
        words = _("{words} Could not be counted: {databases}.", words=words, databases=names)
    data: dict[str, Any] = {
        "people": counted.subjects,
        "unknown": [unknown.database for unknown in counted.unknown],
        "proposed": proposed.grade,
        "certain": proposed.certain,
        "accounts": list(counted.selection.accounts),  # suspects, who are asked nothing any more
    }
    with run.state.begin() as conn:
        timeline.lock_incident(conn, record.incident.id)
        newest = len(incident_run.scopes(conn, record.incident.id))
        if after is not None and newest != after:
            return None
        version = newest + 1
        timeline.append(
            conn, record.incident.id, Kind.SCOPED, words, by=by, clock=run.clock,
            data=data | {"version": version},
        )  # fmt: skip
        kept = counted.model_copy(update={"version": version})
        incident_run.store_scope(conn, run, record.incident.id, kept)
    return kept


def _reported(
    run: IncidentRun,
    findings: StepFindings,
    counted: Scope,
    record: IncidentRecord,
    fewer: Sequence[str] = (),
) -> ScopeCounted:
    for unknown in counted.unknown:
        findings.find(
            "incident.not_counted",
            Outcome.FAIL,
            _("{database} could not be counted in: {reason}", database=unknown.database,
              reason=unknown.reason),
            _("Make it reachable, then clear the task `assess`, or trigger update_incident."),
            subject=unknown.database,
        )  # fmt: skip
    if counted.nobody:
        findings.find(
            "incident.nobody_affected",
            Outcome.ATTENTION,
            _("By what was entered nobody is affected."),
            _("Look at the form again: a wrong table, time or account finds nobody."),
        )
    for database in fewer:
        findings.find(
            "incident.fewer_affected",
            Outcome.ATTENTION,
            _("{database}: by this entry fewer people are affected than before; the figures of "
              "before stand.", database=database),
            _("Enter all that is affected as far as is known now, not only what came to it."),
            subject=database,
        )  # fmt: skip
    if proposed := outgrown(run, record):
        find_outgrown(findings, run, record, proposed)
    findings.measure(
        "incident.people_affected", counted.subjects if counted.complete else None, "1"
    )
    return ScopeCounted(scope=counted)


def _plain(unknown: Unknown) -> str:
    """Why nobody could count, for a task's log."""
    return f"{unknown.database}: {Translator('en').text(unknown.reason)}"
