"""Replay the erasure ledger on a restored copy, and prove that erased records are absent.

Drills and restores share it. A replay erases and masks again, refreshes materialized views,
searches the copy, and repeats this for entries that the ledger got meanwhile (docs/decisions/0032).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import psycopg
from psycopg.sql import SQL, Identifier
from sqlalchemy import Engine, func, select

from include.erasure.ledger import ErasureKeys, entries_by_key_types, require_all_there
from include.erasure.masks import Mask, masks_of
from include.erasure.matching import Table, check_keys, matches, place_of, require_same_secrets
from include.erasure.places import (
    Place,
    detached_of,
    key_columns,
    order_of_key,
    types_of_columns,
    types_of_key,
)
from include.erasure.restored_copy import refresh_materialized_views, renew_statistics, suspended
from include.erasure.search import search
from include.erasure.staged import (
    StagedKeys,
    check_deferred,
    count_remaining,
    create_staged,
    delete_unreferenced_large_objects,
    detach_references,
    erase,
    mask_again,
    remember_large_objects,
    stage,
)
from include.policy.datamap import MappedDatabase
from include.policy.retention import RetentionRule
from include.services.errors import ControlFailed
from include.state.tables import erasure, erasure_batch


@dataclass(frozen=True)
class Replay:
    """Counts of a replay.

    Attributes:
        entries: entries of the ledger for this database.
        replayed: records that the copy had brought back and that were erased again.
        remaining: erased records that are still present afterwards, and masked records that show
            more than their mask, by a second query; must be 0.
        remasked: records that the copy had brought back in clear and that were masked again.
        skipped: collections whose table the copy does not have.
        not_looked_for: entries of `skipped` collections, whose table is younger than the restore
            point or had another name then; and entries of `other_keys`.
        other_keys: collections whose table has no key in the copy, or that have entries of an
            earlier key, which name no record of the copy.
        refreshed: materialized views that were refreshed.
        holding: relation (``schema.name``) -> rows that still hold the key of a deleted record, by
            `include.erasure.search`; must be empty.
        large_objects: deleted large objects, to which only replayed records referred.
    """

    entries: int
    replayed: int
    remaining: int
    remasked: int = 0
    skipped: tuple[str, ...] = ()
    not_looked_for: int = 0
    other_keys: tuple[str, ...] = ()
    refreshed: int = 0
    holding: Mapping[str, int] = field(default_factory=dict)
    large_objects: int = 0


@dataclass(frozen=True)
class Schedule:
    """The parts of retention.yaml and the data map that a replay needs.

    Attributes:
        masks: record class -> mask, `include.erasure.masks.masks_of`.
        detached: collection -> references to it that are set to null,
            `include.erasure.places.detached_of`.
        keys: collection -> its key's columns in the data map; they find records in a copy from
            before these columns were the table's primary key.
        ruled: collections that have a retention rule.
    """

    masks: Mapping[str, Mask] = field(default_factory=dict)
    detached: Mapping[str, Sequence[str]] = field(default_factory=dict)
    keys: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ruled: Collection[str] = ()


def schedule_of(database: MappedDatabase, rules: Iterable[RetentionRule]) -> Schedule:
    """Return the schedule of a database, from its collections and its retention rules."""
    listed = list(rules)
    return Schedule(
        masks_of(listed),
        detached_of(listed),
        {name: collection.primary_key for name, collection in database.collections.items()},
        frozenset(rule.collection for rule in listed),
    )


def replay(
    copy: psycopg.Connection,
    database: str,
    places: Mapping[str, Place],
    state: Engine,
    keys: ErasureKeys,
    schedule: Schedule,
    at: datetime,
    *,
    incomplete: bool = False,
) -> Replay:
    """Erase and mask the ledger's records in a restored copy again, then search for them.

    Entries of open batches count: whether their transaction committed or not, their erasure was
    due. All deletions of a step happen in one statement, so foreign keys between the erased records
    hold in any order and in cycles. The application's triggers and rules are suspended meanwhile,
    and materialized views and the planner's statistics are renewed afterwards. Entries that the
    ledger gets meanwhile are replayed in further steps, until a read of the ledger returns no new
    entry. Memory does not grow with the copy or the ledger: keys are read in chunks, and matching
    keys stay in temporary tables of the copy.

    Args:
        copy: the restored database; transactions are committed.
        database: its name in the data map.
        places: collection -> table.
        state: database of the ledger.
        keys: of the HMAC, old ones included.
        schedule: of the database.
        at: moment for the stamp of records that are masked.
        incomplete: replay a ledger although entries are missing or were changed.

    Returns:
        What was done, and what is left; `require_erased` judges it.

    Raises:
        UsageError: a key of the ledger is missing or another, a collection is not mapped, a record
            was masked by a class that has no mask any more, or the role may not disable triggers.
        ControlFailed: entries of the ledger are gone; or records that were never erased still refer
            to erased ones, be it by a key that would delete them too (``ON DELETE CASCADE``).
        ServiceError: the copy or the ledger cannot be read, or the copy not be changed. Nothing is
            changed in the copy in either case.
    """
    run = _Run(copy, database, places, state, keys, schedule, at, accepts_incomplete=incomplete)
    ledger = run.read()
    while run.new_in(ledger):
        ledger = run.apply(ledger)
    return run.result()


def require_erased(done: Replay) -> None:
    """Raise ControlFailed when a replay left, or could not look for, an erased record."""
    if done.remaining:
        raise ControlFailed(
            f"{done.remaining} erased or masked records are still in the restored database.",
            "Do not open it to anybody.",
        )
    if done.holding:
        raise ControlFailed(
            f"Keys of erased records are still in the restored database: {holding_text(done)}.",
            "Do not open it to anybody. Erase these rows; give a table that keeps copies of "
            "records a retention rule of its own.",
        )
    if done.not_looked_for:
        raise ControlFailed(
            f"{done.not_looked_for} erased records could not be looked for: the copy has no table, "
            f"or one with another primary key, for {', '.join((*done.skipped, *done.other_keys))}.",
            "If the table had another name or key at the time of the backup, erase these records "
            "by hand before you open the copy. If the table is younger than the backup, the copy "
            "cannot contain them.",
        )


def holding_text(done: Replay) -> str:
    """Return the relations that still hold erased keys, with their numbers of rows."""
    return ", ".join(f"{name} ({rows} rows)" for name, rows in done.holding.items())


@dataclass(frozen=True)
class _Ledger:
    """The entries of a database at one moment.

    Attributes:
        batches: batch -> its collection and number of entries; none without entries.
        key_ids: keys under which the entries were made.
    """

    batches: Mapping[int, tuple[str, int]]
    key_ids: Collection[str]

    @property
    def entries(self) -> Counter[str]:
        """Return the number of entries by collection."""
        numbers: Counter[str] = Counter()
        for collection, number in self.batches.values():
            numbers[collection] += number
        return numbers


@dataclass
class _Run:
    """A replay while the ledger grows: each step takes the batches that no step took before."""

    copy: psycopg.Connection
    database: str
    places: Mapping[str, Place]
    state: Engine
    keys: ErasureKeys
    schedule: Schedule
    at: datetime
    accepts_incomplete: bool
    _taken: _Ledger = field(default_factory=lambda: _Ledger({}, ()))
    _skipped: dict[str, int] = field(default_factory=dict)
    _unfit: dict[str, int] = field(default_factory=dict)
    _staged: dict[tuple[str, tuple[str, ...]], StagedKeys] = field(default_factory=dict)
    _remaining: dict[int, int] = field(default_factory=dict)  # by number of the staged keys
    _holding: dict[str, Mapping[str, int]] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)

    def read(self) -> _Ledger:
        """Read the ledger; raises ControlFailed when entries are gone."""
        query = (
            select(erasure_batch.c.id, erasure_batch.c.collection, erasure.c.key_id, func.count())
            .join_from(erasure, erasure_batch)
            .where(erasure_batch.c.database == self.database)
            .group_by(erasure_batch.c.id, erasure.c.key_id)
        )
        batches: dict[int, tuple[str, int]] = {}
        key_ids = set()
        with self.state.connect() as conn:
            for batch, collection, key_id, number in conn.execute(query):
                batches[batch] = (collection, batches.get(batch, (collection, 0))[1] + number)
                key_ids.add(key_id)
            ledger = _Ledger(batches, key_ids)
            # Reads every entry: only a ledger that changed, or that was not read before.
            if not self.accepts_incomplete and (ledger != self._taken or not batches):
                require_all_there(conn, self.database)
        if key_ids - set(self._taken.key_ids):
            check_keys(key_ids, self.keys)
            require_same_secrets(self.state, self.keys, self.at)
        return ledger

    def new_in(self, ledger: _Ledger) -> dict[str, list[int]]:
        """Return the batches whose entries were not all taken: collection -> batches."""
        new: dict[str, list[int]] = {}
        for batch, (collection, number) in ledger.batches.items():
            if number > self._taken.batches.get(batch, (collection, 0))[1]:
                new.setdefault(collection, []).append(batch)
        return dict(sorted(new.items()))

    def apply(self, ledger: _Ledger) -> _Ledger:
        """Replay the new entries of a ledger, and those entered meanwhile, in one transaction.

        Returns:
            The ledger as it is after the commit.
        """
        collections: set[str] = set()
        with suspended(self.copy):
            while new := self.new_in(ledger):
                self._erase_new(new, ledger)
                collections |= new.keys()
                self._taken = ledger
                ledger = self.read()
            self._search(collections)
        renew_statistics(self.copy, [keys.table.place for keys in self._staged.values()])
        self.copy.commit()
        return self.read()

    def _erase_new(self, new: Mapping[str, list[int]], ledger: _Ledger) -> None:
        """Erase and mask the records that new batches name."""
        copy, is_first = self.copy, not self._taken.batches
        entries = ledger.entries
        changed = []
        for collection, batches in new.items():
            place = place_of(collection, self.places)
            if key_columns(copy, place) is None:
                self._skipped[collection] = entries[collection]
                continue
            for table in self._tables(collection, place):
                name = (collection, tuple(table.columns))
                earlier = self._staged.get(name)
                keys = StagedKeys(earlier.number if earlier else len(self._staged), table)
                if earlier is None:
                    create_staged(copy, keys)
                self._staged[name] = keys
                changed.append(keys)
                only = None if is_first else batches
                matching = matches(self.state, copy, table, self.keys, only)
                self._counts["replayed"] += stage(copy, keys, matching)
        remember_large_objects(copy, changed)
        detach_references(copy, changed, self.places, self.schedule.detached)
        erase(copy, changed)
        self._counts["remasked"] += mask_again(copy, changed, self.schedule.masks, self.at)
        check_deferred(copy)

    def _tables(self, collection: str, place: Place) -> list[Table]:
        """Return the tables and keys that a collection's entries name; count entries without."""
        with self.state.connect() as conn:
            by_types = entries_by_key_types(conn, self.database, collection)
        types_by_columns: dict[tuple[str, ...], set[str | None]] = {}
        self._unfit[collection] = 0
        for types, number in by_types.items():
            columns = self._columns_named(place, types, self.schedule.keys.get(collection, ()))
            if columns is None:
                self._unfit[collection] += number
            else:
                types_by_columns.setdefault(columns, set()).add(types)
        tables = []
        for columns, key_types in types_by_columns.items():
            filled = SQL(" AND ").join(
                SQL("{} IS NOT NULL").format(Identifier("t", column)) for column in columns
            )
            tables.append(Table(self.database, collection, place, columns, filled, key_types))
        return tables

    def _columns_named(
        self, place: Place, types: str | None, mapped: Sequence[str]
    ) -> tuple[str, ...] | None:
        """Return the columns whose values entries of these types name, or None."""
        own = key_columns(self.copy, place)
        if own and types in (None, types_of_key(self.copy, place)):
            return tuple(own)
        return order_of_key(mapped, types, partial(types_of_columns, self.copy, place))

    def _search(self, collections: Collection[str]) -> None:
        """Refresh materialized views, delete large objects, and search for erased records.

        Only collections with new entries are searched, and those with rows left by an earlier step.
        """
        self._counts["refreshed"] = refresh_materialized_views(self.copy)
        self._counts["large_objects"] += delete_unreferenced_large_objects(self.copy)
        ruled = [self.places[name] for name in self.schedule.ruled if name in self.places]
        left = {name for name, rows in self._holding.items() if rows}
        for collection in sorted({*collections, *left}):
            staged = [keys for keys in self._staged.values() if keys.table.collection == collection]
            for keys in staged:
                self._remaining[keys.number] = count_remaining(
                    self.copy, [keys], self.schedule.masks
                )
            sought = [keys.sought for keys in staged]
            self._holding[collection] = search(
                self.copy, self.database, sought, self.state, self.keys, ruled
            )

    def result(self) -> Replay:
        """Return the counts of all steps."""
        holding: Counter[str] = Counter()
        for rows in self._holding.values():
            holding.update(rows)
        return Replay(
            sum(self._taken.entries.values()),
            self._counts["replayed"],
            sum(self._remaining.values()),
            self._counts["remasked"],
            tuple(self._skipped),
            sum(self._skipped.values()) + sum(self._unfit.values()),
            tuple(name for name, number in self._unfit.items() if number),
            self._counts["refreshed"],
            dict(sorted(holding.items())),
            self._counts["large_objects"],
        )
