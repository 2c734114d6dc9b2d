"""The current state of each control of the policy pack: outcome and age of its newest evidence.

A control never has the outcome "passed" if its newest evidence is missing, changed or too old, even
if an earlier run passed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from include.evidence import control_index, index
from include.evidence.bundle_reader import BundleReader
from include.evidence.check import EvidenceRefused
from include.evidence.checkpoint import Checkpoint
from include.evidence.ledger import LedgerRow
from include.evidence.model import ControlState, ControlStatus, Finding, Outcome, Result
from include.evidence.verify import link_before
from include.messages import Message, _
from include.policy.period import Period, add_period, utc
from include.policy.rules import Control

AHEAD = timedelta(minutes=5)  # accepted difference between the clocks of two machines
# A run may take longer than the run before by the cadence divided by this: 2 hours of a day.
GRACE_DIVISOR = 12
_MOST_GRACE = timedelta(days=1)
TREND = 14  # newest outcomes that are shown
_SEARCHED_BUNDLES = (
    20  # newest bundles of a workflow that are searched for evidence of its controls
)


NOTHING_KNOWN: Mapping[str, datetime] = MappingProxyType({})
SEALED_AHEAD = _(
    "the bundle was sealed with a time in the future, so its age is unknown: a system clock "
    "was wrong"
)


class Age(StrEnum):
    """Whether a control's newest evidence is current according to the cadence in the policy pack.

    Attributes:
        IN_TIME: not older than one cadence and its grace period.
        LATE: older than one cadence and its grace period.
        STALE: older than two cadences.
        NEVER: the control has no evidence yet, and its first due date has not passed.
        MISSING: the control has no evidence, and its first due date has passed.
    """

    IN_TIME = "in_time"
    LATE = "late"  # older than one cadence and its grace
    STALE = "stale"  # older than two cadences
    NEVER = "never"  # without evidence, not due yet
    MISSING = "missing"  # without evidence, although due


@dataclass(frozen=True)
class ControlEvidence:
    """A control with its newest evidence and the outcomes of earlier evidence.

    Attributes:
        control: the control of the policy pack.
        row: ledger row of the newest evidence; None if the control has no evidence.
        status: status of the control in the newest bundle; None if this bundle is not valid or has
            no result for the control.
        problem: why the newest bundle is not valid or has no result for the control; None
            otherwise.
        due_at: when the next evidence is due, in UTC; None if the control has no evidence and no
            seal has known the control yet.
        age: whether the newest evidence is in time, late or stale according to the cadence;
            `Age.NEVER` or `Age.MISSING` if the control has no evidence. The age is counted from
            `finished_at`, or from the time of the seal if the bundle is not valid.
        trend: run outcomes of the 14 newest bundles that are evidence for the control, oldest
            first.
        findings: all findings of the newest bundle, including those against other clauses.
        finished_at: time at which the checks of the newest run ended, according to its signed
            result; None if the newest bundle is not valid.
        is_checked: whether the content of every file of the newest bundle was checked. False if the
            bundle is too large for a complete check.
        is_indexed: whether `status` comes from the history index, because the files of the bundle
            were removed after the past day that is shown.
    """

    control: Control
    row: LedgerRow | None
    status: ControlStatus | None
    problem: Message | None
    due_at: datetime | None
    age: Age
    trend: tuple[Outcome, ...] = ()
    findings: tuple[Finding, ...] = ()
    finished_at: datetime | None = None
    is_checked: bool = True
    is_indexed: bool = False

    @property
    def outcome(self) -> Outcome | None:
        """Return the outcome of the control.

        - None if the control has no evidence yet, and its first due date has not passed.
        - ``fail`` if the first due date has passed without evidence, if the newest bundle is not
          valid or does not mention the control, if it is older than two cadences, or if the
          measured value does not meet the target.
        - ``attention`` if the newest bundle says that the control was not measured, if the bundle
          is late, or if it is too large for a complete check.
        - ``pass`` in all other cases.
        """
        if self.age is Age.NEVER:
            return None
        if self.status is None:
            return Outcome.FAIL
        outcome = outcome_of(self.status.state, self.age)
        return outcome if self.is_checked else Outcome.worst([outcome, Outcome.ATTENTION])


def outcome_of(state: ControlState, age: Age) -> Outcome:
    """Return the outcome of a control from the state in its newest evidence and the age of it.

    Args:
        state: state of the control in its newest evidence.
        age: whether this evidence is in time, late or stale.
    """
    if age not in (Age.IN_TIME, Age.LATE) or state is ControlState.FAILED:
        return Outcome.FAIL
    if state is ControlState.NO_EVIDENCE or age is Age.LATE:
        return Outcome.ATTENTION
    return Outcome.PASS


@dataclass(frozen=True)
class PruneState:
    """Which bundles have no files any more.

    Attributes:
        pruned: sequence number of the last bundle whose files were removed at the time that is
            shown.
        pruned_later: sequence number of the last bundle whose files were removed after that time;
            not above `pruned` if the present is shown.
    """

    pruned: int = 0
    pruned_later: int = 0

    @classmethod
    def at(cls, checkpoint: Checkpoint | None, as_of: datetime | None) -> PruneState:
        """Return which bundles have no files at a time.

        Earlier checkpoints are deleted. So for a time before the newest checkpoint, it is not known
        which bundles were pruned before that time. They count as pruned later.

        Args:
            checkpoint: the newest checkpoint; None if no bundle was pruned.
            as_of: a past time; None for the present.
        """
        if checkpoint is None:
            return cls()
        if as_of is None or checkpoint.signed_at <= as_of:
            return cls(checkpoint.up_to_seq, checkpoint.up_to_seq)
        return cls(0, checkpoint.up_to_seq)


NOTHING_PRUNED = PruneState()


def read_control_evidence(
    conn: Connection,
    bundle_reader: BundleReader,
    controls: Sequence[Control],
    now: datetime,
    zone: ZoneInfo,
    pruned: PruneState = NOTHING_PRUNED,
    *,
    as_of: datetime | None = None,
    known_since: Mapping[str, datetime] = NOTHING_KNOWN,
) -> list[ControlEvidence]:
    """Return the evidence of each control, in the order of the given controls.

    Args:
        conn: connection to the state database.
        bundle_reader: reads and checks the bundles.
        controls: controls of the policy pack.
        now: the current time; ignored if `as_of` is given.
        zone: timezone of the policy pack, in which cadences of days or months are counted.
        pruned: bundles that have no files any more.
        as_of: a past time. The function returns the evidence that it would have returned at this
            time: it counts only bundles that were sealed at this time or before. None for the
            present.
        known_since: control -> time of the first seal whose policy pack had the control. The first
            evidence of a control is due one cadence later.

    Raises:
        StoreError: the evidence store cannot be read.
    """
    moment = now if as_of is None else as_of
    workflows = {control.workflow for control in controls}
    newest = index.newest_of(conn, workflows, _SEARCHED_BUNDLES, sealed_by=as_of)
    states = []
    for control in controls:
        rows = [row for row in newest.get(control.workflow, []) if control.id in row.controls]
        if not rows and len(newest.get(control.workflow, [])) == _SEARCHED_BUNDLES:
            older = index.newest_of(conn, {control.workflow}, TREND, {control.id}, sealed_by=as_of)
            rows = older.get(control.workflow, [])
        if rows:
            evidence = _evidence_of(
                conn, bundle_reader, control, rows[:TREND], moment, zone, pruned
            )
        else:
            evidence = _without_evidence(control, known_since.get(control.id), moment, zone)
        states.append(evidence)
    return states


def first_due(known_since: datetime | None, control: Control, zone: ZoneInfo) -> datetime | None:
    """Return when the first evidence of a control is due: a cadence after it became known.

    Return None if no seal has known the control yet.

    Args:
        known_since: time of the first seal whose policy pack had the control; None if none had.
        control: the control.
        zone: timezone in which cadences of days or months are counted.
    """
    return None if known_since is None else add_period(known_since, control.cadence, zone)


def _without_evidence(
    control: Control, known_since: datetime | None, now: datetime, zone: ZoneInfo
) -> ControlEvidence:
    due_at = first_due(known_since, control, zone)
    if known_since is None or utc(known_since) > utc(now):
        due_at = None  # at that time, no seal had known the control
    age = Age.MISSING if due_at is not None and utc(now) > due_at else Age.NEVER
    return ControlEvidence(control, None, None, None, due_at, age)


def _evidence_of(
    conn: Connection,
    bundle_reader: BundleReader,
    control: Control,
    rows: Sequence[LedgerRow],
    now: datetime,
    zone: ZoneInfo,
    pruned: PruneState,
) -> ControlEvidence:
    newest = rows[0]
    trend = tuple(Outcome(row.outcome) for row in reversed(rows))

    def invalid(problem: Message) -> ControlEvidence:
        due_at = add_period(newest.sealed_at, control.cadence, zone)
        age = age_at(now, newest.sealed_at, control.cadence, zone)
        return ControlEvidence(control, newest, None, problem, due_at, age, trend)

    removed = _("the files of the bundle were removed at the end of their retention period")
    if newest.seq <= pruned.pruned:
        return invalid(removed)
    if newest.seq <= pruned.pruned_later:
        return _indexed(conn, bundle_reader, control, newest, now, zone, trend) or invalid(removed)
    try:
        result = bundle_reader.result(newest)
        check = bundle_reader.checked(newest, lambda: link_before(conn, newest))
    except EvidenceRefused as refusal:
        return invalid(refusal.message)
    if check.problem is not None:
        return invalid(check.problem)
    if is_ahead(newest, result, now):
        return invalid(SEALED_AHEAD)
    status = next(
        (control_status for control_status in result.controls if control_status.id == control.id),
        None,
    )
    return ControlEvidence(
        control,
        newest,
        status,
        None if status else _("the newest evidence bundle has no result for this control"),
        add_period(result.finished_at, control.cadence, zone),
        age_at(now, result.finished_at, control.cadence, zone),
        trend,
        tuple(result.findings),
        finished_at=result.finished_at,
        is_checked=check.complete,
    )


def _indexed(
    conn: Connection,
    bundle_reader: BundleReader,
    control: Control,
    row: LedgerRow,
    now: datetime,
    zone: ZoneInfo,
    trend: tuple[Outcome, ...],
) -> ControlEvidence | None:
    """Return the evidence of a control on a past day from the history index.

    It is used if the files of the bundle were removed since that day. Return None if the ledger row
    was changed, or if the index has no row.
    """
    indexed = control_index.find(conn, control.id, row.seq)
    if indexed is None or not bundle_reader.is_authentic(row):
        return None
    status = ControlStatus(
        id=control.id,
        clause=indexed.clause,
        title=control.message,
        indicator=control.indicator.name,
        target=control.indicator.target,
        value=indexed.value,
        state=ControlState(indexed.state),
    )
    return ControlEvidence(
        control,
        row,
        status,
        None,
        add_period(indexed.finished_at, control.cadence, zone),
        age_at(now, indexed.finished_at, control.cadence, zone),
        trend,
        finished_at=indexed.finished_at,
        is_indexed=True,
    )


def is_ahead(row: LedgerRow, result: Result, now: datetime) -> bool:
    """Return whether a bundle was sealed, or its checks ended, more than 5 minutes after `now`.

    The age of the bundle is then unknown. Either the clock of this machine or the clock of the
    machine that sealed the bundle is wrong.

    Args:
        row: ledger row of the bundle.
        result: the bundle's signed result.
        now: the current time by the clock of this machine.
    """
    return max(utc(row.sealed_at), utc(result.finished_at)) > utc(now) + AHEAD


def age_at(now: datetime, finished_at: datetime, cadence: Period, zone: ZoneInfo) -> Age:
    """Return how old a control's evidence is, compared with the cadence of the control.

    Args:
        now: the time at which the age is determined.
        finished_at: time from which the age counts. For a valid bundle, it is the end of the run's
            checks according to the signed result. The time of the seal would be too late if the
            ledger row was lost and added again.
        cadence: the cadence of the control.
        zone: timezone in which cadences of days or months are counted.
    """
    late_at, stale_at = age_limits(utc(finished_at), cadence, zone)
    if utc(now) <= late_at:
        return Age.IN_TIME
    return Age.LATE if utc(now) <= stale_at else Age.STALE


@lru_cache(maxsize=65536)  # calendar arithmetic takes most of the time of a picture
def age_limits(finished_at: datetime, cadence: Period, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return until when evidence is in time, and until when it is not stale, both in UTC.

    Args:
        finished_at: time from which the age counts.
        cadence: the cadence of the control.
        zone: timezone in which cadences of days or months are counted.
    """
    due_at = add_period(finished_at, cadence, zone)
    grace = min((due_at - utc(finished_at)) / GRACE_DIVISOR, _MOST_GRACE)
    return due_at + grace, add_period(due_at, cadence, zone)


def worst(outcomes: Iterable[Outcome | None]) -> Outcome | None:
    """Return the worst of several outcomes; None if there is none.

    Args:
        outcomes: outcomes. None, for controls without evidence yet, is ignored.
    """
    definite = [outcome for outcome in outcomes if outcome is not None]
    return Outcome.worst(definite) if definite else None


@dataclass(frozen=True)
class ClauseFindings:
    """The findings of one bundle against one clause.

    Attributes:
        row: ledger row of the bundle.
        findings: the findings; at least one.
    """

    row: LedgerRow
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class ClauseEvidence:
    """A clause of the policy with the evidence of its controls and the findings against it.

    Attributes:
        clause: number of the clause.
        controls: evidence of the clause's controls; empty if the clause has findings but no
            controls.
        findings_by_bundle: findings against the clause, newest bundle first. A bundle is listed
            only once, even if it is evidence for several controls.
    """

    clause: str
    controls: tuple[ControlEvidence, ...]
    findings_by_bundle: tuple[ClauseFindings, ...]

    @property
    def is_readable(self) -> bool:
        """Return whether each control's newest bundle is valid and has a result for the control."""
        return all(control.status is not None for control in self.controls)

    @property
    def outcome(self) -> Outcome | None:
        """Return the worst of the controls' outcomes and the findings' severities.

        Return None if no control has evidence yet, and there is no finding.
        """
        severities = [
            finding.severity for bundle in self.findings_by_bundle for finding in bundle.findings
        ]
        return worst([*(control.outcome for control in self.controls), *severities])


def by_clause(controls: Collection[ControlEvidence]) -> list[ClauseEvidence]:
    """Group controls and the findings of their bundles by clause. Sort the clauses by number.

    Clauses without a control are included if a finding refers to them.

    Args:
        controls: the controls with their newest evidence.
    """
    bundles: dict[int, ControlEvidence] = {}
    for evidence in controls:
        if evidence.row is not None:
            bundles.setdefault(evidence.row.seq, evidence)
    newest_first = [bundles[seq] for seq in sorted(bundles, reverse=True)]
    clauses = {evidence.control.clause for evidence in controls} | {
        _clause_of(finding, bundle) for bundle in newest_first for finding in bundle.findings
    }
    return [
        ClauseEvidence(
            clause,
            tuple(evidence for evidence in controls if evidence.control.clause == clause),
            tuple(_findings_against(clause, newest_first)),
        )
        for clause in sorted(clauses, key=clause_order)
    ]


def _findings_against(clause: str, bundles: Sequence[ControlEvidence]) -> Iterator[ClauseFindings]:
    for bundle in bundles:
        findings = tuple(
            finding for finding in bundle.findings if _clause_of(finding, bundle) == clause
        )
        if findings and bundle.row is not None:
            yield ClauseFindings(bundle.row, findings)


def _clause_of(finding: Finding, bundle: ControlEvidence) -> str:
    """Return the clause to which a finding refers.

    If the finding names no clause, return the clause of the control.

    Args:
        finding: a finding of the bundle.
        bundle: the control with its newest bundle.
    """
    return finding.clause or bundle.control.clause


def clause_order(clause: str) -> tuple[tuple[int, str], ...]:
    """Return the sort key of a clause, by which 5.10 comes after 5.9."""
    return tuple((int(part) if part.isdecimal() else 0, part) for part in clause.split("."))
