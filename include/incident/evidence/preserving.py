"""Securing the evidence of an incident: list of people, access logs, legal holds.

Safe to repeat: people are added, an extract that was made is verified, holds are placed once. What
could not be read is said, and its database is held as a whole.
"""

from __future__ import annotations

from contextlib import closing

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.incident import scopes, timeline
from include.incident.counting import subjects
from include.incident.counting.reading import CannotCount
from include.incident.evidence import extracts, holding, listing
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    incident_of,
    scenario_of,
)
from include.incident.names import STEP_PRESERVE, Kind
from include.incident.results import Preserved
from include.incident.scope import FICTION, Scope
from include.messages import _

SHORT = {"incident.list_shorter", "incident.extract_incomplete"}
"""Findings of which another try may find the same: what was counted may be gone for good."""


def preserve(run: IncidentRun, findings: StepFindings) -> Preserved:
    """Freeze the list of people, extract the log of accesses, place legal holds.

    Raises:
        ServiceError: a service failed; the next try goes on with what was done.
    """
    record = incident_of(run)
    number = record.incident.number
    if not record.incident.is_led:
        return Preserved(asked=False)
    scope = scopes.newest(run, record.incident.id)
    if scenario_of(run) is not None:
        return _drilled(run, record, scope)
    unread = _freeze(run, record, scope, findings)
    scope = listing.compare(run, record, scope, unread, findings)
    with run.state.begin() as conn:
        counts = subjects.by_database(conn, record.incident.id)
        affected: dict[str, int | None] = {
            name: None if people is None or name in unread else counts.get(name, 0)
            for name, people in scope.affected().items()
        }
        with closing(subjects.stream(run.state, record.incident.id)) as keys:
            holding.place(conn, run, number, affected, keys)
    extracted = extracts.take(run, record, scope, findings)
    failures = [each for each in findings.findings if each.severity is Outcome.FAIL]
    with run.state.begin() as conn:
        frozen = subjects.frozen(conn, record.incident.id)
        preserved = Preserved(
            version=scope.version,
            people=frozen.people,
            list_sha256=frozen.sha256,
            extracts=extracted,
            holds=holding.placed(conn, number),
            not_listed=tuple(unread),
            complete=not failures,
            short=tuple(sorted({each.subject for each in failures if each.code in SHORT})),
            again=any(each.code not in SHORT for each in failures),
        )
        words = _(
            "Evidence secured. People listed: {people}; log extracts: {extracts}; holds: {holds}.",
            people=frozen.people,
            extracts=len(extracted),
            holds=sum(preserved.holds.values()),
        )
        once = ("preserved", run.run.run_id, scope.version, frozen.sha256, preserved.complete)
        timeline.append(
            conn, record.incident.id, Kind.PRESERVED, words, by=STEP_PRESERVE, clock=run.clock,
            data=preserved.as_json(), once=":".join(map(str, once)),
        )  # fmt: skip
    listed = None if scope.unknown or unread else frozen.people
    findings.measure("incident.people_affected", listed, "1")
    return preserved


def _freeze(
    run: IncidentRun, record: IncidentRecord, scope: Scope, findings: StepFindings
) -> list[str]:
    """Freeze the lists; names of the databases of which there is none."""
    unread = []
    for one in scope.counted:
        try:
            listing.freeze(run, record, scope, one.database)
        except CannotCount as error:
            unread.append(one.database)
            findings.find(
                "incident.list_not_frozen",
                Outcome.FAIL,
                _(
                    "The list of affected people of {database} could not be secured: {reason} All "
                    "of it is held.",
                    database=one.database,
                    reason=error.reason,
                ),
                _("Make it reachable, then clear the task `preserve`."),
                subject=one.database,
            )
    for missing in scope.unknown:
        if missing.database in unread:
            continue
        findings.find(
            "incident.list_not_frozen",
            Outcome.FAIL,
            _(
                "Nobody could count in {database}, so there is no list of its affected people; all "
                "of it is held.",
                database=missing.database,
            ),
            _("Make it reachable, clear the task `assess`, or trigger update_incident."),
            subject=missing.database,
        )
    return unread


def _drilled(run: IncidentRun, record: IncidentRecord, scope: Scope) -> Preserved:
    """Enter that a drill secures nothing."""
    preserved = Preserved(version=scope.version, people=scope.subjects, holds={FICTION: 0})
    words = _("DRILL: evidence would be secured; nothing is extracted, nothing is held.")
    with run.state.begin() as conn:
        timeline.append(
            conn, record.incident.id, Kind.PRESERVED, words, by=STEP_PRESERVE, clock=run.clock,
            data=preserved.as_json(), once="preserved",
        )  # fmt: skip
    return preserved
