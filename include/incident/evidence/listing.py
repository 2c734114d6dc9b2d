"""Compare the frozen list of affected people with the counts, and bound figures that differ.

A person stays on the list even if a later count does not find that person. Rows may also be added
between the count and the list. In both cases the list is longer than the count, and the figures of
people become upper bounds, because no single count covers the whole list.
"""

from __future__ import annotations

from collections.abc import Sequence

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.incident import assessing, incident_run
from include.incident.counting import subjects
from include.incident.entries import Preserved
from include.incident.incident_run import IncidentRecord, IncidentRun, record_of
from include.incident.names import Kind
from include.incident.scope import Counted, Scope
from include.incident.timeline import last_of
from include.messages import _


def bounded(before: Sequence[Counted], newest: Counted, people: int) -> Counted:
    """Figures of a database of which none is less than the truth about everybody on the list.

    Let B and N be those whom a count before and the newest one found, and ``extra`` how many more
    the list has than the greater of the two. Whether a person is under 14, or of unknown age, does
    not depend on the records in which they were found: of such a kind K, N adds no more to B than
    it has people beyond B, and the other way round, so ``|B and K or N and K|`` is at most the
    greater of both figures and ``extra``. What a record has of a person does: the same person may
    count by the one and not by the other, so the figures are added. None is more than the list.
    Whoever came since stands in no count; they are among the ``extra``, with the types that others
    have.

    Records, departments and people who stand on records only are left as they are: at least so
    many. What was counted by the same words before is in the newest figures already.

    Args:
        before: by counts before, since the list was compared last, that other words selected.
        newest: by the newest count, no figure less than before.
        people: on the list, more than the newest count has.
    """
    extra = people - newest.subjects

    def of_person(count: int) -> int:
        return min(count + extra, people)

    def of_records(count: int, *earlier: int) -> int:
        return min(sum(earlier, count + extra), people)

    return newest.model_copy(
        update={
            "subjects": people,
            "sensitive": of_records(newest.sensitive, *(one.sensitive for one in before)),
            "categories": {
                name: of_records(count, *(one.categories.get(name, 0) for one in before))
                for name, count in newest.categories.items()
            },
            "minors": None if newest.minors is None else of_person(newest.minors),
            "age_unknown": of_person(newest.age_unknown),
            "unseen": max(newest.unseen, extra),
        }
    )


def freeze(run: IncidentRun, record: IncidentRecord, scope: Scope, database: str) -> None:
    """Add the affected people of a database to the list, by what was said last.

    Where that is fewer than were counted, somebody widened the incident before its first list was
    frozen, by words that leave these out: then by all that was said before, too.

    Args:
        run: the run or command.
        record: the incident.
        scope: what is affected.
        database: in which.

    Raises:
        CannotCount: nobody can read there.
    """
    (counted,) = (count.subjects for count in scope.counted if count.database == database)
    known = [one for one in _every(run, record, scope) if database in one.selection.databases]
    done = []
    for one in (scope, *reversed(known)):
        if one.selection in done:
            continue
        done.append(one.selection)
        with run.state.begin() as conn:
            subjects.freeze(
                conn,
                record.incident.id,
                one.version,
                one.selection,
                run.rules.scope_of(database),
                run.database(database),
                run.reader(database),
                moment=record.incident.aware_at,
                zone=run.zone,
            )
            if subjects.by_database(conn, record.incident.id).get(database, 0) >= counted:
                return


def compare(
    run: IncidentRun,
    record: IncidentRecord,
    scope: Scope,
    unread: Sequence[str],
    findings: StepFindings,
) -> Scope:
    """Compare the list with what was counted; figures that are less than the list are raised.

    Args:
        run: the run or command.
        record: the incident.
        scope: what is affected, as it was counted last.
        unread: databases of which there is no list.
        findings: gets what differs.

    Returns:
        What is affected: a version of its own where figures had to be raised.
    """
    with run.state.connect() as conn:
        lengths = subjects.by_database(conn, record.incident.id)
    before = _before(run, record, scope)
    corrected = []
    for count in scope.counted:
        people = lengths.get(count.database, 0)
        if count.database in unread or people == count.subjects:
            corrected.append(count)
            continue
        if people < count.subjects:
            corrected.append(count)
            _shorter(findings, count, people)
            continue
        earlier = [
            each
            for version in before
            for each in version.counted
            if each.database == count.database
        ]
        corrected.append(bounded(earlier, count, people))
        _longer(findings, count, people)
    if tuple(corrected) == scope.counted:
        return scope
    raised = scope.model_copy(update={"counted": tuple(corrected)})
    kept = assessing.correct(run, record, raised)
    if kept is None:
        return scope
    if proposed := assessing.outgrown(run, record_of(run, record.incident.number)):
        assessing.find_outgrown(findings, run, record, proposed)
    return kept


def _every(run: IncidentRun, record: IncidentRecord, scope: Scope) -> list[Scope]:
    """All counts before one, the oldest first."""
    with run.state.connect() as conn:
        every = incident_run.scopes(conn, record.incident.id)
    return [one for one in every if one.version < scope.version]


def _before(run: IncidentRun, record: IncidentRecord, scope: Scope) -> list[Scope]:
    """Counts by other words since the list was compared last; that of then has all before it."""
    secured = last_of(record.entries, Kind.PRESERVED)
    since = secured.as_(Preserved).version if secured else 1
    return [
        one
        for one in _every(run, record, scope)
        if one.version >= since and one.selection != scope.selection
    ]


def _longer(findings: StepFindings, counted: Counted, people: int) -> None:
    findings.find(
        "incident.list_longer",
        Outcome.ATTENTION,
        _(
            "{database}: what was entered or counted last does not find {extra} people who were "
            "found before, or came since. Figures of people are upper bounds, those of records "
            "lower ones.",
            database=counted.database,
            extra=people - counted.subjects,
        ),
        _("Enter all that is affected as far as is known now: update_incident, action widen."),
        subject=counted.database,
    )


def _shorter(findings: StepFindings, counted: Counted, people: int) -> None:
    findings.find(
        "incident.list_shorter",
        Outcome.FAIL,
        _(
            "{database}: {counted} people were counted, {listed} of them are on the list.",
            database=counted.database,
            counted=counted.subjects,
            listed=people,
        ),
        _(
            "Clear the task `preserve`. Where it stays so, people were deleted since they were "
            "counted: find out why, and enter it as a note (update_incident, action note)."
        ),
        subject=counted.database,
    )
