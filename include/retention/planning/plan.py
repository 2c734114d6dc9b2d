"""The plan of deletions and masks, as a file whose SHA-256 people approve."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from include.frozen import StrictModel
from include.policy.retention import RetentionRule
from include.services.errors import ControlFailed

SCHEMA = "1"
Event = Literal["DELETE", "UPDATE"]


class KeptBy(StrictModel):
    """Records that stay since other records refer to them.

    Attributes:
        table: ``schema.table`` that refers.
        collection: its collection; None for a table that the data map lacks.
        constraint: name of the foreign key.
        records: number of kept records; several foreign keys may keep a record.
    """

    table: str
    collection: str | None
    constraint: str
    records: int


class HeldBy(StrictModel):
    """Records that a hold keeps.

    Attributes:
        hold: number in the registry.
        records: number of expired records; several holds may keep a record.
    """

    hold: int
    records: int


class PlannedClass(StrictModel):
    """The plan for a record class.

    Attributes:
        name: of the class.
        rule_sha256: of the class in retention.yaml.
        records: of the class, in all.
        expired: whose periods are over; of a class that masks, and that are not masked yet.
        requested: that a data subject asked to have erased before their time.
        held: of both, that a hold keeps.
        suspended: of both, that the class's own condition keeps, and no hold.
        kept_longer: of both, that another class of theirs keeps.
        kept_by_reference: of both, that stay since other records refer to them.
        to_delete: records that will be deleted, those of dropped partitions included.
        to_mask: records that will be masked.
        to_drop_partitions: partitions that will be dropped as a whole.
        not_started: records whose clock is null.
        ahead: records whose clock lies in the future.
        minimum_not_started: records that are over or asked for, and that a `minimum` keeps whose
            clock is null: no period of it runs, so that they never expire.
        referred_by: what keeps them.
        held_by: which holds keep them.
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
        """Records that will be deleted or masked."""
        return self.to_delete + self.to_mask

    def as_json(self) -> dict[str, Any]:
        """Return the class for ``retention plan --json`` (docs/retention.md)."""
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
    """A partition that will be dropped as a whole.

    Attributes:
        table: ``schema.table``.
        records: in it.
        digest: as of `PlannedTable`.
    """

    table: str
    records: int
    digest: str


class PlannedTable(StrictModel):
    """The plan for the table of a collection.

    Attributes:
        to_delete: records that will be deleted, each once however many classes it has.
        deleted: keyed digest of their primary keys: XOR of PostgreSQL's 64-bit hashes under a seed
            that comes from the erasure key. It shows whether the records are still the same, and
            does not identify them.
        to_mask: records that will be masked.
        masked: likewise.
        references: what leads to the table and what becomes of it, for the reader.
        partitions: that will be dropped.
    """

    collection: str
    to_delete: int = 0
    deleted: str = "0"
    to_mask: int = 0
    masked: str = "0"
    references: tuple[str, ...] = ()
    partitions: tuple[PlannedPartition, ...] = ()


class Reaction(StrictModel):
    """A trigger, rule or publication that reacts to changes of the plan.

    Attributes:
        collection: whose rows are deleted or updated.
        table: ``schema.table`` of the collection.
        kind: what reacts.
        name: of the trigger, rule or publication.
        events: to which it reacts.
        function: of a trigger, ``schema.function``.
    """

    collection: str
    table: str
    kind: Literal["trigger", "rule", "publication"]
    name: str
    events: tuple[Event, ...]
    function: str | None = None

    @property
    def label(self) -> str:
        """The reaction for a message: kind, name, table and function."""
        function = f", {self.function}" if self.function else ""
        return f"{self.name} ({self.table}{function})"


class Plan(StrictModel):
    """The plan of a run for a database.

    Attributes:
        database: of the data map.
        as_of: moment for which it was made.
        key_id: erasure key under which records are named.
        holds: numbers of the holds that counted.
        requests: numbers of the requests that counted.
        order: groups of collections in the order in which they are emptied.
        classes: in the order of retention.yaml.
        tables: by collection.
        reactions: triggers, rules and publications of the tables that the plan may change.
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
        """The content of the file."""
        data = self.model_dump(mode="json")
        return (json.dumps(data, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()

    @property
    def sha256(self) -> str:
        """Hex digest of the plan; ``sha256sum`` prints the same of its file."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def planned(self) -> int:
        """Records that will be deleted or masked."""
        return sum(record_class.planned for record_class in self.classes)

    def of(self, name: str) -> PlannedClass:
        """Return the class of a name."""
        return next(record_class for record_class in self.classes if record_class.name == name)

    def table(self, collection: str) -> PlannedTable:
        """Return the table of a collection."""
        tables = (table for table in self.tables if table.collection == collection)
        return next(tables, PlannedTable(collection=collection))


def file_name(database: str) -> str:
    """Return the name of a plan's file in the bundle."""
    return f"plan-{database}.json"


def read_plan(content: bytes, sha256: str) -> Plan:
    """Read a stored plan, and refuse it if its hash differs.

    Raises:
        ControlFailed: it was edited.
    """
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ControlFailed(
            "The plan is not the one that was made: its file changed since.",
            "Nothing was deleted. Find out who changed it; the next run makes a new plan.",
        )
    return Plan.model_validate_json(content)


def rule_digest(rule: RetentionRule) -> str:
    """Return the SHA-256 of a class of retention.yaml."""
    return hashlib.sha256(rule.model_dump_json(by_alias=True).encode()).hexdigest()


def combined(plans: Sequence[Plan]) -> str:
    """Return a hash for the plans of several databases, or the hash of a single plan."""
    if len(plans) == 1:
        return plans[0].sha256
    lines = "".join(f"{plan.sha256}  {file_name(plan.database)}\n" for plan in plans)
    return hashlib.sha256(lines.encode()).hexdigest()
