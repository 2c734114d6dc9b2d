"""Search every relation of a restored copy for the keys of erased records.

The search shares no code with the replay. In every table and materialized view, it computes the
digests of all values that may be the key of an erased record, and searches the ledger for these
digests. Therefore it also finds records that the replay missed, and keys that triggers or views
copied to other relations.
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
    columns_referring_elsewhere,
    partition_family,
    read_catalogue,
)
from include.erasure.ledger import ErasureKeys, psycopg_connection
from include.erasure.matching import describe_error
from include.erasure.tables import TableName
from include.services.database import PRINTING, scalar
from include.services.errors import ServiceError
from include.state.tables import erasure, erasure_batch

KEYS_AT_ONCE = 5_000
MOST_PAIRINGS = 16  # combinations of columns that are compared with a key, in one relation
# Names (after `_fold`) that keys have in many tables. Alone they do not identify the table.
GENERIC = frozenset(
    (
        *("id", "key", "pk", "no", "nr", "num", "number", "code", "uuid", "guid", "name", "type"),
        *("version", "seq", "position", "at", "date", "day", "createdat", "updatedat"),
    )
)
VERSIONS = ("", "old_", "new_", "prev_", "previous_", "orig_", "original_", "before_", "after_")
_numbers = count()
_WORD_BOUNDARY = re.compile(r"_+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# Escapes that json accepts and jsonb refuses: the null character and surrogates.
_REFUSED_BY_JSONB = r"(?<!\\)((?:\\\\)*)\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2})"

_ENTERED = """
SELECT DISTINCT e.key_hmac FROM unnest(%(digests)b::bytea[]) AS s (key_hmac)
JOIN erasure e ON e.key_hmac = s.key_hmac AND e.key_id = %(key_id)s AND e.action = 'delete'
JOIN erasure_batch b ON b.id = e.batch_id
WHERE b.database = %(database)s AND b.collection = %(collection)s
  AND coalesce(b.key_types, '') = ANY(%(key_types)s)
"""


@dataclass(frozen=True)
class SearchedCollection:
    """A collection that has entries in the erasure ledger, and how its keys are found in a copy.

    Attributes:
        collection: name of the collection in the data map.
        table: table of the collection in the copy.
        columns: columns of the key in this table, in the order of the key.
        key_types: alternatives for the types of the key, each as
            `include.erasure.tables.primary_key_types` returns it. The search uses only entries
            whose recorded types equal an alternative. The alternative None stands for entries
            without recorded types.
        staged: temporary table of the copy with the keys of the erased records that the replay
            found. Its columns ``k0``, ``k1`` and so on contain the key columns as texts. The search
            uses it for relations that contain only some columns of a composite key.
    """

    collection: str
    table: TableName
    columns: Sequence[str]
    key_types: Collection[str | None] = (None,)
    staged: Identifier | None = None


def search(
    copy: psycopg.Connection[Any],
    database: str,
    collections: Sequence[SearchedCollection],
    state: Engine,
    keys: ErasureKeys,
    ruled: Collection[TableName] = (),
) -> dict[str, int]:
    """Count the rows of a restored copy that contain the key of a deleted record.

    The search reads the tables of `collections`. In every other table and materialized view, it
    reads:

    - columns with a foreign key to a table of `collections`;
    - columns of a view that show such a foreign key column;
    - columns whose name is similar to the name of the key column, such as ``customer_id`` or
      ``oldCustomerId``. A column ``id`` is read only if the name of its relation contains the name
      of the table;
    - JSON members whose name is similar to the name of the key column.

    In a table of `ruled`, the search reads only columns with a foreign key that PostgreSQL has not
    checked for all rows (NOT VALID). The other columns may contain the key until the retention rule
    of the table deletes the row.

    Args:
        copy: the restored database, in a transaction, which stays open.
        database: name of the database in the data map.
        collections: collections with entries in the ledger.
        state: state database with the ledger.
        keys: current and earlier HMAC keys.
        ruled: tables that have a retention rule of their own.

    Returns:
        Relation -> number of rows with the key of a deleted record. Relations without such rows are
        left out.

    Raises:
        ServiceError: a relation or the ledger cannot be read.
    """
    rows_by_relation: Counter[str] = Counter()
    try:
        for name, value in PRINTING.items():
            copy.execute("SELECT set_config(%s, %s, false)", [name, value])
        catalogue = read_catalogue(copy)
        with state.connect() as ledger:
            for searched in collections:
                if key_ids := _key_ids(ledger, database, searched.collection):
                    collection_search = _Search(
                        copy, database, catalogue, searched, ledger, keys, ruled
                    )
                    rows_by_relation.update(collection_search.rows(key_ids))
    except psycopg.Error as error:
        raise ServiceError(
            f"The copy cannot be searched for erased records ({describe_error(error)}).",
            "Do not use the copy. The log of its server has the details.",
        ) from None
    return {name: rows for name, rows in sorted(rows_by_relation.items()) if rows}


@dataclass
class _Search:
    """Searches a restored copy of a database for keys that were erased from one collection.

    For the attributes, see `search` and `include.erasure.catalogue.Catalogue`.
    """

    copy: psycopg.Connection[Any]
    database: str
    catalogue: Catalogue
    searched: SearchedCollection
    ledger: Connection
    keys: ErasureKeys
    ruled: Collection[TableName]

    def __post_init__(self) -> None:
        self.family = partition_family(self.copy, self.searched.table)

    def rows(self, key_ids: Sequence[str]) -> Counter[str]:
        """Count the rows of each relation that contain the key of an erased record.

        Args:
            key_ids: ids of the HMAC keys that the collection's entries use.
        """
        rows_by_relation: Counter[str] = Counter()
        for relation, query in self._queries():
            rows_by_relation[relation.label] += self._erased_rows(query, key_ids)
        for relation, query in self._partial_queries():
            rows_by_relation[relation.label] += scalar(self.copy, query) or 0
        return rows_by_relation

    def _queries(self) -> Iterator[tuple[Relation, Composed]]:
        """Yield each relation that may contain keys of the collection, with a query on it.

        The query returns each value that may be a key of the collection, and the number of rows
        that contain this value.
        """
        searched = self.searched
        for relation in self.catalogue.relations:
            if relation.oid in self.family:
                if (relation.schema, relation.name) == (
                    searched.table.schema,
                    searched.table.table,
                ):
                    yield relation, _keys_query(searched.table.identifier, searched.columns)
                continue
            if relation.is_partition:  # searched with its parent table
                continue
            for columns in self._columns_with_keys(relation):
                yield relation, _keys_query(relation.identifier, columns)
            if len(searched.columns) == 1 and not self._has_rule(relation):
                for query in _json_queries(relation, searched):
                    yield relation, query

    def _partial_queries(self) -> Iterator[tuple[Relation, Composed]]:
        """Yield the relations that may contain one column of a composite key, each with a query.

        The query counts the rows that contain the column's value of an erased record. The ledger
        has only digests of whole keys, which cannot be compared with a single column. The query
        therefore uses the keys of erased records that the replay stored in a temporary table. A row
        is not counted if a record of the collection that still exists has the same value in this
        column.
        """
        searched = self.searched
        if len(searched.columns) == 1 or searched.staged is None:
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
            for at, key in enumerate(searched.columns):
                if _fold(key) in GENERIC:
                    continue
                for name in self._columns_named_like(relation, key):
                    yield (
                        relation,
                        query.format(
                            relation=relation.identifier,
                            name=Identifier(name),
                            part=Identifier(f"k{at}"),
                            staged=searched.staged,
                            key=Identifier(key),
                            table=searched.table.identifier,
                        ),
                    )

    def _has_rule(self, relation: Relation) -> bool:
        return TableName(relation.schema, relation.name) in self.ruled

    def _columns_with_keys(self, relation: Relation) -> set[tuple[str, ...]]:
        """Return the combinations of columns in which a relation may contain the collection's key.

        The columns of a combination are in the order of the key columns.
        """
        key, has_rule = self.searched.columns, self._has_rule(relation)
        pairings: set[tuple[str, ...]] = set()
        for child, parent, validated, columns, targets in self.catalogue.foreign_keys:
            if child != relation.oid or parent not in self.family:
                continue
            if set(targets) == set(key) and not (has_rule and validated):
                pairings.add(tuple(columns[targets.index(column)] for column in key))
        if relation.kind == "m":
            candidates = [self._columns_showing(relation, column) for column in key]
            pairings |= set(islice(product(*candidates), MOST_PAIRINGS))
        if not has_rule:
            candidates = [self._columns_named_like(relation, column) for column in key]
            pairings |= set(islice(product(*candidates), MOST_PAIRINGS))
        return pairings

    def _columns_named_like(self, relation: Relation, key: str) -> list[str]:
        """Return the columns whose name suggests that they contain the values of a key column.

        A column is left out if it has a foreign key to a table other than the collection's table.

        Args:
            relation: relation whose columns are examined.
            key: name of the key column.
        """
        elsewhere = columns_referring_elsewhere(self.catalogue, relation, self.family)
        return [
            name
            for name in relation.columns
            if name not in elsewhere and _is_named_like(name, key, relation, self.searched)
        ]

    def _columns_showing(self, relation: Relation, key: str) -> list[str]:
        """Return the columns of a view that show a key column, or a foreign key to the key column.

        Args:
            relation: the view.
            key: name of the key column.
        """
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
        """Count the rows that contain the key of a record that the ledger lists as deleted.

        Args:
            query: query that returns keys and the number of rows with each key.
            key_ids: ids of the HMAC keys that the collection's entries use.
        """
        erased, collection = 0, self.searched.collection
        driver = psycopg_connection(self.ledger)
        with self.copy.cursor(f"parcelseal_search_{next(_numbers)}") as cursor:
            cursor.execute(query)
            while rows := cursor.fetchmany(KEYS_AT_ONCE):
                for key_id in key_ids:
                    counts: Counter[bytes] = Counter()
                    for *key, number in rows:
                        text = json.dumps([self.database, collection, key], ensure_ascii=False)
                        digest = hmac.digest(self.keys.keys[key_id], text.encode(), "sha256")
                        counts[digest] += number
                    parameters = {
                        "digests": list(counts),
                        "key_id": key_id,
                        "database": self.database,
                        "collection": collection,
                        "key_types": [types or "" for types in self.searched.key_types],
                    }
                    # A prepared statement gets a generic plan from the 11th execution: a nested
                    # loop, 50 to 1,000 times slower while the ledger's tables have no statistics.
                    for (digest,) in driver.execute(_ENTERED, parameters, prepare=False):
                        erased += counts[digest]
        return erased


def _keys_query(relation: Composable, columns: Sequence[str]) -> Composed:
    texts = SQL(", ").join(SQL("{}::text").format(Identifier(column)) for column in columns)
    filled = SQL(" AND ").join(
        SQL("{} IS NOT NULL").format(Identifier(column)) for column in columns
    )
    numbers = SQL(", ").join(SQL(str(at + 1)) for at in range(len(columns)))
    return SQL("SELECT {}, count(*) FROM {} WHERE {} GROUP BY {}").format(
        texts, relation, filled, numbers
    )


def _fold(name: str) -> str:
    """Return a name in lower case without underscores: ``customerid`` for ``customer_Id``."""
    return name.lower().replace("_", "")


def _name_endings(name: str) -> set[str]:
    """Return the endings of a name that start at the beginning of a word.

    The endings are in lower case without underscores. For example, ``old_customerId`` gives
    ``oldcustomerid``, ``customerid`` and ``id``.
    """
    words = _WORD_BOUNDARY.split(name)
    return {_fold("".join(words[at:])) for at in range(len(words))}


def _owner_names(searched: SearchedCollection) -> set[str]:
    """Return the names of a collection and its table, in lower case without underscores.

    A column may contain the key of the collection if its name consists of one of these names and
    the name of the key column, as ``customer_id`` consists of ``customer`` and ``id``.

    Args:
        searched: collection that has the key column.
    """
    table = _fold(searched.table.table)
    return {table, table.removesuffix("s"), _fold(searched.collection)}


def _is_named_like(name: str, key: str, relation: Relation, searched: SearchedCollection) -> bool:
    """Return whether a column's name suggests that the column contains values of a key column.

    Args:
        name: name of the column.
        key: name of the key column.
        relation: relation that has the column.
        searched: collection that has the key column.
    """
    owners, key = _owner_names(searched), _fold(key)
    qualified = {f"{owner}{key}" for owner in owners} | ({key} - GENERIC)
    versions = {f"{_fold(version)}{text}" for version in VERSIONS for text in qualified}
    if qualified & _name_endings(name) or _fold(name) in versions:
        return True
    if key not in GENERIC:
        return False
    if len(searched.columns) > 1:  # the values of two columns rarely match by chance
        return _fold(name) == key
    return (
        any(owner in _fold(relation.name) for owner in owners if len(owner) > 1)
        and any(_fold(name) == f"{_fold(version)}{key}" for version in VERSIONS)
        and name.lower() not in {column.lower() for column in relation.numbered}
    )


def _json_queries(relation: Relation, searched: SearchedCollection) -> Iterator[Composed]:
    """Yield queries for JSON members whose name is similar to the name of the key column.

    Args:
        relation: relation whose JSON columns are read.
        searched: collection that has the key column.
    """
    owners, key = _owner_names(searched), _fold(searched.columns[0])
    members = {f"{owner}{key}" for owner in owners}
    condition: Composable = SQL("true")
    if key not in GENERIC or any(owner in _fold(relation.name) for owner in owners):
        members.add(key)
        generic: set[str] = set()
    else:  # an audit table for several tables has the name of the table in another column
        generic = {key}
        texts = [
            name
            for name, kind in zip(relation.columns, relation.types, strict=True)
            if kind in ("text", "varchar", "bpchar", "name")
        ]
        schema, table = searched.table.schema, searched.table.table
        names = Literal([_fold(name) for name in (table, f"{schema}.{table}", searched.collection)])
        same = SQL("lower(replace({}::text, '_', '')) = ANY({})")
        condition = SQL("({})").format(
            SQL(" OR ").join(
                [SQL("false"), *(same.format(Identifier(column), names) for column in texts)]
            )
        )
    for column, kind in zip(relation.columns, relation.types, strict=True):
        if kind not in ("json", "jsonb", "hstore"):
            continue
        for names_of, only in ((members, SQL("true")), (generic, condition)):
            if names_of:
                yield _json_query(relation, column, kind, names_of, only)


def _json_query(
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
