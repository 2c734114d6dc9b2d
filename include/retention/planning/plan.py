"""The disposition plan of a run.

The plan is stored as a file. An approval is valid only for the plan file whose SHA-256 the approval
request states.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from include.frozen import StrictModel
from include.messages import Message, _
from include.policy.retention import RetentionRule
from include.services.errors import ControlFailed

SCHEMA = "1"
Event = Literal["DELETE", "UPDATE"]

ON_LEGAL_HOLD, SUSPENDED = _("On legal hold"), _("Suspended")
REFERENCED = _("Referenced by other records")
"""Headings of the approval form and of the certificate of deletion."""


def suspension_reason(rule: RetentionRule | None) -> Message:
    """Return why the disposition of records of a record class is suspended.

    Args:
        rule: record class in retention.yaml; None if it no longer exists.
    """
    if rule is None or rule.suspended is None:
        return _("a condition of the retention schedule suspends the disposition")
    return rule.suspended.message


class KeptBy(StrictModel):
    """The number of records of a record class that are kept because of one foreign key.

    Attributes:
        table: ``schema.table`` of the table that has the foreign key.
        collection: collection of this table; None for an unmapped table.
        constraint: name of the foreign key.
        records: number of kept records. A record that is kept by several foreign keys is counted
            for each.
    """

    table: str
    collection: str | None
    constraint: str
    records: int


class HeldBy(StrictModel):
    """The number of records of a record class that a legal hold keeps.

    Attributes:
        hold: number of the legal hold in the register.
        records: number of kept records, among those that expired or whose erasure was requested. A
            record that is kept by several holds is counted for each.
    """

    hold: int
    records: int


class PlannedClass(StrictModel):
    """The planned disposition of a record class.

    Attributes:
        name: name of the record class.
        collection: collection of the record class.
        action: disposition of the record class.
        rule_sha256: SHA-256 of the definition of the record class in retention.yaml.
        records: number of all records of the record class.
        expired: number of expired records. If the record class masks records, those that are masked
            already are not counted.
        requested: number of records that have not expired and whose erasure was requested.
        held: number of records on legal hold, among the expired and the requested records.
        suspended: number of records whose disposition retention.yaml suspends, among the expired
            and the requested records. Records on legal hold are not counted here.
        kept_longer: number of records that another record class of the collection keeps, among the
            expired and the requested records.
        kept_by_reference: number of records that are kept because other records refer to them.
        to_delete: number of records to delete, including records of partitions to drop.
        to_mask: number of records to mask.
        to_drop_partitions: number of partitions to drop.
        not_started: number of records without a start of the retention period.
        ahead: number of records whose retention period starts in the future.
        minimum_not_started: number of expired or requested records that are kept because the start
            of a `minimum` period is missing. They never expire if nobody fills in the date.
        referred_by: numbers of records that are kept because of references, by foreign key.
        held_by: numbers of records on legal hold, by hold.
    """

    name: str
    collection: str
    action: Literal["delete", "drop_partition", "mask", "keep"]
    rule_sha256: str
    records: int
    expired: int
    requested: int = 0
    held: int = 0
    suspended: int = 0
    kept_longer: int = 0
    kept_by_reference: int = 0
    to_delete: int = 0
    to_mask: int = 0
    to_drop_partitions: int = 0
    not_started: int = 0
    ahead: int = 0
    minimum_not_started: int = 0
    referred_by: tuple[KeptBy, ...] = ()
    held_by: tuple[HeldBy, ...] = ()

    @property
    def planned(self) -> int:
        """The number of records of the record class to delete or mask."""
        return self.to_delete + self.to_mask

    @property
    def referenced(self) -> int:
        """The number of records that other records keep: by a reference or a longer period."""
        return self.kept_by_reference + self.kept_longer

    def as_json(self) -> dict[str, Any]:
        """Return the figures of the record class for the output of ``retention plan --json``.

        docs/reference/retention-schedule.md describes this output.
        """
        return {
            "name": self.name,
            "collection": self.collection,
            "expired": self.expired,
            "held": self.held + self.suspended,
            "to_delete": self.to_delete,
            "to_mask": self.to_mask,
            "to_drop_partitions": self.to_drop_partitions,
            "requested": self.requested,
            "kept_longer": self.kept_longer,
            "kept_by_reference": self.kept_by_reference,
            "not_started": self.not_started,
            "ahead": self.ahead,
            "minimum_not_started": self.minimum_not_started,
        }


class PlannedPartition(StrictModel):
    """A partition that the plan drops with all its records.

    Attributes:
        table: ``schema.table`` of the partition.
        records: number of records in the partition.
        digest: digest of their primary keys, calculated like `PlannedTable.deleted`.
    """

    table: str
    records: int
    digest: str


class PlannedTable(StrictModel):
    """The planned changes of the table of a collection.

    Attributes:
        collection: name of the collection.
        to_delete: number of records to delete. A record that belongs to several record classes
            counts once.
        deleted: digest of the primary keys of the records to delete. Another set of records has
            another digest, but the digest identifies no record. It is the XOR of PostgreSQL's
            64-bit hashes of the keys. The seed of the hashes is derived from an HMAC key.
        to_mask: number of records to mask.
        masked: digest of the primary keys of the records to mask, calculated like `deleted`.
        references: foreign keys that refer to the table, as texts. Each text states whether the
            foreign key keeps records or is set to null.
        partitions: partitions to drop.
    """

    collection: str
    to_delete: int = 0
    deleted: str = "0"
    to_mask: int = 0
    masked: str = "0"
    references: tuple[str, ...] = ()
    partitions: tuple[PlannedPartition, ...] = ()


class Reaction(StrictModel):
    """A trigger, rule or publication that acts when the plan deletes or updates records.

    Attributes:
        collection: collection whose records are deleted or updated.
        table: ``schema.table`` of the collection.
        kind: type of the database object.
        name: name of the trigger, rule or publication.
        events: types of statements on which it acts.
        function: ``schema.function`` of a trigger; None for a rule or publication.
    """

    collection: str
    table: str
    kind: Literal["trigger", "rule", "publication"]
    name: str
    events: tuple[Event, ...]
    function: str | None = None

    @property
    def label(self) -> str:
        """A text that identifies the trigger, rule or publication by name, table and function."""
        function = f", {self.function}" if self.function else ""
        return f"{self.name} ({self.table}{function})"


class Plan(StrictModel):
    """The disposition plan of a run for one database.

    Attributes:
        form: version of the file format.
        database: name of the database in the data map.
        as_of: time for which the plan is made. Records that expired before this time are disposed
            of.
        key_id: id of the HMAC key from which the seed of the digests is derived.
        holds: numbers of the legal holds that the plan respects.
        requests: ids of the erasure requests that the plan carries out.
        order: collections in the order of deletion. Each item is a foreign-key cycle of collections
            or a single collection.
        classes: record classes in the order of retention.yaml.
        tables: tables of the collections with record classes.
        reactions: triggers, rules and publications on the tables that the plan changes.
    """

    form: str = SCHEMA
    database: str
    as_of: datetime
    key_id: str
    holds: tuple[int, ...] = ()
    requests: tuple[int, ...] = ()
    order: tuple[tuple[str, ...], ...] = ()
    classes: tuple[PlannedClass, ...] = ()
    tables: tuple[PlannedTable, ...] = ()
    reactions: tuple[Reaction, ...] = ()

    @property
    def content(self) -> bytes:
        """The bytes of the plan file."""
        data = self.model_dump(mode="json")
        return (json.dumps(data, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()

    @property
    def sha256(self) -> str:
        """The SHA-256 of the plan file in hex digits, as ``sha256sum`` prints it."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def planned(self) -> int:
        """The number of records of all record classes to delete or mask."""
        return sum(record_class.planned for record_class in self.classes)

    def of(self, name: str) -> PlannedClass:
        """Return the planned disposition of a record class.

        Args:
            name: name of the record class.
        """
        return next(record_class for record_class in self.classes if record_class.name == name)

    def table(self, collection: str) -> PlannedTable:
        """Return the planned changes of the table of a collection.

        If the plan does not have the collection, all figures are 0.
        """
        tables = (table for table in self.tables if table.collection == collection)
        return next(tables, PlannedTable(collection=collection))


def file_name(database: str) -> str:
    """Return the name of the plan file of a database in the evidence bundle."""
    return f"plan-{database}.json"


def read_plan(content: bytes, sha256: str) -> Plan:
    """Parse a plan file after its SHA-256 was verified.

    Args:
        content: bytes of the plan file.
        sha256: SHA-256 that the file must have.

    Raises:
        ControlFailed: the file has another SHA-256, so it was edited.
    """
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ControlFailed(
            "The file of the plan changed after the plan was made.",
            "Nothing was deleted. Find out who changed the file. The next run makes a new plan.",
        )
    return Plan.model_validate_json(content)


def rule_digest(rule: RetentionRule) -> str:
    """Return the SHA-256 of the definition of a record class in retention.yaml.

    Titles of SQL clocks do not count: they change no disposition, and digests of earlier versions
    stay valid.
    """
    without_titles: Any = {
        "clock": {"title"},
        "minimum": {"__all__": {"clock": {"title"}}},
    }
    definition = rule.model_dump_json(by_alias=True, exclude=without_titles)
    return hashlib.sha256(definition.encode()).hexdigest()


def combined_sha256(plans: Sequence[Plan]) -> str:
    """Return one SHA-256 for the plans of several databases.

    For a single plan, it is the SHA-256 of the plan file.
    """
    if len(plans) == 1:
        return plans[0].sha256
    lines = "".join(f"{plan.sha256}  {file_name(plan.database)}\n" for plan in plans)
    return hashlib.sha256(lines.encode()).hexdigest()
