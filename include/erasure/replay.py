"""Replay the erasure ledger on a restored copy, and prove that erased records are absent.

Restore drills and restores use this module. A replay erases and masks the records that the ledger
lists, refreshes materialized views, and searches the copy for keys of erased records. Entries that
are added to the ledger during the replay are replayed as well (docs/decisions/0032).
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

from include.erasure.ledger import ErasureKeys, count_entries_by_key_types, require_complete_ledger
from include.erasure.masks import Mask, masks_of
from include.erasure.matching import (
    ComparedTable,
    check_keys,
    match_records,
    require_same_secrets,
    table_name_of,
)
from include.erasure.restored_copy import (
    refresh_materialized_views,
    renew_statistics,
    suspend_triggers,
)
from include.erasure.search import search
from include.erasure.staged import (
    StagedKeys,
    check_deferred,
    count_remaining,
    create_staged,
    delete_unreferenced_large_objects,
    detach_references,
    erase_staged,
    mask_again,
    remember_large_objects,
    stage_matches,
)
from include.erasure.tables import (
    TableName,
    column_types,
    detached_fields,
    key_columns,
    order_key_columns,
    primary_key_types,
)
from include.policy.datamap import MappedDatabase
from include.policy.retention import RetentionRule
from include.services.errors import ControlFailed
from include.state.tables import erasure, erasure_batch


@dataclass(frozen=True)
class ReplayResult:
    """The counts of a replay on a restored copy.

    Attributes:
        entries: number of ledger entries for this database.
        replayed: number of records that the copy contained and that were deleted again.
        remaining: number of erased records that still exist after the replay, plus the number of
            masked records that show more than their mask allows. A separate query counts them. The
            number must be 0.
        remasked: number of records that were not masked in the copy and were masked again.
        skipped: collections whose table does not exist in the copy.
        unsearchable_entries: number of entries, in the collections of `skipped` and `other_keys`,
            whose records could not be searched in the copy. Either the table did not exist yet at
            the time of the restore point, or it had another name or primary key then.
        other_keys: collections with entries whose primary key corresponds to no columns of the
            copy's table. For example, the primary key was changed after the backup, or the table in
            the copy has no primary key.
        refreshed: number of refreshed materialized views.
        rows_with_erased_keys: relation (``schema.name``) -> number of rows that still contain the
            key of a deleted record, from `include.erasure.search`. The mapping must be empty.
        large_objects: number of large objects that were deleted, because only replayed records
            referred to them.
    """

    entries: int
    replayed: int
    remaining: int
    remasked: int = 0
    skipped: tuple[str, ...] = ()
    unsearchable_entries: int = 0
    other_keys: tuple[str, ...] = ()
    refreshed: int = 0
    rows_with_erased_keys: Mapping[str, int] = field(default_factory=dict)
    large_objects: int = 0


@dataclass(frozen=True)
class ReplayRules:
    """The settings of retention.yaml and the data map that a replay needs.

    Attributes:
        masks: record class -> mask, from `include.erasure.masks.masks_of`.
        detached: collection -> foreign key columns (``collection.field``) that refer to this
            collection. Before a record of the collection is deleted, these columns are set to null
            in the records that refer to it. From `include.erasure.tables.detached_fields`.
        keys: collection -> key columns in the data map. If the primary key in the copy differs from
            the key in the ledger, records are identified by these columns.
        ruled: collections that have a retention rule.
    """

    masks: Mapping[str, Mask] = field(default_factory=dict)
    detached: Mapping[str, Sequence[str]] = field(default_factory=dict)
    keys: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ruled: Collection[str] = ()


def replay_rules_of(database: MappedDatabase, rules: Iterable[RetentionRule]) -> ReplayRules:
    """Return the masks, references and keys that a replay on a database needs.

    Args:
        database: database of the data map.
        rules: retention rules of the policy pack.
    """
    listed = list(rules)
    return ReplayRules(
        masks_of(listed),
        detached_fields(listed),
        {name: collection.primary_key for name, collection in database.collections.items()},
        frozenset(rule.collection for rule in listed),
    )


def replay(
    copy: psycopg.Connection,
    database: str,
    table_names: Mapping[str, TableName],
    state: Engine,
    keys: ErasureKeys,
    rules: ReplayRules,
    at: datetime,
    *,
    incomplete: bool = False,
) -> ReplayResult:
    """Erase and mask the ledger's records in a restored copy again, then search the copy for them.

    Entries are replayed even if it is unknown whether the erasing transaction committed, because
    their records were to be erased in any case. The replay runs in steps. A step deletes its
    records in one statement, so their foreign keys may form cycles. During a step, triggers and
    rules of the application are suspended. At the end of a step, materialized views and planner
    statistics are renewed. Entries that are added to the ledger during the replay are handled in
    further steps, until the ledger has no new entry. The memory use does not grow with the number
    of entries: keys are read in chunks, and matching keys are stored in temporary tables of the
    copy.

    Args:
        copy: the restored database; transactions are committed.
        database: name of the database in the data map.
        table_names: collection -> table.
        state: state database with the ledger.
        keys: current and earlier HMAC keys.
        rules: masks, references and keys of the database.
        at: time that is stored in the stamp column of masked records.
        incomplete: whether to replay the ledger although entries are missing or changed.

    Returns:
        Counts of the replay; the caller must check them with `require_erased`.

    Raises:
        UsageError: an HMAC key is missing or has another secret; a collection is not mapped; a
            record class of masked records no longer has a mask; or the database role has no right
            to disable triggers.
        ControlFailed: entries of the ledger are missing or changed, or a record that was never
            erased refers to an erased record. This includes a reference by a foreign key with ``ON
            DELETE CASCADE``, which would delete the referring record.
        ServiceError: the ledger or the copy cannot be read, or the copy cannot be changed. The
            failed step changes nothing in the copy.
    """
    run = _ReplayRun(
        copy, database, table_names, state, keys, rules, at, accepts_incomplete=incomplete
    )
    ledger = run.read_ledger()
    while run.new_batches(ledger):
        ledger = run.apply(ledger)
    return run.result()


def require_erased(result: ReplayResult) -> None:
    """Raise ControlFailed if the replay left erased records in the copy.

    The error is also raised if the copy could not be searched for some of the erased records.
    """
    if result.remaining:
        raise ControlFailed(
            f"{result.remaining} erased or masked records are still in the restored database.",
            "Do not give anyone access to it.",
        )
    if result.rows_with_erased_keys:
        raise ControlFailed(
            "Keys of erased records are still in the restored database: "
            f"{leftover_keys_text(result)}.",
            "Do not give anyone access to it. Delete these rows. A table with copies of records "
            "needs a retention rule of its own.",
        )
    if result.unsearchable_entries:
        collections = ", ".join((*result.skipped, *result.other_keys))
        raise ControlFailed(
            f"{result.unsearchable_entries} erased records could not be searched: "
            f"for {collections}, the copy has no table, or a table with another primary key.",
            "If the table had another name or key at the time of the backup, erase these records "
            "by hand before you open the copy. If the table is younger than the backup, the copy "
            "cannot contain them.",
        )


def leftover_keys_text(result: ReplayResult) -> str:
    """Return a text that lists the relations in which keys of erased records were found.

    For each relation, the text states the number of rows with such a key.
    """
    return ", ".join(f"{name} ({rows} rows)" for name, rows in result.rows_with_erased_keys.items())


@dataclass(frozen=True)
class _Ledger:
    """A snapshot of the erasure ledger's entries for one database, taken during a replay.

    Attributes:
        batches: batch id -> collection and number of entries. Batches without entries are left out.
        key_ids: ids of the HMAC keys that the entries use.
    """

    batches: Mapping[int, tuple[str, int]]
    key_ids: Collection[str]

    @property
    def entries(self) -> Counter[str]:
        """The number of entries of each collection."""
        numbers: Counter[str] = Counter()
        for collection, number in self.batches.values():
            numbers[collection] += number
        return numbers


@dataclass
class _ReplayRun:
    """A replay of the erasure ledger in progress. It runs in steps.

    Each step handles the ledger entries that no earlier step handled.
    """

    copy: psycopg.Connection
    database: str
    table_names: Mapping[str, TableName]
    state: Engine
    keys: ErasureKeys
    rules: ReplayRules
    at: datetime
    accepts_incomplete: bool
    _replayed: _Ledger = field(default_factory=lambda: _Ledger({}, ()))
    _skipped: dict[str, int] = field(default_factory=dict)
    _unmatched: dict[str, int] = field(default_factory=dict)
    _staged: dict[tuple[str, tuple[str, ...]], StagedKeys] = field(default_factory=dict)
    _remaining: dict[int, int] = field(default_factory=dict)  # records by number of the staged keys
    _rows_with_erased_keys: dict[str, Mapping[str, int]] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)

    def read_ledger(self) -> _Ledger:
        """Read the ledger's entries for the database.

        If the entries changed since the last step of the replay, they are verified again.

        Raises:
            ControlFailed: entries of the ledger are missing or changed.
            UsageError: an HMAC key is missing or has another secret.
        """
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
            # The check reads every entry, so it runs only for a ledger that is new or has changed.
            if not self.accepts_incomplete and (ledger != self._replayed or not batches):
                require_complete_ledger(conn, self.database)
        if key_ids - set(self._replayed.key_ids):
            check_keys(key_ids, self.keys)
            require_same_secrets(self.state, self.keys, self.at)
        return ledger

    def new_batches(self, ledger: _Ledger) -> dict[str, list[int]]:
        """Return the batches with entries that were not replayed yet.

        Args:
            ledger: the ledger's entries, as `read_ledger` returned them last.

        Returns:
            Collection -> ids of the batches.
        """
        new: dict[str, list[int]] = {}
        for batch, (collection, number) in ledger.batches.items():
            if number > self._replayed.batches.get(batch, (collection, 0))[1]:
                new.setdefault(collection, []).append(batch)
        return dict(sorted(new.items()))

    def apply(self, ledger: _Ledger) -> _Ledger:
        """Replay, in one transaction, all entries that no earlier step replayed.

        Entries that are added to the ledger before the transaction ends are replayed as well.

        Args:
            ledger: the ledger's entries before the transaction, as `read_ledger` returned them.

        Returns:
            The ledger's entries after the commit of the transaction.
        """
        collections: set[str] = set()
        with suspend_triggers(self.copy):
            while new := self.new_batches(ledger):
                self._erase_new(new, ledger)
                collections |= new.keys()
                self._replayed = ledger
                ledger = self.read_ledger()
            self._search(collections)
        renew_statistics(self.copy, [keys.table.name for keys in self._staged.values()])
        self.copy.commit()
        return self.read_ledger()

    def _erase_new(self, new: Mapping[str, list[int]], ledger: _Ledger) -> None:
        """Erase and mask the copy's records with an entry in batches that were not replayed yet.

        Args:
            new: collection -> ids of these batches.
            ledger: snapshot that contains these batches.
        """
        copy, is_first = self.copy, not self._replayed.batches
        entries = ledger.entries
        changed = []
        for collection, batches in new.items():
            table_name = table_name_of(collection, self.table_names)
            if key_columns(copy, table_name) is None:
                self._skipped[collection] = entries[collection]
                continue
            for table in self._tables(collection, table_name):
                staged_name = (collection, tuple(table.columns))
                earlier = self._staged.get(staged_name)
                keys = StagedKeys(earlier.number if earlier else len(self._staged), table)
                if earlier is None:
                    create_staged(copy, keys)
                self._staged[staged_name] = keys
                changed.append(keys)
                compared = None if is_first else batches
                matches = match_records(self.state, copy, table, self.keys, compared)
                self._counts["replayed"] += stage_matches(copy, keys, matches)
        remember_large_objects(copy, changed)
        detach_references(copy, changed, self.table_names, self.rules.detached)
        erase_staged(copy, changed)
        self._counts["remasked"] += mask_again(copy, changed, self.rules.masks, self.at)
        check_deferred(copy)

    def _tables(self, collection: str, table_name: TableName) -> list[ComparedTable]:
        """Return the table of a collection, once for each set of columns to compare with the
        ledger.

        The primary key of the table may have changed since entries were written, so entries may
        have different key types. Each item of the result contains the key columns for one or more
        of these key types, and selects only the entries with these types. Entries whose primary key
        corresponds to no columns of the table are counted in `_unmatched`.

        Args:
            collection: name of the collection in the data map.
            table_name: table of the collection in the copy.
        """
        with self.state.connect() as conn:
            by_types = count_entries_by_key_types(conn, self.database, collection)
        types_by_columns: dict[tuple[str, ...], set[str | None]] = {}
        self._unmatched[collection] = 0
        for types, number in by_types.items():
            columns = self._key_columns(table_name, types, self.rules.keys.get(collection, ()))
            if columns is None:
                self._unmatched[collection] += number
            else:
                types_by_columns.setdefault(columns, set()).add(types)
        tables = []
        for columns, key_types in types_by_columns.items():
            filled = SQL(" AND ").join(
                SQL("{} IS NOT NULL").format(Identifier("t", column)) for column in columns
            )
            tables.append(
                ComparedTable(self.database, collection, table_name, columns, filled, key_types)
            )
        return tables

    def _key_columns(
        self, table_name: TableName, types: str | None, mapped: Sequence[str]
    ) -> tuple[str, ...] | None:
        """Return the columns of a table that contain a primary key with the given types.

        Args:
            table_name: table of the copy.
            types: types of the primary key in the ledger's entries; None if they were not recorded.
            mapped: key columns of the collection in the data map.

        Returns:
            The columns in the order of the key, or None if the table has no such columns.
        """
        own = key_columns(self.copy, table_name)
        if own and types in (None, primary_key_types(self.copy, table_name)):
            return tuple(own)
        return order_key_columns(mapped, types, partial(column_types, self.copy, table_name))

    def _search(self, collections: Collection[str]) -> None:
        """Search the copy for keys of erased records.

        Before the search, the function refreshes materialized views. It also deletes the large
        objects to which erased records referred and to which no column refers any more.

        Args:
            collections: collections with new entries. Collections for which an earlier step found
                rows with erased keys are searched as well.
        """
        self._counts["refreshed"] = refresh_materialized_views(self.copy)
        self._counts["large_objects"] += delete_unreferenced_large_objects(self.copy)
        ruled = [self.table_names[name] for name in self.rules.ruled if name in self.table_names]
        left = {name for name, rows in self._rows_with_erased_keys.items() if rows}
        for collection in sorted({*collections, *left}):
            staged = [keys for keys in self._staged.values() if keys.table.collection == collection]
            for keys in staged:
                self._remaining[keys.number] = count_remaining(self.copy, [keys], self.rules.masks)
            searched = [keys.searched_collection for keys in staged]
            self._rows_with_erased_keys[collection] = search(
                self.copy, self.database, searched, self.state, self.keys, ruled
            )

    def result(self) -> ReplayResult:
        """Return the counts of all steps of the replay."""
        rows_with_erased_keys: Counter[str] = Counter()
        for rows in self._rows_with_erased_keys.values():
            rows_with_erased_keys.update(rows)
        return ReplayResult(
            sum(self._replayed.entries.values()),
            self._counts["replayed"],
            sum(self._remaining.values()),
            self._counts["remasked"],
            tuple(self._skipped),
            sum(self._skipped.values()) + sum(self._unmatched.values()),
            tuple(name for name, number in self._unmatched.items() if number),
            self._counts["refreshed"],
            dict(sorted(rows_with_erased_keys.items())),
            self._counts["large_objects"],
        )
