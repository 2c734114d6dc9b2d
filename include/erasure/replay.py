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
from psycopg import errors, sql
from psycopg.sql import SQL, Identifier
from sqlalchemy import Engine, func, select

from include.erasure.detached import detach, detached_of
from include.erasure.ledger import (
    ErasureKeys,
    entries,
    entries_by_key_types,
    require_all_there,
)
from include.erasure.masks import Mask, assignments, masks_of, shapes, shows, to_mask
from include.erasure.matching import Match, Table, check_keys, kind_of, matches, place_of
from include.erasure.places import (
    Place,
    key_columns,
    order_of_key,
    types_of_columns,
    types_of_key,
)
from include.erasure.references import COMPARED, Reference
from include.erasure.same_keys import require_same
from include.erasure.search import Sought, search
from include.erasure.suspended import suspended
from include.erasure.views import refresh_materialized_views
from include.policy.datamap import MappedDatabase
from include.policy.retention import RetentionRule
from include.services.errors import ControlFailed, ServiceError, UsageError
from include.state.tables import erasure, erasure_batch

# Keys under which a deletion in one table takes records of another along; partitions have theirs
# from their parents, and are looked at with them.
_CASCADES = f"""
SELECT n.nspname::text, c.relname::text, c.relkind = 'p', k.conname::text,
       array(SELECT k.conrelid UNION SELECT relid::oid FROM pg_partition_tree(k.conrelid)),
       {COMPARED},
       array(SELECT k.confrelid UNION SELECT relid::oid FROM pg_partition_tree(k.confrelid))
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.confdeltype = 'c' AND k.conparentid = 0 AND k.confrelid IN (
    SELECT to_regclass(%(parent)s)::oid
    UNION SELECT relid::oid FROM pg_partition_tree(to_regclass(%(parent)s))
    UNION SELECT relid::oid FROM pg_partition_ancestors(to_regclass(%(parent)s)))
ORDER BY 1, 2, k.conname
"""  # noqa: S608 - fixed text
_PARTS = """
SELECT array(SELECT to_regclass(%(name)s)::oid
             UNION SELECT relid::oid FROM pg_partition_tree(to_regclass(%(name)s)))
"""


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


@dataclass(frozen=True)
class _Found:
    """Temporary tables of the copy with the keys of a collection's records that were found."""

    number: int
    table: Table

    def name(self, action: str) -> Identifier:
        return Identifier(f"parcelseal_{action}_{self.number}")

    @property
    def sought(self) -> Sought:
        """The collection with its key, for the search."""
        table, staged = self.table, self.name("delete")
        return Sought(table.collection, table.place, table.columns, table.key_types or (), staged)

    @property
    def parts(self) -> list[Identifier]:
        return [Identifier(f"k{at}") for at in range(len(self.table.columns))]

    @property
    def same(self) -> sql.Composed:
        """The key of the record ``t`` is that of the entry ``e``."""
        return self.same_as("t")

    def same_as(self, alias: str) -> sql.Composed:
        """The key of an alias's record is that of the entry ``e``."""
        return SQL(" AND ").join(
            SQL("{}::text = e.{}").format(Identifier(alias, column), part)
            for column, part in zip(self.table.columns, self.parts, strict=True)
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
    found: list[_Found] = []
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
                found.append(_Found(len(found), table))
                replayed += _stage(copy, found[-1], matches(state, copy, table, keys))
        _detach(copy, found, places, schedule.detached)
        _erase(copy, found)
        remasked = _mask(copy, found, schedule.masks, at)
        _check_deferred(copy)
        refreshed = refresh_materialized_views(copy)
        remaining = _remaining(copy, found, schedule.masks)
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


def _stage(copy: psycopg.Connection, one: _Found, found: Iterable[Sequence[Match]]) -> int:
    columns = SQL(", ").join(SQL("{} text").format(part) for part in one.parts)
    for action in ("delete", "mask"):
        copy.execute(
            SQL("CREATE TEMP TABLE {} (record_class text, {}) ON COMMIT DROP").format(
                one.name(action), columns
            )
        )
    erased = 0
    for chunk in found:
        for action in ("delete", "mask"):
            those = [match for match in chunk if match.action == action]
            erased += len(those) if action == "delete" else 0
            into = SQL("COPY {} FROM STDIN").format(one.name(action))
            with copy.cursor() as cursor, cursor.copy(into) as rows:
                for match in those:
                    rows.write_row((match.record_class, *match.key))
    return erased


def _detach(
    copy: psycopg.Connection,
    found: Sequence[_Found],
    places: Mapping[str, Place],
    detached: Mapping[str, Sequence[str]],
) -> None:
    for one in found:
        fields = detached.get(one.table.collection, ())
        if not fields or not _has_rows(copy, one.name("delete")):
            continue
        erased = SQL("FROM {} AS t JOIN {} AS e ON {}").format(
            one.table.place.identifier, one.name("delete"), one.same
        )
        try:
            detach(copy, one.table.place, fields, places, erased)
        except psycopg.Error as error:
            raise _refused(copy, "erased", error) from None


def _erase(copy: psycopg.Connection, found: Sequence[_Found]) -> None:
    parts = [
        SQL("{} AS (DELETE FROM {} t USING {} e WHERE {})").format(
            Identifier(f"d{one.number}"), one.table.place.identifier, one.name("delete"), one.same
        )
        for one in found
        if _has_rows(copy, one.name("delete"))
    ]
    if not parts:
        return
    try:
        _refuse_cascades(copy, found)
        copy.execute(SQL("WITH {} SELECT 1").format(SQL(", ").join(parts)))
        copy.execute("SET CONSTRAINTS ALL IMMEDIATE")
    except (errors.ForeignKeyViolation, errors.RestrictViolation) as error:
        raise _referred_to(copy, error.diag.table_name, error.diag.constraint_name) from None
    except psycopg.Error as error:  # a trigger's own message may hold values
        raise _refused(copy, "erased", error) from None


def _refuse_cascades(copy: psycopg.Connection, found: Sequence[_Found]) -> None:
    """Raise ControlFailed when a record that was never erased would go with an erased one.

    In the live database it was moved or detached since: the ledger does not say that it may go.
    """
    erased = [one for one in found if _has_rows(copy, one.name("delete"))]
    parts = {one.number: _parts(copy, one) for one in erased}
    for one in erased:
        parent = {"parent": one.table.place.identifier.as_string(copy)}
        for schema, table, parted, name, below, *compared in copy.execute(
            _CASCADES, parent
        ).fetchall():
            child = Identifier(schema, table)
            others = [
                _not_among(other, parts[other.number])
                for other in erased
                if set(parts[other.number]) & set(below)
            ]
            # The keys of a plain table say nothing of tables that inherit from it.
            query = SQL(
                "SELECT FROM {child} AS c, {parent} AS t JOIN {entries} AS e ON {same} "
                "WHERE {refers} AND {others} LIMIT 1"
            ).format(
                child=child if parted else SQL("ONLY {}").format(child),
                parent=one.table.place.identifier,
                entries=one.name("delete"),
                same=one.same,
                refers=Reference(*compared).joined("c", "t"),
                others=SQL(" AND ").join([SQL("true"), *others]),
            )
            if copy.execute(query).fetchone() is not None:
                raise _referred_to(copy, table, name)


def _parts(copy: psycopg.Connection, one: _Found) -> list[int]:
    """Return the oids of a table and its partitions."""
    name = one.table.place.identifier.as_string(copy)
    row = copy.execute(_PARTS, {"name": name}).fetchone()
    assert row is not None
    return list(row[0])


def _not_among(one: _Found, parts: Sequence[int]) -> sql.Composed:
    """The record ``c`` is none of a collection's erased ones."""
    return SQL("NOT EXISTS (SELECT FROM {} AS e WHERE c.tableoid = ANY({}::oid[]) AND {})").format(
        one.name("delete"), sql.Literal(parts), one.same_as("c")
    )


def _mask(
    copy: psycopg.Connection, found: Sequence[_Found], masks: Mapping[str, Mask], at: datetime
) -> int:
    done = 0
    for one in found:
        for record_class in _classes(copy, one):
            mask, shape = _mask_of(record_class, masks), shapes(copy, one.table.place)
            change = assignments(mask, shape, sql.Literal(at))
            query = SQL(
                "UPDATE {table} AS t SET {change} FROM {entries} AS e "
                "WHERE {same} AND e.record_class = {name} AND {due}"
            ).format(
                table=one.table.place.identifier,
                change=change,
                entries=one.name("mask"),
                same=one.same,
                name=sql.Literal(record_class),
                due=to_mask(mask, shape),
            )
            try:
                done += copy.execute(query).rowcount
            except psycopg.Error as error:
                raise _refused(copy, "masked", error) from None
    return done


def _check_deferred(copy: psycopg.Connection) -> None:
    """Check constraints now that are otherwise checked at the commit: triggers come back before."""
    try:
        copy.execute("SET CONSTRAINTS ALL IMMEDIATE")
    except psycopg.Error as error:
        raise _refused(copy, "masked", error) from None


def _remaining(copy: psycopg.Connection, found: Sequence[_Found], masks: Mapping[str, Mask]) -> int:
    query = SQL("SELECT count(*) FROM {} t WHERE {} AND EXISTS (SELECT FROM {} e WHERE {} AND {})")
    left = 0
    for one in found:
        place = one.table.place
        conditions = [("delete", SQL("true"), SQL("true"))] + [
            (
                "mask",
                shows(_mask_of(record_class, masks), shapes(copy, place)),
                SQL("e.record_class = {}").format(sql.Literal(record_class)),
            )
            for record_class in _classes(copy, one)
        ]
        for action, condition, entry in conditions:
            row = copy.execute(
                query.format(place.identifier, condition, one.name(action), one.same, entry)
            ).fetchone()
            assert row is not None
            left += row[0]
    return left


def _has_rows(copy: psycopg.Connection, table: Identifier) -> bool:
    return copy.execute(SQL("SELECT FROM {} LIMIT 1").format(table)).fetchone() is not None


def _classes(copy: psycopg.Connection, one: _Found) -> list[str]:
    query = SQL("SELECT DISTINCT record_class FROM {} ORDER BY 1").format(one.name("mask"))
    return [row[0] for row in copy.execute(query)]


def _mask_of(record_class: str, masks: Mapping[str, Mask]) -> Mask:
    if record_class not in masks:
        raise UsageError(
            f"Records of the class {record_class} were masked, but retention.yaml does not say how "
            "any more.",
            "Keep the class with its mask in retention.yaml as long as backups may contain it.",
        )
    return masks[record_class]


def _referred_to(
    copy: psycopg.Connection, table: str | None, constraint: str | None
) -> ControlFailed:
    copy.rollback()
    return ControlFailed(
        f"Erased records cannot be erased again: {table} still refers to them ({constraint}).",
        "The copy is not fit for use. Erase the referring records too, or take a later point.",
    )


def _refused(copy: psycopg.Connection, what: str, error: psycopg.Error) -> ServiceError:
    if not copy.broken:
        copy.rollback()
    return ServiceError(
        f"Erased records cannot be {what} again: the copy refuses ({kind_of(error)}).",
        "The copy is not fit for use. The log of its server tells more.",
    )
