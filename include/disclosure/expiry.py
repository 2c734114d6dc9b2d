"""The steps of `expire_grants`: end accesses, delete their extracts, and prove that they are gone.

The moment of expiry does not depend on this workflow: an extract cannot be opened after it, and the
view of a login has no more rows. The workflow removes the file, or the login, within the hour. It
proves this with a second listing of the store and of the logins, and an SQL query of its own.
Several runs at once, and runs after a killed run, end each grant once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from pydantic import AwareDatetime
from sqlalchemy import Connection, delete, select

from include.approvals.approvers import is_among
from include.disclosure import grants
from include.disclosure.delivery import SUBJECT_CONTEXT
from include.disclosure.extract_store import (
    FOLDER,
    STORE,
    delete_extracts,
    has_extract_store,
    open_extract_store,
    stored_keys,
)
from include.disclosure.grants import EndReason, Grant, GrantState
from include.disclosure.login_expiry import (
    login_databases,
    own_logins,
    read_logins,
    read_traces,
)
from include.disclosure.logins.remove import remove_login, remove_logins
from include.disclosure.notification_kinds import CONFIRM, ENDING
from include.disclosure.requests import databases_of, requesters_of
from include.disclosure.roster import Employee, StaffRoster, read_roster
from include.disclosure.rules import CLAUSE_USE, UseRules
from include.disclosure.selection import forms_of_key
from include.disclosure.tables import use_grant, use_request, use_request_key, use_subject
from include.disclosure.use_notifications import notification_of, queue_reminders
from include.erasure import requests as erasure_requests
from include.evidence.step_findings import StepFindings, StepResult
from include.frozen import FrozenModel
from include.messages import _
from include.policy.period import subtract_period
from include.services.database import LOGIN_PREFIX
from include.services.errors import ServiceError, UsageError
from include.services.objectstore.base import ObjectStore
from include.workflow.run_context import RunContext
from include.workflow.step import Step

LIVE = (GrantState.APPROVED, GrantState.DELIVERING, GrantState.DELIVERED)
KEYS_WITHOUT_GRANT = timedelta(days=31)  # after which the keys of an unused request are deleted
REMAINING = "expired_extracts_remaining"  # metrics of the controls
UNAPPROVED = "extracts_without_approval"
UNCONFIRMED = "copies_without_confirmation"


class EndedGrant(FrozenModel):
    """A grant that ended, as the evidence states it.

    Attributes:
        request: number of the request.
        requester: account of the requester.
        reason: why the access ended.
        expires_at: end of the approved time.
        ending_at: since when the extract could not be opened any more.
        ended_by: account of the person who ended the access; empty if a run ended it.
        openings: how often the extract was opened.
    """

    request: int
    requester: str
    reason: EndReason
    expires_at: AwareDatetime
    ending_at: AwareDatetime
    ended_by: str = ""
    openings: int = 0


class Expiry(StepResult):
    """The result of the step.

    Attributes:
        is_configured: whether the connection of the extract store is configured.
        live: number of grants with an extract that can still be opened.
        ended: grants that this run ended, or whose deletion it tried again.
        left_overs: number of objects without a live grant that were deleted.
        reminded: number of requesters who are reminded that their access ends soon.
        unconfirmed: numbers of the requests whose requester has not confirmed in time that local
            copies are deleted.
    """

    is_configured: bool
    live: int = 0
    ended: tuple[EndedGrant, ...] = ()
    left_overs: int = 0
    reminded: int = 0
    unconfirmed: tuple[int, ...] = ()


def expire_grants(run: RunContext[UseRules], findings: StepFindings) -> Expiry:
    """End each access that is over or no longer allowed, and delete its extract.

    Accesses whose time is over are ended, and their extracts deleted, before anything is read that
    could be faulty, such as the roster.

    Raises:
        ServiceError: the extract store or a database is unavailable. The task is retried.
    """
    store = _store(run)
    if store is None:
        return _without_store(run, findings)
    _end_by_time(run)
    failed: dict[str, ServiceError] = {}
    ended = {grant.request: grant for grant in _delete_ended(run, findings, store, failed)}
    roster = _readable_roster(run, findings)
    _end_by_person(run, roster)
    ended |= {grant.request: grant for grant in _delete_ended(run, findings, store, failed)}
    for error in failed.values():  # the others are deleted; the task is retried for these
        raise error
    left_overs = _delete_left_overs(run, findings, store)
    with run.state.begin() as conn:
        _delete_unused_keys(run, conn)
    reminded = _remind(run, roster)
    unconfirmed = _follow_up(run, findings, roster)
    with run.state.connect() as conn:
        delivered = grants.grants_in(conn, [GrantState.DELIVERED])
    live_count = sum(grant.is_open(run.now) for grant in delivered)
    findings.measure("use.live", live_count, "1")
    findings.measure("use.ended", len(ended), "1")
    findings.measure("use.left_overs", left_overs, "1")
    findings.measure(UNCONFIRMED, len(unconfirmed), "1", target=0)
    return Expiry(
        is_configured=True,
        live=live_count,
        ended=tuple(ended.values()),
        left_overs=left_overs,
        reminded=reminded,
        unconfirmed=tuple(unconfirmed),
    )


def _end_by_time(run: RunContext[UseRules]) -> None:
    """End the accesses whose approved time is over, or whose extract was not delivered in time."""
    with run.state.connect() as conn:
        live = grants.grants_in(conn, LIVE)
    reasons = ((grant, _reason_of_time(run, grant)) for grant in live)
    _end(run, {grant.request_id: reason for grant, reason in reasons if reason is not None})


def _end(run: RunContext[UseRules], reasons: Mapping[int, EndReason]) -> None:
    """End accesses, each in its own transaction, so that other sessions wait for one grant at most.

    Args:
        run: context of the run.
        reasons: number of the request -> why its access ends.
    """
    with run.state.connect() as conn:
        for number, reason in reasons.items():
            with conn.begin():
                grants.end_access(conn, number, reason, run.now)


def _reason_of_time(run: RunContext[UseRules], grant: Grant) -> EndReason | None:
    if run.now >= grant.expires_at:
        return EndReason.EXPIRED
    is_late = run.now > grant.approved_at + grants.LONGEST_DELIVERY
    if is_late and grant.state in grants.NOT_DELIVERED:
        return EndReason.NOT_DELIVERED
    return None


def _readable_roster(run: RunContext[UseRules], findings: StepFindings) -> StaffRoster:
    """Return the roster; an empty one, with a finding, if it cannot be read or names nobody.

    Raises:
        ServiceError: the database of the roster is unavailable, and the task is retried.
    """
    try:
        roster = read_roster(run)
    except (UsageError, ServiceError) as error:
        if isinstance(error, ServiceError) and not run.task.is_last_try:
            raise
        findings.fail(
            "use.roster_unreadable",
            _(
                "The roster could not be read, so this run could not check which requesters have "
                "left."
            ),
            _("Have the roster corrected."),
            for_engineers=_("{problem}", problem=error.message),
        )
        return StaffRoster([])
    if not roster:
        findings.warn(
            "use.roster_empty",
            _(
                "The roster has no active employee, so this run could not check which requesters "
                "have left."
            ),
            _("Have the roster corrected."),
            for_engineers=_("Correct `roster` in use.yaml, or the table that it reads."),
        )
    return roster


def _end_by_person(run: RunContext[UseRules], roster: StaffRoster) -> None:
    """End the accesses of requesters who left, and of extracts with an erased data subject."""
    with run.state.connect() as conn:
        live = grants.grants_in(conn, LIVE)
        erased = _grants_with_erasures(run, conn, live)
        requesters = requesters_of(conn, [grant.request_id for grant in live])
    reasons = dict.fromkeys(sorted(erased & requesters.keys()), EndReason.ERASURE)
    for grant in live if roster else ():
        reason = _reason_about(roster.find(requesters[grant.request_id]), grant)
        if reason is not None:
            reasons[grant.request_id] = reason
    _end(run, reasons)


def _store(run: RunContext[UseRules]) -> ObjectStore | None:
    """Return the extract store; None if the connection is not configured."""
    return open_extract_store(run.services) if has_extract_store(run.services) else None


def _without_store(run: RunContext[UseRules], findings: StepFindings) -> Expiry:
    """Return the result of a run without an extract store.

    Raises:
        UsageError: there are grants, whose extracts cannot be deleted without the store.
    """
    with run.state.connect() as conn:
        open_grants = grants.grants_in(conn, (*LIVE, GrantState.ENDING))
    if open_grants:
        raise UsageError(
            f"The connection {STORE} is missing, but {len(open_grants)} grants have extracts.",
            "Configure the connection again.",
        )
    findings.warn(
        "use.not_configured",
        _("Extracts of customer information are not configured, so nobody can request one."),
        _("Configure the extract store, or remove the rules for the use of information."),
        for_engineers=_("Set the connection `extract_store`."),
    )
    findings.measure(UNCONFIRMED, None, "1", target=0)
    return Expiry(is_configured=False)


def _reason_about(employee: Employee | None, grant: Grant) -> EndReason | None:
    """Return why the requester may not keep an access; None if the requester may keep it."""
    if employee is None or not (employee.active and employee.trained):
        return EndReason.NOT_ENTITLED
    if employee.department != grant.department:
        return EndReason.TRANSFERRED
    return None


def _grants_with_erasures(
    run: RunContext[UseRules], conn: Connection, live: list[Grant]
) -> set[int]:
    """Return the requests whose extract contains a data subject who asked for erasure since.

    The extract is a copy that the erasure does not reach, so its access ends.
    """
    since = min((grant.snapshot_at for grant in live if grant.snapshot_at), default=None)
    if since is None:
        return set()
    keys = run.services.erasure_keys
    digests = [
        keys.digest(key_id, request.database, SUBJECT_CONTEXT, [form])
        for request in erasure_requests.all_requests(conn)
        if request.closed_at is None or request.closed_at > since
        for form in forms_of_key(request.subject)
        for key_id in keys.keys
    ]
    return grants.grants_with_subject(conn, digests)


def _delete_ended(
    run: RunContext[UseRules],
    findings: StepFindings,
    store: ObjectStore,
    failed: dict[str, ServiceError],
) -> Iterator[EndedGrant]:
    """Delete the extracts and logins of all ended accesses, and yield each grant.

    Args:
        run: context of the run.
        findings: findings of the step.
        store: the extract store.
        failed: store, database or login -> why a deletion failed. The function adds to it, so that
            one failure does not delay the others. The last try reports the errors instead.
    """
    with run.state.connect() as conn:
        ending = grants.grants_in(conn, [GrantState.ENDING])
        numbers = [grant.request_id for grant in ending]
        requesters, openings = requesters_of(conn, numbers), grants.count_openings(conn)
        databases = databases_of(conn, numbers)
    with_logins = {databases[grant.request_id] for grant in ending if grant.is_login}
    reachable = _reachable(run, findings, with_logins, failed)
    for grant in ending:
        assert grant.end_reason is not None
        assert grant.ending_at is not None
        subject = f"request {grant.request_id}"
        target = databases[grant.request_id] if grant.is_login else store.description
        try:
            if target in failed or (grant.is_login and target not in reachable):
                pass  # each attempt could take until the timeout of a connection
            elif grant.is_login and grant.store != run.reader(target).display_name:
                _report_other_store(findings, grant, subject)
            elif grant.is_login:
                _delete(run, findings, lambda: _remove_logins(run, target, grant), subject)  # noqa: B023 - called at once
            elif grant.store not in ("", target):
                _report_other_store(findings, grant, subject)
            else:
                _delete(run, findings, lambda: delete_extracts(store, grant.request_id), subject)  # noqa: B023 - called at once
        except ServiceError as error:
            failed[subject if grant.is_login else target] = error
        yield EndedGrant(
            request=grant.request_id,
            requester=requesters[grant.request_id],
            reason=grant.end_reason,
            expires_at=grant.expires_at,
            ending_at=min(grant.ending_at, grant.expires_at),
            ended_by=grant.ended_by,
            openings=openings.get(grant.request_id, 0),
        )


def _reachable(
    run: RunContext[UseRules],
    findings: StepFindings,
    databases: Iterable[str],
    failed: dict[str, ServiceError],
) -> set[str]:
    """Return the databases whose logins can be removed now. The last try reports the others."""
    reachable = set()
    for database in databases:
        try:
            reachable |= set(read_logins(run, findings, [database]))
        except ServiceError as error:
            failed[database] = error
    return reachable


def _remove_logins(run: RunContext[UseRules], database: str, grant: Grant) -> None:
    remove_logins(run.reader(database), grant.request_id)


def _delete(
    run: RunContext[UseRules], findings: StepFindings, delete: Callable[[], object], subject: str
) -> bool:
    """Delete objects or a login, and return whether they are gone. The last try reports an error.

    Raises:
        ServiceError: the store or database is unavailable, and the task is retried.
    """
    try:
        delete()
    except (ServiceError, UsageError) as error:
        if isinstance(error, ServiceError) and not run.task.is_last_try:
            raise
        if not any(finding.subject == subject for finding in findings.findings):
            findings.fail(
                "use.not_deleted",
                _("The extract or login of {subject} was not deleted.", subject=subject),
                _("Ask the data engineers to delete it now, and find out why it could not be."),
                subject=subject,
                for_engineers=_("{problem}", problem=error.message),
            )
        return False
    return True


def _report_other_store(findings: StepFindings, grant: Grant, subject: str) -> None:
    if any(finding.subject == subject for finding in findings.findings):
        return
    findings.fail(
        "use.other_store",
        _(
            "The extract or login of {subject} is in another store or on another server than the "
            "configured one, so it was not deleted.",
            subject=subject,
        ),
        _("Ask the data engineers to delete it where it is."),
        subject=subject,
        for_engineers=_("It is in {store}.", store=grant.store),
    )


def _delete_left_overs(
    run: RunContext[UseRules], findings: StepFindings, store: ObjectStore
) -> int:
    """Delete the objects and logins of killed deliveries, and return their number.

    They are listed before the grants are read, so the object of a delivery that starts meanwhile is
    not listed. An object that no delivery wrote stays, and `prove_absence` reports it: it may be
    the trace of an extract without an approval.
    """
    listed = set(stored_keys(store))
    with run.state.connect() as conn:
        databases = login_databases(run, conn)
    logins = read_logins(run, findings, databases)
    with run.state.connect() as conn:
        listed_logins = own_logins(conn, logins)
        written = grants.known_objects(conn)
        unfinished = grants.grants_in(conn, (*LIVE, GrantState.ENDING))
    named = {grant.object_key for grant in unfinished}
    left_overs = sorted(key for key in listed if key in written and key not in named)
    left_logins = [
        (database, name)
        for database, name in listed_logins
        if name in written and name not in named
    ]
    return sum(
        _delete(run, findings, lambda: store.delete(key), key)  # noqa: B023 - called at once
        for key in left_overs
    ) + sum(
        _delete(run, findings, lambda: remove_login(run.reader(database), name), name)  # noqa: B023 - called at once
        for database, name in left_logins
    )


def _delete_unused_keys(run: RunContext[UseRules], conn: Connection) -> None:
    """Delete the uploaded keys of old requests, and what killed deliveries left of ended grants."""
    granted = select(use_grant.c.request_id).where(
        use_grant.c.request_id == use_request_key.c.request_id
    )
    old = select(use_request.c.id).where(use_request.c.requested_at < run.now - KEYS_WITHOUT_GRANT)
    conn.execute(
        delete(use_request_key).where(use_request_key.c.request_id.in_(old), ~granted.exists())
    )
    ended = select(use_grant.c.request_id).where(use_grant.c.state == str(GrantState.ENDED))
    conn.execute(delete(use_subject).where(use_subject.c.request_id.in_(ended)))


def _remind(run: RunContext[UseRules], roster: StaffRoster) -> int:
    """Queue a reminder for each requester whose access ends soon, and return their number."""
    soon = run.now + run.rules.remind_before.span
    with run.state.connect() as conn:
        ending = [
            grant
            for grant in grants.grants_in(conn, [GrantState.DELIVERED])
            if run.now < grant.expires_at <= soon
        ]
        requesters = requesters_of(conn, [grant.request_id for grant in ending])
    reminders = []
    for grant in ending:
        employee = roster.find(requesters[grant.request_id])
        line = _(
            "Your access to the information of request {number} ends at {expires_at}. Delete all "
            "local copies, then confirm it with the workflow Use of customer information in "
            "Airflow.",
            number=grant.request_id,
            expires_at=grant.expires_at,
        )
        if employee is not None:
            key = str(grant.request_id)
            reminders.append(notification_of(ENDING, key, line, employee, urgent=False))
    queue_reminders(run, reminders)
    return len(ending)


def _follow_up(run: RunContext[UseRules], findings: StepFindings, roster: StaffRoster) -> list[int]:
    """Remind requesters to confirm that local copies are deleted, and report missing confirmations.

    Returns:
        Numbers of the requests whose confirmation is overdue.
    """
    overdue, reminders = [], []
    with run.state.connect() as conn:
        unconfirmed = grants.unconfirmed_grants(conn)
        requesters = requesters_of(conn, [grant.request_id for grant in unconfirmed])
    for grant in unconfirmed:
        assert grant.ending_at is not None
        requester = requesters[grant.request_id]
        employee = roster.find(requester)
        line = _(
            "Your access to the information of request {number} has ended. Delete all local "
            "copies, then confirm it with the workflow Use of customer information in Airflow.",
            number=grant.request_id,
        )
        if employee is not None and employee.active:
            key = f"{grant.request_id}:{run.today}"
            reminders.append(notification_of(CONFIRM, key, line, employee, urgent=False))
        if subtract_period(run.now, run.rules.confirm_within, run.zone) <= grant.ending_at:
            continue
        overdue.append(grant.request_id)
        findings.warn(
            "use.copies_not_confirmed",
            _(
                "{person} has not confirmed that local copies of request {number} are deleted.",
                person=requester,
                number=grant.request_id,
            ),
            _(
                "Have this person delete the copies and confirm it. A downloaded file cannot be "
                "recalled."
            ),
            subject=f"request {grant.request_id}",
        )
    queue_reminders(run, reminders)
    return overdue


class AbsenceProof(StepResult):
    """The result of the independent check.

    Attributes:
        store: description of the store that was listed; empty if none is configured.
        databases: mapped databases whose logins were listed.
        listed: number of objects in the store, and of logins in the databases.
        checked: number of grants whose approvals were checked: all grants.
        remaining: keys of objects in the store, and names of logins, that no live grant covers.
        missing: numbers of live grants whose extract or login does not exist.
        proved: number of grants whose extract or login is proved to be deleted by this run.
        unapproved: numbers of grants without the approvals that their request needs.
    """

    store: str = ""
    databases: tuple[str, ...] = ()
    listed: int = 0
    checked: int = 0
    remaining: tuple[str, ...] = ()
    missing: tuple[int, ...] = ()
    proved: int = 0
    unapproved: tuple[int, ...] = ()


def prove_absence(run: RunContext[UseRules], findings: StepFindings) -> AbsenceProof:
    """List the whole store again, and compare it with all grants and their approvals.

    The grants are read with an SQL query that shares no code with the deletion. Only grants without
    any object in the store to which their extract was written are recorded as ended.
    """
    if not run.require(EXPIRE).is_configured:
        findings.measure(REMAINING, None, "1", target=0)
        findings.measure(UNAPPROVED, None, "1", target=0)
        return AbsenceProof()
    store = open_extract_store(run.services)
    with run.state.connect() as conn:
        databases = login_databases(run, conn)
    logins = read_logins(run, findings, databases, read_traces)
    servers = {database: run.reader(database).display_name for database in logins}
    names = {name for listed in logins.values() for name in listed}
    objects = [version.key for version in store.list_versions("") if not version.is_marker]
    present = sorted([*objects, *names])
    # The next run deletes the extract of an access that ended after this run started.
    started_at = run.task.started_at or run.now
    with run.state.connect() as conn:
        rows = conn.exec_driver_sql(_GRANTS).all()
    covered = {
        row.object_key
        for row in rows
        if (row.state in ("delivering", "delivered") and row.expires_at > started_at)
        or (row.state == "ending" and row.ending_at > started_at)
    }
    remaining = [key for key in present if key not in covered]
    folders = {tuple(key.split("/")[:2]) for key in present}
    proved = [
        row.request_id
        for row in rows
        if row.state == "ending"
        and (
            row.store == servers.get(row.database)
            if row.object_key.startswith(LOGIN_PREFIX)
            else row.store in ("", store.description)
        )
        and (FOLDER, str(row.request_id)) not in folders
        and not any(name.startswith(f"{LOGIN_PREFIX}{row.request_id}_") for name in names)
    ]
    with run.state.connect() as conn:
        for number in proved:  # short transactions, so that other sessions never wait long
            with conn.begin():
                grants.record_end(conn, number, run.now)
    stored = set(present)
    missing = [
        row.request_id
        for row in rows
        if row.state == "delivered"
        and row.delivered_at < started_at
        and row.object_key not in stored
        and (row.database in logins or not row.object_key.startswith(LOGIN_PREFIX))
    ]
    unapproved = [row.request_id for row in rows if not _has_approvals(row)]
    _report_proof(findings, remaining, missing, unapproved)
    findings.measure(REMAINING, len(remaining), "1", target=0)
    findings.measure(UNAPPROVED, len(unapproved), "1", target=0)
    return AbsenceProof(
        store=store.description,
        databases=tuple(logins),
        listed=len(present),
        checked=len(rows),
        remaining=tuple(remaining),
        missing=tuple(missing),
        proved=len(proved),
        unapproved=tuple(unapproved),
    )


def _has_approvals(row: Any) -> bool:
    """Return whether a grant has the approvals of different entitled people that it needs.

    Args:
        row: row of the query `_GRANTS`.
    """
    kinds = ["use.supervisor", *(["use.second"] if row.needs_second else [])]
    decisions = sorted(
        row.decisions or (), key=lambda decision: str(decision["kind"]), reverse=True
    )
    deciders = [decision["decided_by"] for decision in decisions]
    return (
        row.sha256 == row.request_sha256
        and [decision["kind"] for decision in decisions] == kinds
        and all(
            decision["sha256"] == row.sha256
            and decision["decision"] == "Approve"
            and decision["in_time"]
            and not is_among(decision["decided_by"], [*decision["requested_by"], row.requester])
            for decision in decisions
        )
        and not any(is_among(decider, deciders[:at]) for at, decider in enumerate(deciders))
    )


def _report_proof(
    findings: StepFindings,
    remaining: Sequence[str],
    missing: Sequence[int],
    unapproved: Sequence[int],
) -> None:
    for key in remaining:
        if key.startswith(LOGIN_PREFIX):
            findings.fail(
                "use.login_remains",
                _("A database login without a valid access still exists."),
                _("Find out how it was created, then have the data engineers drop it."),
                subject=key,
                for_engineers=_("Drop the role and the schema `{name}`.", name=key),
            )
            continue
        findings.fail(
            "use.extract_remains",
            _("An extract without a valid access is still in the extract store."),
            _("Find out how it was written, then have the data engineers delete it."),
            subject=key,
            for_engineers=_("Delete all versions of `{key}` in the extract store.", key=key),
        )
    for number in missing:
        findings.warn(
            "use.extract_missing",
            _(
                "The extract or login of request {number} does not exist, although its access has "
                "not ended.",
                number=number,
            ),
            _("Find out who deleted or moved it. The requester makes a new request."),
            subject=f"request {number}",
        )
    for number in unapproved:
        findings.fail(
            "use.without_approval",
            _("The delivery of request {number} has no valid approval.", number=number),
            _("Open an incident: find out how it was delivered."),
            subject=f"request {number}",
        )


_GRANTS = """
SELECT g.request_id, g.object_key, g.store, g.state, g.expires_at, g.ending_at, g.delivered_at,
    g.sha256, r.sha256 AS request_sha256, r.requester, r.content ->> 'database' AS database,
    (r.plan ->> 'needs_second_approval')::boolean AS needs_second,
    (SELECT jsonb_agg(jsonb_build_object(
            'kind', a.kind, 'sha256', a.sha256, 'decision', d.decision,
            'decided_by', d.decided_by, 'requested_by', a.requested_by,
            'in_time', d.decided_at <= g.approved_at
                AND coalesce(d.decided_at <= a.deadline, true)
                AND coalesce(g.approved_at <= g.delivered_at, true)))
        FROM jsonb_array_elements_text(g.approvals) AS needed (id)
            JOIN approval_request a ON a.id = needed.id::bigint
            JOIN approval_decision d ON d.request_id = a.id) AS decisions
FROM use_grant g JOIN use_request r ON r.id = g.request_id
"""

EXPIRE = Step(
    name="expire",
    title=_("The end of accesses"),
    clause=CLAUSE_USE,
    work=expire_grants,
    result=Expiry,
)
PROVE = Step(
    name="verify",
    title=_("The proof that ended extracts are deleted"),
    clause=CLAUSE_USE,
    work=prove_absence,
    result=AbsenceProof,
)
