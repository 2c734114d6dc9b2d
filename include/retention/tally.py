"""Count the records that an execution disposed of, and those that it left, with the reason."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import psycopg

from include.retention.transaction_counters import ByTriggers, ChangedUnrecorded, SideEffect


@dataclass
class Tally:
    """Counts of an execution by record class.

    Attributes:
        done: records deleted or masked, and committed.
        before: records that earlier tries of the run erased, by the ledger.
        partitions: that were dropped.
        refused: records that the database refused, by class and SQLSTATE.
        side_effects: changes of rows that were not recorded, for which records were refused, by
            class and table.
        inserted: rows that triggers or rules inserted, by table.
        updated: rows that triggers or rules updated as retention.yaml allows, by table.
        busy: times that a batch was given up since others held locks, by class.
        given_up: classes that were left alone since the database refused too many.
        locked: records that could go and that other sessions kept locked to the end, or on which
            statements took too long, by class.
        slow: classes of which a statement took too long.
        knots: records at the least that refer to each other in a circle which is too large for one
            transaction, by class.
        waiting: records that could go and are more than the plan says, by class.
        stopped: why the execution stopped early; None when it came to its end.
        seconds: the longest transaction, also of those that were rolled back; of one that drops a
            partition the part in which others wait.
    """

    done: dict[str, int] = field(default_factory=dict)
    before: dict[str, int] = field(default_factory=dict)
    partitions: dict[str, int] = field(default_factory=dict)
    refused: dict[tuple[str, str], int] = field(default_factory=dict)
    side_effects: dict[str, dict[str, SideEffect]] = field(default_factory=dict)
    inserted: dict[str, int] = field(default_factory=dict)
    updated: dict[str, int] = field(default_factory=dict)
    busy: dict[str, int] = field(default_factory=dict)
    given_up: set[str] = field(default_factory=set)
    slow: set[str] = field(default_factory=set)
    locked: dict[str, int] = field(default_factory=dict)
    knots: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    stopped: str | None = None
    seconds: float = 0.0

    def took(self, begun: float) -> None:
        """Count a transaction, or the part of it in which others wait, by when it began."""
        self.seconds = max(self.seconds, time.monotonic() - begun)

    def add(self, name: str, records: int) -> None:
        """Count records of a class."""
        self.done[name] = self.done.get(name, 0) + records

    def refuse(self, name: str, error: psycopg.Error, records: int = 1) -> None:
        """Count records of a class that the database refused, and the side effects, if any."""
        key = (name, error.sqlstate or "?")
        self.refused[key] = self.refused.get(key, 0) + records
        if isinstance(error, ChangedUnrecorded):
            effects = self.side_effects.setdefault(name, {})
            for effect in error.effects:
                effects[effect.table] = effects.get(effect.table, SideEffect(effect.table)) + effect

    def react(self, changes: ByTriggers) -> None:
        """Count rows that triggers or rules changed and that are allowed."""
        for counts, changed in (
            (self.inserted, changes.inserted),
            (self.updated, changes.updated),
        ):
            for table, rows in changed.items():
                counts[table] = counts.get(table, 0) + rows
