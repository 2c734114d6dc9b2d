"""References that retention sets to null when their record goes, in a restored copy too.

A complaint outlives its waybill, since the pack says so (`detach`). A backup from before holds both
and the reference, which would keep the waybill from being erased again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier

from include.erasure.places import Place
from include.erasure.references import COMPARED, Reference
from include.policy.retention import RetentionRule

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
