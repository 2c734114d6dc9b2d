"""Enter the findings of sealed runs in the register, and close those that no longer exist.

The register follows the evidence ledger, bundle by bundle in the order of the seals. It reads each
verified bundle once. A finding that comes back while it is open is the same entry: the cause is the
workflow, step, part, code, subject and aspect of the finding. A finding is closed only by a later
complete run that examined its subject and did not report it again. The bundle of that run is the
evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DataError, IntegrityError

from include.evidence.bundle_reader import BundleReader
from include.evidence.check import EvidenceRefused
from include.evidence.ledger import LedgerRow
from include.evidence.model import (
    CONTROLS_STEP,
    REGISTERS_STEP,
    Coverage,
    Finding,
    Outcome,
    Result,
)
from include.findings.register import EVENT, RUN, Details, Event, append_event
from include.policy.period import add_period
from include.policy.rules import FindingRules
from include.state.connect import StateLock, lock_for_transaction
from include.state.findings import finding, finding_progress, finding_report
from include.state.tables import evidence_ledger

MAX_BUNDLES = 500  # that a call reads, so that a seal does not wait for a long backlog
MAX_NAME = 400  # bytes of a subject or part; an index entry has room for 2,704 bytes
MAX_UNREAD = 1000  # bundles that are not valid, whose numbers are kept


class Cause(NamedTuple):
    """The identity of a finding. An open finding with the same cause is the same entry.

    Attributes:
        workflow: DAG id of the workflow; empty for findings about the evidence and the registers,
            which every workflow reports.
        step: name of the step; empty for a finding of the whole run.
        part: item that the mapped step worked on.
        code: stable identifier of the type of finding.
        subject: object that the finding is about.
        aspect: id that distinguishes findings with the same code and subject.
    """

    workflow: str
    step: str
    part: str
    code: str
    subject: str
    aspect: str


@dataclass(frozen=True)
class EntryRules:
    """Rules for the entry of findings in the register.

    Attributes:
        rules: due dates of findings.yaml.
        owner_of: returns the role that owns a finding of a workflow.
        closes_by_retest: DAG ids of all workflows -> whether only a retest closes the findings,
            because each run has subjects of its own, such as an incident. Bundles of other
            workflows, such as interim bundles, are skipped.
        zone: timezone of the policy pack.
    """

    rules: FindingRules
    owner_of: Callable[[str, Finding], str]
    closes_by_retest: Mapping[str, bool]
    zone: ZoneInfo


@dataclass
class FollowedLedger:
    """The result of following the ledger.

    Attributes:
        bundles: number of bundles that were read or skipped.
        opened: number of findings that were entered.
        closed: number of findings that were closed.
        unread: folders of bundles that are not valid, so that their findings are unknown.
        is_complete: whether the register has followed the ledger to its end.
    """

    bundles: int = 0
    opened: int = 0
    closed: int = 0
    unread: tuple[str, ...] = ()
    is_complete: bool = False


def follow_ledger(
    state: Engine, bundle_reader: BundleReader, entry_rules: EntryRules, most: int = MAX_BUNDLES
) -> FollowedLedger:
    """Enter the findings of the bundles that the register has not read yet.

    Each bundle is one transaction, so a killed call loses nothing and enters nothing twice. Several
    processes may call the function at the same time.

    Args:
        state: the state database.
        bundle_reader: reads and verifies bundles.
        entry_rules: owners and due dates of findings.
        most: maximum number of bundles to read. The next call continues.

    Raises:
        StoreError: the evidence store cannot be read. The next call continues.
    """
    followed = FollowedLedger()
    while followed.bundles < most:
        with state.connect() as conn:
            pruned = bundle_reader.pruned_up_to(conn)
            row = _next_row(conn)
        if row is None:
            followed.is_complete = True
            break
        result = None
        if row.dag_id in entry_rules.closes_by_retest and row.seq > pruned:
            try:
                result = bundle_reader.result(row)
            except EvidenceRefused:
                followed.unread += (row.bundle,)
        with state.begin() as conn:
            lock_for_transaction(conn, StateLock.FINDINGS)
            following = _next_row(conn)
            if following is None or following.seq != row.seq:
                continue  # another process entered this bundle
            if result is not None:
                try:
                    with conn.begin_nested():
                        opened, closed = _enter(conn, row, result, entry_rules)
                    followed.opened += opened
                    followed.closed += closed
                except (DataError, IntegrityError):  # the bundle must not block all later seals
                    followed.unread += (row.bundle,)
            _advance(conn, row.seq, is_unread=row.bundle in followed.unread)
        followed.bundles += 1
    return followed


def unread_bundles(conn: Connection) -> list[int]:
    """Return the sequence numbers of bundles whose findings are not in the register.

    These bundles did not verify, or their findings could not be stored, when the register followed
    the ledger. At most the last 1000 are known.
    """
    return list(conn.scalar(select(finding_progress.c.unread)) or ())


def _next_row(conn: Connection) -> LedgerRow | None:
    """Return the ledger row of the first bundle that the register has not read; None at the end."""
    seq = conn.scalar(select(finding_progress.c.seq)) or 0
    query = select(evidence_ledger).where(evidence_ledger.c.seq > seq)
    row = conn.execute(query.order_by(evidence_ledger.c.seq).limit(1)).mappings().first()
    return None if row is None else LedgerRow.of(row)


def _advance(conn: Connection, seq: int, *, is_unread: bool) -> None:
    """Record that the register has read the bundles up to a sequence number.

    Args:
        conn: connection to the state database, with an open transaction.
        seq: sequence number of the bundle.
        is_unread: whether the bundle is not valid, so that its findings could not be read.
    """
    unread = list(conn.scalar(select(finding_progress.c.unread)) or ())
    values = {"seq": seq, "unread": [*unread, *([seq] if is_unread else [])][-MAX_UNREAD:]}
    conn.execute(
        insert(finding_progress)
        .values(id=1, **values)
        .on_conflict_do_update(constraint=finding_progress.primary_key, set_=values)
    )


def _enter(
    conn: Connection, row: LedgerRow, result: Result, entry_rules: EntryRules
) -> tuple[int, int]:
    """Enter the findings of a bundle, and close the findings that the bundle disproves.

    Returns:
        The number of findings that were entered, and of those that were closed.
    """
    opened = closed = 0
    if result.could_not_run and entry_rules.closes_by_retest[row.dag_id]:
        return (
            opened,
            closed,
        )  # such as wrong inputs, which the person has already corrected in another run
    entries = _open_entries(conn, row.dag_id)
    reported = dict(_causes(row.dag_id, result))
    for position, (cause, reported_finding) in enumerate(reported.items(), 1):
        entry = entries.get(cause)
        if entry is None:
            number = _open(conn, row, position, cause, reported_finding, entry_rules)
            opened += 1
        else:
            number = entry.number
        _keep_report(conn, row, number, reported_finding)
    if not result.is_complete or entry_rules.closes_by_retest[row.dag_id]:
        return opened, closed
    for cause, entry in entries.items():
        is_later = result.run.started_at >= entry.reported_at
        if is_later and cause not in reported and _is_examined(cause, result):
            _close(conn, row, entry.number)
            closed += 1
    return opened, closed


class _Entry(NamedTuple):
    """An open finding: its number, and when the bundle of its newest report was sealed.

    A run that started before that time may have examined the subject before the report, so it does
    not close the finding.
    """

    number: int
    reported_at: datetime


def _open_entries(conn: Connection, workflow: str) -> dict[Cause, _Entry]:
    cause = [finding.c.dag_id, *(finding.c[name] for name in Cause._fields[1:])]
    query = (
        select(finding.c.id, finding_report.c.reported_at, *cause)
        .join(finding_report, finding_report.c.finding_id == finding.c.id)
        .where(finding.c.closed_at.is_(None), finding.c.dag_id.in_((workflow, "")))
    )
    return {
        Cause(*fields): _Entry(number, reported_at)
        for number, reported_at, *fields in conn.execute(query)
    }


def _causes(workflow: str, result: Result) -> Iterator[tuple[Cause, Finding]]:
    """Yield each finding of a run with its cause.

    If several findings of the run have the same cause, a number in the aspect distinguishes them.
    """
    counts: Counter[Cause] = Counter()
    for reported in result.findings:
        owner = "" if reported.step == REGISTERS_STEP else workflow
        names = (reported.step, reported.part, reported.code, reported.subject, reported.aspect)
        cause = Cause(owner, *map(_shorten, names))
        counts[cause] += 1
        if counts[cause] > 1:
            cause = cause._replace(aspect=f"{cause.aspect}#{counts[cause]}")
        yield cause, reported


def _shorten(name: str) -> str:
    """Shorten a name that is too long for the index of causes; its digest keeps it distinct."""
    if len(name.encode()) <= MAX_NAME:
        return name
    return f"{name[:50]}…{sha256(name.encode()).hexdigest()}"


def _open(
    conn: Connection,
    row: LedgerRow,
    position: int,
    cause: Cause,
    reported: Finding,
    entry_rules: EntryRules,
) -> int:
    """Enter a finding in the register, and return its number.

    Args:
        conn: connection to the state database, with an open transaction.
        row: ledger row of the bundle that reports the finding.
        position: position of the finding in the bundle, from 1.
        cause: cause of the finding.
        reported: the finding.
        entry_rules: owners and due dates of findings.
    """
    rules, zone = entry_rules.rules, entry_rules.zone
    is_failure = reported.severity is Outcome.FAIL
    period = rules.due_after_failure if is_failure else rules.due_after_attention
    values: dict[str, Any] = {
        "kind": EVENT if entry_rules.closes_by_retest[row.dag_id] else RUN,
        "reference": f"{row.seq}/{position}",
        "owner": entry_rules.owner_of(row.dag_id, reported),
        "opened_at": row.sealed_at,
        "due_on": add_period(row.sealed_at, period, zone).astimezone(zone).date(),
        "dag_id": cause.workflow,
        **{name: getattr(cause, name) for name in Cause._fields[1:]},
        "clause": reported.clause,
        "opened_in": row.bundle,
        "opened_seq": row.seq,
        **_texts(reported),
    }
    return int(conn.execute(insert(finding).values(values).returning(finding.c.id)).scalar_one())


def _texts(reported: Finding) -> dict[str, Any]:
    """Return the columns with the severity and the texts of a finding."""
    details = Details(
        subject_title=reported.subject_title,
        action=reported.action,
        for_engineers=reported.for_engineers,
    )
    return {
        "severity": str(reported.severity),
        "description": reported.message.model_dump(mode="json"),
        "details": details.model_dump(mode="json"),
    }


def _keep_report(conn: Connection, row: LedgerRow, number: int, reported: Finding) -> None:
    """Store the newest report of a finding."""
    values = {
        "bundle": row.bundle,
        "seq": row.seq,
        "reported_at": row.sealed_at,
        **_texts(reported),
    }
    conn.execute(
        insert(finding_report)
        .values(finding_id=number, reports=1, **values)
        .on_conflict_do_update(
            constraint=finding_report.primary_key,
            set_=values | {"reports": finding_report.c.reports + 1},
        )
    )


def _is_examined(cause: Cause, result: Result) -> bool:
    """Return whether a complete run examined the subject of a finding.

    Args:
        cause: cause of a finding of an earlier run.
        result: sealed result of the complete run.
    """
    if cause.step in ("", REGISTERS_STEP):
        return True
    if cause.step == CONTROLS_STEP:
        return cause.subject in {control.id for control in result.controls}
    records = [step for step in result.steps if (step.step, step.part) == (cause.step, cause.part)]
    if records:
        return all(_covers(record.coverage, cause) for record in records)
    return bool(cause.part) and any(
        step.coverage is not None and cause.step in step.coverage.steps for step in result.steps
    )


def _covers(coverage: Coverage | None, cause: Cause) -> bool:
    """Return whether a step would have reported a finding with the given cause."""
    if coverage is None:
        return False
    if coverage.subjects is None or cause.code in coverage.codes:
        return True
    return cause.subject in map(_shorten, coverage.subjects)


def _close(conn: Connection, row: LedgerRow, number: int) -> None:
    """Close a finding, with the bundle of a run as the evidence."""
    append_event(conn, number, Event.CLOSED, row.dag_id, row.sealed_at, bundle=row.bundle)
    conn.execute(update(finding).where(finding.c.id == number).values(closed_at=row.sealed_at))
