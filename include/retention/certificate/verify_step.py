"""The verification step of `enforce_retention`, which counts the records that remain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, func, select

from include.erasure import ledger, request_records, requests
from include.erasure.request_records import RecordReader
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.holds import records as holds
from include.holds.records import StoredRestorePoint
from include.messages import _
from include.policy.datamap import MappedDatabase
from include.retention.certificate.count.inspection import Inspection, Orphans, RemainingRecords
from include.retention.certificate.requests import judge_requests
from include.retention.database import RetentionDatabase
from include.retention.execution.execute_step import erased_by_class
from include.retention.postgres.session import MAX_CLOCK_DIFFERENCE, open_snapshot, prepare_session
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
    """Count the remaining records with independent queries, and close completed erasure requests.

    The function compares the counts with the erasure ledger, the plan and the execution.

    Args:
        database: database of the plan.
        findings: collector of the findings of the verification step.
        planned: result of the planning step.
        executed: result of the execution step; None if the execution step has no result.
        restore_points: restore points of the database; None if they could not be read.
    """
    run, name = database.run, database.name
    findings.subject_titles |= database.subject_titles
    with run.state.connect() as conn:
        # Holds that were released after the plan count: their records wait for the next plan.
        hold_ids = [hold.hold for hold in planned.holds]
        record_holds = holds.load_record_holds(conn, name, hold_ids)
        open_requests = requests.open_requests(conn, name)
        remembered = request_records.load_records(conn, name)
        last = _last_erasure_ended(conn, name)
    with database.reader.connect(autocommit=True) as connection:
        prepare_session(connection, database.mapped)
        with open_snapshot(connection, database.mapped):
            reader = RecordReader(
                connection, database.mapped, run.services.erasure_keys, database.rules
            )
            inspection = Inspection(
                connection,
                database.mapped,
                database.rules,
                as_of=planned.as_of,
                timezone=run.pack.calendar.timezone,
                holds=record_holds,
                records=reader.records(remembered),
            )
            left = [
                _without_newly_expired(remaining, executed)
                for remaining in inspection.count_remaining_expired()
            ]
            orphans = inspection.count_orphans()
            subjects = {
                request.id: inspection.count_records_of_subject(request.subject)
                for request in open_requests
            }
            deleted = reader.deleted_records(remembered, inspection.existing_records())
    _report_remaining(findings, left, executed.not_approved if executed else ())
    _report_orphans(findings, orphans, database.mapped)
    lasting = Counter(
        record.request_id
        for _subject, record in remembered
        if not reader.is_erased_on_request(record)
    )
    judged = judge_requests(database, findings, open_requests, subjects, lasting)
    with run.state.begin() as conn:
        request_records.delete_records(conn, deleted)
    states = Counter(request.state for request in judged)
    closed = states["closed"] + states["closed_late"]
    done = erased_by_class(database)
    _report_ledger_difference(findings, executed, done)
    _report_beyond_plan(findings, planned, done)
    with run.state.connect() as conn:
        entered = _ledger_entries(conn, database)
        _report_ledger_losses(findings, ledger.count_missing_entries(conn, name))
    copies = None if restore_points is None else _points_with_erased(restore_points, last)
    _report_unclear_backups(findings, copies)
    unexplained = sum(remaining.unexplained for remaining in left)
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


def _without_newly_expired(
    left: RemainingRecords, executed: ExecutionResult | None
) -> RemainingRecords:
    """Return the counts of a record class, with records that wait for the next plan in ``waiting``.

    These records could be erased but were not planned, for example because a legal hold was
    released after the plan was made. The independent count includes them in ``unexplained``.

    Args:
        left: counts of the remaining records of a record class.
        executed: result of the execution step, which has the number of records that wait; None if
            the execution step has no result. The counts are then returned unchanged.
    """
    more = executed.waiting.get(left.name, 0) if executed else 0
    waiting = min(left.unexplained, more)
    return replace(left, unexplained=left.unexplained - waiting, waiting=waiting)


def _last_erasure_ended(conn: Connection, database: str) -> datetime | None:
    """Return when the last erasure in a database ended, or None if no record was erased yet.

    A batch is written to the erasure ledger before the transaction that erases its records commits,
    and is marked as settled after the commit. A backup that is taken between these two times may
    still contain the records. The function therefore returns the later of the two times.

    Args:
        conn: connection to the state database.
        database: name of the database in the data map.
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


def _points_with_erased(
    restore_points: Sequence[StoredRestorePoint], last: datetime | None
) -> list[StoredRestorePoint]:
    """Return the restore points that may still contain erased records.

    Args:
        restore_points: restore points of the database.
        last: time of the last erasure in the database; None if no record was erased yet.
    """
    return [
        point
        for point in restore_points
        if last is not None
        and (point.taken_at is None or point.taken_at <= last + MAX_CLOCK_DIFFERENCE)
    ]


def _report_unclear_backups(
    findings: StepFindings, copies: Sequence[StoredRestorePoint] | None
) -> None:
    if copies is None:
        findings.find(
            "retention.backups_unread",
            Outcome.ATTENTION,
            _(
                "The off-site store could not be read, so it is unknown which backups still "
                "contain deleted records."
            ),
            _(
                "Ask the data engineers to restore the access to the off-site store. The next "
                "run checks the backups again."
            ),
            for_engineers=_(
                "See the report of `backup_offsite` for the state of the off-site store."
            ),
        )
    elif refused := sum(point.taken_at is None for point in copies):
        findings.find(
            "retention.backups_refused",
            Outcome.ATTENTION,
            _(
                "{count} backups have an invalid manifest. They may contain deleted records, "
                "and their age is unknown.",
                count=refused,
            ),
            _("Find out who changed these backups."),
            for_engineers=_("`./parcelseal backup list` names the backups."),
        )


def _report_remaining(
    findings: StepFindings, left: Sequence[RemainingRecords], not_approved: Collection[str]
) -> None:
    for remaining in left:
        if not remaining.unexplained:
            continue
        message, action = (
            _(
                "{count} records are past their retention period but were not disposed of, "
                "although no legal hold applies and no other record refers to them.",
                count=remaining.unexplained,
            ),
            _("Find the reason in the other findings of this run, then run the workflow again."),
        )
        if remaining.name in not_approved:
            message, action = (
                _(
                    "{count} records are past their retention period and remain, because a "
                    "second person has not approved their disposition.",
                    count=remaining.unexplained,
                ),
                _(
                    "If the approval was rejected, read the reason and correct the retention "
                    "schedule or its limits. Then run the workflow again and have its approval "
                    "request answered in Airflow."
                ),
            )
        findings.find("retention.left", Outcome.FAIL, message, action, subject=remaining.name)


def _report_orphans(
    findings: StepFindings, dangling: Sequence[Orphans], database: MappedDatabase
) -> None:
    titles = database.table_titles
    for orphans in dangling:
        label = f"{database.name}.{orphans.table}"
        findings.subject_titles[orphans.constraint] = titles.get(label, database.title)
        findings.find(
            "retention.orphans",
            Outcome.FAIL if orphans.validated else Outcome.ATTENTION,
            _("{count} records refer to records that do not exist.", count=orphans.records),
            _(
                "Find out which operation deletes records without checking foreign keys; "
                "PostgreSQL itself refuses such deletions."
            )
            if orphans.validated
            else _(
                "Correct the records, then have the foreign key validated. The records may be "
                "older than the foreign key."
            ),
            subject=orphans.constraint,
            for_engineers=_(
                "Foreign key `{constraint}` of the table `{table}`",
                constraint=orphans.constraint,
                table=orphans.table,
            )
            if orphans.validated
            else _(
                "The foreign key `{constraint}` of the table `{table}` is `NOT VALID`. Run "
                "`ALTER TABLE … VALIDATE CONSTRAINT`.",
                constraint=orphans.constraint,
                table=orphans.table,
            ),
        )


def _report_beyond_plan(findings: StepFindings, plan: PlanResult, done: Mapping[str, int]) -> None:
    """Report each record class in which the run erased more records than planned.

    Args:
        findings: collector of the findings of the verification step.
        plan: result of the planning step.
        done: record class -> number of records that all attempts of this run erased.
    """
    for planned in plan.classes:
        if (more := done.get(planned.name, 0) - planned.planned) > 0:
            findings.find(
                "retention.beyond_plan",
                Outcome.FAIL,
                _("{count} more records were disposed of than planned.", count=more),
                _(
                    "Open an incident: two executions may have run at the same time, or the "
                    "ledger contains entries of another run."
                ),
                subject=planned.name,
            )


def _report_ledger_losses(findings: StepFindings, missing: dict[str, int]) -> None:
    """Report entries of this run or of earlier runs that are missing in the erasure ledger.

    Args:
        findings: collector of the findings of the verification step.
        missing: collection -> number of missing entries.
    """
    for collection, entries in missing.items():
        findings.find(
            "retention.ledger_lost",
            Outcome.FAIL,
            _(
                "{count} entries are missing from the erasure ledger. If a backup is restored, "
                "the records that these entries named cannot be deleted again.",
                count=entries,
            ),
            _("Open an incident: the entries were deleted, or the state database was damaged."),
            subject=collection,
        )


def _report_ledger_difference(
    findings: StepFindings, executed: ExecutionResult | None, done: Mapping[str, int]
) -> None:
    """Report if the ledger and the execution step state different numbers of erased records.

    Args:
        findings: collector of the findings of the verification step.
        executed: result of the execution step; None if the execution step has no result.
        done: record class -> number of records in the erasure ledger.
    """
    if executed and (executed.done != done or executed.counted != executed.entered):
        findings.find(
            "retention.ledger_differs",
            Outcome.FAIL,
            _(
                "The number of records in the erasure ledger differs from the count of the "
                "execution."
            ),
            _("Open an incident: another program may write to the ledger, or entries were lost."),
        )
