"""The steps of `expire_grants`: end accesses, delete their extracts, and prove that they are gone.

The moment of expiry does not depend on this workflow: an extract cannot be opened after it. The
workflow removes the file within the hour, and proves it with a second listing of the store and an
SQL query of its own. Several runs at once, and runs after a killed run, end each grant once.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from pydantic import AwareDatetime
from sqlalchemy import Connection, delete, select

from include.disclosure import grants, use_notifications
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
from include.disclosure.notification_kinds import CONFIRM, ENDING
from include.disclosure.requests import load_request, load_requests
from include.disclosure.roster import Employee, StaffRoster, read_roster
from include.disclosure.rules import CLAUSE_USE, UseRules
from include.disclosure.tables import use_grant, use_request, use_request_key
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
LONGEST_DELIVERY = timedelta(hours=6)  # after an approval; a delivery takes minutes
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
    """

    request: int
    requester: str
    reason: EndReason
    expires_at: AwareDatetime
    ending_at: AwareDatetime


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

    Raises:
        ServiceError: the extract store or a database is unavailable. The task is retried.
    """
    store = _store(run)
    if store is None:
        return _without_store(run, findings)
    roster = read_roster(run)
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
    with run.state.connect() as conn:
        live = grants.grants_in(conn, LIVE)
        erased = _grants_with_erasures(run, conn, live)
        stored = load_requests(conn, [grant.request_id for grant in live])
    for grant in live:
        employee = roster.find(stored[grant.request_id].requester)
        reason = _end_reason(run, grant, is_erased=grant.request_id in erased)
        if reason is None and roster:
            reason = _reason_about(employee, grant)
        if reason is not None:
            with run.state.begin() as conn:
                grants.end_access(conn, grant.request_id, reason, run.now)
    ended = list(_delete_ended(run, findings, store))
    left_overs = _delete_left_overs(run, store)
    with run.state.begin() as conn:
        _delete_unused_keys(run, conn)
        reminded = _remind(run, conn, roster)
        unconfirmed = _follow_up(run, findings, conn, roster)
        delivered = grants.grants_in(conn, [GrantState.DELIVERED])
    live_count = sum(grant.is_open(run.now) for grant in delivered)
    findings.measure("use.live", live_count, "1")
    findings.measure("use.ended", len(ended), "1")
    findings.measure(UNCONFIRMED, len(unconfirmed), "1", target=0)
    return Expiry(
        is_configured=True,
        live=live_count,
        ended=tuple(ended),
        left_overs=left_overs,
        reminded=reminded,
        unconfirmed=tuple(unconfirmed),
    )


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
    return Expiry(is_configured=False)


def _end_reason(run: RunContext[UseRules], grant: Grant, *, is_erased: bool) -> EndReason | None:
    """Return why an access has to end now; None if it continues."""
    if run.now >= grant.expires_at:
        return EndReason.EXPIRED
    if is_erased:
        return EndReason.ERASURE
    if grant.state is not GrantState.DELIVERED and run.now > grant.approved_at + LONGEST_DELIVERY:
        return EndReason.NOT_DELIVERED
    return None


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
        keys.digest(key_id, request.database, SUBJECT_CONTEXT, [request.subject])
        for request in erasure_requests.all_requests(conn)
        if request.closed_at is None or request.closed_at > since
        for key_id in keys.keys
    ]
    return grants.grants_with_subject(conn, digests)


def _delete_ended(
    run: RunContext[UseRules], findings: StepFindings, store: ObjectStore
) -> Iterator[EndedGrant]:
    """Delete the extracts of all ended accesses, and yield each grant."""
    with run.state.connect() as conn:
        ending = grants.grants_in(conn, [GrantState.ENDING])
        stored = load_requests(conn, [grant.request_id for grant in ending])
    for grant in ending:
        assert grant.end_reason is not None
        assert grant.ending_at is not None
        try:
            delete_extracts(store, grant.request_id)
        except ServiceError as error:
            if not run.task.is_last_try:
                raise
            findings.fail(
                "use.not_deleted",
                _("The extract of request {number} was not deleted.", number=grant.request_id),
                _("Ask the data engineers to delete it now, and find out why it could not be."),
                subject=f"request {grant.request_id}",
                for_engineers=_("{problem}", problem=error.message),
            )
        yield EndedGrant(
            request=grant.request_id,
            requester=stored[grant.request_id].requester,
            reason=grant.end_reason,
            expires_at=grant.expires_at,
            ending_at=grant.ending_at,
        )


def _delete_left_overs(run: RunContext[UseRules], store: ObjectStore) -> int:
    """Delete objects that no grant names, which killed deliveries left. Return their number.

    The objects are listed before the grants are read, so the object of a delivery that starts
    meanwhile is not listed.
    """
    listed = set(stored_keys(store))
    with run.state.connect() as conn:
        known = grants.grants_in(conn, (*LIVE, GrantState.ENDING))
    named = {grant.object_key for grant in known}
    left_overs = sorted(key for key in listed if key not in named)
    for key in left_overs:
        store.delete(key)
    return len(left_overs)


def _delete_unused_keys(run: RunContext[UseRules], conn: Connection) -> None:
    """Delete the uploaded keys of old requests that nobody approved."""
    granted = select(use_grant.c.request_id).where(
        use_grant.c.request_id == use_request_key.c.request_id
    )
    old = select(use_request.c.id).where(use_request.c.requested_at < run.now - KEYS_WITHOUT_GRANT)
    conn.execute(
        delete(use_request_key).where(use_request_key.c.request_id.in_(old), ~granted.exists())
    )


def _remind(run: RunContext[UseRules], conn: Connection, roster: StaffRoster) -> int:
    """Queue a reminder for each requester whose access ends soon, and return their number."""
    soon = run.now + run.rules.remind_before.span
    ending = [
        grant
        for grant in grants.grants_in(conn, [GrantState.DELIVERED])
        if run.now < grant.expires_at <= soon
    ]
    for grant in ending:
        employee = roster.find(load_request(conn, grant.request_id).requester)
        line = _(
            "Your access to the extract of request {number} ends at {expires_at}. Delete all local "
            "copies, then confirm it with the workflow Use of customer information in Airflow.",
            number=grant.request_id,
            expires_at=grant.expires_at,
        )
        use_notifications.notify(
            run, conn, ENDING, str(grant.request_id), line,
            [employee] if employee else [], urgent=False,
        )  # fmt: skip
    return len(ending)


def _follow_up(
    run: RunContext[UseRules], findings: StepFindings, conn: Connection, roster: StaffRoster
) -> list[int]:
    """Remind requesters to confirm that local copies are deleted, and report missing confirmations.

    Returns:
        Numbers of the requests whose confirmation is overdue.
    """
    overdue = []
    for grant in grants.unconfirmed_grants(conn):
        assert grant.ending_at is not None
        request = load_request(conn, grant.request_id)
        employee = roster.find(request.requester)
        line = _(
            "Your access to the extract of request {number} has ended. Delete all local copies, "
            "then confirm it with the workflow Use of customer information in Airflow.",
            number=grant.request_id,
        )
        use_notifications.notify(
            run, conn, CONFIRM, f"{grant.request_id}:{run.today}", line,
            [employee] if employee else [], urgent=False,
        )  # fmt: skip
        if subtract_period(run.now, run.rules.confirm_within, run.zone) <= grant.ending_at:
            continue
        overdue.append(grant.request_id)
        findings.warn(
            "use.copies_not_confirmed",
            _(
                "{person} has not confirmed that local copies of request {number} are deleted.",
                person=request.requester,
                number=grant.request_id,
            ),
            _(
                "Have this person delete the copies and confirm it. A downloaded file cannot be "
                "recalled."
            ),
            subject=f"request {grant.request_id}",
        )
    return overdue


class AbsenceProof(StepResult):
    """The result of the independent check.

    Attributes:
        remaining: keys of objects in the extract store that no live grant covers.
        proved: number of grants whose extract is proved to be deleted by this run.
        unapproved: numbers of live grants without a valid approval of their content.
    """

    remaining: tuple[str, ...] = ()
    proved: int = 0
    unapproved: tuple[int, ...] = ()


def prove_absence(run: RunContext[UseRules], findings: StepFindings) -> AbsenceProof:
    """List the store again, and compare it with the grants and their approvals.

    The grants are read with an SQL query that shares no code with the deletion. Only grants without
    any object are recorded as ended. A key outside of the folders of requests is reported, too.
    """
    if not run.require(EXPIRE).is_configured:
        return AbsenceProof()
    store = open_extract_store(run.services)
    present = sorted(
        version.key for version in store.list_versions(f"{FOLDER}/") if not version.is_marker
    )
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
    with_objects = {tuple(key.split("/")[:2]) for key in present}
    ending = [row.request_id for row in rows if row.state == "ending"]
    proved = [number for number in ending if (FOLDER, str(number)) not in with_objects]
    for number in proved:  # short transactions, so that nobody waits for thousands of grants
        with run.state.begin() as conn:
            grants.record_end(conn, number, run.now)
    unapproved = [row.request_id for row in rows if not row.is_approved]
    for key in remaining:
        findings.fail(
            "use.extract_remains",
            _("An extract without a valid access is still in the extract store."),
            _("Ask the data engineers to delete it now."),
            subject=key,
            for_engineers=_("Delete all versions of `{key}` in the extract store.", key=key),
        )
    for number in unapproved:
        findings.fail(
            "use.without_approval",
            _("The extract of request {number} has no valid approval.", number=number),
            _("Open an incident: find out how the extract was delivered."),
            subject=f"request {number}",
        )
    findings.measure(REMAINING, len(remaining), "1", target=0)
    findings.measure(UNAPPROVED, len(unapproved), "1", target=0)
    return AbsenceProof(
        remaining=tuple(remaining), proved=len(proved), unapproved=tuple(unapproved)
    )


_GRANTS = """
SELECT g.request_id, g.object_key, g.state, g.expires_at, g.ending_at,
    jsonb_array_length(g.approvals) > 0 AND g.sha256 = r.sha256 AND NOT EXISTS (
        SELECT FROM jsonb_array_elements_text(g.approvals) AS needed (id)
        WHERE NOT EXISTS (
            SELECT FROM approval_request a JOIN approval_decision d ON d.request_id = a.id
            WHERE a.id = needed.id::bigint AND a.sha256 = g.sha256 AND d.decision = 'Approve'
                AND NOT d.decided_by = ANY (a.requested_by) AND d.decided_at <= g.approved_at
        )
    ) AS is_approved
FROM use_grant g JOIN use_request r ON r.id = g.request_id
WHERE g.state <> 'ended'
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
