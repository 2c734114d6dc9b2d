"""Models of retention.yaml and disposition.yaml: retention periods and disposition.

Expressions and conditions are SQL over a record that is named ``t``. ParcelSeal trusts the SQL of
the pack's author as it would trust a database migration. docs/reference/policy-pack/
retention.md and disposition.md explain every key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import time
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    model_validator,
)

from include.messages import Message
from include.policy.mapping import StaffGroup, StaffTable, as_tuple, staff_faults
from include.policy.period import IsoPeriod, Period, PositivePeriod
from include.policy.rules import (
    Identifier,
    Name,
    Rule,
    Source,
    Sql,
    Text,
    Texts,
    Unit,
    require_items,
    time_of_day,
    translated_message,
)

if TYPE_CHECKING:
    from include.policy.mapping import Inventory

Loc = tuple[str | int, ...]
MaskKind = Literal["name", "phone", "address", "erase"]
"""The kind of mask, by GB/T 41833-2022.

A masked name keeps its first character. A phone number loses at least six digits, an address loses
the unit, and ``erase`` removes the whole value."""
LONGEST_MONTHS = 1200  # a hundred years; longer periods are mistakes and leave the range of dates
LONGEST_DAYS = 36_525


def _no_longer_than_a_century(period: Period) -> Period:
    if period.months > LONGEST_MONTHS or period.days > LONGEST_DAYS:
        raise ValueError("should be a hundred years at most")
    return period


KeptFor = Annotated[IsoPeriod, AfterValidator(_no_longer_than_a_century)]
"""A retention period; with ``P0D``, a record expires as soon as its clock has started."""
Sqls = Annotated[tuple[Sql, ...], BeforeValidator(as_tuple)]


class SqlClock(Rule):
    """An SQL expression for the date from which a retention period counts.

    Attributes:
        sql: SQL expression over the record ``t`` that returns a date or timestamp. The retention
            period has not begun if the result is null.
        title: Name of the date in reports, such as "the closing of the account". Default: "the
            date that the retention schedule defines for this record class".
    """

    sql: Sql
    title: Texts | None = None


Clock = Annotated[
    Annotated[
        Annotated[tuple[Name, ...], AfterValidator(require_items), BeforeValidator(as_tuple)],
        Tag("columns"),
    ]
    | Annotated[SqlClock, Tag("sql")],
    Discriminator(lambda value: "sql" if isinstance(value, dict | SqlClock) else "columns"),
]
"""Columns of which the latest value counts (nulls are skipped), or an SQL expression."""


class Minimum(Rule):
    """A minimum retention period that a law requires.

    A record does not expire before the minimum has passed.

    Attributes:
        clock: Column, list of columns or expression from which the minimum counts; default: the
            ``clock`` of the record class.
        period: Length of the minimum.
        basis: Law that requires the minimum.
    """

    clock: Clock | None = None
    period: KeptFor
    basis: Source


class Keys(Rule):
    """SQL expressions that legal holds and erasure requests use to find records.

    A legal hold covers a record if the result of one of these expressions equals the value of the
    hold; `include.retention.postgres.key_types` defines how values of different types are compared.
    An erasure request covers a record if the result, as text, equals the value of the request.

    Attributes:
        subject: SQL expressions over the record ``t`` that return the keys of its data subjects.
        waybill: SQL expressions over the record ``t`` that return the keys of its waybills.
        case: SQL expressions over the record ``t`` that return the numbers of its cases, claims or
            complaints.
    """

    subject: Sqls = ()
    waybill: Sqls = ()
    case: Sqls = ()


class Suspension(Rule):
    """A condition under which expired records are kept, such as an open claim.

    Attributes:
        where: SQL condition over the record ``t``. An expired record is kept while the condition is
            true.
        title: Reason why the records are kept, as reports show it.
    """

    where: Sql
    title: Texts

    @property
    def message(self) -> Message:
        """Return the title as a message for reports."""
        return translated_message(self.title)


def _percent(value: Any) -> Any:
    if isinstance(value, str) and value.endswith("%"):
        try:
            return Decimal(value[:-1])
        except InvalidOperation:
            raise ValueError("should be a percentage such as 5%") from None
    return value


class Limit(Rule):
    """The circuit breaker: a disposition plan that exceeds one of these limits needs an approval.

    Attributes:
        records: Largest number of records of one record class that a run disposes of without an
            approval.
        percent: Largest share of the records of a record class, in percent, that a run disposes of
            without an approval. The limit does not apply if the run and other runs of the last 23
            hours dispose of at most 100 records of the class.
        times_trend: Factor. A run needs an approval to dispose of more records of a record class
            than the usual number multiplied by this factor. The usual number is the median number
            of records that the last runs (up to ten) disposed of. The limit does not apply if there
            are fewer than three earlier runs, or if the run disposes of at most 100 records of the
            class.
    """

    records: Annotated[int, Field(ge=0, le=10**12), Unit("records")] = 10_000
    percent: Annotated[
        Decimal, BeforeValidator(_percent), Field(ge=0, le=100, allow_inf_nan=False)
    ] = Decimal(5)
    times_trend: Annotated[int, Field(ge=1, le=1000)] = 5


class RetentionRule(Rule):
    """A record class: its retention period, and what happens with expired records.

    A record is expired when ``clock + period`` and every ``minimum`` have passed.

    Attributes:
        record_class: Name of the record class.
        title: Name of the record class in reports; default: the value of ``class``.
        database: Database of the data map; required if several databases have the collection.
        collection: Collection of the data map.
        where: SQL condition over the record ``t`` that selects the records of the class; default:
            all records. A record that belongs to several classes is kept until it is expired in
            each of them.
        clock: Column with the date from which the retention period counts. If it is a list of
            columns, the latest date counts, and nulls are skipped. A mapping ``{sql: expression}``
            computes the date. The record does not expire while the date is null.
        period: Retention period in calendar units, such as ``P3Y``; at most a hundred years. With
            ``P0D`` a record expires at once.
        minimum: Minimum retention periods that laws require. A record expires only after all
            minimums have passed.
        action: What happens with expired records. ``delete`` deletes and ``mask`` masks them.
            ``drop_partition`` drops partitions in which every record is expired, and deletes the
            other expired records. ``keep`` changes nothing.
        mask: With the action ``mask``: the type of mask for each masked column (GB/T 41833-2022).
        stamp: With the action ``mask``: column into which the time of masking is written.
        basis: Law or standard that sets the period, or ``business`` if the company chose it.
        keys: SQL expressions that legal holds and erasure requests use to find records.
        suspended: Condition under which expired records are kept, such as an open claim.
        detach: Foreign keys of other collections to this collection, each as ``collection.field``.
            When a record is deleted, these foreign keys are set to null in the records that refer
            to it. If other records refer to an expired record by a foreign key that is not listed,
            the expired record is kept. A replay of erasures in a restored copy also sets the listed
            foreign keys to null. So do not remove a foreign key from this list while backups may
            contain the deleted records.
        triggers_update: Collections whose records the application's triggers may update when a
            record is deleted or masked. If a trigger would update a record of a collection that
            is not listed, the expired record is kept.
        on_request: Whether an erasure request disposes of a record before its retention period
            ends. A request never disposes of a record before a ``minimum`` has passed.
        limit: Limits of this class above which a plan needs an approval; default: the limits in
            disposition.yaml.
    """

    record_class: Annotated[Identifier, Field(alias="class")]
    title: Texts | None = None
    database: Name | None = None
    collection: Name
    where: Sql | None = None
    clock: Clock
    period: KeptFor
    minimum: tuple[Minimum, ...] = ()
    action: Literal["delete", "drop_partition", "mask", "keep"]
    mask: Mapping[Name, MaskKind] = {}
    stamp: Name | None = None
    basis: Annotated[
        Annotated[Literal["business"], Tag("business")] | Annotated[Source, Tag("source")],
        Discriminator(lambda value: "business" if isinstance(value, str) else "source"),
    ]
    keys: Keys = Keys()
    suspended: Suspension | None = None
    detach: Annotated[tuple[Name, ...], BeforeValidator(as_tuple)] = ()
    triggers_update: Annotated[tuple[Name, ...], BeforeValidator(as_tuple)] = ()
    on_request: bool = False
    limit: Limit | None = None

    @property
    def message(self) -> Message | str:
        """Return the title of the record class for reports; its name if it has no title."""
        return translated_message(self.title) if self.title else self.record_class

    @property
    def deletes(self) -> bool:
        """Return whether expired records of the class are deleted (not masked, and not kept)."""
        return self.action in ("delete", "drop_partition")

    @model_validator(mode="after")
    def _mask_fits_action(self) -> RetentionRule:
        if self.action == "mask" and not self.mask:
            raise ValueError("the action mask needs the columns that it masks: mask: {...}")
        if self.action != "mask" and (self.mask or self.stamp):
            raise ValueError("mask and stamp belong to the action mask")
        if self.action == "keep" and self.triggers_update:
            raise ValueError("triggers_update belongs to an action that changes records")
        return self


class Approval(Rule):
    """The people who decide on a disposition plan that exceeds a limit.

    Attributes:
        staff: Table of the staff. It is required if ``owners`` or ``approvers`` have a condition.
        owners: Owners of the retention schedule. They may not approve a plan.
        approvers: People who may approve a plan.
        response: Time for which a run waits for a decision.
    """

    staff: StaffTable | None = None
    owners: StaffGroup = StaffGroup()
    approvers: StaffGroup = StaffGroup()
    response: PositivePeriod = Period.parse("PT20H")

    @model_validator(mode="after")
    def _conditions_have_staff(self) -> Approval:
        if self.staff is None and (self.owners.where or self.approvers.where):
            raise ValueError("a condition over staff needs the staff table: staff: {...}")
        return self


def _window_time(value: Any) -> time:
    if isinstance(value, time) and value.tzinfo is None:
        return value
    return time.fromisoformat(time_of_day(value))


WindowTime = Annotated[time, PlainValidator(_window_time)]
"""A time of day in the pack's timezone, without an offset."""


class Window(Rule):
    """The hours in which records may be disposed of. They may extend past midnight.

    Attributes:
        begins: Time of day from which transactions may start, for example ``"01:00"``.
        ends: Time of day at which the window ends, for example ``"06:00"``. From then on, no
            transaction starts. If this time is before ``begins``, the window ends on the next day.
    """

    begins: WindowTime
    ends: WindowTime

    @model_validator(mode="after")
    def _is_not_empty(self) -> Window:
        if self.begins == self.ends:
            raise ValueError("should not end when it begins; to run at any time, remove it")
        return self

    def has(self, moment: time) -> bool:
        """Return whether a time of day is in the window."""
        if self.begins <= self.ends:
            return self.begins <= moment < self.ends
        return moment >= self.begins or moment < self.ends


class Batch(Rule):
    """Size and timeouts of one transaction that disposes of records.

    Attributes:
        rows: Largest number of records in a transaction.
        milliseconds: Intended duration of a transaction, in milliseconds. ParcelSeal changes the
            number of records so that a transaction takes about this time.
        lock_timeout_ms: Longest time in milliseconds for which a transaction waits for a lock of
            another session.
        statement_timeout_s: Time in seconds after which the database cancels a statement.
    """

    rows: Annotated[int, Field(ge=1, le=100_000), Unit("records")] = 5_000
    milliseconds: Annotated[int, Field(ge=10, le=10_000)] = 250
    lock_timeout_ms: Annotated[int, Field(ge=10, le=60_000)] = 1_000
    statement_timeout_s: Annotated[int, Field(ge=1, le=3_600)] = 60


class Disposition(Rule):
    """How ParcelSeal disposes of expired records.

    Attributes:
        connection: Id of the Airflow connection with the right to delete. If this connection does
            not exist, the connection that the data map names is used.
        window: Hours in which records may be disposed of; default: at any time.
        budget: Longest time for which a run disposes of records of one database. The next run
            continues.
        batch: Size and timeouts of a transaction.
        limit: Limits above which a plan needs an approval, for record classes without limits of
            their own in retention.yaml.
        approval: People who decide on a plan that exceeds a limit. By default nobody may approve,
            so a plan that exceeds a limit is not executed.
    """

    connection: Text = "retention_db"
    window: Window | None = None
    budget: PositivePeriod = Period.parse("PT4H")
    batch: Batch = Batch()
    limit: Limit = Limit()
    approval: Approval = Approval()


def find_faults(
    rules: Mapping[int, RetentionRule], inventory: Inventory
) -> Iterator[tuple[Loc, str]]:
    """Yield the faults of retention.yaml that are found only by a comparison with the data maps.

    Args:
        rules: rules of retention.yaml, by position in the file.
        inventory: names in the data maps.

    Yields:
        Path of the faulty value in retention.yaml, and a message.
    """
    masked: dict[tuple[str, str], str] = {}
    for at, rule in rules.items():
        database = _database_of(rule, inventory)
        if database is None:
            continue  # CrossChecks.check_retention reports it
        if rule.action == "mask":
            first = masked.setdefault((database, rule.collection), rule.record_class)
            if first != rule.record_class:
                # The ledger records a masked record once, so a replay could apply only one mask.
                yield (at, "action"), f"the class {first!r} masks records of the collection already"
        columns: list[tuple[Loc, str]] = []
        if isinstance(rule.clock, tuple):
            columns += [(("clock",), name) for name in rule.clock]
        for number, minimum in enumerate(rule.minimum):
            if isinstance(minimum.clock, tuple):
                columns += [(("minimum", number, "clock"), name) for name in minimum.clock]
        columns += [(("mask", name), name) for name in rule.mask]
        columns += [(("stamp",), rule.stamp)] if rule.stamp else []
        for loc, name in columns:
            if not inventory.has_column(database, rule.collection, name):
                yield (at, *loc), f"collection {rule.collection!r} has no field {name!r}"
        for name in rule.mask:
            if inventory.is_key(database, rule.collection, name):
                yield (at, "mask", name), "a column of the primary key cannot be masked"
        for number, target in enumerate(rule.detach):
            if reason := inventory.unresolved_reason(database, target):
                yield (at, "detach", number), reason
        for number, name in enumerate(rule.triggers_update):
            if database not in inventory.databases_with(name):
                yield (at, "triggers_update", number), f"{database} has no collection {name!r}"
        if rule.on_request and not rule.keys.subject:
            message = "records of a person cannot be found without keys: {subject: ...}"
            yield (at, "on_request"), message


def approval_faults(rule: Approval, inventory: Inventory) -> Iterator[tuple[Loc, str]]:
    """Yield a fault if the staff table that disposition.yaml names does not exist.

    Args:
        rule: the key ``approval`` of disposition.yaml.
        inventory: names in the data maps.

    Yields:
        Path of the faulty value in disposition.yaml, and a message.
    """
    for loc, message in staff_faults(rule.staff, inventory):
        yield ("approval", *loc), message


def _database_of(rule: RetentionRule, inventory: Inventory) -> str | None:
    databases: Sequence[str] = inventory.databases_with(rule.collection)
    if rule.database is not None:
        return rule.database if rule.database in databases else None
    return databases[0] if len(databases) == 1 else None
