"""retention.yaml and disposition.yaml: how long records are kept, and how they are disposed of.

Expressions and conditions are SQL of the pack's author, who is trusted as the author of a migration
is. They speak of one record, which is called ``t``; docs/retention.md explains every key.
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
from include.policy.mapping import Group, Staff, as_tuple, staff_faults
from include.policy.period import IsoPeriod, Period, PositivePeriod
from include.policy.rules import (
    Identifier,
    Name,
    Rule,
    Source,
    Sql,
    Text,
    Texts,
    in_languages,
    some,
    time_of_day,
)

if TYPE_CHECKING:
    from include.policy.mapping import Inventory

Loc = tuple[str | int, ...]
MaskKind = Literal["name", "phone", "address", "erase"]
"""What is hidden of a value, by GB/T 41833-2022: of a name all but its first character, of a phone
number at least six digits, of an address the unit; ``erase`` leaves nothing."""
LONGEST_MONTHS = 1200  # a hundred years; a longer period is a mistake, and no date can hold it
LONGEST_DAYS = 36_525


def _no_longer_than_a_century(period: Period) -> Period:
    if period.months > LONGEST_MONTHS or period.days > LONGEST_DAYS:
        raise ValueError("should be a hundred years at most")
    return period


KeptFor = Annotated[IsoPeriod, AfterValidator(_no_longer_than_a_century)]
"""A period of retention; ``P0D`` means that a record goes as soon as its clock has started."""
Sqls = Annotated[tuple[Sql, ...], BeforeValidator(as_tuple)]


class SqlClock(Rule):
    """A clock that is computed.

    Attributes:
        sql: expression over the record ``t``: a date or timestamp, null while the clock has not
            started.
    """

    sql: Sql


Clock = Annotated[
    Annotated[
        Annotated[tuple[Name, ...], AfterValidator(some), BeforeValidator(as_tuple)],
        Tag("columns"),
    ]
    | Annotated[SqlClock, Tag("sql")],
    Discriminator(lambda value: "sql" if isinstance(value, dict | SqlClock) else "columns"),
]
"""Columns of which the latest counts, those that are null passed over; or an expression."""


class Minimum(Rule):
    """What a law asks at least: a record goes only when this has passed too.

    Attributes:
        clock: starts it; the class's own where nothing is said.
        period: how long after that.
        basis: the law.
    """

    clock: Clock | None = None
    period: KeptFor
    basis: Source


class Keys(Rule):
    """What a record is found by when somebody puts a hold on it, or asks to be erased.

    Each is a list of expressions over the record ``t``. A hold finds it when one of them equals the
    hold's value as `include.retention.postgres.key_types` compares them, a request when its text
    does.

    Attributes:
        subject: keys of the data subjects that it is about.
        waybill: keys of the waybills that it is about.
        case: numbers of the cases, claims or complaints that it is about.
    """

    subject: Sqls = ()
    waybill: Sqls = ()
    case: Sqls = ()


class Suspension(Rule):
    """A condition under which a record stays although its period is over: an open claim.

    Attributes:
        where: condition over the record ``t``.
        title: why, by language.
    """

    where: Sql
    title: Texts

    @property
    def message(self) -> Message:
        """The title for a report."""
        return in_languages(self.title)


def _percent(value: Any) -> Any:
    if isinstance(value, str) and value.endswith("%"):
        try:
            return Decimal(value[:-1])
        except InvalidOperation:
            raise ValueError("should be a share, 5%") from None
    return value


class Limit(Rule):
    """From what on a plan needs a second person: the circuit breaker.

    Attributes:
        records: records of one class in one run.
        percent: share of the class's records, ``5%``.
        times_trend: times the median of the last runs of the class.
    """

    records: Annotated[int, Field(ge=0, le=10**12)] = 10_000
    percent: Annotated[
        Decimal, BeforeValidator(_percent), Field(ge=0, le=100, allow_inf_nan=False)
    ] = Decimal(5)
    times_trend: Annotated[int, Field(ge=1, le=1000)] = 5


class RetentionRule(Rule):
    """One record class of retention.yaml.

    A record goes when ``clock + period`` has passed, and every `minimum` too: the later of the end
    of the purpose plus a time and what a law asks.

    Attributes:
        record_class: name of the class, ``electronic_waybill``.
        title: its name, by language; the name of the class where there is none.
        database: database of the data map; needed where several have the collection.
        collection: collection of the data map.
        where: condition over ``t``: which records of the collection are of the class; all where
            nothing is said. A record of several classes stays until the last of them lets it go.
        clock: columns that start the clock, or an expression.
        period: how long after that a record is kept.
        minimum: what a law asks at least.
        action: what is done then.
        mask: column -> what of it is hidden; with the action ``mask`` only.
        stamp: column that says when a record was masked.
        basis: the source of the period, or ``business`` for the company's own choice.
        keys: what its records are found by.
        suspended: when its records stay nevertheless.
        detach: ``collection.field``: columns of foreign keys to this collection that are set to
            null when their record goes; without it a record that is referred to stays.
        triggers_update: collections whose records the application's triggers may update when a
            record of the class goes or is masked, such as a counter of orders; else it stays.
        on_request: whether a data subject's request erases its records before their time.
        limit: circuit breaker; of disposition.yaml where nothing is said.
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
        """The class for a report: its title, or its name."""
        return in_languages(self.title) if self.title else self.record_class

    @property
    def deletes(self) -> bool:
        """Whether its records go as a whole."""
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
    """Who is asked when the circuit breaker trips.

    Attributes:
        staff: staff table, for groups that have a condition.
        owners: those whose work the retention schedule is; none of them may approve.
        approvers: those who may.
        response: how long a run waits for them.
    """

    staff: Staff | None = None
    owners: Group = Group()
    approvers: Group = Group()
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
"""A time of day in the pack's timezone; one with an offset cannot be compared with it."""


class Window(Rule):
    """When records may be deleted, in the pack's timezone; it may span midnight.

    Attributes:
        begins: first moment of the day, ``01:00``.
        ends: from then on nothing new is begun.
    """

    begins: WindowTime
    ends: WindowTime

    @model_validator(mode="after")
    def _lasts(self) -> Window:
        if self.begins == self.ends:
            raise ValueError("should not end when it begins; at any time: leave it out")
        return self

    def has(self, moment: time) -> bool:
        """Whether a time of day lies in it."""
        if self.begins <= self.ends:
            return self.begins <= moment < self.ends
        return moment >= self.begins or moment < self.ends


class Batch(Rule):
    """How much is deleted in one transaction, and for how long it may hold locks.

    Attributes:
        rows: records at most.
        milliseconds: time that one transaction is meant to take; batches are sized by it.
        lock_timeout_ms: how long it waits for a lock that somebody else holds.
        statement_timeout_s: after which a statement is given up.
    """

    rows: Annotated[int, Field(ge=1, le=100_000)] = 5_000
    milliseconds: Annotated[int, Field(ge=10, le=10_000)] = 250
    lock_timeout_ms: Annotated[int, Field(ge=10, le=60_000)] = 1_000
    statement_timeout_s: Annotated[int, Field(ge=1, le=3_600)] = 60


class Disposition(Rule):
    """disposition.yaml: how records are disposed of.

    Attributes:
        connection: id of the Airflow connection that may delete; the database's own where it is not
            configured.
        window: when; at any time where nothing is said.
        budget: how long one run works on one database; the next goes on.
        batch: size and patience of one transaction.
        limit: circuit breaker of classes that name none.
        approval: who is asked when it trips.
    """

    connection: Text = "retention_db"
    window: Window | None = None
    budget: PositivePeriod = Period.parse("PT4H")
    batch: Batch = Batch()
    limit: Limit = Limit()
    approval: Approval = Approval()


def faults(rules: Mapping[int, RetentionRule], inventory: Inventory) -> Iterator[tuple[Loc, str]]:
    """Say what of retention.yaml does not fit the data maps; each fault with its place."""
    masked: dict[tuple[str, str], str] = {}
    for at, rule in rules.items():
        database = _holder(rule, inventory)
        if database is None:
            continue  # said already
        if rule.action == "mask":
            first = masked.setdefault((database, rule.collection), rule.record_class)
            if first != rule.record_class:
                # The ledger names a masked record once: a replay would know one of its masks only.
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
            if reason := inventory.why_not(database, target):
                yield (at, "detach", number), reason
        for number, name in enumerate(rule.triggers_update):
            if database not in inventory.databases_with(name):
                yield (at, "triggers_update", number), f"{database} has no collection {name!r}"
        if rule.on_request and not rule.keys.subject:
            message = "nobody's records can be found without keys: {subject: ...}"
            yield (at, "on_request"), message


def approval_faults(rule: Approval, inventory: Inventory) -> Iterator[tuple[Loc, str]]:
    """Say what of disposition.yaml the data maps do not have."""
    for loc, message in staff_faults(rule.staff, inventory):
        yield ("approval", *loc), message


def _holder(rule: RetentionRule, inventory: Inventory) -> str | None:
    holders: Sequence[str] = inventory.databases_with(rule.collection)
    if rule.database is not None:
        return rule.database if rule.database in holders else None
    return holders[0] if len(holders) == 1 else None
