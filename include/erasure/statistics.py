"""Renew the planner's statistics of a restored copy, which hold values of erased records."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from include.erasure.matching import kind_of
from include.erasure.places import Place
from include.services.errors import ServiceError

# What the transaction changed, cascades included; everything where the server does not count. The
# collections' tables too: the load may have brought statistics from before an earlier erasure.
_RELATIONS = """
WITH RECURSIVE changed (oid) AS (
    SELECT c.oid FROM pg_class c LEFT JOIN pg_stat_xact_all_tables s ON s.relid = c.oid
    WHERE c.relkind = 'm' AND c.relispopulated OR s.n_tup_upd + s.n_tup_del > 0
    OR NOT current_setting('track_counts')::bool
    OR c.oid IN (SELECT to_regclass(name) FROM unnest(%s::text[]) AS name)
    UNION SELECT other.oid FROM changed CROSS JOIN LATERAL (
        SELECT relid::oid FROM pg_partition_tree(changed.oid)
        UNION ALL SELECT inhparent FROM pg_inherits WHERE inhrelid = changed.oid) AS other (oid)
)
SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind = 'm', c.relispartition
FROM changed JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY 2, 3
"""
# ANALYZE leaves the statistics of a table without rows, and those of a column without a target.
_CLEAR = """
DELETE FROM pg_statistic WHERE starelid = ANY(%(oids)s) OR starelid IN (
    SELECT indexrelid FROM pg_index WHERE indrelid = ANY(%(oids)s))
"""
_CLEAR_EXTENDED = """
DELETE FROM pg_statistic_ext_data WHERE stxoid IN (
    SELECT oid FROM pg_statistic_ext WHERE stxrelid = ANY(%(oids)s))
"""
# For other roles than superusers, since PostgreSQL 18.
_CLEAR_AS_OWNER = """
SELECT pg_clear_attribute_stats(n.nspname::text, c.relname::text, a.attname::text, inherited)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
CROSS JOIN (VALUES (false), (true)) AS v (inherited)
WHERE (c.oid = ANY(%(oids)s) OR c.oid IN (
    SELECT indexrelid FROM pg_index WHERE indrelid = ANY(%(oids)s)))
  AND (inherited OR c.relkind NOT IN ('p', 'I')) AND (c.relkind IN ('r', 'p') OR NOT inherited)
"""


def renew_statistics(copy: psycopg.Connection[Any], places: Iterable[Place]) -> None:
    """Clear and renew the statistics of relations that the transaction changed.

    Args:
        copy: the restored database, in the transaction of the replay, which stays open.
        places: tables of the ledger's collections, whose statistics are renewed in any case.

    Raises:
        ServiceError: the copy refuses; the transaction is rolled back.
    """
    names = [place.identifier.as_string(copy) for place in places]
    try:
        relations = copy.execute(_RELATIONS, [names]).fetchall()
        for _oid, schema, name, is_view, _ in relations:
            if not is_view:  # a refreshed view is locked already; others must not fill it meanwhile
                lock = SQL("LOCK TABLE ONLY {} IN SHARE UPDATE EXCLUSIVE MODE")
                copy.execute(lock.format(Identifier(schema, name)))
        oids = {"oids": [oid for oid, *_ in relations]}
        if copy.execute(
            "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
        ).fetchone() == (True,):
            copy.execute(_CLEAR, oids)
            copy.execute(_CLEAR_EXTENDED, oids)
        elif copy.info.server_version >= 180000:
            copy.execute(_CLEAR_AS_OWNER, oids)
        for _oid, schema, name, _, is_partition in relations:
            if not is_partition:  # analyzed with the table above it
                copy.execute(SQL("ANALYZE {}").format(Identifier(schema, name)))
    except psycopg.Error as error:
        if not copy.broken:
            copy.rollback()
        raise ServiceError(
            "The planner's statistics of the copy cannot be renewed, so they may hold values of "
            f"erased records ({kind_of(error)}).",
            "The copy is not fit for use. The log of its server tells more.",
        ) from None
