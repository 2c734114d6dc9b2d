"""Read from sealed restore drills which databases and restore points were restored successfully.

A manifest only describes a restore point. Only a restore drill proves that it can be restored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from include.evidence import index
from include.evidence.bundle_reader import BundleReader
from include.evidence.check import EvidenceRefused
from include.evidence.control_evidence import (
    SEALED_AHEAD,
    Age,
    ControlEvidence,
    PruneState,
    is_ahead,
    read_control_evidence,
)
from include.evidence.ledger import LedgerRow
from include.evidence.model import Outcome, Result, StepRecord, StepSummary
from include.evidence.step_findings import StepResult
from include.messages import Message
from include.policy.period import add_period, utc
from include.policy.rules import Control
from include.services.objectstore.base import StoreError

WORKFLOW = "drill_restore"
STEPS = ("choose", "refusals", "drill")  # all are required to prove a restore point
MAX_BUNDLES = 20  # newest bundles of drills that are read; the bundle reader caches them


class PointResult(StepResult):
    """A step result that names the restore point of a restore drill.

    Attributes:
        restore_point: id of the restore point; empty if none was chosen.
    """

    restore_point: str = ""


class State(StrEnum):
    """The result of a database's newest restore drill, or the reason why the result is unknown."""

    PASSED = "passed"
    FAILED = "failed"
    LATE = "late"  # it passed, and is older than the cadence of its control
    UNCHECKED = "unchecked"  # it passed, and its bundle is too large to be checked for the page
    NEVER = "never"  # none of the newest bundles is about the database
    REFUSED = "refused"  # the newest bundle was changed or cannot be read
    UNREAD = "unread"  # the evidence store does not answer


_OUTCOMES = {
    State.PASSED: Outcome.PASS,
    State.FAILED: Outcome.FAIL,
    State.LATE: Outcome.ATTENTION,
    State.UNCHECKED: Outcome.ATTENTION,
    State.NEVER: Outcome.ATTENTION,
    State.REFUSED: Outcome.FAIL,
    State.UNREAD: Outcome.ATTENTION,
}


@dataclass(frozen=True)
class DatabaseDrill:
    """The result of a restore drill for one database, read from an evidence bundle.

    Attributes:
        row: row of the evidence ledger for the bundle.
        point: id of the restore point; empty if the drill ended before it chose a restore point.
        passed: whether all steps of the drill are recorded for the database and none of them
            failed; see `is_proved`.
        finished_at: time at which the run of the drill ended, as recorded in the sealed bundle.
    """

    row: LedgerRow
    point: str
    passed: bool
    finished_at: datetime


@dataclass(frozen=True)
class Proof:
    """The evidence from restore drills that a database can be restored.

    An evidence bundle is *accepted* if it could be read and is unchanged.

    Attributes:
        state: result of the database's newest restore drill when the evidence was read.
        newest: newest restore drill of the database in an accepted evidence bundle; None if no
            accepted bundle contains the database.
        refused: newest evidence bundle that is not accepted, and the reason; None unless this
            bundle is newer than the bundle of `newest`.
        points: newest drill of each restore point, by the id of the restore point.
    """

    state: State
    newest: DatabaseDrill | None = None
    refused: tuple[LedgerRow, Message] | None = None
    points: Mapping[str, DatabaseDrill] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """Return the control outcome that follows from the result of the newest restore drill.

        The outcome is *needs attention* if the database has no recent restore drill, or if the
        evidence of the newest drill could not be read or checked. It is *failed* if the newest
        drill failed or if the evidence was changed.
        """
        return _OUTCOMES[self.state]


def is_proved(steps: Mapping[tuple[str, str], StepRecord | StepSummary], database: str) -> bool:
    """Return whether the steps of a restore drill prove that a database can be restored.

    This is the case if all steps in `STEPS` are recorded for the database and none of them has
    failed.

    Args:
        steps: records of the drill's steps. The key is the name of the step and of the database.
        database: name of the database in the data map.
    """
    records = [steps.get((name, database)) for name in STEPS]
    return all(record is not None and record.outcome is not Outcome.FAIL for record in records)


def proofs(
    conn: Connection,
    bundle_reader: BundleReader,
    databases: Collection[str],
    controls: Sequence[Control],
    now: datetime,
    zone: ZoneInfo,
) -> dict[str, Proof]:
    """Return the evidence of the newest sealed restore drills for each database, by database name.

    Args:
        conn: connection to the state database.
        bundle_reader: reader of evidence bundles.
        databases: names of the databases in the data map.
        controls: controls of the policy pack that restore drills prove. A drill is recent if it is
            within the cadences of these controls.
        now: current time.
        zone: timezone of the policy pack, in which cadences of days or months are counted.
    """
    drills_of: dict[str, list[DatabaseDrill]] = {database: [] for database in databases}
    refused: dict[str, tuple[LedgerRow, Message]] = {}
    controls_now: list[ControlEvidence] = []
    has_answered = True
    try:
        pruned = bundle_reader.pruned_up_to(conn)
        controls_now = read_control_evidence(
            conn, bundle_reader, controls, now, zone, PruneState(pruned)
        )
        for row, result in _read(conn, bundle_reader, controls_now, now, pruned):
            for name, drills in drills_of.items():
                if isinstance(result, Message):
                    if not drills:
                        refused.setdefault(name, (row, result))
                elif (drill := _drill_in(row, result, name)) is not None:
                    drills.append(drill)
    except StoreError:
        has_answered = False
    proofs = {}
    for name, drills in drills_of.items():
        newest = drills[0] if drills else None
        refusal = refused.get(name)
        if refusal is not None:
            state = State.REFUSED
        elif newest is None:
            state = State.NEVER if has_answered else State.UNREAD
        elif not newest.passed:
            state = State.FAILED
        elif _is_late(newest, controls_now, now, zone):
            state = State.LATE
        else:
            evidence_of_drill = [
                evidence
                for evidence in controls_now
                if evidence.row and evidence.row.seq == newest.row.seq
            ]
            is_checked = all(evidence.is_checked for evidence in evidence_of_drill)
            state = State.PASSED if is_checked else State.UNCHECKED
        points = {drill.point: drill for drill in reversed(drills) if drill.point}
        proofs[name] = Proof(state, newest, refusal, points)
    return proofs


def _read(
    conn: Connection,
    bundle_reader: BundleReader,
    controls: Sequence[ControlEvidence],
    now: datetime,
    pruned: int,
) -> Iterator[tuple[LedgerRow, Result | Message]]:
    """Yield the evidence bundles of the newest restore drills, newest first; omit pruned bundles.

    Args:
        conn: connection to the state database.
        bundle_reader: reader of evidence bundles.
        controls: evidence of the controls. The bundles in it are already checked.
        now: current time.
        pruned: sequence number of the last pruned bundle; 0 if no bundle was pruned.

    Yields:
        The row of the evidence ledger, and the result that the bundle contains. If the bundle is
        not accepted, the second item is the reason.
    """
    problems = {
        evidence.row.seq: evidence.problem
        for evidence in controls
        if evidence.row and evidence.problem
    }
    for row in index.newest_of(conn, {WORKFLOW}, MAX_BUNDLES).get(WORKFLOW, []):
        if row.seq <= pruned:
            return
        if row.seq in problems:
            yield row, problems[row.seq]
        else:
            try:
                result = bundle_reader.result(row)
            except EvidenceRefused as refusal:
                yield row, refusal.message
            else:
                yield row, SEALED_AHEAD if is_ahead(row, result, now) else result


def _is_late(
    drill: DatabaseDrill, controls: Sequence[ControlEvidence], now: datetime, zone: ZoneInfo
) -> bool:
    """Return whether a database's newest restore drill is older than the cadence of any control.

    If the newest evidence bundle contains the drill, `read_control_evidence` has already determined
    whether the drill is late, and this result is used. If newer bundles do not contain the
    database, the drill is late as soon as one of the cadences has ended, without a grace period.

    Args:
        drill: newest restore drill of the database.
        controls: evidence of the controls that restore drills prove.
        now: current time.
        zone: timezone of the policy pack, in which cadences of days or months are counted.
    """
    ages = [
        evidence.age for evidence in controls if evidence.row and evidence.row.seq == drill.row.seq
    ]
    if ages:
        return any(age is not Age.IN_TIME for age in ages)
    cadences = [evidence.control.cadence for evidence in controls]
    return any(utc(now) > add_period(drill.finished_at, cadence, zone) for cadence in cadences)


def _drill_in(row: LedgerRow, result: Result, database: str) -> DatabaseDrill | None:
    """Return the drill of a database from an evidence bundle; None if the bundle lacks it.

    A step that ended with an error does not name the restore point. Therefore, the restore point is
    read from the last recorded step that names it.

    Args:
        row: row of the evidence ledger for the bundle.
        result: result that the bundle contains.
        database: name of the database in the data map.
    """
    steps = {(step.step, step.part): step for step in result.steps}
    own = [step for name in reversed(STEPS) if (step := steps.get((name, database)))]
    failed = any(
        finding.subject == database and finding.severity is Outcome.FAIL
        for finding in result.findings
    )
    if not own and not failed:  # a finding without steps: the drill failed early
        return None
    ids = (PointResult.model_validate(step.data).restore_point for step in own)
    point = next(filter(None, ids), "")
    return DatabaseDrill(row, point, is_proved(steps, database), result.finished_at)
