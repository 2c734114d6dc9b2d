"""Read the primary keys, partitions and foreign keys of mapped tables from PostgreSQL's catalogue.

Foreign keys may be added after the data map was written. A plan therefore reads them from the
catalogue.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composable

from include.erasure.tables import COMPARISON_COLUMNS, Reference, key_texts
from include.policy.datamap import MappedCollection, MappedDatabase
from include.policy.fragments import escape_percent, quoted
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
# A foreign key that a partition inherits counts as a key of the partitioned table. A key that
# refers to a partition, or that only a partition has, is a foreign key of its own.
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
       {COMPARISON_COLUMNS},
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
    """A table that stores rows: a table without partitions, or a partition.

    Attributes:
        oid: oid of the table.
        schema: schema of the table.
        name: name of the table.
        parent: oid of the table to which the partition is attached. For a table without partitions,
            it is the oid of the table itself.
        ours: whether the current role may delete rows with a statement that names this table.
            Rights on a partitioned table do not apply to statements that name a partition.
    """

    oid: int
    schema: str
    name: str
    parent: int
    ours: bool = True

    @property
    def identifier(self) -> Composable:
        """The schema-qualified name of the table as SQL, escaped for psycopg queries."""
        return quoted(self.schema, self.name)


@dataclass(frozen=True)
class Relation:
    """The table of a collection.

    Attributes:
        oid: oid of the table.
        collection: name of the collection in the data map.
        schema: schema of the table.
        name: name of the table.
        key: columns of the primary key.
        leaves: tables that store the rows: the partitions of a partitioned table, or the table
            itself.
        partitioned: whether the table is partitioned.
        nullable: columns that may be null.
        hashable: columns whose values PostgreSQL can hash in their own data type. Values of other
            columns are hashed as text.
        fault: reason why records of the table cannot be disposed of; None if they can.
        owner: role that owns the table.
        owned: whether the current role has the rights of the owner.
        can_become_owner: whether the current role may execute ``SET ROLE`` to the owner.
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
        """The schema-qualified name of the table as SQL, escaped for psycopg queries."""
        return quoted(self.schema, self.name)

    @property
    def key_texts(self) -> Composable:
        """SQL expressions for the primary key columns of a record ``t``, as texts."""
        return escape_percent(key_texts(self.key))


@dataclass(frozen=True, kw_only=True)
class ForeignKey(Reference):
    """A foreign key that refers to a mapped table.

    Attributes:
        name: name of the constraint.
        parent: oid of the referenced table. If the foreign key refers to a partition, oid of the
            table to which the partition belongs.
        child: oid of the table that has the foreign key.
        child_root: oid of the table to which the child belongs if the child is a partition;
            otherwise the same as ``child``.
        child_schema: schema of the child.
        child_table: name of the child.
        on_delete: PostgreSQL's action when the referenced record is deleted.
        validated: whether PostgreSQL has checked the foreign key for all records; False if it is
            NOT VALID.
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
        """The schema-qualified name of the referring table as SQL, escaped for psycopg queries."""
        return quoted(self.child_schema, self.child_table)

    @property
    def constrained(self) -> Composable:
        """The name, as SQL, of the table that has the foreign key.

        If tables inherit from this table, a query on the name does not include them.
        """
        return self.identifier if self.partitioned else SQL("ONLY {}").format(self.identifier)

    def joined(self, child: str, parent: str) -> Composable:
        """Return the SQL condition that joins a referring record to the record to which it refers.

        Args:
            child: SQL alias of the table that has the foreign key. The columns of the foreign key
                have their own names there.
            parent: SQL alias of the referenced table, which must have a column ``tableoid``.
        """
        return escape_percent(super().joined(child, parent))

    @property
    def label(self) -> str:
        """The schema-qualified name of the referring table, for messages."""
        return f"{self.child_schema}.{self.child_table}"


@dataclass(frozen=True)
class Relations:
    """The mapped tables of a database, and the foreign keys that refer to them.

    Attributes:
        by_collection: collection -> its table.
        keys: foreign keys that refer to these tables.
        collections: oid of a table -> its collection.
    """

    by_collection: Mapping[str, Relation]
    keys: Sequence[ForeignKey]
    collections: Mapping[int, str] = field(default_factory=dict)

    def collection_of(self, oid: int) -> str | None:
        """Return the collection of a table, or None if the table is not in the data map.

        Args:
            oid: oid of the table.
        """
        return self.collections.get(oid)

    def keys_to(self, relation: Relation) -> list[ForeignKey]:
        """Return the foreign keys that refer to a table."""
        return [key for key in self.keys if key.parent == relation.oid]


def read_relations(connection: psycopg.Connection[Any], database: MappedDatabase) -> Relations:
    """Read the tables of all mapped collections, and the foreign keys that refer to them.

    Tables that do not exist are left out.
    """
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
    return Relations(relations, keys, {relation.oid: name for name, relation in relations.items()})


def require_disposable(relations: Relations, collections: Iterable[str]) -> None:
    """Check that the records of certain collections can be disposed of.

    Args:
        relations: the mapped tables.
        collections: names of the collections.

    Raises:
        UsageError: a table does not exist, is a view or a single partition, has no primary key,
            inherits from another table or is inherited from, or belongs to two collections. With
            inheritance, keys are not unique.
    """
    for name in dict.fromkeys(collections):
        relation = relations.by_collection.get(name)
        if relation is None:
            raise UsageError(
                f"The database has no table for the collection {name}.",
                "Correct the data map, or remove the class from retention.yaml.",
            )
        if relation.fault:
            raise UsageError(
                f"Records of {name} cannot be disposed of: {relation.schema}.{relation.name} "
                f"{relation.fault}.",
                "Correct the table or the data map, or remove the class from retention.yaml.",
            )
        if relations.collection_of(relation.oid) != name:
            raise UsageError(
                f"{name} and {relations.collection_of(relation.oid)} are the same table, "
                f"{relation.schema}.{relation.name}; so their record classes would conflict.",
                "Remove one of the collections from the data map.",
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
