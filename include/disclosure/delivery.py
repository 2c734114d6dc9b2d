"""The steps of `use_information` that write an approved extract, and that read it back.

The extract is written to the store while the state ``delivering`` names its object, and becomes
visible to the requester only after its size and digest were recorded. A killed attempt leaves an
object that the next attempt, or `expire_grants`, deletes.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from datetime import datetime
from typing import IO
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
from include.disclosure.extracts.counting import count_extract
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
from include.disclosure.roster import Employee, read_roster
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
from include.services.objectstore.base import ObjectReader, ObjectStore
from include.workflow.run_context import RunContext
from include.workflow.step import Step

SUBJECT_CONTEXT = "use_subject"  # in place of a collection in the keyed HMAC of a data subject
_PIECE = 1 << 20  # bytes read at a time
_SUBJECTS_PER_TURN = 50_000


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
    store, roster = check_extract_store(run), read_roster(run)
    with run.state.begin() as conn:
        request = load_request(conn, run.require(CHECK).request)
        approved_at = _require_approvals(run, request, approvals)
        employee = roster.find(request.requester)
        if employee is not None and employee.department != run.require(CHECK).department:
            raise ControlFailed(
                f"The requester of request {request.id} works in another department since the "
                "request, so nothing was delivered.",
                "Make a new request, which the present supervisor decides on.",
            )
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
            conn,
            request.id,
            attempt=attempt,
            object_key=key,
            store=store.description,
            now=run.now,
        )
    if grant.state is not GrantState.DELIVERED:
        run.task.confirm_open()
        grant = _write(run, store, request, grant, employee)
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
    run: RunContext[UseRules],
    store: ObjectStore,
    request: UseRequest,
    grant: Grant,
    employee: Employee,
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
            _require_live(run, grant)  # counting may take minutes
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
                for digests in _subjects(run, request, records):
                    with run.state.begin() as other:
                        grants.store_subjects(other, request.id, grant.attempt, digests)
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
        )
        delivered = grants.find_grant(conn, request.id)
        if is_recorded and delivered is not None:
            queue_delivery(run, conn, request, delivered, employee)
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


def _require_live(run: RunContext[UseRules], grant: Grant) -> None:
    """Raise ControlFailed if the access ended, or another attempt delivers the extract."""
    with run.state.connect() as conn:
        current = grants.find_grant(conn, grant.request_id)
    if current is None or (current.state, current.attempt) != (grant.state, grant.attempt):
        raise ControlFailed(
            f"The access of request {grant.request_id} ended, so nothing is delivered.",
            "Make a new request if the information is still needed.",
        )


def _subjects(
    run: RunContext[UseRules], request: UseRequest, records: RequestedRecords
) -> Iterator[list[bytes]]:
    """Yield the keyed HMAC of the data subjects in the extract, in lists."""
    keys, database = run.services.erasure_keys, request.content.database
    query = subjects_query(records.selection, records.usable)
    with records.connection.cursor(name="use_subjects") as cursor:
        cursor.execute(query, records.selection.values)
        while rows := cursor.fetchmany(_SUBJECTS_PER_TURN):
            yield keys.digests(keys.current, database, SUBJECT_CONTEXT, rows)


class VerifiedExtract(StepResult):
    """The result of the verification of a delivered extract.

    Attributes:
        is_verified: whether the stored file is the file that was written; None if nothing was
            delivered.
        counted_records: number of records in the decrypted file; None if they were not counted.
    """

    is_verified: bool | None = None
    counted_records: int | None = None


def verify_extract(run: RunContext[UseRules], findings: StepFindings) -> VerifiedExtract:
    """Read the stored extract back, and compare its digest and its records with the approval.

    The records and columns of a ZIP or Excel file are counted in the decrypted file. An extract for
    a machine cannot be decrypted here, so its records are not measured.
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
    request = _stored_request(run, checked.request)
    with tempfile.TemporaryFile() as file:  # the encrypted file
        with open_extract_store(run.services).open_reader(grant.object_key) as reader:
            sha256 = _copy(reader, file)
        if not sha256 == delivery.file_sha256 == grant.file_sha256:
            findings.fail(
                "use.file_changed",
                _("The stored extract is not the file that was written."),
                _("Open an incident: find out who changed the file in the extract store."),
            )
            return VerifiedExtract(is_verified=False)
        counted = count_extract(file, request.content.form, password_of(run, request, grant))
    if counted is None:
        return VerifiedExtract(is_verified=True)
    findings.measure("use.counted_records", counted.records, "rows")
    expected = (delivery.records, len(checked.plan.columns))
    if counted.records > checked.plan.records or (counted.records, counted.columns) != expected:
        findings.fail(
            "use.more_than_approved",
            _(
                "The extract has {records} records and {columns} columns; {approved} records and "
                "{approved_columns} columns were approved.",
                records=counted.records,
                columns=counted.columns,
                approved=checked.plan.records,
                approved_columns=len(checked.plan.columns),
            ),
            _("End the access, and open an incident."),
        )
    return VerifiedExtract(is_verified=True, counted_records=counted.records)


def _stored_request(run: RunContext[UseRules], number: int) -> UseRequest:
    with run.state.connect() as conn:
        return load_request(conn, number)


def _copy(reader: ObjectReader, file: IO[bytes]) -> str:
    """Copy an object to a file, and return the SHA-256 of its content, in hex."""
    digest = hashlib.sha256()
    while piece := reader.read(_PIECE):
        digest.update(piece)
        file.write(piece)
    file.seek(0)
    return digest.hexdigest()


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
