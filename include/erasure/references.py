"""Foreign keys: the record that they refer to, and those that retention sets to null.

By the key's own operators and by the parent's collation, as PostgreSQL itself does. A plain ``=``
is another one where the columns differ in collation or the key uses another operator class.

A complaint outlives its waybill, since the pack says so (`detach`). A backup from before holds both
and the reference, which would keep the waybill from being erased again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier, Literal

from include.erasure.places import Place
from include.policy.retention import RetentionRule

COMPARED = """array(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(num, ord)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY ord)
           AS columns,
       array(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(num, ord)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY ord)
           AS targets,
       array(SELECT ARRAY[n.nspname::text, o.oprname::text]
             FROM unnest(k.conpfeqop) WITH ORDINALITY u(op, ord)
             JOIN pg_operator o ON o.oid = u.op JOIN pg_namespace n ON n.oid = o.oprnamespace
             ORDER BY ord) AS operators,
       array(SELECT CASE WHEN a.attcollation <> b.attcollation
                    THEN ARRAY[n.nspname::text, l.collname::text] ELSE ARRAY['', ''] END
             FROM unnest(k.confkey, k.conkey) WITH ORDINALITY u(theirs, mine, ord)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.theirs
             JOIN pg_attribute b ON b.attrelid = k.conrelid AND b.attnum = u.mine
             LEFT JOIN pg_collation l ON l.oid = a.attcollation
             LEFT JOIN pg_namespace n ON n.oid = l.collnamespace ORDER BY ord) AS collations"""
"""Columns of a query over ``pg_constraint k``: the first four attributes of a `Reference`."""


@dataclass(frozen=True)
class Reference:
    """How a foreign key compares.

    Attributes:
        columns: of the child.
        targets: of the parent, in the same order.
        operators: schema and name of the operators that compare parent and child, by column.
        collations: schema and name of the parent's collation where the child has another; else
            twice nothing.
        partitions: oids of the tables whose records it leads to; any of the parent where empty.
    """

    columns: Sequence[str]
    targets: Sequence[str]
    operators: Sequence[Sequence[str]]
    collations: Sequence[Sequence[str]]
    partitions: Sequence[int] = ()

    def joined(self, child: str, parent: str) -> Composable:
        """The condition that a child's record refers to a parent's, for a query without parameters.

        Args:
            child: alias of the child, whose columns are called as in the table.
            parent: alias of the parent, likewise, with its ``tableoid``.
        """
        same: list[Composable] = []
        for at, (mine, theirs) in enumerate(zip(self.columns, self.targets, strict=True)):
            schema, operator = self.operators[at]
            by: Composable = SQL("")
            if self.collations[at][1]:
                by = SQL(" COLLATE {}").format(Identifier(*self.collations[at]))
            same.append(
                SQL("{} OPERATOR({}.{}) {}{}").format(
                    Identifier(parent, theirs),
                    Identifier(schema),
                    SQL(operator),
                    Identifier(child, mine),
                    by,
                )
            )
        if self.partitions:
            where = Identifier(parent, "tableoid")
            same.append(SQL("{} = ANY ({}::oid[])").format(where, Literal(list(self.partitions))))
        return SQL("({})").format(SQL(" AND ").join(same))


# Keys that partitions have from their parents are the parent's.
_KEYS = f"""
WITH parents AS (
    SELECT to_regclass(%(parent)s)::oid AS oid
    UNION SELECT relid::oid FROM pg_partition_tree(to_regclass(%(parent)s))
), children AS (
    SELECT to_regclass(%(child)s)::oid AS oid
    UNION SELECT relid::oid FROM pg_partition_tree(to_regclass(%(child)s))
)
SELECT n.nspname::text, c.relname::text,
       {COMPARED},
       array(SELECT k.confrelid UNION SELECT relid::oid FROM pg_partition_tree(k.confrelid))
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0
  AND k.confrelid IN (SELECT oid FROM parents) AND k.conrelid IN (SELECT oid FROM children)
ORDER BY 1, 2, k.conname
"""  # noqa: S608 - fixed text


def detached_of(rules: Iterable[RetentionRule]) -> dict[str, tuple[str, ...]]:
    """Return what retention.yaml detaches from each collection, as ``collection.field``."""
    found: dict[str, tuple[str, ...]] = {}
    for one in rules:
        if one.detach:
            found[one.collection] = (*found.get(one.collection, ()), *one.detach)
    return found


def detach(
    copy: psycopg.Connection[Any],
    place: Place,
    fields: Sequence[str],
    places: Mapping[str, Place],
    erased: Composable,
) -> None:
    """Set the named columns of references to erased records to null.

    Args:
        copy: the restored database.
        place: table of the erased records.
        fields: that are detached from it, as ``collection.field``.
        places: collection -> table.
        erased: FROM and WHERE of the erased records, called ``t``.

    Raises:
        psycopg.Error: a reference cannot be null, or a trigger refuses.
    """
    for collection in dict.fromkeys(one.rpartition(".")[0] for one in fields):
        if collection not in places:
            continue
        names = {
            "parent": place.identifier.as_string(copy),
            "child": places[collection].identifier.as_string(copy),
        }
        for schema, table, *compared in copy.execute(_KEYS, names).fetchall():
            key = Reference(*compared)
            nulled = [one for one in key.columns if f"{collection}.{one}" in fields]
            if not nulled:
                continue
            query = SQL(
                "UPDATE {child} AS c SET {nulls} "
                "FROM (SELECT t.tableoid, {targets} {erased}) AS p WHERE {refers}"
            ).format(
                child=Identifier(schema, table),
                nulls=SQL(", ").join(SQL("{} = NULL").format(Identifier(one)) for one in nulled),
                targets=SQL(", ").join(Identifier("t", one) for one in key.targets),
                erased=erased,
                refers=key.joined("c", "p"),
            )
            copy.execute(query)
