"""The approval of a disposition plan that exceeds a limit: approvers, form and decision."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from include.approvals import registry
from include.approvals.approvers import exclude_people, group_members, is_among
from include.approvals.registry import Decision, Refusal, RefusalCause
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
from include.erasure import requests
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.messages import Message, _, verbatim
from include.policy.datamap import MappedDatabase
from include.policy.retention import Approval, RetentionRule
from include.reports.i18n import Translator
from include.retention.database import RetentionDatabase
from include.retention.planning.breaker import ExceededLimit
from include.retention.planning.plan import (
    ON_LEGAL_HOLD,
    REFERENCED,
    SUSPENDED,
    Plan,
    file_name,
    read_plan,
    suspension_reason,
)
from include.retention.postgres.session import prepare_session
from include.retention.results import ApprovalResult, PlanResult
from include.services.errors import ControlFailed


@dataclass(frozen=True)
class PlanPeople:
    """The owners and approvers of a disposition plan, by user id.

    Attributes:
        owners: people who may not approve the plan. They are the owners of the retention schedule,
            the person who started the run, and the people who entered erasure requests of the plan.
        approvers: people who may approve the plan. No approver is an owner.
    """

    owners: tuple[str, ...]
    approvers: tuple[str, ...]


def read_people(
    connection: psycopg.Connection[Any] | None,
    staff: MappedDatabase | None,
    rule: Approval,
    starters: Collection[str],
) -> PlanPeople:
    """Return the owners and approvers of a disposition plan.

    Args:
        connection: connection to the database with the staff table; None if the policy pack names
            no staff table.
        staff: description of this database in the data map; None if the policy pack names no staff
            table.
        rule: approval rule of disposition.yaml.
        starters: user ids of the people who started the run or entered erasure requests of the
            plan. They are added to the owners and removed from the approvers.
    """
    owners = {*group_members(connection, staff, rule.staff, rule.owners, any_row=True), *starters}
    approvers = group_members(connection, staff, rule.staff, rule.approvers)
    return PlanPeople(tuple(sorted(owners)), tuple(exclude_people(approvers, owners)))


MOST_NAMES = 10  # names of approvers in a form; the others are only counted


def build_form(
    plan: Plan,
    title: Message,
    rules: Mapping[str, RetentionRule],
    tripped: Sequence[ExceededLimit],
    people: PlanPeople,
    timezone: str,
    content: str,
) -> RequiredAction:
    """Build the form in which an approver decides on a disposition plan.

    Args:
        plan: the plan.
        title: display name of the database.
        rules: name of a record class -> its definition in retention.yaml.
        tripped: limits that record classes exceed.
        people: owners and approvers of the plan.
        timezone: timezone in which the form shows times.
        content: text that identifies the plan in the approval request (`Request.content`).
    """
    count = sum(trip.planned for trip in tripped)
    subject = in_both_languages(
        _(
            "{database}: the disposition of {count} records requires approval",
            database=escape_message(title),
            count=count,
        )
    )
    parts = []
    for language, name in LANGUAGES.items():
        words = Translator(language, timezone)
        parts.append(f"### {name}")
        parts.append("\n".join(f"- {words.text(fact)}" for fact in _plan_facts(plan, people)))
        parts.append(_class_table(plan, rules, tripped, words))
        parts += _suspensions(plan, rules, tripped, words)
    return RequiredAction(subject, "\n\n".join(parts) + "\n", list(people.approvers), content)


def describe_limit(tripped: ExceededLimit) -> Message:
    """Return a text that states the limit that a record class exceeds."""
    allowed, recent = tripped.allowed, tripped.recent
    if recent and tripped.cause == "records":
        return _(
            "more than {count} records, including {recent} records that other runs disposed of "
            "in the last day",
            count=allowed,
            recent=recent,
        )
    if recent:
        return _(
            "more than {count} records, which is the largest allowed share of the class, "
            "including {recent} records that other runs disposed of in the last day",
            count=allowed,
            recent=recent,
        )
    match tripped.cause:
        case "records":
            return _("more than {count} records in one run", count=allowed)
        case "percent":
            return _(
                "more than {count} records, which is the largest allowed share of the class",
                count=allowed,
            )
        case _:
            return _(
                "more than {count} records, the limit calculated from the last runs", count=allowed
            )


def _plan_facts(plan: Plan, people: PlanPeople) -> list[Message]:
    first_names = format_accounts(people.approvers[:MOST_NAMES])
    more = len(people.approvers[MOST_NAMES:])
    return [
        _("Only records that had expired by {at} are disposed of.", at=plan.as_of),
        _("Only {people} and {more} more people may decide", people=first_names, more=more)
        if more
        else _("Only {people} may decide", people=first_names),
        _("Your decision applies only to this plan: SHA-256 {sha256}", sha256=plan.sha256),
        _(
            "Approve: the records in the table are permanently deleted or masked, unless a "
            "legal hold is placed on them before then. Backups still contain the records until "
            "the backups expire."
        ),
        _(
            "Reject: the records of these classes remain, and the next run requests approval "
            "again. A reason is required; do not enter customer data."
        ),
    ]


def _class_table(
    plan: Plan,
    rules: Mapping[str, RetentionRule],
    tripped: Sequence[ExceededLimit],
    words: Translator,
) -> str:
    head = [
        _("Record class"),
        _("Expired"),
        ON_LEGAL_HOLD,
        SUSPENDED,
        REFERENCED,
        _("To delete"),
        _("To mask"),
        _("Partitions"),
        _("Reason for the approval request"),
    ]
    waits = {trip.name: words.text(describe_limit(trip)) for trip in tripped}
    rows = []
    for planned in plan.classes:
        if planned.name not in waits:
            continue
        title = rules[planned.name].message
        rows.append(
            [
                escape_text(title if isinstance(title, str) else words.text(title)),
                words.value(planned.expired + planned.requested),
                words.value(planned.held),
                words.value(planned.suspended),
                words.value(planned.referenced),
                words.value(planned.to_delete),
                words.value(planned.to_mask),
                words.value(planned.to_drop_partitions),
                waits[planned.name],
            ]
        )
    return markdown_table([words.text(text) for text in head], rows)


def _suspensions(
    plan: Plan,
    rules: Mapping[str, RetentionRule],
    tripped: Sequence[ExceededLimit],
    words: Translator,
) -> list[str]:
    """Return a paragraph for each record class with suspended records, which states the reason.

    The certificate of deletion states the same reason.
    """
    names = {trip.name for trip in tripped}
    return [
        words.text(
            _(
                "{record_class}: {count} records are suspended. Reason: {reason}.",
                record_class=_escaped_title(rules[planned.name]),
                count=planned.suspended,
                reason=escape_message(suspension_reason(rules[planned.name])),
            )
        )
        for planned in plan.classes
        if planned.name in names and planned.suspended
    ]


def _escaped_title(rule: RetentionRule) -> Message:
    title = rule.message
    return verbatim(escape_text(title)) if isinstance(title, str) else escape_message(title)


def has_approvers(database: RetentionDatabase, plan: Plan) -> bool:
    """Return whether a disposition plan has at least one owner and one approver."""
    people = people_of_plan(database, plan)
    return bool(people.owners and people.approvers)


def people_of_plan(database: RetentionDatabase, plan: Plan | None = None) -> PlanPeople:
    """Return the owners and approvers of a disposition plan.

    Args:
        database: database of the plan.
        plan: the plan. People who entered an erasure request in it count as owners, so they cannot
            be approvers. If `plan` is None, such people may be among the approvers, but
            `registry.decide` refuses their decisions.
    """
    run, rule = database.run, database.disposition.approval
    starters = {run.triggered_by} if run.triggered_by else set()
    if plan and plan.requests:
        with run.state.connect() as conn:
            all_requests = requests.all_requests(conn)
        starters |= {request.entered_by for request in all_requests if request.id in plan.requests}
    if rule.staff is None:
        return read_people(None, None, rule, starters)
    holder = run.pack.database_of(rule.staff.collection, rule.staff.database)
    with run.services.database(holder.connection).connect(autocommit=True) as connection:
        prepare_session(connection, holder)
        return read_people(connection, holder, rule, starters)


def read_plan_file(database: RetentionDatabase, planned: PlanResult) -> Plan:
    """Read the disposition plan of this run from the file that the planning step stored.

    Raises:
        ControlFailed: the file is missing or was edited.
    """
    content = database.run.records().artifacts.get(file_name(database.name))
    if content is None:
        raise ControlFailed(f"The plan of {database.name} is missing.", "Run the workflow again.")
    return read_plan(content, planned.sha256)


def approval_form(database: RetentionDatabase, planned: PlanResult) -> RequiredAction | None:
    """Build the approval form of a disposition plan, or return None if no approval is required.

    Args:
        database: database of the plan.
        planned: result of the planning step.

    Raises:
        ControlFailed: the plan file was edited, the plan has no approver, or the approval request
            is for another plan.
    """
    if planned.request is None:
        return None
    plan, title = read_plan_file(database, planned), database.mapped.title
    people = people_of_plan(database, plan)
    if not people.approvers:  # an empty list would let everybody answer
        raise ControlFailed(f"The plan of {plan.database} has no approver.", "Name approvers.")
    rules = {rule.record_class: rule for rule in database.rules}
    with database.run.state.connect() as conn:
        request = registry.load_request(conn, planned.request)
    if request.sha256 != plan.sha256:
        raise ControlFailed(
            f"The plan of {plan.database} differs from the plan of its approval request.",
            "Run the workflow again.",
        )
    timezone = database.run.pack.calendar.timezone
    return build_form(plan, title, rules, planned.tripped, people, timezone, request.content)


def enter_answer(
    database: RetentionDatabase, findings: StepFindings, planned: PlanResult, answer: Answer
) -> ApprovalResult:
    """Record an approver's decision, or that no approver decided in time.

    Airflow reports the person who started a run only by name, and the person who answered by id and
    name. In some auth managers, ids differ from names. Therefore both the id and the name from the
    answer are compared with the name of the person who started the run.

    Args:
        database: database of the plan.
        findings: collector of the findings of the approval step.
        planned: result of the planning step.
        answer: answer that Airflow received from the approval form.

    Raises:
        InvalidAnswer: the form showed another plan, or the plan no longer needs an approval.
    """
    if planned.request is None:
        raise InvalidAnswer(
            _(
                "The disposition plan of {database} no longer requires an approval.",
                database=database.name,
            )
        )
    people = people_of_plan(database)
    with database.run.state.begin() as conn:
        request = registry.load_request(conn, planned.request)
        has_own_name = answer.name and is_among(answer.name, request.requested_by)
        entered = registry.decide(
            conn,
            request,
            decision=answer.option,
            reason=answer.reason,
            decided_by=answer.name if has_own_name else answer.user,
            decided_at=answer.at or database.run.clock.now(),
            may_decide=people.approvers,
            content=answer.content,
        )
        outdated = registry.outdated_answers(conn, request)
    if isinstance(entered, Refusal) and entered.cause is RefusalCause.OTHER_CONTENT:
        raise InvalidAnswer(
            _(
                "The form showed an outdated disposition plan of {database}.",
                database=database.name,
            )
        )
    return _result(findings, entered, outdated)


def find_decision(
    database: RetentionDatabase, findings: StepFindings, planned: PlanResult
) -> ApprovalResult | None:
    """Return the decision that was already recorded on exactly this plan, or None.

    Such a decision exists if the task was killed after it had recorded the decision and before it
    stored the result of the step.

    Args:
        database: database of the plan.
        findings: collector of the findings of the approval step.
        planned: result of the planning step.
    """
    if planned.request is None:
        return None
    with database.run.state.connect() as conn:
        request = registry.load_request(conn, planned.request)
        decision = registry.decision_on(conn, request.id)
        outdated = registry.outdated_answers(conn, request)
    if decision is None or request.sha256 != planned.sha256:
        return None
    return _result(findings, decision, outdated)


def _result(findings: StepFindings, answer: Decision | Refusal, outdated: int) -> ApprovalResult:
    if outdated:
        findings.find(
            "retention.other_content",
            Outcome.ATTENTION,
            _("{count} decisions on an earlier version of the plan were invalid.", count=outdated),
            _(
                "Find out who made the plan again while its approval was pending, and what "
                "changed in it."
            ),
        )
    result = ApprovalResult(
        asked=True,
        decision=answer.decision,
        decided_by=answer.decided_by,
        decided_at=answer.decided_at,
    )
    if isinstance(answer, Refusal):
        _report_refusal(findings, answer)
        return result.model_copy(update={"refused": answer.cause})
    if not answer.approved:
        findings.find(
            "retention.rejected",
            Outcome.ATTENTION,
            _("{person} rejected the disposition plan.", person=answer.decided_by),
            _(
                "Read the reason, and correct the retention schedule or its limits. The next "
                "run requests approval again."
            ),
        )
    return result.model_copy(update={"reason": answer.reason})


def _report_refusal(findings: StepFindings, answer: Refusal) -> None:
    severity, message = _REFUSALS[answer.cause]
    action = _(
        "Ask this person why the decision was made. If it was not a mistake, open an incident."
    )
    if answer.cause in (RefusalCause.NOBODY, RefusalCause.NO_REASON):
        action = _("Remind the approvers. The next run requests approval again.")
    findings.find(
        f"retention.{answer.cause}",
        severity,
        Message(text=message.text, values={"person": answer.decided_by}),
        action,
    )


_REFUSALS: dict[RefusalCause, tuple[Outcome, Message]] = {
    RefusalCause.NOBODY: (
        Outcome.ATTENTION,
        _(
            "No approver answered the approval request in time, so the records in the request "
            "were not disposed of."
        ),
    ),
    RefusalCause.OWN_REQUEST: (
        Outcome.FAIL,
        _(
            "{person} decided on a plan although this person owns the retention schedule or "
            "triggered the run. The decision is invalid.",
            person="",
        ),
    ),
    RefusalCause.NOT_ENTITLED: (
        Outcome.FAIL,
        _("{person} decided without the right to approve. The decision is invalid.", person=""),
    ),
    RefusalCause.NO_REASON: (
        Outcome.ATTENTION,
        _(
            "{person} rejected the disposition plan without a reason, so the records in the "
            "plan were not disposed of.",
            person="",
        ),
    ),
    RefusalCause.DECIDED_BEFORE: (
        Outcome.FAIL,
        _("{person} decided a second time. The first decision remains valid.", person=""),
    ),
}
