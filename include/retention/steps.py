"""The steps of `enforce_retention` before its execution: plan, ask, take the answer."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import date, datetime
from typing import Any

from include.approvals import registry
from include.approvals.names import is_among
from include.approvals.question import AskAgain, Question
from include.approvals.registry import Cause, Decision, Refusal
from include.erasure import ledger, requests
from include.erasure.entry_losses import require_no_entry_missing
from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import StepFindings
from include.evidence.steps import artifacts_of, keep_artifact
from include.holds import registry as holds
from include.messages import Message, _
from include.retention import breaker, told
from include.retention.breaker import Tripped
from include.retention.desk import Desk
from include.retention.hold_keys import find_unmatched
from include.retention.names import CLAUSE, KIND, STEP_APPROVE, STEP_PLAN
from include.retention.people import People, people_of
from include.retention.plan import Plan, file_name, read_plan
from include.retention.question import question
from include.retention.session import prepare
from include.services.errors import ControlFailed


def plan(desk: Desk, as_of: str | None = None) -> StepRecord:
    """Make the plan, keep it as a file of the bundle, and ask for approval where it is needed.

    Args:
        desk: of the database.
        as_of: see `include.retention.desk.moment_of`; never in the future.

    Raises:
        ControlFailed: clocks disagree, or the erasure ledger lacks entries of the database.
        UsageError: the moment lies in the future, or the schedule does not fit the database.
    """
    with desk.state.connect() as conn:
        require_no_entry_missing(conn, desk.database.name)
    seen = StepFindings(STEP_PLAN, CLAUSE, part=desk.database.name)
    made = _begun(desk) or desk.plan(as_of)
    found = tripped(desk, made)
    with desk.state.connect() as conn:
        expired = breaker.past_runs(conn, made, desk.run, "expired")
    data: dict[str, Any] = {
        "as_of": made.as_of.isoformat(),
        "sha256": made.sha256,
        "classes": [one.model_dump(mode="json") for one in made.classes],
        "tripped": [vars(one) for one in found],
    }
    with desk.state.begin() as conn:
        breaker.remember(conn, made, desk.run, desk.clock, {one.name for one in found})
        keep_artifact(conn, *desk.run, file_name(made.database), made.content)
        data |= told.of_plan(conn, desk, made)
        due = holds.due_for_review(conn, desk.today)
    if found:
        data |= _asked(desk, seen, made)
    _unmapped(seen, made)
    _still(seen, made, expired)
    _due(seen, [one.review_on for one in due])
    find_unmatched(seen, desk.reader, desk.database, desk.rules, desk.holds())
    for one in made.classes:
        seen.measure(f"retention.{one.name}.planned", one.planned, "rows")
    return seen.record(data)


def _begun(desk: Desk) -> Plan | None:
    """The plan that this run asked about, or has begun to execute.

    Somebody repeats the run's first step. Another plan now would be one that nobody was shown: what
    is answered is what was asked, and what is executed is what was begun.
    """
    name = desk.database.name
    with desk.state.connect() as conn:
        asked = registry.request_of(conn, *desk.run, KIND, name)
        if asked is None and not ledger.has_begun(conn, name, *desk.run):
            return None
        found = artifacts_of(conn, *desk.run).get(file_name(name))
    return Plan.model_validate_json(found) if found else None


def tripped(desk: Desk, made: Plan) -> list[Tripped]:
    """The classes of a plan that a second person has to approve.

    What was erased just now does not count towards a plan of a day that is yet to come.
    """
    with desk.state.connect() as conn:
        past = breaker.past_runs(conn, made, desk.run)
        at = max(desk.clock.now(), made.as_of)
        recent = breaker.recent_runs(conn, made, desk.run, at)
    limits = {one.record_class: one.limit or desk.disposition.limit for one in desk.rules}
    found = [
        breaker.trips(
            one,
            limits.get(one.name, desk.disposition.limit),  # of a class that is gone since
            past[one.name],
            recent.get(one.name, 0),
        )
        for one in made.classes
    ]
    return [one for one in found if one]


def _asked(desk: Desk, seen: StepFindings, made: Plan) -> dict[str, Any]:
    """Enter the request for a decision; what stands in the way of one is a finding."""
    if not may_be_approved(desk, made):
        seen.find(
            "retention.nobody_to_ask",
            Outcome.FAIL,
            _("The plan is larger than usual, and nobody may approve it."),
            _("Name owners and approvers, who are other people, in disposition.yaml."),
        )
        return {}
    with desk.state.begin() as conn:
        asked = registry.ask(
            conn,
            desk.clock,
            kind=KIND,
            subject=desk.database.name,
            sha256=made.sha256,
            requested_by=_people(desk, made).owners,
            dag_id=desk.dag_id,
            run_id=desk.run_id,
        )
    return told.of_request(asked)


def may_be_approved(desk: Desk, plan: Plan) -> bool:
    """Return whether disposition.yaml names people who may approve a plan."""
    people = _people(desk, plan)
    return bool(people.owners and people.approvers)


def _people(desk: Desk, made: Plan | None = None) -> People:
    """Return owners and approvers; a person who entered a request of the plan counts as an owner.

    Without a plan, nobody is left out for a request: `registry.decide` refuses these people.
    """
    entered_by: set[str] = set()
    if made and made.requests:
        with desk.state.connect() as conn:
            entered_by = {one.entered_by for one in requests.every(conn) if one.id in made.requests}
    staff = desk.staff
    place = staff[1].connect(autocommit=True) if staff else nullcontext()
    with place as connection:
        if connection is not None and staff is not None:
            prepare(connection, staff[0])
        database = staff[0] if staff else None
        starters = entered_by | ({desk.starter} if desk.starter else set())
        return people_of(connection, database, desk.disposition.approval, starters)


def _unmapped(seen: StepFindings, made: Plan) -> None:
    for one in made.classes:
        for found in one.referred_by:
            if found.collection is None:
                seen.find(
                    "retention.unmapped_reference",
                    Outcome.FAIL,
                    _(
                        "{count} expired records stay: {table}, which the data map lacks, refers "
                        "to them.",
                        count=found.records,
                        table=found.table,
                    ),
                    _("Add the table to the data map and say what becomes of its records."),
                    subject=one.name,
                )


def _still(seen: StepFindings, made: Plan, past: dict[str, list[int]]) -> None:
    """Warn when a class that always had expired records has none.

    Its clock column may no longer be filled.
    """
    for one in made.classes:
        usual = past[one.name]
        if len(usual) >= breaker.FEWEST and min(usual) > 0 and not one.expired:
            seen.find(
                "retention.nothing_expires",
                Outcome.ATTENTION,
                _(
                    "Nothing has expired; in each of the last {runs} runs something had.",
                    runs=len(usual),
                ),
                _("See that the clock of the class is still filled in."),
                subject=one.name,
            )


def _due(seen: StepFindings, reviews: list[date]) -> None:
    if reviews:
        seen.find(
            "retention.hold_review_due",
            Outcome.ATTENTION,
            _("{count} legal holds are past their review date.", count=len(reviews)),
            _("Ask their owners, and release what is not needed: `hold list --due` names them."),
        )


def planned(desk: Desk, record: StepRecord) -> Plan:
    """Return the plan of this run from its file.

    Raises:
        ControlFailed: it is not there, or was edited.
    """
    name = file_name(desk.database.name)
    with desk.state.connect() as conn:
        found = artifacts_of(conn, *desk.run).get(name)
    if found is None:
        raise ControlFailed(f"The plan of {desk.database.name} is gone.", "Run the workflow again.")
    return read_plan(found, str(record.data["sha256"]))


def ask(desk: Desk, record: StepRecord) -> Question | None:
    """Build the approval form, or return None if no approval is required.

    Raises:
        ControlFailed: the plan was edited, or nobody may be asked.
    """
    if "request" not in record.data:
        return None
    made = planned(desk, record)
    people = _people(desk, made)
    if not people.approvers:  # an empty list would let everybody answer
        raise ControlFailed(f"Nobody may approve the plan of {made.database}.", "Name approvers.")
    rules = {one.record_class: one for one in desk.rules}
    tripped = [Tripped(**one) for one in record.data["tripped"]]
    with desk.state.connect() as conn:
        asked = registry.request(conn, int(record.data["request"]))
    if asked.sha256 != made.sha256:
        raise ControlFailed(
            f"The plan of {made.database} is not the one of its request.", "Run the workflow again."
        )
    return question(made, desk.database.title, rules, tripped, people, desk.timezone, asked.content)


def take(
    desk: Desk,
    record: StepRecord,
    *,
    option: str,
    reason: str,
    user: str | None,
    at: datetime,
    content: str,
    name: str | None = None,
) -> StepRecord:
    """Enter the answer to a question, or that nobody answered.

    Airflow tells who started a run by name and who answered by id and name; where its auth manager
    keeps the two apart, either counts as the person.

    Args:
        desk: of the database.
        record: of the plan.
        option: what was chosen; empty when nobody answered.
        reason: the approver's words.
        user: user id of who answered; None when nobody did.
        at: when.
        content: of the form that was answered.
        name: of who answered.

    Raises:
        AskAgain: the form showed another plan than the one that waits now, or none waits any more.
    """
    database = desk.database.name
    if "request" not in record.data:
        raise AskAgain(
            _("The plan of {database} no longer waits for an approval.", database=database)
        )
    people = _people(desk)
    with desk.state.begin() as conn:
        asked = registry.request(conn, int(record.data["request"]))
        answer = registry.decide(
            conn,
            asked,
            decision=option,
            reason=reason,
            decided_by=name if name and is_among(name, asked.requested_by) else user,
            decided_at=at,
            may_decide=people.approvers,
            content=content,
        )
        outdated = registry.outdated_answers(conn, asked)
    if isinstance(answer, Refusal) and answer.cause is Cause.OTHER_CONTENT:
        raise AskAgain(
            _("The plan of {database} is not the one that the form showed.", database=database)
        )
    return _answered(desk, answer, outdated)


def decided(desk: Desk, record: StepRecord) -> StepRecord | None:
    """Return the record of a decision on exactly this plan, None while there is none.

    The task that took the decision may have been killed before its record was kept.

    Args:
        desk: of the database.
        record: of the plan.
    """
    if "request" not in record.data:
        return None
    with desk.state.connect() as conn:
        asked = registry.request(conn, int(record.data["request"]))
        decision = registry.decision_on(conn, asked.id)
        outdated = registry.outdated_answers(conn, asked)
    if decision is None or asked.sha256 != record.data["sha256"]:
        return None
    return _answered(desk, decision, outdated)


def _answered(desk: Desk, answer: Decision | Refusal, outdated: int) -> StepRecord:
    seen = StepFindings(STEP_APPROVE, CLAUSE, part=desk.database.name)
    if outdated:
        seen.find(
            "retention.other_content",
            Outcome.ATTENTION,
            _("{count} answers to an earlier plan did not count.", count=outdated),
            _("Ask who repeated the plan while its approval waited, and what changed."),
        )
    data: dict[str, Any] = {
        "decision": answer.decision,
        "decided_by": answer.decided_by,
        "decided_at": answer.decided_at.isoformat(),
    }
    if isinstance(answer, Decision):
        if not answer.approved:
            seen.find(
                "retention.rejected",
                Outcome.ATTENTION,
                _("{who} rejected the plan.", who=answer.decided_by),
                _("Read the reason; correct the schedule or its limits. The next run asks anew."),
            )
        return seen.record(data | {"reason": answer.reason})
    _refused(seen, answer)
    return seen.record(data | {"refused": str(answer.cause)})


def _refused(seen: StepFindings, answer: Refusal) -> None:
    severity, message = _REFUSALS[answer.cause]
    action = _("Ask the person why; raise an incident if it was no mistake.")
    if answer.cause in (Cause.NOBODY, Cause.NO_REASON):
        action = _("Remind the approvers; the next run asks again.")
    seen.find(
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
