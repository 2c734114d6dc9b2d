"""Secure the evidence of an incident: the list of people, the log extracts, the legal holds.

A few people are held one by one; for many, the whole database is held. Two incidents that hold the
same record have two holds: releasing one leaves the other.

Safe to repeat: people are added, an existing extract is verified, a hold is placed once. A database
that cannot be read is reported and held as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import date
from itertools import islice

from sqlalchemy import Connection, select

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.holds import registry
from include.holds.keys import refuse_personal_key
from include.holds.registry import HoldKind
from include.incident import incident_run, timeline
from include.incident.counting import subjects
from include.incident.counting.reading import CannotCount
from include.incident.entries import Preserved
from include.incident.evidence import extracts, listing
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    incident_of,
    scenario_of,
)
from include.incident.names import STEP_PRESERVE, Kind
from include.incident.scope import FICTION, Scope
from include.messages import _
from include.policy.period import later
from include.services.errors import UsageError
from include.state.tables import legal_hold


def place(
    conn: Connection,
    run: IncidentRun,
    number: str,
    affected: Mapping[str, int | None],
    keys: Iterable[tuple[str, str]],
) -> dict[str, int]:
    """Place the holds that an incident needs and does not have yet; how many of each kind.

    Args:
        conn: the state database, in a transaction; deletions wait until it ends.
        run: the run or command.
        number: of the incident.
        affected: affected people by database; None where nobody could count them: then all of the
            database is held. So it is where a key looks like a person's number, which no registry
            keeps.
        keys: database and key of every affected person; read only where few are affected.

    Raises:
        ServiceError: a deletion in progress did not end; nothing was placed.
    """
    registry.wait_for_deletions(conn, "The holds of the incident were not placed")
    there = _placed(conn, number)
    most = run.rules.hold.each_up_to
    many = {name for name, count in affected.items() if count is None or count > most}
    few, each = set(affected) - many, []
    if few:
        listed = (one for one in keys if one[0] in few)
        each = list(islice(listed, most * len(few)))
        many |= {database for database, key in each if not _may_name(database, key)}
    wanted = [(HoldKind.DATABASE, name) for name in affected if name in many]
    wanted += [
        (HoldKind.SUBJECT, f"{database}/{key}") for database, key in each if database not in many
    ]
    made = dict.fromkeys((str(HoldKind.DATABASE), str(HoldKind.SUBJECT)), 0)
    for kind, value in wanted:
        if (str(kind), value) in there:
            continue
        registry.add(
            conn,
            run.clock,
            kind=kind,
            value=value,
            reason=f"Evidence of incident {number}",
            owner=run.rules.duty(run.rules.steps["close"]).role,
            case_ref=number,
            review_on=_review(run),
        )
        made[str(kind)] += 1
    return made


def _may_name(database: str, key: str) -> bool:
    try:
        refuse_personal_key("A hold's value", f"{database}/{key}")
    except UsageError:
        return False
    return True


def placed(conn: Connection, number: str) -> dict[str, int]:
    """Return how many holds of each kind an incident has in force."""
    found: dict[str, int] = {}
    for kind, _value in _placed(conn, number):
        found[kind] = found.get(kind, 0) + 1
    return found


def _placed(conn: Connection, number: str) -> set[tuple[str, str]]:
    query = select(legal_hold.c.kind, legal_hold.c.value).where(
        legal_hold.c.case_ref == number, legal_hold.c.released_at.is_(None)
    )
    return {(row.kind, row.value) for row in conn.execute(query)}


def _review(run: IncidentRun) -> date:
    return later(run.clock.now(), run.rules.hold.review_after, run.zone).astimezone(run.zone).date()


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
    scope = incident_run.require_scope(run, record.incident.id)
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
            place(conn, run, number, affected, keys)
    extracted = extracts.take(run, record, scope, findings)
    failures = [each for each in findings.findings if each.severity is Outcome.FAIL]
    with run.state.begin() as conn:
        frozen = subjects.frozen(conn, record.incident.id)
        preserved = Preserved(
            version=scope.version,
            people=frozen.people,
            list_sha256=frozen.sha256,
            extracts=extracted,
            holds=placed(conn, number),
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
    for count in scope.counted:
        try:
            listing.freeze(run, record, scope, count.database)
        except CannotCount as error:
            unread.append(count.database)
            findings.find(
                "incident.list_not_frozen",
                Outcome.FAIL,
                _(
                    "The list of affected people of {database} could not be secured: {reason} All "
                    "of it is held.",
                    database=count.database,
                    reason=error.reason,
                ),
                _("Make it reachable, then clear the task `preserve`."),
                subject=count.database,
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
