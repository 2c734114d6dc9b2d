"""Steps of `review_intake` after the decision: act on it, and check the result."""

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
from include.intake.checks import FAIL, Key, broken_by_rule, kept_out
from include.intake.names import CLAUSE, rule_and_batch
from include.intake.promote import Settled, promote, reject, settled_by
from include.intake.review import REVIEW, BatchCheck, Review, checked_batch
from include.intake.table import IncomingTable, on_table, resolve, table_of
from include.messages import _
from include.services.errors import ControlFailed
from include.state.locks import exclusive
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords
from include.workflow.step import Step

Progress = Callable[[str], None]


class Settlement(StepResult):
    """The settlement of a batch.

    Attributes:
        left: number of rows that stay pending; None if the batch was settled.
        promoted: number of rows that were let in.
        set_aside: number of rows that break a rule and were not let in.
        rejected: number of rows that the reviewer turned down.
        records: number of formal records by collection.
        changed: whether the batch changed after the decision, so that nothing was done.
    """

    left: int | None = None
    promoted: int = 0
    set_aside: int = 0
    rejected: int = 0
    records: dict[str, int] = Field(default_factory=dict)
    changed: bool = False


class Verification(StepResult):
    """The counts after all settlements.

    Attributes:
        past_deadline: number of batches that still wait, past their deadline.
        promoted: number of rows that this run let in.
        unreviewed: number of these whose formal record shows no independent review.
    """

    past_deadline: int
    promoted: int
    unreviewed: int


class ContentChanged(ControlFailed):
    """A batch is not what was decided on.

    Attributes:
        gone: none of its rows is pending any more, so somebody else has settled them.
    """

    def __init__(self, batch: str, *, gone: bool) -> None:
        super().__init__(f"{batch} changed after the decision.")
        self.gone = gone


def settle(
    table: IncomingTable, findings: StepFindings, progress: Progress | None = None
) -> Settlement:
    """Let the batch in or turn it down, exactly once; without a decision it stays pending.

    Safe to repeat and to kill at any point: see `include.intake.promote`.

    Args:
        table: of the batch.
        findings: of the step.
        progress: is called with ``before commit``, where an error undoes everything, and with
            ``committed``.
    """
    part = findings.part
    with exclusive(table.state, f"intake:{part}", f"the batch {part}"):
        checked, request_id = checked_batch(table, part)
        with table.state.connect() as conn:
            decision = registry.decision_on(conn, request_id)
        if decision is None:
            return Settlement(left=checked.rows)
        try:
            done = _settle(table, checked.batch, decision, progress or (lambda _: None))
        except ContentChanged as changed:
            return _void(findings, checked, decision, changed)
    if done.set_aside:
        findings.warn(
            "intake.set_aside",
            _("{count} records break a rule and were not let in.", count=done.set_aside),
            _("Have them corrected and entered again; the quarantine names them by key."),
        )
    if done.rejected:
        findings.warn(
            "intake.rejected",
            _("{who} rejected the batch.", who=decision.decided_by),
            _("Read the reason, have the batch corrected and entered again."),
        )
    findings.measure("intake.promoted", done.promoted, "rows")
    findings.measure("intake.set_aside", done.set_aside, "rows")
    findings.measure("intake.rejected", done.rejected, "rows")
    return Settlement(
        promoted=done.promoted,
        set_aside=done.set_aside,
        rejected=done.rejected,
        records=dict(done.records),
    )


SETTLE = Step(
    name="settle",
    title=_("The settlement of {part}", part=""),
    clause=CLAUSE,
    work=on_table(settle),
    result=Settlement,
)


def _void(
    findings: StepFindings, checked: BatchCheck, decision: Decision, changed: ContentChanged
) -> Settlement:
    """Report that a decision is void; the batch stays as it is."""
    if changed.gone:
        findings.warn(
            "intake.settled_elsewhere",
            _("Another run settled the batch or its records were deleted; nothing was done."),
            _("See the other run's report; do not run the workflow twice at once."),
        )
        return Settlement(left=0, changed=True)
    findings.fail(
        "intake.changed",
        _(
            "The batch changed after {who} decided on it; nothing was done.",
            who=decision.decided_by,
        ),
        _("Find out who changed it. It stays pending, and the next run asks again."),
    )
    return Settlement(left=checked.rows, changed=True)


def _settle(table: IncomingTable, batch: str, decision: Decision, progress: Progress) -> Settled:
    incoming = table.incoming
    with table.writer.connect(autocommit=True) as connection:
        with batches.unit_of_work(connection, incoming, write=True):
            reviewer = batches.staff_key(connection, incoming, decision.decided_by)
            act = {"reviewer": reviewer, "at": decision.decided_at}
            done = settled_by(connection, incoming, batch, approved=decision.approved, **act)
            if not done.rows:
                _require_unchanged(table, connection, batch, decision)
                if decision.approved:
                    broken = _broken(table, connection, batch)
                    done = promote(connection, incoming, batch, broken=broken, **act)
                else:
                    done = reject(connection, incoming, batch, **act)
            progress("before commit")
            table.run.task.confirm_open()
        progress("committed")
    return done


def _require_unchanged(
    table: IncomingTable, connection: psycopg.Connection[Any], batch: str, decision: Decision
) -> None:
    """Compare the batch with what was decided on, in the transaction that acts on it."""
    content = batches.content(connection, table.incoming, batch)
    with table.state.connect() as conn:
        asked = registry.request(conn, decision.request_id)
        if asked.sha256 != content.sha256:
            raise ContentChanged(batch, gone=not content.rows)
        if decision.approved:
            registry.require(conn, decision.request_id, content.sha256)


def _broken(table: IncomingTable, connection: psycopg.Connection[Any], batch: str) -> set[Key]:
    """Rows that break a rule now: what was good when it was checked may be a duplicate since."""
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
    return kept_out(keys)


def verify(run: RunContext[None], findings: StepFindings) -> Verification:
    """Count by queries of its own what waits too long and what was let in unreviewed.

    Entries of the quarantine register whose rows are dealt with are resolved.
    """
    tables = [table_of(run, rule.id) for rule in run.pack.intake]
    return verified(tables, run.records(), findings)


def verified(
    tables: Sequence[IncomingTable], records: RunRecords, findings: StepFindings
) -> Verification:
    """Count by queries of its own what still waits too long and what this run let in unreviewed.

    Args:
        tables: every incoming table.
        records: of this run's steps.
        findings: of the step.
    """
    late: list[str] = []
    promoted = unreviewed = resolved = 0
    for table in tables:
        now = table.clock.now()
        with table.snapshot() as connection:
            waiting = batches.waiting(connection, table.incoming, now).batches
            late += [
                table.incoming.part(batch.name)
                for batch in waiting
                if batch.due and batch.due < now
            ]
            for batch, at in _decided(table, records.results(REVIEW)):
                rows, bad = _unreviewed(connection, table, batch, at)
                promoted, unreviewed = promoted + rows, unreviewed + bad
            resolved += resolve(table, connection)
    findings.measure("intake.resolved", resolved, "rows")
    reported = sum(settled.promoted for settled in records.results(SETTLE).values())
    if reported != promoted:
        findings.fail(
            "intake.not_found",
            _(
                "{said} records were let in, and {found} are found afterwards.",
                said=reported,
                found=promoted,
            ),
            _("See what changed the incoming table meanwhile, or rounds its times."),
        )
    for part in late:
        findings.fail(
            "intake.past_deadline",
            _("The batch still waits for its review, past its deadline."),
            _("Have it reviewed today: answer the question in Airflow when it is asked again."),
            subject=part,
        )
    if unreviewed:
        findings.fail(
            "intake.unreviewed",
            _(
                "{count} of {rows} records let in have no formal record reviewed by another.",
                count=unreviewed,
                rows=promoted,
            ),
            _("See what else writes to the formal tables; correct the targets in intake.yaml."),
        )
    return Verification(past_deadline=len(late), promoted=promoted, unreviewed=unreviewed)


VERIFY = Step(
    name="verify",
    title=_("The count afterwards"),
    clause=CLAUSE,
    work=verify,
    result=Verification,
    runs_always=True,
)


def _decided(table: IncomingTable, reviews: dict[str, Review]) -> list[tuple[str, datetime]]:
    """Return the batches of a table that this run has a decision on: name, time of decision."""
    parts = [(*rule_and_batch(part), review) for part, review in reviews.items()]
    return [
        (batch, review.decided_at)
        for rule, batch, review in parts
        if rule == table.incoming.rule.id and review.counts
    ]


def _unreviewed(
    connection: psycopg.Connection[Any], table: IncomingTable, batch: str, at: datetime
) -> tuple[int, int]:
    """Count rows that a decision let in, and those whose formal record does not show it."""
    incoming, rule = table.incoming, table.incoming.rule
    collection, column = rule.keys[rule.back_reference.key]
    target = next(
        candidate for candidate in rule.targets if rule.back_reference.key in candidate.keys
    )
    stamp = target.reviewed
    shown = (
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
        shown=shown,
        formal=incoming.table_of(collection),
        name=Literal(batch),
    )
    row = connection.execute(query, {"at": at}).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])
