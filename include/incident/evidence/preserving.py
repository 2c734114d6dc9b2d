"""Securing the evidence of an incident: list of people, access logs, legal holds.

Safe to repeat: people are added, an extract that was made is verified, holds are placed once. What
could not be read is said, and its database is held as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import StepFindings
from include.incident import scopes, timeline
from include.incident.counting import subjects
from include.incident.counting.reading import CannotCount
from include.incident.evidence import extracts, holding, listing
from include.incident.incident_run import IncidentRecord, IncidentRun, record_of, scenario_of
from include.incident.names import CLAUSE, STEP_PRESERVE, Kind
from include.incident.scope import FICTION, Scope
from include.messages import _
from include.services.objectstore.base import ObjectStore

if TYPE_CHECKING:
    from include.encryption.recipients import Recipient


SHORT = {"incident.list_shorter", "incident.extract_incomplete"}
"""Findings of which another try may find the same: what was counted may be gone for good."""


def preserve(
    run: IncidentRun,
    number: str,
    store: Callable[[], ObjectStore],
    recipients: Callable[[], Sequence[Recipient]],
    *,
    last: bool = False,
) -> StepRecord:
    """Freeze the list, place the holds, extract the access logs.

    Args:
        run: the run or command.
        number: of the incident.
        store: opens the store in which extracts are kept.
        recipients: whose keys open them.
        last: whether no other try comes: then what cannot be extracted is told, and people need
            not wait for it.

    Raises:
        ServiceError: a service failed; what was done stays, and the next try goes on.
    """
    record = record_of(run, number)
    if not record.incident.is_led:
        return StepRecord(step=STEP_PRESERVE, outcome=Outcome.PASS, data={"asked": False})
    scope = scopes.newest(run, record.incident.id)
    seen = StepFindings(STEP_PRESERVE, CLAUSE)
    if scenario_of(run) is not None:
        return _drilled(run, record, scope, seen)
    unread = _freeze(run, record, scope, seen)
    scope = listing.compare(run, record, scope, unread, seen)
    with run.state.begin() as conn:
        counts = subjects.by_database(conn, record.incident.id)
        affected: dict[str, int | None] = {
            name: None if people is None or name in unread else counts.get(name, 0)
            for name, people in scope.affected().items()
        }
        with closing(subjects.stream(run.state, record.incident.id)) as keys:
            holding.place(conn, run, number, affected, keys)
    made = extracts.take(run, record, scope, store, recipients, seen, last=last)
    red = [one for one in seen.findings if one.severity is Outcome.FAIL]
    with run.state.begin() as conn:
        frozen = subjects.frozen(conn, record.incident.id)
        data: dict[str, Any] = {
            "version": scope.version,
            "people": frozen.people,
            "list_sha256": frozen.sha256,
            "extracts": made,
            "holds": holding.placed(conn, number),
            "not_listed": unread,
            "complete": not red,
            "short": sorted({one.subject for one in red if one.code in SHORT}),
            "again": any(one.code not in SHORT for one in red),
        }
        words = _(
            "Evidence secured. People listed: {people}; log extracts: {extracts}; holds: {holds}.",
            people=frozen.people,
            extracts=len(made),
            holds=sum(data["holds"].values()),
        )
        once = ("preserved", run.run.run_id, scope.version, frozen.sha256, data["complete"])
        timeline.append(
            conn, record.incident.id, Kind.PRESERVED, words, by=STEP_PRESERVE, clock=run.clock,
            data=data, once=":".join(map(str, once)),
        )  # fmt: skip
    listed = None if scope.unknown or unread else frozen.people
    seen.measure("incident.people_affected", listed, "1")
    return seen.record(data)


def _freeze(
    run: IncidentRun, record: IncidentRecord, scope: Scope, seen: StepFindings
) -> list[str]:
    """Freeze the lists; names of the databases of which there is none."""
    unread = []
    for one in scope.counted:
        try:
            listing.freeze(run, record, scope, one.database)
        except CannotCount as error:
            unread.append(one.database)
            seen.find(
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
        seen.find(
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


def _drilled(
    run: IncidentRun, record: IncidentRecord, scope: Scope, seen: StepFindings
) -> StepRecord:
    """A drill secures nothing, and says so."""
    data: dict[str, Any] = {
        "version": scope.version,
        "people": scope.subjects,
        "list_sha256": "-",
        "extracts": {},
        "holds": {FICTION: 0},
        "not_listed": [],
        "complete": True,
    }
    words = _("DRILL: evidence would be secured; nothing is extracted, nothing is held.")
    with run.state.begin() as conn:
        timeline.append(
            conn, record.incident.id, Kind.PRESERVED, words, by=STEP_PRESERVE, clock=run.clock,
            data=data, once="preserved",
        )  # fmt: skip
    return seen.record(data)
