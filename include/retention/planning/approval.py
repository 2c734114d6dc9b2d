"""The approval of a plan that exceeds a limit: entitled people, question and answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from include.approvals import registry
from include.approvals.people import is_among, members, without
from include.approvals.question import (
    LANGUAGES,
    Answer,
    AskAgain,
    Question,
    harmless,
    in_both,
    markdown_table,
    names,
)
from include.approvals.registry import Cause, Decision, Refusal
from include.erasure import requests
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.messages import Message, _
from include.policy.datamap import MappedDatabase
from include.policy.retention import Approval, RetentionRule
from include.reports.i18n import Translator
from include.retention.database import RetentionDatabase
from include.retention.planning.breaker import Tripped
from include.retention.planning.plan import Plan, file_name, read_plan
from include.retention.postgres.session import prepare
from include.retention.results import ApprovalResult, PlanResult
from include.services.errors import ControlFailed


@dataclass(frozen=True)
class People:
    """Owners and approvers of a plan.

    Attributes:
        owners: user ids of the owners of the schedule, of the person who started the run, and of
            the people who entered the plan's erasure requests.
        approvers: user ids of the people who may answer; none of them is an owner.
    """

    owners: tuple[str, ...]
    approvers: tuple[str, ...]


def people_of(
    connection: psycopg.Connection[Any] | None,
    staff: MappedDatabase | None,
    rule: Approval,
    starters: Collection[str],
) -> People:
    """Find the approvers of a plan.

    Args:
        connection: to the database of the staff table; None if the pack has none.
        staff: that database.
        rule: of disposition.yaml.
        starters: the people who started the run or entered the plan's erasure requests.
    """
    owners = {*members(connection, staff, rule.staff, rule.owners, in_doubt=True), *starters}
    approvers = members(connection, staff, rule.staff, rule.approvers)
    return People(tuple(sorted(owners)), tuple(without(approvers, owners)))


MOST_NAMES = 10  # approvers in a form; it counts the others


def question(
    plan: Plan,
    title: str,
    rules: Mapping[str, RetentionRule],
    tripped: Sequence[Tripped],
    people: People,
    timezone: str,
    content: str,
) -> Question:
    """Build the approval form of a plan.

    Args:
        plan: to approve.
        title: of the database.
        rules: record classes by name.
        tripped: classes that exceed a limit.
        people: owners and approvers.
        timezone: of times that people read.
        content: of the request for approval.
    """
    count = sum(trip.planned for trip in tripped)
    subject = in_both(
        _(
            "{database}: {count} records wait for your approval to be erased",
            database=harmless(title),
            count=count,
        )
    )
    parts = []
    for language, name in LANGUAGES.items():
        words = Translator(language, timezone)
        parts.append(f"### {name}")
        parts.append("\n".join(f"- {words.text(fact)}" for fact in _facts(plan, people)))
        parts.append(_table(plan, rules, tripped, words))
    return Question(subject, "\n\n".join(parts) + "\n", list(people.approvers), content)


def why(tripped: Tripped) -> Message:
    """Return the limit that a class exceeds."""
    allowed, recent = tripped.allowed, tripped.recent
    if recent and tripped.cause == "records":
        return _(
            "more than {count} records, with {recent} of the last day", count=allowed, recent=recent
        )
    if recent:
        return _(
            "more than its share of the class, {count} records, with {recent} of the last day",
            count=allowed,
            recent=recent,
        )
    match tripped.cause:
        case "records":
            return _("more than {count} records in one run", count=allowed)
        case "percent":
            return _("more than its share of the class, {count} records", count=allowed)
        case _:
            return _("more than its last runs suggest, {count} records", count=allowed)


def _facts(plan: Plan, people: People) -> list[Message]:
    shown = names(people.approvers[:MOST_NAMES])
    more = len(people.approvers[MOST_NAMES:])
    return [
        _("What is over at {at} goes; nothing else.", at=plan.as_of),
        _("Only {people} and {more} more may answer", people=shown, more=more)
        if more
        else _("Only {people} may answer", people=shown),
        _("Your decision is bound to this plan: SHA-256 {sha256}", sha256=plan.sha256),
        _(
            "Approve: what the table names is erased for good, unless a hold is put on it before. "
            "Backups keep it until they expire."
        ),
        _(
            "Reject: these classes stay as they are, and the next run asks again. A reason is "
            "required; write no customer's data into it."
        ),
    ]


def _table(
    plan: Plan,
    rules: Mapping[str, RetentionRule],
    tripped: Sequence[Tripped],
    words: Translator,
) -> str:
    head = [
        _("Record class"),
        _("Expired"),
        _("Held"),
        _("Suspended"),
        _("To delete"),
        _("To mask"),
        _("Partitions"),
        _("Why it waits"),
    ]
    waits = {trip.name: words.text(why(trip)) for trip in tripped}
    rows = []
    for planned in plan.classes:
        if planned.name not in waits:
            continue
        title = rules[planned.name].message
        rows.append(
            [
                harmless(title if isinstance(title, str) else words.text(title)),
                words.value(planned.expired + planned.requested),
                words.value(planned.held),
                words.value(planned.suspended),
                words.value(planned.to_delete),
                words.value(planned.to_mask),
                words.value(planned.to_drop_partitions),
                waits[planned.name],
            ]
        )
    return markdown_table([words.text(text) for text in head], rows)


def may_be_approved(database: RetentionDatabase, plan: Plan) -> bool:
    """Return whether disposition.yaml has owners and approvers for a plan."""
    people = people_for(database, plan)
    return bool(people.owners and people.approvers)


def people_for(database: RetentionDatabase, plan: Plan | None = None) -> People:
    """Return owners and approvers; a person who entered a request of the plan counts as an owner.

    Without a plan the people of requests count as approvers: `registry.decide` refuses them.
    """
    run, rule = database.run, database.disposition.approval
    starters = {run.triggered_by} if run.triggered_by else set()
    if plan and plan.requests:
        with run.state.connect() as conn:
            every = requests.every(conn)
        starters |= {request.entered_by for request in every if request.id in plan.requests}
    if rule.staff is None:
        return people_of(None, None, rule, starters)
    holder = run.pack.database_of(rule.staff.collection, rule.staff.database)
    with run.services.database(holder.connection).connect(autocommit=True) as connection:
        prepare(connection, holder)
        return people_of(connection, holder, rule, starters)


def plan_file(database: RetentionDatabase, planned: PlanResult) -> Plan:
    """Return the plan of this run from its file.

    Raises:
        ControlFailed: the file is missing, or was edited.
    """
    content = database.run.records().artifacts.get(file_name(database.name))
    if content is None:
        raise ControlFailed(f"The plan of {database.name} is gone.", "Run the workflow again.")
    return read_plan(content, planned.sha256)


def ask(database: RetentionDatabase, planned: PlanResult) -> Question | None:
    """Build the approval form, or return None if no approval is required.

    Raises:
        ControlFailed: the plan was edited, or nobody may be asked.
    """
    if planned.request is None:
        return None
    plan, title = plan_file(database, planned), database.mapped.title
    people = people_for(database, plan)
    if not people.approvers:  # an empty list would let everybody answer
        raise ControlFailed(f"Nobody may approve the plan of {plan.database}.", "Name approvers.")
    rules = {rule.record_class: rule for rule in database.rules}
    with database.run.state.connect() as conn:
        request = registry.request(conn, planned.request)
    if request.sha256 != plan.sha256:
        raise ControlFailed(
            f"The plan of {plan.database} is not the one of its request.", "Run the workflow again."
        )
    timezone = database.run.pack.calendar.timezone
    return question(plan, title, rules, planned.tripped, people, timezone, request.content)


def take(
    database: RetentionDatabase, findings: StepFindings, planned: PlanResult, answer: Answer
) -> ApprovalResult:
    """Enter the answer to a question, or the lack of an answer.

    Airflow names the person who started a run, and gives id and name of the person who answered. If
    its auth manager stores the two apart, either counts as the person.

    Args:
        database: of the plan.
        findings: of the step.
        planned: result of the plan's step.
        answer: of a person.

    Raises:
        AskAgain: the form showed another plan than the one that waits now, or none waits any more.
    """
    if planned.request is None:
        raise AskAgain(
            _("The plan of {database} no longer waits for an approval.", database=database.name)
        )
    people = people_for(database)
    with database.run.state.begin() as conn:
        request = registry.request(conn, planned.request)
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
    if isinstance(entered, Refusal) and entered.cause is Cause.OTHER_CONTENT:
        raise AskAgain(
            _(
                "The plan of {database} is not the one that the form showed.",
                database=database.name,
            )
        )
    return _result(findings, entered, outdated)


def decided(
    database: RetentionDatabase, findings: StepFindings, planned: PlanResult
) -> ApprovalResult | None:
    """Return the decision on exactly this plan, or None if there is none.

    The task that took the decision may have been killed before its record was kept.
    """
    if planned.request is None:
        return None
    with database.run.state.connect() as conn:
        request = registry.request(conn, planned.request)
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
            _("{count} answers to an earlier plan did not count.", count=outdated),
            _("Ask who repeated the plan while its approval waited, and what changed."),
        )
    result = ApprovalResult(
        asked=True,
        decision=answer.decision,
        decided_by=answer.decided_by,
        decided_at=answer.decided_at,
    )
    if isinstance(answer, Refusal):
        _refused(findings, answer)
        return result.model_copy(update={"refused": answer.cause})
    if not answer.approved:
        findings.find(
            "retention.rejected",
            Outcome.ATTENTION,
            _("{who} rejected the plan.", who=answer.decided_by),
            _("Read the reason; correct the schedule or its limits. The next run asks anew."),
        )
    return result.model_copy(update={"reason": answer.reason})


def _refused(findings: StepFindings, answer: Refusal) -> None:
    severity, message = _REFUSALS[answer.cause]
    action = _("Ask the person why; raise an incident if it was no mistake.")
    if answer.cause in (Cause.NOBODY, Cause.NO_REASON):
        action = _("Remind the approvers; the next run asks again.")
    findings.find(
        f"retention.{answer.cause}",
        severity,
        Message(text=message.text, values={"who": answer.decided_by}),
        action,
    )


_REFUSALS: dict[Cause, tuple[Outcome, Message]] = {
    Cause.NOBODY: (Outcome.ATTENTION, _("Nobody answered in time; these classes stay.")),
    Cause.OWN_REQUEST: (
        Outcome.FAIL,
        _("{who} answered for a schedule or run of their own; it does not count.", who=""),
    ),
    Cause.NOT_ENTITLED: (
        Outcome.FAIL,
        _("{who} answered and may not approve; it does not count.", who=""),
    ),
    Cause.NO_REASON: (
        Outcome.ATTENTION,
        _("{who} rejected the plan and gave no reason; these classes stay.", who=""),
    ),
    Cause.DECIDED_BEFORE: (
        Outcome.FAIL,
        _("{who} answered a second time; the first decision stands.", who=""),
    ),
}
