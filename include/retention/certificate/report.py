"""Build the certificate of deletion, which is the report of a run of `enforce_retention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Connection, func, select

from include.approvals import registry
from include.evidence.model import Approval, Finding, Metric, Outcome, attention_finding
from include.messages import Message, _, listed
from include.policy.datamap import MappedDatabase
from include.policy.retention import RetentionRule
from include.reports.conclusion import Conclusion, missing_record
from include.reports.model import (
    Fact,
    Paragraph,
    Section,
    SignatureLine,
    Steps,
    must_be_zero,
    signature_section,
)
from include.retention import steps
from include.retention.certificate import section
from include.retention.certificate.count.inspection import RemainingRecords
from include.retention.certificate.database_run import DatabaseRun, PastRun
from include.retention.results import CLAUSE, VerificationResult
from include.retention.steps import APPROVE, EXECUTE, PLAN, PRUNE_EVIDENCE, VERIFY
from include.state.tables import disposition
from include.workflow.databases import select_databases
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords

TITLE = _("Certificate of deletion")
TREND_RUNS = 60  # runs in a trend
# control indicator -> the figure of the verification that it sums up, and its unit
_INDICATORS: Mapping[str, tuple[Callable[[VerificationResult], int], str]] = {
    "expired_records_unexplained": (lambda verification: verification.unexplained, "rows"),
    "erasure_requests_overdue": (lambda verification: verification.requests_overdue, "1"),
}


def read_past_runs(conn: Connection, database: str) -> list[PastRun]:
    """Return how many records of a database each of the latest runs erased, oldest run first.

    The number of runs is at most `TREND_RUNS`.
    """
    table = disposition
    query = (
        select(func.min(table.c.planned_at), func.sum(table.c.done))
        .where(table.c.database == database)
        .group_by(table.c.dag_id, table.c.run_id)
        .order_by(func.max(table.c.number).desc())
        .limit(TREND_RUNS)
    )
    runs = [PastRun(at, None if done is None else int(done)) for at, done in conn.execute(query)]
    return runs[::-1]


def conclude(run: RunContext[None], records: RunRecords) -> Conclusion:
    """Build the certificate of deletion from the step records, the approvals and the past runs."""
    pack, requested = run.pack, run.requested_databases
    with run.state.connect() as conn:
        approvals = registry.approvals_of(conn, run.run.dag_id, run.run.run_id)
        trends = {name: read_past_runs(conn, name) for name in requested}
    return certificate(
        records,
        databases=list(pack.databases.values()),
        rules={name: pack.retention_of(name) for name in pack.databases},
        requested=requested,
        approvals=approvals,
        trends=trends,
    )


def certificate(
    records: RunRecords,
    *,
    databases: Sequence[MappedDatabase],
    rules: Mapping[str, Sequence[RetentionRule]],
    requested: Sequence[str],
    approvals: Sequence[Approval],
    trends: Mapping[str, Sequence[PastRun]],
) -> Conclusion:
    """Build the certificate of deletion of a run, with its outcome and findings.

    Args:
        records: step records of the run. If one is missing, the outcome is that the run failed.
        databases: all databases of the data map.
        rules: database -> its record classes. A database without record classes gives a finding.
        requested: names of the databases that the run had to process. Each other database of the
            data map gives a finding.
        approvals: decisions on approval requests of this run.
        trends: database -> numbers of erased records in past runs and in this run.
    """
    chosen, left_out = select_databases(databases, requested, "retention.left_out", CLAUSE)
    cases = [
        DatabaseRun(
            database,
            rules.get(database.name, ()),
            records.result(PLAN, database.name),
            records.result(APPROVE, database.name),
            records.result(EXECUTE, database.name),
            records.result(VERIFY, database.name),
            trends.get(database.name, ()),
        )
        for database in chosen
    ]
    findings: list[Finding] = []
    for case in cases:
        findings += _report_missing_step(case, records)
        if not case.rules:
            findings.append(_no_class(case.database))
    findings += left_out
    outcome = records.outcome(findings) if cases else Outcome.FAIL
    return records.conclude(
        TITLE,
        _summary(outcome, cases),
        outcome=outcome,
        findings=findings,
        metrics=[
            Metric(
                name=name,
                value=_indicator_value(cases, figure, all_requested=not left_out),
                unit=unit,
            )
            for name, (figure, unit) in _INDICATORS.items()
        ],
        facts=[
            *_facts(cases),
            *steps.pruning_facts(records.result(PRUNE_EVIDENCE)),
        ],
        sections=[
            *(section.database_section(case) for case in cases),
            _verification_section(cases),
            signature_section(
                SignatureLine(role=_("Deletion carried out under the responsibility of")),
                SignatureLine(role=_("Certificate checked by")),
            ),
        ],
        approvals=approvals,
    )


def _report_missing_step(case: DatabaseRun, records: RunRecords) -> list[Finding]:
    """Return a list with a finding about the first step that has no result for a database.

    The list is empty if every step has a result. It is also empty if the record of the first step
    without a result already states that the step failed.

    Args:
        case: results of the run in the database.
        records: step records of the run.
    """
    for step, result, title in (
        (PLAN, case.plan, _("The disposition plan")),
        (EXECUTE, case.execution, _("The execution of the disposition plan")),
        (VERIFY, case.verification, _("The verification of the disposition")),
    ):
        if result is not None:
            continue
        record = records.find(step.name, case.database.name)
        if record is not None and record.outcome is Outcome.FAIL:
            return []
        return [missing_record(title, case.database.name, "retention.missing", CLAUSE)]
    return []


def _no_class(database: MappedDatabase) -> Finding:
    return attention_finding(
        code="retention.no_class",
        subject=database.name,
        message=_(
            "The retention schedule has no record class of this database, so its records never "
            "expire."
        ),
        action=_("Define retention periods for the records of this database."),
        clause=CLAUSE,
        for_engineers=_("Add its record classes to `retention.yaml`."),
    )


def _indicator_value(
    cases: Sequence[DatabaseRun],
    figure: Callable[[VerificationResult], int],
    *,
    all_requested: bool,
) -> int | None:
    """Return the value of a control indicator, summed over the databases of the run.

    A sum above 0 is returned even if the verification did not count all databases. A sum of 0 is
    returned only if the verification counted every mapped database, and at least one of them has a
    record class. Otherwise the value is None.

    Args:
        cases: results of the run by database.
        figure: returns the value of one database from the result of its verification.
        all_requested: whether the run had to process all databases of the data map.
    """
    values = [figure(case.verification) for case in cases if case.verification]
    if any(values):
        return sum(values)
    is_complete = len(values) == len(cases) and all_requested and any(c.rules for c in cases)
    return 0 if is_complete else None


def _sum_or_none(values: Sequence[int | None]) -> int | None:
    """Return the sum of the values, or None if a value is None or there are no values."""
    measured = [value for value in values if value is not None]
    return sum(measured) if measured and len(measured) == len(values) else None


def _erased_totals(cases: Sequence[DatabaseRun]) -> tuple[int | None, int | None]:
    return _sum_or_none([case.deleted() for case in cases]), _sum_or_none(
        [case.masked() for case in cases]
    )


def _sum_of_figure(
    cases: Sequence[DatabaseRun], figure: Callable[[VerificationResult], int]
) -> int | None:
    return _sum_or_none(
        [figure(case.verification) if case.verification else None for case in cases]
    )


def _sum_of_remaining(
    cases: Sequence[DatabaseRun], figure: Callable[[RemainingRecords], int]
) -> int | None:
    """Return the sum of a figure about remaining records, over all record classes and databases.

    Return None if the verification of a database has no result.

    Args:
        cases: results of the run by database.
        figure: returns the figure of one record class.
    """
    return _sum_of_figure(cases, lambda verification: sum(map(figure, verification.left)))


def _summary(outcome: Outcome, cases: Sequence[DatabaseRun]) -> Message:
    if not cases or not all(case.is_complete for case in cases):
        return _("The disposition is incomplete in at least one database.")
    unexplained = _sum_of_figure(cases, lambda verification: verification.unexplained)
    late = _sum_of_figure(cases, lambda verification: verification.requests_overdue)
    if unexplained:
        return _(
            "{count} expired records remain, and the report states no reason for this.",
            count=unexplained,
        )
    if late:
        return _("{count} erasure requests are overdue.", count=late)
    if outcome is Outcome.FAIL:
        return _(
            "All expired records were disposed of, or the report states why they remain. But "
            "other checks of the run failed: see the findings."
        )
    if not any(case.rules for case in cases):
        return _("The policy pack defines no retention periods, so no record was disposed of.")
    deleted, masked = _erased_totals(cases)
    values = {"deleted": deleted or 0, "masked": masked or 0}
    if outcome is Outcome.ATTENTION:
        return _(
            "All expired records were disposed of ({deleted} deleted, {masked} masked), or the "
            "report states why they remain. Some findings need attention.",
            **values,
        )
    if not deleted and not masked:
        return _(
            "No record had to be disposed of. This report states why each remaining expired "
            "record is kept."
        )
    return _(
        "All expired records were disposed of ({deleted} deleted, {masked} masked), or the "
        "report states why they remain.",
        **values,
    )


def _facts(cases: Sequence[DatabaseRun]) -> list[Fact]:
    deleted, masked = _erased_totals(cases)
    unexplained = _sum_of_figure(cases, lambda verification: verification.unexplained)
    held = _sum_of_remaining(cases, lambda left: left.held)
    referred = _sum_of_remaining(cases, lambda left: left.referred)
    waiting = _sum_of_remaining(cases, lambda left: left.waiting)
    missed = _sum_or_none(
        [
            _sum_or_none([case.planned_but_not_erased(planned) for planned in case.classes] or [0])
            if case.plan
            else None
            for case in cases
        ]
    )
    return [
        Fact(
            label=_("Records disposed of"),
            value=None if deleted is None or masked is None else deleted + masked,
            unit="rows",
            note=_erased_note(deleted, masked)
            if deleted is not None and masked is not None
            else None,
        ),
        Fact(
            label=_("Expired records that remain without a stated reason"),
            value=unexplained,
            unit="rows",
            status=must_be_zero(unexplained),
            note=_("target: 0"),
        ),
        Fact(
            label=_("Expired records that remain for a stated reason"),
            value=_sum_or_none([held, referred, waiting]),
            unit="rows",
            note=None
            if held is None
            else _(
                "{held} on legal hold or suspended, {referred} referenced by other records, "
                "{waiting} waiting for the next plan",
                held=held,
                referred=referred or 0,
                waiting=waiting or 0,
            ),
        ),
        Fact(
            label=_("Records planned but not disposed of"),
            value=missed,
            unit="rows",
            status=None if missed is None else Outcome.ATTENTION if missed else Outcome.PASS,
            note=_("for the reasons see below") if missed else None,
        ),
        _requests(cases),
        _backups(cases),
    ]


def _requests(cases: Sequence[DatabaseRun]) -> Fact:
    still = _sum_of_figure(cases, lambda verification: verification.requests_open)
    late = _sum_of_figure(cases, lambda verification: verification.requests_overdue)
    closed = _sum_of_figure(cases, lambda verification: verification.requests_closed)
    return Fact(
        label=_("Erasure requests"),
        value=None if still is None else _("{count} open", count=still),
        status=must_be_zero(late),
        note=None
        if late is None
        else _(
            "{late} overdue or completed after the due date, {closed} closed by this run",
            late=late,
            closed=closed or 0,
        ),
    )


def _erased_note(deleted: int, masked: int) -> Message:
    if not deleted or not masked:
        return _("{deleted} deleted, {masked} masked", deleted=deleted, masked=masked)
    return _(
        "{deleted} deleted, {masked} masked; a record that was first masked and then deleted "
        "counts twice",
        deleted=deleted,
        masked=masked,
    )


def _backups(cases: Sequence[DatabaseRun]) -> Fact:
    label = _("Last expiry of a backup that contains deleted records")
    copies_by_case = [case.verification.copies if case.verification else None for case in cases]
    readable = [copies for copies in copies_by_case if copies is not None]
    if not readable or len(readable) < len(copies_by_case):
        return Fact(label=label, value=None)
    copies = [copy for group in readable for copy in group]
    if not copies:
        return Fact(label=label, value=_("no backup contains deleted records"), status=Outcome.PASS)
    refused = sum(copy.taken_at is None for copy in copies)
    if refused:
        return Fact(
            label=label,
            value=_("not known"),
            status=Outcome.ATTENTION,
            note=_("backups with an invalid manifest: {count}", count=refused),
        )
    held = sum(copy.held for copy in copies)
    oldest = min(copy.taken_at for copy in copies if copy.taken_at)
    last = max(copy.expires_at for copy in copies if copy.expires_at)
    return Fact(
        label=label,
        value=last,
        note=_(
            "restore points: {count}, the oldest from {oldest}; kept longer because of legal "
            "holds: {held}",
            count=len(copies),
            oldest=oldest,
            held=held,
        )
        if held
        else _(
            "restore points: {count}, the oldest from {oldest}",
            count=len(copies),
            oldest=oldest,
        ),
    )


def _verification_section(cases: Sequence[DatabaseRun]) -> Section:
    """Build the section that states what the certificate of deletion proves.

    If a step has no result for a database, the section states that missing figures are not proven.

    Args:
        cases: results of the run by database.
    """
    is_complete = bool(cases) and all(case.is_complete for case in cases)
    proven = _(
        "In the tables, “disposed of” means deleted or masked in the mapped databases. The "
        "erasure ledger identifies each of these records by a keyed hash. Separate queries "
        "counted the remaining records. These queries and the deletion have in common: the "
        "forms of masked text, the column types, the foreign keys and their comparison, the "
        "reading of the legal holds, and the record keys that were found for erasure requests."
    )
    unproven = _(
        "For at least one database, planning, execution or verification was not completed. "
        "This report proves nothing about figures that are missing in the tables."
    )
    return Section(
        heading=_("Scope and limits of this report"),
        blocks=[
            Paragraph(text=proven if is_complete else unproven),
            Steps(
                items=[
                    *(_proven_facts(cases) if is_complete else []),
                    _(
                        "Backups are not changed. They contain deleted records until they "
                        "expire. When a backup is restored, the records in the erasure ledger "
                        "are deleted again."
                    ),
                    _(
                        "Deleted records remain on the disk, in the server log and in replicas "
                        "until PostgreSQL overwrites them. This workflow does not wipe storage "
                        "media."
                    ),
                    _(
                        "This report does not cover copies outside the mapped databases, such "
                        "as exports, files and records of partners, or tables that triggers "
                        "fill. Records without a record class never expire."
                    ),
                    *(_without_class(case) for case in cases if _collections_without_class(case)),
                ]
            ),
        ],
    )


def _collections_without_class(case: DatabaseRun) -> list[Message]:
    """Return the titles of the collections that have personal data but no record class."""
    if case.database.is_faulty:
        return []
    named = {rule.collection for rule in case.rules}
    return [
        collection.title
        for collection in case.database.collections.values()
        if collection.name not in named
        and any(field.is_personal for field in collection.fields.values())
    ]


def _without_class(case: DatabaseRun) -> Message:
    return _(
        "No record class of {database} covers {collections}, which contain personal data: "
        "these records never expire.",
        database=case.database.title,
        collections=listed(_collections_without_class(case)),
    )


def _proven_facts(cases: Sequence[DatabaseRun]) -> list[Message]:
    """Return, as texts, what a complete run proves about approvals and legal holds.

    Args:
        cases: results of the run by database.
    """
    approved = _(
        "A disposition plan that exceeded the limits was executed only if a person other than "
        "the owners of the retention schedule approved exactly this plan, identified by its "
        "hash."
    )
    answered = _(
        "A disposition plan that exceeded the limits was approved on the command line. This "
        "report does not prove that a person other than the owners of the retention schedule "
        "reviewed the plan."
    )
    return [
        answered
        if any(case.approval and case.approval.is_from_command_line for case in cases)
        else approved,
        _(
            "Each transaction checked the legal holds. Records that were on legal hold before "
            "the transaction was committed were kept."
        ),
    ]
