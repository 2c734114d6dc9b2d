"""The steps of `review_intake` after the decision: execute the decision, and verify the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal
from pydantic import Field

from include.approvals import registry
from include.approvals.registry import Decision
from include.evidence.step_findings import StepFindings, StepResult
from include.intake import batches
from include.intake.checks import FAIL, Key, blocked_rows, broken_by_rule
from include.intake.incoming import CLAUSE, split_part
from include.intake.promote import SettledRows, earlier_settlement, promote, reject
from include.intake.review import REVIEW, BatchCheck, Review, checked_batch
from include.intake.table import IncomingTable, load_table, on_table, resolve_quarantine
from include.messages import _
from include.services.errors import ControlFailed
from include.state.locks import hold_exclusive_lock
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords
from include.workflow.step import Step

Progress = Callable[[str], None]


class Settlement(StepResult):
    """The numbers of rows of a batch after the step that executes the decision on the batch.

    Attributes:
        left: number of rows that still wait for review; None if the decision was executed.
        promoted: number of rows that became formal records.
        set_aside: number of rows that were quarantined because they break a condition of
            intake.yaml or an expectation.
        rejected: number of rows that the reviewer rejected.
        records: number of formal records by collection.
        changed: whether the decision was not executed because the batch had changed after the
            decision.
    """

    left: int | None = None
    promoted: int = 0
    set_aside: int = 0
    rejected: int = 0
    records: dict[str, int] = Field(default_factory=dict)
    changed: bool = False


class Verification(StepResult):
    """The counts of the step that verifies all incoming tables after the decisions were executed.

    Attributes:
        past_deadline: number of batches that wait for review after their deadline.
        promoted: number of rows that became formal records in this run.
        unreviewed: number of these rows without proof of an independent review. The proof is a
            formal record that exists, that names the reviewer and the time of the review (if the
            table has these columns), and a reviewer other than the person who entered the row.
    """

    past_deadline: int
    promoted: int
    unreviewed: int


class ContentChanged(ControlFailed):
    """Raised if a decision is not executed because the batch has changed after the decision.

    Attributes:
        is_settled: whether the batch has no pending rows any more, because another run executed a
            decision on it or because the rows were deleted.
    """

    def __init__(self, batch: str, *, is_settled: bool) -> None:
        super().__init__(f"The batch {batch} changed after the decision.")
        self.is_settled = is_settled


def settle(
    table: IncomingTable, findings: StepFindings, progress: Progress | None = None
) -> Settlement:
    """Execute the decision on a batch, exactly once. A batch without a decision stays pending.

    The function can be interrupted at any point and repeated: see `include.intake.promote`.

    Args:
        table: incoming table of the batch.
        findings: findings of the step.
        progress: callback that is called with ``before commit`` immediately before the transaction
            is committed, when an exception still rolls it back, and with ``committed`` after the
            commit.
    """
    part = findings.part
    with hold_exclusive_lock(table.state, f"intake:{part}", f"the batch {part}"):
        checked, request_id = checked_batch(table, part)
        with table.state.connect() as conn:
            decision = registry.decision_on(conn, request_id)
        if decision is None:
            return Settlement(left=checked.rows)
        try:
            settled = _settle_batch(table, checked.batch, decision, progress or (lambda _: None))
        except ContentChanged as changed:
            return _report_void(findings, checked, decision, changed)
    if settled.set_aside:
        findings.warn(
            "intake.set_aside",
            _("{count} records break a rule and were quarantined.", count=settled.set_aside),
            _(
                "Have the quarantined records corrected and entered again. The quarantine "
                "register lists them by their primary key."
            ),
        )
    if settled.rejected:
        findings.warn(
            "intake.rejected",
            _("{person} rejected the batch.", person=decision.decided_by),
            _("Read the reason of the rejection, and have the batch corrected and entered again."),
        )
    findings.measure("intake.promoted", settled.promoted, "rows")
    findings.measure("intake.set_aside", settled.set_aside, "rows")
    findings.measure("intake.rejected", settled.rejected, "rows")
    return Settlement(
        promoted=settled.promoted,
        set_aside=settled.set_aside,
        rejected=settled.rejected,
        records=dict(settled.records),
    )


SETTLE = Step(
    name="settle",
    title=_("The execution of the review decision on {part}", part=""),
    clause=CLAUSE,
    work=on_table(settle),
    result=Settlement,
)


def _report_void(
    findings: StepFindings, checked: BatchCheck, decision: Decision, changed: ContentChanged
) -> Settlement:
    """Report that the decision on a batch was not executed because the batch had changed.

    Args:
        findings: findings of the step.
        checked: result of the check of the batch before the decision.
        decision: the decision.
        changed: the error that states the change.

    Returns:
        The result of the step, without promoted or rejected rows.
    """
    if changed.is_settled:
        findings.warn(
            "intake.settled_elsewhere",
            _(
                "Another run already executed the decision on the batch, or the records of the "
                "batch were deleted. This run changed nothing."
            ),
            _("Read the report of the other run. Do not run the workflow twice at the same time."),
        )
        return Settlement(left=0, changed=True)
    findings.fail(
        "intake.changed",
        _(
            "The batch changed after the decision of {person}, so the run did not execute the "
            "decision.",
            person=decision.decided_by,
        ),
        _(
            "Find out who changed the batch. The batch still waits for review, and the next run "
            "submits it again."
        ),
    )
    return Settlement(left=checked.rows, changed=True)


def _settle_batch(
    table: IncomingTable, batch: str, decision: Decision, progress: Progress
) -> SettledRows:
    incoming = table.incoming
    with table.writer.connect(autocommit=True) as connection:
        with batches.unit_of_work(connection, incoming, write=True):
            reviewer = batches.staff_key(connection, incoming, decision.decided_by)
            decision_values = {"reviewer": reviewer, "at": decision.decided_at}
            settled = earlier_settlement(
                connection, incoming, batch, approved=decision.approved, **decision_values
            )
            if not settled.rows:
                _require_unchanged(table, connection, batch, decision)
                if decision.approved:
                    broken = _broken_rows(table, connection, batch)
                    settled = promote(connection, incoming, batch, broken=broken, **decision_values)
                else:
                    settled = reject(connection, incoming, batch, **decision_values)
            progress("before commit")
            table.run.task.confirm_open()
        progress("committed")
    return settled


def _require_unchanged(
    table: IncomingTable, connection: psycopg.Connection[Any], batch: str, decision: Decision
) -> None:
    """Raise an error if a batch has changed since its approval request was created.

    The function reads the batch in the same transaction that then executes the decision.

    Raises:
        ContentChanged: the batch has changed.
    """
    content = batches.read_content(connection, table.incoming, batch)
    with table.state.connect() as conn:
        request = registry.load_request(conn, decision.request_id)
        if request.sha256 != content.sha256:
            raise ContentChanged(batch, is_settled=not content.rows)
        if decision.approved:
            registry.require_approval(conn, decision.request_id, content.sha256)


def _broken_rows(table: IncomingTable, connection: psycopg.Connection[Any], batch: str) -> set[Key]:
    """Check a batch again, and add its invalid rows to the quarantine register.

    A row is invalid if it breaks a condition or expectation of severity ``fail``. The batch is
    checked again, because a row may have become a duplicate since the first check.

    Returns:
        The primary keys of the invalid rows.

    Raises:
        ControlFailed: a condition or expectation of severity ``fail`` cannot be checked.
    """
    where = table.incoming.pending(batch)
    verdicts, keys = broken_by_rule(table.checkers, connection, where, table.clock.now())
    faulty = [
        verdict.rule for verdict in verdicts if verdict.broken is None and verdict.severity == FAIL
    ]
    if faulty:
        raise ControlFailed(
            f"Rules of {batch} could not be checked: {', '.join(faulty)}.",
            "Nothing was promoted. Correct the rules and run the workflow again.",
        )
    for rule, broken in keys.items():
        table.quarantine(rule, broken)
    return blocked_rows(keys)


def verify(run: RunContext[None], findings: StepFindings) -> Verification:
    """Count overdue batches, and formal records without an independent review.

    All incoming tables are read. The step uses other queries than the steps that executed the
    decisions. The quarantine register may still have entries for rows that are no longer
    quarantined; the step closes these entries.
    """
    tables = [load_table(run, rule.id) for rule in run.pack.intake]
    return verify_tables(tables, run.records(), findings)


def verify_tables(
    tables: Sequence[IncomingTable], records: RunRecords, findings: StepFindings
) -> Verification:
    """Count overdue batches, and formal records of this run without an independent review.

    Args:
        tables: all incoming tables.
        records: step records of this run.
        findings: findings of the step.
    """
    overdue: list[str] = []
    promoted = unreviewed = resolved = 0
    for table in tables:
        now = table.clock.now()
        with table.snapshot() as connection:
            waiting = batches.find_pending(connection, table.incoming, now).batches
            late = [batch.name for batch in waiting if batch.due and batch.due < now]
            overdue += [table.incoming.batch_label(name) for name in late]
            findings.subject_titles |= {
                table.incoming.batch_label(name): table.incoming.batch_title(name) for name in late
            }
            for batch, at in _decided_batches(table, records.results(REVIEW)):
                rows, unreviewed_rows = _count_unreviewed(connection, table, batch, at)
                promoted, unreviewed = promoted + rows, unreviewed + unreviewed_rows
            resolved += resolve_quarantine(table, connection)
    findings.measure("intake.resolved", resolved, "rows")
    reported = sum(settled.promoted for settled in records.results(SETTLE).values())
    if reported != promoted:
        findings.fail(
            "intake.not_found",
            _(
                "The run accepted {reported} records, but the verification after the run "
                "counted {counted} accepted records.",
                reported=reported,
                counted=promoted,
            ),
            _(
                "Ask the data engineers whether the incoming table was changed during the run, "
                "or whether it stores rounded times."
            ),
        )
    for part in overdue:
        findings.fail(
            "intake.past_deadline",
            _("The batch still waits for review after its deadline."),
            _(
                "Decide on the batch in Airflow today, as soon as the required action "
                "appears again."
            ),
            subject=part,
        )
    if unreviewed:
        findings.fail(
            "intake.unreviewed",
            _(
                "For {count} of {rows} accepted records, the formal record does not prove that "
                "somebody other than the person who entered it reviewed it.",
                count=unreviewed,
                rows=promoted,
            ),
            _(
                "Find out which other program or person writes to the formal tables, or have the "
                "intake rule corrected."
            ),
            for_engineers=_("`targets` in `intake.yaml` defines the formal records."),
        )
    return Verification(past_deadline=len(overdue), promoted=promoted, unreviewed=unreviewed)


VERIFY = Step(
    name="verify",
    title=_("The verification of accepted records"),
    clause=CLAUSE,
    work=verify,
    result=Verification,
    runs_always=True,
)


def _decided_batches(
    table: IncomingTable, reviews: dict[str, Review]
) -> list[tuple[str, datetime]]:
    """Return the batches of a table on which this run has received a valid decision.

    Args:
        table: incoming table.
        reviews: answers of the reviewers in this run, by name of the batch.

    Returns:
        The name of each batch and the time of the decision.
    """
    parts = [(*split_part(part), review) for part, review in reviews.items()]
    return [
        (batch, review.decided_at)
        for rule, batch, review in parts
        if rule == table.incoming.rule.id and review.is_valid
    ]


def _count_unreviewed(
    connection: psycopg.Connection[Any], table: IncomingTable, batch: str, at: datetime
) -> tuple[int, int]:
    """Count a batch's rows that became formal records, and those without an independent review.

    A row has an independent review if its formal record exists, if the formal record has the same
    reviewer and time of review as the row (if the rule defines these columns), and if the reviewer
    is not the person who entered the row.

    Args:
        connection: connection on which `unit_of_work` has opened a transaction.
        table: incoming table of the batch.
        batch: name of the batch.
        at: time of the decision on the batch.

    Returns:
        The number of rows that became formal records, and how many of them have no independent
        review.
    """
    incoming, rule = table.incoming, table.incoming.rule
    collection, column = rule.keys[rule.back_reference.key]
    target = next(
        candidate for candidate in rule.targets if rule.back_reference.key in candidate.keys
    )
    stamp = target.reviewed
    is_reviewed = (
        incoming.sql(
            "f.{by} = i.{reviewed_by} AND f.{at} = i.{reviewed_at}",
            by=Identifier(stamp.by),
            at=Identifier(stamp.at),
        )
        if stamp
        else SQL("true")
    )
    query = incoming.sql(
        "SELECT count(*), count(*) FILTER (WHERE (f.{column} IS NOT NULL AND {shown} "
        "AND i.{reviewed_by} <> i.{entered_by}) IS NOT TRUE) "
        "FROM {table} AS i LEFT JOIN {formal} AS f ON f.{column} = i.{back_reference} "
        "WHERE i.{batch} = {name} AND i.{state} = {promoted} AND i.{reviewed_at} = %(at)s",
        column=Identifier(column),
        shown=is_reviewed,
        formal=incoming.table_of(collection),
        name=Literal(batch),
    )
    row = connection.execute(query, {"at": at}).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])
