"""Count the affected records of an incident, and propose its grade.

If a database could not be counted, the real grade may be more severe than the proposed grade.
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
from include.incident.form import read_selection
from include.incident.incident_ids import STEP_ASSESS, STEP_PRESERVE, Kind
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    incident_of,
    record_of,
    rules_of,
    scenario_of,
)
from include.incident.rules import Grade, IncidentRules
from include.incident.scope import (
    Scope,
    UncountedDatabase,
    merge_counts,
    refuse_narrower,
    scenario_scope,
)
from include.incident.selection import Selection
from include.incident.timeline import last_of
from include.messages import Message, _, listed
from include.policy.datamap import LazyMapping
from include.reports.i18n import Translator
from include.services.errors import ServiceError

RECOUNT = _(
    "Ask the data engineers to restore the connection to the database and to repeat the count. "
    "Or trigger “Addition to an incident” and enter the scope again."
)
RECOUNT_FOR_ENGINEERS = _(
    "In Airflow, open the run that handles this incident, and clear its task `assess`."
)


@dataclass(frozen=True)
class Proposal:
    """A grade that ParcelSeal proposes from the counts of an incident.

    Attributes:
        grade: id of a grade in incident.yaml.
        certain: whether everything on which the grade depends could be counted.
        words: display text with the grade, the reasons for it, and the databases that could not be
            counted.
    """

    grade: str
    certain: bool
    words: Message


def propose_grade(scope: Scope, rules: IncidentRules) -> Proposal:
    """Propose a grade from the counts of an incident.

    The proposal is the most severe grade of which the counts reach at least one number. If they
    reach no number, it is the least severe grade.

    Args:
        scope: counts of all databases.
        rules: content of incident.yaml.
    """
    worst, reasons = rules.grades[0], list(_reached_limits(scope, rules.grades[0]))
    for grade in rules.grades[1:]:
        if limits := list(_reached_limits(scope, grade)):
            worst, reasons = grade, limits
    reached_limits = (
        listed(reasons) if reasons else _("no count reaches the threshold of a higher grade")
    )
    certain = scope.is_complete and not _could_unknown_age_worsen(scope, rules, worst)
    if scope.unknown:
        names = listed([unknown.database for unknown in scope.unknown])
        words = _(
            "Proposed grade: AT LEAST {grade} ({reasons}). The affected people of {databases} "
            "could not be counted, so the real grade may be more severe.",
            grade=worst.message,
            reasons=reached_limits,
            databases=names,
        )
    elif not certain:
        words = _(
            "Proposed grade: at least {grade} ({reasons}). The number of people under 14 is "
            "unknown.",
            grade=worst.message,
            reasons=reached_limits,
        )
    else:
        words = _(
            "Proposed grade: {grade} ({reasons}).", grade=worst.message, reasons=reached_limits
        )
    return Proposal(worst.id, certain, words)


def _scope_figures(scope: Scope) -> dict[str, int | None]:
    return {"people": scope.subjects, "sensitive": scope.sensitive, "minors": scope.minors}


def _reached_limits(scope: Scope, grade: Grade) -> Iterator[Message]:
    for name, count in _scope_figures(scope).items():
        limit = getattr(grade, name)
        if limit is not None and count is not None and count >= limit:
            yield _limit_reason(name, count, limit)


def _limit_reason(figure: str, count: int, limit: int) -> Message:
    if figure == "people":
        return _(
            "{count} people are affected; the threshold of this grade is {limit} people",
            count=count,
            limit=limit,
        )
    if figure == "sensitive":
        return _(
            "sensitive information of {count} people is affected; the threshold of this grade "
            "is {limit} people",
            count=count,
            limit=limit,
        )
    return _(
        "{count} people under 14 are affected; the threshold of this grade is {limit} people",
        count=count,
        limit=limit,
    )


def _could_unknown_age_worsen(scope: Scope, rules: IncidentRules, worst: Grade) -> bool:
    """Return whether a more severe grade would apply if all people of unknown age were under 14.

    All people under 14 count as people with sensitive data.

    Args:
        scope: counts of all databases.
        rules: content of incident.yaml.
        worst: most severe grade that the known figures reach.
    """
    unknown = scope.subjects if scope.minors is None else scope.age_unknown
    at_most = (scope.minors or 0) + unknown
    worse = rules.grades[rules.grades.index(worst) + 1 :]
    sensitive = min(scope.sensitive + unknown, scope.subjects)
    return any(
        (grade.minors is not None and at_most >= grade.minors)
        or (grade.sensitive is not None and unknown > 0 and sensitive >= grade.sensitive)
        for grade in worse
    )


def assess_scope(run: IncidentRun, findings: StepFindings) -> ScopeCounted:
    """Count the affected records in every database, and propose a grade.

    If a database cannot be counted, its count is unknown, not zero. When the task is repeated, it
    counts again in the databases that an earlier attempt could not count.

    Raises:
        ServiceError: a database could not be reached, but a retry may succeed.
    """
    record = incident_of(run)
    if not record.incident.requires_steps:
        return ScopeCounted(asked=False)
    previous = incident_run.latest_scope(run, record.incident.id)
    if previous is not None and previous.is_complete:  # a repeated task
        return _report_scope(run, findings, previous, record)
    # Use the newest selection, since an update may have added databases to the scope.
    chosen = previous.selection if previous is not None else record.incident.selection
    counted, _fewer = merge_counts(previous, _count_selection(run, record, chosen))
    counted = _store_new_count(run, record, counted, by=STEP_ASSESS)
    passing = " ".join(_log_reason(database) for database in counted.unknown if database.passing)
    if passing and not run.task.is_last_try:
        raise ServiceError(
            passing, "The task is repeated; its last attempt continues without this database."
        )
    return _report_scope(run, findings, counted, incident_of(run))


def widen_scope(run: IncidentRun, findings: StepFindings) -> ScopeCounted:
    """Count the affected records of the wider scope that a person entered in an update.

    Raises:
        UsageError: the form of the update leaves out a database that is already affected.
    """
    more = read_selection(run.parameters, run.rules, run.zone)
    return count_more(run, findings, incident_of(run), more, by=run.triggered_by or "")


def count_more(
    run: IncidentRun,
    findings: StepFindings,
    record: IncidentRecord,
    more: Selection,
    *,
    by: str,
) -> ScopeCounted:
    """Count the affected records by wider criteria, and add them to the scope of an incident.

    People who were counted before remain affected.

    Args:
        run: services and rules of the current run or command.
        findings: receives a finding for each database that could not be counted.
        record: incident with its timeline.
        more: criteria that cover everything that is known to be affected.
        by: user id of the person who entered the criteria.

    Raises:
        UsageError: the criteria leave out a database that is already affected.
    """
    previous = incident_run.latest_scope(run, record.incident.id)
    refuse_narrower(previous, more)
    counted, fewer = merge_counts(previous, _count_selection(run, record, more))
    counted = _store_new_count(run, record, counted, by=by)
    number = record.incident.number
    return _report_scope(run, findings, counted, record_of(run, number), fewer)


def store_correction(run: IncidentRun, record: IncidentRecord, corrected: Scope) -> Scope | None:
    """Store a scope whose counts were raised to match the list of affected people.

    Then propose a grade for it.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
        corrected: corrected scope, still with the version number of the scope that was corrected.

    Returns:
        The stored scope with a new version number. None if another run has stored a newer count in
        the meantime; that other run then compares the list with its own count.
    """
    return _store_count(run, record, corrected, by=STEP_PRESERVE, after=corrected.version)


def more_severe_grade(run: IncidentRun, record: IncidentRecord) -> str | None:
    """Return the newest count's proposed grade if it is more severe than the confirmed grade.

    Otherwise return None. Also return None if nothing was counted yet, if no grade was confirmed
    yet, or if a person confirmed a grade after the newest count.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
    """
    counted, graded = last_of(record.entries, Kind.SCOPED), last_of(record.entries, Kind.GRADED)
    if counted is None or graded is None or graded.place > counted.place:
        return None
    order = [grade.id for grade in rules_of(run, record).grades]
    proposed = counted.as_(Scoped).proposed
    confirmed = graded.as_(GradeConfirmed).grade
    return proposed if order.index(proposed) > order.index(confirmed) else None


def report_more_severe_grade(
    findings: StepFindings, run: IncidentRun, record: IncidentRecord, proposed: str
) -> None:
    """Add a finding that the proposed grade is more severe than the confirmed grade.

    Args:
        findings: receives the finding.
        run: services and rules of the current run or command.
        record: incident with its timeline.
        proposed: id of the proposed grade.
    """
    findings.find(
        "incident.grade_outgrown",
        Outcome.ATTENTION,
        _("The incident affects more people than its confirmed grade covers; proposed grade: "
            "{grade}.",
          grade=rules_of(run, record).grade(proposed).message),
        _("Ask the person who is responsible for the grading to trigger “Addition to an "
            "incident” and to choose “Change the grade”."),
    )  # fmt: skip


def _count_selection(run: IncidentRun, record: IncidentRecord, selection: Selection) -> Scope:
    """Count the affected records by given criteria, without storing the result.

    The result has version 0; `_store_count` assigns the version.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
        selection: criteria that `check_selection` returned.
    """
    version = 0
    if (scenario := scenario_of(run)) is not None:
        return scenario_scope(scenario, version, selection)
    return count_all(
        selection,
        run.rules,
        LazyMapping(selection.databases, run.database),
        LazyMapping(selection.databases, run.reader),
        version=version,
        moment=record.incident.aware_at,
        zone=run.zone,
    )


def _store_new_count(run: IncidentRun, record: IncidentRecord, counted: Scope, *, by: str) -> Scope:
    """Store a count as the newest version of an incident's scope, and return the stored scope.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
        counted: scope to store; its version number is replaced.
        by: user id of a person, or the name of a step.
    """
    stored = _store_count(run, record, counted, by=by)
    assert stored is not None
    return stored


def _store_count(
    run: IncidentRun, record: IncidentRecord, counted: Scope, *, by: str, after: int | None = None
) -> Scope | None:
    """Store a count as the next version of an incident's scope.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
        counted: scope to store; its version number is replaced.
        by: user id of a person, or the name of a step.
        after: version that must be the newest stored version; otherwise nothing is stored. If None,
            the count is always stored.

    Returns:
        The stored scope, or None if nothing was stored.
    """
    proposed = propose_grade(counted, rules_of(run, record))
    words = _(
        "The count found {people} affected people and {records} affected records; proposed "
        "grade: {grade}.",
        people=counted.subjects,
        records=counted.records,
        grade=rules_of(run, record).grade(proposed.grade).message,
    )
    if counted.unknown:
        names = listed([unknown.database for unknown in counted.unknown])
        words = _(
            "{message} Databases that could not be counted: {databases}.",
            message=words,
            databases=names,
        )
    data: dict[str, Any] = {
        "people": counted.subjects,
        "unknown": [unknown.database for unknown in counted.unknown],
        "proposed": proposed.grade,
        "certain": proposed.certain,
        "accounts": list(counted.selection.accounts),  # suspects, excluded from the team
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
        stored = counted.model_copy(update={"version": version})
        incident_run.store_scope(conn, run, record.incident.id, stored)
    return stored


def _report_scope(
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
            _("The affected records of {database} could not be counted: {reason}",
              database=unknown.database,
              reason=unknown.reason),
            RECOUNT,
            subject=unknown.database,
            for_engineers=RECOUNT_FOR_ENGINEERS,
        )  # fmt: skip
    if counted.is_empty:
        findings.find(
            "incident.nobody_affected",
            Outcome.ATTENTION,
            _("The entered scope matches no affected people."),
            _(
                "Check the tables, times and accounts that were entered in the form: if one of "
                "them is wrong, the count finds no people."
            ),
        )
    for database in fewer:
        findings.find(
            "incident.fewer_affected",
            Outcome.ATTENTION,
            _("{database}: the newly entered scope covers fewer affected people than the "
                "earlier one. The earlier figures remain valid.", database=database),
            _("Enter the complete scope that is known to be affected, not only what was added."),
            subject=database,
        )  # fmt: skip
    if proposed := more_severe_grade(run, record):
        report_more_severe_grade(findings, run, record, proposed)
    findings.measure(
        "incident.people_affected", counted.subjects if counted.is_complete else None, "1"
    )
    return ScopeCounted(scope=counted)


def _log_reason(unknown: UncountedDatabase) -> str:
    """Return the reason why a database could not be counted, as text for the log of a task."""
    return f"{unknown.database}: {Translator('en').text(unknown.reason)}"
