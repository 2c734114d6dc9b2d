"""The step of `use_information` that delivers an approved request.

An extract is written to the store, or a login is created, while the state ``delivering`` names it.
It becomes visible to the requester only after its size and digest were recorded. A killed attempt
leaves an object or a login that `expire_grants` removes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime
from uuid import uuid4

from pydantic import AwareDatetime

from include.approvals import registry
from include.disclosure import grants
from include.disclosure.approval import APPROVE, APPROVE_SECOND, UseApproval
from include.disclosure.content import DeliveryForm
from include.disclosure.extract_store import (
    check_extract_store,
    extract_key,
    password_of,
)
from include.disclosure.extracts.extract import (
    ExtractColumn,
    ExtractSource,
    Marks,
    WrittenExtract,
    write_extract,
)
from include.disclosure.grants import Grant, GrantState
from include.disclosure.logins.confinement import other_databases
from include.disclosure.logins.connection_text import login_text
from include.disclosure.logins.create import NewLogin, create_login, login_name
from include.disclosure.logins.remove import remove_login
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
from include.services.database import connected
from include.services.errors import ControlFailed
from include.services.objectstore.base import ObjectStore
from include.workflow.run_context import RunContext
from include.workflow.step import Step

SUBJECT_CONTEXT = "use_subject"  # in place of a collection in the keyed HMAC of a data subject
_PIECE = 1 << 20  # bytes read at a time
_SUBJECTS_PER_TURN = 50_000


class Delivery(StepResult):
    """The result of the delivery.

    Attributes:
        delivered: whether an extract or a login was delivered.
        approved_at: when the last required approval was given; None without a delivery.
        expires_at: end of the access; None without a delivery.
        object_key: key of the extract in the extract store, or name of the database login.
        records: number of records in the extract, or that the login may read.
        size: size in bytes of the encrypted file, or of the text with the address of the login.
        file_sha256: SHA-256 of this file or text, in hex.
    """

    delivered: bool
    approved_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    object_key: str = ""
    records: int = 0
    size: int = 0
    file_sha256: str = ""


def deliver_extract(run: RunContext[UseRules], findings: StepFindings) -> Delivery:
    """Deliver the approved request as a file or a login, and notify the requester.

    The request, its approvals, the roster and the figures are checked again at this moment.
    Anything that was not approved is not delivered. A repeated step returns the delivery of an
    earlier attempt.

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
    with run.state.begin() as conn:
        grant = grants.begin_delivery(
            conn,
            request.id,
            attempt=attempt,
            object_key=_delivery_name(request, attempt),
            store=_delivery_target(run, store, request),
            now=run.now,
        )
    if grant.state is not GrantState.DELIVERED:
        run.task.confirm_open()
        grant = _write(run, store, request, grant, employee)
    if grant.is_login:
        _report_other_databases(run, findings, request, grant)
    findings.measure("use.records", grant.records, "rows")
    if not grant.is_login:
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


def _delivery_name(request: UseRequest, attempt: str) -> str:
    """Return the name of the object or login that an attempt creates."""
    form = request.content.form
    if form is DeliveryForm.LOGIN:
        return login_name(request.id, attempt)
    return extract_key(request.id, attempt, form)


def _delivery_target(run: RunContext[UseRules], store: ObjectStore, request: UseRequest) -> str:
    """Return the description of the store, or of the database, to which a request is delivered."""
    if request.content.form is DeliveryForm.LOGIN:
        return run.reader(request.content.database).display_name
    return store.description


def _report_other_databases(
    run: RunContext[UseRules], findings: StepFindings, request: UseRequest, grant: Grant
) -> None:
    with connected(run.reader(request.content.database)) as connection:
        others = other_databases(connection, grant.object_key)
    if others:
        findings.warn(
            "use.other_databases",
            _(
                "The login of request {number} can also connect to {count} other databases of the "
                "server, with the rights that everybody has there.",
                number=request.id,
                count=len(others),
            ),
            _("Have the right to connect to other databases revoked from everybody."),
            for_engineers=_(
                "Revoke CONNECT from PUBLIC on: {databases}.", databases=", ".join(others)
            ),
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
    """Write the extract of a grant to the store, or create its login, and record it.

    Raises:
        ControlFailed: the records are more than the approved records, or the access has ended.
    """
    content = request.content
    is_login = content.form is DeliveryForm.LOGIN
    with run.state.connect() as conn:
        keys = keys_of(conn, request)
        with open_records(run, conn, content, keys, is_read_only=not is_login) as records:
            if records.plan.exceeds(request.plan):
                raise ControlFailed(
                    f"Request {request.id} would now deliver more than was approved.",
                    "The data or the policy pack changed after the approval. Make a new request.",
                )
            snapshot_at = run.now
            _require_live(run, grant)  # counting may take minutes
            if is_login:
                written = _create_login(run, request, grant, records)
            else:
                written = _write_file(run, store, request, grant, records)
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
        if is_login:
            remove_login(run.reader(content.database), grant.object_key)
        else:
            store.delete(grant.object_key)
        raise ControlFailed(
            f"The access of request {request.id} ended while it was delivered.",
            "The extract or login was deleted. Make a new request if it is still needed.",
        )
    return delivered


def _write_file(
    run: RunContext[UseRules],
    store: ObjectStore,
    request: UseRequest,
    grant: Grant,
    records: RequestedRecords,
) -> WrittenExtract:
    with store.open_writer(grant.object_key) as writer:
        written = write_extract(
            records.connection,
            _source(request, records),
            _marks(run, request, grant),
            request.content.form.file_form,
            extract_secret(run, request, grant),
            writer,
            max_rows=request.plan.records,
            progress=run.task.confirm_open,
        )
        _store_subjects(run, request, grant, records)
        writer.commit()
    return written


def _create_login(
    run: RunContext[UseRules], request: UseRequest, grant: Grant, records: RequestedRecords
) -> WrittenExtract:
    """Create the login of a grant.

    Returns:
        The number of its records, and the size and digest of the text with its address.
    """
    rules, collection = run.rules.logins, records.collection
    assert rules is not None  # `check_content` refuses the request otherwise
    rows = create_login(
        records.connection,
        records.selection,
        read_column_shapes(records.connection, TableName(collection.schema_name, collection.table)),
        NewLogin(
            name=grant.object_key,
            password=password_of(run, request, grant),
            view=request.content.collection,
            columns=request.plan.columns,
            primary_key=collection.primary_key,
            expires_at=grant.expires_at,
            sessions=rules.sessions,
        ),
    )
    _store_subjects(run, request, grant, records)
    run.task.confirm_open()
    records.connection.commit()
    text = login_text(request, grant)
    return WrittenExtract(rows, len(text), hashlib.sha256(text).hexdigest())


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


def _store_subjects(
    run: RunContext[UseRules], request: UseRequest, grant: Grant, records: RequestedRecords
) -> None:
    """Store the keyed HMAC of the data subjects, before the delivery can be used."""
    for digests in _subjects(run, request, records):
        with run.state.begin() as conn:
            grants.store_subjects(conn, request.id, grant.attempt, digests)


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


DELIVER = Step(
    name="deliver",
    title=_("The delivery"),
    clause=CLAUSE_USE,
    work=deliver_extract,
    result=Delivery,
    applies=is_request,
)
