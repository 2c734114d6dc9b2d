"""Enter the findings of sealed runs in the register, and close those that no longer exist.

The register follows the evidence ledger, bundle by bundle in the order of the seals. It reads each
verified bundle once. A finding that comes back while it is open is the same entry: the cause is the
workflow, step, part, code, subject and aspect of the finding. A finding is closed only by a later
complete run that examined its subject and did not report it again. The bundle of that run is the
evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
from include.services.objectstore.base import ObjectStore, StoreError
from include.state.connect import StateLock, lock_for_transaction
from include.state.findings import finding, finding_progress, finding_report
from include.state.tables import evidence_ledger

MAX_BUNDLES = 500  # that a call reads, so that a seal does not wait for a long backlog
MAX_NAME = 400  # bytes of a subject or part; an index entry has room for 2,704 bytes
MAX_UNREAD = 1000  # bundles that could not be read, whose numbers are kept
MAX_READ_AGAIN = 50  # of these bundles that a call reads again
MAX_UNFOLLOWED = 20  # bundles that concurrent seals may have added since the last call


class Cause(NamedTuple):
    """The identity of a finding. An open finding with the same cause is the same entry.

    Attributes:
        workflow: DAG id of the workflow; empty for findings about the evidence and the registers,
            which every workflow reports. These need a retest: a lost row or a changed file is
            reported only for some time, so a run without the report proves nothing.
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
        unread: folders of bundles that are not valid or cannot be read, so that their findings are
            unknown.
        last_seq: sequence number of the last bundle that the register has read; 0 if none.
        is_complete: whether the register has followed the ledger to its end.
    """

    bundles: int = 0
    opened: int = 0
    closed: int = 0
    unread: tuple[str, ...] = ()
    last_seq: int = 0
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
        StoreError: the evidence store does not answer. The next call continues.
    """
    followed = FollowedLedger()
    _read_again(state, bundle_reader, entry_rules, followed)
    while True:
        with state.connect() as conn:
            pruned = bundle_reader.pruned_up_to(conn)
            last, row = _last_read(conn), _next_row(conn)
        followed.last_seq = last
        if row is None:
            followed.is_complete = True
            break
        if followed.bundles == most:
            break
        if row.seq > last + 1 and not bundle_reader.is_authentic(row):
            break  # a forged number must not make the register skip the rows before it
        result = None
        if row.dag_id in entry_rules.closes_by_retest and row.seq > pruned:
            result = _read_result(bundle_reader, row)
            if result is None:
                followed.unread += (row.bundle,)
        with state.begin() as conn:
            lock_for_transaction(conn, StateLock.FINDINGS)
            if _last_read(conn) != last:
                continue  # another process entered this bundle
            if result is not None and not _try_to_enter(conn, row, result, entry_rules, followed):
                followed.unread += (row.bundle,)
            missing = range(max(last + 1, row.seq - MAX_UNREAD), row.seq)
            is_unread = row.bundle in followed.unread
            _advance(conn, row.seq, [*missing, *([row.seq] if is_unread else [])])
        followed.bundles += 1
    return followed


def _read_result(bundle_reader: BundleReader, row: LedgerRow) -> Result | None:
    """Return the result of a bundle; None if the bundle is not valid or cannot be read.

    Raises:
        StoreError: the evidence store does not answer.
    """
    try:
        return bundle_reader.result(row)
    except EvidenceRefused:
        return None
    except StoreError:
        if not _answers(bundle_reader.store):
            raise
        return None  # such as a file in a damaged sector of the disk


def _answers(store: ObjectStore) -> bool:
    """Return whether an evidence store lists its folders.

    A store without folders is a disk that is not mounted, because a row of the ledger exists.
    """
    try:
        return any(True for _folder in store.folders())
    except StoreError:
        return False


def _try_to_enter(
    conn: Connection,
    row: LedgerRow,
    result: Result,
    entry_rules: EntryRules,
    followed: FollowedLedger,
    *,
    is_late: bool = False,
) -> bool:
    """Enter the findings of a bundle, and return whether the database accepted them.

    A bundle that the database refuses must not block the seals of all later runs.
    """
    try:
        with conn.begin_nested():
            opened, closed = _enter(conn, row, result, entry_rules, is_late=is_late)
    except (DataError, IntegrityError):
        return False
    followed.opened += opened
    followed.closed += closed
    return True


def _read_again(
    state: Engine, bundle_reader: BundleReader, entry_rules: EntryRules, followed: FollowedLedger
) -> None:
    """Enter the findings of bundles that could not be read before, and were repaired since.

    These may also be bundles whose ledger rows were missing. A late bundle closes no finding.
    Bundles that still cannot be read go to the end of the list, so that the next call tries others.
    """
    with state.connect() as conn:
        numbers = unread_bundles(conn)[:MAX_READ_AGAIN]
        pruned = bundle_reader.pruned_up_to(conn)
        query = select(evidence_ledger).where(evidence_ledger.c.seq.in_(numbers))
        rows = [LedgerRow.of(row) for row in conn.execute(query).mappings()]
    for row in rows:
        is_known = row.dag_id in entry_rules.closes_by_retest and row.seq > pruned
        result = _read_result(bundle_reader, row) if is_known else None
        if is_known and result is None:
            continue
        with state.begin() as conn:
            lock_for_transaction(conn, StateLock.FINDINGS)
            unread = unread_bundles(conn)
            if row.seq not in unread:
                continue  # another process entered this bundle
            if result is None or _try_to_enter(
                conn, row, result, entry_rules, followed, is_late=True
            ):
                unread.remove(row.seq)
                conn.execute(update(finding_progress).values(unread=unread))
    if len(numbers) == MAX_READ_AGAIN:
        _move_to_end(state, numbers)


def _move_to_end(state: Engine, numbers: Collection[int]) -> None:
    """Move bundles to the end of the list of unread bundles, unless they were read meanwhile."""
    with state.begin() as conn:
        lock_for_transaction(conn, StateLock.FINDINGS)
        unread = sorted(unread_bundles(conn), key=lambda seq: seq in numbers)
        conn.execute(update(finding_progress).values(unread=unread))


def unread_bundles(conn: Connection) -> list[int]:
    """Return the sequence numbers of bundles whose findings are not in the register.

    These bundles did not verify, could not be read, or their findings could not be stored, when the
    register followed the ledger. They are in the order in which later calls read them again. At
    most the last 1000 are known.
    """
    return list(conn.scalar(select(finding_progress.c.unread)) or ())


def is_behind(conn: Connection) -> bool:
    """Return whether the register still follows a long part of the ledger.

    The register begins anew after the state database was lost and recovered, for example. Until it
    reaches the end of the ledger, it contains findings that later runs have closed.
    """
    rows = select(evidence_ledger.c.seq).where(evidence_ledger.c.seq > _last_read(conn))
    next_rows = rows.order_by(evidence_ledger.c.seq).offset(MAX_UNFOLLOWED).limit(1)
    return conn.scalar(next_rows) is not None


def _last_read(conn: Connection) -> int:
    """Return the sequence number of the last bundle that the register has read; 0 if none."""
    return int(conn.scalar(select(finding_progress.c.seq)) or 0)


def _next_row(conn: Connection) -> LedgerRow | None:
    """Return the ledger row of the first bundle that the register has not read; None at the end."""
    query = select(evidence_ledger).where(evidence_ledger.c.seq > _last_read(conn))
    row = conn.execute(query.order_by(evidence_ledger.c.seq).limit(1)).mappings().first()
    return None if row is None else LedgerRow.of(row)


def _advance(conn: Connection, seq: int, unread: Sequence[int]) -> None:
    """Record that the register has read the bundles up to a sequence number.

    Args:
        conn: connection to the state database, with an open transaction.
        seq: sequence number of the bundle.
        unread: sequence numbers of bundles whose findings could not be read, or whose ledger rows
            are missing. A later call reads them again.
    """
    numbers = [*unread_bundles(conn), *unread]
    newest = set(sorted(numbers)[-MAX_UNREAD:])
    values = {"seq": seq, "unread": [number for number in numbers if number in newest]}
    conn.execute(
        insert(finding_progress)
        .values(id=1, **values)
        .on_conflict_do_update(constraint=finding_progress.primary_key, set_=values)
    )


def _enter(
    conn: Connection, row: LedgerRow, result: Result, entry_rules: EntryRules, *, is_late: bool
) -> tuple[int, int]:
    """Enter the findings of a bundle, and close the findings that the bundle no longer reports.

    The findings of a drill are not entered, because its data is that of a sandbox. A refused run of
    a workflow whose findings need a retest is skipped: the person has corrected the inputs in
    another run.

    Args:
        conn: connection to the state database, with an open transaction.
        row: ledger row of the bundle.
        result: sealed result of the run.
        entry_rules: owners and due dates of findings.
        is_late: whether later bundles were entered before. The bundle then closes no finding.

    Returns:
        The number of findings that were entered, and of those that were closed.
    """
    opened = closed = 0
    needs_retest = entry_rules.closes_by_retest[row.dag_id]
    if result.is_drill or (result.could_not_run and needs_retest):
        return opened, closed
    entries = _open_entries(conn, row.dag_id)
    reported = dict(_causes(row, result, is_single=needs_retest))
    for position, (cause, reported_finding) in enumerate(reported.items(), 1):
        entry = entries.get(cause)
        if entry is None:
            number = _open(conn, row, position, cause, reported_finding, entry_rules)
            opened += 1
        else:
            number = entry.number
        _keep_report(conn, row, number, reported_finding)
    if is_late or needs_retest or not result.is_complete:
        return opened, closed
    for cause, entry in entries.items():
        is_later = entry.kind == RUN and result.run.started_at >= entry.reported_at
        if is_later and cause not in reported and _is_examined(cause, result):
            _close(conn, row, entry.number)
            closed += 1
    return opened, closed


class _Entry(NamedTuple):
    """An open finding: its number and kind, and when the bundle of its newest report was sealed.

    A run that started before that time may have examined the subject before the report, so it does
    not close the finding.
    """

    number: int
    kind: str
    reported_at: datetime


def _open_entries(conn: Connection, workflow: str) -> dict[Cause, _Entry]:
    cause = [finding.c.dag_id, *(finding.c[name] for name in Cause._fields[1:])]
    query = (
        select(finding.c.id, finding.c.kind, finding_report.c.reported_at, *cause)
        .join(finding_report, finding_report.c.finding_id == finding.c.id)
        .where(finding.c.closed_at.is_(None), finding.c.dag_id.in_((workflow, "")))
    )
    return {
        Cause(*fields): _Entry(number, kind, reported_at)
        for number, kind, reported_at, *fields in conn.execute(query)
    }


def _causes(row: LedgerRow, result: Result, *, is_single: bool) -> Iterator[tuple[Cause, Finding]]:
    """Yield each finding of a run with its cause.

    If several findings of the run have the same cause, a number in the aspect distinguishes them.

    Args:
        row: ledger row of the bundle.
        result: sealed result of the run.
        is_single: whether each run of the workflow is about something else, such as an incident.
            The number of the bundle is then a part of each cause.
    """
    counts: Counter[Cause] = Counter()
    for reported in result.findings:
        is_shared = reported.step == REGISTERS_STEP
        names = (reported.step, reported.part, reported.code, reported.subject, reported.aspect)
        cause = Cause("" if is_shared else row.dag_id, *map(_shorten, names))
        if is_single and not is_shared:
            cause = cause._replace(aspect=f"{cause.aspect}@{row.seq}")
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
    needs_retest = entry_rules.closes_by_retest[row.dag_id]
    period = rules.due_after_failure if is_failure else rules.due_after_attention
    values: dict[str, Any] = {
        "kind": RUN if cause.workflow and not needs_retest else EVENT,
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
            where=finding_report.c.seq < row.seq,
        )
    )


def _is_examined(cause: Cause, result: Result) -> bool:
    """Return whether a complete run examined the subject of a finding.

    Args:
        cause: cause of a finding of an earlier run.
        result: sealed result of the complete run.
    """
    if not cause.step:
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
