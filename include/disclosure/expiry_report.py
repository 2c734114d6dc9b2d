"""Build the report of the workflow `expire_grants`."""

from __future__ import annotations

from collections.abc import Iterator

from include.disclosure.absence_proof import PROVE, AbsenceProof
from include.disclosure.accesses.report import (
    access_facts,
    access_sections,
    known_failures,
    stored_files,
)
from include.disclosure.accesses.step import COMPARE
from include.disclosure.expiry import EXPIRE, Expiry
from include.disclosure.grants import EndReason
from include.disclosure.rules import CLAUSE_USE, UseRules
from include.disclosure.use_report import CANNOT_RECALL
from include.messages import Message, _, verbatim
from include.notify.sending import SEND_TITLE, STEP_SEND
from include.reports.conclusion import Conclusion
from include.reports.model import Fact, Paragraph, Section, must_be_zero, text_table
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords

TITLE = _("End of access to customer information")
REASONS: dict[EndReason, Message] = {
    EndReason.EXPIRED: _("the approved time is over"),
    EndReason.CONFIRMED: _("the requester confirmed that local copies are deleted"),
    EndReason.NOT_ENTITLED: _("the requester is not active or not trained any more"),
    EndReason.TRANSFERRED: _("the requester works in another department"),
    EndReason.ERASURE: _("a data subject asked for erasure"),
    EndReason.ENDED_BY_PERSON: _("a person ended the access"),
    EndReason.NOT_DELIVERED: _("the extract was not delivered in time"),
}


def conclude(run: RunContext[UseRules], records: RunRecords) -> Conclusion:
    """Return the report of a run: ended accesses, the proof of deletion, and the comparison."""
    expiry, proof = records.result(EXPIRE), records.result(PROVE)
    comparison = records.result(COMPARE)
    steps = {(step.name, ""): step.title for step in (EXPIRE, PROVE, COMPARE)} | {
        (STEP_SEND, ""): SEND_TITLE
    }
    return records.conclude(
        TITLE,
        _summary(expiry, proof),
        findings=records.missing("use", CLAUSE_USE, steps),
        facts=[*_facts(expiry, proof), *access_facts(comparison)],
        sections=[*_sections(expiry), *access_sections(comparison)],
        stored=stored_files(run, comparison),
        known_failures=known_failures(comparison),
    )


def _summary(expiry: Expiry | None, proof: AbsenceProof | None) -> Message:
    if expiry is None or proof is None:
        return _("The accesses to customer information could not be checked.")
    if not expiry.is_configured:
        return _("Extracts are not configured, so there was nothing to end.")
    if proof.remaining or proof.unapproved:
        return _(
            "{remaining} of {listed} stored extracts and database logins remain without a valid "
            "access, and {unapproved} of {checked} grants have no valid approval.",
            remaining=len(proof.remaining),
            listed=proof.listed,
            unapproved=len(proof.unapproved),
            checked=proof.checked,
        )
    return _(
        "{ended} accesses ended. A listing of the store and of the database logins, with {listed} "
        "entries, proves that none is left without a valid access. All {checked} grants have "
        "valid approvals.",
        ended=len(expiry.ended),
        listed=proof.listed,
        checked=proof.checked,
    )


def _facts(expiry: Expiry | None, proof: AbsenceProof | None) -> Iterator[Fact]:
    remaining = len(proof.remaining) if proof and expiry and expiry.is_configured else None
    unapproved = len(proof.unapproved) if proof and expiry and expiry.is_configured else None
    yield Fact(
        label=_("Extracts and logins that can be used"), value=expiry.live if expiry else None
    )
    yield Fact(label=_("Ended accesses"), value=len(expiry.ended) if expiry else None)
    yield Fact(
        label=_("Remaining extracts and logins"), value=remaining, status=must_be_zero(remaining)
    )
    yield Fact(
        label=_("Grants without a valid approval"),
        value=unapproved,
        status=must_be_zero(unapproved),
    )
    yield Fact(
        label=_("Local copies without a confirmation"),
        value=len(expiry.unconfirmed) if expiry else None,
    )


def _sections(expiry: Expiry | None) -> Iterator[Section]:
    if expiry is None or not expiry.ended:
        return
    rows = [
        (
            verbatim(str(grant.request)),
            verbatim(grant.requester),
            REASONS[grant.reason],
            verbatim(grant.ended_by or "-"),
            verbatim(str(grant.openings)),
            Message(text="{at}", values={"at": grant.ending_at}),
        )
        for grant in expiry.ended
    ]
    head = (
        _("Request"),
        _("Requester"),
        _("Reason"),
        _("Ended by"),
        _("Openings"),
        _("Access ended at"),
    )
    yield Section(
        heading=_("Ended accesses"),
        blocks=[
            text_table(
                _("Ended accesses with an extract that this run deleted or tried to delete"),
                head,
                rows,
            ),
            Paragraph(text=CANNOT_RECALL),
        ],
    )
