"""The steps of `review_intake` before a decision: find and check batches, and request reviews."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from include.approvals import registry
from include.approvals.registry import Decision, Refusal, RefusalCause, Request
from include.approvals.required_action import Answer, InvalidAnswer, RequiredAction
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings, StepResult
from include.intake import batches, review_page
from include.intake.checks import FAIL, Verdict, blocked_rows, broken_by_rule
from include.intake.incoming import CLAUSE, MAX_BATCH_NAME_LENGTH, split_part
from include.intake.review_page import BatchFacts, page_body, page_subject
from include.intake.table import IncomingTable, on_table, on_tables
from include.messages import Message, _
from include.policy import PolicyPack
from include.services.errors import ControlFailed
from include.workflow.step import HumanTask, Step

KIND = "intake"
_DEFAULT_WAIT = timedelta(hours=20)


class WaitingBatches(StepResult):
    """The batches that wait for review when a run starts.

    Attributes:
        batches: names of the batches that this run submits for review, such as
            ``customers/IN-000013``. They are grouped by incoming table, the oldest batch of a table
            first.
        left: id of the intake rule -> number of batches that this run does not submit, because the
            rule limits the number of batches per run.
        unfit: number of batches that cannot be reviewed, because their name is not valid or a row
            has no valid time of entry.
    """

    batches: list[str]
    left: dict[str, int]
    unfit: int

    @property
    def not_asked(self) -> int:
        """Return the number of pending batches that this run does not submit for review."""
        return sum(self.left.values()) + self.unfit


class BatchCheck(StepResult):
    """The result of checking a batch before its review.

    Attributes:
        batch: name of the batch.
        rows: number of rows that wait for review (pending rows).
        oldest: earliest time of entry; None if no pending row has a valid one.
        newest: latest time of entry; None if no pending row has a valid one.
        due: deadline of the review; None if no pending row has a valid time of entry.
        enterers: user ids of the people who entered the rows; ``staff:<key>`` for a person without
            a user id.
        sha256: SHA-256 of the batch's content.
        clean: number of rows that can become formal records.
        rules: result of each condition of intake.yaml and each expectation.
        request: number of the approval request; None if the batch cannot be reviewed.
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
    """The reviewer's answer to the request to review a batch.

    Attributes:
        decision: option that the reviewer chose; empty if nobody answered.
        decided_by: user id of the reviewer; empty if nobody answered.
        decided_at: time of the answer.
        reason: reason that the reviewer gave; None if the answer is not valid.
        refused: why the answer is not valid; None if it is valid.
    """

    decision: str
    decided_by: str
    decided_at: datetime
    reason: str | None = None
    refused: RefusalCause | None = None

    @property
    def is_valid(self) -> bool:
        """Return whether the reviewer's answer is a valid decision."""
        return self.refused is None


def find_batches(tables: Sequence[IncomingTable], findings: StepFindings) -> WaitingBatches:
    """Find the batches that wait for review, and choose those that this run submits for review.

    The oldest batches of each table are chosen, up to the limit of the table's intake rule. Batches
    that cannot be reviewed are reported instead.
    """
    submitted_batches: list[str] = []
    left: dict[str, int] = {}
    rows = unfit = 0
    for table in tables:
        incoming = table.incoming
        findings.subject_titles[incoming.rule.id] = incoming.database.collection_title(
            incoming.rule.collection
        )
        with table.snapshot() as connection:
            waiting = batches.find_pending(connection, incoming, table.clock.now())
        max_batches = incoming.rule.most_batches
        dated = [batch for batch in waiting.batches if not batch.undated]
        submitted_batches += [incoming.batch_label(batch.name) for batch in dated[:max_batches]]
        findings.subject_titles |= {
            incoming.batch_label(batch.name): incoming.batch_title(batch.name)
            for batch in waiting.batches
        }
        rows += sum(batch.rows for batch in waiting.batches)
        unfit += len(waiting.batches) - len(dated) + waiting.nameless
        left[incoming.rule.id] = len(dated[max_batches:])
        _report_unfit(findings, table, waiting)
        if left[incoming.rule.id]:
            findings.warn(
                "intake.not_asked",
                _(
                    "A run submits at most {maximum} batches for review; {count} more batches "
                    "wait for another run.",
                    count=left[incoming.rule.id],
                    maximum=max_batches,
                ),
                _(
                    "Run this workflow again today, or have the maximum number of batches per "
                    "run raised."
                ),
                subject=incoming.rule.id,
                for_engineers=_(
                    "`most_batches` in `intake.yaml` is the maximum number of batches per run."
                ),
            )
    findings.measure(
        "intake.waiting_batches", len(submitted_batches) + sum(left.values()) + unfit, "1"
    )
    findings.measure("intake.waiting_rows", rows, "rows")
    findings.select_parts_of("check", "review", "settle")
    return WaitingBatches(batches=submitted_batches, left=left, unfit=unfit)


FIND = Step(
    name="batches",
    title=_("The search for batches that wait for review"),
    clause=CLAUSE,
    work=on_tables(find_batches),
    result=WaitingBatches,
    parts=lambda waiting: waiting.batches,
)


def _report_unfit(
    findings: StepFindings, table: IncomingTable, waiting: batches.PendingBatches
) -> None:
    """Report batches that cannot be reviewed, and batches whose deadline is wrong.

    The deadline is wrong if the time of entry of a row is in the future.
    """
    incoming = table.incoming
    if waiting.unnamed:
        findings.fail(
            "intake.unnamed",
            _(
                "{count} pending records of {collection} have no valid batch name, so they cannot "
                "be reviewed.",
                count=waiting.unnamed,
                collection=incoming.collection.title,
            ),
            _("Have the records entered again in a batch with a valid name."),
            subject=incoming.rule.id,
            for_engineers=_(
                "A batch name has at most {maximum} characters: letters, digits and `_ . : / -`.",
                maximum=MAX_BATCH_NAME_LENGTH,
            ),
        )
    if waiting.personal:
        findings.fail(
            "intake.personal_name",
            _(
                "{count} batches of {collection} have a phone or ID number in their name, so they "
                "were not submitted for review.",
                count=waiting.personal,
                collection=incoming.collection.title,
            ),
            _(
                "Have the batches renamed. Otherwise the evidence would contain the phone or ID "
                "numbers that are in their names."
            ),
            subject=incoming.rule.id,
        )
    for batch in waiting.batches:
        if batch.undated:
            _report_undated(findings, batch.undated, batch.rows, incoming.batch_label(batch.name))
        if batch.ahead:
            findings.fail(
                "intake.entered_ahead",
                _(
                    "{count} of the batch's {rows} pending records have a time of entry in the "
                    "future, so the review deadline of the batch is wrong.",
                    count=batch.ahead,
                    rows=batch.rows,
                ),
                _(
                    "Have the batch reviewed, and correct the clock of the system that recorded "
                    "the time of entry."
                ),
                subject=incoming.batch_label(batch.name),
            )


def _report_undated(findings: StepFindings, undated: int, rows: int, part: str) -> None:
    findings.fail(
        "intake.undated",
        _(
            "{count} of the batch's {rows} pending records have no readable time of entry, so the "
            "batch was not submitted for review.",
            count=undated,
            rows=rows,
        ),
        _("Correct the time of entry of these records: the review deadline counts from it."),
        subject=part,
    )


def check_batch(table: IncomingTable, findings: StepFindings) -> BatchCheck:
    """Hash a batch, check its rows, and create the approval request for its review.

    The rows are checked against the conditions of intake.yaml and against expectations. If the
    batch cannot be reviewed, for example because no person is entitled to review it, the step fails
    and no approval request is created.

    Raises:
        ControlFailed: the batch has no pending rows any more.
    """
    incoming = table.incoming
    batch = split_part(findings.part)[1]
    with table.snapshot() as connection:
        content = batches.read_content(connection, incoming, batch)
        if not content.rows:
            raise ControlFailed(
                f"The batch {batch} has no pending records any more.", "No action is required."
            )
        people = batches.load_people(connection, incoming, batch)
        where = incoming.pending(batch)
        verdicts, broken = broken_by_rule(table.checkers, connection, where, table.clock.now())
    _report_rule_faults(findings, verdicts)
    if content.undated:
        _report_undated(findings, content.undated, content.rows, findings.part)
    unknown = [
        account for account in people.enterers if account.startswith(batches.UNKNOWN_STAFF_PREFIX)
    ]
    if unknown:
        findings.fail(
            "intake.no_enterer",
            _(
                "The batch has records of {count} accounts that belong to no known employee.",
                count=len(unknown),
            ),
            _(
                "Correct the accounts in the records or in the list of employees. The accounts "
                "must show who entered the records, because these people may not review the "
                "records."
            ),
        )
    if not people.reviewers:
        findings.fail(
            "intake.no_reviewer",
            _("No person is entitled to review the batch, except people who entered its records."),
            _("Name another reviewer, or have the rule that selects reviewers corrected."),
            for_engineers=_("The condition `people` in `intake.yaml` selects the reviewers."),
        )
    request = None
    if not findings.has_failed:
        with table.state.begin() as conn:
            request = registry.create_request(
                conn,
                table.clock,
                kind=KIND,
                subject=findings.part,
                sha256=content.sha256,
                requested_by=people.enterers,
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
        enterers=people.enterers,
        sha256=content.sha256,
        clean=content.rows - len(blocked_rows(broken)),
        rules=verdicts,
        request=request,
    )


CHECK = Step(
    name="check",
    title=_("The check of {part}", part=""),
    clause=CLAUSE,
    work=on_table(check_batch),
    result=BatchCheck,
    ends_run="The batch cannot be submitted for review: see the run's report.",
)


def checked_batch(table: IncomingTable, part: str) -> tuple[BatchCheck, int]:
    """Return the last check of a batch in this run, and the number of the approval request.

    Args:
        table: incoming table of the batch.
        part: name of the batch, such as ``customers/IN-000013``.

    Raises:
        NotEnded: the check was started again and is still running.
        ControlFailed: the batch was not checked in this run, or it cannot be reviewed.
    """
    checked = table.run.require(CHECK, part)
    if checked.request is None:
        raise ControlFailed(
            f"{part} cannot be submitted for review.",
            "Correct the findings of its check, then run the workflow again.",
        )
    return checked, checked.request


def ask_reviewer(table: IncomingTable, findings: StepFindings) -> RequiredAction | Review:
    """Return the required action that asks the entitled people to review a batch.

    The form of the required action shows counts and a masked sample of the rows. An earlier attempt
    of the task may already have stored a decision. In this case the result of this decision is
    returned instead.

    Raises:
        ControlFailed: the batch changed since it was checked, or nobody may review it.
    """
    incoming = table.incoming
    checked, request_id = checked_batch(table, findings.part)
    batch = checked.batch
    with table.state.connect() as conn:
        request = registry.load_request(conn, request_id)
        decision = registry.decision_on(conn, request_id)
        outdated = registry.outdated_answers(conn, request)
    if decision is not None:
        return _review_result(findings, request, decision, outdated)
    with table.snapshot() as connection:
        content = batches.read_content(connection, incoming, batch)
        if content.sha256 != checked.sha256:
            raise ControlFailed(
                f"{batch} changed between its check and the request for its review.",
                "The next run submits the batch again.",
            )
        people = batches.load_people(connection, incoming, batch)
        rows = review_page.masked_rows(
            connection, incoming, batch, content.sha256, content.rows, table.key_names
        )
    if not people.reviewers:  # Airflow would accept an answer of anybody for an empty list
        raise ControlFailed(
            f"The batch {batch} has no entitled reviewer.", "Name another reviewer."
        )
    assert content.oldest is not None
    assert content.newest is not None
    assert content.due is not None
    facts = BatchFacts(
        batch,
        content.rows,
        content.oldest,
        content.newest,
        content.due,
        table.clock.now() > content.due,
        people.enterers,
        list(people.reviewers),
        content.sha256,
        checked.clean,
        checked.rules,
    )
    timezone = table.run.zone.key
    findings.warn(
        "intake.waiting",
        _("The batch was submitted for review, and no reviewer has decided yet."),
        _("Decide on the batch in Airflow, or run this workflow again."),
    )
    page = page_body(facts, rows, timezone)
    return RequiredAction(
        page_subject(facts, timezone),
        page,
        list(people.reviewers),
        request.content,
        due_at=content.due,
    )


def store_answer(table: IncomingTable, findings: StepFindings, answer: Answer) -> Review:
    """Store the reviewer's answer, or store that nobody answered in time.

    Raises:
        InvalidAnswer: the form that the reviewer answered shows other content than the last check
            of the batch.
    """
    incoming = table.incoming
    checked, request_id = checked_batch(table, findings.part)
    with table.snapshot() as connection:
        entitled = batches.load_people(connection, incoming, checked.batch).reviewers
    with table.state.begin() as conn:
        request = registry.load_request(conn, request_id)
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
    if isinstance(decision, Refusal) and decision.cause is RefusalCause.OTHER_CONTENT:
        raise InvalidAnswer(
            _("{part} changed after the review form was created.", part=findings.part)
        )
    return _review_result(findings, request, decision, outdated)


def response_time(pack: PolicyPack) -> timedelta:
    """Return how long a run waits for a reviewer's answer.

    It is the shortest response time that a rule of intake.yaml sets, or a default if intake.yaml
    has no rule.
    """
    return min((rule.response.span for rule in pack.intake), default=_DEFAULT_WAIT)


REVIEW = HumanTask(
    name="review",
    title=_("The review of {part}", part=""),
    request_title=_("Request to review {part}", part=""),
    clause=CLAUSE,
    result=Review,
    ask=on_table(ask_reviewer),
    store_answer=on_table(store_answer),
    response=response_time,
)


def _review_result(
    findings: StepFindings, request: Request, answer: Decision | Refusal, outdated: int
) -> Review:
    if outdated:
        findings.warn(
            "intake.other_content",
            _(
                "{count} decisions are not valid, because the records of the batch changed "
                "after the reviewers saw them.",
                count=outdated,
            ),
            _(
                "Find out who had the batch checked again while it waited for review, and how "
                "its records changed."
            ),
        )
    if isinstance(answer, Refusal):
        _report_refusal(findings, answer)
    elif request.deadline is not None and answer.decided_at > request.deadline:
        findings.warn(
            "intake.decided_late",
            _(
                "The batch was decided on at {decided_at}, after its deadline {deadline}.",
                decided_at=answer.decided_at,
                deadline=request.deadline,
            ),
            _("Find out why the decision was late. Name more reviewers if it happens again."),
        )
    return Review(
        decision=answer.decision,
        decided_by=answer.decided_by,
        decided_at=answer.decided_at,
        reason=None if isinstance(answer, Refusal) else answer.reason,
        refused=answer.cause if isinstance(answer, Refusal) else None,
    )


def _report_refusal(findings: StepFindings, answer: Refusal) -> None:
    severity, message = {
        RefusalCause.NOBODY: (
            Outcome.ATTENTION,
            _("No reviewer answered the request in time, so the batch still waits for review."),
        ),
        RefusalCause.OWN_REQUEST: (
            Outcome.FAIL,
            _(
                "{person} decided on records that they entered themselves. The decision is not "
                "valid.",
                person=answer.decided_by,
            ),
        ),
        RefusalCause.NOT_ENTITLED: (
            Outcome.FAIL,
            _(
                "{person} decided on the batch but has no right to review it. The decision is "
                "not valid.",
                person=answer.decided_by,
            ),
        ),
        RefusalCause.NO_REASON: (
            Outcome.ATTENTION,
            _(
                "{person} rejected the batch without a reason. The batch still waits for review.",
                person=answer.decided_by,
            ),
        ),
        RefusalCause.DECIDED_BEFORE: (
            Outcome.FAIL,
            _(
                "{person} decided on the batch a second time. The first decision remains valid.",
                person=answer.decided_by,
            ),
        ),
    }[answer.cause]
    findings.find(f"intake.{answer.cause}", severity, message, _action(answer.cause))


def _action(cause: RefusalCause) -> Message:
    if cause is RefusalCause.NOBODY:
        return _("Remind the reviewers. The next run submits the batch for review again.")
    if cause is RefusalCause.NO_REASON:
        return _("Inform the reviewer. The next run submits the batch for review again.")
    return _("Ask this person for the reason. If the decision was not a mistake, open an incident.")


def _report_rule_faults(findings: StepFindings, verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        if verdict.broken is None:
            findings.find(
                "intake.rule_fault",
                Outcome.FAIL if verdict.severity == FAIL else Outcome.ATTENTION,
                _(
                    "The rule “{rule}” could not be checked: {fault}.",
                    rule=verdict.title,
                    fault=verdict.fault,
                ),
                _(
                    "Ask the data engineers to correct this rule. Until then, the batch waits "
                    "for review."
                ),
                for_engineers=_("Correct the rule `{rule}` or the data map.", rule=verdict.rule),
            )
