"""Replay the erasure ledger on a restored copy, and prove that erased records are absent.

Drills and real restores share it: erase and mask again, refresh what was derived from
the records, search, and begin again while the ledger grows (docs/decisions/0032).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

import psycopg
from psycopg.sql import SQL, Identifier
from sqlalchemy import Engine, func, select

from include.erasure.detached import detached_of
from include.erasure.ledger import (
    ErasureKeys,
    entries,
    entries_by_key_types,
    require_all_there,
)
from include.erasure.masks import Mask, masks_of
from include.erasure.matching import Table, check_keys, matches, place_of
from include.erasure.places import (
    Place,
    key_columns,
    order_of_key,
    types_of_columns,
    types_of_key,
)
from include.erasure.same_keys import require_same
from include.erasure.search import search
from include.erasure.staged import (
    StagedKeys,
    check_deferred,
    count_remaining,
    detach_references,
    stage,
)
from include.erasure.staged import erase as _erase
from include.erasure.staged import mask_again as _mask
from include.erasure.suspended import suspended
from include.erasure.views import refresh_materialized_views
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
        remaining: erased records still present afterwards, and masked ones of which too much still
            shows, by a second query; must be 0.
        remasked: records that the copy had brought back in clear and that were masked again.
        skipped: collections whose table the copy does not have.
        not_looked_for: entries of those collections: of a table that is younger than the restore
            point, or that had another name then; and entries of `other_keys`.
        other_keys: collections with entries from when their key was another, so that no record of
            the copy has their name; or whose table has no key in the copy.
        refreshed: materialized views that were refreshed.
        holding: relation (``schema.name``) -> rows that still hold the key of a deleted record, by
            `include.erasure.search`; must be empty.
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


@dataclass(frozen=True)
class Schedule:
    """The parts of retention.yaml and the data map that a replay needs.

    Attributes:
        masks: record class -> mask, `include.erasure.masks.masks_of`.
        detached: collection -> references to it that are set to null,
            `include.erasure.detached.detached_of`.
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
) -> Replay:
    """Erase and mask the ledger's records in a restored copy again, then search for them.

    Entries of open batches count: whether their transaction committed or not, their erasure was
    due. All deletions happen in one statement, so foreign keys between the erased records hold in
    any order and in cycles. The application's triggers and rules do nothing meanwhile, and
    materialized views are refreshed afterwards. What is entered in the ledger meanwhile is replayed
    too. Memory does not grow with the copy nor with the ledger: keys pass in chunks, and the keys
    that match stay in temporary tables of the copy.

    Args:
        copy: the restored database; a transaction is committed.
        database: its name in the data map.
        places: collection -> table.
        state: database of the ledger.
        keys: of the HMAC, old ones included.
        schedule: of the database.
        at: moment for the stamp of records that are masked.

    Returns:
        What was done, and what is left; `require_erased` judges it.

    Raises:
        UsageError: a key of the ledger is missing or another, a collection is not mapped, a record
            was masked by a class that has no mask any more, or the role may not disable triggers.
        ControlFailed: entries of the ledger are gone; or records that were never erased still refer
            to erased ones, be it by a key that would delete them too (``ON DELETE CASCADE``).
        ServiceError: the copy or the ledger cannot be read, or the copy not be changed. Nothing is
            erased in either case.
    """
    replayed = remasked = 0
    while True:
        before = _newest_entry(state, database)
        done = _replay_once(copy, database, places, state, keys, schedule, at)
        replayed, remasked = replayed + done.replayed, remasked + done.remasked
        if _newest_entry(state, database) == before:
            return replace(done, replayed=replayed, remasked=remasked)


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
            "If the table had another name or key then, erase them there before you open the copy; "
            "if it is younger than the restore point, they cannot be in it.",
        )


def holding_text(done: Replay) -> str:
    """Return the relations that still hold erased keys, with their numbers of rows."""
    return ", ".join(f"{name} ({rows} rows)" for name, rows in done.holding.items())


def _newest_entry(state: Engine, database: str) -> tuple[int, int]:
    """Return how many entries a database has, and its newest batch: both change with the ledger."""
    query = (
        select(func.count(), func.coalesce(func.max(erasure_batch.c.id), 0))
        .join_from(erasure, erasure_batch)
        .where(erasure_batch.c.database == database)
    )
    with state.connect() as conn:
        number, batch = conn.execute(query).one()
    return int(number), int(batch)


def _replay_once(
    copy: psycopg.Connection,
    database: str,
    places: Mapping[str, Place],
    state: Engine,
    keys: ErasureKeys,
    schedule: Schedule,
    at: datetime,
) -> Replay:
    with state.connect() as conn:
        ledger = entries(conn, database)
        require_all_there(conn, database)
    if not ledger:
        return Replay(0, 0, 0)
    check_keys({key_id for by_key in ledger.values() for key_id in by_key}, keys)
    require_same(state, keys, at)
    found: list[StagedKeys] = []
    skipped, other_keys = [], []
    replayed = not_looked_for = 0
    with suspended(copy):
        for collection, by_key in ledger.items():
            place = place_of(collection, places)
            if key_columns(copy, place) is None:
                skipped.append(collection)
                not_looked_for += sum(by_key.values())
                continue
            named, unfit = _tables(copy, state, database, collection, place, schedule)
            not_looked_for += unfit
            other_keys += [collection] if unfit else []
            for table in named:
                found.append(StagedKeys(len(found), table))
                replayed += stage(copy, found[-1], matches(state, copy, table, keys))
        detach_references(copy, found, places, schedule.detached)
        _erase(copy, found)
        remasked = _mask(copy, found, schedule.masks, at)
        check_deferred(copy)
        refreshed = refresh_materialized_views(copy)
        remaining = count_remaining(copy, found, schedule.masks)
        sought = [staged.sought for staged in found]
        ruled = [places[name] for name in schedule.ruled if name in places]
        holding = search(copy, database, sought, state, keys, ruled)
    copy.commit()
    return Replay(
        sum(sum(by_key.values()) for by_key in ledger.values()),
        replayed,
        remaining,
        remasked,
        tuple(skipped),
        not_looked_for,
        tuple(other_keys),
        refreshed,
        holding,
    )


def _tables(
    copy: psycopg.Connection,
    state: Engine,
    database: str,
    collection: str,
    place: Place,
    schedule: Schedule,
) -> tuple[list[Table], int]:
    """Return how a collection's entries name records of the copy, and how many name none."""
    with state.connect() as conn:
        by_types = entries_by_key_types(conn, database, collection)
    types_by_columns: dict[tuple[str, ...], set[str | None]] = {}
    unfit = 0
    for types, number in by_types.items():
        columns = _columns_named(copy, place, types, schedule.keys.get(collection, ()))
        if columns is None:
            unfit += number
        else:
            types_by_columns.setdefault(columns, set()).add(types)
    tables = [
        Table(
            database,
            collection,
            place,
            columns,
            SQL(" AND ").join(SQL("{} IS NOT NULL").format(Identifier("t", it)) for it in columns),
            types,
        )
        for columns, types in types_by_columns.items()
    ]
    return tables, unfit


def _columns_named(
    copy: psycopg.Connection, place: Place, types: str | None, mapped: Sequence[str]
) -> tuple[str, ...] | None:
    """Return the columns whose values entries of these types name, or None."""
    own = key_columns(copy, place)
    if own and types in (None, types_of_key(copy, place)):
        return tuple(own)
    return order_of_key(mapped, types, partial(types_of_columns, copy, place))
