"""The step of `expire_grants` that proves that extracts and logins without an access are gone.

It lists the store and the logins again, and reads grants and approvals, with SQL that the deletion
does not use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from include.approvals.approvers import is_among
from include.disclosure import grants
from include.disclosure.expiry import EXPIRE
from include.disclosure.extract_store import FOLDER, open_extract_store
from include.disclosure.login_expiry import login_databases, read_logins, read_traces
from include.disclosure.rules import CLAUSE_USE, UseRules
from include.evidence.step_findings import StepFindings, StepResult
from include.messages import _
from include.services.database import LOGIN_PREFIX
from include.workflow.run_context import RunContext
from include.workflow.step import Step

REMAINING = "expired_extracts_remaining"  # metrics of the controls
UNAPPROVED = "extracts_without_approval"


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

PROVE = Step(
    name="verify",
    title=_("The proof that ended extracts are deleted"),
    clause=CLAUSE_USE,
    work=prove_absence,
    result=AbsenceProof,
)
