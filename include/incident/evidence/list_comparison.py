"""Compare the stored list of affected people with the counts, and compute upper bounds.

A person stays on the list even if a later count does not find the person, and rows may be added
between the count and the storage of the list. Therefore the list may contain more people than were
counted. In this case no count covers everybody on the list, and the numbers of people are upper
bounds.
"""

from __future__ import annotations

from collections.abc import Sequence

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.incident import incident_run, scope_assessment
from include.incident.counting import subject_list
from include.incident.entries import Preserved
from include.incident.evidence.log_extracts import REPEAT_FOR_ENGINEERS
from include.incident.incident_ids import Kind
from include.incident.incident_run import IncidentRecord, IncidentRun, record_of
from include.incident.scope import DatabaseCount, Scope
from include.incident.timeline import last_of
from include.messages import _


def upper_bounds(
    earlier_counts: Sequence[DatabaseCount], newest: DatabaseCount, people: int
) -> DatabaseCount:
    """Return the counts of a database, raised to upper bounds for all people on the list.

    Let ``extra`` be the number of people on the list minus the number of people in the newest
    count. Whether a person is under 14 or of unknown age does not depend on the criteria of the
    count, so these figures rise by at most ``extra``. Whether a person has affected data of a
    category depends on the criteria: the person may have it in one count and not in the other.
    Therefore the figures of the earlier and the newest counts are added. No bound is greater than
    the number of people on the list.

    Counts of records, departments and unlisted people are lower bounds, and are not changed.
    Earlier counts with the same criteria are already included in the newest figures.

    Args:
        earlier_counts: counts of the database in the scopes that `_scopes_since_comparison`
            returns.
        newest: newest count. No figure is smaller than in an earlier count.
        people: number of people on the list, greater than the number of people in the newest count.
    """
    extra = people - newest.subjects

    def of_person(count: int) -> int:
        return min(count + extra, people)

    def of_records(count: int, *earlier: int) -> int:
        return min(sum(earlier, count + extra), people)

    return newest.model_copy(
        update={
            "subjects": people,
            "sensitive": of_records(
                newest.sensitive, *(earlier_count.sensitive for earlier_count in earlier_counts)
            ),
            "categories": {
                name: of_records(
                    count,
                    *(earlier_count.categories.get(name, 0) for earlier_count in earlier_counts),
                )
                for name, count in newest.categories.items()
            },
            "minors": None if newest.minors is None else of_person(newest.minors),
            "age_unknown": of_person(newest.age_unknown),
            "unseen": max(newest.unseen, extra),
        }
    )


def freeze_database(run: IncidentRun, record: IncidentRecord, scope: Scope, database: str) -> None:
    """Add the affected people of a database to the stored list.

    People are selected by the criteria with which the newest scope was counted. If the list then
    has fewer people than the scope, people whom an earlier count found may be missing on it. In
    this case people are also selected by the criteria of earlier scopes, the newest of them first,
    until the list is long enough.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
        scope: newest scope.
        database: name of the database.

    Raises:
        CannotCount: the database cannot be read.
    """
    (counted,) = (count.subjects for count in scope.counted if count.database == database)
    earlier_scopes = [
        selected_count
        for selected_count in _earlier_scopes(run, record, scope)
        if database in selected_count.selection.databases
    ]
    used_selections = []
    for version in (scope, *reversed(earlier_scopes)):
        if version.selection in used_selections:
            continue
        used_selections.append(version.selection)
        with run.state.begin() as conn:
            subject_list.freeze_subjects(
                conn,
                record.incident.id,
                version.version,
                version.selection,
                run.rules.scope_of(database),
                run.database(database),
                run.reader(database),
                moment=record.incident.aware_at,
                zone=run.zone,
            )
            if subject_list.count_by_database(conn, record.incident.id).get(database, 0) >= counted:
                return


def compare_list(
    run: IncidentRun,
    record: IncidentRecord,
    scope: Scope,
    unread: Sequence[str],
    findings: StepFindings,
) -> Scope:
    """Compare the stored list with the counts, and raise counts that are smaller than the list.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
        scope: newest scope.
        unread: names of the databases whose affected people could not be listed. Their counts are
            not compared.
        findings: receives a finding for each difference.

    Returns:
        The scope with the raised counts, which was stored with a new version number. If no count
        was raised, or another run stored a newer count in the meantime, return `scope`.
    """
    with run.state.connect() as conn:
        lengths = subject_list.count_by_database(conn, record.incident.id)
    earlier_scopes = _scopes_since_comparison(run, record, scope)
    corrected = []
    for count in scope.counted:
        people = lengths.get(count.database, 0)
        if count.database in unread or people == count.subjects:
            corrected.append(count)
            continue
        if people < count.subjects:
            corrected.append(count)
            _report_shorter_list(findings, count, people)
            continue
        earlier_counts = [
            earlier_count
            for version in earlier_scopes
            for earlier_count in version.counted
            if earlier_count.database == count.database
        ]
        corrected.append(upper_bounds(earlier_counts, count, people))
        _report_longer_list(findings, count, people)
    if tuple(corrected) == scope.counted:
        return scope
    raised = scope.model_copy(update={"counted": tuple(corrected)})
    stored = scope_assessment.store_correction(run, record, raised)
    if stored is None:
        return scope
    if proposed := scope_assessment.more_severe_grade(run, record_of(run, record.incident.number)):
        scope_assessment.report_more_severe_grade(findings, run, record, proposed)
    return stored


def _earlier_scopes(run: IncidentRun, record: IncidentRecord, scope: Scope) -> list[Scope]:
    """Return the stored scopes that are older than `scope`, oldest first."""
    with run.state.connect() as conn:
        scopes = incident_run.scopes(conn, record.incident.id)
    return [earlier for earlier in scopes if earlier.version < scope.version]


def _scopes_since_comparison(run: IncidentRun, record: IncidentRecord, scope: Scope) -> list[Scope]:
    """Return the earlier scopes whose criteria differ from those of `scope`, oldest first.

    If the stored list of affected people was compared with a scope before, scopes that are older
    than the compared scope are left out, because the compared scope already includes their figures.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
        scope: newest scope. It is not returned.
    """
    preserved = last_of(record.entries, Kind.PRESERVED)
    since = preserved.as_(Preserved).version if preserved else 1
    return [
        earlier
        for earlier in _earlier_scopes(run, record, scope)
        if earlier.version >= since and earlier.selection != scope.selection
    ]


def _report_longer_list(findings: StepFindings, counted: DatabaseCount, people: int) -> None:
    findings.find(
        "incident.list_longer",
        Outcome.ATTENTION,
        _(
            "{database}: {extra} people on the list are outside the newest entered scope or "
            "count: they were found earlier or were added later. Therefore the stated number "
            "of people may be too high, and the stated number of records too low.",
            database=counted.database,
            extra=people - counted.subjects,
        ),
        _(
            "Enter the complete scope that is known to be affected: trigger “Addition to an "
            "incident” and choose “Widen the scope”."
        ),
        subject=counted.database,
    )


def _report_shorter_list(findings: StepFindings, counted: DatabaseCount, people: int) -> None:
    findings.find(
        "incident.list_shorter",
        Outcome.FAIL,
        _(
            "{database}: {counted} people were counted, but only {listed} of them are on the list.",
            database=counted.database,
            counted=counted.subjects,
            listed=people,
        ),
        _(
            "Ask the data engineers to repeat the preservation of evidence. If the list is "
            "still shorter than the count, people were deleted from the database after the "
            "count: find out why, trigger “Addition to an incident”, and enter the reason as a "
            "note."
        ),
        subject=counted.database,
        for_engineers=REPEAT_FOR_ENGINEERS,
    )
