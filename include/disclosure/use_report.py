"""Build the report of the workflow `use_information`."""

from __future__ import annotations

from collections.abc import Iterator

from include.approvals import registry
from include.disclosure.approval import APPROVE, APPROVE_SECOND, UseApproval
from include.disclosure.content import DeliveryForm
from include.disclosure.delivery import DELIVER, Delivery
from include.disclosure.request_text import describe_request
from include.disclosure.requests import UseRequest
from include.disclosure.rules import CLAUSE_USE, UseRules
from include.disclosure.use_check import CHECK, action_of
from include.disclosure.use_confirm import CONFIRM_COPIES
from include.disclosure.use_form import UseAction
from include.disclosure.verification import VERIFY
from include.messages import Message, _, verbatim
from include.notify.sending import SEND_TITLE, STEP_SEND
from include.reports.conclusion import Conclusion
from include.reports.model import Fact, Paragraph, Section, text_table
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords

TITLE = _("Use of customer information")
_ITEM, _CONTENT = _("Item"), _("Content")
CANNOT_RECALL = _(
    "A downloaded file cannot be recalled. The password and the encryption protect it, and the "
    "requester has to confirm that all local copies are deleted."
)

LOGIN_REVEALS = _(
    "The login reads the approved fields of the approved records, and no other record or field. As "
    "for every user of the database server, the system catalogue also shows it names, definitions "
    "of tables, views and functions with the constants in them, sizes of tables, and the plans and "
    "row counts of its own queries."
)
LOGIN_ENDS = _(
    "When the approved time is over, the view shows no record, and the next hourly run removes the "
    "login. If the access ends earlier because the requester left or a data subject asked for "
    "erasure, the login works until this run. Records that it has already read cannot be recalled."
)


def conclude(run: RunContext[UseRules], records: RunRecords) -> Conclusion:
    """Return the report of a run: the request, the decisions on it, and the delivery."""
    if action_of(run.parameters) is UseAction.CONFIRM:
        return _conclude_confirmation(records)
    checked = records.result(CHECK)
    if checked is None:
        return records.conclude(
            TITLE,
            _("The request was refused before anybody was asked. The finding states the reason."),
        )
    request = UseRequest(
        checked.request, checked.requested_at, checked.content, checked.plan, checked.sha256
    )
    delivery = records.result(DELIVER)
    steps = {(step.name, ""): step.title for step in (APPROVE, APPROVE_SECOND, DELIVER, VERIFY)} | {
        (STEP_SEND, ""): SEND_TITLE
    }
    with run.state.connect() as conn:
        approvals = registry.approvals_of(conn, run.run.dag_id, run.run.run_id)
    return records.conclude(
        TITLE,
        _summary(request, delivery),
        findings=records.missing("use", CLAUSE_USE, steps),
        facts=list(_facts(request, delivery)),
        sections=list(_sections(run, request, records, delivery)),
        approvals=approvals,
    )


def _conclude_confirmation(records: RunRecords) -> Conclusion:
    confirmation = records.result(CONFIRM_COPIES)
    if confirmation is None:
        return records.conclude(
            TITLE, _("Nothing was recorded. The finding of this run states the reason.")
        )
    return records.conclude(
        TITLE,
        _(
            "{person} confirmed that all local copies of request {number} are deleted.",
            person=confirmation.confirmed_by,
            number=confirmation.request,
        ),
    )


def _summary(request: UseRequest, delivery: Delivery | None) -> Message:
    if delivery is None:
        return _("Request {number} ended without a delivery.", number=request.id)
    if not delivery.delivered:
        return _("Request {number} was not approved. Nothing was delivered.", number=request.id)
    return _(
        "Request {number} was approved. {records} records were delivered; the access ends at "
        "{expires_at}.",
        number=request.id,
        records=delivery.records,
        expires_at=delivery.expires_at,
    )


def _facts(request: UseRequest, delivery: Delivery | None) -> Iterator[Fact]:
    delivered = delivery is not None and delivery.delivered
    yield Fact(label=_("Approved records"), value=request.plan.records)
    yield Fact(label=_("Delivered records"), value=delivery.records if delivery else None)
    yield Fact(label=_("Number of people"), value=request.plan.people)
    yield Fact(label=_("Records about people under 18"), value=request.plan.minors)
    if delivered and delivery is not None:
        yield Fact(label=_("Access ends"), value=delivery.expires_at)


def _sections(
    run: RunContext[UseRules],
    request: UseRequest,
    records: RunRecords,
    delivery: Delivery | None,
) -> Iterator[Section]:
    rows = describe_request(run.pack, request)
    yield Section(
        heading=_("Request"),
        blocks=[text_table(_("Content of the request"), (_ITEM, _CONTENT), rows)],
    )
    decisions = [
        (title, records.result(step))
        for title, step in (
            (_("Supervisor"), APPROVE),
            (_("Second approval"), APPROVE_SECOND),
        )
    ]
    decided = [
        (title, _decision(approval)) for title, approval in decisions if approval is not None
    ]
    if decided:
        table = text_table(_("Approvals of the request"), (_("Approval"), _("Decision")), decided)
        yield Section(heading=_("Decisions"), blocks=[table])
    if delivery is not None and delivery.delivered:
        rows = [
            (_("Approved at"), Message(text="{at}", values={"at": delivery.approved_at})),
            (_("Access ends"), Message(text="{at}", values={"at": delivery.expires_at})),
        ]
        if request.content.form is DeliveryForm.LOGIN:
            rows.append((_("User of the database login"), verbatim(delivery.object_key)))
            title, remarks = _("Delivered database login"), [LOGIN_REVEALS, LOGIN_ENDS]
        else:
            rows.append((_("SHA-256 of the encrypted file"), verbatim(delivery.file_sha256)))
            title, remarks = _("Stored extract"), [CANNOT_RECALL]
        yield Section(
            heading=_("Delivery"),
            blocks=[
                text_table(title, (_ITEM, _CONTENT), rows),
                *(Paragraph(text=remark) for remark in remarks),
            ],
        )


def _decision(approval: UseApproval) -> Message:
    if not approval.needed:
        return _("not required")
    if not approval.decided_by or approval.decided_at is None:
        return _("nobody decided in time")
    text = _("approved") if approval.approved else _("not approved")
    return _(
        "{decision} by {person} at {at}",
        decision=text,
        person=approval.decided_by,
        at=approval.decided_at,
    )
