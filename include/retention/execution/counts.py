"""The numbers of records that an execution changed or did not change, by reason."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import psycopg

from include.retention.postgres.transaction_counters import (
    SideEffect,
    TriggerChanges,
    UnrecordedChanges,
)

Stop = Literal["budget", "window"]


@dataclass
class ExecutionCounts:
    """The numbers of records that an execution changed or did not change.

    Most attributes contain one number for each record class.

    Attributes:
        done: number of records that committed transactions deleted or masked, by record class.
        before: number of records that earlier attempts of this run erased according to the erasure
            ledger, by record class.
        partitions: number of dropped partitions, by record class.
        refused: number of records that the database refused to change, by record class and
            SQLSTATE.
        side_effects: changes by triggers or rules that retention.yaml does not allow, by record
            class and table. The transactions with these changes were rolled back.
        inserted: number of rows that triggers or rules inserted, by table.
        updated: number of rows that triggers or rules updated as retention.yaml allows, by table.
        busy: number of batches that failed because other sessions held locks, by record class.
        given_up: record classes that were skipped because the database refused too many of their
            records.
        locked: number of records that could be deleted or masked but were not, by record class.
            Either other sessions locked these records, or statements took too long.
        slow: record classes for which a statement took too long.
        large_cycles: number of records in reference cycles that are too large for one transaction,
            by record class. The true number may be higher.
        waiting: number of records that could be deleted or masked now but were not planned, by
            record class.
        stopped: reason why the execution stopped early; None if it was completed.
        seconds: duration of the longest transaction in seconds, including transactions that were
            rolled back. For a transaction that drops a partition, it is only the time during which
            other sessions have to wait.
    """

    done: Counter[str] = field(default_factory=Counter)
    before: Mapping[str, int] = field(default_factory=dict)
    partitions: Counter[str] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    side_effects: dict[str, dict[str, SideEffect]] = field(default_factory=dict)
    inserted: Counter[str] = field(default_factory=Counter)
    updated: Counter[str] = field(default_factory=Counter)
    busy: Counter[str] = field(default_factory=Counter)
    given_up: set[str] = field(default_factory=set)
    slow: set[str] = field(default_factory=set)
    locked: dict[str, int] = field(default_factory=dict)
    large_cycles: dict[str, int] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)
    stopped: Stop | None = None
    seconds: float = 0.0

    def record_duration(self, begun: float) -> None:
        """Record the duration of a period in which other sessions may wait for this execution.

        Args:
            begun: start of the period in seconds of the monotonic clock.
        """
        self.seconds = max(self.seconds, time.monotonic() - begun)

    def refuse(self, name: str, error: psycopg.Error, records: int = 1) -> None:
        """Count records that the database refused to change.

        If the cause is a change by a trigger or rule that retention.yaml does not allow, that
        change is recorded, too.

        Args:
            name: name of the record class.
            error: error with which the database refused the change.
            records: number of refused records.
        """
        self.refused[name, error.sqlstate or "?"] += records
        if isinstance(error, UnrecordedChanges):
            effects = self.side_effects.setdefault(name, {})
            for effect in error.effects:
                effects[effect.table] = effects.get(effect.table, SideEffect(effect.table)) + effect

    def count_trigger_changes(self, changes: TriggerChanges) -> None:
        """Count the rows that triggers or rules inserted, or updated as retention.yaml allows.

        Args:
            changes: numbers of these rows in a transaction that was committed.
        """
        self.inserted.update(changes.inserted)
        self.updated.update(changes.updated)
