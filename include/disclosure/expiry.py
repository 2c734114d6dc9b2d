"""The step of `expire_grants` that ends accesses, and deletes their extracts and logins.

The moment of expiry does not depend on this workflow: an extract cannot be opened after it, and the
view of a login shows no record. The workflow removes the file or the login within the hour. Several
runs at once, and runs after a killed run, end each grant once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta

from pydantic import AwareDatetime
from sqlalchemy import Connection, delete, select

from include.disclosure import grants
from include.disclosure.delivery import SUBJECT_CONTEXT
from include.disclosure.extract_store import (
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
from include.services.errors import ServiceError, UsageError
from include.services.objectstore.base import ObjectStore
from include.workflow.run_context import RunContext
from include.workflow.step import Step

LIVE = (GrantState.APPROVED, GrantState.DELIVERING, GrantState.DELIVERED)
KEYS_WITHOUT_GRANT = timedelta(days=31)  # after which the keys of an unused request are deleted
UNCONFIRMED = "copies_without_confirmation"  # metric


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


EXPIRE = Step(
    name="expire",
    title=_("The end of accesses"),
    clause=CLAUSE_USE,
    work=expire_grants,
    result=Expiry,
)
