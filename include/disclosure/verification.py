"""The step of `use_information` that checks a delivery.

The delivered file is read back, or the view is read with the rights of its login.
"""

from __future__ import annotations

import hashlib
import tempfile
from typing import IO

from include.disclosure import grants
from include.disclosure.delivery import DELIVER
from include.disclosure.extract_store import open_extract_store, password_of
from include.disclosure.extracts.counting import CountedExtract, count_extract
from include.disclosure.grants import Grant, GrantState
from include.disclosure.logins.check import count_view
from include.disclosure.logins.confinement import rights_beyond_view
from include.disclosure.requests import UseRequest, load_request
from include.disclosure.rules import CLAUSE_USE, UseRules
from include.disclosure.use_check import CHECK, is_request
from include.evidence.step_findings import StepFindings, StepResult
from include.messages import _
from include.services.database import connected
from include.services.objectstore.base import ObjectReader
from include.workflow.run_context import RunContext
from include.workflow.step import Step

_PIECE = 1 << 20  # bytes read at a time


class VerifiedExtract(StepResult):
    """The result of the verification of a delivered extract.

    Attributes:
        is_verified: whether the stored file is the file that was written, or the login reads its
            view and nothing else; None if nothing was delivered.
        counted_records: number of records in the decrypted file or in the view; None if they were
            not counted.
    """

    is_verified: bool | None = None
    counted_records: int | None = None


def verify_extract(run: RunContext[UseRules], findings: StepFindings) -> VerifiedExtract:
    """Compare a delivery with its approval: digest and counts, or the rights of the login.

    The records and columns of a ZIP or Excel file are counted in the decrypted file. An extract for
    a machine cannot be decrypted here, so its records are not measured. The records of a login are
    counted with the rights of the login.
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
    if grant.is_login:
        return _verify_login(run, findings, request, grant)
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
        form = request.content.form.file_form
        counted = count_extract(file, form, password_of(run, request, grant))
    if counted is None:
        return VerifiedExtract(is_verified=True)
    is_complete = counted.records == delivery.records
    return _compare(findings, request, counted, is_complete=is_complete)


def _verify_login(
    run: RunContext[UseRules], findings: StepFindings, request: UseRequest, grant: Grant
) -> VerifiedExtract:
    """Count the records that the login reads, and check again that it has no other rights."""
    with connected(run.reader(request.content.database)) as connection:
        rights = rights_beyond_view(connection, grant.object_key, request.content.collection)
        counted = count_view(connection, grant.object_key, request.content.collection)
    if rights:
        findings.fail(
            "use.login_not_confined",
            _("The login of request {number} can read more than was approved.", number=request.id),
            _("End the access, and open an incident."),
            for_engineers=_("The login has rights on: {rights}.", rights=", ".join(rights)),
        )
        return VerifiedExtract(is_verified=False, counted_records=counted.records)
    # Records that were deleted since are missing in the view.
    return _compare(findings, request, counted, is_complete=True)


def _compare(
    findings: StepFindings, request: UseRequest, counted: CountedExtract, *, is_complete: bool
) -> VerifiedExtract:
    """Compare the counts of a delivery with the approved plan."""
    plan = request.plan
    findings.measure("use.counted_records", counted.records, "rows")
    is_approved = counted.records <= plan.records and counted.columns == len(plan.columns)
    if not (is_approved and is_complete):
        findings.fail(
            "use.more_than_approved",
            _(
                "The delivery has {records} records and {columns} columns; {approved} records and "
                "{approved_columns} columns were approved.",
                records=counted.records,
                columns=counted.columns,
                approved=plan.records,
                approved_columns=len(plan.columns),
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


VERIFY = Step(
    name="verify",
    title=_("The verification of the delivery"),
    clause=CLAUSE_USE,
    work=verify_extract,
    result=VerifiedExtract,
    applies=is_request,
)
