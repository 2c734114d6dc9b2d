"""intake.yaml: incoming tables whose records count only once somebody has reviewed them.

Expressions and conditions are SQL of the pack's author, who is trusted as the author of a
migration is; docs/intake.md says which names they may use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, field_validator

from include.messages import Message
from include.policy.period import Period, PositivePeriod
from include.policy.rules import Identifier, Name, Rule, Sql, Text, Texts, in_languages, some

if TYPE_CHECKING:
    from include.policy.mapping import Inventory

Loc = tuple[str | int, ...]
Key = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*\z", max_length=60)]
LEVELS = Literal["S-1", "S-2", "S-3", "S-4", "I", "II"]


class BatchState(Rule):
    """Where an incoming row says what became of it.

    Attributes:
        column: of the incoming collection.
        pending: value of a row that nobody has decided on.
        promoted: value of a row that has a formal record.
        rejected: value of a row that was turned down.
        quarantined: value of a row that breaks a rule in a batch that was let in; ``rejected``
            where the table has no word of its own.
    """

    column: Name
    pending: Text
    promoted: Text
    rejected: Text
    quarantined: Text | None = None

    @property
    def set_aside(self) -> str:
        """The value of a row that breaks a rule."""
        return self.quarantined or self.rejected


class Stamp(Rule):
    """Two columns that say who and when.

    Attributes:
        by: column with a key of the staff collection.
        at: timestamp column.
    """

    by: Name
    at: Name


class BackReference(Rule):
    """The column by which an incoming row names its formal record.

    Attributes:
        column: of the incoming collection.
        key: name of an allocated key.
    """

    column: Name
    key: Key


class Check(Rule):
    """A condition that each incoming row has to satisfy, beside the rules of its quality suite.

    A condition that is unknown (null) is broken: what cannot be told to be good is not let in.
    ``expect_records_to_satisfy`` of a suite takes unknown for met, as rules of values do.

    Attributes:
        id: stable name.
        title: what a broken row lacks, by language.
        condition: SQL condition over the row ``i``.
    """

    id: Identifier
    title: Texts
    condition: Sql

    @property
    def message(self) -> Message:
        """The title for a report."""
        return in_languages(self.title)


class Mask(Rule):
    """How a value of a data category is shown to a reviewer.

    Attributes:
        category: fideslang category; it counts for those below it too.
        first: characters shown at the beginning.
        last: characters shown at the end.
        hidden: characters that have to be hidden at least, or all are; with 0 the first ones are
            shown as they are, for a category that tells nobody who it is.
    """

    category: Annotated[str, StringConstraints(pattern=r"^user(\.[a-z_]+)*\z")]
    first: Annotated[int, Field(ge=0, le=20)] = 0
    last: Annotated[int, Field(ge=0, le=20)] = 0
    hidden: Annotated[int, Field(ge=0, le=50)] = 1


class Sample(Rule):
    """The masked rows that a reviewer sees.

    Attributes:
        level: inspection level of GB/T 2828.1-2012 (ISO 2859-1:1999), table 1, which says how many
            rows a batch of a size shows.
        fields: columns that are shown.
        masks: of personal ones; a category without one is hidden whole.
    """

    level: LEVELS = "S-4"
    fields: Annotated[tuple[Name, ...], AfterValidator(some)]
    masks: tuple[Mask, ...] = ()


class People(Rule):
    """The staff: who enters, who reviews.

    Attributes:
        collection: of the same database.
        key: column that `Stamp.by` leads to.
        account: column with the person's user id in Airflow.
        reviewers: SQL condition over the staff row ``p`` of those who may review.
    """

    collection: Name
    key: Name
    account: Name
    reviewers: Sql


class Target(Rule):
    """A formal collection that rows are promoted to.

    Attributes:
        collection: of the same database.
        keys: name -> column; the next number of the column's identity or sequence, which
            expressions of every target call ``i.<name>``.
        columns: column -> SQL expression over the row ``i``, its keys, ``r.reviewer``, ``r.at``.
        each: SQL source that is joined to the row: several records for one row,
            ``unnest(i.uses) AS p(use)``, or a table to look something up in.
        where: SQL condition of rows that this target gets; all of them without one.
        record_class: column of the company's class of the record, which has to be among `columns`.
        reviewed: columns of reviewer and time in the formal record, for the check afterwards.
    """

    collection: Name
    keys: Mapping[Key, Name] = {}
    columns: Mapping[Name, Sql]
    each: Sql | None = None
    where: Sql | None = None
    record_class: Name | None = None
    reviewed: Stamp | None = None

    @field_validator("columns")
    @classmethod
    def _columns(cls, columns: Mapping[str, str]) -> Mapping[str, str]:
        if not columns:
            raise ValueError("should not be empty")
        return columns


class IntakeRule(Rule):
    """One incoming table.

    Attributes:
        id: stable name, first part of a batch's name in evidence.
        database: database of the data map; needed where several have the collection.
        collection: the incoming collection; its primary key has to be in the data map.
        batch: column that names the batch.
        state: what became of a row.
        entered: who entered it, and when.
        reviewed: who decided, and when.
        back_reference: the formal record of a row.
        deadline: from entry to review.
        response: how long a run waits for its reviewers.
        most_batches: batches that one run asks about, oldest first.
        connection: id of the Airflow connection that may write.
        people: staff.
        sample: masked rows for the reviewer.
        checks: conditions beside the quality suite.
        entered_anew: SQL conditions over a row ``i`` that was set aside and a row ``n`` that was
            entered later and became formal: any of them says that both are the same entry.
        targets: formal collections, in the order in which rows are made.
    """

    id: Identifier
    database: Name | None = None
    collection: Name
    batch: Name
    state: BatchState
    entered: Stamp
    reviewed: Stamp
    back_reference: BackReference
    deadline: PositivePeriod = Period.parse("PT72H")
    response: PositivePeriod = Period.parse("PT20H")
    most_batches: Annotated[int, Field(ge=1, le=1000)] = 50
    connection: Text = "intake_db"
    people: People
    sample: Sample
    checks: tuple[Check, ...] = ()
    entered_anew: tuple[Sql, ...] = ()
    targets: Annotated[tuple[Target, ...], AfterValidator(some)]

    @property
    def keys(self) -> dict[str, tuple[str, str]]:
        """Allocated keys: name -> collection and column."""
        return {
            name: (target.collection, column)
            for target in self.targets
            for name, column in target.keys.items()
        }


def faults(rules: Mapping[int, IntakeRule], inventory: Inventory) -> Iterator[tuple[Loc, str]]:
    """Say what of intake.yaml the data maps do not have; each fault with its place."""
    seen: set[str] = set()
    for at, rule in rules.items():
        if rule.id in seen:
            yield (at, "id"), f"{rule.id!r} stands twice"
        seen.add(rule.id)
        holders = inventory.databases_with(rule.collection)
        if rule.database is not None and rule.database not in inventory:
            yield (at, "database"), f"the pack maps no database {rule.database!r}"
        elif not holders or (rule.database is not None and rule.database not in holders):
            yield (at, "collection"), f"no data map has a collection {rule.collection!r}"
        elif rule.database is None and len(holders) > 1:
            message = f"several databases have it: name one as database: {', '.join(holders)}"
            yield (at, "collection"), message
        else:
            for loc, message in _names(rule, rule.database or holders[0], inventory):
                yield (at, *loc), message
        yield from (((at, *loc), message) for loc, message in _keys(rule))
        for number, mask in enumerate(rule.sample.masks):
            if mask.category not in inventory.categories:
                message = f"the taxonomy has no data_category {mask.category!r}"
                yield (at, "sample", "masks", number, "category"), message
        checks: set[str] = set()
        for number, one in enumerate(rule.checks):
            if one.id in checks:
                yield (at, "checks", number, "id"), f"{one.id!r} stands twice"
            checks.add(one.id)


def check_ids(rules: Iterable[IntakeRule], inventory: Inventory) -> Iterator[tuple[str, str, str]]:
    """Database, collection and id of the checks, which its suite's rules may not have too."""
    for rule in rules:
        holders = [rule.database] if rule.database else inventory.databases_with(rule.collection)
        yield from ((one, rule.collection, check.id) for one in holders for check in rule.checks)


def _names(rule: IntakeRule, database: str, inventory: Inventory) -> Iterator[tuple[Loc, str]]:
    wanted: list[tuple[Loc, str, str]] = [
        (("batch",), rule.collection, rule.batch),
        (("state", "column"), rule.collection, rule.state.column),
        (("entered", "by"), rule.collection, rule.entered.by),
        (("entered", "at"), rule.collection, rule.entered.at),
        (("reviewed", "by"), rule.collection, rule.reviewed.by),
        (("reviewed", "at"), rule.collection, rule.reviewed.at),
        (("back_reference", "column"), rule.collection, rule.back_reference.column),
        (("people", "key"), rule.people.collection, rule.people.key),
        (("people", "account"), rule.people.collection, rule.people.account),
        *((("sample", "fields", n), rule.collection, f) for n, f in enumerate(rule.sample.fields)),
    ]
    for n, target in enumerate(rule.targets):
        place: Loc = ("targets", n)
        wanted += [((*place, "columns", one), target.collection, one) for one in target.columns]
        wanted += [
            ((*place, "keys", name), target.collection, one) for name, one in target.keys.items()
        ]
        if target.reviewed:
            wanted += [
                ((*place, "reviewed", "by"), target.collection, target.reviewed.by),
                ((*place, "reviewed", "at"), target.collection, target.reviewed.at),
            ]
    for loc, collection, column in wanted:
        if not inventory.has_collection(database, collection):
            yield loc, f"the database {database} has no collection {collection!r}"
        elif not inventory.has_column(database, collection, column):
            yield loc, f"collection {collection!r} has no field {column!r}"


def _keys(rule: IntakeRule) -> Iterator[tuple[Loc, str]]:
    seen: set[str] = set()
    for n, target in enumerate(rule.targets):
        for name in target.keys:
            if name in seen:
                yield ("targets", n, "keys", name), f"{name!r} stands twice"
            seen.add(name)
        if target.record_class and target.record_class not in target.columns:
            yield ("targets", n, "record_class"), f"columns has no {target.record_class!r}"
    if rule.back_reference.key not in seen:
        message = f"no target allocates a key {rule.back_reference.key!r}"
        yield ("back_reference", "key"), message
