"""Models of intake.yaml: incoming tables whose records become formal after a review.

Expressions and conditions are SQL. ParcelSeal trusts the SQL of the pack's author as it would trust
a database migration. docs/explanation/intake.md lists the names that this SQL may use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, field_validator

from include.messages import Message
from include.policy.period import Period, PositivePeriod
from include.policy.rules import (
    Identifier,
    Name,
    Rule,
    Sql,
    Text,
    Texts,
    Unit,
    require_items,
    translated_message,
)

if TYPE_CHECKING:
    from include.policy.mapping import Inventory

Loc = tuple[str | int, ...]
Key = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*\z", max_length=60)]
LEVELS = Literal["S-1", "S-2", "S-3", "S-4", "I", "II"]


class BatchState(Rule):
    """The column that shows the state of an incoming record, and its value for each state.

    Attributes:
        column: Column of the incoming collection that contains the state.
        pending: Value of a record that waits for the decision of a reviewer.
        promoted: Value of an incoming record from which a formal record was made.
        rejected: Value of a record in a rejected batch.
        quarantined: Value of a record that breaks an expectation or a check although its batch was
            approved; default: the value of ``rejected``.
    """

    column: Name
    pending: Text
    promoted: Text
    rejected: Text
    quarantined: Text | None = None

    @property
    def quarantined_value(self) -> str:
        """Return the value of the state column for a quarantined record."""
        return self.quarantined or self.rejected


class Stamp(Rule):
    """Two columns of a record: who did something, such as a review, and when.

    Attributes:
        by: Column with the person, as a key of the staff collection.
        at: Timestamp column with the time. A timestamp without a timezone is read as UTC.
    """

    by: Name
    at: Name


class BackReference(Rule):
    """The column of an incoming record that refers to its formal record.

    Attributes:
        column: Column of the incoming collection into which the key of the formal record is
            written.
        key: Name of this key in ``targets[].keys``.
    """

    column: Name
    key: Key


class Check(Rule):
    """A condition that each incoming record has to meet, in addition to its quality suite.

    If the result of the condition is unknown (null), the record breaks the condition, because a
    record of unknown quality must not become formal. The expectation ``expect_records_to_satisfy``
    in a suite is different: there, a record with an unknown result meets the condition.

    Attributes:
        id: Stable name of the condition.
        title: The condition in words, for reports.
        condition: SQL condition over the incoming row ``i``. A result of null counts as broken:
            write ``coalesce(..., true)`` for an optional value.
    """

    id: Identifier
    title: Texts
    condition: Sql

    @property
    def message(self) -> Message:
        """Return the title as a message for reports."""
        return translated_message(self.title)


class Mask(Rule):
    """How values of one data category are masked: which characters of a value a reviewer sees.

    Attributes:
        category: Data category. It includes all categories below it.
        first: Number of characters that are shown at the beginning of the value.
        last: Number of characters that are shown at the end of the value.
        hidden: Smallest number of characters that must be hidden. If ``first`` and ``last`` leave
            fewer characters of a value hidden, the whole value is hidden. With 0, only the first
            characters are shown, however short the value is, and ``last`` has no effect.
    """

    category: Annotated[str, StringConstraints(pattern=r"^user(\.[a-z_]+)*\z")]
    first: Annotated[int, Field(ge=0, le=20), Unit("characters")] = 0
    last: Annotated[int, Field(ge=0, le=20), Unit("characters")] = 0
    hidden: Annotated[int, Field(ge=0, le=50), Unit("characters")] = 1


class Sample(Rule):
    """The sample of a batch that a reviewer sees, with masked values.

    Attributes:
        level: Inspection level of GB/T 2828.1-2012 (ISO 2859-1:1999), table 1. The level and the
            size of the batch decide how many records the reviewer sees.
        fields: Columns that the reviewer sees.
        masks: Masks of personal columns. If a data category has no mask, its values are hidden
            completely.
    """

    level: LEVELS = "S-4"
    fields: Annotated[tuple[Name, ...], AfterValidator(require_items)]
    masks: tuple[Mask, ...] = ()


class People(Rule):
    """The staff who enter and review incoming records.

    Attributes:
        collection: Collection with the staff, in the same database.
        key: Column of the staff collection to which ``entered.by`` and ``reviewed.by`` refer.
        account: Column with the user id of the staff member in Airflow.
        reviewers: SQL condition over the staff row ``p`` that is true for reviewers.
    """

    collection: Name
    key: Name
    account: Name
    reviewers: Sql


class Target(Rule):
    """A formal collection into which approved incoming records are inserted.

    Attributes:
        collection: Formal collection in the same database.
        keys: Columns of the collection whose identity or sequence supplies a new key, by a name of
            your choice. The expressions of every target may use the key as ``i.<name>``.
        columns: SQL expression for each column of the formal record. It may use the incoming row
            ``i``, the new keys, ``r.reviewer`` and ``r.at``.
        each: SQL table or function that is joined to the incoming row, such as a table of names, or
            ``unnest(i.uses) AS p(use)`` to make several formal records from one row. A join is
            several times faster than a subquery per row.
        where: SQL condition that selects the incoming rows for which records are inserted into this
            collection; default: all rows.
        record_class: Column with the confidentiality class of the record, as the company names it.
            It must be one of ``columns``.
        reviewed: Columns of the formal record that contain its reviewer and the time of the review.
            After a run, ParcelSeal uses these columns to verify the formal records.
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
    """An incoming table whose records become formal after a review.

    Attributes:
        id: Stable name. It is the first part of the names of batches in evidence.
        database: Database of the data map; required if several databases have the collection.
        collection: Collection of the incoming records. Its data map has to mark the primary key.
        batch: Column with the name of the batch. A name has at most 100 characters: letters,
            digits, ``_ . : / -``, and no mobile or ID number.
        state: Column that shows the state of an incoming record, and its value for each state.
        entered: Columns with the person who entered the record and the time of entry.
        reviewed: Columns into which the reviewer who decided and the time of the decision are
            written.
        back_reference: Column into which the key of the formal record is written.
        deadline: Time within which a record has to be reviewed after its entry.
        response: Time for which a run waits for a decision of the reviewers.
        most_batches: Largest number of batches for which one run requests a review. The run chooses
            the oldest batches, and reports the batches that it left out.
        connection: Id of the Airflow connection with the right to write. If this connection does
            not exist, the connection that the data map names is used.
        people: Staff who enter and review records.
        sample: Sample of a batch that the reviewer sees, with masked values.
        checks: Conditions that incoming records have to meet, in addition to the expectations in
            quality/*.yaml.
        entered_anew: SQL conditions over two incoming rows: a quarantined row ``i``, and a row
            ``n`` that was entered later and became formal. If one of the conditions is true, ``n``
            is the corrected entry of ``i``.
        targets: Formal collections into which records are inserted, in this order.
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
    most_batches: Annotated[int, Field(ge=1, le=1000), Unit("batches")] = 50
    connection: Text = "intake_db"
    people: People
    sample: Sample
    checks: tuple[Check, ...] = ()
    entered_anew: tuple[Sql, ...] = ()
    targets: Annotated[tuple[Target, ...], AfterValidator(require_items)]

    @property
    def keys(self) -> dict[str, tuple[str, str]]:
        """Return the collection and column of each key that the targets supply, by key name."""
        return {
            name: (target.collection, column)
            for target in self.targets
            for name, column in target.keys.items()
        }


def find_faults(rules: Mapping[int, IntakeRule], inventory: Inventory) -> Iterator[tuple[Loc, str]]:
    """Yield the faults of intake.yaml that are found only by a comparison with the data maps.

    Args:
        rules: rules of intake.yaml, by position in the file.
        inventory: names in the data maps.

    Yields:
        Path of the faulty value in intake.yaml, and a message.
    """
    rule_ids: set[str] = set()
    for at, rule in rules.items():
        if rule.id in rule_ids:
            yield (at, "id"), f"{rule.id!r} occurs twice"
        rule_ids.add(rule.id)
        databases = inventory.databases_with(rule.collection)
        if rule.database is not None and rule.database not in inventory:
            yield (at, "database"), f"the pack maps no database {rule.database!r}"
        elif not databases or (rule.database is not None and rule.database not in databases):
            yield (at, "collection"), f"no data map has a collection {rule.collection!r}"
        elif rule.database is None and len(databases) > 1:
            message = f"several databases have it: name one as database: {', '.join(databases)}"
            yield (at, "collection"), message
        else:
            for loc, message in _name_faults(rule, rule.database or databases[0], inventory):
                yield (at, *loc), message
        yield from (((at, *loc), message) for loc, message in _key_faults(rule))
        for number, mask in enumerate(rule.sample.masks):
            if mask.category not in inventory.categories:
                message = f"the taxonomy has no data_category {mask.category!r}"
                yield (at, "sample", "masks", number, "category"), message
        ids: set[str] = set()
        for number, check in enumerate(rule.checks):
            if check.id in ids:
                yield (at, "checks", number, "id"), f"{check.id!r} occurs twice"
            ids.add(check.id)


def check_ids(rules: Iterable[IntakeRule], inventory: Inventory) -> Iterator[tuple[str, str, str]]:
    """Yield the database, collection and id of each check in intake.yaml.

    The caller needs them because no expectation of a collection may have the same id as a check of
    this collection.
    """
    for rule in rules:
        databases = [rule.database] if rule.database else inventory.databases_with(rule.collection)
        yield from (
            (database, rule.collection, check.id) for database in databases for check in rule.checks
        )


def _name_faults(
    rule: IntakeRule, database: str, inventory: Inventory
) -> Iterator[tuple[Loc, str]]:
    columns: list[tuple[Loc, str, str]] = [
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
        target_loc: Loc = ("targets", n)
        columns += [
            ((*target_loc, "columns", column), target.collection, column)
            for column in target.columns
        ]
        columns += [
            ((*target_loc, "keys", name), target.collection, column)
            for name, column in target.keys.items()
        ]
        if target.reviewed:
            columns += [
                ((*target_loc, "reviewed", "by"), target.collection, target.reviewed.by),
                ((*target_loc, "reviewed", "at"), target.collection, target.reviewed.at),
            ]
    for loc, collection, column in columns:
        if not inventory.has_collection(database, collection):
            yield loc, f"the database {database} has no collection {collection!r}"
        elif not inventory.has_column(database, collection, column):
            yield loc, f"collection {collection!r} has no field {column!r}"


def _key_faults(rule: IntakeRule) -> Iterator[tuple[Loc, str]]:
    key_names: set[str] = set()
    for n, target in enumerate(rule.targets):
        for name in target.keys:
            if name in key_names:
                yield ("targets", n, "keys", name), f"{name!r} occurs twice"
            key_names.add(name)
        if target.record_class and target.record_class not in target.columns:
            yield ("targets", n, "record_class"), f"columns has no {target.record_class!r}"
    if rule.back_reference.key not in key_names:
        message = f"no target allocates a key {rule.back_reference.key!r}"
        yield ("back_reference", "key"), message
