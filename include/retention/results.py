"""The results of the steps of `enforce_retention`, and the names that the steps share.

They have numbers, file numbers and people of the registries; never a key or a value of a record.
"""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import AwareDatetime

from include.approvals.reasons import COMMAND_LINE
from include.approvals.registry import APPROVE, Cause
from include.evidence.step_findings import StepResult
from include.frozen import FrozenModel
from include.holds.records import StoredRestorePoint
from include.holds.registry import HoldKind
from include.retention.certificate.count.inspection import Left, Orphans
from include.retention.execution.counts import Stop
from include.retention.planning.breaker import Tripped
from include.retention.planning.plan import PlannedClass, Reaction

CLAUSE = "5.3"
STEP_PLAN, STEP_APPROVE, STEP_EXECUTE, STEP_VERIFY = "plan", "approve", "execute", "verify"
KIND = "retention"


RequestState = Literal[
    "closed", "closed_late", "restricted", "restricted_late", "overdue", "open", "not_found"
]


class EffectiveHold(FrozenModel):
    """A hold that keeps expired records, without its value, which is a key of records.

    Attributes:
        hold: number in the registry.
        kind: of the hold.
        reason: for it.
        owner: who placed it.
        case: the case, claim or order behind it.
        review_on: when its owner has to review it.
    """

    hold: int
    kind: HoldKind
    reason: str
    owner: str
    case: str
    review_on: date


class PlanResult(StepResult):
    """The plan of a database.

    Attributes:
        as_of: moment for which it was made.
        sha256: of the plan's file.
        classes: in the order of retention.yaml.
        tripped: classes that exceed a limit.
        started_by: user id of the person who started the run; None for a scheduled run.
        key_id: erasure key under which records are named.
        holds_that_counted: number of the holds that the plan respects.
        holds: those of them that keep expired records.
        reactions: triggers, rules and publications of the tables that the plan may change.
        request: id of the request for approval; None if nobody is asked.
        asked_at: when approval was requested.
        asked_for: user ids of the owners; none of them may approve.
    """

    as_of: AwareDatetime
    sha256: str
    classes: list[PlannedClass]
    tripped: list[Tripped]
    started_by: str | None
    key_id: str
    holds_that_counted: int
    holds: list[EffectiveHold]
    reactions: list[Reaction]
    request: int | None = None
    asked_at: AwareDatetime | None = None
    asked_for: tuple[str, ...] = ()


class ApprovalResult(StepResult):
    """The approval of a plan.

    Attributes:
        asked: whether a person was asked.
        decision: the chosen answer; empty if nobody answered in time, None before an answer.
        decided_by: user id of the person who answered.
        decided_at: when.
        reason: the person's words; None unless the decision counts.
        refused: why the answer does not count; None if it does.
    """

    asked: bool
    decision: str | None = None
    decided_by: str | None = None
    decided_at: AwareDatetime | None = None
    reason: str | None = None
    refused: Cause | None = None

    @property
    def is_approved(self) -> bool:
        """Whether a decision that counts approved the plan."""
        return self.decision == APPROVE and self.reason is not None

    @property
    def is_from_command_line(self) -> bool:
        """Whether `--answer` gave the answer, which its reason begins with."""
        return (self.reason or "").startswith(COMMAND_LINE)


class ExecutionResult(StepResult):
    """The execution of a plan. All counts are of records by class, unless they say otherwise.

    Attributes:
        done: erased by this run, by the ledger, over all tries.
        executed_as: database user.
        counted: erased by this try, by the database.
        entered: entered in the ledger by this try.
        partitions: dropped partitions of the plan.
        waiting: erasable records in excess of the plan.
        staying: planned records that remain, by reason: ``held``, ``suspended``, ``kept_longer``,
            ``kept_by_reference``, ``due``, ``not_due``.
        stopped: why the execution stopped early.
        refused: records that the database refused, by class and SQLSTATE with a blank between.
        inserted: rows that triggers or rules inserted, by table.
        updated: rows that triggers or rules updated as retention.yaml allows, by table.
        busy: batches that were given up because other sessions held locks.
        locked: erasable records that stayed because other sessions held locks.
        knots: minimum number of records in cycles of references that are too large.
        given_up: classes that were skipped after the database refused too many of their records.
        slow: classes with a statement that took too long.
        longest_transaction_ms: duration of the longest transaction.
        not_approved: classes that nobody approved.
    """

    done: dict[str, int]
    executed_as: str | None
    counted: dict[str, int]
    entered: dict[str, int]
    partitions: dict[str, int]
    waiting: dict[str, int]
    staying: dict[str, dict[str, int]]
    stopped: Stop | None
    refused: dict[str, int]
    inserted: dict[str, int]
    updated: dict[str, int]
    busy: dict[str, int]
    locked: dict[str, int]
    knots: dict[str, int]
    given_up: list[str]
    slow: list[str]
    longest_transaction_ms: int
    not_approved: list[str]

    def refusals(self, record_class: str) -> dict[str, int]:
        """Return the records of a class that the database refused, by SQLSTATE."""
        refusals = {}
        for key, records in self.refused.items():
            name, code = key.rsplit(" ", 1)
            if name == record_class:
                refusals[code] = records
        return refusals


class RequestResult(FrozenModel):
    """The state of a data subject's request, by its file number.

    Attributes:
        request: its id.
        reference: of the request's file.
        received_on: when the data subject asked.
        due_on: last day on which erasing is in time.
        left: remaining records in classes that a request erases.
        unexplained: of these, those that nothing keeps.
        taken_over: of these, those that belong to another data subject by now.
        state: what the count afterwards means for it.
    """

    request: int
    reference: str
    received_on: date
    due_on: date
    left: int
    unexplained: int
    taken_over: int = 0
    state: RequestState


class LedgerEntries(FrozenModel):
    """The entries of this run in the erasure ledger.

    Attributes:
        batches: number of settled batches.
        first: their lowest number; None without one.
        last: their highest number.
        begun: when the first one was erased.
        ended: when the last one was erased.
        key_ids: erasure keys under which records are named.
    """

    batches: int
    first: int | None
    last: int | None
    begun: AwareDatetime | None
    ended: AwareDatetime | None
    key_ids: list[str]


class VerificationResult(StepResult):
    """The count afterwards.

    Attributes:
        left: remaining expired records, by class.
        orphans: records whose foreign key leads nowhere.
        done: erased by this run, by the ledger; records by class.
        unexplained: remaining expired records that nothing keeps.
        requests: those that are open, or that this run closed.
        requests_open: their number.
        requests_closed: number of requests that this run closed.
        requests_overdue: number of requests that are late.
        verified_at: when the count ended.
        ledger: entries of this run.
        copies: restore points that hold erased records; None if the store could not be read.
    """

    left: list[Left]
    orphans: list[Orphans]
    done: dict[str, int]
    unexplained: int
    requests: list[RequestResult]
    requests_open: int
    requests_closed: int
    requests_overdue: int
    verified_at: AwareDatetime
    ledger: LedgerEntries
    copies: list[StoredRestorePoint] | None
