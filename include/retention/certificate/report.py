"""The conclusion of a run of `enforce_retention`: the certificate of deletion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Connection, func, select

from include.approvals import registry
from include.evidence.model import Approval, Finding, Metric, Outcome, attention_finding
from include.messages import Message, _
from include.policy.datamap import MappedDatabase
from include.policy.retention import RetentionRule
from include.reports.conclusion import Conclusion, missing_record
from include.reports.model import Fact, Paragraph, Section, Steps, must_be_zero
from include.retention import steps
from include.retention.certificate import section
from include.retention.certificate.case import Case, Past
from include.retention.certificate.count.inspection import Left
from include.retention.results import CLAUSE, VerificationResult
from include.retention.steps import APPROVE, EXECUTE, PLAN, PRUNE_EVIDENCE, VERIFY
from include.state.tables import disposition
from include.workflow.databases import requested_databases
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords

TITLE = _("Certificate of deletion")
LOOKED_BACK = 60  # runs in a trend
# control indicator -> the figure of the count afterwards that it adds up, and its unit
_INDICATORS: Mapping[str, tuple[Callable[[VerificationResult], int], str]] = {
    "expired_records_unexplained": (lambda proof: proof.unexplained, "rows"),
    "erasure_requests_overdue": (lambda proof: proof.requests_overdue, "1"),
}


def past(conn: Connection, database: str) -> list[Past]:
    """Return what the last runs erased from a database, the oldest first."""
    table = disposition
    query = (
        select(func.min(table.c.planned_at), func.sum(table.c.done))
        .where(table.c.database == database)
        .group_by(table.c.dag_id, table.c.run_id)
        .order_by(func.max(table.c.number).desc())
        .limit(LOOKED_BACK)
    )
    runs = [Past(at, None if done is None else int(done)) for at, done in conn.execute(query)]
    return runs[::-1]


def conclude(run: RunContext[None], records: RunRecords) -> Conclusion:
    """Judge a run by its records, its approvals and earlier runs."""
    pack, asked = run.pack, run.wanted_databases
    with run.state.connect() as conn:
        approvals = registry.approvals_of(conn, run.run.dag_id, run.run.run_id)
        trends = {name: past(conn, name) for name in asked}
    return certificate(
        records,
        databases=list(pack.databases.values()),
        rules={name: pack.retention_of(name) for name in pack.databases},
        asked=asked,
        approvals=approvals,
        trends=trends,
    )


def certificate(
    records: RunRecords,
    *,
    databases: Sequence[MappedDatabase],
    rules: Mapping[str, Sequence[RetentionRule]],
    asked: Sequence[str],
    approvals: Sequence[Approval],
    trends: Mapping[str, Sequence[Past]],
) -> Conclusion:
    """Judge a run: expired records are erased or explained, and no request is late.

    Args:
        records: of the steps; a missing one fails the run.
        databases: all that the data map names.
        rules: their record classes; a database without one is a finding, not a fault.
        asked: names of the databases of the run; a finding names each other database.
        approvals: decisions of this run.
        trends: past runs by database, this one included.
    """
    requested, left_out = requested_databases(databases, asked, "retention.left_out", CLAUSE)
    cases = [
        Case(
            database,
            rules.get(database.name, ()),
            records.result(PLAN, database.name),
            records.result(APPROVE, database.name),
            records.result(EXECUTE, database.name),
            records.result(VERIFY, database.name),
            trends.get(database.name, ()),
        )
        for database in requested
    ]
    findings: list[Finding] = []
    for case in cases:
        findings += _missing(case, records)
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
            Metric(name=name, value=_indicator(cases, figure, all_asked=not left_out), unit=unit)
            for name, (figure, unit) in _INDICATORS.items()
        ],
        facts=[
            *_facts(cases),
            *steps.facts(records.result(PRUNE_EVIDENCE)),
        ],
        sections=[*(section.section(case) for case in cases), _meaning(cases)],
        approvals=approvals,
    )


def _missing(case: Case, records: RunRecords) -> list[Finding]:
    """Return a finding about the first step that did not end, unless its own record says why."""
    for step, result, title in (
        (PLAN, case.plan, _("The plan")),
        (EXECUTE, case.execution, _("The execution")),
        (VERIFY, case.proof, _("The count afterwards")),
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
        message=_("No record class of it is in the retention schedule: nothing expires there."),
        action=_("Say in retention.yaml how long its records are kept."),
        clause=CLAUSE,
    )


def _indicator(
    cases: Sequence[Case], figure: Callable[[VerificationResult], int], *, all_asked: bool
) -> int | None:
    """Return a control's figure: 0 only if every database was counted."""
    known = [figure(case.proof) for case in cases if case.proof]
    if any(known):
        return sum(known)
    whole = len(known) == len(cases) and all_asked and any(case.rules for case in cases)
    return 0 if whole else None


def _added(values: Sequence[int | None]) -> int | None:
    """Return the sum; None if a part was not measured, or without parts."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _erased(cases: Sequence[Case]) -> tuple[int | None, int | None]:
    return _added([case.deleted() for case in cases]), _added([case.masked() for case in cases])


def _counted(cases: Sequence[Case], figure: Callable[[VerificationResult], int]) -> int | None:
    return _added([figure(case.proof) if case.proof else None for case in cases])


def _left(cases: Sequence[Case], figure: Callable[[Left], int]) -> int | None:
    """Return one figure of the count afterwards, all classes and databases together."""
    return _counted(cases, lambda proof: sum(map(figure, proof.left)))


def _summary(outcome: Outcome, cases: Sequence[Case]) -> Message:
    if not cases or not all(case.whole for case in cases):
        return _("Not every database was worked on to its end.")
    unexplained = _counted(cases, lambda proof: proof.unexplained)
    late = _counted(cases, lambda proof: proof.requests_overdue)
    if unexplained:
        return _(
            "{count} records have expired and are still there without a ground to keep them.",
            count=unexplained,
        )
    if late:
        return _("{count} requests of data subjects to be erased are overdue.", count=late)
    if outcome is Outcome.FAIL:
        return _("What had expired is gone or explained, but something else is wrong: see below.")
    if not any(case.rules for case in cases):
        return _("The policy pack does not say how long records are kept: nothing was erased.")
    deleted, masked = _erased(cases)
    values = {"deleted": deleted or 0, "masked": masked or 0}
    if outcome is Outcome.ATTENTION:
        return _(
            "What had expired is gone or explained ({deleted} deleted, {masked} masked); something "
            "needs attention.",
            **values,
        )
    if not deleted and not masked:
        return _("Nothing had to be erased; whatever has expired and stays is explained.")
    return _(
        "What had expired is gone: {deleted} records deleted, {masked} masked. What stays is "
        "explained.",
        **values,
    )


def _facts(cases: Sequence[Case]) -> list[Fact]:
    deleted, masked = _erased(cases)
    unexplained = _counted(cases, lambda proof: proof.unexplained)
    held = _left(cases, lambda left: left.held)
    referred = _left(cases, lambda left: left.referred)
    waiting = _left(cases, lambda left: left.waiting)
    missed = _added(
        [
            _added([case.not_reached(planned) for planned in case.classes] or [0])
            if case.plan
            else None
            for case in cases
        ]
    )
    return [
        Fact(
            label=_("Records erased"),
            value=None if deleted is None or masked is None else deleted + masked,
            unit="rows",
            note=_erased_note(deleted, masked)
            if deleted is not None and masked is not None
            else None,
        ),
        Fact(
            label=_("Expired, left without a ground"),
            value=unexplained,
            unit="rows",
            status=must_be_zero(unexplained),
            note=_("target: 0"),
        ),
        Fact(
            label=_("Expired, kept on a ground"),
            value=_added([held, referred, waiting]),
            unit="rows",
            note=None
            if held is None
            else _(
                "{held} by legal holds and open matters, {referred} since other records refer to "
                "them, {waiting} wait for the next plan",
                held=held,
                referred=referred or 0,
                waiting=waiting or 0,
            ),
        ),
        Fact(
            label=_("Planned and not reached"),
            value=missed,
            unit="rows",
            status=None if missed is None else Outcome.ATTENTION if missed else Outcome.PASS,
            note=_("why: see below") if missed else None,
        ),
        _requests(cases),
        _backups(cases),
    ]


def _requests(cases: Sequence[Case]) -> Fact:
    still = _counted(cases, lambda proof: proof.requests_open)
    late = _counted(cases, lambda proof: proof.requests_overdue)
    closed = _counted(cases, lambda proof: proof.requests_closed)
    return Fact(
        label=_("Requests of data subjects"),
        value=None if still is None else _("{count} open", count=still),
        status=must_be_zero(late),
        note=None
        if late is None
        else _(
            "{late} overdue or done late, {closed} closed by this run",
            late=late,
            closed=closed or 0,
        ),
    )


def _erased_note(deleted: int, masked: int) -> Message:
    if not deleted or not masked:
        return _("{deleted} deleted, {masked} masked", deleted=deleted, masked=masked)
    return _(
        "{deleted} deleted, {masked} masked; a record that was masked and then deleted is in both",
        deleted=deleted,
        masked=masked,
    )


def _backups(cases: Sequence[Case]) -> Fact:
    label = _("Backups hold what was erased until, at the earliest")
    listed = [case.proof.copies if case.proof else None for case in cases]
    known = [copies for copies in listed if copies is not None]
    if not known or len(known) < len(listed):
        return Fact(label=label, value=None)
    copies = [copy for each in known for copy in each]
    if not copies:
        return Fact(label=label, value=_("none does"), status=Outcome.PASS)
    refused = sum(copy.taken_at is None for copy in copies)
    if refused:
        return Fact(
            label=label,
            value=_("not known"),
            status=Outcome.ATTENTION,
            note=_("backups with a refused manifest: {count}", count=refused),
        )
    held = sum(copy.held for copy in copies)
    oldest = min(copy.taken_at for copy in copies if copy.taken_at)
    last = max(copy.expires_at for copy in copies if copy.expires_at)
    return Fact(
        label=label,
        value=last,
        note=_(
            "restore points: {count}, the oldest of {oldest}; holds keep {held} of them longer",
            count=len(copies),
            oldest=oldest,
            held=held,
        )
        if held
        else _(
            "restore points: {count}, the oldest of {oldest}",
            count=len(copies),
            oldest=oldest,
        ),
    )


def _meaning(cases: Sequence[Case]) -> Section:
    """Return what the report proves; for an incomplete run, only what it does not prove."""
    whole = bool(cases) and all(case.whole for case in cases)
    proven = _(
        "What the tables call erased was deleted or masked in the mapped databases, and each "
        "record stands in the erasure ledger by a keyed hash. The queries that counted what is "
        "left were written separately. What the deletion uses too: the forms of masked text, the "
        "types of columns, the list of foreign keys and how each compares, the reading of the "
        "registry of holds, and the keys of records that were found for requests."
    )
    unproven = _(
        "Not every database was planned, worked on and counted afterwards: what the tables lack "
        "is not proven here."
    )
    return Section(
        heading=_("What this report proves, and what it does not"),
        blocks=[
            Paragraph(text=proven if whole else unproven),
            Steps(
                items=[
                    *(_done(cases) if whole else []),
                    _(
                        "Backups are not changed: until they expire they hold what was erased, and "
                        "a restore erases it again by the ledger."
                    ),
                    _(
                        "Deleted rows stay on the disk, in the server's log and in replicas until "
                        "PostgreSQL writes over them; the storage is not wiped here."
                    ),
                    _(
                        "Copies outside of the mapped databases, such as exports, files and "
                        "partners' records, are not seen here, nor are tables that triggers fill. "
                        "What no record class names never expires."
                    ),
                    *(_without_class(case) for case in cases if _unnamed(case)),
                ]
            ),
        ],
    )


def _unnamed(case: Case) -> list[str]:
    """Return the collections with personal data that have no record class."""
    if case.database.is_faulty:
        return []
    named = {rule.collection for rule in case.rules}
    return [
        collection.name
        for collection in case.database.collections.values()
        if collection.name not in named
        and any(field.is_personal for field in collection.fields.values())
    ]


def _without_class(case: Case) -> Message:
    return _(
        "No record class of {database} names {collections}, which hold personal data: nothing of "
        "them expires.",
        database=case.database.name,
        collections=", ".join(_unnamed(case)),
    )


def _done(cases: Sequence[Case]) -> list[Message]:
    """Return what a complete run proves."""
    approved = _(
        "A plan beyond the limits was executed only where another person than the schedule's "
        "owners approved that very plan, by its hash."
    )
    answered = _(
        "A plan beyond the limits was answered on the command line: that another person than the "
        "schedule's owners looked at it is not proven."
    )
    return [
        answered
        if any(case.approval and case.approval.is_from_command_line for case in cases)
        else approved,
        _(
            "Legal holds were asked inside of each transaction; one that was placed before it "
            "committed kept its records."
        ),
    ]
