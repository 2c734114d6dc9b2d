"""The results of the steps of `enforce_retention`, and the names of these steps.

A result contains counts, and the file numbers and names of people from the registers. It contains
no key or other value of a record.
"""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import AwareDatetime

from include.approvals.reasons import COMMAND_LINE
from include.approvals.registry import APPROVE, RefusalCause
from include.evidence.step_findings import StepResult
from include.frozen import FrozenModel
from include.holds.records import StoredRestorePoint
from include.holds.registry import HoldKind
from include.retention.certificate.count.inspection import Orphans, RemainingRecords
from include.retention.execution.counts import Stop
from include.retention.planning.breaker import ExceededLimit
from include.retention.planning.plan import PlannedClass, Reaction

CLAUSE = "5.3"
STEP_PLAN, STEP_APPROVE, STEP_EXECUTE, STEP_VERIFY = "plan", "approve", "execute", "verify"
KIND = "retention"


RequestState = Literal[
    "closed", "closed_late", "restricted", "restricted_late", "overdue", "open", "not_found"
]


class EffectiveHold(FrozenModel):
    """A legal hold that keeps records that would otherwise be disposed of.

    Attributes:
        hold: number of the hold in the register.
        kind: type of object that the hold names, such as a data subject.
        reason: reason for the hold.
        owner: person responsible for the hold.
        case: number of the case, claim or order that requires the hold.
        review_on: date on which the owner reviews the hold.
    """

    hold: int
    kind: HoldKind
    reason: str
    owner: str
    case: str
    review_on: date


class PlanResult(StepResult):
    """The result of the planning step for one database.

    Attributes:
        as_of: time for which the plan was made.
        sha256: SHA-256 of the plan file.
        classes: record classes in the order of retention.yaml.
        tripped: limits that record classes exceed. If there is at least one, the plan needs an
            approval.
        started_by: user id of the person who started the run; None for a scheduled run.
        key_id: id of the HMAC key from which the seed of the plan's digests is derived.
        holds_that_counted: number of active legal holds that the plan respects.
        holds: legal holds that keep records.
        reactions: triggers, rules and publications on the tables that the plan changes.
        request: id of the approval request; None if no approval was requested.
        asked_at: time at which approval was requested.
        asked_for: user ids of the people in whose name the approval was requested. They are the
            owners of the plan, and may not approve it. Empty if no approval was requested.
    """

    as_of: AwareDatetime
    sha256: str
    classes: list[PlannedClass]
    tripped: list[ExceededLimit]
    started_by: str | None
    key_id: str
    holds_that_counted: int
    holds: list[EffectiveHold]
    reactions: list[Reaction]
    request: int | None = None
    asked_at: AwareDatetime | None = None
    asked_for: tuple[str, ...] = ()


class ApprovalResult(StepResult):
    """The result of the approval step for one database.

    Attributes:
        asked: whether the plan needed an approval.
        decision: the option that the approver chose in the form; empty if nobody decided in time,
            None before the decision.
        decided_by: user id of the person who decided.
        decided_at: time of the decision.
        reason: reason that the person gave; None for an invalid decision.
        refused: reason why the decision is invalid; None for a valid decision.
    """

    asked: bool
    decision: str | None = None
    decided_by: str | None = None
    decided_at: AwareDatetime | None = None
    reason: str | None = None
    refused: RefusalCause | None = None

    @property
    def is_approved(self) -> bool:
        """Whether a valid decision approved the plan."""
        return self.decision == APPROVE and self.reason is not None

    @property
    def is_from_command_line(self) -> bool:
        """Whether the decision was given on the command line with the option `--answer`.

        The reason of such a decision begins with a text that says so.
        """
        return (self.reason or "").startswith(COMMAND_LINE)


class ExecutionResult(StepResult):
    """The result of the execution step for one database.

    Attributes:
        done: number of records that all attempts of this run erased according to the erasure
            ledger, by record class.
        executed_as: database user of the execution.
        counted: number of records that this attempt erased according to the database, by record
            class.
        entered: number of records that this attempt wrote to the erasure ledger, by record class.
        partitions: number of planned partitions that were dropped, by record class.
        waiting: number of records that could be erased but were not planned, by record class.
        staying: number of planned records that remain, by record class and reason. The reasons are
            ``held``, ``suspended``, ``kept_longer``, ``kept_by_reference``, ``due`` and
            ``not_due``.
        stopped: reason why the execution stopped early; None if it was completed.
        refused: number of records that the database refused to change. The key is the name of the
            record class and the SQLSTATE, separated by a space.
        inserted: number of rows that triggers or rules inserted, by table.
        updated: number of rows that triggers or rules updated as retention.yaml allows, by table.
        busy: number of batches that failed because other sessions held locks, by record class.
        locked: number of records that were not erased, by record class. Either other sessions
            locked these records, or statements took too long.
        knots: number of records in reference cycles that are too large for one transaction, by
            record class. The true number may be higher.
        given_up: record classes that were skipped because the database refused too many of their
            records.
        slow: record classes for which a statement took too long.
        longest_transaction_ms: duration of the longest transaction in milliseconds.
        not_approved: record classes that need an approval and have none.
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
        """Return how many records of a record class the database refused to change, by SQLSTATE."""
        refusals = {}
        for key, records in self.refused.items():
            name, code = key.rsplit(" ", 1)
            if name == record_class:
                refusals[code] = records
        return refusals


class RequestResult(FrozenModel):
    """The state of an erasure request after the verification.

    Attributes:
        request: id of the erasure request.
        reference: file number of the request.
        received_on: day on which the company received the request.
        due_on: last day on which the erasure is in time.
        left: number of remaining records in record classes that are erased on request.
        unexplained: number of these remaining records that have no reason to remain.
        taken_over: number of these remaining records that now belong to another data subject.
        state: state of the request.
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
    """The batches that this run wrote to the erasure ledger for one database.

    A batch is settled if the ledger records that its records were erased.

    Attributes:
        batches: number of settled batches.
        first: lowest id of a settled batch; None if no batch is settled.
        last: highest id of a settled batch; None if no batch is settled.
        begun: time of the first erasure; None if no batch is settled.
        ended: time of the last erasure; None if no batch is settled.
        key_ids: ids of the HMAC keys with which the records are identified.
    """

    batches: int
    first: int | None
    last: int | None
    begun: AwareDatetime | None
    ended: AwareDatetime | None
    key_ids: list[str]


class VerificationResult(StepResult):
    """The result of the verification step for one database.

    Attributes:
        left: numbers of expired records that remain, one item for each record class.
        orphans: numbers of records whose foreign key refers to a record that does not exist.
        done: number of records that this run erased according to the erasure ledger, by record
            class.
        unexplained: number of expired records that remain without a reason.
        requests: erasure requests that are open or that this run closed.
        requests_open: number of requests that are still open.
        requests_closed: number of requests that this run closed.
        requests_overdue: number of requests that are overdue or were completed late.
        verified_at: time at which the verification ended.
        ledger: batches of this run in the erasure ledger.
        copies: restore points that may contain erased records; None if the off-site store could not
            be read.
    """

    left: list[RemainingRecords]
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
