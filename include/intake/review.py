"""Steps of `review_intake` before and at the decision: find, check, ask, take the answer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from include.approvals import registry
from include.approvals.question import AskAgain, Question
from include.approvals.registry import Cause, Decision, Refusal, Request
from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import StepFindings
from include.intake import batches, people, sample
from include.intake.checks import (
    FAIL,
    Verdict,
    broken_by_rule,
    kept_out,
    verdict_data,
    verdict_of,
)
from include.intake.desk import Desk
from include.intake.names import CLAUSE, STEP_BATCHES, STEP_CHECK, STEP_REVIEW
from include.intake.question import Facts, body, subject
from include.messages import Message, _
from include.services.errors import ControlFailed

KIND = "intake"


def find(desks: Sequence[Desk]) -> StepRecord:
    """Find the batches that wait, and choose those that this run asks about, oldest first."""
    seen = StepFindings(STEP_BATCHES, CLAUSE)
    asked: list[str] = []
    left: dict[str, int] = {}
    rows = unfit = 0
    for desk in desks:
        incoming = desk.incoming
        with (
            desk.reader.connect(autocommit=True) as connection,
            batches.unit_of_work(connection, incoming, write=False),
        ):
            found = batches.waiting(connection, incoming, desk.clock.now())
        most = incoming.rule.most_batches
        dated = [one for one in found.batches if not one.undated]
        asked += [incoming.part(one.name) for one in dated[:most]]
        rows += sum(one.rows for one in found.batches)
        unfit += len(found.batches) - len(dated) + found.nameless
        left[incoming.rule.id] = len(dated[most:])
        _unfit(seen, desk, found)
        if left[incoming.rule.id]:
            seen.find(
                "intake.not_asked",
                Outcome.ATTENTION,
                _(
                    "{count} batches wait beyond the {most} of one run.",
                    count=left[incoming.rule.id],
                    most=most,
                ),
                _("Run the workflow again today, or raise most_batches in intake.yaml."),
                subject=incoming.rule.id,
            )
    seen.measure("intake.waiting_batches", len(asked) + sum(left.values()) + unfit, "1")
    seen.measure("intake.waiting_rows", rows, "rows")
    return seen.record({"batches": asked, "left": left, "unfit": unfit})


def _unfit(seen: StepFindings, desk: Desk, found: batches.Waiting) -> None:
    """Say which batches cannot be asked about, and which have a deadline that means nothing."""
    incoming = desk.incoming
    if found.unnamed:
        seen.find(
            "intake.unnamed",
            Outcome.FAIL,
            _(
                "{count} pending records of {table} belong to no batch that has a plain name.",
                count=found.unnamed,
                table=incoming.rule.collection,
            ),
            _("Have them entered in a batch; nobody can review them as they are."),
            subject=incoming.rule.id,
        )
    if found.personal:
        seen.find(
            "intake.personal_name",
            Outcome.FAIL,
            _(
                "{count} batches of {table} have a phone or ID number in their name; nobody is "
                "asked about them.",
                count=found.personal,
                table=incoming.rule.collection,
            ),
            _("Have them renamed in the incoming table: a batch's name is kept in the evidence."),
            subject=incoming.rule.id,
        )
    for one in found.batches:
        if one.undated:
            _undated(seen, one.undated, one.rows, incoming.part(one.name))
        if one.ahead:
            seen.find(
                "intake.entered_ahead",
                Outcome.FAIL,
                _(
                    "{count} of the batch's {rows} pending records were entered in the future: "
                    "their deadline says nothing.",
                    count=one.ahead,
                    rows=one.rows,
                ),
                _("Have the batch reviewed, and correct the clock or the form it came from."),
                subject=incoming.part(one.name),
            )


def _undated(seen: StepFindings, undated: int, rows: int, part: str) -> None:
    seen.find(
        "intake.undated",
        Outcome.FAIL,
        _(
            "{count} of the batch's {rows} pending records have no time of entry that can be read; "
            "nobody is asked about it.",
            count=undated,
            rows=rows,
        ),
        _("Correct when they were entered: the deadline of the review counts from it."),
        subject=part,
    )


def check(desk: Desk, batch: str) -> StepRecord:
    """Hash a batch, hold its rules against it and enter the request for a decision.

    The record fails when nobody can be asked: a rule cannot be checked, or no reviewer is left.

    Raises:
        ControlFailed: no row of the batch is pending any more.
    """
    incoming = desk.incoming
    seen = StepFindings(STEP_CHECK, CLAUSE, part=incoming.part(batch))
    with (
        desk.reader.connect(autocommit=True) as connection,
        batches.unit_of_work(connection, incoming, write=False),
    ):
        content = batches.content(connection, incoming, batch)
        if not content.rows:
            raise ControlFailed(f"No record of {batch} is pending any more.", "Nothing to do.")
        who = people.people_of(connection, incoming, batch)
        where = incoming.pending(batch)
        now = desk.clock.now()
        verdicts, broken = broken_by_rule(desk.checkers, connection, where, now)
    _faults(seen, verdicts)
    if content.undated:
        _undated(seen, content.undated, content.rows, incoming.part(batch))
    unknown = [one for one in who.enterers if one.startswith(people.UNKNOWN_STAFF)]
    if unknown:
        seen.find(
            "intake.no_enterer",
            Outcome.FAIL,
            _("Nobody knows who entered {count} of the batch's sources.", count=len(unknown)),
            _("Correct the rows or the staff table; who entered records may not review them."),
        )
    if not who.reviewers:
        seen.find(
            "intake.no_reviewer",
            Outcome.FAIL,
            _("Nobody who did not enter records of this batch may review it."),
            _("Name another reviewer, or correct `people` in intake.yaml."),
        )
    data = {
        "batch": batch,
        "rows": content.rows,
        "oldest": content.oldest.isoformat() if content.oldest else None,
        "newest": content.newest.isoformat() if content.newest else None,
        "due": content.due.isoformat() if content.due else None,
        "enterers": who.enterers,
        "sha256": content.sha256,
        "clean": content.rows - len(kept_out(broken)),
        "rules": [verdict_data(one) for one in verdicts],
    }
    if not any(one.severity is Outcome.FAIL for one in seen.findings):
        with desk.state.begin() as conn:
            asked = registry.ask(
                conn,
                desk.clock,
                kind=KIND,
                subject=incoming.part(batch),
                sha256=content.sha256,
                requested_by=who.enterers,
                dag_id=desk.dag_id,
                run_id=desk.run_id,
                deadline=content.due,
            )
        data["request"] = asked.id
    return seen.record(data)


def ask(desk: Desk, checked: StepRecord) -> Question:
    """Make the page of a question from the very content that was checked.

    Raises:
        ControlFailed: the batch changed since its check, or nobody may be asked.
    """
    incoming, data = desk.incoming, checked.data
    batch = str(data["batch"])
    with desk.state.connect() as conn:
        asked = registry.request(conn, int(data["request"]))
    with (
        desk.reader.connect(autocommit=True) as connection,
        batches.unit_of_work(connection, incoming, write=False),
    ):
        content = batches.content(connection, incoming, batch)
        if content.sha256 != data["sha256"]:
            raise ControlFailed(
                f"{batch} changed between its check and the question.", "The next run asks anew."
            )
        who = people.people_of(connection, incoming, batch)
        rows = sample.masked_rows(
            connection, incoming, batch, content.sha256, content.rows, desk.names
        )
    if not who.reviewers:  # an empty list would let everybody answer
        raise ControlFailed(f"Nobody may review {batch}.", "Name another reviewer.")
    assert content.oldest is not None
    assert content.newest is not None
    assert content.due is not None
    facts = Facts(
        batch,
        content.rows,
        content.oldest,
        content.newest,
        content.due,
        desk.clock.now() > content.due,
        who.enterers,
        list(who.reviewers),
        content.sha256,
        data.get("clean"),  # a run that an upgrade came into has none
        [verdict_of(one) for one in data["rules"]],
    )
    page = body(facts, rows, desk.timezone)
    return Question(subject(facts, desk.timezone), page, list(who.reviewers), asked.content)


def waiting(part: str) -> StepRecord:
    """Return the record of a question until it is answered: what the seal sees of a lost task."""
    seen = StepFindings(STEP_REVIEW, CLAUSE, part=part)
    seen.find(
        "intake.waiting",
        Outcome.ATTENTION,
        _("The question was asked and nobody has answered yet."),
        _("Answer it in Airflow, or run the workflow again."),
    )
    return seen.record({})


def take(
    desk: Desk,
    checked: StepRecord,
    *,
    option: str,
    reason: str,
    user: str | None,
    at: datetime,
    content: str,
) -> StepRecord:
    """Enter an answer, or that none came in time.

    Args:
        desk: of the batch.
        checked: the batch's check.
        option: what was chosen; empty when nobody answered.
        reason: the reviewer's words.
        user: id of who answered; None when nobody did.
        at: when.
        content: of the form that was answered.

    Raises:
        AskAgain: the form showed another content than the batch's last check read.
    """
    incoming = desk.incoming
    part = checked.part
    with (
        desk.reader.connect(autocommit=True) as connection,
        batches.unit_of_work(connection, incoming, write=False),
    ):
        entitled = people.people_of(connection, incoming, str(checked.data["batch"])).reviewers
    with desk.state.begin() as conn:
        asked = registry.request(conn, int(checked.data["request"]))
        answer = registry.decide(
            conn,
            asked,
            decision=option,
            reason=reason,
            decided_by=user,
            decided_at=at,
            may_decide=entitled,
            content=content,
        )
        outdated = registry.outdated_answers(conn, asked)
    if isinstance(answer, Refusal) and answer.cause is Cause.OTHER_CONTENT:
        raise AskAgain(_("{part} changed after the form was made.", part=part))
    return _reviewed(part, asked, answer, outdated)


def decided(desk: Desk, checked: StepRecord) -> StepRecord | None:
    """Return the record of a decision on exactly the checked content, None while there is none.

    The task that took the decision may have been killed before its record was kept.

    Args:
        desk: of the batch.
        checked: the batch's check.
    """
    with desk.state.connect() as conn:
        asked = registry.request(conn, int(checked.data["request"]))
        decision = registry.decision_on(conn, asked.id)
        outdated = registry.outdated_answers(conn, asked)
    return _reviewed(checked.part, asked, decision, outdated) if decision else None


def _reviewed(part: str, asked: Request, answer: Decision | Refusal, outdated: int) -> StepRecord:
    seen = StepFindings(STEP_REVIEW, CLAUSE, part=part)
    if outdated:
        seen.find(
            "intake.other_content",
            Outcome.ATTENTION,
            _("{count} answers to an earlier content of the batch did not count.", count=outdated),
            _("Ask who repeated the check while the review waited, and what changed."),
        )
    if isinstance(answer, Refusal):
        _refused(seen, answer)
    elif asked.deadline is not None and answer.decided_at > asked.deadline:
        seen.find(
            "intake.decided_late",
            Outcome.ATTENTION,
            _(
                "The batch was decided on at {at}; it should have been by {due}.",
                at=answer.decided_at,
                due=asked.deadline,
            ),
            _("See why it waited; ask for more reviewers if it happens again."),
        )
    return seen.record(_answer_data(answer))


def _answer_data(answer: Decision | Refusal) -> dict[str, Any]:
    data: dict[str, Any] = {
        "decision": answer.decision,
        "decided_by": answer.decided_by,
        "decided_at": answer.decided_at.isoformat(),
    }
    if isinstance(answer, Refusal):
        return data | {"refused": str(answer.cause)}
    return data | {"reason": answer.reason}


def _refused(seen: StepFindings, answer: Refusal) -> None:
    severity, message = {
        Cause.NOBODY: (Outcome.ATTENTION, _("Nobody reviewed the batch in time; it waits on.")),
        Cause.OWN_REQUEST: (
            Outcome.FAIL,
            _("{who} answered for records of their own; it does not count.", who=answer.decided_by),
        ),
        Cause.NOT_ENTITLED: (
            Outcome.FAIL,
            _("{who} answered and may not review; it does not count.", who=answer.decided_by),
        ),
        Cause.NO_REASON: (
            Outcome.ATTENTION,
            _("{who} rejected the batch and gave no reason; it waits on.", who=answer.decided_by),
        ),
        Cause.DECIDED_BEFORE: (
            Outcome.FAIL,
            _("{who} answered a second time; the first decision stands.", who=answer.decided_by),
        ),
    }[answer.cause]
    seen.find(f"intake.{answer.cause}", severity, message, _action(answer.cause))


def _action(cause: Cause) -> Message:
    if cause is Cause.NOBODY:
        return _("Remind the reviewers; the next run asks again.")
    if cause is Cause.NO_REASON:
        return _("Tell the reviewer; the next run asks again.")
    return _("Ask the person why; raise an incident if it was no mistake.")


def _faults(seen: StepFindings, verdicts: Sequence[Verdict]) -> None:
    for one in verdicts:
        if one.broken is None:
            seen.find(
                "intake.rule_fault",
                Outcome.FAIL if one.severity == FAIL else Outcome.ATTENTION,
                _("The rule {rule} could not be checked: {fault}.", rule=one.rule, fault=one.fault),
                _("Correct the rule or the data map; the batch waits until it can be checked."),
            )
