"""Read the live tables: keys, partitions, and every foreign key that refers to them.

A plan reads them from the catalogue and not from the data map, so that a new foreign key counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composable

from include.erasure.places import COMPARED, Reference, key_texts
from include.policy.datamap import MappedCollection, MappedDatabase
from include.policy.fragments import fixed, quoted
from include.services.errors import UsageError

OnDelete = Literal["no_action", "restrict", "cascade", "set_null", "set_default"]
_ON_DELETE: dict[str, OnDelete] = {
    "a": "no_action",
    "r": "restrict",
    "c": "cascade",
    "n": "set_null",
    "d": "set_default",
}
_TABLES = """
SELECT c.oid::bigint, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
       pg_get_userbyid(c.relowner)::text AS owner,
       pg_has_role(c.relowner, 'USAGE') AS owned,
       pg_has_role(c.relowner, CASE WHEN current_setting('server_version_num')::int < 160000
                                    THEN 'MEMBER' ELSE 'SET' END) AS can_become_owner,
       EXISTS (SELECT FROM pg_inherits i JOIN pg_class o
               ON o.oid = CASE WHEN i.inhrelid = c.oid THEN i.inhparent ELSE i.inhrelid END
               WHERE c.oid IN (i.inhrelid, i.inhparent) AND c.relkind = 'r'
                 AND o.relkind IN ('r', 'f') AND NOT c.relispartition) AS inherits,
       c.relispartition AS is_partition,
       EXISTS (SELECT FROM pg_partition_tree(c.oid) p JOIN pg_class f ON f.oid = p.relid
               WHERE p.isleaf AND f.relkind = 'f') AS foreign_parts,
       array(SELECT a.attname::text FROM pg_index x
             CROSS JOIN LATERAL unnest(x.indkey) WITH ORDINALITY k(num, place)
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.num
             WHERE x.indrelid = c.oid AND x.indisprimary AND k.place <= x.indnkeyatts
             ORDER BY k.place) AS key,
       array(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.atttypid = ANY (
               '{int2,int4,int8,uuid,text,date,timestamp,timestamptz}'::regtype[])) AS hashable,
       array(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND NOT a.attnotnull)
           AS nullable
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN unnest(%(schemas)s::text[], %(tables)s::text[]) AS w(s, t)
  ON w.s = n.nspname AND w.t = c.relname
"""
_LEAVES = """
SELECT root.oid::bigint AS root, leaf.relid::oid::bigint AS oid, n.nspname::text AS schema,
       c.relname::text AS name, leaf.parentrelid::oid::bigint AS parent,
       has_table_privilege(c.oid, 'DELETE') AS ours
FROM unnest(%(roots)s::oid[]) AS root(oid)
CROSS JOIN LATERAL pg_partition_tree(root.oid) AS leaf
JOIN pg_class c ON c.oid = leaf.relid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE leaf.isleaf AND leaf.relid <> root.oid
ORDER BY root.oid, n.nspname, c.relname
"""
# Keys that partitions have from their parents are the parent's; one that leads to a partition, or
# that a partition has for itself, is a key of its own.
_KEYS = f"""
WITH RECURSIVE parts AS (
    SELECT oid AS root, oid FROM unnest(%(tables)s::oid[]) AS t(oid)
    UNION ALL SELECT p.root, i.inhrelid FROM parts p JOIN pg_inherits i ON i.inhparent = p.oid
)
SELECT k.conname::text AS name, -- PostgreSQL 18 does nothing for a key that is NOT ENFORCED
       CASE WHEN to_jsonb(k) ->> 'conenforced' = 'false' THEN 'a'
            ELSE k.confdeltype::text END AS on_delete, k.convalidated AS validated,
       p.root::bigint AS parent, k.conrelid::bigint AS child, cc.relkind = 'p' AS partitioned,
       cn.nspname::text AS child_schema, cc.relname::text AS child_table,
       {COMPARED},
       array(SELECT t.relid::oid::bigint FROM pg_partition_tree(k.confrelid) t
             WHERE t.isleaf AND k.confrelid <> p.root) AS partitions,
       coalesce((SELECT min(p2.root)::bigint FROM parts p2 WHERE p2.oid = k.conrelid),
                k.conrelid::bigint) AS child_root
FROM parts p JOIN pg_constraint k ON k.confrelid = p.oid AND k.contype = 'f' AND k.conparentid = 0
JOIN pg_class cc ON cc.oid = k.conrelid JOIN pg_namespace cn ON cn.oid = cc.relnamespace
ORDER BY cn.nspname, cc.relname, k.conname
"""  # noqa: S608 - fixed text


@dataclass(frozen=True)
class Leaf:
    """A table that has rows itself: a plain one, or a partition.

    Attributes:
        parent: oid of the table that it is a partition of; its own for a plain table.
        ours: whether we may delete from it directly: rights to a partitioned table do not reach
            its partitions where these are named themselves.
    """

    oid: int
    schema: str
    name: str
    parent: int
    ours: bool = True

    @property
    def identifier(self) -> Composable:
        """The qualified name for a query with parameters."""
        return quoted(self.schema, self.name)


@dataclass(frozen=True)
class Relation:
    """The table of a collection.

    Attributes:
        collection: its name in the data map.
        key: columns of the primary key.
        leaves: where its rows are; one for a plain table.
        partitioned: whether it is a partitioned table.
        nullable: columns that may be null.
        hashable: columns whose type PostgreSQL can hash in any way; of some types it cannot.
        fault: why its records cannot be disposed of.
        owner: role that owns it.
        owned: whether we have the owner's rights.
        can_become_owner: whether ``SET ROLE`` gives them to us.
    """

    oid: int
    collection: str
    schema: str
    name: str
    key: tuple[str, ...]
    leaves: tuple[Leaf, ...]
    partitioned: bool
    nullable: frozenset[str]
    owner: str
    owned: bool
    can_become_owner: bool
    hashable: frozenset[str] = frozenset()
    fault: str | None = None

    @property
    def identifier(self) -> Composable:
        """The qualified name for a query with parameters."""
        return quoted(self.schema, self.name)

    @property
    def key_texts(self) -> Composable:
        """The columns of the primary key of the record ``t``, as texts."""
        return fixed(key_texts(self.key))


@dataclass(frozen=True, kw_only=True)
class ForeignKey(Reference):
    """A foreign key that refers to a collection.

    Attributes:
        name: of the constraint.
        parent: oid of the collection's table that it refers to, or whose partition it refers to.
        child: oid of the table that has it.
        child_root: oid of the collection's table that this one is, or is a partition of.
        label: ``schema.table`` of the child for people.
        on_delete: PostgreSQL's action when the parent is deleted.
        validated: whether PostgreSQL has checked all records; false for a key that is NOT VALID.
        partitioned: whether the child is a partitioned table.
    """

    name: str
    parent: int
    child: int
    child_root: int
    child_schema: str
    child_table: str
    on_delete: OnDelete
    validated: bool = True
    partitioned: bool = False

    @property
    def identifier(self) -> Composable:
        """The child's qualified name for a query with parameters."""
        return quoted(self.child_schema, self.child_table)

    @property
    def constrained(self) -> Composable:
        """The records that the key is about, without those of inheriting tables (INHERITS)."""
        return self.identifier if self.partitioned else SQL("ONLY {}").format(self.identifier)

    def joined(self, child: str, parent: str) -> Composable:
        """The condition that a child's record refers to a parent's, as the key itself compares.

        Args:
            child: alias of the child, whose columns are called as in the table.
            parent: alias of the parent, likewise, with its ``tableoid``.
        """
        return fixed(super().joined(child, parent))

    @property
    def label(self) -> str:
        """The child for people."""
        return f"{self.child_schema}.{self.child_table}"


@dataclass(frozen=True)
class Relations:
    """The mapped tables of a database and what refers to them.

    Attributes:
        by_collection: tables by the collection's name.
        keys: foreign keys that lead to one of them.
    """

    by_collection: Mapping[str, Relation]
    keys: Sequence[ForeignKey]
    collections: Mapping[int, str] = field(default_factory=dict)

    def collection_of(self, oid: int) -> str | None:
        """Return the collection of a table, or None if the data map lacks the table."""
        return self.collections.get(oid)

    def keys_to(self, relation: Relation) -> list[ForeignKey]:
        """Return the foreign keys that refer to a table."""
        return [key for key in self.keys if key.parent == relation.oid]


def read_relations(connection: psycopg.Connection[Any], database: MappedDatabase) -> Relations:
    """Read the tables of all mapped collections, without tables that the database lacks."""
    collections = list(database.collections.values())
    names = {
        "schemas": [collection.schema_name for collection in collections],
        "tables": [collection.table for collection in collections],
    }
    with connection.cursor(row_factory=dict_row) as cursor:
        tables = {(row["schema"], row["name"]): row for row in cursor.execute(_TABLES, names)}
        roots = [row["oid"] for row in tables.values() if row["kind"] == "p"]
        leaves: dict[int, list[Leaf]] = {root: [] for root in roots}
        for row in cursor.execute(_LEAVES, {"roots": roots}):
            leaves[row.pop("root")].append(Leaf(**row))
        oids = [row["oid"] for row in tables.values()]
        keys = [_key(row) for row in cursor.execute(_KEYS, {"tables": oids})]
    relations = {
        collection.name: _relation(collection, table, leaves)
        for collection in collections
        if (table := tables.get((collection.schema_name, collection.table)))
    }
    return Relations(relations, keys, {it.oid: name for name, it in relations.items()})


def require(relations: Relations, collections: Iterable[str]) -> None:
    """Refuse collections whose records cannot be disposed of.

    Raises:
        UsageError: no such table, not a table, without a primary key, a single partition, one of
            PostgreSQL's inheritance, whose keys are not unique, or a table of two collections.
    """
    for name in dict.fromkeys(collections):
        relation = relations.by_collection.get(name)
        if relation is None:
            raise UsageError(
                f"The database has no table for the collection {name}.",
                "Correct the data map, or take the class out of retention.yaml.",
            )
        if relation.fault:
            raise UsageError(
                f"Records of {name} cannot be disposed of: {relation.schema}.{relation.name} "
                f"{relation.fault}.",
                "Correct the table or the data map, or take the class out of retention.yaml.",
            )
        if relations.collection_of(relation.oid) != name:
            raise UsageError(
                f"{name} and {relations.collection_of(relation.oid)} are the same table, "
                f"{relation.schema}.{relation.name}; its classes would not know of each other.",
                "Leave one of the collections out of the data map.",
            )


def _relation(
    mapped: MappedCollection, raw: Mapping[str, Any], leaves: Mapping[int, list[Leaf]]
) -> Relation:
    oid = raw["oid"]
    own = (Leaf(oid, raw["schema"], raw["name"], oid),)
    return Relation(
        oid=oid,
        collection=mapped.name,
        schema=raw["schema"],
        name=raw["name"],
        key=tuple(raw["key"]),
        leaves=tuple(leaves[oid]) if raw["kind"] == "p" else own,
        partitioned=raw["kind"] == "p",
        nullable=frozenset(raw["nullable"]),
        owner=raw["owner"],
        owned=raw["owned"],
        can_become_owner=raw["can_become_owner"],
        hashable=frozenset(raw["hashable"]),
        fault=_fault(raw),
    )


def _fault(raw: Mapping[str, Any]) -> str | None:
    if raw["kind"] not in ("r", "p"):
        kinds = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
        return f"is {kinds.get(raw['kind'], 'something else')} and no table"
    if raw["inherits"]:
        return "inherits from another table, or another from it, so that keys are not unique"
    if raw["is_partition"]:
        return "is a partition; foreign keys lead to the whole table, so name that one"
    if raw["foreign_parts"]:
        return "has a partition that is a foreign table"
    return None if raw["key"] else "has no primary key, so that an erased record has no name"


def _key(raw: dict[str, Any]) -> ForeignKey:
    return ForeignKey(
        **raw
        | {
            "on_delete": _ON_DELETE[raw["on_delete"]],
            "columns": tuple(raw["columns"]),
            "targets": tuple(raw["targets"]),
            "operators": tuple((schema, operator) for schema, operator in raw["operators"]),
            "collations": tuple((schema, collation) for schema, collation in raw["collations"]),
            "partitions": tuple(raw["partitions"]),
        }
    )
