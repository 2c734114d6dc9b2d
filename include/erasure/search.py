"""Search every relation of a restored copy for the keys of erased records.

The search shares no code with the replay. It digests the keys in every table and materialized view
that may hold one, and queries the ledger for these digests. So it finds records that the replay
missed, and keys that another part of the schema copied.
"""

from __future__ import annotations

import hmac
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice, product
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal
from sqlalchemy import Connection, Engine, select

from include.erasure.catalogue import (
    Catalogue,
    Relation,
    family_of,
    led_elsewhere,
    read_catalogue,
)
from include.erasure.ledger import ErasureKeys, driver_of
from include.erasure.matching import kind_of
from include.erasure.places import Place
from include.services.database import PRINTING, scalar
from include.services.errors import ServiceError
from include.state.tables import erasure, erasure_batch

KEYS_AT_ONCE = 5_000
MOST_PAIRINGS = 16  # of columns with the columns of a key, in one relation
# Names that a key has in many tables, `_folded`. Alone they do not say which table's key it is.
GENERIC = frozenset(
    (
        *("id", "key", "pk", "no", "nr", "num", "number", "code", "uuid", "guid", "name", "type"),
        *("version", "seq", "position", "at", "date", "day", "createdat", "updatedat"),
    )
)
VERSIONS = ("", "old_", "new_", "prev_", "previous_", "orig_", "original_", "before_", "after_")
_numbers = count()
_WORD_BOUNDARY = re.compile(r"_+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# Escapes that json takes and jsonb refuses: the character zero, and halves of a pair.
_REFUSED_BY_JSONB = r"(?<!\\)((?:\\\\)*)\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2})"

_ENTERED = """
SELECT DISTINCT e.key_hmac FROM unnest(%(digests)b::bytea[]) AS s (key_hmac)
JOIN erasure e ON e.key_hmac = s.key_hmac AND e.key_id = %(key_id)s AND e.action = 'delete'
JOIN erasure_batch b ON b.id = e.batch_id
WHERE b.database = %(database)s AND b.collection = %(collection)s
  AND coalesce(b.key_types, '') = ANY(%(key_types)s)
"""


@dataclass(frozen=True)
class Sought:
    """A collection whose erased keys are searched for.

    Attributes:
        columns: the key of its records in the copy's table, in order.
        staged: temporary table of the copy with the keys that the replay matched, as texts in the
            columns ``k0``, ``k1`` and so on; for relations that hold a part of a key only.
        key_types: types of the key in the entries that these columns fit, `TYPES_OF_KEY`; None for
            entries without types.
    """

    collection: str
    place: Place
    columns: Sequence[str]
    key_types: Collection[str | None] = (None,)
    staged: Identifier | None = None


def search(
    copy: psycopg.Connection[Any],
    database: str,
    collections: Sequence[Sought],
    state: Engine,
    keys: ErasureKeys,
    ruled: Collection[Place] = (),
) -> dict[str, int]:
    """Count the rows of a copy that hold the key of a record that was deleted.

    The search reads the collections' own tables, and in every other table and materialized view:

    - columns of foreign keys to these tables,
    - columns of a view that show such a column,
    - columns that are named like the key: ``customer_id``, ``oldCustomerId``; ``id`` only in a
      relation that is named after the table,
    - members of that name in JSON.

    A table with a retention rule of its own may hold a key without a foreign key until its rule
    deletes the row, and is not searched by name.

    Args:
        copy: the restored database, in a transaction, which stays open.
        database: its name in the data map.
        collections: with entries in the ledger.
        state: database of the ledger.
        keys: of the HMAC, old ones included.
        ruled: tables that have a retention rule.

    Returns:
        Relation -> rows, without those that hold none.

    Raises:
        ServiceError: a relation or the ledger cannot be read.
    """
    found: Counter[str] = Counter()
    try:
        for name, value in PRINTING.items():
            copy.execute("SELECT set_config(%s, %s, false)", [name, value])
        catalogue = read_catalogue(copy)
        with state.connect() as ledger:
            for sought in collections:
                if key_ids := _key_ids(ledger, database, sought.collection):
                    search_of = _Search(copy, database, catalogue, sought, ledger, keys, ruled)
                    found.update(search_of.rows(key_ids))
    except psycopg.Error as error:
        raise ServiceError(
            f"The copy cannot be searched for erased records ({kind_of(error)}).",
            "The copy is not fit for use. The log of its server tells more.",
        ) from None
    return {name: rows for name, rows in sorted(found.items()) if rows}


@dataclass
class _Search:
    """The search for the keys of one collection."""

    copy: psycopg.Connection[Any]
    database: str
    catalogue: Catalogue
    sought: Sought
    ledger: Connection
    keys: ErasureKeys
    ruled: Collection[Place]

    def __post_init__(self) -> None:
        self.family = family_of(self.copy, self.sought.place)

    def rows(self, key_ids: Sequence[str]) -> Counter[str]:
        """Count the rows that hold an erased key, by relation."""
        found: Counter[str] = Counter()
        for relation, query in self._queries():
            found[relation.label] += self._erased_rows(query, key_ids)
        for relation, query in self._partial_queries():
            found[relation.label] += scalar(self.copy, query) or 0
        return found

    def _queries(self) -> Iterator[tuple[Relation, Composed]]:
        """Yield for each relation a query for the keys in it, with their numbers of rows."""
        sought = self.sought
        for relation in self.catalogue.relations:
            if relation.oid in self.family:
                if (relation.schema, relation.name) == (sought.place.schema, sought.place.table):
                    yield relation, _keys_in(sought.place.identifier, sought.columns)
                continue
            if relation.is_partition:  # searched with its parent table
                continue
            for columns in self._columns_with_keys(relation):
                yield relation, _keys_in(relation.identifier, columns)
            if len(sought.columns) == 1 and not self._has_rule(relation):
                for query in _members(relation, sought):
                    yield relation, query

    def _partial_queries(self) -> Iterator[tuple[Relation, Composed]]:
        """Yield counts of rows that hold one column of a composite key without its other columns.

        The ledger has digests of whole keys only, so the replay's matches are compared instead.
        Values that a record which was not erased still has do not count.
        """
        sought = self.sought
        if len(sought.columns) == 1 or sought.staged is None:
            return
        query = SQL(
            "SELECT count(*) FROM {relation} AS r "
            "WHERE EXISTS (SELECT FROM {staged} e WHERE e.{part} = r.{name}::text) "
            "AND NOT EXISTS (SELECT FROM {table} t WHERE t.{key}::text = r.{name}::text)"
        )
        for relation in self.catalogue.relations:
            if relation.oid in self.family or relation.is_partition or self._has_rule(relation):
                continue
            if self._columns_with_keys(relation):
                continue
            for at, key in enumerate(sought.columns):
                if _folded(key) in GENERIC:
                    continue
                for name in self._named(relation, key):
                    yield (
                        relation,
                        query.format(
                            relation=relation.identifier,
                            name=Identifier(name),
                            part=Identifier(f"k{at}"),
                            staged=sought.staged,
                            key=Identifier(key),
                            table=sought.place.identifier,
                        ),
                    )

    def _has_rule(self, relation: Relation) -> bool:
        return Place(relation.schema, relation.name) in self.ruled

    def _columns_with_keys(self, relation: Relation) -> set[tuple[str, ...]]:
        """Return columns of a relation that may hold the collection's keys, in the key's order."""
        key, has_rule = self.sought.columns, self._has_rule(relation)
        pairings: set[tuple[str, ...]] = set()
        for child, parent, validated, columns, targets in self.catalogue.foreign_keys:
            if child != relation.oid or parent not in self.family:
                continue
            if set(targets) == set(key) and not (has_rule and validated):
                pairings.add(tuple(columns[targets.index(column)] for column in key))
        if relation.kind == "m":
            shown = [self._showing(relation, column) for column in key]
            pairings |= set(islice(product(*shown), MOST_PAIRINGS))
        if not has_rule:
            named = [self._named(relation, column) for column in key]
            pairings |= set(islice(product(*named), MOST_PAIRINGS))
        return pairings

    def _named(self, relation: Relation, key: str) -> list[str]:
        """Return columns that are named like a column of the key and do not refer elsewhere."""
        elsewhere = led_elsewhere(self.catalogue, relation, self.family)
        return [
            name
            for name in relation.columns
            if name not in elsewhere and _names(name, key, relation, self.sought)
        ]

    def _showing(self, relation: Relation, key: str) -> list[str]:
        """Return a view's columns that show a column of the key, or of a foreign key to it."""
        sources = {(oid, key) for oid in self.family}
        for child, parent, _validated, columns, targets in self.catalogue.foreign_keys:
            if parent in self.family and key in targets:
                sources.add((child, columns[targets.index(key)]))
        showing = []
        for name in relation.columns:
            column: tuple[int, str] | None = (relation.oid, name)
            passed = set()
            while column is not None and column not in passed and column not in sources:
                passed.add(column)
                column = self.catalogue.origins.get(column)
            if column in sources:
                showing.append(name)
        return showing

    def _erased_rows(self, query: Composed, key_ids: Sequence[str]) -> int:
        """Count the rows of a query whose key the ledger has as deleted."""
        erased, collection = 0, self.sought.collection
        driver = driver_of(self.ledger)
        with self.copy.cursor(f"parcelseal_search_{next(_numbers)}") as cursor:
            cursor.execute(query)
            while rows := cursor.fetchmany(KEYS_AT_ONCE):
                for key_id in key_ids:
                    counts: Counter[bytes] = Counter()
                    for *key, number in rows:
                        named = json.dumps([self.database, collection, key], ensure_ascii=False)
                        counts[hmac.digest(self.keys.keys[key_id], named.encode(), "sha256")] += (
                            number
                        )
                    parameters = {
                        "digests": list(counts),
                        "key_id": key_id,
                        "database": self.database,
                        "collection": collection,
                        "key_types": [types or "" for types in self.sought.key_types],
                    }
                    # Prepared, it would get a generic plan from the 11th execution: a nested loop,
                    # 50 to 1,000 times slower, while the ledger's tables have no statistics.
                    for (digest,) in driver.execute(_ENTERED, parameters, prepare=False):
                        erased += counts[digest]
        return erased


def _keys_in(relation: Composable, columns: Sequence[str]) -> Composed:
    texts = SQL(", ").join(SQL("{}::text").format(Identifier(column)) for column in columns)
    filled = SQL(" AND ").join(SQL("{} IS NOT NULL").format(Identifier(it)) for it in columns)
    numbers = SQL(", ").join(SQL(str(at + 1)) for at in range(len(columns)))
    return SQL("SELECT {}, count(*) FROM {} WHERE {} GROUP BY {}").format(
        texts, relation, filled, numbers
    )


def _folded(name: str) -> str:
    """Return a name without case and underscores: `customer_id` and `customerId` are the same."""
    return name.lower().replace("_", "")


def _ends(name: str) -> set[str]:
    """Return the ends of a name, folded: `customerid` and `id` of `old_customerId`."""
    words = _WORD_BOUNDARY.split(name)
    return {_folded("".join(words[at:])) for at in range(len(words))}


def _owners(sought: Sought) -> set[str]:
    """Return folded names of what a key's column may name in front of it."""
    table = _folded(sought.place.table)
    return {table, table.removesuffix("s"), _folded(sought.collection)}


def _names(name: str, key: str, relation: Relation, sought: Sought) -> bool:
    """Return whether a column is named like a column of the key."""
    owners, key = _owners(sought), _folded(key)
    qualified = {f"{owner}{key}" for owner in owners} | ({key} - GENERIC)
    versions = {f"{_folded(version)}{it}" for version in VERSIONS for it in qualified}
    if qualified & _ends(name) or _folded(name) in versions:
        return True
    if key not in GENERIC:
        return False
    if len(sought.columns) > 1:  # two values rarely agree by chance
        return _folded(name) == key
    return (
        any(owner in _folded(relation.name) for owner in owners if len(owner) > 1)
        and any(_folded(name) == f"{_folded(it)}{key}" for it in VERSIONS)
        and name.lower() not in {it.lower() for it in relation.numbered}
    )


def _members(relation: Relation, sought: Sought) -> Iterator[Composed]:
    """Yield queries for keys in JSON: members that are named like the key's column."""
    owners, key = _owners(sought), _folded(sought.columns[0])
    members = {f"{owner}{key}" for owner in owners}
    condition: Composable = SQL("true")
    if key not in GENERIC or any(it in _folded(relation.name) for it in owners):
        members.add(key)
        generic: set[str] = set()
    else:  # an audit table of several tables names a row's table in another column
        generic = {key}
        texts = [
            name
            for name, kind in zip(relation.columns, relation.types, strict=True)
            if kind in ("text", "varchar", "bpchar", "name")
        ]
        schema, table = sought.place.schema, sought.place.table
        names = Literal([_folded(it) for it in (table, f"{schema}.{table}", sought.collection)])
        same = SQL("lower(replace({}::text, '_', '')) = ANY({})")
        condition = SQL("({})").format(
            SQL(" OR ").join([SQL("false"), *(same.format(Identifier(it), names) for it in texts)])
        )
    for column, kind in zip(relation.columns, relation.types, strict=True):
        if kind not in ("json", "jsonb", "hstore"):
            continue
        for names_of, only in ((members, SQL("true")), (generic, condition)):
            if names_of:
                yield _member(relation, column, kind, names_of, only)


def _member(
    relation: Relation, column: str, kind: str, members: Collection[str], condition: Composable
) -> Composed:
    value: Composable = Identifier(column)
    if kind == "json":
        value = SQL("regexp_replace({}::text, {}, {}, 'g')").format(
            value, Literal(_REFUSED_BY_JSONB), Literal(r"\1")
        )
    pattern = "|".join(sorted("_*".join(map(re.escape, member)) for member in members))
    named = f'@.key like_regex {json.dumps(f"^_*({pattern})_*$", ensure_ascii=False)} flag "i"'
    path = f'strict $.** ? (@.type() == "object").keyvalue() ? ({named}).value'
    texts = SQL(
        "(SELECT DISTINCT m #>> '{{}}' FROM jsonb_path_query({}::jsonb, {}) AS m) AS v (t)"
    ).format(value, Literal(path))
    return SQL(
        "SELECT v.t, count(*) FROM {} CROSS JOIN LATERAL {} WHERE v.t IS NOT NULL AND {} GROUP BY 1"
    ).format(relation.identifier, texts, condition)


def _key_ids(ledger: Connection, database: str, collection: str) -> list[str]:
    query = (
        select(erasure.c.key_id)
        .join_from(erasure, erasure_batch)
        .where(
            erasure_batch.c.database == database,
            erasure_batch.c.collection == collection,
            erasure.c.action == "delete",
        )
        .distinct()
    )
    return sorted(ledger.scalars(query))
