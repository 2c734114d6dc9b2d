"""Preserve the evidence of an incident: the list of affected people, log extracts, legal holds.

If at most `hold.each_up_to` people in a database are affected, a legal hold is placed on
each of them; otherwise a single hold is placed on the whole database. Each incident has its own
holds, so the release of a hold of one incident does not release the holds of other incidents.

The step can be repeated safely: only new people are added to the list, an existing extract is only
verified, and each hold is placed once. If a database cannot be read, this is reported, and a hold
is placed on the whole database.
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
from include.incident import incident_run, scope_assessment, timeline
from include.incident.counting import subject_list
from include.incident.counting.snapshot import CannotCount
from include.incident.entries import Preserved
from include.incident.evidence import list_comparison, log_extracts
from include.incident.incident_ids import STEP_PRESERVE, Kind
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    incident_of,
    scenario_of,
)
from include.incident.scope import DRILL_DATABASE, Scope
from include.messages import _
from include.policy.period import add_period
from include.services.errors import UsageError
from include.state.tables import legal_hold


def place_holds(
    conn: Connection,
    run: IncidentRun,
    number: str,
    affected: Mapping[str, int | None],
    keys: Iterable[tuple[str, str]],
) -> dict[str, int]:
    """Place the legal holds of an incident that do not exist yet.

    A hold is placed on a whole database in three cases: its affected people could not be counted;
    too many people are affected; or a key looks like a phone or ID number. The register of holds
    must not contain such numbers.

    Args:
        conn: connection to the state database, in a transaction. Until this transaction ends, no
            expired records are deleted.
        run: services and rules of the current run or command.
        number: number of the incident.
        affected: number of affected people by database; None if the people could not be counted.
        keys: database and key of every affected person; read only if few people are affected.

    Returns:
        The number of new holds by kind of hold.

    Raises:
        ServiceError: a deletion in progress did not end in time, so no hold was placed.
    """
    registry.wait_for_deletions(conn, "The holds of the incident were not placed")
    existing = _holds_in_force(conn, number)
    limit = run.rules.hold.each_up_to
    whole_databases = {name for name, count in affected.items() if count is None or count > limit}
    small_databases, listed_keys = set(affected) - whole_databases, []
    if small_databases:
        small_keys = (key for key in keys if key[0] in small_databases)
        listed_keys = list(islice(small_keys, limit * len(small_databases)))
        whole_databases |= {
            database for database, key in listed_keys if not _is_allowed_value(database, key)
        }
    holds = [(HoldKind.DATABASE, name) for name in affected if name in whole_databases]
    holds += [
        (HoldKind.SUBJECT, f"{database}/{key}")
        for database, key in listed_keys
        if database not in whole_databases
    ]
    new_holds = dict.fromkeys((str(HoldKind.DATABASE), str(HoldKind.SUBJECT)), 0)
    for kind, value in holds:
        if (str(kind), value) in existing:
            continue
        registry.add(
            conn,
            run.clock,
            kind=kind,
            value=value,
            reason=f"Evidence of incident {number}",
            owner=run.rules.duty(run.rules.steps["close"]).role,
            case_ref=number,
            review_on=_review_date(run),
        )
        new_holds[str(kind)] += 1
    return new_holds


def _is_allowed_value(database: str, key: str) -> bool:
    try:
        refuse_personal_key("The value of a hold", f"{database}/{key}")
    except UsageError:
        return False
    return True


def count_holds(conn: Connection, number: str) -> dict[str, int]:
    """Return the number of an incident's legal holds in force, by kind of hold.

    Args:
        conn: connection to the state database.
        number: number of the incident.
    """
    counts: dict[str, int] = {}
    for kind, _value in _holds_in_force(conn, number):
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def _holds_in_force(conn: Connection, number: str) -> set[tuple[str, str]]:
    query = select(legal_hold.c.kind, legal_hold.c.value).where(
        legal_hold.c.case_ref == number, legal_hold.c.released_at.is_(None)
    )
    return {(row.kind, row.value) for row in conn.execute(query)}


def _review_date(run: IncidentRun) -> date:
    return (
        add_period(run.clock.now(), run.rules.hold.review_after, run.zone)
        .astimezone(run.zone)
        .date()
    )


LOSS_CODES = {"incident.list_shorter", "incident.extract_incomplete"}
"""Findings that a repeated try may not resolve: counted records may be deleted."""


def preserve_evidence(run: IncidentRun, findings: StepFindings) -> Preserved:
    """Store the list of affected people, extract the logs, and place legal holds.

    Raises:
        ServiceError: a service failed. A retry continues where this attempt stopped.
    """
    record = incident_of(run)
    number = record.incident.number
    if not record.incident.requires_steps:
        return Preserved(asked=False)
    scope = incident_run.require_scope(run, record.incident.id)
    if scenario_of(run) is not None:
        return _record_drill(run, record, scope)
    unread = _freeze_lists(run, record, scope, findings)
    scope = list_comparison.compare_list(run, record, scope, unread, findings)
    with run.state.begin() as conn:
        counts = subject_list.count_by_database(conn, record.incident.id)
        affected: dict[str, int | None] = {
            name: None if people is None or name in unread else counts.get(name, 0)
            for name, people in scope.people_by_database().items()
        }
        with closing(subject_list.stream_subjects(run.state, record.incident.id)) as keys:
            place_holds(conn, run, number, affected, keys)
    extracted = log_extracts.extract_logs(run, record, scope, findings)
    failures = [finding for finding in findings.findings if finding.severity is Outcome.FAIL]
    with run.state.begin() as conn:
        frozen = subject_list.frozen_list(conn, record.incident.id)
        preserved = Preserved(
            version=scope.version,
            people=frozen.people,
            list_sha256=frozen.sha256,
            extracts=extracted,
            holds=count_holds(conn, number),
            not_listed=tuple(unread),
            complete=not failures,
            short=tuple(
                sorted({finding.subject for finding in failures if finding.code in LOSS_CODES})
            ),
            again=any(finding.code not in LOSS_CODES for finding in failures),
        )
        words = _(
            "Evidence preserved. People on the list: {people}; log extracts: {extracts}; legal "
            "holds: {holds}.",
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


def _freeze_lists(
    run: IncidentRun, record: IncidentRecord, scope: Scope, findings: StepFindings
) -> list[str]:
    """Store the list of affected people of each database.

    Returns:
        The names of the counted databases whose people could not be listed.
    """
    unread = []
    for count in scope.counted:
        try:
            list_comparison.freeze_database(run, record, scope, count.database)
        except CannotCount as error:
            unread.append(count.database)
            findings.find(
                "incident.list_not_frozen",
                Outcome.FAIL,
                _(
                    "The list of affected people of {database} could not be preserved: "
                    "{reason} The whole database is on legal hold.",
                    database=count.database,
                    reason=error.reason,
                ),
                _(
                    "Ask the data engineers to restore the connection, and to repeat the "
                    "preservation of evidence."
                ),
                subject=count.database,
                for_engineers=log_extracts.REPEAT_FOR_ENGINEERS,
            )
    for missing in scope.unknown:
        if missing.database in unread:
            continue
        findings.find(
            "incident.list_not_frozen",
            Outcome.FAIL,
            _(
                "The affected people of {database} could not be counted, so there is no list "
                "of them. The whole database is on legal hold.",
                database=missing.database,
            ),
            scope_assessment.RECOUNT,
            subject=missing.database,
            for_engineers=scope_assessment.RECOUNT_FOR_ENGINEERS,
        )
    return unread


def _record_drill(run: IncidentRun, record: IncidentRecord, scope: Scope) -> Preserved:
    """Record on the timeline that a drill preserves no evidence."""
    preserved = Preserved(version=scope.version, people=scope.subjects, holds={DRILL_DATABASE: 0})
    words = _(
        "DRILL: evidence would be preserved here. No log is extracted, and no legal hold is placed."
    )
    with run.state.begin() as conn:
        timeline.append(
            conn, record.incident.id, Kind.PRESERVED, words, by=STEP_PRESERVE, clock=run.clock,
            data=preserved.as_json(), once="preserved",
        )  # fmt: skip
    return preserved
