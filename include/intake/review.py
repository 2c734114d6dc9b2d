"""Steps of `review_intake` until the decision: find, check, ask, take the answer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from include.approvals import registry
from include.approvals.question import Answer, AskAgain, Question
from include.approvals.registry import Cause, Decision, Refusal, Request
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings, StepResult
from include.intake import batches, question
from include.intake.checks import FAIL, Verdict, broken_by_rule, kept_out
from include.intake.names import CLAUSE, rule_and_batch
from include.intake.question import Facts, body, subject
from include.intake.table import IncomingTable, on_table, on_tables
from include.messages import Message, _
from include.policy import PolicyPack
from include.services.errors import ControlFailed
from include.workflow.step import HumanTask, Step

KIND = "intake"
_DEFAULT_WAIT = timedelta(hours=20)


class WaitingBatches(StepResult):
    """The batches that wait for review.

    Attributes:
        batches: those that this run asks about, oldest first: ``customers/IN-000013``.
        left: number of others by rule, beyond the limit of one run.
        unfit: number of batches that cannot be asked about.
    """

    batches: list[str]
    left: dict[str, int]
    unfit: int

    @property
    def not_asked(self) -> int:
        """The number of batches that wait and were not asked about."""
        return sum(self.left.values()) + self.unfit


class BatchCheck(StepResult):
    """A batch at its check.

    Attributes:
        batch: its name.
        rows: number of pending rows.
        oldest: when the first row was entered; None if no row has a time of entry.
        newest: when the last row was entered.
        due: by when the batch should be reviewed.
        enterers: user ids of those who entered the rows.
        sha256: of the content.
        clean: number of rows that break no rule which keeps them out.
        rules: a verdict for each rule.
        request: number of the request for a decision; None if nobody can be asked.
    """

    batch: str
    rows: int
    oldest: datetime | None
    newest: datetime | None
    due: datetime | None
    enterers: list[str]
    sha256: str
    clean: int
    rules: list[Verdict]
    request: int | None = None


class Review(StepResult):
    """The answer about a batch.

    Attributes:
        decision: the chosen option; empty if nobody answered.
        decided_by: user id; empty if nobody answered.
        decided_at: when.
        reason: the reviewer's words; None if the answer does not count.
        refused: why the answer does not count; None if it does.
    """

    decision: str
    decided_by: str
    decided_at: datetime
    reason: str | None = None
    refused: Cause | None = None

    @property
    def counts(self) -> bool:
        """Whether the answer decides about the batch."""
        return self.refused is None


def find(tables: Sequence[IncomingTable], findings: StepFindings) -> WaitingBatches:
    """Find the batches that wait for review, and choose those to ask about, oldest first."""
    asked: list[str] = []
    left: dict[str, int] = {}
    rows = unfit = 0
    for table in tables:
        incoming = table.incoming
        with table.snapshot() as connection:
            waiting = batches.waiting(connection, incoming, table.clock.now())
        most = incoming.rule.most_batches
        dated = [batch for batch in waiting.batches if not batch.undated]
        asked += [incoming.part(batch.name) for batch in dated[:most]]
        rows += sum(batch.rows for batch in waiting.batches)
        unfit += len(waiting.batches) - len(dated) + waiting.nameless
        left[incoming.rule.id] = len(dated[most:])
        _unfit(findings, table, waiting)
        if left[incoming.rule.id]:
            findings.warn(
                "intake.not_asked",
                _(
                    "{count} batches wait beyond the {most} of one run.",
                    count=left[incoming.rule.id],
                    most=most,
                ),
                _("Run the workflow again today, or raise most_batches in intake.yaml."),
                subject=incoming.rule.id,
            )
    findings.measure("intake.waiting_batches", len(asked) + sum(left.values()) + unfit, "1")
    findings.measure("intake.waiting_rows", rows, "rows")
    return WaitingBatches(batches=asked, left=left, unfit=unfit)


FIND = Step(
    name="batches",
    title=_("The search for batches"),
    clause=CLAUSE,
    work=on_tables(find),
    result=WaitingBatches,
    parts=lambda waiting: waiting.batches,
)


def _unfit(findings: StepFindings, table: IncomingTable, waiting: batches.Waiting) -> None:
    """Report batches that cannot be asked about, and those whose deadline is meaningless."""
    incoming = table.incoming
    if waiting.unnamed:
        findings.fail(
            "intake.unnamed",
            _(
                "{count} pending records of {table} belong to no batch that has a plain name.",
                count=waiting.unnamed,
                table=incoming.rule.collection,
            ),
            _("Have them entered in a batch; nobody can review them as they are."),
            subject=incoming.rule.id,
        )
    if waiting.personal:
        findings.fail(
            "intake.personal_name",
            _(
                "{count} batches of {table} have a phone or ID number in their name; nobody is "
                "asked about them.",
                count=waiting.personal,
                table=incoming.rule.collection,
            ),
            _("Have them renamed in the incoming table: a batch's name is kept in the evidence."),
            subject=incoming.rule.id,
        )
    for batch in waiting.batches:
        if batch.undated:
            _undated(findings, batch.undated, batch.rows, incoming.part(batch.name))
        if batch.ahead:
            findings.fail(
                "intake.entered_ahead",
                _(
                    "{count} of the batch's {rows} pending records were entered in the future: "
                    "their deadline says nothing.",
                    count=batch.ahead,
                    rows=batch.rows,
                ),
                _("Have the batch reviewed, and correct the clock or the form it came from."),
                subject=incoming.part(batch.name),
            )


def _undated(findings: StepFindings, undated: int, rows: int, part: str) -> None:
    findings.fail(
        "intake.undated",
        _(
            "{count} of the batch's {rows} pending records have no time of entry that can be read; "
            "nobody is asked about it.",
            count=undated,
            rows=rows,
        ),
        _("Correct when they were entered: the deadline of the review counts from it."),
        subject=part,
    )


def check(table: IncomingTable, findings: StepFindings) -> BatchCheck:
    """Hash the batch, hold its rules against it, enter the request for a decision.

    The step fails if nobody can be asked: a rule cannot be checked, or no reviewer is left.

    Raises:
        ControlFailed: no row of the batch is pending any more.
    """
    incoming = table.incoming
    batch = rule_and_batch(findings.part)[1]
    with table.snapshot() as connection:
        content = batches.content(connection, incoming, batch)
        if not content.rows:
            raise ControlFailed(f"No record of {batch} is pending any more.", "Nothing to do.")
        who = batches.people_of(connection, incoming, batch)
        where = incoming.pending(batch)
        verdicts, broken = broken_by_rule(table.checkers, connection, where, table.clock.now())
    _faults(findings, verdicts)
    if content.undated:
        _undated(findings, content.undated, content.rows, findings.part)
    unknown = [account for account in who.enterers if account.startswith(batches.UNKNOWN_STAFF)]
    if unknown:
        findings.fail(
            "intake.no_enterer",
            _("Nobody knows who entered {count} of the batch's sources.", count=len(unknown)),
            _("Correct the rows or the staff table; who entered records may not review them."),
        )
    if not who.reviewers:
        findings.fail(
            "intake.no_reviewer",
            _("Nobody who did not enter records of this batch may review it."),
            _("Name another reviewer, or correct `people` in intake.yaml."),
        )
    request = None
    if not findings.has_failed:
        with table.state.begin() as conn:
            request = registry.ask(
                conn,
                table.clock,
                kind=KIND,
                subject=findings.part,
                sha256=content.sha256,
                requested_by=who.enterers,
                dag_id=table.run.run.dag_id,
                run_id=table.run.run.run_id,
                deadline=content.due,
            ).id
    return BatchCheck(
        batch=batch,
        rows=content.rows,
        oldest=content.oldest,
        newest=content.newest,
        due=content.due,
        enterers=who.enterers,
        sha256=content.sha256,
        clean=content.rows - len(kept_out(broken)),
        rules=verdicts,
        request=request,
    )


CHECK = Step(
    name="check",
    title=_("The check of {part}", part=""),
    clause=CLAUSE,
    work=on_table(check),
    result=BatchCheck,
    ends_run="Nobody can be asked about it: see the run's report.",
)


def checked_batch(table: IncomingTable, part: str) -> tuple[BatchCheck, int]:
    """Return the last check of a batch in this run, and the number of its request.

    Raises:
        NotEnded: the check began again and has not ended.
        ControlFailed: the batch was not checked, or nobody can be asked about it.
    """
    checked = table.run.require(CHECK, part)
    if checked.request is None:
        raise ControlFailed(f"Nobody can be asked about {part}.", "Run the workflow again.")
    return checked, checked.request


def ask(table: IncomingTable, findings: StepFindings) -> Question | Review:
    """Ask a reviewer who entered none of the records: counts, failures by rule, a masked sample.

    The page shows the very content that was checked. Nobody is asked if a task that was killed
    afterwards took the decision on this content.

    Raises:
        ControlFailed: the batch changed since its check, or nobody may be asked.
    """
    incoming = table.incoming
    checked, request_id = checked_batch(table, findings.part)
    batch = checked.batch
    with table.state.connect() as conn:
        request = registry.request(conn, request_id)
        decision = registry.decision_on(conn, request_id)
        outdated = registry.outdated_answers(conn, request)
    if decision is not None:
        return _reviewed(findings, request, decision, outdated)
    with table.snapshot() as connection:
        content = batches.content(connection, incoming, batch)
        if content.sha256 != checked.sha256:
            raise ControlFailed(
                f"{batch} changed between its check and the question.", "The next run asks anew."
            )
        who = batches.people_of(connection, incoming, batch)
        rows = question.masked_rows(
            connection, incoming, batch, content.sha256, content.rows, table.names
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
        table.clock.now() > content.due,
        who.enterers,
        list(who.reviewers),
        content.sha256,
        checked.clean,
        checked.rules,
    )
    timezone = table.run.zone.key
    findings.warn(
        "intake.waiting",
        _("The question was asked and nobody has answered yet."),
        _("Answer it in Airflow, or run the workflow again."),
    )
    page = body(facts, rows, timezone)
    return Question(subject(facts, timezone), page, list(who.reviewers), request.content)


def take(table: IncomingTable, findings: StepFindings, answer: Answer) -> Review:
    """Enter the reviewer's answer, or that nobody answered in time.

    Raises:
        AskAgain: the form showed another content than the batch's last check read.
    """
    incoming = table.incoming
    checked, request_id = checked_batch(table, findings.part)
    with table.snapshot() as connection:
        entitled = batches.people_of(connection, incoming, checked.batch).reviewers
    with table.state.begin() as conn:
        request = registry.request(conn, request_id)
        decision = registry.decide(
            conn,
            request,
            decision=answer.option,
            reason=answer.reason,
            decided_by=answer.user,
            decided_at=answer.at or table.clock.now(),
            may_decide=entitled,
            content=answer.content,
        )
        outdated = registry.outdated_answers(conn, request)
    if isinstance(decision, Refusal) and decision.cause is Cause.OTHER_CONTENT:
        raise AskAgain(_("{part} changed after the form was made.", part=findings.part))
    return _reviewed(findings, request, decision, outdated)


def response(pack: PolicyPack) -> timedelta:
    """Return how long a run waits for its reviewers: the shortest time of the pack's intakes."""
    return min((rule.response.span for rule in pack.intake), default=_DEFAULT_WAIT)


REVIEW = HumanTask(
    name="review",
    title=_("The review of {part}", part=""),
    question_title=_("The question about {part}", part=""),
    clause=CLAUSE,
    result=Review,
    ask=on_table(ask),
    take=on_table(take),
    response=response,
)


def _reviewed(
    findings: StepFindings, request: Request, answer: Decision | Refusal, outdated: int
) -> Review:
    if outdated:
        findings.warn(
            "intake.other_content",
            _("{count} answers to an earlier content of the batch did not count.", count=outdated),
            _("Ask who repeated the check while the review waited, and what changed."),
        )
    if isinstance(answer, Refusal):
        _refused(findings, answer)
    elif request.deadline is not None and answer.decided_at > request.deadline:
        findings.warn(
            "intake.decided_late",
            _(
                "The batch was decided on at {at}; it should have been by {due}.",
                at=answer.decided_at,
                due=request.deadline,
            ),
            _("See why it waited; ask for more reviewers if it happens again."),
        )
    return Review(
        decision=answer.decision,
        decided_by=answer.decided_by,
        decided_at=answer.decided_at,
        reason=None if isinstance(answer, Refusal) else answer.reason,
        refused=answer.cause if isinstance(answer, Refusal) else None,
    )


def _refused(findings: StepFindings, answer: Refusal) -> None:
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
    findings.find(f"intake.{answer.cause}", severity, message, _action(answer.cause))


def _action(cause: Cause) -> Message:
    if cause is Cause.NOBODY:
        return _("Remind the reviewers; the next run asks again.")
    if cause is Cause.NO_REASON:
        return _("Tell the reviewer; the next run asks again.")
    return _("Ask the person why; raise an incident if it was no mistake.")


def _faults(findings: StepFindings, verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        if verdict.broken is None:
            findings.find(
                "intake.rule_fault",
                Outcome.FAIL if verdict.severity == FAIL else Outcome.ATTENTION,
                _(
                    "The rule {rule} could not be checked: {fault}.",
                    rule=verdict.rule,
                    fault=verdict.fault,
                ),
                _("Correct the rule or the data map; the batch waits until it can be checked."),
            )
