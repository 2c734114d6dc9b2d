"""The step of `enforce_retention` that counts afterwards and compares the counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, func, select

from include.erasure import ledger, request_records, requests
from include.erasure.request_records import Reader
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.holds import records as holds
from include.holds.records import StoredRestorePoint
from include.messages import _
from include.retention.certificate.count.inspection import Inspection, Left, Orphans
from include.retention.certificate.requests import judge
from include.retention.database import RetentionDatabase
from include.retention.execution.execute_step import erased_by_class
from include.retention.postgres.session import APART, one_view, prepare
from include.retention.results import (
    ExecutionResult,
    LedgerEntries,
    PlanResult,
    VerificationResult,
)
from include.state.tables import erasure, erasure_batch


def verify(
    database: RetentionDatabase,
    findings: StepFindings,
    planned: PlanResult,
    executed: ExecutionResult | None,
    restore_points: Sequence[StoredRestorePoint] | None,
) -> VerificationResult:
    """Count the remaining records by independent queries, and close the completed requests.

    Args:
        database: of the plan.
        findings: of the step.
        planned: result of the plan's step.
        executed: result of the execution; None if it did not end.
        restore_points: of the database; None if they could not be read.
    """
    run, name = database.run, database.name
    with run.state.connect() as conn:
        # A hold that was released since the plan counts: its records belong to the next plan.
        of_plan = [hold.hold for hold in planned.holds]
        known = holds.on_records(conn, name, of_plan)
        open_requests = requests.open_requests(conn, name)
        remembered = request_records.remembered(conn, name)
        last = _last_erasure(conn, name)
    with database.reader.connect(autocommit=True) as connection:
        prepare(connection, database.mapped)
        with one_view(connection, database.mapped):
            reader = Reader(connection, database.mapped, run.services.erasure_keys, database.rules)
            inspection = Inspection(
                connection,
                database.mapped,
                database.rules,
                as_of=planned.as_of,
                timezone=run.pack.calendar.timezone,
                holds=known,
                records=reader.records(remembered),
            )
            left = [_explained(each, executed) for each in inspection.left()]
            orphans = inspection.orphans()
            subjects = {
                request.id: inspection.subject(request.subject) for request in open_requests
            }
            gone = reader.gone(remembered, inspection.still_there())
    _left(findings, left, executed.not_approved if executed else ())
    _orphans(findings, orphans)
    lasting = Counter(
        record.request_id
        for _subject, record in remembered
        if not reader.is_erased_on_request(record)
    )
    judged = judge(database, findings, open_requests, subjects, lasting)
    with run.state.begin() as conn:
        request_records.forget(conn, gone)
    states = Counter(request.state for request in judged)
    closed = states["closed"] + states["closed_late"]
    done = erased_by_class(database)
    _agreement(findings, executed, done)
    _within(findings, planned, done)
    with run.state.connect() as conn:
        entered = _ledger_entries(conn, database)
        _all_there(findings, ledger.missing(conn, name))
    copies = None if restore_points is None else _holding_erased(restore_points, last)
    _unclear_copies(findings, copies)
    unexplained = sum(each.unexplained for each in left)
    findings.measure("retention.unexplained", unexplained, "rows")
    findings.measure("retention.erased", sum(done.values()), "rows")
    return VerificationResult(
        left=left,
        orphans=orphans,
        done=done,
        unexplained=unexplained,
        requests=judged,
        requests_open=len(judged) - closed,
        requests_closed=closed,
        requests_overdue=states["overdue"] + states["closed_late"] + states["restricted_late"],
        verified_at=run.clock.now(),
        ledger=entered,
        copies=copies,
    )


def _explained(left: Left, executed: ExecutionResult | None) -> Left:
    """Return what is left of a class, without the records that came after the plan."""
    more = executed.waiting.get(left.name, 0) if executed else 0
    waiting = min(left.unexplained, more)
    return replace(left, unexplained=left.unexplained - waiting, waiting=waiting)


def _last_erasure(conn: Connection, database: str) -> datetime | None:
    """Return the moment by which the last record ever erased from the database was gone.

    A batch is entered before its deletion commits and settled after it: a backup that is taken in
    between still has the records.
    """
    batch = erasure_batch
    gone = func.max(func.greatest(batch.c.erased_at, batch.c.settled_at))
    moment: datetime | None = conn.scalar(select(gone).where(batch.c.database == database))
    return moment


def _ledger_entries(conn: Connection, database: RetentionDatabase) -> LedgerEntries:
    batch = erasure_batch
    dag_id, run_id = database.run_key
    of_run = (
        batch.c.database == database.name,
        batch.c.dag_id == dag_id,
        batch.c.run_id == run_id,
    )
    query = select(
        func.count(),
        func.min(batch.c.id),
        func.max(batch.c.id),
        func.min(batch.c.erased_at),
        func.max(batch.c.erased_at),
    ).where(*of_run, batch.c.settled_at.is_not(None))
    batches, first, last, begun, ended = conn.execute(query).one()
    keys = select(erasure.c.key_id).join(batch).where(*of_run).distinct()
    return LedgerEntries(
        batches=batches,
        first=first,
        last=last,
        begun=begun,
        ended=ended,
        key_ids=list(conn.scalars(keys.order_by(erasure.c.key_id))),
    )


def _holding_erased(
    restore_points: Sequence[StoredRestorePoint], last: datetime | None
) -> list[StoredRestorePoint]:
    """Return the restore points that may hold erased records.

    Args:
        restore_points: of the database.
        last: when the last record was erased; None if none ever was.
    """
    return [
        point
        for point in restore_points
        if last is not None and (point.taken_at is None or point.taken_at <= last + APART)
    ]


def _unclear_copies(findings: StepFindings, copies: Sequence[StoredRestorePoint] | None) -> None:
    if copies is None:
        findings.find(
            "retention.backups_unread",
            Outcome.ATTENTION,
            _(
                "The off-site store could not be read: which backups still hold what was erased is "
                "not known."
            ),
            _("See what `backup_offsite` says of the store; the next run looks again."),
        )
    elif refused := sum(point.taken_at is None for point in copies):
        findings.find(
            "retention.backups_refused",
            Outcome.ATTENTION,
            _(
                "{count} backups have a manifest that is refused: they may hold what was erased, "
                "and nobody knows from when they are.",
                count=refused,
            ),
            _("See `./parcelseal backup list`; find out who changed them."),
        )


def _left(findings: StepFindings, left: Sequence[Left], not_approved: Collection[str]) -> None:
    for each in left:
        if not each.unexplained:
            continue
        message, action = (
            _(
                "{count} records are past their retention period, and no hold and no other "
                "record keeps them.",
                count=each.unexplained,
            ),
            _("See why they were not erased among this run's findings, and run it again."),
        )
        if each.name in not_approved:
            message, action = (
                _(
                    "{count} records are past their retention period and stay: a second person has "
                    "to approve, and did not.",
                    count=each.unexplained,
                ),
                _(
                    "If somebody rejected it, read why and correct the schedule or its limits. "
                    "Then run the workflow again and have its question answered in Airflow."
                ),
            )
        findings.find("retention.left", Outcome.FAIL, message, action, subject=each.name)


def _orphans(findings: StepFindings, dangling: Sequence[Orphans]) -> None:
    for orphans in dangling:
        findings.find(
            "retention.orphans",
            Outcome.FAIL if orphans.validated else Outcome.ATTENTION,
            _(
                "{count} records of {table} refer to records that are not there.",
                count=orphans.records,
                table=orphans.table,
            ),
            _("Find out what deletes around foreign keys; PostgreSQL itself would refuse.")
            if orphans.validated
            else _(
                "They may be older than the foreign key, which is NOT VALID. Correct them, then "
                "VALIDATE CONSTRAINT."
            ),
            subject=orphans.constraint,
        )


def _within(findings: StepFindings, plan: PlanResult, done: Mapping[str, int]) -> None:
    """Report classes with more erased records than planned, over all tries of the run."""
    for planned in plan.classes:
        if (more := done.get(planned.name, 0) - planned.planned) > 0:
            findings.find(
                "retention.beyond_plan",
                Outcome.FAIL,
                _("{count} records more were erased than the plan says.", count=more),
                _("Raise an incident: two executions at once, or entries that are not this run's."),
                subject=planned.name,
            )


def _all_there(findings: StepFindings, missing: dict[str, int]) -> None:
    """Report entries of this and earlier runs that the ledger has lost, by the batches' counts."""
    for collection, entries in missing.items():
        findings.find(
            "retention.ledger_lost",
            Outcome.FAIL,
            _(
                "{count} entries are gone from the erasure ledger: after a restore nobody would "
                "know that these records were erased.",
                count=entries,
            ),
            _("Raise an incident: somebody deleted them, or the state database was damaged."),
            subject=collection,
        )


def _agreement(
    findings: StepFindings, executed: ExecutionResult | None, done: Mapping[str, int]
) -> None:
    """Compare the counts of the database with the ledger, after the execution and now."""
    if executed and (executed.done != done or executed.counted != executed.entered):
        findings.find(
            "retention.ledger_differs",
            Outcome.FAIL,
            _("The erasure ledger counts other records than the execution did."),
            _("Raise an incident: somebody else writes to the ledger, or entries were lost."),
        )
