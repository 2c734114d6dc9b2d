"""The steps of `use_information` that write an approved extract, and that read it back.

The extract is written to the store while the state ``delivering`` names its object, and becomes
visible to the requester only after its size and digest were recorded. A killed attempt leaves an
object that the next attempt, or `expire_grants`, deletes.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from uuid import uuid4

from pydantic import AwareDatetime

from include.approvals import registry
from include.disclosure import grants
from include.disclosure.approval import APPROVE, APPROVE_SECOND, UseApproval
from include.disclosure.extract_store import (
    check_extract_store,
    extract_key,
    open_extract_store,
    password_of,
)
from include.disclosure.extracts.extract import (
    ExtractColumn,
    ExtractSource,
    Marks,
    write_extract,
)
from include.disclosure.grants import Grant, GrantState
from include.disclosure.planning import RequestedRecords, open_records
from include.disclosure.request_text import purpose_title
from include.disclosure.requests import UseRequest, keys_of, load_request
from include.disclosure.roster import read_roster
from include.disclosure.rules import CLAUSE_USE, UseRules
from include.disclosure.selection import extract_query, subjects_query
from include.disclosure.use_check import CHECK, is_request
from include.disclosure.use_notifications import queue_delivery
from include.erasure.masks import read_column_shapes
from include.erasure.tables import TableName
from include.evidence.step_findings import StepFindings, StepResult
from include.messages import _
from include.policy.rules import translated_message
from include.services.errors import ControlFailed
from include.services.objectstore.base import ObjectStore, read_sha256
from include.workflow.run_context import RunContext
from include.workflow.step import Step

SUBJECT_CONTEXT = "use_subject"  # in place of a collection in the keyed HMAC of a data subject
_SUBJECTS_PER_TURN = 10_000


class Delivery(StepResult):
    """The result of the delivery.

    Attributes:
        delivered: whether an extract was delivered.
        approved_at: when the last required approval was given; None without a delivery.
        expires_at: end of the access; None without a delivery.
        object_key: key of the extract in the extract store.
        records: number of records in the extract.
        size: size of the encrypted file in bytes.
        file_sha256: SHA-256 of the encrypted file, in hex.
    """

    delivered: bool
    approved_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    object_key: str = ""
    records: int = 0
    size: int = 0
    file_sha256: str = ""


def deliver_extract(run: RunContext[UseRules], findings: StepFindings) -> Delivery:
    """Write the extract of the approved request, and notify the requester.

    The request, its approvals, the roster and the figures are checked again at this moment. An
    extract with anything that was not approved is not delivered. A repeated step returns the
    extract that an earlier attempt delivered.

    Raises:
        ControlFailed: the request changed, the approvals do not cover it any more, or the access
            has ended.
    """
    approvals = [run.require(APPROVE), run.require(APPROVE_SECOND)]
    if not all(approval.approved for approval in approvals):
        findings.warn(
            "use.not_approved",
            _("The request was not approved, so nothing was delivered."),
            _("Read the reason of the decision. Make a new request if it is still needed."),
        )
        return Delivery(delivered=False)
    store = check_extract_store(run)
    with run.state.begin() as conn:
        request = load_request(conn, run.require(CHECK).request)
        approved_at = _require_approvals(run, request, approvals)
        employee = read_roster(run).find(request.requester)
        if employee is None or not (employee.active and employee.trained):
            raise ControlFailed(
                f"The requester of request {request.id} is no longer active or trained, so nothing "
                "was delivered.",
                "Correct the roster if it is wrong, then make a new request.",
            )
        grants.grant_request(
            conn,
            request,
            approvals=[approval.approval for approval in approvals if approval.approval],
            department=employee.department,
            approved_at=approved_at,
        )
    attempt = uuid4().hex
    key = extract_key(request.id, attempt, request.content.form)
    with run.state.begin() as conn:
        grant = grants.begin_delivery(
            conn, request.id, attempt=attempt, object_key=key, now=run.now
        )
    if grant.state is not GrantState.DELIVERED:
        run.task.confirm_open()
        grant = _write(run, store, request, grant)
    findings.measure("use.records", grant.records, "rows")
    findings.measure("use.bytes", grant.size, "bytes")
    return Delivery(
        delivered=True,
        approved_at=grant.approved_at,
        expires_at=grant.expires_at,
        object_key=grant.object_key,
        records=grant.records or 0,
        size=grant.size or 0,
        file_sha256=grant.file_sha256 or "",
    )


def _require_approvals(
    run: RunContext[UseRules], request: UseRequest, approvals: list[UseApproval]
) -> datetime:
    """Return when the last required approval was given, after reading the stored decisions.

    Raises:
        ControlFailed: an approval is missing, or is for another content.
    """
    needed = [approval.approval for approval in approvals if approval.needed]
    if len(needed) != (2 if request.plan.needs_second_approval else 1) or None in needed:
        raise ControlFailed(
            f"An approval of request {request.id} is missing.", "Make a new request."
        )
    with run.state.connect() as conn:
        decisions = [
            registry.require_approval(conn, number, request.sha256)
            for number in needed
            if number is not None
        ]
    return max(decision.decided_at for decision in decisions)


def _write(
    run: RunContext[UseRules], store: ObjectStore, request: UseRequest, grant: Grant
) -> Grant:
    """Write the extract of a grant to the store, and record it.

    Raises:
        ControlFailed: the records are more than the approved records, or the access has ended.
    """
    content = request.content
    with run.state.connect() as conn:
        keys = keys_of(conn, request)
        with open_records(run, conn, content, keys) as records:
            if records.plan.exceeds(request.plan):
                raise ControlFailed(
                    f"Request {request.id} would now deliver more than was approved.",
                    "The data or the policy pack changed after the approval. Make a new request.",
                )
            snapshot_at = run.now
            with store.open_writer(grant.object_key) as writer:
                written = write_extract(
                    records.connection,
                    _source(request, records),
                    _marks(run, request, grant),
                    content.form,
                    extract_secret(run, request, grant),
                    writer,
                    max_rows=request.plan.records,
                    progress=run.task.confirm_open,
                )
                subjects = list(_subjects(run, request, records))
                writer.commit()
    with run.state.begin() as conn:
        is_recorded = grants.record_delivery(
            conn,
            request.id,
            attempt=grant.attempt,
            delivered_at=run.now,
            snapshot_at=snapshot_at,
            records=written.rows,
            size=written.size,
            file_sha256=written.sha256,
            subjects=subjects,
        )
        delivered = grants.find_grant(conn, request.id)
        if is_recorded and delivered is not None:
            queue_delivery(run, conn, request, delivered)
    if not is_recorded or delivered is None:
        store.delete(grant.object_key)
        raise ControlFailed(
            f"The access of request {request.id} ended while its extract was written.",
            "The extract was deleted. Make a new request if it is still needed.",
        )
    return delivered


def _source(request: UseRequest, records: RequestedRecords) -> ExtractSource:
    collection = records.collection
    table = TableName(collection.schema_name, collection.table)
    shapes = read_column_shapes(records.connection, table)
    return ExtractSource(
        query=extract_query(
            records.selection, request.plan.columns, shapes, collection.primary_key
        ),
        values=records.selection.values,
        columns=tuple(
            ExtractColumn(column.name, collection.field_title(column.name))
            for column in request.plan.columns
        ),
    )


def _marks(run: RunContext[UseRules], request: UseRequest, grant: Grant) -> Marks:
    company = run.pack.company
    return Marks(
        request=request.id,
        recipient=request.requester,
        purpose=purpose_title(run.pack, request.content.purpose),
        expires_at=grant.expires_at,
        zone=run.zone,
        company=translated_message(company.name) if company else None,
    )


def extract_secret(run: RunContext[UseRules], request: UseRequest, grant: Grant) -> str:
    """Return the password of an extract, or the age key of its recipient."""
    return request.content.recipient or password_of(run, request, grant)


def _subjects(
    run: RunContext[UseRules], request: UseRequest, records: RequestedRecords
) -> Iterator[bytes]:
    """Yield the keyed HMAC of each data subject in the extract."""
    keys, database = run.services.erasure_keys, request.content.database
    query = subjects_query(records.selection, records.usable)
    with records.connection.cursor(name="use_subjects") as cursor:
        cursor.execute(query, records.selection.values)
        while rows := cursor.fetchmany(_SUBJECTS_PER_TURN):
            yield from keys.digests(keys.current, database, SUBJECT_CONTEXT, rows)


class VerifiedExtract(StepResult):
    """The result of the verification of a delivered extract.

    Attributes:
        is_verified: whether the stored file is the file that was written; None if nothing was
            delivered.
    """

    is_verified: bool | None = None


def verify_extract(run: RunContext[UseRules], findings: StepFindings) -> VerifiedExtract:
    """Read the stored extract back, and compare it with its record and its approval.

    The comparison of records uses a query that shares no code with the extraction.
    """
    delivery = run.require(DELIVER)
    if not delivery.delivered:
        return VerifiedExtract()
    checked = run.require(CHECK)
    with run.state.connect() as conn:
        grant = grants.find_grant(conn, checked.request)
    assert grant is not None
    if grant.state is not GrantState.DELIVERED:  # returned or expired meanwhile
        return VerifiedExtract()
    actual = read_sha256(open_extract_store(run.services), delivery.object_key)
    is_same = actual == delivery.file_sha256 == grant.file_sha256
    if not is_same:
        findings.fail(
            "use.file_changed",
            _("The stored extract is not the file that was written."),
            _("Open an incident: find out who changed the file in the extract store."),
        )
    if delivery.records > checked.plan.records:
        findings.fail(
            "use.more_than_approved",
            _(
                "The extract has {records} records, and {approved} were approved.",
                records=delivery.records,
                approved=checked.plan.records,
            ),
            _("End the access, and open an incident."),
        )
    return VerifiedExtract(is_verified=is_same)


DELIVER = Step(
    name="deliver",
    title=_("The delivery of the extract"),
    clause=CLAUSE_USE,
    work=deliver_extract,
    result=Delivery,
    applies=is_request,
)
VERIFY = Step(
    name="verify",
    title=_("The verification of the extract"),
    clause=CLAUSE_USE,
    work=verify_extract,
    result=VerifiedExtract,
    applies=is_request,
)
