"""The approvals of a request: by the supervisor, and a second one for unmasked values and minors.

Both approvals name the digest of the request and its plan. The second approval is given by another
person than the first (Regulations on the Protection of Minors Online, 2024-01-01, article 36).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from pydantic import AwareDatetime

from include.approvals import registry
from include.approvals.approvers import is_among
from include.approvals.registry import Decision, Refusal, RefusalCause, Request
from include.approvals.required_action import (
    LANGUAGES,
    Answer,
    InvalidAnswer,
    RequiredAction,
    escape_message,
    escape_text,
    format_accounts,
    in_both_languages,
    markdown_table,
)
from include.disclosure.request_text import describe_request
from include.disclosure.requests import UseRequest, load_request
from include.disclosure.roster import StaffRoster, read_roster
from include.disclosure.rules import CLAUSE_USE, USE, UseRules
from include.disclosure.use_check import CHECK
from include.disclosure.use_notifications import queue_approval
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings, StepResult
from include.messages import Message, _
from include.policy import PolicyPack
from include.reports.i18n import Translator
from include.services.errors import ControlFailed
from include.workflow.run_context import RunContext
from include.workflow.step import HumanTask

FIRST, SECOND = "use.supervisor", "use.second"  # kinds of approval requests
_DEFAULT_WAIT = timedelta(hours=24)


class UseApproval(StepResult):
    """The result of an approval task.

    Attributes:
        needed: whether the request needs this approval.
        approval: number of the approval request; None if the approval is not needed.
        approved: whether the request was approved, or needs no such approval.
        decision: option that the person chose; empty if nobody decided.
        decided_by: account of the person; empty if nobody decided.
        decided_at: time of the decision; None if nobody decided.
        refused: why the answer is invalid; None if it is valid.
    """

    needed: bool
    approval: int | None = None
    approved: bool = False
    decision: str = ""
    decided_by: str = ""
    decided_at: AwareDatetime | None = None
    refused: RefusalCause | None = None


def response_time(pack: PolicyPack) -> timedelta:
    """Return how long a run waits for an approval."""
    rules = pack.section(USE)
    return rules.response.span if rules else _DEFAULT_WAIT


def ask_supervisor(
    run: RunContext[UseRules], findings: StepFindings
) -> RequiredAction | UseApproval:
    """Return the required action for the supervisor of the requester.

    Raises:
        ControlFailed: the requester has no active supervisor.
    """
    with run.state.begin() as conn:
        request = load_request(conn, run.require(CHECK).request)
    roster = read_roster(run)
    approver = roster.approver_of(request.requester)
    return _ask(run, findings, FIRST, request, [approver.person] if approver else [], roster)


def ask_second_approver(
    run: RunContext[UseRules], findings: StepFindings
) -> RequiredAction | UseApproval:
    """Return the required action for the second approval, or a result if none is needed.

    Raises:
        ControlFailed: no other person may give the second approval.
    """
    with run.state.connect() as conn:
        request = load_request(conn, run.require(CHECK).request)
    first = run.require(APPROVE)
    if not first.approved or not request.plan.needs_second_approval:
        return UseApproval(needed=False, approved=first.approved)
    roster = read_roster(run)
    approvers = roster.second_approvers(request.requester, first.decided_by)
    return _ask(run, findings, SECOND, request, approvers, roster)


def _ask(
    run: RunContext[UseRules],
    findings: StepFindings,
    kind: str,
    request: UseRequest,
    approvers: Sequence[str],
    roster: StaffRoster,
) -> RequiredAction | UseApproval:
    subject = f"request {request.id}"
    with run.state.begin() as conn:
        approval = registry.create_request(
            conn,
            run.clock,
            dag_id=run.run.dag_id,
            run_id=run.run.run_id,
            kind=kind,
            subject=subject,
            sha256=request.sha256,
            requested_by=_requesters(run, request),
            deadline=run.now + run.rules.response.span,
        )
        decision = registry.decision_on(conn, approval.id)
        if decision is None and approvers:
            queue_approval(run, conn, request, approval, approvers, roster)
    if decision is not None:  # a killed attempt stored it
        return _result(findings, approval, decision)
    if not approvers:  # Airflow would accept an answer of anybody for an empty list
        raise ControlFailed(
            f"Nobody may approve request {request.id}.",
            "Have the supervisor, or people for the second approval, entered in the roster.",
        )
    findings.warn(
        "use.waiting",
        _("The request waits for an approval."),
        _("Decide on the request in Airflow."),
    )
    return _form(run, kind, request, approval, approvers)


def _requesters(run: RunContext[UseRules], request: UseRequest) -> list[str]:
    return sorted({request.requester, *([run.triggered_by] if run.triggered_by else [])})


def store_supervisor(
    run: RunContext[UseRules], findings: StepFindings, answer: Answer
) -> UseApproval:
    """Store the supervisor's answer, or store that the supervisor did not answer in time.

    Raises:
        InvalidAnswer: the form showed another content than the request.
    """
    with run.state.connect() as conn:
        request = load_request(conn, run.require(CHECK).request)
    approver = read_roster(run).approver_of(request.requester)
    return _store(run, findings, FIRST, answer, request, [approver.person] if approver else [])


def store_second_approver(
    run: RunContext[UseRules], findings: StepFindings, answer: Answer
) -> UseApproval:
    """Store the answer of the second approver, or store that nobody answered in time.

    Raises:
        InvalidAnswer: the form showed another content than the request.
    """
    with run.state.connect() as conn:
        request = load_request(conn, run.require(CHECK).request)
    first = run.require(APPROVE)
    approvers = read_roster(run).second_approvers(request.requester, first.decided_by)
    return _store(run, findings, SECOND, answer, request, approvers)


def _store(
    run: RunContext[UseRules],
    findings: StepFindings,
    kind: str,
    answer: Answer,
    request: UseRequest,
    approvers: Sequence[str],
) -> UseApproval:
    with run.state.begin() as conn:
        approval = registry.find_request(
            conn,
            run.run.dag_id,
            run.run.run_id,
            kind,
            f"request {request.id}",
            request.sha256,
        )
        if approval is None:
            raise InvalidAnswer(_("The request has no approval request."))
        has_own_name = answer.name and is_among(answer.name, approval.requested_by)
        entered = registry.decide(
            conn,
            approval,
            decision=answer.option,
            reason=answer.reason,
            decided_by=answer.name if has_own_name else answer.user,
            decided_at=answer.at or run.clock.now(),
            may_decide=approvers,
            content=answer.content,
        )
    if isinstance(entered, Refusal) and entered.cause is RefusalCause.OTHER_CONTENT:
        raise InvalidAnswer(_("The form showed other content than the stored request."))
    return _result(findings, approval, entered)


def _result(findings: StepFindings, approval: Request, answer: Decision | Refusal) -> UseApproval:
    result = UseApproval(
        needed=True,
        approval=approval.id,
        decision=answer.decision,
        decided_by=answer.decided_by,
        decided_at=answer.decided_at,
    )
    if isinstance(answer, Refusal):
        _report_refusal(findings, answer)
        return result.model_copy(update={"refused": answer.cause})
    if approval.deadline is not None and answer.decided_at > approval.deadline:
        findings.warn(
            "use.decided_late",
            _("{person} decided after the deadline.", person=answer.decided_by),
            _("The decision does not count. The requester makes a new request."),
        )
        return result
    return result.model_copy(update={"approved": answer.approved})


def _report_refusal(findings: StepFindings, answer: Refusal) -> None:
    message, severity = _REFUSALS[answer.cause]
    action = _(
        "Ask this person why the decision was made. If it was not a mistake, open an incident."
    )
    if answer.cause in (RefusalCause.NOBODY, RefusalCause.NO_REASON):
        action = _("The requester makes a new request if the information is still needed.")
    findings.find(
        f"use.{answer.cause}",
        severity,
        Message(text=message.text, values={"person": answer.decided_by}),
        action,
    )


_REFUSALS: dict[RefusalCause, tuple[Message, Outcome]] = {
    RefusalCause.NOBODY: (
        _("Nobody decided on the request in time, so it counts as rejected."),
        Outcome.ATTENTION,
    ),
    RefusalCause.OWN_REQUEST: (
        _("{person} decided on their own request. The decision is invalid.", person=""),
        Outcome.FAIL,
    ),
    RefusalCause.NOT_ENTITLED: (
        _("{person} decided without the right to approve. The decision is invalid.", person=""),
        Outcome.FAIL,
    ),
    RefusalCause.NO_REASON: (
        _("{person} rejected the request without a reason.", person=""),
        Outcome.ATTENTION,
    ),
    RefusalCause.DECIDED_BEFORE: (
        _("{person} decided a second time. The first decision remains valid.", person=""),
        Outcome.FAIL,
    ),
}


def _form(
    run: RunContext[UseRules],
    kind: str,
    request: UseRequest,
    approval: Request,
    approvers: Sequence[str],
) -> RequiredAction:
    subject = in_both_languages(
        _(
            "Request {number}: {records} records of {people} people for {person}",
            number=request.id,
            records=request.plan.records,
            people=request.plan.people,
            person=escape_text(request.requester),
        )
    )
    timezone = run.zone.key
    parts = []
    for language, name in LANGUAGES.items():
        words = Translator(language, timezone)
        parts.append(f"### {name}")
        notes = [
            _("Only {people} may decide", people=format_accounts(approvers)),
            _(
                "Your decision applies only to this request: SHA-256 {sha256}",
                sha256=request.sha256,
            ),
            _("Reject: nothing is delivered. A reason is required; do not enter customer data."),
        ]
        if kind == SECOND:
            notes.insert(
                0,
                _(
                    "This second approval is required, because the request names unmasked fields, "
                    "includes people under 18, or does not say whether it does."
                ),
            )
        rows = [
            [words.text(label), words.text(escape_message(value))]
            for label, value in describe_request(run.pack, request)
        ]
        parts.append(markdown_table([words.text(_("Item")), words.text(_("Content"))], rows))
        parts.append("\n".join(f"- {words.text(note)}" for note in notes))
    return RequiredAction(
        subject,
        "\n\n".join(parts) + "\n",
        list(approvers),
        approval.content,
        due_at=approval.deadline,
    )


APPROVE = HumanTask(
    name="approve",
    title=_("The approval by the supervisor"),
    request_title=_("Request for the approval by the supervisor"),
    clause=CLAUSE_USE,
    result=UseApproval,
    ask=ask_supervisor,
    store_answer=store_supervisor,
    response=response_time,
)
APPROVE_SECOND = HumanTask(
    name="approve_second",
    title=_("The second approval"),
    request_title=_("Request for the second approval"),
    clause=CLAUSE_USE,
    result=UseApproval,
    ask=ask_second_approver,
    store_answer=store_second_approver,
    response=response_time,
    optional=True,
)
