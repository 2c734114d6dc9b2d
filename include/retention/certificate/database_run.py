"""The results of a retention run in one database, and texts for the certificate of deletion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from include.holds.registry import HoldKind
from include.messages import Message, _, listed, verbatim
from include.policy.datamap import MappedCollection, MappedDatabase
from include.policy.period import Period
from include.policy.retention import Clock, RetentionRule, SqlClock
from include.policy.rules import Source, translated_message
from include.retention.certificate.count.inspection import RemainingRecords
from include.retention.execution.batch_actions import KeptByTrigger
from include.retention.planning.plan import KeptBy, PlannedClass, suspension_reason
from include.retention.postgres.transaction_counters import UnrecordedChanges
from include.retention.results import (
    ApprovalResult,
    ExecutionResult,
    PlanResult,
    RequestState,
    VerificationResult,
)


@dataclass(frozen=True)
class PastRun:
    """A past run and the number of records of one database that it deleted or masked.

    Attributes:
        at: time for which the disposition plan of the run was made.
        done: number of records that the run deleted or masked; None if it executed no plan.
    """

    at: datetime
    done: int | None


@dataclass(frozen=True)
class DatabaseRun:
    """The results of the steps of a retention run in one database.

    Attributes:
        database: the database in the data map.
        rules: record classes of the database.
        plan: result of the planning step; None if the step has no result.
        approval: result of the approval step; None if the step has no result.
        execution: result of the execution step; None if the step has no result.
        verification: result of the verification step; None if the step has no result.
        trend: numbers of erased records in past runs and in this run, oldest run first.
    """

    database: MappedDatabase
    rules: Sequence[RetentionRule]
    plan: PlanResult | None = None
    approval: ApprovalResult | None = None
    execution: ExecutionResult | None = None
    verification: VerificationResult | None = None
    trend: Sequence[PastRun] = ()

    @property
    def is_complete(self) -> bool:
        """Whether planning, execution and verification have results."""
        return bool(self.plan and self.execution and self.verification)

    @property
    def classes(self) -> list[PlannedClass]:
        """The record classes in the disposition plan, in the order of retention.yaml.

        The list is empty if the run has no plan.
        """
        return self.plan.classes if self.plan else []

    def rule(self, name: str) -> RetentionRule | None:
        """Return a record class of the policy pack, or None if the policy pack no longer has it."""
        return next((rule for rule in self.rules if rule.record_class == name), None)

    def collection(self, name: str) -> MappedCollection | None:
        """Return a collection, or None if the data map has problems or does not contain it."""
        return None if self.database.is_faulty else self.database.collections.get(name)

    def title(self, name: str) -> Message | str:
        """Return the title of a record class for display.

        If the policy pack no longer has the record class, return the name of the record class.
        """
        rule = self.rule(name)
        return rule.message if rule else name

    @property
    def _done(self) -> Mapping[str, int] | None:
        latest = self.verification or self.execution
        return latest.done if latest else None

    def erased(self, planned: PlannedClass) -> int | None:
        """Return how many records of a record class this run deleted or masked.

        Return None if neither the execution nor the verification has a result.

        Args:
            planned: the record class in the plan.
        """
        return None if self._done is None else self._done.get(planned.name, 0)

    def planned_but_not_erased(self, planned: PlannedClass) -> int | None:
        """Return how many planned records of a record class this run did not delete or mask.

        Return None if neither the execution nor the verification has a result.

        Args:
            planned: the record class in the plan.
        """
        erased = self.erased(planned)
        return None if erased is None else max(0, planned.planned - erased)

    def deleted(self) -> int | None:
        """Return how many records this run deleted, including the records of dropped partitions.

        Return None if the plan, or the number of erased records, is missing.
        """
        return self._all_erased(masked=False)

    def masked(self) -> int | None:
        """Return how many records this run masked.

        Return None if the plan, or the number of erased records, is missing.
        """
        return self._all_erased(masked=True)

    def _all_erased(self, *, masked: bool) -> int | None:
        if not self.plan or self._done is None:
            return None
        return sum(
            self.erased(planned) or 0
            for planned in self.classes
            if (planned.action == "mask") is masked
        )

    def left(self, name: str) -> RemainingRecords | None:
        """Return the numbers of remaining records of a record class.

        The verification counted these records. Return None if it did not count the record class.

        Args:
            name: name of the record class.
        """
        left = self.verification.left if self.verification else ()
        return next((remaining for remaining in left if remaining.name == name), None)


HOLD_KINDS = {
    HoldKind.SUBJECT: _("data subject"),
    HoldKind.WAYBILL: _("waybill"),
    HoldKind.CASE: _("case"),
    HoldKind.CLASS: _("record class"),
    HoldKind.DATABASE: _("database"),
}
REQUEST_STATES: dict[RequestState, Message] = {
    "closed": _("closed on time"),
    "closed_late": _("closed late"),
    "restricted": _(
        "answered on time with a restriction: records remain because of a legal hold, a law or "
        "a reference from another record"
    ),
    "restricted_late": _(
        "answered after the due date with a restriction: records remain because of a legal "
        "hold, a law or a reference from another record"
    ),
    "overdue": _("overdue"),
    "open": _("open"),
    "not_found": _("still open: no record matches the key that was entered in the request"),
}


def period_text(period: Period) -> Message:
    """Return a period as text, such as "3 years"."""
    years, months = divmod(period.months, 12)
    minutes, seconds = divmod(period.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = [
        message
        for count, message in (
            (years, _("1 year") if years == 1 else _("{n} years", n=years)),
            (months, _("1 month") if months == 1 else _("{n} months", n=months)),
            (period.days, _("1 day") if period.days == 1 else _("{n} days", n=period.days)),
            (hours, _("{n} h", n=hours)),
            (minutes, _("{n} min", n=minutes)),
            (seconds, _("{n} s", n=seconds)),
        )
        if count
    ]
    return listed(parts) if parts else _("no period")


def retention_text(rule: RetentionRule, collection: MappedCollection | None) -> Message:
    """Return the retention period of a record class as text, such as "3 years after delivery".

    If laws require minimum periods, the text names them with their sources.

    Args:
        rule: the record class.
        collection: its collection, whose field titles the text contains; None if the data map does
            not contain the collection, so that the text contains column names.
    """
    text = _start_text(rule.period, rule.clock, collection)
    for minimum in rule.minimum:
        clock, period = minimum.clock, minimum.period
        text = _(
            "{period}; at least {minimum} under {source}",
            period=text,
            minimum=_start_text(period, clock, collection) if clock else period_text(period),
            source=minimum.basis.message,
        )
    return text


def _field_title(collection: MappedCollection | None, column: str) -> Message:
    return collection.field_title(column) if collection else verbatim(column)


def _start_text(period: Period, clock: Clock, collection: MappedCollection | None) -> Message:
    if isinstance(clock, SqlClock):
        start = (
            translated_message(clock.title)
            if clock.title
            else _("the date that the retention schedule defines for this record class")
        )
    else:
        starts = [_field_title(collection, column) for column in clock]
        start = (
            starts[0] if len(starts) == 1 else _("the latest of {columns}", columns=listed(starts))
        )
    if not (period.months or period.days or period.seconds):
        return _("until {start}", start=start)
    return _("{period} after {start}", period=period_text(period), start=start)


def basis_text(rule: RetentionRule) -> Message:
    """Return the law or other source that sets the retention period of a record class, as text."""
    if isinstance(rule.basis, Source):
        return rule.basis.message
    return _("the company's own decision")


def disposition_text(rule: RetentionRule, collection: MappedCollection | None) -> Message:
    """Return the disposition of a record class as text, such as "deleted".

    Args:
        rule: the record class.
        collection: its collection, whose field titles the text contains; None if the data map does
            not contain the collection, so that the text contains column names.
    """
    match rule.action:
        case "delete":
            text = _("deleted")
        case "drop_partition":
            text = _("deleted; a partition is dropped if all its records have expired")
        case "mask":
            columns = listed([_field_title(collection, column) for column in rule.mask])
            text = _("masked by GB/T 41833-2022: {columns}", columns=columns)
        case _:
            text = _("kept")
    return (
        _("{action}; on an erasure request also before the retention period ends", action=text)
        if rule.on_request
        else text
    )


def reasons_for_staying(case: DatabaseRun) -> list[tuple[Message | str, Message, int | None]]:
    """Return the reasons other than legal holds for which records were not deleted or masked.

    Args:
        case: results of the run in one database.

    Returns:
        For each record class and reason: the title of the record class, the reason, and the number
        of records.
    """
    return [
        (case.title(planned.name), reason, records)
        for planned in case.classes
        for reason, records in _reasons_of_class(case, planned)
        if records
    ]


def _reasons_of_class(case: DatabaseRun, planned: PlannedClass) -> list[tuple[Message, int]]:
    rule, execution = case.rule(planned.name), case.execution
    return [
        (suspension_reason(rule), planned.suspended),
        (
            _("another record class requires a longer retention of the same records"),
            planned.kept_longer,
        ),
        *(
            (_reference_text(case, by, planned.referred_by), by.records)
            for by in planned.referred_by
        ),
        (
            _(
                "the start date of a statutory retention period is missing, so the records "
                "never expire: enter the date, or define in the retention schedule how to "
                "compute the date"
            ),
            planned.minimum_not_started,
        ),
        (_("the start of the retention period is in the future: verify the date"), planned.ahead),
        (
            _(
                "the records became due for disposition after the plan was made; the next plan "
                "will contain them"
            ),
            execution.waiting.get(planned.name, 0) if execution else 0,
        ),
        *_reasons_not_erased(case, planned),
    ]


def _reference_text(case: DatabaseRun, by: KeptBy, others: Sequence[KeptBy]) -> Message:
    if by.collection is None:
        return _(
            "the table {table}, which is not in the data map, refers to the records", table=by.table
        )
    table = case.database.title_of(by.collection) if case.collection(by.collection) else by.table
    if [other.table for other in others].count(by.table) > 1:
        return _(
            "referenced by records of {table} (foreign key {constraint})",
            table=table,
            constraint=by.constraint,
        )
    return _("referenced by records of {table}", table=table)


_REFUSED = {
    KeptByTrigger.sqlstate: _("a database trigger prevented the disposition without an error"),
    UnrecordedChanges.sqlstate: _(
        "a trigger or rule of the database changed other records as well, so the transaction "
        "was rolled back"
    ),
}


def _reasons_not_erased(case: DatabaseRun, planned: PlannedClass) -> list[tuple[Message, int]]:
    """Return why planned records of a record class were not deleted or masked.

    Args:
        case: results of the run in one database.
        planned: the record class in the plan.

    Returns:
        For each reason: the reason as text, and the number of records.
    """
    left, execution = case.planned_but_not_erased(planned), case.execution
    if not left:
        return []
    reasons: list[tuple[Message, int]] = []
    for code, records in (execution.refusals(planned.name) if execution else {}).items():
        refused = _("the database refused the disposition (SQLSTATE {code})", code=code)
        reasons.append((_REFUSED.get(code, refused), records))
        left -= records
    if left <= 0:
        return reasons
    if reason := _main_reason(case, planned):
        return [*reasons, (reason, left)]
    for name, counted in (execution.staying.get(planned.name, {}) if execution else {}).items():
        records = min(left, counted)
        reasons.append((_STAYING[name], records))
        left -= records
    return [*reasons, (_UNKNOWN_REASON, max(0, left))]


_UNKNOWN_REASON = _("not processed for an unknown reason: no change and no legal hold was found")
_STAYING = {
    "held": _("a legal hold was placed on the records after the plan was made"),
    "suspended": _(
        "after the plan was made, a condition of the record class suspended the disposition"
    ),
    "kept_longer": _(
        "another record class required a longer retention of the same records "
        "after the plan was made"
    ),
    "kept_by_reference": _("referenced by other records that were not disposed of"),
    "due": _UNKNOWN_REASON,
    "not_due": _("the records were changed or deleted after the plan was made"),
}


def _main_reason(case: DatabaseRun, planned: PlannedClass) -> Message | None:
    """Return why the execution did not erase all planned records of a record class.

    Return None if no reason is known that applies to the record class as a whole.

    Args:
        case: results of the run in one database.
        planned: the record class in the plan.
    """
    name, left = planned.name, case.left(planned.name)
    if execution := case.execution:
        if name in execution.not_approved:
            return _("the disposition plan was not approved")
        if execution.stopped == "budget":
            return _("the time limit of the run expired; the next run continues with these records")
        if execution.stopped == "window":
            return _(
                "the daily window for deletions ended; the next run continues with these records"
            )
        if name in execution.knots:
            return _(
                "the records refer to each other in a cycle that is too large for one transaction"
            )
        if name in execution.given_up:
            return _(
                "not tried: the database had already refused too many records of this record class"
            )
        if name in execution.slow:
            return _("the disposition of the records timed out in the database; see the finding")
        if execution.locked.get(name):
            return _("other database sessions had locked the records; the next run tries again")
        if times := execution.busy.get(name):
            return _(
                "{times} attempts failed, because other database sessions had locked records; "
                "the next run tries again",
                times=times,
            )
    # For example, records of other classes that were not approved refer to them.
    if left and left.referred > planned.kept_by_reference:
        return _("referenced by other records that were not disposed of")
    return None
