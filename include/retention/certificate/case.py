"""The results of a run for a database, and their texts in the certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from include.holds.registry import HoldKind
from include.messages import Message, _, listed, verbatim
from include.policy.datamap import MappedDatabase
from include.policy.period import Period
from include.policy.retention import Clock, RetentionRule, SqlClock
from include.policy.rules import Source
from include.retention.certificate.count.inspection import Left
from include.retention.execution.batch_actions import Kept
from include.retention.planning.plan import KeptBy, PlannedClass
from include.retention.postgres.transaction_counters import ChangedUnrecorded
from include.retention.results import (
    ApprovalResult,
    ExecutionResult,
    PlanResult,
    RequestState,
    VerificationResult,
)


@dataclass(frozen=True)
class Past:
    """The number of records that a run erased from a database; None if it executed nothing."""

    at: datetime
    done: int | None


@dataclass(frozen=True)
class Case:
    """One database of a run. Figures of a step without a result are None.

    Attributes:
        database: of the data map.
        rules: its record classes.
        plan: result of the plan.
        approval: result of the approval.
        execution: result of the execution.
        proof: result of the count afterwards.
        trend: past runs, this one included.
    """

    database: MappedDatabase
    rules: Sequence[RetentionRule]
    plan: PlanResult | None = None
    approval: ApprovalResult | None = None
    execution: ExecutionResult | None = None
    proof: VerificationResult | None = None
    trend: Sequence[Past] = ()

    @property
    def whole(self) -> bool:
        """Whether plan, execution and count came to their end."""
        return bool(self.plan and self.execution and self.proof)

    @property
    def classes(self) -> list[PlannedClass]:
        """The record classes as planned, in the order of the schedule."""
        return self.plan.classes if self.plan else []

    def rule(self, name: str) -> RetentionRule | None:
        """Return a record class of the pack; None if the pack changed since."""
        return next((rule for rule in self.rules if rule.record_class == name), None)

    def title(self, name: str) -> Message | str:
        """Return the name of a record class for people."""
        rule = self.rule(name)
        return rule.message if rule else name

    @property
    def _done(self) -> Mapping[str, int] | None:
        latest = self.proof or self.execution
        return latest.done if latest else None

    def erased(self, planned: PlannedClass) -> int | None:
        """Return how many records of a class this run deleted or masked."""
        return None if self._done is None else self._done.get(planned.name, 0)

    def not_reached(self, planned: PlannedClass) -> int | None:
        """Return how many planned records of a class are still there."""
        erased = self.erased(planned)
        return None if erased is None else max(0, planned.planned - erased)

    def deleted(self) -> int | None:
        """Return how many records this run deleted, those of dropped partitions included."""
        return self._all_erased(masked=False)

    def masked(self) -> int | None:
        """Return how many records this run masked."""
        return self._all_erased(masked=True)

    def _all_erased(self, *, masked: bool) -> int | None:
        if not self.plan or self._done is None:
            return None
        return sum(
            self.erased(planned) or 0
            for planned in self.classes
            if (planned.action == "mask") is masked
        )

    def left(self, name: str) -> Left | None:
        """Return the result of the count afterwards for a class."""
        left = self.proof.left if self.proof else ()
        return next((each for each in left if each.name == name), None)


HOLDS = {
    HoldKind.SUBJECT: _("a person"),
    HoldKind.WAYBILL: _("a waybill"),
    HoldKind.CASE: _("a case"),
    HoldKind.CLASS: _("a record class"),
    HoldKind.DATABASE: _("the database"),
}
REQUESTS: dict[RequestState, Message] = {
    "closed": _("erased; closed"),
    "closed_late": _("erased late; closed"),
    "restricted": _("restricted: kept by a hold, a law or another record"),
    "restricted_late": _("restricted only after its day: kept by a hold, a law or another record"),
    "overdue": _("overdue"),
    "open": _("open"),
    "not_found": _("open: no record was found under its key"),
}


def length(period: Period) -> Message:
    """Return a period of the calendar, such as "3 years"."""
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
    return listed(parts) if parts else _("no time")


def kept(rule: RetentionRule) -> Message:
    """Return how long a class is kept, and the start of the period."""
    text = _since(rule.period, rule.clock)
    for minimum in rule.minimum:
        clock, period = minimum.clock, minimum.period
        text = _(
            "{rule}; at least {minimum} by {source}",
            rule=text,
            minimum=_since(period, clock) if clock else length(period),
            source=minimum.basis.message,
        )
    return text


def _since(period: Period, clock: Clock) -> Message:
    if isinstance(clock, SqlClock):
        start = _("the moment that retention.yaml computes")
    elif len(clock) > 1:
        start = _("the latest of {columns}", columns=", ".join(clock))
    else:
        start = verbatim(clock[0])
    if not (period.months or period.days or period.seconds):
        return _("until {start}", start=start)
    return _("{period} after {start}", period=length(period), start=start)


def basis(rule: RetentionRule) -> Message:
    """Return the source of a period."""
    if isinstance(rule.basis, Source):
        return rule.basis.message
    return _("the company's own choice")


def action(rule: RetentionRule) -> Message:
    """Return the disposition of an expired record."""
    match rule.action:
        case "delete":
            text = _("deleted")
        case "drop_partition":
            text = _("deleted, by whole partitions where every record goes")
        case "mask":
            text = _("masked by GB/T 41833-2022: {columns}", columns=", ".join(rule.mask))
        case _:
            text = _("kept")
    return _("{action}; before that on request", action=text) if rule.on_request else text


def staying(case: Case) -> list[tuple[Message | str, Message, int | None]]:
    """Return the reasons why records stay that no hold keeps: class, reason, records."""
    return [
        (case.title(planned.name), reason, records)
        for planned in case.classes
        for reason, records in _of_class(case, planned)
        if records
    ]


def _of_class(case: Case, planned: PlannedClass) -> list[tuple[Message, int]]:
    rule, execution = case.rule(planned.name), case.execution
    suspended = rule.suspended.message if rule and rule.suspended else _SUSPENDED
    return [
        (suspended, planned.suspended),
        (_("another class of the same records keeps them longer"), planned.kept_longer),
        *((_referring(by, planned.referred_by), by.records) for by in planned.referred_by),
        (
            _(
                "the start date of a legal period is missing, so that they never expire: fill in "
                "the date, or have the schedule compute it"
            ),
            planned.minimum_not_started,
        ),
        (_("their clock lies in the future: see that it is right"), planned.ahead),
        (
            _("they came after the plan was made, and wait for the next"),
            execution.waiting.get(planned.name, 0) if execution else 0,
        ),
        *_shortfall(case, planned),
    ]


def _referring(by: KeptBy, others: Sequence[KeptBy]) -> Message:
    if by.collection is None:
        return _("{table}, which the data map lacks, refers to them", table=by.table)
    if [other.table for other in others].count(by.table) > 1:
        return _(
            "records of {table} refer to them ({constraint})",
            table=by.table,
            constraint=by.constraint,
        )
    return _("records of {table} refer to them", table=by.table)


_REFUSED = {
    Kept.sqlstate: _("a trigger of the database kept them and raised no error"),
    ChangedUnrecorded.sqlstate: _(
        "a trigger or rule of the database changed other records with them, so that their deletion "
        "was rolled back"
    ),
}
_SUSPENDED = _("a condition of retention.yaml keeps them")


def _shortfall(case: Case, planned: PlannedClass) -> list[tuple[Message, int]]:
    """Return why planned records remain: the database refused them, or the main other reason."""
    left, execution = case.not_reached(planned), case.execution
    if not left:
        return []
    reasons: list[tuple[Message, int]] = []
    for code, records in (execution.refusals(planned.name) if execution else {}).items():
        refused = _("the database refused them (SQLSTATE {code})", code=code)
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
    return [*reasons, (_NOT_SEEN, max(0, left))]


_NOT_SEEN = _("the run did not reach them; no change and no legal hold was found")
_STAYING = {
    "held": _("a legal hold was placed on them after the plan was made"),
    "suspended": _("since the plan was made, a condition of the record class keeps them"),
    "kept_longer": _("since the plan was made, another class of the same records keeps them"),
    "kept_by_reference": _("records that were not erased refer to them"),
    "due": _NOT_SEEN,
    "not_due": _("they were changed or deleted after the plan was made"),
}


def _main_reason(case: Case, planned: PlannedClass) -> Message | None:
    """Return the main reason that the execution recorded for a whole class, or None."""
    name, left = planned.name, case.left(planned.name)
    if execution := case.execution:
        if name in execution.not_approved:
            return _("nobody approved")
        if execution.stopped == "budget":
            return _("the run's time was used up; the next run goes on")
        if execution.stopped == "window":
            return _("the time of day for deletions ended; the next run goes on")
        if name in execution.knots:
            return _("they refer to each other in a circle that one transaction cannot delete")
        if name in execution.given_up:
            return _("not tried any more: the database had refused too many of the class")
        if name in execution.slow:
            return _("statements on them took too long; see the finding")
        if execution.locked.get(name):
            return _("other sessions kept them locked; the next run tries again")
        if times := execution.busy.get(name):
            return _(
                "other sessions held locks, {times} times; the next run tries again", times=times
            )
    # For example, records of other classes that were not approved refer to them.
    if left and left.referred > planned.kept_by_reference:
        return _("records that were not erased refer to them")
    return None
