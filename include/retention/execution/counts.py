"""Count the records that an execution disposed of, and those that it left, with the reason."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import psycopg

from include.retention.postgres.transaction_counters import (
    ByTriggers,
    ChangedUnrecorded,
    SideEffect,
)

Stop = Literal["budget", "window"]


@dataclass
class ExecutionCounts:
    """Counts of an execution by record class.

    Attributes:
        done: committed deletions and masks, by class.
        before: records that earlier tries of the run erased, by class, from the ledger.
        partitions: dropped partitions, by class.
        refused: records that the database refused, by class and SQLSTATE.
        side_effects: unrecorded changes of rows that made the run refuse records, by class and
            table.
        inserted: rows that triggers or rules inserted, by table.
        updated: rows that triggers or rules updated as retention.yaml allows, by table.
        busy: batches that were given up because other sessions held locks, by class.
        given_up: classes that were skipped after the database refused too many of their records.
        locked: deletable records that stayed because other sessions held locks to the end, or
            because statements took too long, by class.
        slow: classes with a statement that took too long.
        large_cycles: minimum number of records in cycles of references that are too large for one
            transaction, by class.
        waiting: deletable records in excess of the plan, by class.
        stopped: why the execution stopped early; None if it was completed.
        seconds: duration of the longest transaction, rolled back or not; for a dropped partition,
            only the part in which other sessions wait.
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

    def took(self, begun: float) -> None:
        """Record the duration of a transaction, or of the part in which other sessions wait.

        Args:
            begun: its start, by the monotonic clock.
        """
        self.seconds = max(self.seconds, time.monotonic() - begun)

    def refuse(self, name: str, error: psycopg.Error, records: int = 1) -> None:
        """Count records of a class that the database refused, and side effects."""
        self.refused[name, error.sqlstate or "?"] += records
        if isinstance(error, ChangedUnrecorded):
            effects = self.side_effects.setdefault(name, {})
            for effect in error.effects:
                effects[effect.table] = effects.get(effect.table, SideEffect(effect.table)) + effect

    def react(self, changes: ByTriggers) -> None:
        """Count rows that triggers or rules changed and that are allowed."""
        self.inserted.update(changes.inserted)
        self.updated.update(changes.updated)
