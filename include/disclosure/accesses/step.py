"""Compare logged accesses with their approvals: a step of the workflow `expire_grants`.

Most runs compare the accesses since the newest compared access, minus an overlap for accesses that
are written to the log late. The first run compares the whole log, and so does a run after each
`full_every`. A run also compares the whole log in these cases:

- The rules or this code changed.
- The newest compared access is no longer in the log.
- The clock was set back.
- The task is repeated after it compared the whole log.

A violation that no sealed bundle reported yet is an error. If earlier runs reported all violations
of a kind, their finding needs attention only, so that a failed run shows a new violation. It keeps
its code and subject, so it stays the same entry in the register of findings.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from datetime import datetime, time, timedelta
from typing import Any

from pydantic import Field
from sqlalchemy import Connection

from include.disclosure.accesses import register
from include.disclosure.accesses.compare import (
    VERSION,
    ApprovalUsage,
    ComparedPeriod,
    LogCounts,
    PeerGroup,
    Source,
    open_source,
)
from include.disclosure.accesses.register import (
    MOST_REGISTERED,
    ClosingReason,
    DepartmentCount,
    FullFigures,
    KindCount,
    LastComparison,
    Stage,
    TooManyViolations,
)
from include.disclosure.accesses.rules import (
    CLAUSE_PURPOSE,
    CLAUSE_USE,
    OUTSIDE_PURPOSE,
    STEP_COMPARE,
    WITHOUT_APPROVAL,
    AccessRules,
    ViolationKind,
)
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings, StepResult, keep_artifact
from include.messages import Message, _
from include.policy.period import add_period, subtract_period
from include.state.locks import hold_exclusive_lock
from include.workflow.earlier_results import earlier_results
from include.workflow.run_context import RunContext
from include.workflow.step import Step

VIOLATIONS_FILE = "access_violations.csv"
UNUSED_FILE = "approvals_never_used.csv"
_LOCK_TIMEOUT = timedelta(minutes=10)  # time to wait for a concurrent run
_MOST_KEPT = 10_000  # violations in a file of the state database; a longer file goes to the store


class AccessComparison(StepResult):
    """The violations that are open after a comparison, and its scope.

    Attributes:
        mapped: whether the policy pack maps an access log. If not, nothing was compared.
        database: name of the compared database; empty if none is mapped.
        full: whether this run compared the whole log.
        since: first moment whose accesses this run compared; None for the whole log.
        compared_at: time of the comparison.
        full_at: time of the newest full comparison.
        accesses: number of accesses that this run compared.
        accesses_at_full: number of accesses that the newest full comparison compared.
        fields_unknown: number of accesses, at the newest full comparison, for which the log does
            not state the fields; None if fields are not compared.
        compares_purposes: whether the log and the approvals have purposes.
        compares_fields: whether the log and the approvals have fields.
        compares_records: whether the log and the approvals have records.
        kinds: open violations of each kind; empty if they could not be counted.
        without_live_approval: number of accesses that no live approval covers; None if not
            measured.
        departments: open violations of each department.
        peers: accesses of the people of each department, at the newest full comparison.
        peer_days: number of days that `peers` counts.
        never_used: number of approvals that were never used, at the newest full comparison.
        ambiguous: number of approvals whose key occurs more than once.
        unkeyed: number of violations of accesses without a key.
        closed: reason -> number of violations that were closed in the last 30 days.
        file: name of the file with keys of violations; empty if there is none.
        stored: whether the file is in the folder of the bundle, not in the state database.
    """

    mapped: bool
    database: str = ""
    full: bool = False
    since: datetime | None = None
    compared_at: datetime | None = None
    full_at: datetime | None = None
    accesses: int | None = None
    accesses_at_full: int | None = None
    fields_unknown: int | None = None
    compares_purposes: bool = False
    compares_fields: bool = False
    compares_records: bool = False
    kinds: list[KindCount] = Field(default_factory=list)
    without_live_approval: int | None = None
    departments: list[DepartmentCount] = Field(default_factory=list)
    peers: list[PeerGroup] = Field(default_factory=list)
    peer_days: int = 0
    never_used: int | None = None
    ambiguous: int = 0
    unkeyed: int = 0
    closed: dict[ClosingReason, int] = Field(default_factory=dict)
    file: str = ""
    stored: bool = False

    def count(self, kind: ViolationKind) -> int | None:
        """Return the number of open violations of a kind; None if it was not measured."""
        is_compared = {
            ViolationKind.OUTSIDE_PURPOSE: self.compares_purposes,
            ViolationKind.OUTSIDE_FIELDS: self.compares_fields
            and self.fields_unknown != self.accesses_at_full,
            ViolationKind.OUTSIDE_RECORDS: self.compares_records,
        }.get(kind, True)
        counts = [count.open for count in self.kinds if count.kind is kind]
        return counts[0] if counts and (is_compared or counts[0]) else None


def compare_accesses(run: RunContext[Any], findings: StepFindings) -> AccessComparison:
    """Compare the logged accesses with the approvals, and update the register of violations.

    Args:
        run: context of the run, whose rules have the key `accesses`.
        findings: findings of the step.

    Raises:
        UsageError: a query of the policy pack fails.
        ServiceError: a database cannot be reached, or another run compares the same database.
    """
    rules: AccessRules | None = run.rules.accesses
    if rules is None:
        findings.measure(WITHOUT_APPROVAL, None, "1", 0)
        findings.measure(OUTSIDE_PURPOSE, None, "1", 0)
        return AccessComparison(mapped=False)
    work = "the comparison of accesses with approvals"
    lock = f"use.accesses:{rules.database}"
    try:
        with hold_exclusive_lock(run.state, lock, work, _LOCK_TIMEOUT) as confirm_lock:
            comparison = _Comparison(run, rules).compare()
            confirm_lock()
    except TooManyViolations:
        _report_too_many(findings)
        comparison = AccessComparison(mapped=True, database=rules.database)
    _report(findings, comparison)
    return comparison


COMPARE: Step[Any, AccessComparison] = Step(
    name=STEP_COMPARE,
    title=_("The comparison of accesses with approvals"),
    clause=CLAUSE_USE,
    work=compare_accesses,
    result=AccessComparison,
)


class _Comparison:
    """One comparison of the access log of a database."""

    def __init__(self, run: RunContext[Any], rules: AccessRules) -> None:
        self.run = run
        self.rules = rules
        self.now = run.clock.now()  # before the snapshot: later accesses are read by the next run
        self.definition = _definition(rules)
        self.reported_until: datetime | None = None
        self.first = (
            datetime.combine(rules.compare_from, time(), run.zone) if rules.compare_from else None
        )

    def compare(self) -> AccessComparison:
        """Compare the log in one snapshot, and store the result in one transaction."""
        address = self.run.reader(self.rules.database)
        database = self.run.database(self.rules.database)
        self.reported_until = self._last_report()
        with (
            open_source(address, database, self.rules) as source,
            self.run.state.begin() as conn,
        ):
            last = register.last_comparison(conn, self.rules.database)
            period = self._period(last)
            counts = None if period.is_full else source.count(period, self.now)
            if counts is not None and last is not None and _has_lost_newest(counts, last):
                period, counts = ComparedPeriod(self.first, is_full=True), None
            return self._compare_period(source, conn, last, period, counts)

    def _last_report(self) -> datetime | None:
        """Return the time of the newest comparison of the database that a sealed bundle reports."""
        for earlier in earlier_results(self.run, COMPARE):
            if earlier.database == self.rules.database and earlier.kinds:
                return earlier.compared_at
        return None

    def _period(self, last: LastComparison | None) -> ComparedPeriod:
        if last is None or last.compared_until is None or self._requires_full(last):
            return ComparedPeriod(self.first, is_full=True)
        since = subtract_period(last.compared_until, self.rules.overlap, self.run.zone)
        return ComparedPeriod(max(since, self.first) if self.first else since, is_full=False)

    def _requires_full(self, last: LastComparison) -> bool:
        due = add_period(last.full_at, self.rules.full_every, self.run.zone)
        return (
            bool(self.run.parameters.get("full"))
            or last.definition != self.definition
            or last.full_run == self.run.run
            or not last.full_at <= self.now < due
            or not last.compared_at <= self.now
        )

    def _compare_period(
        self,
        source: Source,
        conn: Connection,
        last: LastComparison | None,
        period: ComparedPeriod,
        counts: LogCounts | None,
    ) -> AccessComparison:
        """Compare the accesses of a period, and update the register.

        Args:
            source: snapshot of the compared database.
            conn: the state database, in a transaction.
            last: newest comparison of the database; None for the first comparison.
            period: accesses to compare.
            counts: numbers of accesses in the period; None if the comparison is full.
        """
        stage = Stage(conn, self.rules.database, self.run.run, self.now)
        # Without closing, an error would leave the COPY open, and the rollback would wait for it.
        with closing(source.violations(period)) as violations:
            unkeyed = stage.fill(violations)
        stage.enter()
        usage = None
        if counts is None or last is None:
            counts, usage = source.usage(self.first, self.now)
            figures = self._full_figures(source, counts, usage, unkeyed)
            _close_disappeared(source, stage, self.first)
        else:
            figures = last.figures.model_copy(
                update={"unkeyed": max(unkeyed, last.figures.unkeyed)}
            )
        comparison = LastComparison(
            definition=self.definition,
            compared_at=self.now,
            compared_until=counts.newest,
            full_at=self.now if usage is not None or last is None else last.full_at,
            full_run=self.run.run if usage is not None or last is None else last.full_run,
            figures=figures,
        )
        register.store_comparison(conn, self.rules.database, comparison)
        return self._result(source, conn, period, counts, comparison, usage)

    def _full_figures(
        self, source: Source, counts: LogCounts, usage: ApprovalUsage, unkeyed: int
    ) -> FullFigures:
        return FullFigures(
            accesses=counts.accesses,
            fields_unknown=counts.fields_unknown,
            compares_purposes=source.compares_purposes,
            compares_records=source.compares_records,
            unkeyed=unkeyed,
            never_used=usage.never_used,
            peers=source.peers(self.now, self.rules.peer_days),
        )

    def _result(
        self,
        source: Source,
        conn: Connection,
        period: ComparedPeriod,
        counts: LogCounts,
        comparison: LastComparison,
        usage: ApprovalUsage | None,
    ) -> AccessComparison:
        database, figures = self.rules.database, comparison.figures
        kinds = register.count_kinds(conn, database, self.run.run, self.reported_until)
        listed = sum(kind.open if period.is_full else kind.new for kind in kinds)
        if listed:
            self._store_file(conn, listed, period)
        if usage is not None and usage.keys:
            self._keep_file(conn, UNUSED_FILE, register.unused_file(usage.keys))
        return AccessComparison(
            mapped=True,
            database=database,
            full=period.is_full,
            since=period.since,
            compared_at=self.now,
            full_at=comparison.full_at,
            accesses=counts.accesses,
            accesses_at_full=figures.accesses,
            fields_unknown=figures.fields_unknown,
            compares_purposes=source.compares_purposes,
            compares_fields=source.compares_fields,
            compares_records=source.compares_records,
            kinds=kinds,
            without_live_approval=register.count_without_live_approval(conn, database)
            if figures.accesses
            else None,
            departments=register.count_departments(conn, database),
            peers=figures.peers,
            peer_days=self.rules.peer_days,
            never_used=figures.never_used,
            ambiguous=len(source.ambiguous),
            unkeyed=figures.unkeyed,
            closed=register.count_closed(conn, self.now),
            file=VIOLATIONS_FILE if listed else "",
            stored=listed > _MOST_KEPT,
        )

    def _store_file(self, conn: Connection, listed: int, period: ComparedPeriod) -> None:
        """Store the file with the keys of violations.

        After a full comparison, the file has all open violations. Otherwise it has those that this
        run opened.
        """
        run = None if period.is_full else self.run.run
        rows = register.list_open(conn, self.rules.database, run)
        if listed <= _MOST_KEPT:
            self._keep_file(conn, VIOLATIONS_FILE, b"".join(map(bytes, rows)))
            return
        with closing(rows), self.run.unsealed_folder.writer(VIOLATIONS_FILE) as writer:
            for row in rows:
                writer.write(row)
            writer.commit()

    def _keep_file(self, conn: Connection, name: str, content: bytes) -> None:
        keep_artifact(conn, self.run.run.dag_id, self.run.run.run_id, name, content)


def _definition(rules: AccessRules) -> str:
    """Return a digest of the queries and of the code that compares."""
    parts = [VERSION, rules.database, rules.log, rules.approvals, str(rules.compare_from)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _has_lost_newest(counts: LogCounts, last: LastComparison) -> bool:
    """Return whether the log no longer has the newest access of the last comparison.

    The log was then changed, or restored from a backup.
    """
    assert last.compared_until is not None
    return counts.newest is None or counts.newest < last.compared_until


def _close_disappeared(source: Source, stage: Stage, first: datetime | None) -> None:
    entries = list(stage.disappeared(first))
    existing = source.existing([access for _number, access, is_before in entries if not is_before])
    reasons = {}
    for number, access, is_before in entries:
        if is_before:
            reasons[number] = ClosingReason.NOT_COMPARED
        elif access in existing:
            reasons[number] = ClosingReason.COVERED
        else:
            reasons[number] = ClosingReason.ACCESS_DELETED
    stage.close(reasons)


def _report(findings: StepFindings, comparison: AccessComparison) -> None:
    without, outside = (
        comparison.without_live_approval,
        comparison.count(ViolationKind.OUTSIDE_PURPOSE) if comparison.accesses_at_full else None,
    )
    findings.measure(WITHOUT_APPROVAL, without, "1", 0)
    findings.measure(OUTSIDE_PURPOSE, outside, "1", 0)
    findings.measure("use.accesses_compared", comparison.accesses, "1")
    findings.measure("use.approvals_never_used", comparison.never_used, "1")
    for count in comparison.kinds:
        if count.open:
            code, message, action, clause = _FINDINGS[count.kind]
            findings.find(
                code,
                Outcome.ATTENTION if count.reported == count.open else Outcome.FAIL,
                _describe(count, message.model_copy(update={"values": {"count": count.open}})),
                action,
                clause=clause,
                for_engineers=_KEYS,
            )
    _report_log(findings, comparison)
    _report_approvals(findings, comparison)
    _report_closed(findings, comparison)


def _describe(count: KindCount, violations: Message) -> Message:
    """Return the text of a finding, which tells new violations from known ones.

    Args:
        count: open violations of a kind.
        violations: sentence about all open violations of the kind.
    """
    if not count.reported:
        return violations
    if count.reported == count.open:
        return _(
            "{violations} Earlier runs reported all of them, and the oldest is open since {since}.",
            violations=violations,
            since=count.reported_since,
        )
    return _(
        "{violations} Not reported before: {new}. Reported by earlier runs: {reported}, the oldest "
        "of them open since {since}.",
        violations=violations,
        new=count.open - count.reported,
        reported=count.reported,
        since=count.reported_since,
    )


_KEYS = _(
    "The table `access_violation` of the state database lists all open violations by key. The "
    "file `access_violations.csv` lists those that this run found."
)
_ASK = _(
    "Ask the employee and the supervisor for the reason. If the access was not permitted, record a "
    "violation. If the log or the approval is wrong, have it corrected; the next full comparison "
    "then closes the entry."
)
_FINDINGS: dict[ViolationKind, tuple[str, Message, Message, str]] = {
    ViolationKind.WITHOUT_APPROVAL: (
        "use.access_without_approval",
        _(
            "{count} accesses to customer records name no approval that was given to the employee.",
            count=0,
        ),
        _ASK,
        CLAUSE_USE,
    ),
    ViolationKind.BY_REQUESTER: (
        "use.approval_by_requester",
        _(
            "{count} accesses to customer records name an approval that the employee gave to "
            "himself or herself. Such an approval is not valid.",
            count=0,
        ),
        _(
            "Ask who entered these approvals, and prevent that employees approve their own "
            "requests. Ask the supervisor whether the accesses were permitted; if not, record a "
            "violation."
        ),
        CLAUSE_USE,
    ),
    ViolationKind.OUTSIDE_PERIOD: (
        "use.access_outside_period",
        _(
            "{count} accesses to customer records happened before or after the period of their "
            "approval.",
            count=0,
        ),
        _ASK,
        CLAUSE_USE,
    ),
    ViolationKind.OUTSIDE_PURPOSE: (
        "use.access_outside_purpose",
        _(
            "{count} accesses to customer records have another purpose than their approval.",
            count=0,
        ),
        _ASK,
        CLAUSE_PURPOSE,
    ),
    ViolationKind.OUTSIDE_FIELDS: (
        "use.access_outside_fields",
        _(
            "{count} accesses to customer records read fields that their approval does not name.",
            count=0,
        ),
        _ASK,
        CLAUSE_USE,
    ),
    ViolationKind.OUTSIDE_RECORDS: (
        "use.access_outside_records",
        _(
            "{count} accesses read customer records that their approval does not name.",
            count=0,
        ),
        _ASK,
        CLAUSE_USE,
    ),
}


def _report_too_many(findings: StepFindings) -> None:
    findings.fail(
        "use.too_many_violations",
        _(
            "More than {count} accesses differ from their approvals. The register was not changed.",
            count=MOST_REGISTERED,
        ),
        _(
            "Have the data engineers check how the access log and the approvals are mapped. If "
            "older accesses had no approvals yet, have them set the first day of the comparison."
        ),
        for_engineers=_("The key `accesses` of `use.yaml` has the queries and `compare_from`."),
    )


def _report_log(findings: StepFindings, comparison: AccessComparison) -> None:
    if comparison.accesses_at_full == 0:
        findings.warn(
            "use.access_log_empty",
            _("The access log has no accesses to compare."),
            _(
                "Have the data engineers check that applications write the access log, and that "
                "the login of the workflow may read it."
            ),
            for_engineers=_("The key `accesses.log` of `use.yaml` has the query."),
        )
    if comparison.unkeyed:
        findings.fail(
            "use.access_without_key",
            _(
                "{count} violations concern accesses without a key in the access log.",
                count=comparison.unkeyed,
            ),
            _("Have the data engineers give every access in the log a key."),
            for_engineers=_("The key `accesses.log` of `use.yaml` has the query."),
        )


def _report_approvals(findings: StepFindings, comparison: AccessComparison) -> None:
    if comparison.ambiguous:
        findings.fail(
            "use.approval_not_unique",
            _(
                "{count} approvals have a key that occurs more than once. They cover no access.",
                count=comparison.ambiguous,
            ),
            _("Have the data engineers give each approval its own key."),
            for_engineers=_("The key `accesses.approvals` of `use.yaml` has the query."),
        )
    if comparison.never_used:
        findings.warn(
            "use.approval_never_used",
            _(
                "{count} approvals ended without any access. The employees may not have needed "
                "them.",
                count=comparison.never_used,
            ),
            _(
                "Ask the supervisors whether these approvals were necessary, and have approvals "
                "given only for accesses that are planned."
            ),
            for_engineers=_(
                "The file `approvals_never_used.csv` in the bundle of the newest full comparison "
                "lists the keys."
            ),
        )


def _report_closed(findings: StepFindings, comparison: AccessComparison) -> None:
    covered = comparison.closed.get(ClosingReason.COVERED, 0)
    deleted = comparison.closed.get(ClosingReason.ACCESS_DELETED, 0)
    if covered or deleted:
        findings.warn(
            "use.violation_disappeared",
            _(
                "In the last 30 days, {covered} violations were closed because an approval covers "
                "the access now, and {deleted} because the log no longer has the access.",
                covered=covered,
                deleted=deleted,
            ),
            _(
                "Ask the data engineers who changed the access log or the approvals, and whether "
                "the change was permitted. The deletion of expired accesses is permitted."
            ),
            for_engineers=_(
                "The columns `closed_at` and `closed_because` of the table `access_violation` "
                "name the entries."
            ),
        )
